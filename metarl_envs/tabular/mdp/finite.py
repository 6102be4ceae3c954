"""The dense form of a finite MDP, and the lists of successors of one that is sparse."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp.model import (
    MDP,
    Successors,
    as_float64,
    check_distribution,
    check_model,
    repeat_over_batch,
    unrepeated,
)

# A gathered entry costs about as much as four that a matrix product reads in order.
_MOST_SUCCESSORS = 0.25


@dataclass(frozen=True, eq=False)
class FiniteMDP(MDP):
    """A finite MDP, or a batch of them; the arrays are read-only float64 with the same leading
    batch axes. They are copies, save where a read-only array was given that owns its memory.

    :param transitions: P(s' | s, a), (..., S, A, S)
    :param rewards: expected rewards, (..., S, A)
    :param initial: distribution of the first state, (..., S)
    :param discount: gamma, in [0, 1]
    :param horizon: H, the number of steps of an episode; `None`: it never ends, and `discount` must
        be below 1 to solve it
    """

    transitions: FloatArray
    rewards: FloatArray
    initial: FloatArray
    discount: float = 1.0
    horizon: int | None = None

    def __post_init__(self) -> None:
        arrays = [as_float64(x) for x in (self.transitions, self.rewards, self.initial)]
        transitions, rewards, initial = arrays
        _check_shapes(transitions, rewards, initial)
        repeated = repeat_over_batch([(transitions, 3), (rewards, 2), (initial, 1)])
        check_distribution("transitions", transitions)
        check_model(rewards, initial, self.discount, self.horizon)
        for name, array in zip(("transitions", "rewards", "initial"), repeated, strict=True):
            object.__setattr__(self, name, array)

    @cached_property
    def successors(self) -> Successors | None:
        """The possible next states; `None` where they are more than a quarter of the states."""
        return self.list_successors(_MOST_SUCCESSORS)

    def list_successors(self, most: float = 1.0) -> Successors | None:
        """The next states of positive probability; a shorter list ends with probability 0.

        :param most: give up, with `None`, where some list is longer than this share of the states
        """
        transitions = unrepeated(self.transitions, len(self.batch_shape))
        s = self.n_states
        is_possible = transitions != 0.0
        if np.count_nonzero(is_possible) > most * transitions.size:
            return None
        entries = np.flatnonzero(is_possible)
        rows = entries // s
        lengths = np.bincount(rows, minlength=transitions.size // s)
        k = int(lengths.max(initial=1))
        if k > most * s:
            return None
        is_listed = np.arange(k) < lengths[:, None]
        next_states, probabilities = np.zeros(is_listed.shape, np.intp), np.zeros(is_listed.shape)
        next_states[is_listed] = entries - s * rows
        probabilities[is_listed] = transitions.reshape(-1)[entries]
        shape = (*transitions.shape[:-1], k)
        core = (*self.batch_shape, *shape[-3:])
        return Successors(
            np.broadcast_to(next_states.reshape(shape), core),
            np.broadcast_to(probabilities.reshape(shape), core),
        )


def _check_shapes(transitions: FloatArray, rewards: FloatArray, initial: FloatArray) -> None:
    p, r, rho = transitions.shape, rewards.shape, initial.shape
    axes = "(..., S, A, S), (..., S, A) and (..., S)"
    if len(p) < 3 or len(r) < 2 or len(rho) < 1:
        raise ValueError(
            f"transitions {p}, rewards {r} and initial {rho} must have shapes {axes}: "
            "add the axes that are missing"
        )
    s, a = r[-2:]
    if p[-3:] != (s, a, s) or rho[-1] != s or not s or not a:
        raise ValueError(
            f"transitions {p}, rewards {r} and initial {rho} disagree: they must be {axes}"
        )
