"""Pictures of an inverse Bellman MDP: the current state among the states of all stages."""

from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import (
    ACCENT,
    FAINT,
    GREY,
    INK,
    WHITE,
    Image,
    canvas,
    draw_box,
    draw_centred,
    draw_text,
    last_step,
)

_CELL, _GAP, _MARGIN, _HEADER, _LABEL = 46, 8, 16, 88, 110


def chain_text(view: View, n_states: int, n_stages: int) -> str:
    """Stages from left to right, states from top to bottom, the current one marked.

    :param view: observation (stage, state)
    :param n_states: S
    :param n_stages: H
    """
    stage, current = (int(number) for number in view.observation)
    lines = [
        _headline(view, n_stages),
        "stage    " + "".join(f"{h:>3}" for h in range(n_stages + 1)),
    ]
    for state in range(n_states):
        cells = "".join(
            "  X" if (h, state) == (stage, current) else "  ." for h in range(n_stages + 1)
        )
        lines.append(f"state {state:>2} {cells}")
    return "\n".join([*lines, last_step(view)])


def chain_image(view: View, n_states: int, n_stages: int) -> Image:
    """The same as a grid of cells; stages that are over are shaded.

    :param view: observation (stage, state)
    :param n_states: S
    :param n_stages: H
    """
    stage, current = (int(number) for number in view.observation)
    pitch = _CELL + _GAP
    width = max(_LABEL + (n_stages + 1) * pitch - _GAP + _MARGIN, 440)
    image = canvas(_HEADER + n_states * pitch - _GAP + _MARGIN, width)
    draw_text(image, _MARGIN, _MARGIN, _headline(view, n_stages))
    draw_text(image, _MARGIN + 24, _MARGIN, last_step(view), FAINT)
    for h in range(n_stages + 1):
        label = "end" if h == n_stages else str(h)
        draw_centred(image, _HEADER - 20, _LABEL + h * pitch, _CELL, label, INK)
    for state in range(n_states):
        top = _HEADER + state * pitch
        draw_text(image, top + _CELL // 2 - 7, _MARGIN, f"state {state}")
        for h in range(n_stages + 1):
            is_here = (h, state) == (stage, current)
            colour = ACCENT if is_here else (GREY if h < stage else WHITE)
            draw_box(image, top, _LABEL + h * pitch, _CELL, _CELL, colour)
    return image


def _headline(view: View, n_stages: int) -> str:
    return f"stage {view.stage} of {n_stages}, return {view.episode_return:.2f}"
