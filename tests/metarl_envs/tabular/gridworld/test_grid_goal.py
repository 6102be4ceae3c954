from functools import cache

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.tabular import optimal_values
from metarl_envs.tabular.gridworld import GridGoalEnv, GridGoalFamily, GridGoalTask

MOVES = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]


def moved(cell, action, size):
    return tuple(min(max(a + b, 0), size - 1) for a, b in zip(cell, MOVES[action], strict=True))


def tasks_of(family):
    return [family.task_distribution.from_array(goal) for goal in family.goals]


def searched_return(goal, size, horizon):
    """The best return, by looking at every sequence of cells."""

    @cache
    def best(cell, n_left):
        if not n_left:
            return 0.0
        options = {moved(cell, action, size) for action in range(5)}
        return max((1.0 if o == goal else -0.1) + best(o, n_left - 1) for o in options)

    return best((0, 0), horizon)


def way(start, goal):
    """Actions of a shortest way."""
    right, up = goal[0] - start[0], goal[1] - start[1]
    return [2 if right > 0 else 4] * abs(right) + [1 if up > 0 else 3] * abs(up)


def play(env, task, actions):
    env.reset(seed=0, options={"task": task})
    total = 0.0
    for action in actions:
        _, reward, terminated, truncated, _ = env.step(action)
        total += reward
    assert truncated and not terminated
    return total


@pytest.mark.parametrize("arguments", [{}, {"size": 3, "horizon": 2}, {"size": 6, "horizon": 5}])
def test_formula_backward_induction_and_search_agree_on_the_optimum(arguments):
    family = GridGoalFamily(**arguments)
    tasks = tasks_of(family)
    mdps = family.finite_mdps(tasks)
    values = (optimal_values(mdps)[:, 0] * mdps.initial).sum(-1)
    searched = [searched_return(task.goal, family.size, family.horizon) for task in tasks]
    returns = family.optimal_returns(tasks)
    # Sums of at most 15 numbers of order 1.
    np.testing.assert_allclose(values, returns, rtol=0, atol=1e-12)
    np.testing.assert_allclose(searched, returns, rtol=0, atol=1e-12)


def test_the_known_goal_earns_11_07_on_average():
    family = GridGoalFamily()
    tasks = tasks_of(family)
    assert len(tasks) == 21 == family.task_distribution.n_tasks
    assert family.optimal_returns(tasks).mean() == pytest.approx(11.07, abs=5e-3)


def test_greedy_play_reaches_the_optimum():
    env = GridGoalEnv()
    for task in tasks_of(env.family):
        actions = way((0, 0), task.goal)
        actions += [0] * (15 - len(actions))
        assert play(env, task, actions) == pytest.approx(env.optimal_return(task), abs=1e-12)


def test_every_state_and_action_does_what_the_rules_say():
    family = GridGoalFamily()
    for task in tasks_of(family)[::5]:
        mdp = family.finite_mdp(task)
        assert mdp.transitions.shape == (25, 5, 25) and mdp.initial[0] == 1.0
        params = family.compile(task.to_array()[None])
        for state in range(25):
            for action in range(5):
                x, y = moved(divmod(state, 5), action, 5)
                following, rewards, terminated = family.step(
                    params,
                    np.array([state]),
                    np.zeros(1, int),
                    np.array([action]),
                    np.empty((1, 0)),
                )
                assert following[0] == 5 * x + y and not terminated[0]
                assert rewards[0] == (1.0 if (x, y) == task.goal else -0.1)
                assert mdp.transitions[state, action, following[0]] == 1.0
                assert mdp.rewards[state, action] == rewards[0]
                assert family.observe(following, np.zeros(1, int)).tolist() == [[x, y]]


def test_the_published_trial_of_four_episodes_earns_37_2():
    returns = GridGoalFamily().best_adaptive_returns(4)
    np.testing.assert_allclose(returns, [4.0, 11.07, 11.07, 11.07], rtol=0, atol=5e-3)
    assert returns.sum() == pytest.approx(37.2, abs=0.05)


@pytest.mark.parametrize("n_episodes", [1, 2, 4])
def test_the_adaptive_ceiling_meets_bounds_that_no_strategy_exceeds(n_episodes):
    family = GridGoalFamily()
    returns = family.best_adaptive_returns(n_episodes)
    # The nearest goals are at distance 2, and a step meets one goal at most: over the 21 goals,
    # those first met at steps 2 to 15 earn the goal's reward in 14, 13, ..., 1 steps.
    n_paid = sum(range(1, 15)) / 21
    assert returns[0] == pytest.approx(n_paid * 1.0 - (15 - n_paid) * 0.1, abs=1e-12)
    # Later episodes earn no more than with a known goal.
    known = family.optimal_returns(tasks_of(family)).mean()
    np.testing.assert_allclose(returns[1:], known, rtol=0, atol=1e-12)


def test_the_best_plan_earns_what_it_says_when_it_is_played():
    vector = gym.make_vec("metarl/GridGoal-v0", num_envs=21).unwrapped
    tasks = tasks_of(vector.family)
    vector.set_tasks(tasks)
    plan = vector.family.best_adaptive_plan(4)
    known = np.zeros(21, dtype=bool)
    vector.reset(seed=0)
    for episode, expected in enumerate(plan.returns):
        positions, total = [(0, 0)] * 21, 0.0
        walk = plan.walks[min(episode, len(plan.walks) - 1)]
        for step in range(15):
            following = divmod(walk[min(step + 1, len(walk) - 1)], 5)
            actions = [
                way(here, task.goal if is_known else following)[:1] or [0]
                for here, task, is_known in zip(positions, tasks, known, strict=True)
            ]
            positions = [
                moved(here, action, 5) for here, (action,) in zip(positions, actions, strict=True)
            ]
            rewards = vector.step(np.ravel(actions))[1]
            known |= rewards > 0
            total += rewards.mean()
        # Means of 21 and sums of 15 numbers of order 1.
        assert total == pytest.approx(expected, abs=1e-10)
    assert known.all()


def test_goals_lie_outside_the_corner_of_the_start():
    family = GridGoalFamily()
    for corner in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        with pytest.raises(ValueError, match="none of its 21 cells"):
            family.task_distribution.from_array(np.array(corner, dtype=float))
    with pytest.raises(ValueError, match="integers"):
        family.task_distribution.from_array(np.array([2.5, 3.0]))
    assert family.task_distribution.from_array(np.array([4.0, 0.0])) == GridGoalTask((4, 0))


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 2},
        {"size": 5.5},
        {"horizon": 0},
        {"goal_reward": np.nan},
        {"step_reward": np.inf},
        {"goal_reward": -0.1},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GridGoalFamily(**arguments)


def test_text_shows_agent_way_and_goal():
    env = gym.make("metarl/GridGoal-v0", render_mode="ansi").unwrapped
    env.reset(seed=0, options={"task": GridGoalTask((3, 0))})
    for action in (1, 2):
        env.step(action)
    lines = env.render().split("\n")
    assert lines[4:6] == ["o A . . .", "o . . G ."] and "right, reward -0.10" in lines[-1]
    for action in (3, 2, 2):
        env.step(action)
    assert env.render().split("\n")[5] == "o o o * ."
