"""Tasks of the frozen lake families, and the distribution of random maps.

Shapes: M tasks, S tiles, V valid maps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_envs.core import BoolArray, FloatArray, Task, TaskDistribution, TupleTask
from metarl_envs.distributions import Draw, checked_array, task_arrays
from metarl_envs.tabular.frozen_lake.maps import START, has_path, rows_of_ice, tiles_of_rows

LARGEST_TABULATED = 4
"""Maps of at most this size are drawn from the table of all valid ones."""


@dataclass(frozen=True)
class HolesTask(TupleTask):
    """Where the holes are."""

    holes: tuple[int, ...]
    """0 or 1 for each tile, (S,)"""


@dataclass(frozen=True)
class MarksTask(TupleTask):
    """Which tiles cost."""

    marks: tuple[int, ...]
    """0 or 1 for each tile, (S,)"""


@dataclass(frozen=True)
class SlipTask(TupleTask):
    """How slippery the ice is."""

    slip_probability: float
    """of not going in the intended direction"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "SlipTask":
        """The inverse of `to_array`, from (1,) numbers."""
        return cls(float(array[0]))


@dataclass(frozen=True)
class LakeGoalTask(TupleTask):
    """Where the goal is."""

    goal: int
    """index of a tile"""


def checked_task_arrays(
    distribution: TaskDistribution,
    tasks: Sequence[Any],
    task_class: type[Task],
    are_tasks: Callable[[FloatArray], bool],
) -> FloatArray:
    """What `distributions.task_arrays` gives, (M, n), but checked all at once where they are fine.

    :param distribution: of a family whose tasks have a single field
    :param tasks: M tasks, as the user handed them in
    :param task_class: of this family
    :param are_tasks: whether arrays (M, n) are all of tasks of this family
    """
    if isinstance(tasks, list | tuple) and all(type(task) is task_class for task in tasks):
        name = next(iter(task_class.__annotations__))
        try:
            arrays = np.array([np.atleast_1d(getattr(task, name)) for task in tasks])
        except ValueError:
            return task_arrays(distribution, tasks)
        is_shaped = arrays.shape[1:] == distribution.space.shape and arrays.dtype.kind in "iuf"
        if is_shaped and are_tasks(arrays):
            return arrays.astype(np.float64)
    return task_arrays(distribution, tasks)


class MapTasks:
    """Random maps as Gymnasium's `generate_random_map` draws them: every tile but the start (top
    left) and the goal (bottom right) is flagged with probability 1 - p, given that the others
    connect the two.

    Maps of at most 4x4 tiles take one uniform number, by inversion of the conditional law over all
    of them. Larger ones take one per row, and are rejected until there is a path.

    :param make_task: from the flags to a task; a class, so that it can be pickled
    :param size: rows and columns
    :param p: probability that a tile is not flagged
    """

    def __init__(self, make_task: Callable[[tuple[int, ...]], Task], size: int, p: float) -> None:
        self.make_task = make_task
        self.size = size
        self.p = p
        self.n_uniforms = 1 if size <= LARGEST_TABULATED else size
        high = np.ones(size * size)
        high[[START, -1]] = 0.0
        self.space: gym.Space[Any] = gym.spaces.Box(np.zeros(size * size), high, dtype=np.float64)

    def sample(self, rng: np.random.Generator) -> Task:
        """One task; maps of more than 4x4 tiles take uniforms until there is a path."""

        def draw(rows: Any) -> FloatArray:
            return rng.random((len(rows), self.n_uniforms))

        return self.from_row(self.arrays_from_uniforms(draw, 1)[0])

    def arrays_from_uniforms(self, draw: Draw, n: int) -> FloatArray:
        """The arrays of `n` tasks, (n, S).

        :param draw: their uniform numbers; called again for the maps without a path
        :param n: how many
        """
        if self.size <= LARGEST_TABULATED:
            maps, cumulative = _valid_maps(self.size, self.p)
            indices = np.searchsorted(cumulative, draw(np.arange(n))[:, 0], side="right")
            return maps[np.minimum(indices, len(maps) - 1)].astype(np.float64)
        return self._accepted(draw, n)

    def from_row(self, row: FloatArray) -> Task:
        """The task of an array that is known to be one, (S,)."""
        return self.make_task(tuple(row.astype(np.int64).tolist()))

    def from_array(self, array: np.ndarray) -> Task:
        """The task with this array, (S,)."""
        checked = checked_array(self.space, array)
        if not np.all((checked == 0) | (checked == 1)):
            raise ValueError(f"array={array!r} must hold nothing but 0 and 1")
        if not self.are_maps(checked[None]):
            raise ValueError(
                f"array={array!r} is no task: no path of tiles that are 0 leads from the top left "
                "to the bottom right tile"
            )
        return self.from_row(checked)

    def are_maps(self, arrays: FloatArray) -> bool:
        """Whether arrays (M, S) are all of tasks of this distribution."""
        is_flag = (arrays == 0) | (arrays == 1)
        if not is_flag.all() or arrays[:, [START, -1]].any():
            return False
        return bool(has_path(rows_of_ice(arrays != 0, self.size)).all())

    def _accepted(self, draw: Draw, n: int) -> FloatArray:
        cumulative, full = _row_law(self.size, self.p), 255 << (8 - self.size) & 255
        accepted, rows = np.zeros((self.size, n), dtype=np.int64), np.arange(n)
        while rows.size:
            indices = np.searchsorted(cumulative, draw(rows), side="right")
            ice = (np.minimum(indices, len(cumulative) - 1) << (8 - self.size)).T
            ice[0] |= 0x80
            ice[-1] |= 0x80 >> (self.size - 1)
            passed = has_path(ice)
            accepted[:, rows[passed]] = ice[:, passed]
            rows = rows[~passed]
        return tiles_of_rows(accepted ^ full, self.size).astype(np.float64)


@lru_cache(maxsize=16)
def _row_law(size: int, p: float) -> FloatArray:
    """Cumulative probabilities of a row's 2^size patterns, whose bits are its ice."""
    n_ice = np.array([pattern.bit_count() for pattern in range(2**size)])
    return np.cumsum(p**n_ice * (1.0 - p) ** (size - n_ice))


@lru_cache(maxsize=16)
def _valid_maps(size: int, p: float) -> tuple[BoolArray, FloatArray]:
    """All flags with a path, (V, S), and their cumulative probabilities given a path, (V,)."""
    n_free = size * size - 2
    flags = np.zeros((2**n_free, size * size), dtype=np.bool_)
    flags[:, 1:-1] = (np.arange(2**n_free)[:, None] >> np.arange(n_free)[::-1]) & 1
    flags = flags[has_path(rows_of_ice(flags, size))]
    n_flags = flags.sum(axis=1)
    cumulative = np.cumsum(p ** (n_free - n_flags) * (1.0 - p) ** n_flags)
    return flags, cumulative / cumulative[-1]
