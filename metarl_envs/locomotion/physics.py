"""MuJoCo as a pure function of state rows: many simulations of one model, stepped at once.

Shapes: B simulations, N numbers of a state row (see `STATE`), U actuators.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
STATE = 2 * int(mujoco.mjtState.mjSTATE_CTRL) - 1
"""What a state row holds: the first components of MuJoCo's `mjSTATE_INTEGRATION`, up to controls.
The rest (applied forces, equalities, mocap, plugins) stays as it is in all of Gymnasium's bodies.
"""
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
    """(B, N), fresh, or the array that the caller gave for them"""
    derived: dict[str, FloatArray]
    """the derived fields that were asked for, (B, ...), to be read before the next call; after
    `step` they lag one substep behind the state, as Gymnasium's do
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

    It owns room to compute in, enough for the largest batch it met; copies and pickles leave that
    behind.

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
        batched_physics()
        self.xml_file, self.frame_skip, self.n_threads = xml_file, frame_skip, int(n_threads)
        self.derived = tuple(derived)
        self.model = load_model(xml_file)
        self.dt = float(self.model.opt.timestep) * frame_skip
        self._rooms: dict[str, _Room] = {}
        self.rest: FloatArray = np.empty(mujoco.mj_stateSize(self.model, STATE))
        """The state row of the model's own start, (N,)."""
        mujoco.mj_getState(self.model, mujoco.MjData(self.model), self.rest, STATE)
        self.columns = {name: self._columns(name) for name in ("qpos", "qvel")}
        """Where a state row has `qpos` and `qvel`."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rooms": {}, "model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.model = load_model(self.xml_file)

    def step(
        self,
        states: FloatArray,
        actions: FloatArray,
        fields: Fields | None = None,
        *,
        out: FloatArray | None = None,
    ) -> Motion:
        """`frame_skip` substeps under constant actions.

        :param states: (B, N), left as they are
        :param actions: controls, (B, U)
        :param fields: values of the model's own fields per simulation, (B, ...); see `constants`
        :param out: where the states after it go, (B, N)
        """
        room, rows = self._loaded(states, fields)
        rows.ctrl[...] = actions
        room.batch.step(rows.ids, self.frame_skip)
        return rows.motion(out)

    def forward(self, states: FloatArray, fields: Fields | None = None) -> Motion:
        """`mj_forward` at the states, which fills in the warm start and the derived fields.

        :param states: (B, N), left as they are
        :param fields: as in `step`
        """
        room, rows = self._loaded(states, fields)
        room.batch.forward(rows.ids)
        return rows.motion(None)

    def constants(self, fields: Fields) -> dict[str, NDArray[Any]]:
        """The given fields of the model and all that `mj_setConst` derives from them, (B, ...).

        :param fields: values per simulation, (B, ...); masses, inertias, frictions, dampings
        """
        n = len(next(iter(fields.values())))
        # A batch would hand back only what differs from the model, so that a task equal to it would
        # leave the values of the task before in the room that `step` computes in.
        names = tuple(dict.fromkeys((*fields, *_DERIVED_CONSTANTS)))
        room = self._room("constants", n, names)
        room.load(fields, n)
        room.batch.set_const(room.first(n).ids)
        return {name: room.fields[name][:n].copy() for name in names}

    def _loaded(self, states: FloatArray, fields: Fields | None) -> "tuple[_Room, _Rows]":
        n = len(states)
        room = self._room("states", n, fields or ())
        rows = room.first(n)
        rows.state[...] = states
        if fields:
            room.load(fields, n)
        return room, rows

    def _room(self, purpose: str, n: int, fields: Iterable[str]) -> "_Room":
        """The room for a purpose, a new one where it is too small or has other fields."""
        room = self._rooms.get(purpose)
        if room is None or room.n < n or room.fields.keys() != set(fields):
            room = self._rooms[purpose] = _Room(self, n, fields)
        return room

    def _columns(self, name: str) -> slice:
        component = int(getattr(mujoco.mjtState, f"mjSTATE_{name.upper()}"))
        # A row has its components in the order of their bits.
        start = mujoco.mj_stateSize(self.model, component - 1)
        return slice(start, start + mujoco.mj_stateSize(self.model, component))


class _Rows(NamedTuple):
    """The first n simulations of a room."""

    state: FloatArray
    """(n, N)"""
    ctrl: FloatArray
    """(n, U)"""
    derived: dict[str, FloatArray]
    """(n, ...) each"""
    ids: NDArray[np.int32] | None
    """as `Batch` wants them: None for all that there are"""

    def motion(self, out: FloatArray | None) -> Motion:
        """What a call made of them."""
        states = np.empty(self.state.shape) if out is None else out
        states[...] = self.state
        return Motion(states, self.derived)


class _Room:
    """A `mujoco.batch.Batch`, of which the first n simulations may be used, and views of it, which
    cost microseconds to ask for.
    """

    def __init__(self, physics: Physics, n: int, fields: Iterable[str]) -> None:
        self.n = n
        n_threads = min(physics.n_threads, n)
        self.batch = batched_physics().Batch(physics.model, nsim=n, nthread=n_threads)
        self._all = _Rows(
            self.batch.state[:, : len(physics.rest)],
            self.batch.bind("ctrl"),
            {name: self.batch.bind(name) for name in physics.derived},
            None,
        )
        self.fields = {name: self.batch.expand(name) for name in fields}

    def first(self, n: int) -> _Rows:
        """The first n simulations."""
        if n == self.n:
            return self._all
        state, ctrl, derived, _ = self._all
        parts = {name: values[:n] for name, values in derived.items()}
        return _Rows(state[:n], ctrl[:n], parts, np.arange(n, dtype=np.int32))

    def load(self, fields: Fields, n: int) -> None:
        """Values of the model's fields for the first n simulations."""
        for name, values in fields.items():
            self.fields[name][:n] = values


