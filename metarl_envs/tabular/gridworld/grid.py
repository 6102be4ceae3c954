"""A square grid of cells: how they are numbered, moves between them, distances.

Cell (x, y) has the number `x * size + y`; x grows to the right and y upwards.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from metarl_envs.core import IntArray

ACTIONS = ("stay", "up", "right", "down", "left")
_MOVES = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]])


class Grid:
    """A grid without walls inside: a move against the border leads nowhere.

    :param size: cells along a side, N
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.n_cells = size * size
        self.coordinates: IntArray = np.stack(
            np.divmod(np.arange(self.n_cells), size), axis=-1
        ).astype(np.int64)
        """(N^2, 2), of every cell"""
        self.neighbours: IntArray = self.cells(
            np.clip(self.coordinates[:, None] + _MOVES, 0, size - 1)
        )
        """(N^2, 5), the cell that each action leads to"""

    def cells(self, coordinates: np.ndarray) -> IntArray:
        """The numbers of cells, (...), from their coordinates (..., 2), integers in any dtype."""
        whole = coordinates.astype(np.int64)
        return np.asarray(whole[..., 0] * self.size + whole[..., 1])

    def distances(self, cell: int | IntArray) -> IntArray:
        """Moves from every cell to one or to each of several, (N^2,) or (M, N^2)."""
        gaps = np.abs(self.coordinates[cell][..., None, :] - self.coordinates)
        return np.asarray(gaps.sum(axis=-1))


def checked_start(start: Any, size: int) -> tuple[int, int]:
    """`start` as a pair of integers, the centre where it is `None`, or `ValueError`."""
    if start is None:
        return size // 2, size // 2
    is_pair = isinstance(start, Sequence) and len(start) == 2
    if not is_pair or not all(_is_coordinate(number, size) for number in start):
        raise ValueError(
            f"start={start!r} must be None, for the centre, or a pair (x, y) of integers "
            f"from 0 to {size - 1}"
        )
    return int(start[0]), int(start[1])


def _is_coordinate(number: Any, size: int) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool) and 0 <= int(number) < size
