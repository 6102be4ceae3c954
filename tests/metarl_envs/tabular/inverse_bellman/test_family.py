import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks, task_arrays
from metarl_envs.tabular import action_values, optimal_values, policy_values
from metarl_envs.tabular.inverse_bellman import InverseBellmanFamily, InverseBellmanVectorEnv


def tasks_of(family, n=8, seed=0):
    return sample_tasks(family.task_distribution, n, seed=seed)


SHAPES = [{}, {"n_states": 3, "n_actions": 5, "n_stages": 2, "n_features": 7}, {"n_stages": 1}]


@pytest.mark.parametrize("kernel", ["stochastic", "deterministic"])
@pytest.mark.parametrize("shape", SHAPES)
def test_dynamic_programming_gives_back_the_linear_q_function(kernel, shape):
    family = InverseBellmanFamily(kernel=kernel, **shape)
    tasks = tasks_of(family)
    theta = np.array([task.parameters for task in tasks])
    rewards = family.compile(task_arrays(family.task_distribution, tasks))["rewards"]
    values = np.zeros((len(tasks), family.n_states))
    for h in reversed(range(family.n_stages)):
        q = rewards[:, h] + np.einsum("sax,mx->msa", family.transitions[h], values)
        linear = np.einsum("sad,md->msa", family.feature_table[h], theta[:, h])
        np.testing.assert_allclose(q, linear, rtol=0, atol=1e-12)
        values = q.max(-1)
    np.testing.assert_allclose(family.optimal_returns(tasks), values.mean(-1), atol=1e-12)


@pytest.mark.parametrize("kernel", ["stochastic", "deterministic"])
def test_finite_mdp_has_the_same_values(kernel):
    family = InverseBellmanFamily(kernel=kernel)
    tasks = tasks_of(family)
    mdp = family.finite_mdps(tasks)
    values = optimal_values(mdp)
    np.testing.assert_allclose(
        (values[:, 0] * mdp.initial).sum(-1), family.optimal_returns(tasks), atol=1e-12
    )
    q = action_values(mdp, values).reshape(len(tasks), 4, 4, 6, 3)
    own_stage = q[:, np.arange(4), np.arange(4)]
    np.testing.assert_allclose(own_stage, family.optimal_action_values(tasks), atol=1e-12)


def test_policy_returns_agree_with_the_finite_mdp():
    family = InverseBellmanFamily()
    tasks = tasks_of(family, 5)
    rng = np.random.default_rng(0)
    policies = [rng.dirichlet(np.ones(3), size=(5, 6)) for _ in range(4)]
    mdp = family.finite_mdps(tasks)
    layered = np.stack(policies, axis=1).reshape(5, 24, 3)
    expected = (policy_values(mdp, layered)[:, 0] * mdp.initial).sum(-1)
    np.testing.assert_allclose(family.policy_returns(tasks, policies), expected, atol=1e-12)
    assert np.all(family.policy_returns(tasks, policies) < family.optimal_returns(tasks))


def test_myopic_policy_never_beats_the_optimum():
    family = InverseBellmanFamily()
    tasks = tasks_of(family, 50)
    gap = family.optimal_returns(tasks) - family.myopic_returns(tasks)
    assert np.all(gap >= -1e-12) and gap.mean() > 0.1


def test_rollouts_have_the_rewards_and_transitions_of_the_family():
    env = InverseBellmanVectorEnv(30_000, n_states=3, n_actions=2, n_stages=2, reward_std=0.5)
    family = env.family
    task = env.sample_tasks(1, seed=0)[0]
    env.set_tasks([task] * env.num_envs)
    first, _ = env.reset(seed=0)
    start = np.bincount(first[:, 1], minlength=3) / env.num_envs
    # Four standard errors of a frequency of 1/3.
    assert np.all(np.abs(start - 1 / 3) < 4 * np.sqrt(2 / 9 / env.num_envs))
    second, rewards, *_ = env.step(np.ones(env.num_envs, dtype=int))
    for s in range(3):
        here = first[:, 1] == s
        noise = rewards[here] - family.compile(task.to_array()[None])["rewards"][0, 0, s, 1]
        assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(here.sum())
        assert noise.std() == pytest.approx(0.5, rel=0.05)
        moves = np.bincount(second[here, 1], minlength=3) / here.sum()
        assert np.abs(moves - family.transitions[0, s, 1]).max() < 4 * 0.5 / np.sqrt(here.sum())


def test_deterministic_kernels_lead_to_one_state():
    family = InverseBellmanFamily(kernel="deterministic")
    assert set(np.unique(family.transitions)) == {0.0, 1.0}
    env = InverseBellmanVectorEnv(200, kernel="deterministic")
    before, _ = env.reset(seed=0)
    after, *_ = env.step(np.zeros(200, dtype=int))
    expected = family.transitions[0, before[:, 1], 0].argmax(-1)
    np.testing.assert_array_equal(after[:, 1], expected)


