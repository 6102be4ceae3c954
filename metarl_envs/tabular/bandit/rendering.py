"""Pictures of a bandit: the arms' means, which an agent does not see, and the last pull."""

import numpy as np

from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import (
    ACCENT,
    FAINT,
    GREEN,
    GREY,
    INK,
    RED,
    Image,
    canvas,
    draw_box,
    draw_centred,
    draw_text,
    last_step,
)
from metarl_envs.core import FloatArray

_MARGIN, _HEADER, _HEIGHT, _FOOTER, _AXIS = 16, 72, 180, 60, 48
_WIDTH, _WIDEST = 560, 96
_TEXT_BAR = 30


def arms_text(view: View, n_pulls: int) -> str:
    """One line per arm: a bar of its mean, and a mark at the one that was pulled last.

    :param view: with `means` (A,) among its params
    :param n_pulls: the budget
    """
    lines = [_headline(view, n_pulls)]
    for arm, mean in enumerate(_means(view)):
        mark = ">" if arm == view.action else " "
        bar = "#" * round(float(mean) * _TEXT_BAR)
        lines.append(f"{mark} arm {arm:>2}  {mean:.2f} {bar}")
    return "\n".join([*lines, last_step(view)])


def arms_image(view: View, n_pulls: int) -> Image:
    """A bar for each arm's mean; the one pulled last is blue, the dot under it its reward.

    :param view: with `means` (A,) among its params
    :param n_pulls: the budget
    """
    means = _means(view)
    pitch = max(8, min(_WIDEST, (_WIDTH - _AXIS - _MARGIN) // len(means)))
    width = max(_WIDTH, _AXIS + pitch * len(means) + _MARGIN)
    image = canvas(_HEADER + _HEIGHT + _FOOTER, width)
    draw_text(image, _MARGIN, _MARGIN, _headline(view, n_pulls))
    draw_text(image, _MARGIN + 24, _MARGIN, last_step(view), FAINT)
    for level in (0.0, 0.5, 1.0):
        top = _HEADER + round(_HEIGHT * (1.0 - level))
        draw_box(image, top, _AXIS, 1, width - _AXIS - _MARGIN, GREY)
        draw_text(image, top - 4, _MARGIN, f"{level:.1f}", FAINT, scale=1)
    best = int(np.argmax(means))
    for arm, mean in enumerate(means):
        _draw_arm(image, arm, float(mean), pitch, view, is_best=arm == best)
    return image


def _draw_arm(
    image: Image, arm: int, mean: float, pitch: int, view: View, *, is_best: bool
) -> None:
    left, bottom = _AXIS + arm * pitch, _HEADER + _HEIGHT
    bar_left, bar_width = left + pitch // 6, pitch - 2 * (pitch // 6) - 1
    height = max(2, round(mean * _HEIGHT))
    is_pulled = view.action is not None and arm == int(view.action)
    colour = ACCENT if is_pulled else (FAINT if is_best else (190, 195, 201))
    draw_box(image, bottom - height, bar_left, height, bar_width, colour)
    if pitch >= 24:
        draw_centred(image, bottom + 8, left, pitch, str(arm), INK)
        draw_centred(image, bottom - height - 11, left, pitch, f"{mean:.2f}", FAINT, scale=1)
    if is_pulled:
        size = min(bar_width, 14)
        dot_left = left + (pitch - size) // 2
        draw_box(image, bottom + 32, dot_left, size, size, GREEN if view.reward > 0 else RED)


def _means(view: View) -> FloatArray:
    return np.asarray(view.params["means"], dtype=np.float64)


def _headline(view: View, n_pulls: int) -> str:
    return f"pull {view.stage} of {n_pulls}, return {view.episode_return:.2f}"
