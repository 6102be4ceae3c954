"""Tasks that place things on cells of a grid.

Shapes: k things, n = 2 k numbers of a task, C_i cells that thing i may be on.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray, IntArray, Task
from metarl_envs.distributions import Draw, MakeTask, checked_array


class PlacementTasks:
    """Things placed independently, each uniformly on its own list of cells.

    :param make_task: from an array (2 k,) to a task; a module-level function or class, so that it
        can be pickled
    :param places: coordinates of the cells of each thing, k arrays (C_i, 2)
    """

    def __init__(self, make_task: MakeTask, places: Sequence[IntArray]) -> None:
        self.make_task = make_task
        self.places = tuple(np.asarray(cells, dtype=np.float64) for cells in places)
        self.n_uniforms = len(self.places)
        low, high = (
            np.concatenate([bound(cells, axis=0) for cells in self.places])
            for bound in (np.min, np.max)
        )
        self.space: gym.Space[Any] = gym.spaces.Box(low, high, dtype=np.float64)

    @property
    def n_tasks(self) -> int:
        """How many different tasks there are."""
        return int(np.prod([len(cells) for cells in self.places]))

    def sample(self, rng: np.random.Generator) -> Task:
        """One task, from k uniform numbers of `rng`."""
        arrays = self.arrays_from_uniforms(lambda rows: rng.random((len(rows), self.n_uniforms)), 1)
        return self.make_task(arrays[0])

    def arrays_from_uniforms(self, draw: Draw, n: int) -> FloatArray:
        """The arrays of `n` tasks, (n, 2 k).

        :param draw: their uniform numbers
        :param n: how many
        """
        uniforms = draw(np.arange(n))
        drawn = [
            cells.take((uniforms[:, i] * len(cells)).astype(np.int64), axis=0)
            for i, cells in enumerate(self.places)
        ]
        return np.concatenate(drawn, axis=1)

    def from_array(self, array: ArrayLike) -> Task:
        """The task with this array, (2 k,)."""
        checked = checked_array(self.space, array)
        for cells, cell in zip(self.places, checked.reshape(-1, 2), strict=True):
            if not np.any(np.all(cells == cell, axis=1)):
                raise ValueError(
                    f"task={array!r} puts something on {tuple(cell.tolist())}, which is none of "
                    f"its {len(cells)} cells: give integers (x, y) of one of them"
                )
        return self.make_task(checked)
