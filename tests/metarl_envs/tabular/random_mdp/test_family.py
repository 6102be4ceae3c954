import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks, task_arrays
from metarl_envs.tabular import action_values, optimal_values, policy_values
from metarl_envs.tabular.random_mdp import RandomMDPEnv, RandomMDPFamily, RandomMDPVectorEnv


def best_return_by_recursion(task, n_stages):
    transitions, means = np.array(task.transitions), np.array(task.mean_rewards)
    values = np.zeros(len(means))
    for _ in range(n_stages):
        values = [
            max(
                means[s, a] + sum(transitions[s, a, x] * values[x] for x in range(len(means)))
                for a in range(means.shape[1])
            )
            for s in range(len(means))
        ]
    return values[0]


def test_optimal_returns_are_those_of_backward_induction():
    family = RandomMDPFamily(n_states=4, n_actions=3, n_stages=5)
    tasks = sample_tasks(family.task_distribution, 6)
    expected = [best_return_by_recursion(task, 5) for task in tasks]
    np.testing.assert_allclose(family.optimal_returns(tasks), expected, rtol=1e-12)
    assert family.optimal_return(tasks[2]) == pytest.approx(expected[2], rel=1e-12)
    single = optimal_values(family.finite_mdp(tasks[2]))
    assert single[0, 0] == pytest.approx(expected[2], rel=1e-12)


def test_known_tasks_are_worth_21_8_on_average_and_random_play_10():
    family = RandomMDPFamily()
    tasks = sample_tasks(family.task_distribution, 500)
    returns = family.optimal_returns(tasks)
    assert abs(returns.mean() - 21.8) < 4 * returns.std() / np.sqrt(500)
    random = policy_values(family.finite_mdps(tasks), np.full((10, 5), 1 / 5))[:, 0, 0]
    assert abs(random.mean() - 10.0) < 4 * random.std() / np.sqrt(500)


def test_best_policy_earns_the_optimal_return():
    n_envs = 2_000
    env = RandomMDPVectorEnv(n_envs)
    states, _ = env.reset(seed=0)
    tasks = env.get_tasks()
    mdps = env.family.finite_mdps(tasks)
    policies = action_values(mdps, optimal_values(mdps)).argmax(axis=-1)
    surplus = -env.family.optimal_returns(tasks)
    for stage in range(10):
        states, rewards, terminated, truncated, _ = env.step(
            policies[np.arange(n_envs), stage, states]
        )
        surplus += rewards
        assert np.all(terminated == (stage == 9)) and not truncated.any()
    assert abs(surplus.mean()) < 4 * surplus.std() / np.sqrt(n_envs)


def test_steps_have_the_transitions_and_rewards_of_the_task():
    n_envs = 10_000
    env = RandomMDPVectorEnv(n_envs, n_states=4, n_actions=2, n_stages=3)
    task = env.sample_tasks(1, seed=0)[0]
    env.set_tasks([task] * n_envs)
    first, _ = env.reset(seed=0)
    assert np.all(first == 0)
    before = first
    for action in (1, 0):
        after, rewards, *_ = env.step(np.full(n_envs, action))
        for s in np.unique(before):
            here = before == s
            n = here.sum()
            noise = rewards[here] - task.mean_rewards[s][action]
            assert abs(noise.mean()) < 4 / np.sqrt(n)
            assert abs(noise.var() - 1.0) < 4 * np.sqrt(2 / n)
            moves = np.bincount(after[here], minlength=4) / n
            # Four standard errors of a frequency, at most.
            assert np.abs(moves - task.transitions[s][action]).max() < 4 * 0.5 / np.sqrt(n)
        before = after


def test_impossible_states_are_never_reached():
    family = RandomMDPFamily(n_states=3, n_actions=1)
    # These sum to less than 1 in floating point.
    row = np.array([0.7, 0.2, 0.1 - 2.0**-40, 0.3, 0.7 - 1e-10, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    task = family.task_distribution.from_array(row)
    params = family.compile(task_arrays(family.task_distribution, [task]))
    largest = np.full((1, 2), 1.0 - 2.0**-53)
    for state, last in ((0, 2), (1, 1), (2, 0)):
        states, stage, action = np.array([state]), np.zeros(1, int), np.zeros(1, int)
        following, *_ = family.step(params, states, stage, action, largest)
        assert following == last
        following, *_ = family.step(params, states, stage, action, np.zeros((1, 2)))
        assert following == 0


def test_reward_without_noise_is_the_mean_reward():
    env = RandomMDPVectorEnv(20, reward_std=0.0)
    env.reset(seed=0)
    expected = [task.mean_rewards[0][3] for task in env.get_tasks()]
    np.testing.assert_array_equal(env.step(np.full(20, 3))[1], expected)


def test_observation_is_the_state():
    env = gym.make("metarl/RandomMDP-v0").unwrapped
    assert env.observation_space == gym.spaces.Discrete(10)
    assert env.action_space == gym.spaces.Discrete(5)
    observation, info = env.reset(seed=0)
    assert observation == 0 and info["stage"] == 0


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("sizes", [(10, 5), (1, 1), (60, 40)])
def test_pictures_follow_the_steps(mode, sizes):
    n_states, n_actions = sizes
    env = RandomMDPEnv(n_states=n_states, n_actions=n_actions, render_mode=mode)
    env.reset(seed=0)
    before = env.render()
    state, *_ = env.step(0)
    after = env.render()
    if mode == "ansi":
        assert f"[{state}]" in after and f"path: 0 > {state}" in after
    else:
        assert after.dtype == np.uint8 and after.shape == before.shape
        assert np.any(after != before)


@pytest.mark.parametrize(
    "arguments",
    [{"n_states": 0}, {"n_actions": 1.5}, {"n_stages": True}, {"reward_std": -1.0}],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RandomMDPFamily(**arguments)
