"""Maps of frozen lakes: letters, moves, and which tiles the start is connected to.

Shapes: M maps of size x size tiles, S = size^2 tiles, row by row.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium.envs.toy_text.frozen_lake import MAPS
from numpy.typing import NDArray

from metarl_envs.core import BoolArray, IntArray

Desc = Sequence[str] | NDArray[Any]

FROZEN, COSTLY, HOLE, GOAL = range(4)
LETTERS = "FCHG"
START_LETTER = "S"
START = 0
LARGEST_SIZE = 8
"""A row of tiles is the bits of one byte."""

_START_BIT = 0x80


def holes_of_map(map_name: str) -> BoolArray:
    """Which tiles of one of Gymnasium's own maps are holes, (S,)."""
    if not isinstance(map_name, str) or map_name not in MAPS:
        raise ValueError(f"map_name={map_name!r} must be one of {sorted(MAPS)}")
    return np.array([letter == "H" for letter in "".join(MAPS[map_name])])


def moves(size: int) -> IntArray:
    """The tile that each direction (left, down, right, up) leads to, (S, 4): at the border the
    same tile.
    """
    row, column = np.divmod(np.arange(size * size), size)
    steps = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    reached = [
        np.clip(row + down, 0, size - 1) * size + np.clip(column + right, 0, size - 1)
        for down, right in steps
    ]
    return np.stack(reached, axis=-1)


def checked_rows(desc: Desc, size: int) -> list[str]:
    """The rows of a map; `TypeError` for what is no text, `ValueError` for another size.

    :param desc: one string per row, or the array of letters that Gymnasium's env has as `desc`
    :param size: rows and columns
    """
    if isinstance(desc, np.ndarray) and desc.dtype.kind in "SU":
        text = np.char.decode(desc, "latin-1") if desc.dtype.kind == "S" else desc
        rows = ["".join(row) for row in text.tolist()]
    elif isinstance(desc, Sequence):
        rows = [desc] if isinstance(desc, str) else list(desc)
    else:
        raise TypeError(
            f"desc={desc!r} must be a list of strings, one per row, or Gymnasium's desc"
        )
    if len(rows) != size or not all(isinstance(row, str) and len(row) == size for row in rows):
        raise ValueError(f"desc={desc!r} must be {size} strings of {size} letters each")
    return rows


def letters(rows: Sequence[str]) -> NDArray[np.str_]:
    """The letters of a map, (S,), from its rows."""
    return np.array(list("".join(rows)))


def map_rows(tiles: NDArray[Any], size: int) -> list[str]:
    """A map as Gymnasium writes it, with `C` (ice to Gymnasium) for tiles that cost.

    :param tiles: FROZEN, COSTLY, HOLE or GOAL, (S,)
    :param size: rows and columns
    """
    signs = [LETTERS[tile] for tile in tiles.tolist()]
    signs[START] = START_LETTER
    return ["".join(signs[row * size : (row + 1) * size]) for row in range(size)]


def rows_of_ice(holes: BoolArray, size: int) -> IntArray:
    """Each row's ice as a byte, the leftmost tile the highest bit, (size, M).

    :param holes: (M, S)
    :param size: rows and columns
    """
    ice = np.packbits(~holes.reshape(-1, size, size), axis=-1)[..., 0]
    return ice.T.astype(np.int64)


def tiles_of_rows(rows: IntArray, size: int) -> BoolArray:
    """The inverse of packing: the bits of (size, M) bytes, (M, S)."""
    bits = np.unpackbits(np.ascontiguousarray(rows.T, dtype=np.uint8))
    return bits.view(np.bool_).reshape(-1, size, 8)[..., :size].reshape(-1, size * size)


def has_path(ice: IntArray) -> BoolArray:
    """Whether ice connects the top left with the bottom right tile, (M,).

    :param ice: rows as bytes, (size, M)
    """
    goal = _START_BIT >> (len(ice) - 1) << 8
    known = _swept_down(_with_start(ice))
    connected = (known[-1] & goal) > 0
    # Going down and sideways connects nearly all maps with a path; the others go up and down until
    # nothing is added.
    open_maps, goal_row = np.flatnonzero(~connected), 0
    known = known[:, open_maps]
    while open_maps.size:
        before = known[::-1]
        known = _swept_down(before)
        connected[open_maps] = (known[goal_row] & goal) > 0
        is_open = (known != before).any(axis=0) & ~connected[open_maps]
        open_maps, goal_row = open_maps[is_open], -1 - goal_row
        known = known[:, is_open]
    return connected


def reachable(holes: BoolArray, size: int) -> BoolArray:
    """Which tiles ice connects with the top left one, (M, S).

    :param holes: (M, S)
    :param size: rows and columns
    """
    known = _with_start(rows_of_ice(holes, size))
    while True:
        before = known
        known = _swept_down(_swept_down(known)[::-1])[::-1]
        if np.array_equal(before, known):
            return tiles_of_rows(known >> 8, size)


def _with_start(ice: IntArray) -> IntArray:
    """What is known of each row, 256 * reached + ice: only the start is reached, (size, M)."""
    known = ice.copy()
    known[0] |= _START_BIT << 8
    return known


def _swept_down(known: IntArray) -> IntArray:
    """Spreads what is reached along each row, then to the next one, and so on, (size, M)."""
    spread, reached = _spread_along_rows(), np.empty_like(known)
    above: Any = 0
    for row in range(len(known)):
        # "clip" writes to `out` without a buffer; no index is out of bounds.
        above = spread.take(known[row] | above, out=reached[row], mode="clip")
    return known | reached


@cache
def _spread_along_rows() -> IntArray:
    """For 256 * reached + ice, 256 times the tiles of the row's ice connected with reached ones,
    (65536,).
    """
    reached, ice = np.divmod(np.arange(1 << 16, dtype=np.int64), 256)
    reached &= ice
    for _ in range(LARGEST_SIZE - 1):
        reached |= ((reached << 1) | (reached >> 1)) & ice
    return reached << 8
