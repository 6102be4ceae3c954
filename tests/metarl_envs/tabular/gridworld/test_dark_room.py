from functools import cache

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular import optimal_values
from metarl_envs.tabular.gridworld import DarkRoomEnv, DarkRoomFamily, DarkRoomTask

MOVES = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]
SETTINGS = [
    {},
    {"size": 10, "horizon": 100, "start": (0, 0)},
    {"size": 7, "horizon": 5, "reward_once": True},
    {"size": 4, "horizon": 3, "start": (3, 1)},
]


def moved(cell, action, size):
    return tuple(min(max(a + b, 0), size - 1) for a, b in zip(cell, MOVES[action], strict=True))


def searched_return(family, start, goal):
    """The best return, by looking at every sequence of cells."""

    @cache
    def best(cell, found, n_left):
        if not n_left:
            return 0
        values = []
        for following in {moved(cell, action, family.size) for action in range(5)}:
            is_paid = following == goal and not (found and family.reward_once)
            values.append(is_paid + best(following, found or following == goal, n_left - 1))
        return max(values)

    return best(start, False, family.horizon)


@pytest.mark.parametrize("arguments", SETTINGS)
def test_formula_backward_induction_and_search_agree_on_the_optimum(arguments):
    family = DarkRoomFamily(**arguments)
    start = family.start or (family.size // 2,) * 2
    tasks = [DarkRoomTask(start), *sample_tasks(family.task_distribution, 5, seed=1)]
    mdps = family.finite_mdps(tasks)
    returns = family.optimal_returns(tasks)
    # Sums of zeros and ones are exact.
    np.testing.assert_array_equal((optimal_values(mdps)[:, 0] * mdps.initial).sum(-1), returns)
    np.testing.assert_array_equal(
        [searched_return(family, start, task.goal) for task in tasks], returns
    )


def test_mean_optima_of_the_published_rooms():
    # 21 - d over the 80 other cells of the 9 x 9 room, whose distances from the centre sum to 360,
    # and 20 on the centre itself.
    family = DarkRoomFamily()
    tasks = [DarkRoomTask((x, y)) for x in range(9) for y in range(9)]
    assert len(tasks) == family.task_distribution.n_tasks
    assert family.optimal_returns(tasks).sum() == 80 * 21 - 360 + 20
    # 101 - d over the 99 other cells of the 10 x 10 room, whose distances from a corner sum to 900.
    family = DarkRoomFamily(size=10, horizon=100, start=(0, 0))
    tasks = [DarkRoomTask((x, y)) for x in range(10) for y in range(10)]
    assert family.optimal_returns(tasks).sum() == 99 * 101 - 900 + 100


@pytest.mark.parametrize("arguments", SETTINGS)
def test_greedy_play_reaches_the_optimum(arguments):
    env = DarkRoomEnv(**arguments)
    for task in env.sample_tasks(10, seed=0):
        (x, y), _ = env.reset(options={"task": task})
        total, done = 0.0, False
        while not done:
            right, up = task.goal[0] - x, task.goal[1] - y
            action = (2 if right > 0 else 4) if right else (1 if up > 0 else 3) if up else 0
            (x, y), reward, terminated, done, _ = env.step(action)
            total += reward
            assert not terminated
        assert total == env.optimal_return(task)


@pytest.mark.parametrize("reward_once", [False, True])
def test_every_state_and_action_does_what_the_rules_say(reward_once):
    family = DarkRoomFamily(size=4, reward_once=reward_once)
    n_phases = 2 if reward_once else 1
    for task in (DarkRoomTask((2, 2)), DarkRoomTask((3, 1))):
        mdp = family.finite_mdp(task)
        params = family.compile(task.to_array()[None])
        for state in range(family.n_states):
            cell, found = divmod(state // n_phases, 4), state % n_phases
            for action in range(5):
                following, rewards, _ = family.step(
                    params,
                    np.array([state]),
                    np.zeros(1, int),
                    np.array([action]),
                    np.empty((1, 0)),
                )
                x, y = moved(cell, action, 4)
                is_paid = (x, y) == task.goal and not found
                after = found or (is_paid and reward_once)
                assert following[0] == (4 * x + y) * n_phases + after
                assert rewards[0] == is_paid == mdp.rewards[state, action]
                assert mdp.transitions[state, action, following[0]] == 1.0
                assert family.observe(following, np.zeros(1, int)).tolist() == [[x, y]]


def test_start_and_goal_cells():
    assert DarkRoomEnv().reset(seed=0)[0].tolist() == [4, 4]
    assert DarkRoomEnv(start=[1, 3]).reset(seed=0)[0].tolist() == [1, 3]
    goals = {task.goal for task in sample_tasks(DarkRoomFamily(size=3).task_distribution, 300)}
    assert goals == {(x, y) for x in range(3) for y in range(3)}


@pytest.mark.parametrize(
    "arguments",
    [{"size": 0}, {"horizon": -1}, {"start": (9, 0)}, {"start": 4}, {"start": (0.5, 1)}]
    + [{"start": (1, 2, 3)}, {"reward_once": "yes"}],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DarkRoomFamily(**arguments)


@pytest.mark.parametrize("size", [9, 17, 60])
def test_pictures_show_agent_and_goal(size):
    env = gym.make("metarl/DarkRoom-v0", render_mode="rgb_array", size=size).unwrapped
    pictures = []
    for goal in [(0, 0), (size - 1, 1)]:
        env.reset(seed=0, options={"task": DarkRoomTask(goal)})
        pictures.append(env.render())
    assert not np.array_equal(*pictures)
    green, blue = (46, 139, 87), (47, 98, 173)
    assert all(
        (picture == colour).all(-1).any() for picture in pictures for colour in (green, blue)
    )


@pytest.mark.parametrize("reward_once", [False, True])
def test_the_optimum_over_random_starts_is_the_mean_over_cells(reward_once):
    def returns(start):
        family = DarkRoomFamily(size=3, horizon=3, start=start, reward_once=reward_once)
        return family.optimal_returns([DarkRoomTask((x, y)) for x in range(3) for y in range(3)])

    cells = [(x, y) for x in range(3) for y in range(3)]
    expected = np.mean([returns(cell) for cell in cells], axis=0)
    np.testing.assert_allclose(returns("random"), expected, rtol=0, atol=1e-12)
