import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular import optimal_values
from metarl_envs.tabular.bandit import (
    BernoulliBanditEnv,
    BernoulliBanditFamily,
    BernoulliBanditTask,
    BernoulliBanditVectorEnv,
    GaussianBanditFamily,
    GaussianBanditTask,
    GaussianBanditVectorEnv,
    bayes_optimal_value,
)

FAMILIES = [BernoulliBanditFamily, GaussianBanditFamily]


def rewards_of_arm(env, task, arm):
    """Rewards of every sub-environment's first pull."""
    env.set_tasks([task] * env.num_envs)
    env.reset(seed=0)
    return env.step(np.full(env.num_envs, arm))[1]


@pytest.mark.parametrize("family_class", FAMILIES)
def test_optimal_returns_are_those_of_the_finite_mdps(family_class):
    family = family_class(n_arms=4, n_pulls=7)
    tasks = sample_tasks(family.task_distribution, 20)
    expected = [7 * max(task.to_array()) for task in tasks]
    np.testing.assert_allclose(family.optimal_returns(tasks), expected, rtol=1e-12)
    np.testing.assert_allclose(
        optimal_values(family.finite_mdps(tasks))[:, 0, 0], expected, rtol=1e-12
    )
    single = optimal_values(family.finite_mdp(tasks[3]))[0, 0]
    assert single == pytest.approx(family.optimal_return(tasks[3]), rel=1e-12)


def test_known_task_is_worth_the_largest_of_uniform_numbers_on_average():
    family = BernoulliBanditFamily(n_arms=5, n_pulls=10)
    returns = family.optimal_returns(sample_tasks(family.task_distribution, 4_000))
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - 10 * 5 / 6) < 4 * error


def test_bernoulli_rewards_have_the_probabilities_of_the_arms():
    env = BernoulliBanditVectorEnv(10_000, n_arms=3, n_pulls=1)
    task = BernoulliBanditTask((0.0, 0.3, 1.0))
    assert np.all(rewards_of_arm(env, task, 0) == 0)
    assert np.all(rewards_of_arm(env, task, 2) == 1)
    rewards = rewards_of_arm(env, task, 1)
    assert set(rewards) == {0.0, 1.0}
    assert abs(rewards.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / env.num_envs)


def test_gaussian_rewards_have_the_means_of_the_arms_and_the_deviation():
    env = GaussianBanditVectorEnv(20_000, n_arms=2, n_pulls=1)
    rewards = rewards_of_arm(env, GaussianBanditTask((0.9, 0.2)), 1)
    assert abs(rewards.mean() - 0.2) < 4 * 0.3 / np.sqrt(env.num_envs)
    # The variance of a Gaussian sample variance is 2 sigma^4 / n.
    assert abs(rewards.var() - 0.09) < 4 * 0.09 * np.sqrt(2 / env.num_envs)


def test_gaussian_rewards_stay_finite_at_the_smallest_uniform_number():
    family = GaussianBanditFamily(n_arms=2)
    assert np.isfinite(family.draw_rewards(np.zeros(1), np.zeros(1))).all()


@pytest.mark.parametrize("env_class", [BernoulliBanditVectorEnv, GaussianBanditVectorEnv])
def test_best_arm_earns_the_optimal_return(env_class):
    env = env_class(4_000, n_arms=3, n_pulls=10)
    env.reset(seed=0)
    tasks = env.get_tasks()
    best = np.array([np.argmax(task.to_array()) for task in tasks])
    surplus = -env.family.optimal_returns(tasks)
    for _ in range(10):
        surplus += env.step(best)[1]
    assert abs(surplus.mean()) < 4 * surplus.std() / np.sqrt(env.num_envs)


@pytest.mark.parametrize("env_id", ["metarl/BernoulliBandit-v0", "metarl/GaussianBandit-v0"])
def test_last_pull_terminates(env_id):
    env = gym.make(env_id, n_pulls=3)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (True, False)]


def test_observations_say_nothing():
    env = BernoulliBanditEnv(n_arms=2, n_pulls=5)
    assert env.observation_space == gym.spaces.Discrete(1)
    seen = [env.reset(seed=0)[0], *(env.step(1)[0] for _ in range(5))]
    assert seen == [0] * 6


def test_the_family_knows_its_bayes_optimal_value():
    family = BernoulliBanditFamily(n_arms=2, n_pulls=4)
    assert family.bayes_optimal_value() == bayes_optimal_value(4, 2)
    assert family.bayes_optimal_policy().n_arms == 2


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
@pytest.mark.parametrize("n_arms", [1, 5, 50])
def test_pictures_show_the_arm_that_was_pulled(mode, n_arms):
    env = BernoulliBanditEnv(n_arms=n_arms, n_pulls=5, render_mode=mode)
    env.reset(seed=0)
    before = env.render()
    env.step(0)
    after = env.render()
    if mode == "ansi":
        assert "> arm  0" in after and "> arm" not in before
        assert after.count("arm ") == n_arms
    else:
        assert after.dtype == np.uint8 and after.shape == before.shape
        assert np.any(after != before)


@pytest.mark.parametrize("family_class", FAMILIES)
@pytest.mark.parametrize("arguments", [{"n_arms": 0}, {"n_pulls": 1.5}, {"n_pulls": True}])
def test_bad_arguments_are_named(family_class, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        family_class(**arguments)


def test_bad_deviation_is_named():
    with pytest.raises(ValueError, match=r"reward_std=-0\.1"):
        GaussianBanditFamily(reward_std=-0.1)
