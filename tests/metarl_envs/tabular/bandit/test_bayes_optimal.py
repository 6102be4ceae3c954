import pickle
from functools import cache
from time import perf_counter

import numpy as np
import pytest

from metarl_envs.tabular.bandit import (
    BayesOptimalPolicy,
    BernoulliBanditVectorEnv,
    bayes_optimal,
    bayes_optimal_policy,
    bayes_optimal_value,
)
from metarl_envs.tabular.bandit.bayes_optimal import _n_multisets


def value_by_recursion(n_pulls, n_arms, choose=max):
    """The expected successes with ordered arms, their (successes, failures) in a tuple."""

    @cache
    def value(arms, left):
        if left == 0:
            return 0.0
        options = []
        for i, (s, f) in enumerate(arms):
            won, lost = (arms[:i] + (pair,) + arms[i + 1 :] for pair in ((s + 1, f), (s, f + 1)))
            p = (1 + s) / (2 + s + f)
            options.append(p * (1 + value(won, left - 1)) + (1 - p) * value(lost, left - 1))
        return choose(options) if choose is max else options[choose(arms)]

    return value(((0, 0),) * n_arms, n_pulls)


@pytest.mark.parametrize(
    ("n_pulls", "n_arms"), [(1, 1), (2, 3), (4, 2), (3, 5), (6, 3), (12, 2), (8, 5)]
)
def test_value_is_that_of_a_recursion_over_ordered_arms(n_pulls, n_arms):
    expected = value_by_recursion(n_pulls, n_arms)
    assert bayes_optimal_value(n_pulls, n_arms) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n_pulls", "n_arms"), [(4, 2), (6, 3), (3, 5)])
def test_the_policy_earns_the_value(n_pulls, n_arms):
    policy = BayesOptimalPolicy(n_pulls, n_arms)

    def choose(arms):
        successes, failures = np.array(arms).T
        return int(policy.action(successes, failures))

    earned = value_by_recursion(n_pulls, n_arms, choose)
    assert policy.value == pytest.approx(earned, abs=1e-12)


def test_two_pulls_of_two_arms_by_hand():
    # The first pull pays 1/2; after a success the same arm pays 2/3, after a failure the other 1/2.
    assert bayes_optimal_value(2, 2) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3 + 1 / 2 * 1 / 2)
    policy = bayes_optimal_policy(2, 2)
    assert policy.action([1, 0], [0, 0]) == 0
    assert policy.action([0, 0], [1, 0]) == 1


@pytest.mark.parametrize("n", [1, 2, 7])
def test_one_arm_and_one_pull_leave_no_choice(n):
    assert bayes_optimal_value(n, 1) == pytest.approx(n / 2)
    assert bayes_optimal_value(1, n) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("n_pulls", "n_arms", "value"),
    [(10, 2, 6.022), (20, 2, 12.431), (10, 5, 6.660), (10, 10, 6.714)],
)
def test_known_values(n_pulls, n_arms, value):
    # Rounded to three digits.
    assert bayes_optimal_value(n_pulls, n_arms) == pytest.approx(value, abs=5e-4)


def test_surplus_arms_change_nothing():
    assert bayes_optimal_value(4, 9) == pytest.approx(bayes_optimal_value(4, 4), abs=1e-12)
    policy = bayes_optimal_policy(4, 9)
    failures = np.zeros(9, dtype=int)
    failures[[2, 0, 8]] = 1
    assert policy.action(np.zeros(9, dtype=int), failures) == 1


def test_values_grow_with_arms_and_pulls_and_stay_below_the_known_task():
    values = np.array([[bayes_optimal_value(n, k) for k in range(1, 6)] for n in range(1, 11)])
    assert np.all(np.diff(values, axis=1) >= -1e-12)
    # Every further pull pays at least 1/2.
    assert np.all(np.diff(values, axis=0) >= 1 / 2 - 1e-12)
    # The largest of k uniform numbers is k / (k + 1) on average.
    n, k = np.arange(1, 11)[:, None], np.arange(1, 6)
    assert np.all(values <= n * k / (k + 1) + 1e-12)


