"""Pictures of a body in its world: green is what the task asks for, blue what the body does.

Positions and velocities are of the ground plane, (2,), unless they say otherwise.
"""

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import (
    ACCENT,
    FAINT,
    GREEN,
    INK,
    PAPER,
    Colour,
    Image,
    draw_text,
    last_step,
    text_size,
)
from metarl_envs.core import FloatArray
from metarl_envs.locomotion.studio import SIZE, Mark, studio_of

if TYPE_CHECKING:
    from metarl_envs.locomotion.family import LocomotionFamily

_MARGIN, _LINE, _GAP = 10, 20, 24  # pixels of the text
_DISTANCE = 4.0  # of the camera, m
_REACH = 0.3  # longest arrow, as a fraction of the camera's distance
_METRES_PER_SPEED = 0.5  # of the arrow of the body's velocity, where the task is no speed


def film(family: "LocomotionFamily", view: View) -> Image:
    """The body and its task, (480, 480, 3).

    :param family: whose body it is
    :param view: what to show; it needs the state
    """
    image = studio_of(family.body.xml_file).picture(
        view.state[family._state], camera_of(family, view), marks_of(family, view)
    )
    _write(image, captions(family, view))
    return image


def narrate(family: "LocomotionFamily", view: View) -> str:
    """The same as text.

    :param family: whose body it is
    :param view: what to show; it needs the state
    """
    x, y = view.state[family._position]
    place = f"x {x:.2f} m" if family.n_position == 1 else f"x {x:.2f} m, y {y:.2f} m"
    words = ", ".join(text for text, _ in captions(family, view))
    return "\n".join([f"{type(family).__name__}: {place}", words, last_step(view)])


def captions(family: "LocomotionFamily", view: View) -> list[tuple[str, Colour]]:
    """What is written into the picture, in its colours.

    :param family: whose body it is
    :param view: what to show; it needs the state
    """
    position, velocity = view.state[family._position], view.state[family._velocity]
    texts = [(text, GREEN) for text in _task_texts(family, view, position)]
    if "goal" not in view.params:
        way = view.params.get("direction", np.array([1.0, 0.0]))
        texts.append((f"speed {_rounded(velocity @ way)} m/s", ACCENT))
    texts.append((f"step {view.stage} of {family.horizon}", FAINT))
    return [*texts, (f"return {_rounded(view.episode_return)}", INK)]


def camera_of(family: "LocomotionFamily", view: View) -> Any:
    """A camera that follows the body, and keeps a goal in sight.

    :param family: whose body it is
    :param view: what to show; it needs the state
    """
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = 90.0, -20.0, _DISTANCE
    for name, value in family.body.camera:
        setattr(camera, name, value)
    position = view.state[family._position]
    camera.lookat[:2] = position
    if "goal" in view.params:
        goal = view.params["goal"]
        camera.lookat[:2] = (position + goal) / 2
        camera.distance += 1.2 * float(np.hypot(*(goal - position)))
    return camera


def marks_of(family: "LocomotionFamily", view: View) -> list[Mark]:
    """The task as arrows and signs on the ground.

    :param family: whose body it is
    :param view: what to show; it needs the state
    """
    position, velocity = view.state[family._position], view.state[family._velocity]
    distance = float(dict(family.body.camera).get("distance", _DISTANCE))
    floor, reach = float(family.physics.model.geom("floor").pos[2]), _REACH * distance
    if "goal" in view.params:
        return _pin(view.params["goal"], floor)
    if "velocity" in view.params:
        wanted = np.array([float(view.params["velocity"]), 0.0])
        wanted, done = (reach / _fastest(family) * v for v in (wanted, velocity * [1.0, 0.0]))
    elif "direction" in view.params:
        wanted, done = reach * view.params["direction"], _METRES_PER_SPEED * velocity
    else:
        return []
    done = _within(done, 1.4 * reach)
    if family.n_position == 1 or "velocity" in view.params:
        below, nearer = (position - np.array([0.0, y * distance]) for y in (0.14, 0.2))
        return _arrow(below, wanted, floor, reach, GREEN) + _arrow(
            nearer, done, floor, reach, ACCENT
        )
    # Above the other one and thinner, so that both are seen where they agree.
    return _arrow(position, wanted, floor, reach, GREEN) + _arrow(
        position, done, floor + 0.06 * reach, 0.6 * reach, ACCENT
    )


