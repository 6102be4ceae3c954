"""Pictures of a body in its world: green is what the task asks for, blue what the body does.

They are drawn off screen, by EGL on Linux unless the environment variable `MUJOCO_GL` names another
OpenGL. Positions and velocities are of the ground plane, (2,), unless they say otherwise.
"""

import atexit
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

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
from metarl_envs.locomotion.physics import load_model

if TYPE_CHECKING:
    from metarl_envs.locomotion.family import LocomotionFamily

SIZE = 480
_MARGIN, _LINE, _GAP = 10, 20, 24  # pixels of the text
_DISTANCE = 4.0  # of the camera, m
_REACH = 0.3  # longest arrow, as a fraction of the camera's distance
_METRES_PER_SPEED = 0.5  # of the arrow of the body's velocity, where the task is no speed
_MOST_MARKS = 100
_TILE, _FLOOR = 1.0, 40.0  # width of a tile and half width of the floor, m
SKY: Colour = (176, 200, 222)
DARK_TILE: Colour = (172, 180, 186)
LIGHT_TILE: Colour = (214, 219, 221)


class Mark(NamedTuple):
    """Something drawn into the scene between two points."""

    kind: Any
    """arrow, cylinder, ..., a `mjtGeom`"""
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    width: float
    """radius of its cross section, m"""
    colour: Colour


