"""Tasks of the locomotion families, and the distributions that draw them."""

from dataclasses import dataclass

from metarl_envs.core import FloatArray, TupleTask


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
