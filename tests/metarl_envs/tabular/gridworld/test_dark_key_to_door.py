from functools import cache

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular import optimal_values
from metarl_envs.tabular.gridworld import (
    DarkKeyToDoorEnv,
    DarkKeyToDoorFamily,
    DarkKeyToDoorTask,
)

MOVES = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]


def stepped(cell, phase, action, task, size):
    """Next cell, phase and reward, by the rules."""
    x, y = (min(max(a + b, 0), size - 1) for a, b in zip(cell, MOVES[action], strict=True))
    reward = 0
    if phase == 0 and (x, y) == task.key:
        phase, reward = 1, 1
    if phase == 1 and (x, y) == task.door:
        phase, reward = 2, reward + 1
    return (x, y), phase, reward


def searched_return(family, start, task):
    """The best return, by looking at every sequence of cells."""

    @cache
    def best(cell, phase, n_left):
        if not n_left:
            return 0
        results = {stepped(cell, phase, action, task, family.size) for action in range(5)}
        return max(reward + best(*state, n_left - 1) for *state, reward in results)

    return best(start, 0, family.horizon)


def all_tasks(size):
    return [
        DarkKeyToDoorTask(tuple(row[:2]), tuple(row[2:]))
        for row in np.indices((size,) * 4).reshape(4, -1).T.tolist()
    ]


@pytest.mark.parametrize("ends_at_door", [False, True])
@pytest.mark.parametrize(("horizon", "start"), [(1, None), (3, (0, 0)), (4, None), (9, (2, 1))])
def test_formula_backward_induction_and_search_agree_on_the_optimum(horizon, start, ends_at_door):
    family = DarkKeyToDoorFamily(size=3, horizon=horizon, start=start, ends_at_door=ends_at_door)
    tasks = all_tasks(3)
    mdps = family.finite_mdps(tasks)
    returns = family.optimal_returns(tasks)
    # Sums of zeros and ones are exact.
    np.testing.assert_array_equal((optimal_values(mdps)[:, 0] * mdps.initial).sum(-1), returns)
    np.testing.assert_array_equal(
        [searched_return(family, start or (1, 1), task) for task in tasks], returns
    )
    assert family.n_reset_uniforms == 0
    assert horizon == 1 or len(set(returns)) > 1 or returns.min() == 2


@pytest.mark.parametrize("ends_at_door", [False, True])
@pytest.mark.parametrize("horizon", [1, 3, 5, 8, 20])
def test_the_optimum_over_random_starts_is_the_mean_over_cells(horizon, ends_at_door):
    family = DarkKeyToDoorFamily(size=3, horizon=horizon, ends_at_door=ends_at_door)
    tasks, cells = all_tasks(3), np.indices((3, 3)).reshape(2, -1).T.tolist()
    expected = [
        np.mean([searched_return(family, tuple(cell), task) for cell in cells]) for task in tasks
    ]
    # Sums of ninths.
    np.testing.assert_allclose(family.optimal_returns(tasks), expected, rtol=0, atol=1e-12)
    mdps = family.finite_mdps(tasks)
    values = (optimal_values(mdps)[:, 0] * mdps.initial).sum(axis=-1)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


def test_episodes_start_on_any_cell_unless_told_where():
    def starts(**arguments):
        env = DarkKeyToDoorEnv(size=3, **arguments)
        return {tuple(env.reset(seed=seed)[0].tolist()) for seed in range(200)}

    # Each of nine cells is missed with probability (8/9)^200 < 1e-10.
    assert starts() == {(x, y) for x in range(3) for y in range(3)}
    assert starts(start=None) == {(1, 1)}
    assert starts(start=(0, 2)) == {(0, 2)}
    assert DarkKeyToDoorFamily().n_reset_uniforms == 1
    last = DarkKeyToDoorFamily(size=3).initial({}, np.array([[0.0], [1.0 - 2.0**-53]]))
    assert last.tolist() == [0, 8 * 3]