def test_simulated_play_in_the_environment_earns_the_value():
    n_envs, n_arms = 10_000, 5
    env = BernoulliBanditVectorEnv(n_envs, n_arms=n_arms, n_pulls=10)
    policy = env.family.bayes_optimal_policy()
    env.reset(seed=0)
    counts, returns, rows = np.zeros((2, n_envs, n_arms), dtype=int), 0.0, np.arange(n_envs)
    for _ in range(10):
        actions = policy.action(counts[1], counts[0])
        _, rewards, *_ = env.step(actions)
        counts[rewards.astype(int), rows, actions] += 1
        returns = returns + rewards
    error = returns.std() / np.sqrt(n_envs)
    assert abs(returns.mean() - env.family.bayes_optimal_value()) < 4 * error


def test_actions_of_a_batch_are_those_of_its_rows():
    policy = bayes_optimal_policy(6, 3)
    rng = np.random.default_rng(0)
    counts = rng.multinomial(rng.integers(6, size=(4, 5)), np.full(6, 1 / 6))
    successes, failures = counts[..., :3], counts[..., 3:]
    actions = policy.action(successes, failures)
    assert actions.shape == (4, 5)
    for i in np.ndindex(4, 5):
        assert policy.action(successes[i], failures[i]) == actions[i]


def test_actions_follow_a_permutation_of_the_arms():
    policy = bayes_optimal_policy(8, 3)
    successes, failures = np.array([2, 1, 0]), np.array([1, 0, 2])
    arm = int(policy.action(successes, failures))
    for order in ([1, 2, 0], [2, 1, 0], [0, 2, 1]):
        permuted = int(policy.action(successes[order], failures[order]))
        assert order[permuted] == arm


def test_the_policy_survives_pickle():
    policy = pickle.loads(pickle.dumps(bayes_optimal_policy(5, 2)))
    assert policy.action([0, 0], [0, 0]) == 0
    assert policy.value == bayes_optimal_value(5, 2)


@pytest.mark.parametrize("arguments", [(0, 2), (3, 0), (2.5, 2), (3, True)])
def test_bad_sizes_are_named(arguments):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        BayesOptimalPolicy(*arguments)


def test_what_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(bayes_optimal, "_MAX_ENTRIES", 10_000)
    with pytest.raises(ValueError, match="n_pulls=500 with n_arms=5 is too large"):
        bayes_optimal_value(500, 5)


@pytest.mark.parametrize(
    ("successes", "failures", "message"),
    [
        ([0, 0, 0], [0, 0], "successes"),
        ([0, 0], [0, -1], "failures"),
        ([0, 0.5], [0, 0], "successes"),
        ([0, np.nan], [0, 0], "successes"),
        ([1, 1], [1, 0], "leave no pull of n_pulls=3"),
    ],
)
def test_bad_statistics_are_named(successes, failures, message):
    with pytest.raises(ValueError, match=message):
        bayes_optimal_policy(3, 2).action(successes, failures)


@pytest.mark.parametrize(("n_pulls", "n_arms"), [(1, 1), (2, 9), (7, 3), (12, 2), (9, 12), (33, 1)])
def test_the_size_is_estimated_as_it_is(n_pulls, n_arms):
    policy = BayesOptimalPolicy(n_pulls, n_arms)
    k = min(n_arms, n_pulls)
    assert _n_multisets(n_pulls, k) == [len(layer.codes) for layer in policy._layers()]


@pytest.mark.parametrize("size", [(60, 3), (300, 2), (2000, 2), (2000, 2000), (10**9, 1), (50, 50)])
def test_what_is_too_large_is_refused_at_once(size):
    start = perf_counter()
    with pytest.raises(ValueError, match=f"n_pulls={size[0]} with n_arms={size[1]} is too large"):
        bayes_optimal_value(*size)
    # Some hundredths of a second; the rest is for slow machines.
    assert perf_counter() - start < 2


@pytest.mark.parametrize(
    "counts", [["a", 0, 0], "abc", None, [np.nan, 0, 0], [1j, 0, 0], [0.5, 0, 0], [-1, 0, 0]]
)
def test_counts_that_are_none_are_refused_by_name(counts):
    policy = BayesOptimalPolicy(6, 3)
    with pytest.raises(ValueError, match=r"^successes="):
        policy.action(counts, [0, 0, 0])
    with pytest.raises(ValueError, match=r"^failures="):
        policy.action([0, 0, 0], counts)


def test_counts_of_shapes_that_do_not_broadcast_or_beyond_the_budget_are_refused():
    policy = BayesOptimalPolicy(6, 3)
    with pytest.raises(ValueError, match="do not broadcast"):
        policy.action(np.zeros((2, 3)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"successes=.*below n_pulls=6"):
        policy.action([2.0**63, 0, 0], [0, 0, 0])
