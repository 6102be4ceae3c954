"""Pictures of a point on its way: the plane, the goal, the start and the path.

Lines and discs are drawn with smooth edges: a pixel takes as much of the colour as it is covered.
Shapes: P points; positions are (2,), images (height, width, 3) uint8.
"""

from typing import NamedTuple

import numpy as np

from metarl_envs.batched.family import Array, View
from metarl_envs.batched.rendering import (
    ACCENT,
    FAINT,
    GREEN,
    GREY,
    INK,
    PAPER,
    RED,
    WHITE,
    Colour,
    Image,
    canvas,
    draw_box,
    draw_centred,
    draw_frame,
    draw_text,
)
from metarl_envs.core import FloatArray

_PANEL, _MARGIN, _HEADER, _FOOTER, _LABELS = 400, 16, 64, 56, 36
_COLUMNS, _ROWS = 41, 21  # characters are about twice as high as wide


class Scene(NamedTuple):
    """What a picture shows besides the path."""

    half_width: float
    """of the square that the picture shows; it doubles until the whole path is within"""
    horizon: int
    centre: tuple[float, float] = (0.0, 0.0)
    goal: Array | None = None
    """(2,)"""
    goal_radius: float = 0.0
    """of the disc around the goal that counts as the goal"""
    places: FloatArray = np.empty((0, 2))
    """where the goal could be instead, (P, 2)"""
    outline: FloatArray = np.empty((0, 2))
    """a line to show, (P, 2)"""
    wind: Array | None = None
    """(2,)"""


def square(half_width: float) -> FloatArray:
    """The outline of a square around 0, (5, 2)."""
    corners = [[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]]
    return half_width * np.array(corners)


def scene_text(view: View, scene: Scene) -> str:
    """The plane as characters.

    :param view: with the path
    :param scene: what is around it
    """
    path = _path(view)
    low, high = _window(scene, path)
    rows = [[" "] * _COLUMNS for _ in range(_ROWS)]
    marks = [(point, ".") for point in path] + [(path[0], "S")]
    marks += [(place, "o") for place in scene.places]
    marks += [] if scene.goal is None else [(scene.goal, "G")]
    for point, mark in [*marks, (path[-1], "A")]:
        column, row = (point - low) / (high - low) * (_COLUMNS - 1, _ROWS - 1)
        if 0 <= round(row) < _ROWS and 0 <= round(column) < _COLUMNS:
            rows[_ROWS - 1 - round(row)][round(column)] = mark
    edge = "+" + "-" * _COLUMNS + "+"
    plane = [edge, *("|" + "".join(row) + "|" for row in rows), edge]
    ends = f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
    return "\n".join([_headline(view, scene), *plane, ends + _wind(scene), _last_move(view)])


def scene_image(view: View, scene: Scene) -> Image:
    """The same as a picture.

    :param view: with the path
    :param scene: what is around it
    """
    path = _path(view)
    plane = _Plane(*_window(scene, path))
    plane.draw_grid()
    if len(scene.outline):
        plane.draw_line(scene.outline, FAINT, 0.6)
    if scene.wind is not None:
        plane.draw_arrows(scene.wind)
    for place in scene.places:
        plane.draw_ring(place, 7, FAINT)
    if scene.goal is not None:
        plane.draw_goal(scene.goal, scene.goal_radius)
    plane.draw_path(path)
    return _framed(plane, view, scene)