def test_the_published_room_has_6561_tasks_and_optimum_2():
    family = DarkKeyToDoorFamily()
    assert family.task_distribution.n_tasks == 6561
    tasks = sample_tasks(family.task_distribution, 20, seed=0)
    # 8 steps to the farthest key, 16 to the farthest door: 50 are enough.
    tasks += [DarkKeyToDoorTask((0, 0), (8, 8)), DarkKeyToDoorTask((4, 4), (4, 4))]
    np.testing.assert_array_equal(family.optimal_returns(tasks), 2.0)
    mdp = family.finite_mdp(tasks[0])
    assert mdp.transitions.shape == (243, 5, 243)
    assert optimal_values(mdp)[0] @ mdp.initial == 2.0


@pytest.mark.parametrize("ends_at_door", [False, True])
def test_every_state_and_action_does_what_the_rules_say(ends_at_door):
    family = DarkKeyToDoorFamily(size=3, ends_at_door=ends_at_door)
    for task in all_tasks(3)[::7]:
        mdp = family.finite_mdp(task)
        params = family.compile(task.to_array()[None])
        for state in range(27):
            for action in range(5):
                following, rewards, terminated = family.step(
                    params,
                    np.array([state]),
                    np.zeros(1, int),
                    np.array([action]),
                    np.empty((1, 0)),
                )
                (x, y), phase, reward = stepped(divmod(state // 3, 3), state % 3, action, task, 3)
                assert following[0] == (3 * x + y) * 3 + phase
                assert rewards[0] == reward == mdp.rewards[state, action]
                assert mdp.transitions[state, action, following[0]] == 1.0
                assert terminated[0] == (ends_at_door and phase == 2 and state % 3 < 2)
                assert family.observe(following, np.zeros(1, int)).tolist() == [[x, y]]


@pytest.mark.parametrize("ends_at_door", [False, True])
def test_greedy_play_reaches_the_optimum(ends_at_door):
    env = DarkKeyToDoorEnv(ends_at_door=ends_at_door)
    for task in env.sample_tasks(20, seed=0):
        (x, y), _ = env.reset(options={"task": task})
        total, n_steps, over = 0.0, 0, False
        while not over:
            goal = task.door if total else task.key
            right, up = goal[0] - x, goal[1] - y
            action = (2 if right > 0 else 4) if right else (1 if up > 0 else 3) if up else 0
            (x, y), reward, terminated, truncated, _ = env.step(action)
            total, n_steps, over = total + reward, n_steps + 1, terminated or truncated
        assert total == env.optimal_return(task)
        assert terminated == ends_at_door and (n_steps == 50) == (not ends_at_door)


def test_the_door_alone_pays_nothing_and_a_shared_cell_pays_twice():
    env = DarkKeyToDoorEnv(start=None)
    env.reset(options={"task": DarkKeyToDoorTask((0, 0), (5, 4))})
    assert env.step(2)[1] == 0.0
    env.reset(options={"task": DarkKeyToDoorTask((5, 4), (5, 4))})
    assert [env.step(action)[1] for action in (2, 0, 4, 2)] == [2.0, 0.0, 0.0, 0.0]


def test_the_observation_hides_the_key_in_the_pocket():
    env = DarkKeyToDoorEnv(start=None)
    seen = []
    for key in [(5, 4), (0, 0)]:
        env.reset(options={"task": DarkKeyToDoorTask(key, (8, 8))})
        seen.append(env.step(2)[0].tolist())
    assert seen == [[5, 4], [5, 4]]


@pytest.mark.parametrize("arguments", [{"size": 0}, {"start": "centre"}, {"ends_at_door": 2}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DarkKeyToDoorFamily(**arguments)


def test_text_shows_the_key_until_it_is_picked_up():
    env = gym.make("metarl/DarkKeyToDoor-v0", start=None, render_mode="ansi").unwrapped
    env.reset(options={"task": DarkKeyToDoorTask((5, 4), (8, 8))})
    assert env.render().split("\n")[5] == ". . . . A K . . ."
    env.step(2)
    text = env.render()
    assert "D" in text and "K" not in text and "A" in text
