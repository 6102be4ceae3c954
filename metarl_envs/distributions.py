"""Task distributions, and the stream of tasks that one (sub-)environment meets.

Shapes: n = task_dim, the length of `Task.to_array()`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray, IntArray, Split, Task, TaskDistribution

MakeTask = Callable[[FloatArray], Task]
Draw = Callable[[IntArray], FloatArray]
"""The next `n_uniforms` numbers in [0, 1) of each of some tasks, (rows,) -> (rows, n_uniforms)."""
TaskMode = Literal["resample", "fixed"]

# Spawn keys: the streams of one seed are disjoint from each other, from the dynamics, which use the
# seed itself, and from whatever a family draws from a population seed of the same value: the first
# word of every task stream is one that nothing else uses.
_TASK_NAMESPACE = 0x7A5C
EPISODE_KEY, _TRAIN_KEY, _TEST_KEY, _PRIOR_KEY = 1, 2, 3, 4
SPLIT_KEYS = {"train": _TRAIN_KEY, "test": _TEST_KEY}


@runtime_checkable
class BatchTaskDistribution(Protocol):
    """A `TaskDistribution` whose tasks can be drawn many at a time, each from its own uniforms."""

    n_uniforms: int
    """Uniform numbers that one attempt at a task takes."""

    def arrays_from_uniforms(self, draw: Draw, n: int) -> FloatArray:
        """The arrays of n tasks, (n, task_dim), the same bits as `sample` gives for each.

        :param draw: the numbers to use; rejection sampling asks again for the rows that failed
        :param n: how many tasks
        """
        ...


def check_seed(**seeds: Any) -> None:
    """`ValueError` for the first argument that is no non-negative integer: `None` would draw fresh
    entropy, so that every instance differs.
    """
    for name, value in seeds.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name}={value!r} must be a non-negative integer")


def task_rng(seed: int, key: int) -> np.random.Generator:
    """The generator of one of the task streams that belong to a seed.

    :param seed: a non-negative seed
    :param key: which of its streams
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_TASK_NAMESPACE, key))
    return np.random.Generator(np.random.PCG64(sequence))


def checked_array(space: gym.Space[Any], array: ArrayLike, name: str = "task") -> FloatArray:
    """`array` as float64, or `ValueError` where it has the wrong shape, is not finite or lies
    outside `space`.

    :param space: the space of the tasks' arrays
    :param array: (task_dim,)
    :param name: what to call it in the error
    """
    try:
        numbers = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={array!r} is not an array of numbers") from error
    # NumPy would read text and dates as numbers, and leave out imaginary parts.
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"{name}={array!r} is not an array of real numbers")
    result = numbers.astype(np.float64)
    if result.shape != space.shape:
        raise ValueError(
            f"{name} has {result.shape=}, but this family's tasks have shape {space.shape}"
        )
    if not np.all(np.isfinite(result)):
        raise ValueError(f"{name}={result!r} holds values that are not finite")
    if not space.contains(result.astype(space.dtype)):
        raise ValueError(f"{name}={result!r} lies outside the task space {space}")
    return result


def check_task(distribution: TaskDistribution, task: Any) -> Task:
    """`task` itself, or an error that says why it is none of this family's.

    :param distribution: the family's distribution
    :param task: what the user handed in
    """
    if not isinstance(task, Task):
        raise TypeError(
            f"task={task!r} is no task: give one from sample_tasks() or "
            "from task_distribution.from_array(array)"
        )
    try:
        array = task.to_array()
    except Exception as error:  # whatever its fields hold, or a class instead of a task
        raise ValueError(f"task={task!r} has no array of numbers: use sample_tasks()") from error
    # A task of another family, or of other sizes, may have an array of the right length.
    own = distribution.from_array(checked_array(distribution.space, array))
    if type(task) is not type(own):
        raise ValueError(f"task={task!r} belongs to another family: use sample_tasks() of this env")
    if not _is_same(task, own):
        raise ValueError(
            f"task={task!r} is not built as this family's tasks are: "
            "use sample_tasks() or task_distribution.from_array(task.to_array())"
        )
    return task


