"""Exact values of the recommendation family: states in layers by the number of shown products, and
backward recursions.

Shapes: M tasks, P products (the actions), J stages, S states with at most J - 1 shown products, S_h
those with at most h.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl_envs.core import FloatArray, IntArray

Choose = Callable[[int, FloatArray], FloatArray]
"""From a stage and its action values (M, S_h, P) to the state values (M, S_h) of some policy."""

MAX_STATES = 200_000
_CHUNK = 4_000_000  # numbers in the largest intermediate array


class StateTable(NamedTuple):
    """All states with at most J - 1 shown products, in order of their number of shown products."""

    x: NDArray[np.int8]
    """(S, P), -1 disliked, 0 not shown, +1 liked"""
    n_states: tuple[int, ...]
    """S_h for h = 0..J-1: the first S_h states have at most h shown products"""
    liked: IntArray
    """(S_{J-2}, P), index of the state after product a was shown and liked; the state itself where
    a was shown before
    """
    disliked: IntArray
    """(S_{J-2}, P), the same for disliked"""

    def layer(self, stage: int) -> slice:
        """The states with exactly `stage` shown products."""
        return slice(self.n_states[stage - 1] if stage else 0, self.n_states[stage])


def count_states(n_products: int, n_stages: int) -> int:
    """S, the number of states with fewer than `n_stages` shown products."""
    return sum(comb(n_products, k) * 2**k for k in range(n_stages))


def state_codes(x: NDArray[np.int8]) -> IntArray:
    """Base-3 codes, (...), of states (..., P)."""
    powers = 3 ** np.arange(x.shape[-1], dtype=np.int64)
    return np.where(x < 0, 2, x).astype(np.int64) @ powers


def state_table(n_products: int, n_stages: int) -> StateTable:
    """Enumerates the states and their successors; `ValueError` where there are too many."""
    total = count_states(n_products, n_stages)
    if total > MAX_STATES:
        raise ValueError(
            f"n_products={n_products} and n_recommendations={n_stages} have {total} states, "
            f"too many (more than {MAX_STATES}) for exact values: "
            "evaluate by rollouts instead, or take fewer products"
        )
    layers = [_layer(n_products, k) for k in range(n_stages)]
    sizes = np.cumsum([len(layer) for layer in layers])
    successors = [_successors(layers, sizes, k) for k in range(n_stages - 1)]
    empty = np.empty((0, n_products), dtype=np.int64)
    liked, disliked = (np.concatenate([empty, *(pair[i] for pair in successors)]) for i in (0, 1))
    return StateTable(np.concatenate(layers), tuple(sizes.tolist()), liked, disliked)


def _layer(n_products: int, n_shown: int) -> NDArray[np.int8]:
    shown = np.array(list(combinations(range(n_products), n_shown)), dtype=np.int64)
    signs = np.array(list(product((1, -1), repeat=n_shown)), dtype=np.int8)
    cells = np.zeros((len(shown), len(signs), n_products), dtype=np.int8)
    where = np.broadcast_to(shown[:, None], (len(shown), *signs.shape))
    np.put_along_axis(cells, where, signs[None], axis=2)
    x = cells.reshape(-1, n_products)
    return x[np.argsort(state_codes(x))]


def _successors(
    layers: Sequence[NDArray[np.int8]], sizes: IntArray, k: int
) -> tuple[IntArray, IntArray]:
    x, codes, next_codes = layers[k], state_codes(layers[k]), state_codes(layers[k + 1])
    stay = sizes[k] - len(x) + np.arange(len(x))[:, None]
    powers = 3 ** np.arange(x.shape[1], dtype=np.int64)

    def after(digit: int) -> IntArray:
        found = sizes[k] + np.searchsorted(next_codes, codes[:, None] + digit * powers)
        return np.where(x == 0, found, stay)

    return after(1), after(2)


def sigmoid(logits: FloatArray) -> FloatArray:
    """`1 / (1 + exp(-logits))`, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def like_probabilities(
    x: NDArray[np.int8], bias: FloatArray, affinity: FloatArray, interactions: FloatArray | None
) -> FloatArray:
    """Probability that each product is liked, (M, S, P), and 0 for those that were shown.

    :param x: (S, P)
    :param bias: (M, P)
    :param affinity: (M, P, P)
    :param interactions: (P, P, P) or `None`
    """
    states = x.astype(np.float64)
    logits = bias[:, None, :] + states @ affinity.transpose(0, 2, 1)
    if interactions is not None:
        logits += np.einsum("sn,anm,sm->sa", states, interactions, states)
    return np.where(x == 0, sigmoid(logits), 0.0)


def backward(
    table: StateTable, probabilities: FloatArray, choose: Choose
) -> Iterator[tuple[int, FloatArray]]:
    """Backward recursion; yields `(stage, action values (M, S_stage, P))` from the last stage to
    the first.

    A product that was shown before changes nothing but the stage: `Q_h(x, a) = p (1 + V_{h+1}(x
    liked a)) + (1 - p) V_{h+1}(x disliked a)` if a is new, else `V_{h+1}(x)`.

    :param table: the states
    :param probabilities: (M, S, P), see `like_probabilities`
    :param choose: from a stage and its action values to state values (M, S_stage)
    """
    values: FloatArray | None = None
    for stage in reversed(range(len(table.n_states))):
        n = table.n_states[stage]
        p = probabilities[:, :n]
        if values is None:
            action_values = p.copy()
        else:
            action_values = (
                p * (1.0 + values[:, table.liked[:n]]) + (1.0 - p) * values[:, table.disliked[:n]]
            )
        values = choose(stage, action_values)
        yield stage, action_values


def start_values(table: StateTable, probabilities: FloatArray, choose: Choose) -> FloatArray:
    """Value of the start of an episode, (M,), under the policy that `choose` stands for."""
    *_, (stage, action_values) = backward(table, probabilities, choose)
    return np.asarray(choose(stage, action_values)[:, 0])


def choose_best(table: StateTable, masked: bool) -> Choose:
    """The optimal policy; never a shown product where repeats are masked."""

    def choose(stage: int, action_values: FloatArray) -> FloatArray:
        return np.asarray(_masked_scores(table, action_values, stage, masked).max(axis=-1))

    return choose


def choose_likeliest(table: StateTable, probabilities: FloatArray, masked: bool) -> Choose:
    """The policy that shows what is most likely to be liked, given (M, S, P) probabilities."""

    def choose(stage: int, action_values: FloatArray) -> FloatArray:
        likes = probabilities[:, : table.n_states[stage]]
        actions = np.argmax(_masked_scores(table, likes, stage, masked), axis=-1)
        return np.take_along_axis(action_values, actions[..., None], axis=-1)[..., 0]

    return choose


def choose_randomly(policy: Sequence[FloatArray]) -> Choose:
    """The policy with these action probabilities, (M, S_h, P) per stage."""
    return lambda stage, action_values: np.einsum("msa,msa->ms", policy[stage], action_values)


def _masked_scores(table: StateTable, scores: FloatArray, stage: int, masked: bool) -> FloatArray:
    if not masked:
        return scores
    return np.where(table.x[: table.n_states[stage]] == 0, scores, -np.inf)


def chunks(n_tasks: int, table: StateTable) -> Iterator[slice]:
    """Slices over tasks that keep the intermediate arrays small enough for the cache and the
    memory.
    """
    size = max(1, _CHUNK // table.x.size)
    return (slice(start, min(start + size, n_tasks)) for start in range(0, n_tasks, size))