def _task_texts(family: "LocomotionFamily", view: View, position: FloatArray) -> list[str]:
    texts, params = [], view.params
    if "velocity" in params:
        texts.append(f"target {float(params['velocity']):.2f} m/s")
    if "direction" in params:
        x, y = params["direction"]
        way = "forward" if x > 0 else "backward"
        angle = np.degrees(np.arctan2(y, x)) % 360
        texts.append(f"run {way}" if family.n_position == 1 else f"heading {angle:.0f} degrees")
    if "goal" in params:
        x, y = params["goal"]
        distance = float(np.hypot(*(params["goal"] - position)))
        texts.append(f"goal ({x:.1f}, {y:.1f}) m, {distance:.1f} m away")
    names = {"body_mass": "mass", "geom_friction": "friction", "dof_damping": "damping"}
    for field, name in names.items():
        if f"model.{field}" in params:
            usual = getattr(family.physics.model, field)
            factors = params[f"model.{field}"][usual > 0] / usual[usual > 0]
            texts.append(f"{name} x {float(np.exp(np.log(factors).mean())):.2f}")
    return texts


def _rounded(value: float) -> str:
    """Two decimals, and no -0.00."""
    return f"{round(float(value), 2) + 0.0:.2f}"


def _fastest(family: "LocomotionFamily") -> float:
    """The largest target speed of the family."""
    space: Any = family.task_distribution.space
    return max(float(np.abs([space.low, space.high]).max()), 1e-6)


def _pin(goal: FloatArray, floor: float) -> list[Mark]:
    """A pin in a disc."""
    x, y = (float(value) for value in goal)
    cylinder, top = mujoco.mjtGeom.mjGEOM_CYLINDER, floor + 1.0
    return [
        Mark(cylinder, (x, y, floor), (x, y, floor + 0.02), 0.4, GREEN),
        Mark(cylinder, (x, y, floor), (x, y, top), 0.025, GREEN),
        Mark(mujoco.mjtGeom.mjGEOM_CAPSULE, (x, y, top), (x, y, top + 0.01), 0.14, GREEN),
    ]


def _arrow(
    start: FloatArray, along: FloatArray, floor: float, reach: float, colour: Colour
) -> list[Mark]:
    """An arrow on the floor, or none where it would be too short to see.

    :param reach: of the longest arrow, which tells how thick all of them are
    """
    if np.hypot(*along) < 0.02 * reach:
        return []
    x, y = start
    height, end = floor + 0.05 * reach, start + along
    kind = mujoco.mjtGeom.mjGEOM_ARROW
    first, last = (float(x), float(y), height), (float(end[0]), float(end[1]), height)
    return [Mark(kind, first, last, 0.035 * reach, colour)]


def _within(vector: FloatArray, longest: float) -> FloatArray:
    """The vector, shortened where it is longer."""
    length = float(np.hypot(*vector))
    return vector * min(1.0, longest / max(length, 1e-9))


def _write(image: Image, texts: list[tuple[str, Colour]]) -> None:
    """Lines of text on a light strip at the top, in place."""
    places, top, left = [], _MARGIN, _MARGIN
    for text, colour in texts:
        width = text_size(text)[1]
        if left > _MARGIN and left + width > SIZE - _MARGIN:
            top, left = top + _LINE, _MARGIN
        places.append((top, left, text, colour))
        left += width + _GAP
    strip = image[: top + _LINE]
    strip[:] = (0.15 * strip + 0.85 * np.array(PAPER)).astype(np.uint8)
    for row, column, text, colour in places:
        draw_text(image, row, column, text, colour)