class _Plane:
    """The panel of a picture; row 0 is at the top, so the second axis is turned round.

    :param low: position of the lower left corner
    :param high: position of the upper right corner
    """

    def __init__(self, low: FloatArray, high: FloatArray) -> None:
        self.low, self.high = low, high
        self.scale = _PANEL / float(high[0] - low[0])
        self.image = canvas(_PANEL, _PANEL, WHITE)

    def ticks(self, axis: int) -> FloatArray:
        """Round numbers along an axis."""
        gap = _round_gap(float(self.high[axis] - self.low[axis]) / 6)
        first = np.ceil(self.low[axis] / gap)
        return gap * np.arange(first, np.floor(self.high[axis] / gap) + 1) + 0.0  # no -0

    def pixels(self, points: Array) -> FloatArray:
        """Rows and columns, (..., 2), of positions (..., 2)."""
        points = np.asarray(points, dtype=np.float64)
        rows = (self.high[1] - points[..., 1]) * self.scale
        columns = (points[..., 0] - self.low[0]) * self.scale
        return np.stack([rows, columns], axis=-1) - 0.5

    def draw_grid(self) -> None:
        """Thin lines at the ticks."""
        lines = []
        for axis in (0, 1):
            for tick in self.ticks(axis):
                ends = np.array([self.low, self.high])
                ends[:, axis] = tick
                lines.append(ends)
        self.draw_segments(np.array(lines), GREY, 0.5)

    def draw_line(self, points: Array, colour: Colour, half_width: float) -> None:
        """A line through points, (P, 2)."""
        self.draw_segments(np.stack([points[:-1], points[1:]], axis=1), colour, half_width)

    def draw_segments(self, ends: Array, colour: Colour, half_width: float) -> None:
        """Lines between pairs of positions, (P, 2, 2); `half_width` in pixels."""
        cover = np.zeros(self.image.shape[:2])
        for start, end in self.pixels(ends):
            _cover_segment(cover, start, end, half_width)
        _blend(self.image, cover, colour)

    def draw_disc(self, position: Array, radius: float, colour: Colour, opacity: float = 1) -> None:
        """A disc; `radius` in pixels."""
        cover = np.zeros(self.image.shape[:2])
        centre = self.pixels(position)
        _cover_segment(cover, centre, centre, radius)
        _blend(self.image, opacity * cover, colour)

    def draw_ring(self, position: Array, radius: float, colour: Colour) -> None:
        """A circle; `radius` in pixels."""
        cover, inner = np.zeros((2, *self.image.shape[:2]))
        centre = self.pixels(position)
        _cover_segment(cover, centre, centre, radius + 1)
        _cover_segment(inner, centre, centre, radius - 1)
        _blend(self.image, cover - inner, colour)

    def draw_goal(self, goal: Array, radius: float) -> None:
        """A cross, in the disc that counts as the goal."""
        if radius > 0:
            self.draw_disc(goal, radius * self.scale, GREEN, 0.25)
        arms = 6 / self.scale * np.array([[1.0, 1.0], [1.0, -1.0]])
        self.draw_segments(np.stack([goal - arms, goal + arms], axis=1), GREEN, 1.6)

    def draw_arrows(self, wind: Array) -> None:
        """A field of arrows, longer than one step's wind so that it can be seen."""
        arrow = 1.5 * np.asarray(wind)
        tips = np.stack(np.meshgrid([1, 3, 5, 7], [1, 3, 5, 7]), axis=-1).reshape(-1, 2) / 8
        tips = self.low + (self.high - self.low) * tips + arrow / 2
        across = np.array([-arrow[1], arrow[0]])
        feet = [tips - arrow, tips - 0.3 * arrow + 0.2 * across, tips - 0.3 * arrow - 0.2 * across]
        ends = np.concatenate([np.stack([foot, tips], axis=1) for foot in feet])
        self.draw_segments(ends, FAINT, 0.7)

    def draw_path(self, path: Array) -> None:
        """The start as a ring, a dot for each step, and the point itself."""
        self.draw_line(path, ACCENT, 0.9)
        cover = np.zeros(self.image.shape[:2])
        for pixel in self.pixels(path):
            _cover_segment(cover, pixel, pixel, 2.2)
        _blend(self.image, cover, ACCENT)
        self.draw_ring(path[0], 6, INK)
        self.draw_disc(path[-1], 5.5, RED)