class ExactPhysics(Physics):
    """The same, one simulation after the other, with the contact forces `cfrc_ext` of Gymnasium.

    Gymnasium calls `mj_rnePostConstraint` after the last substep, which batches cannot: a batch has
    no contact forces, or those of another stage.
    """

    _data: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_data": None}

    def step(
        self,
        states: FloatArray,
        actions: FloatArray,
        fields: Fields | None = None,
        *,
        out: FloatArray | None = None,
    ) -> Motion:
        """See `Physics.step`; `fields` are not supported."""

        def run(data: Any, row: int) -> None:
            data.ctrl[:] = actions[row]
            mujoco.mj_step(self.model, data, nstep=self.frame_skip)
            mujoco.mj_rnePostConstraint(self.model, data)

        return self._each(states, fields, run, np.empty_like(states) if out is None else out)

    def forward(self, states: FloatArray, fields: Fields | None = None) -> Motion:
        """See `Physics.forward`; `fields` are not supported."""
        out = np.empty_like(states)
        return self._each(states, fields, lambda data, _: mujoco.mj_forward(self.model, data), out)

    def _each(
        self,
        states: FloatArray,
        fields: Fields | None,
        run: Callable[[Any, int], None],
        out: FloatArray,
    ) -> Motion:
        assert not fields, "bodies with parameters of their own are stepped in batches"
        if self._data is None:
            self._data = mujoco.MjData(self.model)  # costs more than a step
        data = self._data
        shapes = {name: getattr(data, name).shape for name in self.derived}
        derived = {name: np.empty((len(states), *shape)) for name, shape in shapes.items()}
        after = np.empty(states.shape[1])
        for row, state in enumerate(states):
            mujoco.mj_resetData(self.model, data)
            mujoco.mj_setState(self.model, data, state, STATE)
            run(data, row)
            mujoco.mj_getState(self.model, data, after, STATE)
            out[row] = after
            for name in self.derived:
                derived[name][row] = getattr(data, name)
        return Motion(out, derived)
