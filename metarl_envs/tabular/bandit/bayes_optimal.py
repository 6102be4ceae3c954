"""Bayes-optimal play of Bernoulli bandits with uniform priors, by exact dynamic programming.

After m pulls of an arm with s successes, its success probability is Beta(1 + s, 1 + m - s), with
mean (1 + s) / (2 + m). The pairs (m, s) of all arms are sufficient, and their order does not
matter. With V = 0 once the budget is spent (Bellman, 1956, "A problem in the sequential design of
experiments", https://www.jstor.org/stable/25048278),

    V(x) = max_i p_i (1 + V(x with a success of arm i)) + (1 - p_i) V(x with a failure of arm i).

Shapes: A arms, K arms that are told apart (at most one per pull), N multisets of statistics.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl_envs.batched.checking import check_counts
from metarl_envs.core import FloatArray, IntArray

_MAX_ENTRIES = 60_000_000  # of all layers: about half a gigabyte


class _Layer(NamedTuple):
    """All multisets of statistics after one number of pulls.

    An arm's pair (m, s) is coded as `m (m + 1) / 2 + s`; a multiset is the sorted codes.
    """

    codes: IntArray
    """(N, K), rows and their entries sorted"""
    following: IntArray
    """the row in the next layer after a failure and after a success of each arm, (N, K, 2)"""


class BayesOptimalPolicy:
    """The policy with the largest expected number of successes under independent uniform priors.

    :param n_pulls: n, the budget
    :param n_arms: k; time and memory grow quickly with both: (n, k) = (10, 10), (20, 5) and (60, 2)
        take less than a second, and what would take more than about half a gigabyte is refused
    """

    value: float
    """Its expected number of successes in `n_pulls` pulls, exact up to rounding."""

    def __init__(self, n_pulls: int, n_arms: int) -> None:
        check_counts(n_pulls=n_pulls, n_arms=n_arms)
        _check_size(n_pulls, n_arms)
        self.n_pulls, self.n_arms = n_pulls, n_arms
        self._pulls, self._successes = _decoded(n_pulls)
        # More arms than pulls cannot all be tried: the surplus changes nothing.
        self._n_distinct = min(n_arms, n_pulls)
        layers = self._layers()
        self._keys = [_keys(layer.codes) for layer in layers]
        self._best_codes: list[IntArray] = []
        values = np.zeros(1)
        for layer in reversed(layers):
            arms = self._arm_values(layer, values)
            best = arms.argmax(axis=-1)[:, None]
            self._best_codes.insert(0, np.take_along_axis(layer.codes, best, axis=-1)[:, 0])
            values = np.take_along_axis(arms, best, axis=-1)[:, 0]
        self.value = float(values[0])

    def action(self, successes: ArrayLike, failures: ArrayLike) -> IntArray:
        """The best arm, (...); among arms with the same statistics, the first.

        :param successes: of each arm so far, (..., A)
        :param failures: of each arm so far, (..., A)
        """
        s, f = self._checked(successes, failures)
        pulls = s + f
        codes = (pulls * (pulls + 1) // 2 + s).reshape(-1, self.n_arms)
        n_played = pulls.sum(axis=-1).reshape(-1)
        best = np.empty(len(codes), dtype=np.int64)
        for played in np.unique(n_played):
            here = n_played == played
            # Of more arms than pulls, the last ones in order hold every arm that was pulled.
            multisets = np.sort(codes[here], axis=-1)[:, -self._n_distinct :]
            rows = np.searchsorted(self._keys[played], _keys(multisets))
            best[here] = self._best_codes[played][rows]
        return (codes == best[:, None]).argmax(axis=-1).reshape(s.shape[:-1])

    def _layers(self) -> list[_Layer]:
        codes = np.zeros((1, self._n_distinct), dtype=np.int64)
        layers = []
        for _ in range(self.n_pulls - 1):
            successors = self._successors(codes)
            _, first, following = np.unique(
                _keys(successors.reshape(-1, self._n_distinct)),
                return_index=True,
                return_inverse=True,
            )
            layers.append(_Layer(codes, following.reshape(successors.shape[:-1])))
            codes = successors.reshape(-1, self._n_distinct)[first]
        # The last pull leads to the end, whatever happens.
        return [*layers, _Layer(codes, np.zeros((*codes.shape, 2), dtype=np.int64))]

    def _successors(self, codes: IntArray) -> IntArray:
        """Sorted codes after a failure and after a success of each arm, (N, K, 2, K)."""
        k = self._n_distinct
        arms = np.arange(k)
        successors = np.repeat(np.repeat(codes[:, None, None, :], k, axis=1), 2, axis=2)
        one_more_pull = self._pulls[codes] + 1
        successors[:, arms, 0, arms] += one_more_pull
        successors[:, arms, 1, arms] += one_more_pull + 1
        successors.sort(axis=-1)
        return successors

    def _arm_values(self, layer: _Layer, values: FloatArray) -> FloatArray:
        """The expected successes from a layer on that pulling each arm leads to, (N, K)."""
        p = (1.0 + self._successes[layer.codes]) / (2.0 + self._pulls[layer.codes])
        later = values[layer.following]
        return p * (1.0 + later[..., 1]) + (1.0 - p) * later[..., 0]

    def _checked(self, successes: ArrayLike, failures: ArrayLike) -> tuple[IntArray, IntArray]:
        arrays = []
        for name, value in (("successes", successes), ("failures", failures)):
            array = np.asarray(value)
            is_number = array.dtype.kind in "biuf" and array.shape[-1:] == (self.n_arms,)
            # Negated, so that NaN fails.
            if not (is_number and np.all(array >= 0) and np.all(array % 1 == 0)):
                raise ValueError(
                    f"{name}={value!r} must be counts of shape (..., {self.n_arms}), one per arm"
                )
            if np.any(array >= self.n_pulls):
                raise ValueError(f"{name}={value!r} must be below n_pulls={self.n_pulls}")
            arrays.append(array.astype(np.int64))
        try:
            s, f = np.broadcast_arrays(*arrays)
        except ValueError as error:
            raise ValueError(
                f"successes={successes!r} and failures={failures!r} have shapes that do not "
                "broadcast: give one of each per arm"
            ) from error
        if np.any((s + f).sum(axis=-1) >= self.n_pulls):
            raise ValueError(
                f"successes={successes!r} and failures={failures!r} leave no pull of "
                f"n_pulls={self.n_pulls}: their sum must be smaller"
            )
        return s, f


@lru_cache(maxsize=8)
def bayes_optimal_policy(n_pulls: int, n_arms: int) -> BayesOptimalPolicy:
    """The Bayes-optimal policy, computed once for each pair of arguments.

    :param n_pulls: n, the budget
    :param n_arms: k
    """
    return BayesOptimalPolicy(n_pulls, n_arms)


def bayes_optimal_value(n_pulls: int, n_arms: int) -> float:
    """The largest expected number of successes in `n_pulls` pulls of `n_arms` arms whose success
    probabilities are independent and uniform on [0, 1].

    :param n_pulls: n, the budget
    :param n_arms: k
    """
    return bayes_optimal_policy(n_pulls, n_arms).value


def _check_size(n_pulls: int, n_arms: int) -> None:
    """`ValueError` where the layers would have too many entries."""
    n_layers, k = 4, min(n_arms, n_pulls)
    # Of many pulls, the first ones tell: counting all would take as long as what is refused.
    while True:
        n_layers = min(2 * n_layers, n_pulls - 1)
        if 2 * k**2 * sum(_n_multisets(n_layers, k)) > _MAX_ENTRIES:
            raise ValueError(
                f"n_pulls={n_pulls} with n_arms={n_arms} is too large to solve exactly: give fewer "
                "pulls or arms"
            )
        if n_layers == n_pulls - 1:
            return


def _n_multisets(n_layers: int, n_arms: int) -> list[float]:
    """The number of multisets of the arms' statistics after 0, 1, ..., n_layers - 1 pulls.

    An arm with m pulls has m + 1 statistics, so j such arms have C(m + j, j) multisets of them.
    """
    most = min(n_arms, n_layers)
    counts = np.zeros((most + 1, n_layers))
    counts[0, :1] = 1.0
    for m in range(1, n_layers):
        before = counts.copy()
        for j in range(1, min(most, (n_layers - 1) // m) + 1):
            counts[j:, m * j :] += math.comb(m + j, j) * before[:-j, : n_layers - m * j]
    totals: list[float] = counts.sum(axis=0).tolist()
    return totals


def _decoded(n_pulls: int) -> tuple[IntArray, IntArray]:
    """Pulls and successes of every code."""
    pulls = np.repeat(np.arange(n_pulls + 1), np.arange(1, n_pulls + 2))
    return pulls, np.arange(len(pulls)) - pulls * (pulls + 1) // 2


def _keys(codes: IntArray) -> NDArray[Any]:
    """One comparable key per row, in the order of the rows, (N,)."""
    # Big-endian numbers compare as bytes do.
    rows = np.ascontiguousarray(codes, dtype=">u4")
    return rows.view(np.dtype((np.void, 4 * codes.shape[1])))[:, 0]
