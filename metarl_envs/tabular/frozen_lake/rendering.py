"""Pictures of a frozen lake: ice, holes, what costs, start, goal and the agent on its way.

Shapes: S = size^2 tiles.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import (
    FAINT,
    INK,
    Colour,
    Image,
    canvas,
    draw_box,
    draw_text,
)
from metarl_envs.core import FloatArray
from metarl_envs.tabular.frozen_lake import maps

_MARGIN, _LINE, _GAP = 16, 24, 2
_SMOOTH = 4
"""Shapes are drawn this many times larger, and averaged."""
_ACTIONS = ("left", "down", "right", "up")

_ICE: Colour = (214, 233, 244)
_SHEEN: Colour = (233, 244, 250)
_SHORE: Colour = (146, 180, 202)
_THIN_ICE: Colour = (250, 226, 176)
_CRACK: Colour = (196, 137, 52)
_RIM: Colour = (122, 164, 190)
_WATER: Colour = (28, 62, 98)
_DEEP: Colour = (15, 38, 66)
_MEADOW: Colour = (203, 232, 205)
_POLE: Colour = (92, 74, 58)
_FLAG: Colour = (214, 64, 52)
_BODY: Colour = (40, 46, 58)
_BELLY: Colour = (246, 247, 250)
_BEAK: Colour = (240, 160, 44)
_TRAIL: Colour = (92, 132, 190)


def lake_text(view: View, size: int, horizon: int) -> str:
    """The map, the agent's tile in brackets, tiles it was on in lower case, and the last step.

    :param view: observation, a tile
    :param size: rows and columns
    :param horizon: steps of an episode
    """
    letters = list("".join(maps.map_rows(_tiles(view), size)))
    for tile in np.asarray(view.path, dtype=np.int64).ravel().tolist():
        letters[tile] = letters[tile].lower()
    cells = [f" {letter} " for letter in letters]
    cells[int(view.observation)] = f"[{letters[int(view.observation)].upper()}]"
    rows = ["".join(cells[row * size : (row + 1) * size]) for row in range(size)]
    headline, last_step, *others = _captions(view, horizon)
    return "\n".join([headline, *others, *rows, last_step])


def lake_image(view: View, size: int, horizon: int) -> Image:
    """The lake from above, with the way the agent came.

    :param view: observation, a tile
    :param size: rows and columns
    :param horizon: steps of an episode
    """
    pixels = 84 if size <= 4 else 56
    pitch, captions = pixels + _GAP, _captions(view, horizon)
    header, side = _MARGIN + _LINE * len(captions) + 8, size * pitch - _GAP
    image = canvas(header + side + _MARGIN, max(side + 2 * _MARGIN, 404))
    for line, caption in enumerate(captions):
        draw_text(image, _MARGIN + line * _LINE, _MARGIN, caption, FAINT if line else INK)
    left = (image.shape[1] - side) // 2
    draw_box(image, header - 6, left - 6, side + 12, side + 12, _SHORE)
    lake = image[header : header + side, left : left + side]
    for tile, kind in enumerate(_tiles(view).tolist()):
        _area(lake, tile, size, pixels)[:] = _tile_picture(kind, pixels)
    _draw_path(lake, view, size, pixels)
    draw_text(lake, 5, 5, "start", INK, scale=1)
    _draw_agent(_area(lake, int(view.observation), size, pixels), _is_in_hole(view))
    return image


def _area(lake: Image, tile: int, size: int, pixels: int) -> Image:
    """The pixels of a tile."""
    top, left = np.array(divmod(tile, size)) * (pixels + _GAP)
    return lake[top : top + pixels, left : left + pixels]


def _tiles(view: View) -> NDArray[np.uint8]:
    return np.asarray(view.params["tiles"])


def _is_in_hole(view: View) -> bool:
    return bool(_tiles(view)[int(view.observation)] == maps.HOLE)


def _captions(view: View, horizon: int) -> list[str]:
    captions = [f"step {view.stage} of {horizon}, return {view.episode_return:.2f}", _last(view)]
    if "right_turn" in view.params:
        captions.append(f"slips with probability {2.0 * float(view.params['right_turn']):.2f}")
    return captions


def _last(view: View) -> str:
    if view.action is None:
        return "last step: none yet"
    return f"last step: {_ACTIONS[int(view.action)]}, reward {view.reward:.2f}"


def _draw_path(lake: Image, view: View, size: int, pixels: int) -> None:
    tiles = np.asarray(view.path, dtype=np.int64).ravel()
    centres = np.stack(np.divmod(tiles, size), axis=-1) * (pixels + _GAP) + pixels // 2
    half = 2
    for here, there in pairwise(centres):
        top, left = np.minimum(here, there) - half
        bottom, right = np.maximum(here, there) + half
        draw_box(lake, top, left, bottom - top, right - left, _TRAIL)


def _draw_agent(area: Image, is_wet: bool) -> None:
    """A penguin; in a hole, what of it is above the water."""
    x, y = _coordinates(len(area))
    fine = _enlarged(area)
    y = y - (0.1 if is_wet else 0.0)
    feet = _ellipse(x, y, 0.41, 0.77, 0.09, 0.045) | _ellipse(x, y, 0.59, 0.77, 0.09, 0.045)
    outline = _ellipse(x, y, 0.5, 0.54, 0.24, 0.28) | _ellipse(x, y, 0.5, 0.34, 0.19, 0.185)
    body = _ellipse(x, y, 0.5, 0.54, 0.215, 0.255) | _ellipse(x, y, 0.5, 0.34, 0.165, 0.16)
    whites = _ellipse(x, y, 0.44, 0.32, 0.05, 0.06) | _ellipse(x, y, 0.56, 0.32, 0.05, 0.06)
    pupils = _ellipse(x, y, 0.45, 0.33, 0.022, 0.03) | _ellipse(x, y, 0.55, 0.33, 0.022, 0.03)
    belly, beak = _ellipse(x, y, 0.5, 0.6, 0.145, 0.18), _ellipse(x, y, 0.5, 0.405, 0.06, 0.032)
    visible = y < (0.55 if is_wet else 1.0)
    for mask, colour in (
        (outline, _SHEEN),
        (feet, _BEAK),
        (body, _BODY),
        (belly | whites, _BELLY),
        (pupils, _BODY),
        (beak, _BEAK),
    ):
        fine[mask & visible] = colour
    area[:] = _reduced(fine)


@lru_cache(maxsize=16)
def _tile_picture(kind: int, pixels: int) -> Image:
    x, y = _coordinates(pixels)
    fine = canvas(len(x), len(x), _ICE)
    fine[_sheen(x, y)] = _SHEEN
    if kind == maps.HOLE:
        ripple = 0.012 * np.cos(7.0 * np.arctan2(y - 0.5, x - 0.5))
        fine[np.hypot(x - 0.5, y - 0.5) < 0.40 + ripple] = _RIM
        fine[np.hypot(x - 0.5, y - 0.52) < 0.35 + ripple] = _WATER
        fine[np.hypot(x - 0.5, y - 0.56) < 0.25 + ripple] = _DEEP
    elif kind == maps.COSTLY:
        fine[:] = _THIN_ICE
        cracks = [(0.1, 0.2, 0.5, 0.5), (0.5, 0.5, 0.9, 0.32), (0.5, 0.5, 0.42, 0.95)]
        cracks += [(0.3, 0.35, 0.34, 0.08), (0.7, 0.41, 0.86, 0.74), (0.46, 0.72, 0.14, 0.78)]
        for crack in cracks:
            fine[_near_segment(x, y, *crack) < 0.014] = _CRACK
    elif kind == maps.GOAL:
        fine[:] = _MEADOW
        fine[_ellipse(x, y, 0.36, 0.86, 0.16, 0.05)] = _SHORE
        fine[(np.abs(x - 0.34) < 0.025) & (y > 0.12) & (y < 0.87)] = _POLE
        fine[(x > 0.34) & (np.abs(y - 0.29) < 0.17 * (0.84 - x) / 0.5)] = _FLAG
    return _reduced(fine)


def _coordinates(pixels: int) -> tuple[FloatArray, FloatArray]:
    """x and y in [0, 1] of the pixels of an enlarged tile."""
    steps = (np.arange(pixels * _SMOOTH) + 0.5) / (pixels * _SMOOTH)
    x, y = np.meshgrid(steps, steps)
    return x, y


def _enlarged(area: Image) -> Image:
    return area.repeat(_SMOOTH, axis=0).repeat(_SMOOTH, axis=1)


def _reduced(fine: Image) -> Image:
    n = len(fine) // _SMOOTH
    return fine.reshape(n, _SMOOTH, n, _SMOOTH, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def _sheen(x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
    across, along = x + y, x - y
    first = (np.abs(across - 0.62) < 0.05) & (np.abs(along) < 0.34)
    second = (np.abs(across - 0.80) < 0.022) & (np.abs(along + 0.05) < 0.22)
    third = (np.abs(across - 1.5) < 0.035) & (np.abs(along - 0.08) < 0.20)
    return first | second | third


def _ellipse(
    x: FloatArray, y: FloatArray, x0: float, y0: float, width: float, height: float
) -> NDArray[np.bool_]:
    return ((x - x0) / width) ** 2 + ((y - y0) / height) ** 2 < 1.0


def _near_segment(x: FloatArray, y: FloatArray, x0: float, y0: float, x1: float, y1: float) -> Any:
    """Distance from a line segment."""
    squared = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / squared, 0.0, 1.0)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
