"""What the forms of a finite MDP share: their axes, their checks, and arrays that tasks share."""

from dataclasses import fields
from functools import cached_property
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl_envs.core import FloatArray

IntArray = NDArray[np.intp]

_PROBABILITY_TOLERANCE = 1e-8
_ROWS_PER_CHECK = 4096


class Successors(NamedTuple):
    """Where each action may lead; a successor that stands twice counts with both probabilities.

    :param next_states: (..., S, A, K)
    :param probabilities: (..., S, A, K)
    """

    next_states: IntArray
    probabilities: FloatArray


class MDP:
    """A finite MDP, or a batch of them, in one of two forms: `FiniteMDP` or `SparseMDP`.

    The arrays are read-only and have the same leading batch axes. An array that was given without
    them is stored once and repeated as a view.
    """

    rewards: FloatArray
    initial: FloatArray
    discount: float
    horizon: int | None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes; () for a single MDP."""
        return self.initial.shape[:-1]

    @property
    def n_states(self) -> int:
        """S."""
        return self.rewards.shape[-2]

    @property
    def n_actions(self) -> int:
        """A."""
        return self.rewards.shape[-1]

    @cached_property
    def successors(self) -> Successors | None:
        """The possible next states; `None` where there are too many for a list to pay."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Self:
        """One task of the first batch axis, as an MDP of its own; or some, by a slice."""
        if not self.batch_shape:
            raise TypeError("this is a single MDP, not a batch: there is nothing to index")
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return type(self)(
            *(value[index] if isinstance(value, np.ndarray) else value for value in values)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickled arrays would be writeable, and repeated ones written out in full.
        values = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        n_axes = len(self.batch_shape)
        return type(self), tuple(
            unrepeated(value, n_axes) if isinstance(value, np.ndarray) else value
            for value in values
        )


def unrepeated(array: NDArray[Any], n_axes: int) -> NDArray[Any]:
    """The array with length 1 for those of its first `n_axes` axes that only repeat it."""
    repeats = [stride == 0 for stride in array.strides[:n_axes]]
    return array[tuple(slice(0, 1) if repeat else slice(None) for repeat in repeats)]


def as_float64(array: ArrayLike) -> FloatArray:
    """A C-ordered float64 copy; the array itself where it is read-only and owns its memory."""
    if isinstance(array, np.ndarray) and array.dtype == np.float64:
        flags = array.flags
        if flags.c_contiguous and flags.owndata and not flags.writeable:
            return array
    return np.array(array, dtype=np.float64, order="C")


def repeat_over_batch(arrays: list[tuple[NDArray[Any], int]]) -> list[Any]:
    """Read-only views of the arrays with the batch axes of all of them.

    :param arrays: pairs of an array and the number of its trailing axes that are no batch axes
    """
    cores = [(array, array.shape[array.ndim - n_core :]) for array, n_core in arrays]
    shapes = [array.shape[: array.ndim - len(core)] for array, core in cores]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"the batch axes of {', '.join(str(array.shape) for array, _ in cores)} do not "
            "broadcast: give each array the axes of the tasks, axes of length 1, or none"
        ) from error
    return [np.broadcast_to(array, (*batch, *core)) for array, core in cores]


def check_distribution(name: str, array: FloatArray) -> None:
    """Refuse what is no distribution over the last axis.

    :param name: of the argument
    :param array: (..., N)
    """
    n = array.shape[-1]
    rows, ones = array.reshape(-1, n), np.ones(n)
    for start in range(0, len(rows), _ROWS_PER_CHECK):
        # Few rows at a time: the second pass finds them in the cache.
        part = rows[start : start + _ROWS_PER_CHECK]
        totals = part @ ones
        # Negated, so that NaN fails.
        if not (part.min() >= 0.0 and np.abs(totals - 1.0).max() <= _PROBABILITY_TOLERANCE):
            raise ValueError(
                f"{name} must be finite, non-negative and sum to 1 (to "
                f"{_PROBABILITY_TOLERANCE:g}) over the last axis, but has an entry {part.min():g} "
                f"or a sum in [{totals.min():g}, {totals.max():g}]: normalise it in float64"
            )


def check_model(rewards: FloatArray, initial: FloatArray, discount: Any, horizon: Any) -> None:
    """Refuse rewards, a first state, a discount or a horizon that no MDP has.

    :param rewards: (..., S, A)
    :param initial: (..., S)
    :param discount: must be a number in [0, 1]
    :param horizon: must be `None` or a positive integer
    """
    check_distribution("initial", initial)
    if not np.all(np.isfinite(rewards)):
        wrong = rewards[~np.isfinite(rewards)][0]
        raise ValueError(f"rewards must be finite, but hold {wrong}: replace such entries")
    if not isinstance(discount, Real):
        raise TypeError(f"discount={discount!r} must be one number in [0, 1]")
    if not 0.0 <= float(discount) <= 1.0:
        raise ValueError(f"discount={discount!r} must lie in [0, 1]")
    if horizon is not None and (
        isinstance(horizon, bool) or not isinstance(horizon, Integral) or int(horizon) < 1
    ):
        raise ValueError(f"horizon={horizon!r} must be None or an integer of at least 1")
