"""Checks of the tasks themselves: law 4, and how tasks are drawn."""

from __future__ import annotations

import copy
import json
import pickle
import random
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_envs.checks.subject import (
    AnyEnv,
    NotApplicableError,
    Subject,
    accepts,
    array_of,
    attribute,
    count_distinct,
    numpy_global_state,
    require,
    rollout,
    same_task,
)
from metarl_envs.core import Task, TaskDistribution

_INTERFACE = ("task_distribution", "sample_tasks", "set_task", "get_task")


def env_has_the_task_interface(subject: Subject) -> None:
    """``task_distribution``, ``sample_tasks``, ``set_task``, ``get_task`` are within reach."""
    env = subject.make()
    for name in _INTERFACE:
        require(env.has_wrapper_attr(name), f"{env} has no {name}")
    distribution = attribute(env, "task_distribution")
    for name in ("space", "sample", "from_array"):
        require(hasattr(distribution, name), f"task_distribution has no {name}")
    require(isinstance(distribution.space, gym.Space), "task_distribution.space is no gym.Space")
    tasks = attribute(env, "sample_tasks")(3, seed=subject.seed)
    require(isinstance(tasks, list) and len(tasks) == 3, f"sample_tasks(3) returned {tasks!r}")
    require(attribute(env, "sample_tasks")(0, seed=0) == [], "sample_tasks(0) is not []")


def task_arrays_lie_in_the_space(subject: Subject) -> None:
    """``to_array()`` is a finite float64 vector within ``task_distribution.space``."""
    distribution, tasks = _draw(subject)
    for task in tasks:
        array = task.to_array()
        require(isinstance(array, np.ndarray), f"{task}.to_array() is a {type(array).__name__}")
        require(array.dtype == np.float64, f"{task}.to_array() has dtype {array.dtype}")
        require(array.ndim == 1, f"{task}.to_array() has shape {array.shape}, not (task_dim,)")
        require(np.isfinite(array).all(), f"{task}.to_array() is not finite: {array}")
        require(
            distribution.space.contains(array), f"{array} of {task} is outside {distribution.space}"
        )


def tasks_survive_arrays_and_json(subject: Subject) -> None:
    """``from_array`` inverts ``to_array``, also after a trip through JSON."""
    distribution, tasks = _draw(subject)
    for task in tasks:
        returned = distribution.from_array(task.to_array())
        require(returned == task, f"from_array({task}.to_array()) is {returned}")
    space = distribution.space
    text = json.dumps(space.to_jsonable([task.to_array() for task in tasks]))
    arrays = space.from_jsonable(json.loads(text))
    for task, array in zip(tasks, arrays, strict=True):
        returned = distribution.from_array(np.asarray(array))
        require(returned == task, f"{task} came back from JSON as {returned}")


def tasks_are_frozen(subject: Subject) -> None:
    """A task cannot be changed: its attributes are read-only, its arrays copies."""
    _, tasks = _draw(subject)
    task = tasks[0]
    before = array_of(task).copy()
    names = [name for name in _attribute_names(task) if not name.startswith("__")]
    require(names, f"{task} shows no attributes")
    for name in names:
        value = getattr(task, name)
        require(_cannot_be_set(task, name), f"{task}.{name} can be set; freeze the dataclass")
        writeable = isinstance(value, list | dict | set) or (
            isinstance(value, np.ndarray) and value.flags.writeable
        )
        require(not writeable, f"{task}.{name} is a mutable {type(value).__name__}; use a tuple")
    array = task.to_array()
    if array.flags.writeable:
        array += 1
    require(np.array_equal(task.to_array(), before), f"writing into to_array() changed {task}")


def tasks_are_hashable_and_comparable(subject: Subject) -> None:
    """Equal tasks are ``==`` with one hash; different ones are not."""
    distribution, tasks = _draw(subject)
    for task in tasks:
        twin = distribution.from_array(task.to_array())
        require(task == twin, f"two equal tasks differ: {task}, {twin}")
        require(hash(task) == hash(twin), f"equal tasks {task} have different hashes")
        require(task != object(), f"{task} equals an unrelated object")
    for other in tasks[1:]:
        if not same_task(tasks[0], other):
            require(tasks[0] != other, f"different tasks are ==: {tasks[0]}, {other}")


