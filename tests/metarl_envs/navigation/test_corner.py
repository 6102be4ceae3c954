import numpy as np
import pytest

from metarl_envs import check_task_env
from metarl_envs.navigation import PointCornerEnv, PointCornerFamily

WHOLE = 2 * np.sqrt(2)  # from the centre to a corner


def straight_to(task):
    """The optimal action for this task, whatever the task of the env is."""
    family = PointCornerFamily()
    return lambda position: family.optimal_action(task, position)


def play(env, task, choose, seed=0):
    """Rewards and positions of one episode."""
    observation, _ = env.reset(seed=seed, options={"task": task})
    rewards, positions, done = [], [observation], False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(choose(observation))
        rewards.append(reward)
        positions.append(observation)
        done = terminated or truncated
    return np.array(rewards), np.array(positions)


def test_the_tasks_are_the_four_corners():
    goals = {task.goal for task in PointCornerFamily().task_distribution.tasks}
    assert goals == {(-2, -2), (-2, 2), (2, -2), (2, 2)}


@pytest.mark.parametrize("seed", range(4))
def test_going_to_the_goal_earns_the_optimal_return(seed):
    env = PointCornerEnv()
    for task in env.task_distribution.tasks:
        rewards, positions = play(env, task, straight_to(task), seed)
        assert rewards.sum() == pytest.approx(env.optimal_return(task), abs=1e-6)
        assert env.optimal_return(task) == pytest.approx(WHOLE, abs=1e-12)
        assert positions[-1] == pytest.approx(task.goal, abs=1e-6)


def test_the_optimum_is_the_same_for_every_corner():
    env = PointCornerEnv(corner=1.0)
    assert env.optimal_returns(env.task_distribution.tasks) == pytest.approx([np.sqrt(2)] * 4)


def test_no_random_or_perturbed_play_earns_more_than_the_optimum():
    env, rng = PointCornerEnv(horizon=30), np.random.default_rng(0)
    for task in env.task_distribution.tasks:
        for scale in (0.1, 1.0, 5.0) * 8:
            rewards, _ = play(
                env,
                task,
                lambda position, task=task, scale=scale: np.clip(
                    env.optimal_action(task, position) + scale * rng.standard_normal(2), -1, 1
                ),
            )
            assert rewards.sum() <= WHOLE + 1e-12


def test_other_corners_earn_nothing():
    for env in (PointCornerEnv(), PointCornerEnv(reward="progress")):
        tasks = env.task_distribution.tasks
        for task in tasks:
            for other in tasks:
                if other != task:
                    rewards, _ = play(env, task, straight_to(other))
                    # On its way across an axis a path may visit the goal's quadrant, and leaves it.
                    assert abs(rewards.sum()) < 0.3


def test_within_the_quadrant_both_rewards_are_the_progress():
    for reward in ("potential", "progress"):
        env = PointCornerEnv(reward=reward)
        task = env.task_distribution.from_array(np.array([2.0, -2.0]))
        rewards, positions = play(env, task, straight_to(task))
        distances = np.hypot(*(positions - task.goal).T)
        inside = np.abs(positions).sum(axis=1) >= 0.5
        both = inside[1:] & inside[:-1]
        progress = distances[:-1] - distances[1:]
        assert rewards[both] == pytest.approx(progress[both], abs=1e-6)
        entering = inside[1:] & ~inside[:-1]
        assert entering.sum() == 1
        paid = WHOLE - distances[1:] if reward == "potential" else progress
        assert rewards[entering] == pytest.approx(paid[entering], abs=1e-6)
        assert not rewards[~inside[1:]].any()


def in_and_out(task):
    """Goes to (0.1, 0.1) of the goal's quadrant, then a step out and back in, again and again."""
    base = 0.05 * np.array(task.goal)

    def choose(position):
        aim = base if np.abs(position).sum() > 0.5 else base + 0.1 * np.array(task.goal)
        at_base = np.abs(position - base).max() < 1e-3
        aim = aim if at_base or np.abs(position).sum() > 0.5 else base
        return np.clip((aim - position) / 0.2, -1, 1).astype(np.float32)

    return choose


def test_going_in_and_out_farms_the_published_reward_but_not_the_potential():
    for reward, low, high in (("progress", 4 * WHOLE, 6 * WHOLE), ("potential", 0.0, WHOLE)):
        env = PointCornerEnv(reward=reward)
        task = env.task_distribution.tasks[3]
        rewards, _ = play(env, task, in_and_out(task))
        assert low <= rewards.sum() <= high


def test_the_published_reward_has_no_known_optimum_and_the_env_says_so():
    env = PointCornerEnv(reward="progress")
    assert not hasattr(env, "optimal_return")
    assert not hasattr(env, "optimal_returns")
    with pytest.raises(AttributeError, match="no known optimum"):
        _ = env.family.optimal_returns
    assert "optimal_return_bounds_random_play" not in check_task_env(
        lambda: PointCornerEnv(reward="progress"),
        only={"optimal_return_bounds_random_play", "different_tasks_differ"},
    )
