"""Families of a point whose reward depends on its distance from a goal.

Shapes: B environments, M tasks, H steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from metarl_envs.batched.checking import check_choice, check_flags
from metarl_envs.batched.family import Array, Params
from metarl_envs.core import FloatArray, Task
from metarl_envs.distributions import UniformTasks, task_arrays
from metarl_envs.navigation.exact import mean_moments
from metarl_envs.navigation.point import (
    REACH_TOLERANCE,
    DistanceFamily,
    check_lengths,
    check_positive,
    with_preset,
)
from metarl_envs.navigation.rendering import Scene, square
from metarl_envs.navigation.tasks import AngleTask, GoalTask, WindTask

Reward = Literal["distance", "squared_distance"]
SparseReward = Literal["sparse", "dense"]

_POINT_GOAL = {
    "goal_range": 0.5,
    "reward": "distance",
    "horizon": 100,
    "max_step": 0.1,
    "done_radius": 0.0,
}
_POINT_GOAL_PRESETS: dict[str, dict[str, Any]] = {
    "finn2017": {"reward": "squared_distance", "done_radius": 0.01},
    "promp2019": {"goal_range": 2.0},
}
_SPARSE_POINT_GOAL = {"horizon": 20, "flat_reward": False, "random_start": False}
_SPARSE_POINT_GOAL_PRESETS = {
    "borel2021": {"horizon": 60, "flat_reward": True, "random_start": True}
}


class PointGoalFamily(DistanceFamily):
    """A goal in a square around the start; see `PointGoalEnv`."""

    def __init__(
        self,
        *,
        preset: str | None = None,
        goal_range: float | None = None,
        reward: Reward | None = None,
        horizon: int | None = None,
        max_step: float | None = None,
        done_radius: float | None = None,
    ) -> None:
        chosen = with_preset(
            _POINT_GOAL_PRESETS,
            preset,
            _POINT_GOAL,
            goal_range=goal_range,
            reward=reward,
            horizon=horizon,
            max_step=max_step,
            done_radius=done_radius,
        )
        super().__init__(horizon=chosen["horizon"], max_step=chosen["max_step"])
        self.preset = preset
        self.goal_range, self.reward = chosen["goal_range"], chosen["reward"]
        self.done_radius = chosen["done_radius"]
        check_lengths(goal_range=self.goal_range, done_radius=self.done_radius)
        check_choice("reward", self.reward, Reward)
        self.task_distribution = _goals_in_square(self.goal_range)

    def rewards(self, distances: FloatArray) -> FloatArray:
        """Minus the distance, or its square."""
        return -(distances * distances) if self.reward == "squared_distance" else -distances

    def scene(self, params: Mapping[str, Array]) -> Scene:
        """The goal, and the square of all goals."""
        return Scene(
            half_width=1.4 * max(self.goal_range, self.max_step),
            horizon=self.horizon,
            goal=params.get("goal"),
            goal_radius=self.done_radius,
            outline=square(self.goal_range),
        )


class PointRobotFamily(DistanceFamily):
    """A goal and a start in one square; see `PointRobotEnv`."""

    def __init__(
        self,
        *,
        goal_range: float = 1.0,
        start_range: float = 1.0,
        horizon: int = 20,
        max_step: float = 0.1,
    ) -> None:
        check_lengths(goal_range=goal_range, start_range=start_range)
        super().__init__(
            horizon=horizon,
            max_step=max_step,
            start_low=(-start_range, -start_range),
            start_high=(start_range, start_range),
        )
        self.goal_range, self.start_range = goal_range, start_range
        self.task_distribution = _goals_in_square(goal_range)

    def rewards(self, distances: FloatArray) -> FloatArray:
        """Minus the distance."""
        return -distances

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of an agent that knows the task, (M,): exact, over starts as well."""
        if not self.has_random_start:
            return super().optimal_returns(tasks)
        return -_moments_over_starts(self, tasks, np.inf)[1].sum(axis=-1)

    def scene(self, params: Mapping[str, Array]) -> Scene:
        """The goal, and the square of all goals."""
        return Scene(
            half_width=1.3 * max(self.goal_range, self.start_range, self.max_step),
            horizon=self.horizon,
            goal=params.get("goal"),
            outline=square(self.goal_range),
        )


