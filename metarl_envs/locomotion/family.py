"""What all locomotion families share: a body, its reset and its observation.

Shapes: B environments, U actuators.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import check_counts, check_deviations, check_magnitudes
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.batched.normals import normals
from metarl_envs.core import BoolArray, FloatArray, IntArray
from metarl_envs.locomotion.physics import ExactPhysics, Motion, Physics


@dataclass(frozen=True)
class Body:
    """One of Gymnasium's v5 bodies: model, resets, observations, health."""

    xml_file: str
    frame_skip: int
    reset_noise: float
    """half width of the uniform noise on `qpos` at resets, and scale of that on `qvel`"""
    n_hidden: int
    """first entries of `qpos` that the observation leaves out: the position in the world"""
    is_velocity_noise_normal: bool = False
    """whether the noise on `qvel` is normal (HalfCheetah, Ant) or uniform"""
    velocity_limit: float = np.inf
    """within which observed velocities are clipped"""
    tracked: str | None = None
    """body whose `xpos` gives position and velocity; `qpos` does where absent"""
    camera: tuple[tuple[str, Any], ...] = ()
    """attributes of the camera that films it"""


class Moved(NamedTuple):
    """A step, as rewards see it."""

    velocity: FloatArray
    """of the body along x and y over the step, (B, 2), m/s"""
    position: FloatArray
    """of the body after it, (B, 2), m"""
    qpos: FloatArray
    """(B, nq)"""
    qvel: FloatArray
    """(B, nv)"""
    actions: FloatArray
    """(B, U), float32 as handed in"""
    derived: dict[str, FloatArray]
    """fields of MuJoCo that the family asked for, (B, ...)"""


