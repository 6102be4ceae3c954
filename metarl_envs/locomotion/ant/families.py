"""Dynamics and tasks of the Ant's families.

Shapes: B environments.
"""

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from metarl_envs.batched.checking import (
    check_choice,
    check_deviations,
    check_flags,
    check_magnitudes,
)
from metarl_envs.batched.family import Params
from metarl_envs.core import BoolArray, FloatArray, TaskDistribution
from metarl_envs.distributions import FiniteTasks, UniformTasks
from metarl_envs.locomotion.bodies import ANT
from metarl_envs.locomotion.checking import checked_range, warn_of_idle_threads
from metarl_envs.locomotion.family import Body, Moved
from metarl_envs.locomotion.physics import Motion
from metarl_envs.locomotion.presets import Presets, with_preset
from metarl_envs.locomotion.rewards import (
    contact_cost,
    control_cost,
    direction_reward,
    goal_reward,
    speed_reward,
)
from metarl_envs.locomotion.tasks import DiscTasks, HeadingTask, VelocityTask
from metarl_envs.locomotion.upright import UprightFamily
from metarl_envs.navigation.tasks import GoalTask

GoalShape = Literal["disc", "square"]
_CONTACT_LIMIT = 1.0
_DEFAULTS: dict[str, Any] = {
    "horizon": 200,
    "ctrl_cost_weight": 0.5,
    "contact_cost_weight": 5e-4,
    "healthy_reward": 1.0,
    "terminate_when_unhealthy": True,
}
_DIRECTION_PRESETS: Presets = {
    "finn2017": {"ctrl_cost_weight": 5e-3, "healthy_reward": 0.05},
    "pearl2019": {},
    "bomrl2024": {"ctrl_cost_weight": 5e-3, "healthy_reward": 1.05},
}
_PLANE_PRESETS = {name: _DIRECTION_PRESETS[name] for name in ("finn2017", "pearl2019")}
_VELOCITY_PRESETS: Presets = {
    "finn2017": {"ctrl_cost_weight": 5e-3, "healthy_reward": 1.05},
    "bomrl2024": {"ctrl_cost_weight": 5e-3, "healthy_reward": 1.05},
}
_GOAL_PRESETS: Presets = {
    "finn2017": {
        "goal_shape": "square",
        "ctrl_cost_weight": 5e-3,
        "healthy_reward": 4.05,
        "terminate_when_unhealthy": True,
    },
    "promp2019": {},
    "pearl2019": {},
}
_GOAL_DEFAULTS = _DEFAULTS | {
    "goal_shape": "disc",
    "ctrl_cost_weight": 0.1,
    "healthy_reward": 0.0,
    "terminate_when_unhealthy": False,
}


class _AntFamily(UprightFamily):
    """What the Ant's families share: health, contacts, and costs.

    :param settings: the arguments that presets may set, as they are to be used
    :param include_cfrc_ext_in_observation: whether there are contact forces
    :param n_threads: see `LocomotionFamily`
    :param body: the body
    :param arguments: of `LocomotionFamily`
    """

    n_position = 2

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        include_cfrc_ext_in_observation: bool,
        n_threads: int,
        body: Body = ANT,
        **arguments: Any,
    ) -> None:
        self.contact_cost_weight = settings.pop("contact_cost_weight")
        check_deviations(contact_cost_weight=self.contact_cost_weight)
        check_magnitudes(contact_cost_weight=self.contact_cost_weight)
        check_flags(include_cfrc_ext_in_observation=include_cfrc_ext_in_observation)
        self.include_cfrc_ext_in_observation = include_cfrc_ext_in_observation
        warn_of_idle_threads(n_threads, has_forces=include_cfrc_ext_in_observation)
        super().__init__(
            body,
            **settings,
            n_threads=n_threads,
            **arguments,
            derived=("cfrc_ext",) if include_cfrc_ext_in_observation else (),
            is_exact=include_cfrc_ext_in_observation,
        )

    def sensed(self, motion: Motion) -> FloatArray:
        """Contact forces on all bodies but the world, clipped, (B, 78), where there are any."""
        if not self.include_cfrc_ext_in_observation:
            return super().sensed(motion)
        forces = motion.derived["cfrc_ext"][:, 1:].reshape(len(motion.states), -1)
        return np.clip(forces, -_CONTACT_LIMIT, _CONTACT_LIMIT)

    def is_healthy(self, moved: Moved) -> BoolArray:
        """Whether the torso is from 0.2 to 1 m high and all numbers are finite, (B,)."""
        height = moved.qpos[:, 2]
        # MuJoCo keeps numbers below 1e10: only one that is not finite spoils the sum.
        is_finite = np.isfinite(moved.qpos.sum(axis=1) + moved.qvel.sum(axis=1))
        return np.asarray((height >= 0.2) & (height <= 1.0) & is_finite)

    def upright_reward(self, progress: FloatArray, moved: Moved) -> FloatArray:
        """`progress + bonus - costs`, (B,), added up as Gymnasium does."""
        if self.healthy_reward != 0:
            progress = progress + self.is_healthy(moved) * self.healthy_reward
        costs = control_cost(moved.actions, self.ctrl_cost_weight)
        if self.include_cfrc_ext_in_observation:
            forces = moved.derived["cfrc_ext"]
            costs = costs + contact_cost(forces, self.contact_cost_weight, _CONTACT_LIMIT)
        return np.asarray(progress - costs)


