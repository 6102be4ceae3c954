"""Draws a body off screen: what MuJoCo and OpenGL need, and nothing of what it means.

OpenGL comes by EGL on Linux, unless the environment variable `MUJOCO_GL` names another.
"""

import atexit
import os
import sys
import threading
from typing import Any, NamedTuple

import mujoco
import numpy as np

from metarl_envs.batched.rendering import PAPER, Colour, Image
from metarl_envs.core import FloatArray
from metarl_envs.locomotion.physics import STATE, load_model

SIZE = 480
SKY: Colour = (176, 200, 222)
DARK_TILE: Colour = (172, 180, 186)
LIGHT_TILE: Colour = (214, 219, 221)
_MOST_MARKS = 100
_TILE, _FLOOR = 1.0, 40.0  # width of a tile and half width of the floor, m


class Mark(NamedTuple):
    """Something drawn into the scene between two points."""

    kind: Any
    """arrow, cylinder, ..., a `mjtGeom`"""
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    width: float
    """radius of its cross section, m"""
    colour: Colour


class Studio:
    """A body's model, and all that MuJoCo needs to draw it.

    :param xml_file: name of a file among Gymnasium's assets
    """

    _is_open = False

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
        self._process, self._is_open = os.getpid(), True

    def picture(self, state: FloatArray, camera: Any, marks: list[Mark]) -> Image:
        """The body in a state, (480, 480, 3).

        :param state: MuJoCo's row, see `metarl_envs.locomotion.physics`
        :param camera: a `MjvCamera`
        :param marks: what to draw besides
        """
        mujoco.mj_setState(self.model, self._data, state, STATE)
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
        self._follow(camera.lookat)
        for mark in marks:
            self._add(mark)
        image = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(self._area, self.scene, self._context)
        mujoco.mjr_readPixels(image, None, self._area, self._context)
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Frees what OpenGL holds."""
        if self._is_open and os.getpid() == self._process:
            self._is_open = False
            self._gl.make_current()
            self._context.free()
            self._gl.free()

    def __del__(self) -> None:
        self.close()

    def _follow(self, place: FloatArray) -> None:
        """Keeps the floor, in whole tiles, and the light at a body that runs far."""
        for geom in self.scene.geoms[: self.scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid == self._floor:
                geom.pos[:2] = 2 * _TILE * np.round(place[:2] / (2 * _TILE))
        for light in self.scene.lights[: self.scene.nlight]:
            if not light.headlight:
                light.pos[:] = place - 4.0 * np.array(light.dir)

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
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.45, 0.3
    model.vis.headlight.specular[:] = 0.1
    model.light_diffuse[:], model.light_specular[:] = 0.4, 0.1
    # From the side and from above: a light right above a flat body gives it no shadow to see.
    model.light_dir[:] = np.array([0.3, 0.5, -1.0]) / np.sqrt(1.34)
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


# An OpenGL context belongs to one thread.
_studios = threading.local()
_processes: set[int] = set()
"""Those that have drawn: this one, and whom it was forked from."""


def studio_of(xml_file: str) -> Studio:
    """The studio of a body in this thread, made at its first use.

    :param xml_file: name of a file among Gymnasium's assets
    """
    if _processes - {os.getpid()}:
        # It would wait for ever for threads of OpenGL that are gone.
        raise OSError(
            "render_mode='rgb_array' cannot draw in a process that was forked from one that had "
            "drawn: use gymnasium.vector.AsyncVectorEnv(..., context='spawn'), or the vector "
            "environment of the family"
        )
    known: dict[str, Studio] = _studios.__dict__.setdefault("known", {})
    if xml_file not in known:
        is_first, known[xml_file] = not known, Studio(xml_file)
        _processes.add(os.getpid())
        # Those of other threads go when their threads end. Handlers run last one first: this one is
        # registered after that of `mujoco.egl`, which ends the display.
        if is_first and threading.current_thread() is threading.main_thread():
            atexit.register(known.clear)
    return known[xml_file]


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