def check_tasks(distribution: TaskDistribution, tasks: Sequence[Any]) -> list[Task]:
    """`tasks` as a list, or an error that says which is none of this family's.

    :param distribution: the family's distribution
    :param tasks: what the user handed in
    """
    if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
        raise TypeError(f"tasks={tasks!r} must be a sequence of tasks: put a single one in a list")
    return [check_task(distribution, task) for task in tasks]


def task_arrays(distribution: TaskDistribution, tasks: Sequence[Any]) -> FloatArray:
    """The arrays of tasks, (M, *array shape), or an error that says which is none of this family's.

    :param distribution: the family's distribution
    :param tasks: M tasks, as the user handed them in
    """
    arrays = [task.to_array() for task in check_tasks(distribution, tasks)]
    shape = len(arrays), *(distribution.space.shape or ())
    return np.array(arrays, dtype=np.float64).reshape(shape)


def _is_same(task: Task, other: Task) -> bool:
    """Whether two tasks are equal and hash alike; comparing arrays raises, and is no equality."""
    try:
        return bool(task == other) and hash(task) == hash(other)
    except Exception:
        return False


class UniformTasks:
    """Tasks whose numbers are independent and uniform between two bounds.

    :param make_task: from an array (n,) to a task; a module-level function or class, so that it can
        be pickled
    :param low: lower bounds, (n,) or a number
    :param high: upper bounds, (n,) or a number
    """

    def __init__(self, make_task: MakeTask, low: ArrayLike, high: ArrayLike) -> None:
        bounds = np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high))
        self.low, self.high = (np.array(bound, dtype=np.float64) for bound in bounds)
        if self.low.ndim != 1:
            raise ValueError(f"low={low!r} and high={high!r} must be numbers or of shape (n,)")
        if not (
            np.all(np.isfinite(self.low))
            and np.all(np.isfinite(self.high))
            and np.all(self.low <= self.high)
        ):
            raise ValueError(f"low={low!r} must be finite and at most high={high!r}")
        self.make_task = make_task
        self.space: gym.Space[Any] = gym.spaces.Box(self.low, self.high, dtype=np.float64)

    @property
    def n_uniforms(self) -> int:
        """n."""
        return self.low.size

    def sample(self, rng: np.random.Generator) -> Task:
        """One task, from `n` uniform numbers of `rng`."""
        return self.make_task(self._scaled(rng.random(self.low.shape)))

    def arrays_from_uniforms(self, draw: Draw, n: int) -> FloatArray:
        """The arrays of `n` tasks, (n, task_dim).

        :param draw: their uniform numbers
        :param n: how many
        """
        return self._scaled(draw(np.arange(n)))

    def from_row(self, row: FloatArray) -> Task:
        """The task with this array, (n,), unchecked."""
        return self.make_task(row)

    def _scaled(self, uniforms: FloatArray) -> FloatArray:
        return self.low + (self.high - self.low) * uniforms

    def from_array(self, array: np.ndarray) -> Task:
        """The task with this array, (n,)."""
        return self.make_task(checked_array(self.space, array))