def tasks_survive_pickle_and_copy(subject: Subject) -> None:
    """``pickle`` and ``copy.deepcopy`` return an equal task."""
    _, tasks = _draw(subject)
    for task in tasks:
        returned = pickle.loads(pickle.dumps(task))  # noqa: S301 - made on this line
        require(returned == task, f"{task} came back from pickle as {returned}")
        require(copy.deepcopy(task) == task, f"a deep copy of {task} differs from it")


def sample_tasks_follows_its_seed(subject: Subject) -> None:
    """One seed gives one list of tasks, another seed another; without a seed it goes on."""
    env, other = subject.make(), subject.make()
    first = attribute(env, "sample_tasks")(16, seed=subject.seed)
    again = attribute(other, "sample_tasks")(16, seed=subject.seed)
    require(_same(first, again), "sample_tasks(seed=s) differs between two envs")
    if count_distinct(first) == 1:
        raise NotApplicableError("the family has a single task")
    different = attribute(env, "sample_tasks")(16, seed=subject.seed + 1)
    require(not _same(first, different), "sample_tasks ignores its seed")
    env.reset(seed=subject.seed)
    one, two = (attribute(env, "sample_tasks")(16) for _ in range(2))
    require(not _same(one, two), "sample_tasks() without a seed returns the same tasks twice")


def train_and_test_tasks_are_disjoint(subject: Subject) -> None:
    """``split="test"`` is another stream: in continuous families no task is in both.

    Tasks that episodes meet count as training tasks.
    """
    env = subject.make()
    sample = attribute(env, "sample_tasks")
    if not accepts(sample, ("split",)):
        raise NotApplicableError("sample_tasks has no argument split")
    train = sample(32, seed=subject.seed, split="train")
    test = sample(32, seed=subject.seed, split="test")
    require(_same(train, sample(32, seed=subject.seed)), 'split="train" is not the default')
    if count_distinct([*train, *test]) == 1:
        raise NotApplicableError("the family has a single task")
    require(not _same(train, test), "train and test tasks of one seed are the same list")
    if subject.is_continuous:
        met = [_task_of_reset(env, subject.seed if index == 0 else None) for index in range(8)]
        held_out = {array_of(task).tobytes() for task in test}
        shared = [task for task in [*train, *met] if array_of(task).tobytes() in held_out]
        require(not shared, f"test tasks are met in training too: {shared[:3]}")


def global_generators_are_left_alone(subject: Subject) -> None:
    """``np.random`` and ``random`` are neither read nor seeded."""
    numpy_state, python_state = numpy_global_state(), random.getstate()
    env = subject.make()
    attribute(env, "sample_tasks")(4, seed=subject.seed)
    env.reset()
    attribute(env, "sample_tasks")(4)
    rollout(env, seed=subject.seed, n_steps=20)
    rollout(env, n_steps=20)
    require(
        numpy_state == numpy_global_state(),
        "np.random was used or seeded; use the env's own generators",
    )
    require(python_state == random.getstate(), "the module random was used or seeded")


def _draw(subject: Subject) -> tuple[TaskDistribution, list[Task]]:
    env = subject.make()
    tasks = attribute(env, "sample_tasks")(8, seed=subject.seed)
    return attribute(env, "task_distribution"), tasks


def _same(first: list[Task], second: list[Task]) -> bool:
    return len(first) == len(second) and all(map(same_task, first, second))


def _task_of_reset(env: AnyEnv, seed: int | None) -> Task:
    env.reset(seed=seed)
    return attribute(env, "get_task")()


def _attribute_names(task: Task) -> list[str]:
    if hasattr(task, "_fields"):
        return list(task._fields)
    slots = [name for cls in type(task).__mro__ for name in getattr(cls, "__slots__", ())]
    return [*getattr(task, "__dict__", {}), *slots]


def _cannot_be_set(task: Task, name: str) -> bool:
    value: Any = getattr(task, name)
    try:
        setattr(task, name, value)
    except (AttributeError, TypeError):
        return True
    return False
