"""The contracts that agents may rely on: tasks, environments that own tasks, linear and exact value
structure.

All of them are structural (`typing.Protocol`), so an environment written elsewhere takes part
without importing this package. Shapes: M tasks, B sub-environments, S_h observations at stage h, A
actions, H stages, d features.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Split = Literal["train", "test"]


@runtime_checkable
class Task(Protocol):
    """One problem of a family: in practice a frozen dataclass, so hashable, comparable and
    picklable.
    """

    def to_array(self) -> FloatArray:
        """The task as numbers, (task_dim,): for oracles, decoders and logs."""
        ...


class TupleTask:
    """`to_array` and JSON for a frozen dataclass whose fields are floats or (nested) tuples of
    floats.
    """

    def to_array(self) -> FloatArray:
        """All fields, flattened in order of declaration, (task_dim,)."""
        parts = [
            np.ravel(np.asarray(getattr(self, field.name), dtype=np.float64))
            for field in _fields(self)
        ]
        return np.concatenate(parts)


def _fields(task: Any) -> tuple[Any, ...]:
    return fields(task)


def task_id(task: Task) -> int:
    """A number in [0, 2^53) that is the same for equal tasks, in every process and on every
    machine.

    :param task: the task; its class name and `to_array()` decide
    """
    array = np.asarray(task.to_array(), dtype=np.float64)
    return int(task_ids(type(task).__qualname__, array.reshape(1, -1))[0])


def task_ids(class_name: str, arrays: np.ndarray) -> IntArray:
    """The `task_id` of M tasks of one class, (M,).

    A multilinear hash of mixed numbers, mixed again with a hash of the name; shifts and multiplier
    are those of SplitMix64 (Steele, Lea and Flood, 2014,
    https://doi.org/10.1145/2660193.2660195).

    :param class_name: `__qualname__` of the class
    :param arrays: (M, task_dim)
    """
    # Adding 0.0 turns -0.0, which compares equal to 0.0, into 0.0.
    words = (np.ascontiguousarray(arrays, dtype=np.float64) + 0.0).view(np.uint64)
    # Numbers like 1.0 have their bits at the top, where a product loses them: bring them down.
    words ^= words >> np.uint64(32)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(29)
    return _mixed(words @ _multipliers(words.shape[1]) + _name_hash(class_name))


@cache
def _multipliers(n: int) -> NDArray[np.uint64]:
    """Odd numbers without pattern, the same everywhere, (n,)."""
    digests = (hashlib.blake2b(i.to_bytes(8, "little"), digest_size=8).digest() for i in range(n))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64) | np.uint64(1)


def _mixed(words: NDArray[np.uint64]) -> IntArray:
    """53 bits of each word that depend on all of its bits."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    return (words >> np.uint64(11)).astype(np.int64)


@cache
def _name_hash(class_name: str) -> np.uint64:
    digest = hashlib.blake2b(class_name.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


@runtime_checkable
class TaskDistribution(Protocol):
    """Where the tasks of a family come from."""

    space: gym.Space[Any]
    """Every task's array lies in it."""

    def sample(self, rng: np.random.Generator) -> Task:
        """One task; uses no randomness but `rng`."""
        ...

    def from_array(self, array: np.ndarray) -> Task:
        """The inverse of `Task.to_array`; `ValueError` for an array outside `space`."""
        ...


@runtime_checkable
class TaskEnv(Protocol):
    """A `gym.Env` whose episodes each belong to a task: a new one at every reset, unless one is
    pinned.
    """

    task_distribution: TaskDistribution

    def sample_tasks(self, n: int, *, seed: int | None = None) -> list[Task]:
        """Tasks from the distribution; without a seed they come from the env's own task
        generator.
        """
        ...

    def set_task(self, task: Task | None) -> None:
        """Pins `task` from the next reset on, through every later one; `None` unpins."""
        ...

    def get_task(self) -> Task:
        """The task of the running episode (before the first reset: the pinned one)."""
        ...


@runtime_checkable
class TaskVectorEnv(Protocol):
    """A `gym.vector.VectorEnv` with one task per sub-environment."""

    task_distribution: TaskDistribution

    def sample_tasks(self, n: int, *, seed: int | None = None) -> list[Task]:
        """Tasks from the distribution, as `TaskEnv.sample_tasks`."""
        ...

    def set_tasks(
        self, tasks: Sequence[Task | None], *, indices: Sequence[int] | None = None
    ) -> None:
        """Pins one task per sub-environment (or per index) from its next reset on; `None`
        unpins.
        """
        ...

    def get_tasks(self) -> list[Task]:
        """The tasks of the running episodes, one per sub-environment."""
        ...


@runtime_checkable
class LinearQEnv(Protocol):
    """What an agent with one linear Q-function per stage needs of a finite-horizon family.

    Optional members: `stages(observations) -> (...)`, the stage that an observation belongs to, and
    `n_feature_blocks` (1 where absent): the features are `e_block (x) f` with equal, contiguous
    blocks, and each action's features lie in one block.
    """

    n_stages: int
    n_features: int

    def features(self, stage: int, observations: np.ndarray) -> FloatArray:
        """The features of every action, (..., A, d), of observations (..., *obs_shape); pure in its
        arguments.
        """
        ...

    def action_masks(self, observations: np.ndarray | None = None) -> BoolArray:
        """Which actions are allowed, (..., A); without an argument, in the current state."""
        ...


@runtime_checkable
class ExactEnv(Protocol):
    """A family whose values can be computed exactly; returns are expected, undiscounted and from
    reset.
    """

    n_stages: int

    def stage_observations(self, stage: int) -> np.ndarray:
        """Every observation that some policy can reach at `stage`, (S_h, *obs_shape)."""
        ...

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """The best expected return of each task under the action masks, (M,)."""
        ...

    def optimal_return(self, task: Task) -> float:
        """The same for one task."""
        ...

    def policy_returns(
        self, tasks: Sequence[Task], probabilities: Sequence[np.ndarray]
    ) -> FloatArray:
        """The expected return of one policy per task, (M,).

        :param tasks: M tasks
        :param probabilities: for each stage (M, S_h, A) or (S_h, A), rows in the order of
            `stage_observations`
        """
        ...

    def myopic_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """The expected return of the policy that is greedy on the immediate reward, (M,)."""
        ...

    def q_prior(
        self,
        *,
        n_tasks: int = 600,
        seed: int = 0,
        target: Literal["optimal", "myopic"] = "optimal",
        structure: Literal["block", "full"] = "block",
        misfit: bool = False,
        ridge: float = 1e-4,
    ) -> tuple[FloatArray, FloatArray]:
        """Mean (H, d) and covariance (H, d, d) of the Q-function's parameters over the tasks of the
        family.
        """
        ...