class FiniteTasks:
    """A finite set of tasks.

    :param tasks: the set, all of one class and with arrays of one shape
    :param probabilities: of each task; uniform where absent
    """

    n_uniforms = 1

    def __init__(self, tasks: Sequence[Task], probabilities: ArrayLike | None = None) -> None:
        if not tasks:
            raise ValueError("tasks=[] is empty: give at least one task")
        self.tasks = tuple(tasks)
        n_tasks = len(self.tasks)
        weights = (
            np.full(n_tasks, 1.0 / n_tasks)
            if probabilities is None
            else np.asarray(probabilities, np.float64)
        )
        if (
            weights.shape != (n_tasks,)
            or not np.all(weights >= 0)
            or not np.isclose(weights.sum(), 1.0)
        ):
            raise ValueError(
                f"probabilities={probabilities!r} must be {n_tasks} non-negative numbers "
                "that sum to 1"
            )
        self.probabilities = weights
        self._cumulative = np.cumsum(weights)
        self._arrays = np.stack([task.to_array() for task in self.tasks])
        if self._arrays.ndim != 2:
            raise ValueError(
                f"to_array() of {self.tasks[0]!r} has shape {self._arrays.shape[1:]}: it must be "
                "(task_dim,)"
            )
        self.space: gym.Space[Any] = gym.spaces.Box(
            self._arrays.min(0), self._arrays.max(0), dtype=np.float64
        )

    def sample(self, rng: np.random.Generator) -> Task:
        """One of the tasks, from one uniform number of `rng`."""
        return self.tasks[int(self._indices(np.array([rng.random()]))[0])]

    def arrays_from_uniforms(self, draw: Draw, n: int) -> FloatArray:
        """The arrays of `n` tasks, (n, task_dim).

        :param draw: their uniform numbers
        :param n: how many
        """
        return np.asarray(self._arrays[self._indices(draw(np.arange(n))[:, 0])])

    def from_row(self, row: FloatArray) -> Task:
        """The member of the set that has this array, (n,)."""
        return self.tasks[int(np.flatnonzero((self._arrays == row).all(axis=1))[0])]

    def _indices(self, uniforms: FloatArray) -> IntArray:
        indices = np.searchsorted(self._cumulative, uniforms, side="right")
        return np.minimum(indices, len(self.tasks) - 1)

    def from_array(self, array: np.ndarray) -> Task:
        """The member of the set that has this array, (n,)."""
        matches = np.flatnonzero(np.all(self._arrays == checked_array(self.space, array), axis=1))
        if not matches.size:
            raise ValueError(
                f"array={array!r} is the array of none of the {len(self.tasks)} tasks of this set"
            )
        return self.tasks[int(matches[0])]


class GaussianTasks:
    """Tasks whose numbers are jointly Gaussian: `mean + factor z`, z ~ N(0, I).

    :param make_task: from an array (n,) to a task; a module-level function or class, so that it can
        be pickled
    :param mean: (n,)
    :param std: standard deviations of independent numbers, (n,) or a number
    :param factor: instead of `std`, any square root of the covariance, (n, n)
    """

    def __init__(
        self,
        make_task: MakeTask,
        mean: ArrayLike,
        std: ArrayLike | None = None,
        *,
        factor: ArrayLike | None = None,
    ) -> None:
        self.mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
        n = self.mean.size
        if (std is None) == (factor is None):
            raise ValueError(f"give exactly one of std={std!r} and factor={factor!r}")
        self.std = np.broadcast_to(np.asarray(0.0 if std is None else std, np.float64), (n,)).copy()
        self.factor = None if factor is None else np.asarray(factor, dtype=np.float64)
        if not np.all(self.std >= 0):
            raise ValueError(f"std={std!r} must not be negative")
        if self.factor is not None and self.factor.shape != (n, n):
            raise ValueError(
                f"factor has shape {self.factor.shape}, but mean has {n} numbers: give ({n}, {n})"
            )
        parts = [self.mean, self.std, *([] if self.factor is None else [self.factor])]
        if not all(np.all(np.isfinite(part)) for part in parts):
            raise ValueError("mean, std and factor must be finite")
        self.make_task = make_task
        self.space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (n,), dtype=np.float64)

    def sample(self, rng: np.random.Generator) -> Task:
        """One task, from `n` normal numbers of `rng`."""
        normals = rng.standard_normal(self.mean.size)
        noise = self.std * normals if self.factor is None else self.factor @ normals
        return self.make_task(self.mean + noise)

    def from_array(self, array: np.ndarray) -> Task:
        """The task with this array, (n,)."""
        return self.make_task(checked_array(self.space, array))


