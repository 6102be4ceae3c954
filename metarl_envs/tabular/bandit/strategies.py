"""Reference strategies for Bernoulli bandits with uniform priors, on many bandits at once.

The comparison of Duan et al. (2016), https://arxiv.org/abs/1611.02779. Shapes: M bandits, A arms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metarl_envs.batched.checking import check_counts, check_seed
from metarl_envs.core import FloatArray, IntArray

Strategy = Callable[[IntArray, IntArray, np.random.Generator], IntArray]
"""Arms to pull (M,), from the successes and failures of each arm so far, (M, A) each."""


def total_rewards(
    strategy: Strategy, *, n_pulls: int, n_arms: int, n_bandits: int, seed: int
) -> FloatArray:
    """Successes of a strategy in as many random bandits, (M,).

    :param strategy: which arms to pull; `BayesOptimalPolicy.action` needs no generator, so wrap it
        in a lambda
    :param n_pulls: n, the budget
    :param n_arms: A
    :param n_bandits: M
    :param seed: of the bandits, the strategy and the rewards
    """
    check_counts(n_pulls=n_pulls, n_arms=n_arms, n_bandits=n_bandits)
    check_seed(seed=seed)
    rng = np.random.default_rng(seed)
    probabilities = rng.random((n_bandits, n_arms))
    counts = np.zeros((2, n_bandits, n_arms), dtype=np.int64)
    rows = np.arange(n_bandits)
    for _ in range(n_pulls):
        arms = strategy(counts[1], counts[0], rng)
        paid = rng.random(n_bandits) < probabilities[rows, arms]
        counts[paid.astype(np.int64), rows, arms] += 1
    return counts[1].sum(axis=-1).astype(np.float64)


def random_arms(successes: IntArray, failures: IntArray, rng: np.random.Generator) -> IntArray:
    """Every arm with the same probability."""
    return rng.integers(successes.shape[-1], size=len(successes))


def greedy(successes: IntArray, failures: IntArray, rng: np.random.Generator) -> IntArray:
    """The arm with the largest posterior mean, ties broken at random."""
    return _largest(_posterior_means(successes, failures), rng)


def thompson_sampling(
    successes: IntArray, failures: IntArray, rng: np.random.Generator
) -> IntArray:
    """The best arm of a bandit drawn from the posterior (Thompson, 1933,
    https://doi.org/10.2307/2332286).
    """
    return rng.beta(1 + successes, 1 + failures).argmax(axis=-1)


@dataclass(frozen=True)
class UpperConfidenceBound:
    """UCB1 (Auer, Cesa-Bianchi and Fischer, 2002, https://doi.org/10.1023/A:1013689704352): the arm
    with the largest `mean_i + constant sqrt(2 log t / T_i)` at pull t, ties broken at random.

    One success and one failure of every arm count from the start, so `T_i` is 2 plus the pulls of
    the arm, and the constant is free: this package's choices.
    """

    constant: float = 1.0

    def __call__(
        self, successes: IntArray, failures: IntArray, rng: np.random.Generator
    ) -> IntArray:
        """The arms to pull, (M,)."""
        n_pulls = successes + failures
        log_time = np.log(1.0 + n_pulls.sum(axis=-1, keepdims=True))
        bonus = self.constant * np.sqrt(2.0 * log_time / (2.0 + n_pulls))
        return _largest(_posterior_means(successes, failures) + bonus, rng)


def _posterior_means(successes: IntArray, failures: IntArray) -> FloatArray:
    return (1.0 + successes) / (2.0 + successes + failures)


def _largest(scores: FloatArray, rng: np.random.Generator) -> IntArray:
    is_largest = scores == scores.max(axis=-1, keepdims=True)
    return np.where(is_largest, rng.random(scores.shape), -1.0).argmax(axis=-1)
