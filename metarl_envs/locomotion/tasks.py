"""Tasks of the locomotion families, and the distributions that draw them."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray, Task, TupleTask
from metarl_envs.distributions import Draw, MakeTask, checked_array


@dataclass(frozen=True)
class VelocityTask(TupleTask):
    """The speed to run at, m/s."""

    velocity: float

    @classmethod
    def from_array(cls, array: FloatArray) -> "VelocityTask":
        """The inverse of `to_array`, (1,)."""
        return cls(float(array[0]))


@dataclass(frozen=True)
class DirectionTask(TupleTask):
    """The way to run: 1 is forward, -1 is backward."""

    direction: int

    @classmethod
    def from_array(cls, array: FloatArray) -> "DirectionTask":
        """The inverse of `to_array`, (1,)."""
        return cls(int(array[0]))


@dataclass(frozen=True)
class HeadingTask(TupleTask):
    """The heading to run in: an angle in radians, 0 along x and pi / 2 along y."""

    angle: float

    @classmethod
    def from_array(cls, array: FloatArray) -> "HeadingTask":
        """The inverse of `to_array`, (1,)."""
        return cls(float(array[0]))


@dataclass(frozen=True)
class MassTask(TupleTask):
    """How heavy the body is: its usual mass times 2 to this power."""

    exponent: float

    @classmethod
    def from_array(cls, array: FloatArray) -> "MassTask":
        """The inverse of `to_array`, (1,)."""
        return cls(float(array[0]))


class DiscTasks:
    """Points that are uniform in a disc around the origin.

    :param make_task: from an array (2,) to a task; a module-level function or class, so that it can
        be pickled
    :param radius: of the disc
    """

    n_uniforms = 2

    def __init__(self, make_task: MakeTask, radius: float) -> None:
        self.make_task, self.radius = make_task, radius
        self.space: gym.Space[Any] = gym.spaces.Box(-radius, radius, (2,), dtype=np.float64)

    def sample(self, rng: np.random.Generator) -> Task:
        """One task, from two uniform numbers of `rng`."""
        arrays = self.arrays_from_uniforms(lambda rows: rng.random((len(rows), 2)), 1)
        return self.make_task(arrays[0])

    def arrays_from_uniforms(self, draw: Draw, n: int) -> FloatArray:
        """The arrays of n tasks, (n, 2): the area within r grows with its square, hence the root.

        :param draw: their uniform numbers
        :param n: how many
        """
        uniforms = draw(np.arange(n))
        distance, angle = self.radius * np.sqrt(uniforms[:, 0]), 2 * np.pi * uniforms[:, 1]
        points = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=-1)
        return np.asarray(points)

    def from_array(self, array: ArrayLike) -> Task:
        """The task with this array, (2,)."""
        point = checked_array(self.space, array)
        # What was drawn close to the edge may lie beyond it by some rounding.
        if np.hypot(*point) > self.radius * (1 + 1e-12):
            raise ValueError(f"task={array!r} lies outside the disc of radius {self.radius}")
        return self.make_task(point)
