from functools import cache

import numpy as np
import pytest
from scipy.stats import beta

from metarl_envs.tabular.bandit import (
    UpperConfidenceBound,
    bayes_optimal_policy,
    greedy,
    random_arms,
    thompson_sampling,
    total_rewards,
)

STRATEGIES = [random_arms, thompson_sampling, greedy, UpperConfidenceBound(0.2)]


def mean_and_error(strategy, n_pulls, n_arms, n_bandits=4_000):
    totals = total_rewards(strategy, n_pulls=n_pulls, n_arms=n_arms, n_bandits=n_bandits, seed=0)
    return totals.mean(), totals.std() / np.sqrt(n_bandits)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_arm_pays_half_of_the_pulls(strategy):
    mean, error = mean_and_error(strategy, 10, 1)
    assert abs(mean - 5.0) < 4 * error


def test_random_arms_pay_half_of_the_pulls():
    mean, error = mean_and_error(random_arms, 20, 4)
    assert abs(mean - 10.0) < 4 * error


def test_bayes_optimal_play_earns_its_value():
    policy = bayes_optimal_policy(10, 3)
    mean, error = mean_and_error(lambda s, f, rng: policy.action(s, f), 10, 3)
    assert abs(mean - policy.value) < 4 * error


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_earns_more_than_the_bayes_optimal_value(strategy):
    mean, error = mean_and_error(strategy, 10, 5)
    assert mean < bayes_optimal_policy(10, 5).value + 4 * error


def expected_total(pulled, n_pulls, n_arms):
    """The expected successes of a strategy, by recursion over all histories.

    :param pulled: the probability of each arm, from a tuple of (successes, failures)
    """

    @cache
    def value(arms, left):
        if left == 0:
            return 0.0
        total = 0.0
        for i, ((s, f), probability) in enumerate(zip(arms, pulled(arms), strict=True)):
            won, lost = (arms[:i] + (pair,) + arms[i + 1 :] for pair in ((s + 1, f), (s, f + 1)))
            p = (1 + s) / (2 + s + f)
            total += probability * (
                p * (1 + value(won, left - 1)) + (1 - p) * value(lost, left - 1)
            )
        return total

    return value(((0, 0),) * n_arms, n_pulls)


def greedy_probabilities(arms):
    means = np.array([(1 + s) / (2 + s + f) for s, f in arms])
    return (means == means.max()) / np.sum(means == means.max())


def thompson_probabilities(arms):
    """P(arm is the best) for two arms, by integrating over the other one's probability."""
    (s0, f0), (s1, f1) = arms
    first, second = beta(1 + s0, 1 + f0), beta(1 + s1, 1 + f1)
    grid, weights = np.polynomial.legendre.leggauss(20)
    x = (1 + grid) / 2
    # The integrand is a polynomial of degree below 40: the quadrature is exact.
    best = float(np.sum(weights / 2 * first.pdf(x) * second.cdf(x)))
    return np.array([best, 1 - best])


@pytest.mark.parametrize(
    ("strategy", "probabilities", "n_pulls", "n_arms"),
    [(greedy, greedy_probabilities, 6, 3), (thompson_sampling, thompson_probabilities, 6, 2)],
)
def test_averages_are_those_of_the_recursion_over_histories(
    strategy, probabilities, n_pulls, n_arms
):
    expected = expected_total(probabilities, n_pulls, n_arms)
    mean, error = mean_and_error(strategy, n_pulls, n_arms, n_bandits=20_000)
    assert abs(mean - expected) < 4 * error


def test_exploring_a_little_pays_with_many_pulls():
    means = [
        mean_and_error(strategy, 100, 10, n_bandits=1_000)[0]
        for strategy in (random_arms, thompson_sampling, greedy, UpperConfidenceBound(0.2))
    ]
    # The gaps are 27, 2 and 4, the standard errors at most 0.45.
    assert means == sorted(means)


def test_greedy_pulls_the_largest_posterior_mean_and_breaks_ties_at_random():
    rng = np.random.default_rng(0)
    successes = np.tile([3, 0, 3], (1_000, 1))
    failures = np.tile([1, 0, 1], (1_000, 1))
    arms = greedy(successes, failures, rng)
    assert set(arms) == {0, 2}
    # Four standard errors of a frequency of 1/2.
    assert abs(np.mean(arms == 0) - 1 / 2) < 4 * 0.5 / np.sqrt(1_000)


def test_thompson_sampling_pulls_an_arm_as_often_as_it_is_the_best():
    # P(Beta(2, 1) > Beta(1, 2)) = 5/6.
    rng = np.random.default_rng(0)
    counts = np.tile([1, 0], (20_000, 1))
    share = np.mean(thompson_sampling(counts, counts[:, ::-1], rng) == 0)
    assert abs(share - 5 / 6) < 4 * np.sqrt(5 / 36 / 20_000)


def test_confidence_bounds_are_those_of_the_formula():
    successes, failures = np.array([[3, 1, 0]]), np.array([[2, 0, 1]])
    means, pulls = np.array([4 / 7, 2 / 3, 1 / 3]), np.array([7, 3, 3])
    for constant in (0.0, 0.1, 5.0):
        bounds = means + constant * np.sqrt(2 * np.log(8) / pulls)
        arm = UpperConfidenceBound(constant)(successes, failures, np.random.default_rng(0))
        assert arm == bounds.argmax()


def test_the_seed_decides_everything():
    arguments = {"n_pulls": 5, "n_arms": 3, "n_bandits": 50}
    first, again, other = (
        total_rewards(thompson_sampling, seed=seed, **arguments) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.parametrize("name", ["n_pulls", "n_arms", "n_bandits", "seed"])
def test_bad_arguments_are_named(name):
    arguments = {"n_pulls": 5, "n_arms": 3, "n_bandits": 50, "seed": 0} | {name: -1}
    with pytest.raises(ValueError, match=f"{name}=-1"):
        total_rewards(greedy, **arguments)
