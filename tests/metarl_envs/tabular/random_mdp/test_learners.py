import numpy as np
import pytest

from metarl_envs.tabular import policy_values
from metarl_envs.tabular.random_mdp import (
    Posterior,
    RandomMDPFamily,
    episode_returns,
    expected_model,
    sampled_model,
)


@pytest.mark.parametrize(
    ("learner", "n_episodes", "total"),
    [
        (sampled_model, 10, 133.5),
        (sampled_model, 25, 402.0),
        (expected_model, 10, 149.2),
        (expected_model, 25, 422.8),
    ],
)
def test_known_totals(learner, n_episodes, total):
    returns = episode_returns(
        learner, RandomMDPFamily(), n_tasks=300, n_episodes=n_episodes, seed=0
    )
    assert returns.shape == (300, n_episodes)
    totals = returns.sum(axis=-1)
    assert abs(totals.mean() - total) < 4 * totals.std() / np.sqrt(300)


def test_first_episode_is_played_without_knowledge():
    family = RandomMDPFamily(n_states=3, n_actions=2, n_stages=4)
    first = episode_returns(expected_model, family, n_tasks=4_000, n_episodes=1, seed=0)
    # Every policy that knows nothing earns the prior mean, 1 per step.
    assert abs(first.mean() - 4.0) < 4 * first.std() / np.sqrt(4_000)


def test_a_task_that_is_known_is_solved():
    family = RandomMDPFamily(n_states=2, n_actions=2, n_stages=3, reward_std=0.1)
    returns = episode_returns(sampled_model, family, n_tasks=200, n_episodes=150, seed=0)
    late = returns[:, 100:].mean(axis=-1)
    rng = np.random.default_rng(0)
    distribution = family.task_distribution
    uniforms = rng.random((200, distribution.n_uniforms))
    arrays = distribution.arrays_from_uniforms(lambda rows: uniforms[rows], 200)
    best = family.optimal_returns([distribution.from_row(row) for row in arrays])
    gap = best - late
    # What exploration still costs, and noise: the best policies earn more than 5 on average.
    assert gap.mean() == pytest.approx(0.0, abs=0.1)
    random = [
        policy_values(family.finite_mdp(distribution.from_row(row)), np.full((2, 2), 0.5))[0, 0]
        for row in arrays
    ]
    assert (best - random).mean() > 1.0


def test_sampled_models_have_the_posterior_as_their_distribution():
    n = 20_000
    posterior = Posterior(
        np.tile([[[3.0, 1.0]], [[1.0, 1.0]]], (n, 1, 1, 1)),
        np.full((n, 2, 1), 2.0),
        np.full((n, 2, 1), 0.5),
    )
    transitions, rewards = sampled_model(posterior, np.random.default_rng(0))
    np.testing.assert_allclose(transitions.sum(-1), 1.0, atol=1e-12)
    sample = transitions[:, 0, 0, 0]
    # Beta(3, 1) has the mean 3/4 and the variance 3/80.
    assert abs(sample.mean() - 3 / 4) < 4 * np.sqrt(3 / 80 / n)
    assert sample.var() == pytest.approx(3 / 80, rel=0.05)
    assert abs(rewards.mean() - 2.0) < 4 * 0.5 / np.sqrt(2 * n)
    assert rewards.std() == pytest.approx(0.5, rel=0.02)
    means = expected_model(posterior, np.random.default_rng(0))
    np.testing.assert_allclose(means[0][0, 0, 0], [3 / 4, 1 / 4])
    np.testing.assert_array_equal(means[1], posterior.means)


def test_posterior_is_the_conjugate_one():
    seen = []

    def watch(posterior, rng):
        seen.append(posterior)
        return expected_model(posterior, rng)

    family = RandomMDPFamily(n_states=1, n_actions=1, n_stages=2, reward_std=2.0)
    returns = episode_returns(watch, family, n_tasks=5, n_episodes=3, seed=0)
    # After n rewards with sum R the mean is N((1 + R / 4) / (1 + n / 4), 1 / (1 + n / 4)).
    for k, posterior in enumerate(seen):
        precision = 1 + 2 * k / 4
        means = (1 + returns[:, :k].sum(axis=-1) / 4) / precision
        np.testing.assert_allclose(posterior.means[:, 0, 0], means, rtol=1e-12)
        np.testing.assert_allclose(posterior.deviations, precision**-0.5, rtol=1e-12)
        np.testing.assert_array_equal(posterior.concentrations, 1.0 + 2 * k)


def test_the_seed_decides_everything():
    family = RandomMDPFamily(n_states=3, n_actions=2, n_stages=2)
    first, again, other = (
        episode_returns(sampled_model, family, n_tasks=4, n_episodes=3, seed=seed)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_bad_arguments_are_named():
    family = RandomMDPFamily()
    with pytest.raises(ValueError, match="n_tasks=0"):
        episode_returns(sampled_model, family, n_tasks=0, n_episodes=1, seed=0)
    with pytest.raises(ValueError, match="reward_std=0"):
        episode_returns(
            sampled_model, RandomMDPFamily(reward_std=0.0), n_tasks=1, n_episodes=1, seed=0
        )
