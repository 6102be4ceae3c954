"""MuJoCo as a pure function of state rows: many simulations of one model, stepped at once.

Shapes: B simulations, N numbers of a state row (MuJoCo's `mjSTATE_INTEGRATION`, warm start and all),
U actuators.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from metarl_envs.batched.checking import check_counts
from metarl_envs.core import FloatArray

Fields = Mapping[str, NDArray[Any]]
LEAST_VERSION = "3.17"
# What `mj_setConst` derives from masses, inertias and the like.
_DERIVED_CONSTANTS = (
    "actuator_acc0",
    "body_invweight0",
    "body_subtreemass",
    "cam_poscom0",
    "dof_M0",
    "dof_invweight0",
    "light_poscom0",
    "tendon_invweight0",
)
_ASSETS = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"


class Motion(NamedTuple):
    """What a call of the physics gives back."""

    states: FloatArray
    """(B, N), fresh"""
    derived: dict[str, FloatArray]
    """the derived fields that were asked for, (B, ...); after `step` they lag one substep behind
    the state, as Gymnasium's do
    """


def batched_physics() -> ModuleType:
    """The module `mujoco.batch`, or `ImportError` that names the version which has it."""
    try:
        import mujoco.batch as module
    except ImportError as error:
        raise ImportError(
            f"metarl_envs.locomotion needs mujoco>={LEAST_VERSION} for mujoco.batch, but "
            f"mujoco {mujoco.__version__} is installed: pip install 'mujoco>={LEAST_VERSION},<5'"
        ) from error
    return module


def load_model(xml_file: str) -> Any:
    """The model of one of Gymnasium's bodies, without island discovery.

    All of them are single kinematic trees, whose steps have the same bits with and without it
    (tested), and are 4 to 8 % faster without.

    :param xml_file: name of a file among Gymnasium's assets
    """
    previous = mujoco.get_mju_user_warning()
    # Compiling half_cheetah.xml warns that `settotalmass` is deprecated, on stderr and into a file
    # MUJOCO_LOG.TXT in the user's folder.
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        model = mujoco.MjModel.from_xml_path(str(_ASSETS / xml_file))
    finally:
        mujoco.set_mju_user_warning(previous)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND
    return model


class Physics:
    """Steps of a MuJoCo model, batched, and without state of its own.

    It owns room to compute in, which grows with the largest batch it met; copies and pickles leave
    that behind.

    :param xml_file: name of a file among Gymnasium's assets
    :param frame_skip: substeps per step
    :param n_threads: threads that share a batch; the bits do not depend on it
    :param derived: names of the fields of `MjData` to hand back, besides the state
    """

    def __init__(
        self,
        xml_file: str,
        frame_skip: int,
        *,
        n_threads: int = 1,
        derived: Sequence[str] = (),
    ) -> None:
        check_counts(n_threads=n_threads, frame_skip=frame_skip)
        self.xml_file, self.frame_skip, self.n_threads = xml_file, frame_skip, int(n_threads)
        self.derived = tuple(derived)
        self.model = load_model(xml_file)
        self.dt = float(self.model.opt.timestep) * frame_skip
        self._rooms: dict[int, Any] = {}
        room = self._room(1)
        room.reset()
        self.rest: FloatArray = room.state[0].copy()
        """The state row of the model's own start, (N,)."""
        self.columns = {
            name: slice(start, start + size)
            for name, start, size in _layout(room, ("qpos", "qvel"))
        }
        """Where a state row has `qpos` and `qvel`."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rooms": {}, "model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.model = load_model(self.xml_file)

    def step(self, states: FloatArray, actions: FloatArray, fields: Fields | None = None) -> Motion:
        """`frame_skip` substeps under constant actions.

        :param states: (B, N), left as they are
        :param actions: controls, (B, U)
        :param fields: values of the model's own fields per simulation, (B, ...); see `constants`
        """
        room = self._loaded(states, fields)
        room.ctrl = actions
        room.step(nstep=self.frame_skip)
        return self._motion(room)

    def forward(self, states: FloatArray, fields: Fields | None = None) -> Motion:
        """`mj_forward` at the states, which fills in the warm start and the derived fields.

        :param states: (B, N), left as they are
        :param fields: as in `step`
        """
        room = self._loaded(states, fields)
        room.forward()
        return self._motion(room)

    def constants(self, fields: Fields) -> dict[str, NDArray[Any]]:
        """The given fields of the model and all that `mj_setConst` derives from them, (B, ...).

        :param fields: values per simulation, (B, ...); masses, inertias, frictions, dampings
        """
        n = len(next(iter(fields.values())))
        room = batched_physics().Batch(self.model, nsim=n, nthread=1)
        for name, values in fields.items():
            room.expand(name)[...] = values
        # A batch would hand back only what differs from the model, so that a task equal to it would
        # leave the values of the task before in the room that `step` computes in.
        for name in _DERIVED_CONSTANTS:
            room.expand(name)
        room.set_const()
        names = batched_physics().MODEL_FIELDS
        found = {name: room.expanded(name) for name in sorted(names)}
        return {name: values.copy() for name, values in found.items() if values is not None}

    def _room(self, n: int) -> Any:
        if n not in self._rooms:
            room = batched_physics().Batch(self.model, nsim=n, nthread=min(self.n_threads, n))
            for name in self.derived:
                room.bind(name)
            self._rooms[n] = room
        return self._rooms[n]

    def _loaded(self, states: FloatArray, fields: Fields | None) -> Any:
        room = self._room(len(states))
        room.state[...] = states
        for name, values in (fields or {}).items():
            room.expand(name)[...] = values
        return room

    def _motion(self, room: Any) -> Motion:
        return Motion(room.state.copy(), {name: room.bind(name).copy() for name in self.derived})


class ExactPhysics(Physics):
    """The same, one simulation after the other, with the contact forces `cfrc_ext` of Gymnasium.

    Gymnasium calls `mj_rnePostConstraint` after the last substep, which batches cannot: a batch has
    no contact forces, or those of another stage.
    """

    def step(self, states: FloatArray, actions: FloatArray, fields: Fields | None = None) -> Motion:
        """See `Physics.step`; `fields` are not supported."""

        def run(data: Any, row: int) -> None:
            data.ctrl[:] = actions[row]
            mujoco.mj_step(self.model, data, nstep=self.frame_skip)
            mujoco.mj_rnePostConstraint(self.model, data)

        return self._each(states, fields, run)

    def forward(self, states: FloatArray, fields: Fields | None = None) -> Motion:
        """See `Physics.forward`; `fields` are not supported."""
        return self._each(states, fields, lambda data, row: mujoco.mj_forward(self.model, data))

    def _each(
        self, states: FloatArray, fields: Fields | None, run: Callable[[Any, int], None]
    ) -> Motion:
        assert not fields, "bodies with parameters of their own are stepped in batches"
        kind, data = mujoco.mjtState.mjSTATE_INTEGRATION, mujoco.MjData(self.model)
        after = np.empty_like(states)
        shapes = {name: getattr(data, name).shape for name in self.derived}
        derived = {name: np.empty((len(states), *shape)) for name, shape in shapes.items()}
        for row, state in enumerate(states):
            mujoco.mj_resetData(self.model, data)
            mujoco.mj_setState(self.model, data, state, kind)
            run(data, row)
            mujoco.mj_getState(self.model, data, after[row], kind)
            for name in self.derived:
                derived[name][row] = getattr(data, name)
        return Motion(after, derived)


def _layout(room: Any, names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Name, first column and number of columns of fields within the state rows."""
    base = room.state.ctypes.data
    found = []
    for name in names:
        field = room.bind(name)
        found.append((name, (field.ctypes.data - base) // field.itemsize, field.shape[1]))
    return found