def test_reward_without_noise_is_the_mean_reward():
    env = InverseBellmanVectorEnv(50, reward_std=0.0)
    observations, _ = env.reset(seed=0)
    rewards = env.family.compile(task_arrays(env.task_distribution, env.get_tasks()))["rewards"]
    _, received, *_ = env.step(np.full(50, 2))
    np.testing.assert_array_equal(received, rewards[np.arange(50), 0, observations[:, 1], 2])


def test_prior_is_exactly_that_of_the_tasks():
    family = InverseBellmanFamily(n_features=3)
    mean, covariance = family.q_prior()
    theta = np.array([task.parameters for task in tasks_of(family, 20_000)])
    np.testing.assert_allclose(theta.mean(0), mean, atol=4 * 0.35 / np.sqrt(20_000))
    for h in range(4):
        # Four standard errors of a covariance of Gaussian numbers with deviation 0.35.
        bound = 4 * 0.35**2 * np.sqrt(2 / 20_000)
        np.testing.assert_allclose(np.cov(theta[:, h].T), covariance[h], atol=bound)
    assert np.abs(covariance[0, 0, 1]) > 1e-3
    np.testing.assert_allclose(np.diagonal(covariance, axis1=1, axis2=2), 0.35**2)


def test_prior_handed_in_is_used():
    mean, factor = np.arange(4.0), np.tril(np.ones((4, 4)))
    family = InverseBellmanFamily(prior_mean=mean, prior_covariance=factor @ factor.T)
    got_mean, got_covariance = family.q_prior(misfit=True, structure="full")
    np.testing.assert_array_equal(got_mean, np.tile(mean, (4, 1)))
    np.testing.assert_array_equal(got_covariance, np.tile(factor @ factor.T, (4, 1, 1)))
    np.testing.assert_array_equal(family.transitions, InverseBellmanFamily().transitions)


def test_singular_covariance_is_legal():
    direction = np.array([1.0, 1.0, 0.0, 0.0])
    family = InverseBellmanFamily(
        prior_covariance=np.outer(direction, direction), prior_mean=0.0 * direction
    )
    theta = np.array([task.parameters for task in tasks_of(family, 50)])
    np.testing.assert_allclose(theta[..., 0], theta[..., 1], atol=1e-7)
    np.testing.assert_allclose(theta[..., 2:], 0.0, atol=1e-7)


def test_misspecified_priors():
    family = InverseBellmanFamily()
    mean, covariance = family.q_prior()
    shifted, scaled = family.q_prior(covariance_scale=9.0, mean_shift=1.0)
    np.testing.assert_allclose(shifted, mean + 0.35)
    np.testing.assert_allclose(scaled, 9 * covariance)


def test_last_stage_is_alike_for_bandit_and_optimal_prior():
    family = InverseBellmanFamily(n_features=3)
    mean, covariance = family.q_prior()
    bandit_mean, bandit_covariance = family.q_prior(target="myopic", n_tasks=4_000, ridge=0.0)
    # The reward of the last stage is its Q-function.
    np.testing.assert_allclose(bandit_mean[-1], mean[-1], atol=0.03)
    np.testing.assert_allclose(bandit_covariance[-1], covariance[-1], atol=0.02)
    # Ten standard errors of the Monte Carlo over tasks.
    assert np.abs(bandit_mean[0] - mean[0]).max() > 10 * 0.35 / np.sqrt(4_000)


def test_features_and_stages_follow_the_observation():
    family = InverseBellmanFamily()
    observations = family.stage_observations(2)
    np.testing.assert_array_equal(observations, [[2, s] for s in range(6)])
    np.testing.assert_array_equal(family.stages(observations.astype(np.float32)), 2)
    features = family.features(2, observations.astype(np.float32)[None])
    np.testing.assert_array_equal(features[0], family.feature_table[2])
    assert family.action_masks(observations).all()
    assert family.action_masks(observations[0]).shape == (3,)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_states": 0},
        {"n_actions": 1.5},
        {"reward_std": -1.0},
        {"task_std": np.inf},
        {"kernel": "random"},
        {"prior_mean": np.zeros(3)},
        {"prior_mean": np.full(4, np.nan)},
        {"prior_covariance": np.eye(3)},
        {"prior_covariance": -np.eye(4)},
        {"prior_covariance": np.eye(4) + np.eye(4, k=1)},
        {"prior_covariance": np.full((4, 4), np.nan)},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        InverseBellmanFamily(**arguments)