def _framed(plane: _Plane, view: View, scene: Scene) -> Image:
    width = _LABELS + _PANEL + _MARGIN + _LABELS
    image = canvas(_HEADER + _PANEL + _FOOTER, width, PAPER)
    draw_text(image, _MARGIN, _MARGIN, _headline(view, scene))
    draw_text(image, _MARGIN + 22, _MARGIN, _last_move(view), FAINT)
    draw_box(image, _HEADER - 1, _LABELS + _MARGIN - 1, _PANEL + 2, _PANEL + 2, FAINT)
    panel = image[_HEADER : _HEADER + _PANEL, _LABELS + _MARGIN : _LABELS + _MARGIN + _PANEL]
    panel[:] = plane.image
    for tick in plane.ticks(0):
        column = round(float(plane.pixels(np.array([tick, plane.low[1]]))[1]))
        left = _LABELS + _MARGIN + column - 30
        draw_centred(image, _HEADER + _PANEL + 8, left, 60, f"{tick:g}", FAINT)
    for tick in plane.ticks(1):
        row = round(float(plane.pixels(np.array([plane.low[0], tick]))[0]))
        draw_centred(image, _HEADER + row - 7, 0, _LABELS + _MARGIN, f"{tick:g}", FAINT)
    _draw_legend(image, _HEADER + _PANEL + 32, scene)
    return image


def _draw_legend(image: Image, top: int, scene: Scene) -> None:
    words = [("agent", RED), ("start", INK), ("path", ACCENT), ("goal", GREEN)]
    words += [("wind", FAINT)] if scene.wind is not None else []
    left = _LABELS + _MARGIN
    for word, colour in words:
        draw_box(image, top + 1, left, 12, 12, colour)
        if word == "start":
            draw_frame(image, top + 1, left, 12, 12, colour, 2)
            draw_box(image, top + 3, left + 2, 8, 8, PAPER)
        draw_text(image, top, left + 18, word, INK)
        left += 36 + 12 * len(word)


def _cover_segment(
    cover: FloatArray, start: FloatArray, end: FloatArray, half_width: float
) -> None:
    """Raises `cover` to how much a segment (a disc, where both ends agree) covers each pixel."""
    reach = half_width + 1
    size = np.array(cover.shape)
    first = np.clip(np.floor(np.minimum(start, end) - reach), 0, size).astype(int)
    last = np.clip(np.ceil(np.maximum(start, end) + reach) + 1, 0, size).astype(int)
    rows, columns = np.mgrid[first[0] : last[0], first[1] : last[1]]
    along, offset = end - start, np.stack([rows - start[0], columns - start[1]], axis=-1)
    squared_length = max(float(along @ along), 1e-12)
    fraction = np.clip(offset @ along / squared_length, 0.0, 1.0)
    distance = np.hypot(*np.moveaxis(offset - fraction[..., None] * along, -1, 0))
    area = cover[first[0] : last[0], first[1] : last[1]]
    np.maximum(area, np.clip(half_width + 0.5 - distance, 0.0, 1.0), out=area)


def _blend(image: Image, cover: FloatArray, colour: Colour) -> None:
    rows, columns = np.nonzero(cover)
    weight = cover[rows, columns][:, None]
    mixed = image[rows, columns] * (1 - weight) + weight * np.array(colour)
    image[rows, columns] = np.rint(mixed).astype(np.uint8)


def _path(view: View) -> FloatArray:
    """Positions so far, (P, 2); the current one where no path was recorded."""
    path = np.asarray(view.path, dtype=np.float64)
    return path if path.size else np.asarray(view.observation, dtype=np.float64)[None]


def _window(scene: Scene, path: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower left and upper right corner of what is shown, (2,) each."""
    half_width, centre = scene.half_width, np.array(scene.centre)
    # Doubling keeps the window still for most of a video.
    while np.any(np.abs(path - centre) > 0.97 * half_width):
        half_width *= 2
    return centre - half_width, centre + half_width


def _round_gap(gap: float) -> float:
    """The smallest of 1, 2, 5 and 10 times a power of ten that is at least `gap`."""
    power = 10.0 ** np.floor(np.log10(gap))
    return float(min(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= gap))


def _headline(view: View, scene: Scene) -> str:
    return f"step {view.stage} of {scene.horizon}, return {view.episode_return:.2f}"


def _last_move(view: View) -> str:
    if view.action is None:
        return "last step: none yet"
    x, y = np.asarray(view.action, dtype=np.float64).tolist()
    return f"action ({x:.2f}, {y:.2f}), reward {view.reward:.3f}"


def _wind(scene: Scene) -> str:
    if scene.wind is None:
        return ""
    return f", wind ({float(scene.wind[0]):.3f}, {float(scene.wind[1]):.3f})"
