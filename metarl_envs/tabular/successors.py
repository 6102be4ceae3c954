"""The sparse form of a finite MDP: for each state and action, a short list of next states."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp.finite import FiniteMDP
from metarl_envs.tabular.mdp.model import (
    MDP,
    IntArray,
    Successors,
    as_float64,
    check_distribution,
    check_model,
    repeat_over_batch,
    unrepeated,
)


@dataclass(frozen=True, eq=False)
class SparseMDP(MDP):
    """A finite MDP, or a batch of them, that lists the K states each action may lead to; arrays as
    in `FiniteMDP`.

    Batch axes broadcast: tasks that differ only in their probabilities share one `next_states`
    (S, A, K). A list may name a state twice, which then has the sum of the probabilities; pad
    shorter lists with any state at probability 0.

    :param next_states: integers in [0, S), (..., S, A, K)
    :param probabilities: of the next states, (..., S, A, K)
    :param rewards: expected rewards, (..., S, A)
    :param initial: distribution of the first state, (..., S)
    :param discount: gamma, in [0, 1]
    :param horizon: H, the number of steps of an episode; `None`: it never ends, and `discount` must
        be below 1 to solve it
    """

    next_states: IntArray
    probabilities: FloatArray
    rewards: FloatArray
    initial: FloatArray
    discount: float = 1.0
    horizon: int | None = None

    def __post_init__(self) -> None:
        next_states = _as_integers(self.next_states)
        arrays = [as_float64(x) for x in (self.probabilities, self.rewards, self.initial)]
        probabilities, rewards, initial = arrays
        _check_shapes(next_states, probabilities, rewards, initial)
        repeated = repeat_over_batch(
            [(next_states, 3), (probabilities, 3), (rewards, 2), (initial, 1)]
        )
        _check_range(next_states, rewards.shape[-2])
        check_distribution("probabilities", probabilities)
        check_model(rewards, initial, self.discount, self.horizon)
        names = ("next_states", "probabilities", "rewards", "initial")
        for name, array in zip(names, repeated, strict=True):
            object.__setattr__(self, name, array)

    @classmethod
    def from_finite_mdp(cls, mdp: FiniteMDP) -> Self:
        """The same MDP(s), with K the most next states that any action has."""
        successors = mdp.list_successors()
        assert successors is not None
        n_axes = len(mdp.batch_shape)
        return cls(
            unrepeated(successors.next_states, n_axes),
            unrepeated(successors.probabilities, n_axes),
            unrepeated(mdp.rewards, n_axes),
            unrepeated(mdp.initial, n_axes),
            mdp.discount,
            mdp.horizon,
        )

    def to_finite_mdp(self) -> FiniteMDP:
        """The same MDP(s) with the dense `transitions`, (..., S, A, S)."""
        n_axes = len(self.batch_shape)
        next_states, probabilities = np.broadcast_arrays(
            unrepeated(self.next_states, n_axes), unrepeated(self.probabilities, n_axes)
        )
        transitions = np.zeros((*next_states.shape[:-1], self.n_states))
        rows = np.arange(transitions.size, step=self.n_states).reshape(next_states.shape[:-1])
        entries = (next_states + rows[..., None]).reshape(-1)
        np.add.at(transitions.reshape(-1), entries, probabilities.reshape(-1))
        transitions.flags.writeable = False
        return FiniteMDP(
            transitions,
            unrepeated(self.rewards, n_axes),
            unrepeated(self.initial, n_axes),
            self.discount,
            self.horizon,
        )

    @cached_property
    def successors(self) -> Successors:
        """The possible next states."""
        return Successors(self.next_states, self.probabilities)


def _as_integers(next_states: ArrayLike) -> IntArray:
    array: np.ndarray[Any, Any] = np.asarray(next_states)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"next_states of dtype {array.dtype} must be integers: use next_states.astype(int)"
        )
    flags = array.flags
    if array.dtype == np.intp and flags.c_contiguous and flags.owndata and not flags.writeable:
        return array
    return np.array(array, dtype=np.intp, order="C")


def _check_shapes(
    next_states: IntArray, probabilities: FloatArray, rewards: FloatArray, initial: FloatArray
) -> None:
    n, p, r, rho = next_states.shape, probabilities.shape, rewards.shape, initial.shape
    fits = len(n) >= 3 and len(r) >= 2 and len(rho) >= 1 and min(*n[-3:], *r[-2:]) > 0
    if not (fits and n[-3:] == p[-3:] and n[-3:-1] == r[-2:] and rho[-1] == r[-2]):
        raise ValueError(
            f"next_states {n}, probabilities {p}, rewards {r} and initial {rho} disagree: they "
            "must be (..., S, A, K), (..., S, A, K), (..., S, A) and (..., S)"
        )


def _check_range(next_states: IntArray, n_states: int) -> None:
    if next_states.size and not 0 <= next_states.min() <= next_states.max() < n_states:
        raise ValueError(
            f"next_states has entries from {next_states.min()} to {next_states.max()}, but states "
            f"are 0 to {n_states - 1}: pad with a state of probability 0, not with -1"
        )
