"""Pictures of a customer: which products were shown, and how they were taken."""

import numpy as np

from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import (
    ACCENT,
    FAINT,
    GREEN,
    GREY,
    INK,
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

_TILE, _GAP, _MARGIN, _HEADER = 88, 10, 16, 72
_TILES_PER_ROW = 5
_MARKS = {-1: "-", 0: ".", 1: "+"}
_FILLS: dict[int, tuple[str, Colour, Colour]] = {
    -1: ("disliked", RED, WHITE),
    0: ("not shown", GREY, INK),
    1: ("liked", GREEN, WHITE),
}


def shelf_text(view: View, n_recommendations: int) -> str:
    """The products in their states, and the last recommendation.

    :param view: observation (P,), x + 1
    :param n_recommendations: J
    """
    x = np.asarray(view.observation) - 1
    width = len(str(len(x) - 1)) + 1
    numbers = "".join(f"{a:>{width}}" for a in range(len(x)))
    marks = "".join(f"{_MARKS[int(state)]:>{width}}" for state in x)
    return "\n".join(
        [
            _headline(view, n_recommendations),
            f"product {numbers}",
            f"        {marks}   (+ liked, - disliked, . not shown)",
            _last_recommendation(view),
        ]
    )


def shelf_image(view: View, n_recommendations: int) -> Image:
    """One tile per product, green for liked, red for disliked; the last one shown is framed.

    :param view: observation (P,), x + 1
    :param n_recommendations: J
    """
    x = np.asarray(view.observation) - 1
    rows = -(-len(x) // _TILES_PER_ROW)
    columns = -(-len(x) // rows)
    pitch = _TILE + _GAP
    width = max(2 * _MARGIN + columns * pitch - _GAP, 480)
    image = canvas(_HEADER + rows * pitch - _GAP + _MARGIN, width)
    draw_text(image, _MARGIN, _MARGIN, _headline(view, n_recommendations))
    draw_text(image, _MARGIN + 24, _MARGIN, _last_recommendation(view), FAINT)
    for a, state in enumerate(x):
        top, left = _HEADER + (a // columns) * pitch, _MARGIN + (a % columns) * pitch
        _draw_tile(image, top, left, a, int(state), view.action is not None and a == view.action)
    return image


def _draw_tile(image: Image, top: int, left: int, product: int, state: int, is_last: bool) -> None:
    label, fill, ink = _FILLS[state]
    draw_box(image, top, left, _TILE, _TILE, fill)
    draw_centred(image, top + 22, left, _TILE, str(product), ink, scale=4)
    draw_centred(image, top + 66, left, _TILE, label, ink, scale=1)
    if is_last:
        draw_frame(image, top - 4, left - 4, _TILE + 8, _TILE + 8, ACCENT, 4)


def _headline(view: View, n_recommendations: int) -> str:
    likes = round(view.episode_return)
    return f"{view.stage} of {n_recommendations} recommendations made, {likes} liked"


def _last_recommendation(view: View) -> str:
    if view.action is None:
        return "last: nothing yet"
    return f"last: product {view.action}, {'liked' if view.reward else 'not liked'}"
