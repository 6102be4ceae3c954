"""Pictures of a random MDP: a ring of states with the path so far, and the mean rewards, which an
agent does not see, of the actions in the current state.
"""

from itertools import pairwise

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
    draw_text,
    last_step,
    text_size,
)
from metarl_envs.core import FloatArray

_MARGIN, _HEADER, _WIDTH, _HEIGHT = 16, 72, 640, 400
_CENTRE, _RADIUS, _LARGEST_NODE = np.array([232.0, 176.0]), 128.0, 21.0
_PANEL, _PANEL_WIDTH, _PANEL_HEIGHT = 384, 240, 250
_VISITED: Colour = (176, 198, 228)
_LARGEST_REWARD = 4.0  # three standard deviations above the mean


def ring_text(view: View, n_stages: int) -> str:
    """The states in a line, the current one marked, and the mean rewards of the actions there.

    :param view: with `means` (S, A) among its params; the observation is the state
    :param n_stages: H
    """
    means, state = view.params["means"], int(view.observation)
    states = " ".join(f"[{i}]" if i == state else f" {i} " for i in range(len(means)))
    rewards = " ".join(f"{mean:+.2f}" for mean in means[state])
    path = " > ".join(str(int(visited)) for visited in view.path)
    return "\n".join(
        [_headline(view, n_stages), states, f"mean rewards here: {rewards}", f"path: {path}"]
        + [last_step(view)]
    )


def ring_image(view: View, n_stages: int) -> Image:
    """States on a ring: blue is the current one, light blue those visited; lines are the path, the
    last step in blue.

    :param view: with `means` (S, A) among its params; the observation is the state
    :param n_stages: H
    """
    means, state = view.params["means"], int(view.observation)
    image = canvas(_HEIGHT, _WIDTH)
    draw_text(image, _MARGIN, _MARGIN, _headline(view, n_stages))
    draw_text(image, _MARGIN + 24, _MARGIN, last_step(view), FAINT)
    _draw_ring(image, len(means), [int(visited) for visited in view.path], state)
    _draw_rewards(image, means[state], state)
    return image


def _draw_ring(image: Image, n_states: int, path: list[int], state: int) -> None:
    angles = 2.0 * np.pi * np.arange(n_states) / n_states
    positions = _CENTRE + _RADIUS * np.stack([-np.cos(angles), np.sin(angles)], axis=-1)
    node = min(_LARGEST_NODE, 0.8 * np.pi * _RADIUS / max(n_states, 4))
    for i, (start, end) in enumerate(pairwise(path)):
        is_last = i == len(path) - 2
        _draw_line(
            image, positions[start], positions[end], *((ACCENT, 2.0) if is_last else (FAINT, 0.6))
        )
    for i, position in enumerate(positions):
        colour = ACCENT if i == state else (_VISITED if i in path else GREY)
        _draw_line(image, position, position, colour, node)
        height, width = text_size(str(i))
        if 2.0 * node >= max(height, width) + 4:
            top, left = round(position[0]) - height // 2, round(position[1]) - width // 2
            draw_text(image, top, left, str(i), WHITE if i == state else INK)


def _draw_rewards(image: Image, rewards: FloatArray, state: int) -> None:
    """Bars to the right for positive mean rewards, to the left for negative ones."""
    draw_text(image, _HEADER, _PANEL, f"mean rewards in {state}", INK)
    pitch = min(44, _PANEL_HEIGHT // len(rewards))
    zero, scale = _PANEL + _PANEL_WIDTH // 3, (2 * _PANEL_WIDTH // 3) / _LARGEST_REWARD
    top = _HEADER + 34
    for action, reward in enumerate(rewards):
        length = round(float(np.clip(reward, -_LARGEST_REWARD / 2, _LARGEST_REWARD)) * scale)
        bar_height = max(1, pitch - 12 if pitch > 18 else pitch - 1)
        left = zero + min(length, 0)
        draw_box(image, top, left, bar_height, abs(length), GREEN if reward > 0 else RED)
        if pitch >= 20:
            middle = top + bar_height // 2
            draw_text(image, middle - 7, _PANEL, str(action))
            draw_text(image, middle - 3, zero + max(length, 0) + 6, f"{reward:+.2f}", INK, scale=1)
        top += pitch
    draw_box(image, _HEADER + 30, zero, top - _HEADER - 34, 1, INK)


def _draw_line(
    image: Image, start: FloatArray, end: FloatArray, colour: Colour, half_width: float
) -> None:
    """Draws a line with round ends, in place; one without length is a disc."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    direction = end - start
    length = max(float(direction @ direction), 1e-9)
    along = ((rows - start[0]) * direction[0] + (columns - start[1]) * direction[1]) / length
    along = np.clip(along, 0.0, 1.0)
    distance = np.hypot(
        rows - start[0] - along * direction[0], columns - start[1] - along * direction[1]
    )
    cover = np.clip(half_width + 0.5 - distance, 0.0, 1.0)[..., None]
    image[:] = np.round((1.0 - cover) * image + cover * np.array(colour, dtype=np.float64))


def _headline(view: View, n_stages: int) -> str:
    return f"step {view.stage} of {n_stages}, return {view.episode_return:.2f}"