class LocomotionFamily(Family):
    """Dynamics of a body; what is rewarded, and which episodes end, is a subclass's.

    :param body: the body
    :param horizon: steps of an episode, then truncated
    :param reset_noise_scale: see `Body.reset_noise`
    :param n_threads: threads of the physics; the bits do not depend on it
    :param derived: fields of MuJoCo's data that rewards or observations need
    :param is_exact: whether contact forces are wanted, which makes the physics slower
    """

    n_position: int
    """1 where the body moves along x only, else 2."""

    def __init__(
        self,
        body: Body,
        *,
        horizon: int,
        reset_noise_scale: float,
        n_threads: int,
        derived: Sequence[str] = (),
        is_exact: bool = False,
    ) -> None:
        check_counts(horizon=horizon)
        check_deviations(reset_noise_scale=reset_noise_scale)
        check_magnitudes(reset_noise_scale=reset_noise_scale)
        self.body, self.horizon = body, horizon
        self.reset_noise_scale, self.n_threads = reset_noise_scale, n_threads
        names = (*derived, "xpos") if body.tracked else tuple(derived)
        kind = ExactPhysics if is_exact else Physics
        self.physics = kind(body.xml_file, body.frame_skip, n_threads=n_threads, derived=names)
        model = self.physics.model
        self.render_fps = round(1.0 / self.physics.dt)
        self._tracked_id = model.body(body.tracked).id if body.tracked else -1
        self._qpos, self._qvel = self.physics.columns["qpos"], self.physics.columns["qvel"]
        n_state = len(self.physics.rest)
        n_sensed = self.sensed(self.physics.forward(self.physics.rest[None])).shape[1]
        # After MuJoCo's own row: position and velocity of the body, for infos and the next step,
        # and what observations need of the step that led here.
        self._state, self._position = slice(0, n_state), slice(n_state, n_state + 2)
        self._velocity = slice(n_state + 2, n_state + 4)
        # The axes that the body moves along: numbers of the other one are zeros. A column is added
        # up in half the time of a block of one column.
        self._axes = 0 if self.n_position == 1 else slice(0, 2)
        self._sensed = slice(n_state + 4, n_state + 4 + n_sensed)
        self._has_sensed = n_sensed > 0
        self._told: dict[str, int] = {}
        for i, axis in enumerate(("x", "y")[: self.n_position]):
            self._told[f"{axis}_position"] = self._qpos.start + i
            self._told[f"{axis}_velocity"] = self._velocity.start + i
        self.n_reset_uniforms = model.nq + model.nv
        assert self._qpos.stop == self._qvel.start, "observations copy both at once"
        self._seen = slice(self._qpos.start + body.n_hidden, self._qvel.stop)
        size = model.nq - body.n_hidden + model.nv + n_sensed
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self.action_space = gym.spaces.Box(low.copy(), high.copy(), dtype=np.float32)

    @abstractmethod
    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """Rewards of a step, (B,)."""

    def is_terminal(self, moved: Moved) -> BoolArray:
        """Whether the body has fallen, (B,): never, unless overridden."""
        return np.zeros(len(moved.qpos), dtype=np.bool_)

    def sensed(self, motion: Motion) -> FloatArray:
        """What observations hold after positions and velocities, (B, k): nothing, unless
        overridden.
        """
        return np.empty((len(motion.states), 0))

    def fields(self, params: Params) -> dict[str, Array]:
        """Values of the model's fields per task, (B, ...): none, unless overridden."""
        return {}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """The model's start plus noise, as Gymnasium's v5 bodies draw it, (B, N + 4 + k)."""
        states = np.tile(self.physics.rest, (len(uniforms), 1))
        nq = self._qpos.stop - self._qpos.start
        states[:, self._qpos] += self.reset_noise_scale * (2.0 * uniforms[:, :nq] - 1.0)
        states[:, self._qvel] += self._velocity_noise(uniforms[:, nq:])
        motion = self.physics.forward(states, self.fields(params))
        rows = np.zeros((len(states), self._sensed.stop))
        rows[:, self._state] = motion.states
        self._note(rows, motion)
        return rows

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Physics, reward and health."""
        rows = np.zeros(states.shape)
        fields, after = self.fields(params), rows[:, self._state]
        motion = self.physics.step(states[:, self._state], actions, fields, out=after)
        self._note(rows, motion)
        position, velocity = rows[:, self._position], rows[:, self._velocity]
        before, speed = states[:, self._position], velocity[:, self._axes]
        np.subtract(position[:, self._axes], before[:, self._axes], out=speed)
        speed /= self.physics.dt
        qpos, qvel = rows[:, self._qpos], rows[:, self._qvel]
        moved = Moved(velocity, position, qpos, qvel, actions, motion.derived)
        return rows, self.rewards(params, moved), self.is_terminal(moved)

    def observe(self, states: Array, stages: IntArray) -> Array:
        """Joint positions without the place in the world, velocities, and what else the body
        senses, (B, nq - hidden + nv + k).
        """
        n_seen = self._seen.stop - self._seen.start
        if self._has_sensed:
            n_sensed = self._sensed.stop - self._sensed.start
            observations = np.empty((len(states), n_seen + n_sensed))
            observations[:, :n_seen] = states[:, self._seen]
            observations[:, n_seen:] = states[:, self._sensed]
        else:
            observations = states[:, self._seen].copy()
        limit = self.body.velocity_limit
        if limit < np.inf:
            velocities = observations[:, n_seen - self._qvel.stop + self._qvel.start : n_seen]
            np.clip(velocities, -limit, limit, out=velocities)
        return observations

    def infos(self, states: Array, stages: IntArray) -> dict[str, Array]:
        """Stage, and position and velocity of the body, (B,) each, under Gymnasium's names; as
        there, the position is that of `qpos`, whatever the velocity is of.
        """
        infos = super().infos(states, stages)
        for name, column in self._told.items():
            infos[name] = states[:, column].copy()
        return infos

    def render_ansi(self, view: View) -> str:
        """Place, task, speed and return, in words."""
        from metarl_envs.locomotion.rendering import narrate

        return narrate(self, view)

    def render_rgb(self, view: View) -> Any:
        """The body in its world, with the task drawn in it."""
        from metarl_envs.locomotion.rendering import film

        return film(self, view)

    def _velocity_noise(self, uniforms: FloatArray) -> FloatArray:
        if not self.body.is_velocity_noise_normal:
            return self.reset_noise_scale * (2.0 * uniforms - 1.0)
        return self.reset_noise_scale * normals(uniforms)

    def _note(self, rows: Array, motion: Motion) -> None:
        """Writes what follows MuJoCo's own numbers in a row of zeros, but for the velocity."""
        positions = self._positions(motion.states, motion.derived)
        rows[:, self._position][:, self._axes] = positions[:, self._axes]
        if self._has_sensed:
            rows[:, self._sensed] = self.sensed(motion)

    def _positions(self, states: FloatArray, derived: dict[str, FloatArray]) -> FloatArray:
        """Of the body along x and y, (B, 2); the latter is left out where it moves along x only."""
        if self.body.tracked:
            return derived["xpos"][:, self._tracked_id, :2]
        return states[:, self._qpos.start : self._qpos.start + 2]
