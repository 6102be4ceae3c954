"""A square grid of cells: how they are numbered, moves between them, distances.

Cell (x, y) has the number `x * size + y`; x grows to the right and y upwards.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np

from metarl_envs.core import IntArray

Start = tuple[int, int] | Literal["random"] | None

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


def checked_start_cells(start: Any, grid: Grid) -> IntArray:
    """The cells on which an episode may begin, or `ValueError`.

    :param start: (x, y), `None` for the centre, or "random" for all of them
    :param grid: where
    """
    if isinstance(start, str) and start == "random":
        return np.arange(grid.n_cells)
    centre = grid.size // 2
    pair = (centre, centre) if start is None else start
    is_pair = isinstance(pair, Sequence) and len(pair) == 2
    if not is_pair or not all(_is_coordinate(number, grid.size) for number in pair):
        raise ValueError(
            f"start={start!r} must be None, for the centre, 'random', or a pair (x, y) of integers "
            f"from 0 to {grid.size - 1}"
        )
    return grid.cells(np.array([pair]))


def _is_coordinate(number: Any, size: int) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool) and 0 <= int(number) < size