def sample_tasks(
    distribution: TaskDistribution,
    n: int,
    rng: np.random.Generator | None = None,
    *,
    seed: int = 0,
    split: Split = "train",
) -> list[Task]:
    """`n` tasks, of which the first k are those that `n=k` gives.

    :param distribution: where they come from
    :param n: how many
    :param rng: the generator to use; without one, the stream of `seed` and `split`
    :param seed: seed of the stream
    :param split: the streams of "train" and "test" are disjoint
    """
    if split not in get_args(Split):
        raise ValueError(f"split={split!r} must be one of {get_args(Split)}")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"n={n!r} must be a non-negative integer")
    check_seed(seed=seed)
    rng = task_rng(seed, SPLIT_KEYS[split]) if rng is None else rng
    return [distribution.sample(rng) for _ in range(n)]


def prior_tasks(distribution: TaskDistribution, n: int, seed: int) -> list[Task]:
    """`n` tasks to compute a prior from, of a stream that neither training nor test tasks use."""
    check_seed(seed=seed)
    return sample_tasks(distribution, n, task_rng(seed, _PRIOR_KEY))


class TaskStream:
    """The tasks that one (sub-)environment meets, episode by episode.

    It owns its generators, so that drawing or pinning a task takes nothing from the generator of
    the dynamics.

    :param distribution: where new tasks come from
    :param task_mode: "resample" draws a new task for every episode, "fixed" keeps the first one
    """

    def __init__(self, distribution: TaskDistribution, *, task_mode: TaskMode = "resample") -> None:
        if task_mode not in get_args(TaskMode):
            raise ValueError(f"task_mode={task_mode!r} must be one of {get_args(TaskMode)}")
        self.distribution = distribution
        self.task_mode = task_mode
        self.pinned: Task | None = None
        self.current: Task | None = None
        self._kept: Task | None = None
        self._seed: int | None = None
        self._rngs: dict[int, np.random.Generator] = {}

    @property
    def is_seeded(self) -> bool:
        """Whether `seed` was called."""
        return self._seed is not None

    def seed(self, seed: int) -> None:
        """Restarts every stream from the seed of a reset.

        :param seed: the same that seeds the dynamics
        """
        self._seed = seed
        self._rngs = {}

    def pin(self, task: Task | None) -> None:
        """Checks and pins a task from the next episode on, or unpins with `None`."""
        self.pinned = None if task is None else check_task(self.distribution, task)

    def begin_episode(self, task: Task | None = None) -> Task:
        """The task of the episode that begins now.

        :param task: (checked) for this episode only; before a pinned, a kept or a new one
        """
        if task is not None:
            self.current = task
        elif self.pinned is not None:
            self.current = self.pinned
        elif self.task_mode == "fixed" and self._kept is not None:
            self.current = self._kept
        else:
            self.current = self._kept = self.distribution.sample(self._rng(EPISODE_KEY))
        return self.current

    def get_task(self) -> Task:
        """The task of the running episode; before the first one, the pinned task."""
        task = self.pinned if self.current is None else self.current
        if task is None:
            raise gym.error.ResetNeeded(
                "no task yet: call reset() or set_task(task) before get_task()"
            )
        return task

    def sample(self, n: int, *, seed: int | None = None, split: Split = "train") -> list[Task]:
        """`n` tasks that no episode of this stream meets.

        :param n: how many
        :param seed: of a fresh stream; without one, this stream's own generators go on
        :param split: "train" or "test"; disjoint
        """
        if seed is not None:
            return sample_tasks(self.distribution, n, seed=seed, split=split)
        key = SPLIT_KEYS.get(split, _TRAIN_KEY)  # an unknown split is refused below
        return sample_tasks(self.distribution, n, self._rng(key), split=split)

    def _rng(self, key: int) -> np.random.Generator:
        if self._seed is None:
            raise RuntimeError("TaskStream.seed(seed) comes before the first draw")
        if key not in self._rngs:
            self._rngs[key] = task_rng(self._seed, key)
        return self._rngs[key]
