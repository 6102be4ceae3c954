"""Pictures of grids: the agent, its way so far, and the things that it does not see.

Cells are (x, y); y grows upwards, so the last row of cells is drawn first.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from metarl_envs.batched.family import Array, View
from metarl_envs.batched.rendering import (
    ACCENT,
    FAINT,
    GREEN,
    GREY,
    WHITE,
    Colour,
    Image,
    canvas,
    draw_box,
    draw_centred,
    draw_frame,
    draw_text,
)

Cell = tuple[int, int]

_TRAIL: Colour = (203, 219, 238)
_AMBER: Colour = (214, 158, 46)
_BROWN: Colour = (139, 94, 60)
_COLOURS: Mapping[str, Colour] = {"goal": GREEN, "key": _AMBER, "door": _BROWN, "cue": _AMBER}
_MARGIN, _HEADER, _WIDTH, _SMALLEST, _LARGEST = 16, 68, 420, 8, 72
_SMALLEST_LABELLED = 28


class Scene(NamedTuple):
    """What to draw."""

    floor: Array
    """whether each cell exists, (columns, rows)"""
    horizon: int
    """steps of an episode"""
    actions: tuple[str, ...]
    """their names"""
    marks: Mapping[str, Cell]
    """names of things and where they are"""
    agent: Cell | None
    """where the agent is, as far as this is known"""
    trail: frozenset[Cell]
    """where it was, or may be"""


def grid_text(view: View, scene: Scene) -> str:
    """One character per cell: `A` the agent, `*` the agent on a thing, things by their initials,
    `o` the trail.
    """
    signs = np.where(scene.floor, ".", " ")
    for cell in scene.trail:
        signs[cell] = "o"
    for name, cell in scene.marks.items():
        signs[cell] = name[0].upper()
    if scene.agent is not None:
        signs[scene.agent] = "*" if scene.agent in scene.marks.values() else "A"
    rows = [" ".join(row).rstrip() for row in signs.T[::-1]]
    return "\n".join([_headline(view, scene), *rows, _last_step(view, scene)])


def grid_image(view: View, scene: Scene) -> Image:
    """The same as a picture: a disc for the agent, a light blue trail, named boxes for things."""
    n_columns, n_rows = scene.floor.shape
    pitch = max(_SMALLEST, min(_LARGEST, _WIDTH // n_columns))
    width = 2 * _MARGIN + max(_WIDTH, n_columns * pitch)
    image = canvas(_HEADER + n_rows * pitch + _MARGIN, width)
    draw_text(image, _MARGIN, _MARGIN, _headline(view, scene))
    draw_text(image, _MARGIN + 24, _MARGIN, _last_step(view, scene), FAINT)
    left = (width - n_columns * pitch) // 2

    def corner(cell: Cell) -> tuple[int, int]:
        return _HEADER + (n_rows - 1 - cell[1]) * pitch, left + cell[0] * pitch

    for x, y in zip(*(axis.tolist() for axis in np.nonzero(scene.floor)), strict=True):
        _draw_cell(image, corner((x, y)), pitch, _TRAIL if (x, y) in scene.trail else WHITE)
    _draw_things(image, {name: corner(cell) for name, cell in scene.marks.items()}, pitch)
    if scene.agent is not None:
        _draw_disc(image, corner(scene.agent), pitch)
    return image


def _draw_cell(image: Image, corner: tuple[int, int], pitch: int, colour: Colour) -> None:
    draw_box(image, *corner, pitch, pitch, colour)
    draw_frame(image, *corner, pitch, pitch, GREY, 1)


def _draw_things(image: Image, corners: Mapping[str, tuple[int, int]], pitch: int) -> None:
    """Boxes with their names; things on one cell share it."""
    on_cell: dict[tuple[int, int], list[str]] = {}
    for name, corner in corners.items():
        on_cell.setdefault(corner, []).append(name)
    inset, scale = max(2, pitch // 12), 2 if pitch >= 64 else 1
    size = pitch - 2 * inset
    for (top, left), names in on_cell.items():
        share = size // len(names)
        for i, name in enumerate(names):
            draw_box(image, top + inset, left + inset + i * share, size, share, _COLOURS[name])
        label = names[0] if len(names) == 1 else " ".join(name[0] for name in names)
        if pitch >= _SMALLEST_LABELLED:
            label_top = top + pitch - inset - 7 * scale - 2
            draw_centred(image, label_top, left, pitch, label, WHITE, scale)


def _draw_disc(image: Image, corner: tuple[int, int], pitch: int) -> None:
    rows, columns = np.mgrid[:pitch, :pitch] - (pitch - 1) / 2
    # A little above the middle of the cell, where it leaves names readable.
    distance = np.hypot(rows + pitch * 0.12, columns)
    area = image[corner[0] : corner[0] + pitch, corner[1] : corner[1] + pitch]
    area[distance <= pitch * 0.28] = WHITE
    area[distance <= pitch * 0.24] = ACCENT


def _headline(view: View, scene: Scene) -> str:
    return f"step {view.stage} of {scene.horizon}, return {view.episode_return:.2f}"


def _last_step(view: View, scene: Scene) -> str:
    if view.action is None:
        return "last step: none yet"
    return f"last step: {scene.actions[int(view.action)]}, reward {view.reward:.2f}"