class SparsePointGoalFamily(DistanceFamily):
    """A goal on a half circle that is felt nearby only; see `SparsePointGoalEnv`."""

    def __init__(
        self,
        *,
        preset: str | None = None,
        reward: SparseReward = "sparse",
        horizon: int | None = None,
        flat_reward: bool | None = None,
        random_start: bool | None = None,
        goal_radius: float = 0.2,
        max_step: float = 0.1,
    ) -> None:
        chosen = with_preset(
            _SPARSE_POINT_GOAL_PRESETS,
            preset,
            _SPARSE_POINT_GOAL,
            horizon=horizon,
            flat_reward=flat_reward,
            random_start=random_start,
        )
        check_choice("reward", reward, SparseReward)
        self.preset, self.reward = preset, reward
        self.flat_reward, self.random_start = chosen["flat_reward"], chosen["random_start"]
        check_flags(flat_reward=self.flat_reward, random_start=self.random_start)
        super().__init__(
            horizon=chosen["horizon"],
            max_step=max_step,
            start_low=(-1.5, -0.5) if self.random_start else (0.0, 0.0),
            start_high=(1.5, 1.5) if self.random_start else (0.0, 0.0),
        )
        check_positive(goal_radius=goal_radius)
        if goal_radius > 1:
            raise ValueError(
                f"goal_radius={goal_radius!r} must be at most 1: rewards would be negative"
            )
        self.goal_radius = goal_radius
        self.task_distribution = UniformTasks(AngleTask.from_array, 0.0, np.pi)

    def compile(self, arrays: FloatArray) -> Params:
        """Goals on the circle, (B, 2)."""
        angles = arrays[:, 0].copy()
        return {"goal": np.stack([np.cos(angles), np.sin(angles)], axis=-1)}

    def rewards(self, distances: FloatArray) -> FloatArray:
        """1, or 1 minus the distance, near the goal; minus the distance if dense."""
        if self.reward == "dense":
            return -distances
        # Up to the tolerance, 1 minus the distance could be negative with a radius of 1.
        near = 1.0 if self.flat_reward else np.maximum(1.0 - distances, 0.0)
        return np.where(distances <= self.goal_radius + REACH_TOLERANCE, near, 0.0)

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of an agent that knows the task, (M,): exact, over starts as well."""
        if not self.has_random_start:
            return super().optimal_returns(tasks)
        if self.reward == "dense":
            return -_moments_over_starts(self, tasks, np.inf)[1].sum(axis=-1)
        radius = self.goal_radius + REACH_TOLERANCE
        near, distances = _moments_over_starts(self, tasks, radius)
        return (near if self.flat_reward else near - distances).sum(axis=-1)

    def scene(self, params: Mapping[str, Array]) -> Scene:
        """The goal with the disc that pays, and the half circle of all goals."""
        angles = np.linspace(0.0, np.pi, 61)
        return Scene(
            half_width=1.6 if self.random_start else 1.3,
            horizon=self.horizon,
            centre=(0.0, 0.5),
            goal=params.get("goal"),
            goal_radius=self.goal_radius,
            outline=np.stack([np.cos(angles), np.sin(angles)], axis=-1),
        )


class PointWindFamily(DistanceFamily):
    """A known goal and an unknown wind; see `PointWindEnv`."""

    goal = (0.0, 1.0)

    def __init__(
        self,
        *,
        wind_range: float = 0.08,
        goal_radius: float = 0.03,
        horizon: int = 75,
        max_step: float = 0.1,
    ) -> None:
        super().__init__(horizon=horizon, max_step=max_step)
        check_lengths(wind_range=wind_range)
        check_positive(goal_radius=goal_radius)
        if wind_range >= max_step:
            raise ValueError(
                f"wind_range={wind_range!r} must be below max_step={max_step!r}: "
                "a stronger wind lets nobody stay at the goal"
            )
        self.wind_range, self.goal_radius = wind_range, goal_radius
        self.task_distribution = UniformTasks(
            WindTask.from_array, [-wind_range, -wind_range], [wind_range, wind_range]
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Winds and the one goal, (B, 2) each."""
        return {"wind": arrays.copy(), "goal": np.tile(self.goal, (len(arrays), 1))}

    def moved(self, params: Params, states: Array, actions: Array) -> FloatArray:
        """Positions after a move in the wind, (B, 2)."""
        following = super().moved(params, states, actions)
        following += params["wind"]
        return following

    def rewards(self, distances: FloatArray) -> FloatArray:
        """1 near the goal."""
        return (distances <= self.goal_radius + REACH_TOLERANCE).astype(np.float64)

    def scene(self, params: Mapping[str, Array]) -> Scene:
        """The goal with the disc that pays, and the wind."""
        return Scene(
            half_width=0.9,
            horizon=self.horizon,
            centre=(0.0, 0.5),
            goal=np.array(self.goal),
            goal_radius=self.goal_radius,
            wind=params.get("wind"),
        )

    def _aim(self, params: Params) -> FloatArray:
        # Straight against the wind: as it is weaker than a step, a coordinate that is at the goal
        # can stay there.
        return np.asarray(params["goal"] - params["wind"], dtype=np.float64)


def _goals_in_square(goal_range: float) -> UniformTasks:
    return UniformTasks(GoalTask.from_array, [-goal_range, -goal_range], [goal_range, goal_range])


def _moments_over_starts(
    family: DistanceFamily, tasks: Sequence[Task], radius: float
) -> tuple[FloatArray, FloatArray]:
    """Means over starts, (M, H) each, of being within `radius` of the goal and of the distance
    there.
    """
    goals = family.compile(task_arrays(family.task_distribution, tasks))["goal"]
    reaches = family.max_step * np.arange(1.0, family.horizon + 1)
    centre = (family.start_low + family.start_high) / 2
    half_widths = (family.start_high - family.start_low) / 2
    return mean_moments(goals - centre, half_widths, reaches, radius)