class AntDirFamily(_AntFamily):
    """Run forward or backward; see `AntDirEnv`."""

    n_train_tasks, n_test_tasks = 2, 2
    _presets: ClassVar[Presets] = _DIRECTION_PRESETS

    def __init__(
        self,
        *,
        preset: str | None = None,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        contact_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool | None = None,
        include_cfrc_ext_in_observation: bool = False,
        reset_noise_scale: float = ANT.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {
            "horizon": horizon,
            "ctrl_cost_weight": ctrl_cost_weight,
            "contact_cost_weight": contact_cost_weight,
            "healthy_reward": healthy_reward,
            "terminate_when_unhealthy": terminate_when_unhealthy,
        }
        self.preset = preset
        super().__init__(
            with_preset(preset, self._presets, _DEFAULTS, given),
            include_cfrc_ext_in_observation=include_cfrc_ext_in_observation,
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )
        self.task_distribution = self._headings()

    def _headings(self) -> TaskDistribution:
        return FiniteTasks([HeadingTask(0.0), HeadingTask(math.pi)])

    def compile(self, arrays: FloatArray) -> Params:
        """Directions, (B, 2), exactly along x."""
        along_x = np.cos(arrays[:, 0])
        return {"direction": np.stack([along_x, np.zeros(len(arrays))], axis=-1)}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`v . d + bonus` less the costs, (B,)."""
        progress = direction_reward(moved.velocity, params["direction"])
        return self.upright_reward(progress, moved)


class AntDir2DFamily(AntDirFamily):
    """Run in a direction of the plane; see `AntDir2DEnv`."""

    n_train_tasks, n_test_tasks = 100, 30
    _presets = _PLANE_PRESETS

    def _headings(self) -> TaskDistribution:
        return UniformTasks(HeadingTask.from_array, 0.0, 2 * math.pi)

    def compile(self, arrays: FloatArray) -> Params:
        """Directions, (B, 2)."""
        angles = arrays[:, 0]
        return {"direction": np.stack([np.cos(angles), np.sin(angles)], axis=-1)}


class AntVelFamily(_AntFamily):
    """Run at a speed; see `AntVelEnv`."""

    n_train_tasks, n_test_tasks = 100, 30

    def __init__(
        self,
        *,
        preset: str | None = None,
        task_range: tuple[float, float] | None = None,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        contact_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool | None = None,
        include_cfrc_ext_in_observation: bool = False,
        reset_noise_scale: float = ANT.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {
            "task_range": task_range,
            "horizon": horizon,
            "ctrl_cost_weight": ctrl_cost_weight,
            "contact_cost_weight": contact_cost_weight,
            "healthy_reward": healthy_reward,
            "terminate_when_unhealthy": terminate_when_unhealthy,
        }
        defaults = _DEFAULTS | {"task_range": (0.0, 3.0)}
        settings = with_preset(preset, _VELOCITY_PRESETS, defaults, given)
        self.preset = preset
        self.task_range = checked_range("task_range", settings.pop("task_range"))
        self.task_distribution = UniformTasks(VelocityTask.from_array, *self.task_range)
        super().__init__(
            settings,
            include_cfrc_ext_in_observation=include_cfrc_ext_in_observation,
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Target speeds, (B,), m/s."""
        return {"velocity": arrays[:, 0].copy()}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`-|v - v*| + bonus` less the costs, (B,)."""
        progress = speed_reward(moved.velocity[:, 0], params["velocity"])
        return self.upright_reward(progress, moved)


class AntGoalFamily(_AntFamily):
    """Go to a place; see `AntGoalEnv`."""

    n_train_tasks, n_test_tasks = 150, 30

    def __init__(
        self,
        *,
        preset: str | None = None,
        goal_shape: GoalShape | None = None,
        goal_limit: float = 3.0,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        contact_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool | None = None,
        include_cfrc_ext_in_observation: bool = False,
        reset_noise_scale: float = ANT.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {
            "goal_shape": goal_shape,
            "horizon": horizon,
            "ctrl_cost_weight": ctrl_cost_weight,
            "contact_cost_weight": contact_cost_weight,
            "healthy_reward": healthy_reward,
            "terminate_when_unhealthy": terminate_when_unhealthy,
        }
        settings = with_preset(preset, _GOAL_PRESETS, _GOAL_DEFAULTS, given)
        self.preset, self.goal_shape, self.goal_limit = (
            preset,
            settings.pop("goal_shape"),
            goal_limit,
        )
        check_choice("goal_shape", self.goal_shape, GoalShape)
        check_deviations(goal_limit=goal_limit)
        check_magnitudes(goal_limit=goal_limit)
        make = DiscTasks if self.goal_shape == "disc" else _square
        self.task_distribution = make(GoalTask.from_array, float(goal_limit))
        super().__init__(
            settings,
            include_cfrc_ext_in_observation=include_cfrc_ext_in_observation,
            body=replace(ANT, n_hidden=0),
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Goals, (B, 2), m."""
        return {"goal": arrays.copy()}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`-||x - g||_1 + bonus` less the costs, (B,)."""
        return self.upright_reward(goal_reward(moved.position, params["goal"]), moved)


def _square(make_task: Any, limit: float) -> TaskDistribution:
    """Points that are uniform in the square of this half width around the origin."""
    return UniformTasks(make_task, [-limit, -limit], [limit, limit])