def film(family: "LocomotionFamily", view: View) -> Image:
    """The body and its task, (480, 480, 3).

    :param family: whose body it is
    :param view: what to show; it needs the state
    """
    image = _studio(family.body.xml_file).picture(
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
    if "direction" in view.params:
        speed = f"{float(velocity @ view.params['direction']):.2f} m/s"
    elif "goal" in view.params:
        speed = f"{float(np.hypot(*velocity)):.2f} m/s"
    else:
        speed = f"{float(velocity[0]):.2f} m/s"
    texts.append((f"speed {speed}", ACCENT))
    texts.append((f"step {view.stage} of {family.horizon}", FAINT))
    return [*texts, (f"return {view.episode_return:.2f}", INK)]


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
        wanted, done = (reach / _fastest(family) * v for v in (wanted, velocity))
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


class Studio:
    """A body's model, and all that MuJoCo needs to draw it.

    :param xml_file: name of a file among Gymnasium's assets
    """

    def __init__(self, xml_file: str) -> None:
        self.model = load_model(xml_file)
        _brighten(self.model)
        self._floor = self.model.geom("floor").id
        self.scene = mujoco.MjvScene(self.model, self.model.ngeom + _MOST_MARKS)
        self._data = mujoco.MjData(self.model)
        self._options, self._area = mujoco.MjvOption(), mujoco.MjrRect(0, 0, SIZE, SIZE)
        self._gl = _off_screen_gl()
        self._context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def picture(self, state: FloatArray, camera: Any, marks: list[Mark]) -> Image:
        """The body in a state, (480, 480, 3).

        :param state: MuJoCo's row, see `metarl_envs.locomotion.physics`
        :param camera: a `MjvCamera`
        :param marks: what to draw besides
        """
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(self.model, self._data, state, kind)
        mujoco.mj_forward(self.model, self._data)
        mujoco.mjv_updateScene(
            self.model,
            self._data,
            self._options,
            None,
            camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self.scene,
        )
        self._move_floor(camera.lookat[:2])
        for mark in marks:
            self._add(mark)
        image = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(self._area, self.scene, self._context)
        mujoco.mjr_readPixels(image, None, self._area, self._context)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Frees what OpenGL holds."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()

    def _move_floor(self, position: FloatArray) -> None:
        """Keeps the floor under a body that runs off it, in whole tiles: it has no end in MuJoCo."""
        for geom in self.scene.geoms[: self.scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid == self._floor:
                geom.pos[:2] = 2 * _TILE * np.round(position / (2 * _TILE))

    def _add(self, mark: Mark) -> None:
        geom = self.scene.geoms[self.scene.ngeom]
        rgba = np.array([*mark.colour, 255], dtype=np.float32) / 255
        mujoco.mjv_initGeom(geom, mark.kind, np.zeros(3), np.zeros(3), np.eye(3).ravel(), rgba)
        start, end = np.array(mark.start), np.array(mark.end)
        if mark.kind == mujoco.mjtGeom.mjGEOM_ARROW:
            # MuJoCo draws arrows half as long as it is told.
            end = start + 2 * (end - start)
        mujoco.mjv_connector(geom, mark.kind, mark.width, start, end)
        geom.emission = 0.3
        self.scene.ngeom += 1


def _brighten(model: Any) -> None:
    """Gives all bodies the same light, sky and floor, with tiles of one metre."""
    model.vis.global_.offwidth = model.vis.global_.offheight = SIZE
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.4, 0.25
    model.vis.headlight.specular[:] = 0.1
    model.light_diffuse[:], model.light_specular[:] = 0.35, 0.1
    floor = model.geom("floor")
    floor.rgba[:] = 1.0
    floor.size[:2] = _FLOOR
    material = int(floor.matid[0])
    model.mat_reflectance[material] = model.mat_specular[material] = 0.0
    model.mat_rgba[material] = 1.0
    model.mat_texuniform[material] = 0
    model.mat_texrepeat[material] = _FLOOR / _TILE
    for texture in range(model.ntex):
        sky = model.tex_type[texture] == mujoco.mjtTexture.mjTEXTURE_SKYBOX
        _repaint(model, texture, *((SKY, PAPER) if sky else (DARK_TILE, LIGHT_TILE)))


def _repaint(model: Any, texture: int, dark: Colour, light: Colour) -> None:
    """Replaces the darkest colour of a texture and the lightest one, and those between."""
    first = int(model.tex_adr[texture])
    channels = int(model.tex_nchannel[texture])
    size = int(model.tex_height[texture] * model.tex_width[texture]) * channels
    pixels = model.tex_data[first : first + size].reshape(-1, channels)[:, :3]
    grey = pixels.mean(axis=1, keepdims=True)
    share = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
    pixels[:] = np.rint((1 - share) * np.array(dark) + share * np.array(light))


# An OpenGL context belongs to one thread, and does not survive a fork.
_studios = threading.local()


def _studio(xml_file: str) -> Studio:
    known: dict[tuple[int, str], Studio] = _studios.__dict__.setdefault("known", {})
    key = os.getpid(), xml_file
    if key not in known:
        known[key] = Studio(xml_file)
        # After the one of `mujoco.egl`, which ends the display: the last one registered runs first.
        atexit.register(_close, known, key)
    return known[key]


def _close(known: dict[tuple[int, str], Studio], key: tuple[int, str]) -> None:
    studio = known.pop(key, None)
    if studio is not None and key[0] == os.getpid():
        studio.close()


def _off_screen_gl() -> Any:
    """An OpenGL context, current in this thread, or `OSError` that says what is missing."""
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    try:
        if sys.platform.startswith("linux") and wanted in ("", "egl"):
            from mujoco.egl import GLContext
        else:
            from mujoco.gl_context import GLContext
        context = GLContext(SIZE, SIZE)
        context.make_current()
    # Each OpenGL fails in its own way: no library, no device, no display.
    except Exception as error:
        raise OSError(
            f"render_mode='rgb_array' found no OpenGL (MUJOCO_GL={wanted!r}): {error}. Without a "
            "display, MUJOCO_GL=egl needs libegl1 (apt-get install libegl1 libgl1-mesa-dri) and "
            "MUJOCO_GL=osmesa needs libosmesa6; with one, use MUJOCO_GL=glfw. render_mode='ansi' "
            "needs none"
        ) from error
    return context


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
        texts.append(f"goal ({x:.2f}, {y:.2f}) m, {distance:.2f} m away")
    names = {"body_mass": "mass", "geom_friction": "friction", "dof_damping": "damping"}
    for field, name in names.items():
        if f"model.{field}" in params:
            usual = getattr(family.physics.model, field)
            factors = params[f"model.{field}"][usual > 0] / usual[usual > 0]
            texts.append(f"{name} x {float(np.exp(np.log(factors).mean())):.2f}")
    return texts


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
