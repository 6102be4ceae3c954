"""The tasks that the sub-environments of a vector environment meet, without a loop over them.

Shapes: B sub-environments, n task_dim.
"""

from collections.abc import Sequence
from functools import partial

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl_envs.batched.uniforms import UniformBuffers
from metarl_envs.core import (
    FloatArray,
    IntArray,
    Split,
    Task,
    TaskDistribution,
    task_ids,
)
from metarl_envs.distributions import (
    EPISODE_KEY,
    BatchTaskDistribution,
    TaskMode,
    TaskStream,
    task_rng,
)


class TaskStreams:
    """B streams of tasks; number i is bit for bit the `TaskStream` of the same seed.

    Tasks are kept as arrays, and made into objects when someone asks for them.

    :param distribution: where new tasks come from
    :param n_envs: B
    :param task_mode: "resample" draws a new task for every episode, "fixed" keeps the first ones
    """

    def __init__(
        self, distribution: TaskDistribution, n_envs: int, *, task_mode: TaskMode = "resample"
    ) -> None:
        # It checks task_mode, and answers `sample`.
        self._first = TaskStream(distribution, task_mode=task_mode)
        self.distribution = distribution
        self.task_mode = task_mode
        size = int(np.prod(distribution.space.shape or ()))
        self.arrays = np.zeros((n_envs, size))
        """The arrays of the running episodes' tasks, (B, n)."""
        self.ids = np.zeros(n_envs, dtype=np.int64)
        """Their `task_id`, (B,)."""
        self._tasks = _no_tasks(n_envs)  # None where only the array is known so far
        self._pinned = _no_tasks(n_envs)
        self._kept = self.arrays.copy() if task_mode == "fixed" else np.empty((0, size))
        flags = np.zeros((4, n_envs), dtype=np.bool_)
        self._has_task, self._is_pinned, self._has_kept, self._is_settled = flags
        self._n_pinned = 0
        self._class_name: str | None = None
        # Asked once: looking a protocol up takes longer than drawing a hundred tasks.
        self._batch = distribution if isinstance(distribution, BatchTaskDistribution) else None
        n_uniforms = getattr(distribution, "n_uniforms", 1)
        self._uniforms = UniformBuffers(n_envs, n_uniforms, partial(task_rng, key=EPISODE_KEY))

    def seed(self, index: int, seed: int) -> None:
        """Restarts a stream from the seed of a reset."""
        self._uniforms.seed(index, seed)
        if index == 0:
            self._first.seed(seed)

    def pin(self, index: int, task: Task | None) -> None:
        """Pins a (checked) task from the next episode on, or unpins with `None`."""
        self._n_pinned += int(task is not None) - int(self._is_pinned[index])
        self._pinned[index], self._is_pinned[index] = task, task is not None
        self._is_settled[index] = False

    @property
    def pinned(self) -> list[Task | None]:
        """The pinned tasks, `None` where none is."""
        return list(self._pinned)

    def begin(self, rows: IntArray) -> IntArray:
        """Gives new episodes their tasks; the rows that have another task now.

        :param rows: whose episodes begin
        """
        if self.task_mode == "resample" and not self._n_pinned:
            self._draw(rows)
            return rows
        rows = rows[~self._is_settled[rows]]
        if not rows.size:
            return rows
        is_pinned = self._is_pinned[rows]
        is_kept = self._has_kept[rows] & ~is_pinned
        self._set(rows[is_pinned], self._pinned[rows[is_pinned]])
        self._restore(rows[is_kept])
        self._draw(rows[~(is_pinned | is_kept)])
        self._is_settled[rows] = is_pinned | (self.task_mode == "fixed")
        return rows

    def begin_chosen(self, rows: IntArray, tasks: Sequence[Task]) -> IntArray:
        """Gives new episodes (checked) tasks that are for these episodes only; `rows`.

        :param rows: whose episodes begin
        :param tasks: one per row
        """
        chosen = _no_tasks(len(tasks))
        chosen[:] = tasks
        self._set(rows, chosen)
        self._is_settled[rows] = False
        return rows

    def get_tasks(self) -> list[Task]:
        """The tasks of the running episodes; the pinned ones before the first."""
        return [self.get_task(i) for i in range(len(self._tasks))]

    def get_task(self, index: int) -> Task:
        """The task of one stream's running episode; the pinned one before the first."""
        if self._has_task[index] and self._tasks[index] is None:
            # What was drawn need not be checked again, where the distribution can do without.
            make = getattr(self._batch, "from_row", self.distribution.from_array)
            self._tasks[index] = make(self.arrays[index].copy())
        task: Task | None = (self._tasks if self._has_task[index] else self._pinned)[index]
        if task is None:
            raise gym.error.ResetNeeded(
                "no task yet: call reset() or set_tasks(tasks) before get_tasks()"
            )
        return task

    def sample(self, n: int, *, seed: int | None = None, split: Split = "train") -> list[Task]:
        """`n` tasks that no episode of these streams meets, as `TaskStream.sample` of the first."""
        return self._first.sample(n, seed=seed, split=split)

    def _draw(self, rows: IntArray) -> None:
        if not rows.size:
            return
        if self._batch is not None:
            n = self._batch.n_uniforms
            self._set_arrays(
                rows,
                self._batch.arrays_from_uniforms(
                    lambda chosen: self._uniforms.take(rows[chosen], n), len(rows)
                ),
            )
        else:
            drawn = _no_tasks(len(rows))
            for position, i in enumerate(rows.tolist()):
                drawn[position] = self.distribution.sample(self._uniforms.generator(i))
            self._set(rows, drawn)
        if self.task_mode == "fixed":
            self._kept[rows], self._has_kept[rows] = self.arrays[rows], True

    def _restore(self, rows: IntArray) -> None:
        if rows.size:
            self._set_arrays(rows, self._kept[rows])

    def _set(self, rows: IntArray, tasks: NDArray[np.object_]) -> None:
        if rows.size:
            self._set_arrays(rows, np.array([np.ravel(task.to_array()) for task in tasks]))
            self._tasks[rows] = tasks

    def _set_arrays(self, rows: IntArray, arrays: FloatArray) -> None:
        self.arrays[rows] = arrays
        self._tasks[rows] = None
        self._has_task[rows] = True
        if self._class_name is None:
            self._class_name = type(self.get_task(int(rows[0]))).__qualname__
        self.ids[rows] = task_ids(self._class_name, arrays)


def _no_tasks(n: int) -> NDArray[np.object_]:
    return np.full(n, None, dtype=object)
