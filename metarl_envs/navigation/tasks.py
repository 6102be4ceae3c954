"""Tasks of point navigation: a goal, an angle or a wind."""

from dataclasses import dataclass

from metarl_envs.core import FloatArray, TupleTask


@dataclass(frozen=True)
class GoalTask(TupleTask):
    """Where to go."""

    goal: tuple[float, float]

    @classmethod
    def from_array(cls, array: FloatArray) -> "GoalTask":
        """The inverse of `to_array`, (2,)."""
        x, y = array.tolist()
        return cls((x, y))


@dataclass(frozen=True)
class AngleTask(TupleTask):
    """Where to go on the unit circle, in radians from the first axis."""

    angle: float

    @classmethod
    def from_array(cls, array: FloatArray) -> "AngleTask":
        """The inverse of `to_array`, (1,)."""
        return cls(*array.tolist())


@dataclass(frozen=True)
class WindTask(TupleTask):
    """What is added to the position at every step."""

    wind: tuple[float, float]

    @classmethod
    def from_array(cls, array: FloatArray) -> "WindTask":
        """The inverse of `to_array`, (2,)."""
        x, y = array.tolist()
        return cls((x, y))
