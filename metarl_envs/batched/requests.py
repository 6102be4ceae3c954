"""Checks of what users ask of a vector environment, before anything changes.

Shapes: B sub-environments.
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from metarl_envs.batched.checking import check_seed
from metarl_envs.core import BoolArray, Task, TaskDistribution
from metarl_envs.distributions import check_task


def check_trial_options(
    episodes_per_trial: Any, reset_mode: Any, observe_transitions: Any, reward_scale: Any
) -> None:
    """`ValueError` where an option of trials is given, but no trials are asked for, or is no flag.

    :param episodes_per_trial: K, or `None`
    :param reset_mode: see `metarl_envs.Trial`
    :param observe_transitions: whether observations carry the previous transition
    :param reward_scale: of the reward in them
    """
    if not isinstance(observe_transitions, bool | np.bool_):
        raise ValueError(f"observe_transitions={observe_transitions!r} must be True or False")
    options = {
        "reset_mode": (reset_mode, "true_start"),
        "observe_transitions": (observe_transitions, True),
        "reward_scale": (reward_scale, 1.0),
    }
    for name, (value, default) in options.items():
        # An array has no single truth value.
        is_given = isinstance(value, np.ndarray) or value != default
        if episodes_per_trial is None and is_given:
            raise ValueError(f"{name}={value!r} is for trials: give episodes_per_trial, too")


def checked_options(options: Any) -> dict[str, Any]:
    """The options of `reset`, or `TypeError` where they are no dict.

    :param options: what the user handed in
    """
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"options={options!r} must be None or a dict")
    return options or {}


def checked_autoreset_mode(mode: Any) -> AutoresetMode:
    """`mode`, or `ValueError` where it is none of Gymnasium's.

    :param mode: an `AutoresetMode` or its value
    """
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        values = [each.value for each in AutoresetMode]
        raise ValueError(f"autoreset_mode={mode!r} must be one of {values}") from error


def checked_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed (or `None`) per sub-environment; `ValueError` where one is no seed.

    :param seed: of `reset`: s stands for s, s + 1, ...
    :param num_envs: B
    """
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str | bytes):
        check_seed(seed=seed)
        return [int(seed) + i for i in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(
            f"seed has {len(seed)} entries: give an integer or one for each of {num_envs}"
        )
    check_seed(**{f"seed[{i}]": item for i, item in enumerate(seed) if item is not None})
    return [None if item is None else int(item) for item in seed]


def checked_mask(mask: Any, num_envs: int) -> BoolArray:
    """Which sub-environments to reset, (B,): all of them without a mask.

    :param mask: `options["reset_mask"]` of `reset`
    :param num_envs: B
    """
    if mask is None:
        return np.ones(num_envs, dtype=np.bool_)
    mask = np.asarray(mask)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(
            f'options["reset_mask"]={mask!r} must be a boolean array of shape '
            f"({num_envs},) with a True in it"
        )
    return mask


def checked_indices(indices: Any, n_tasks: int, num_envs: int) -> list[int]:
    """Which sub-environments get tasks: all of them without `indices`.

    :param indices: what the user handed in
    :param n_tasks: tasks that there are
    :param num_envs: B
    """
    where = list(range(num_envs)) if indices is None else _integers(indices)
    if n_tasks != len(where):
        raise ValueError(
            f"{n_tasks} tasks for {len(where)} sub-environments: give one task (or None) for each"
        )
    if len(set(where)) != len(where):
        raise ValueError(f"indices={where} name a sub-environment twice")
    if not all(0 <= i < num_envs for i in where):
        raise ValueError(f"indices={where} must lie in [0, num_envs={num_envs})")
    return where


def checked_tasks(
    distribution: TaskDistribution, options: dict[str, Any], num_envs: int
) -> NDArray[np.object_]:
    """The tasks that the options of a reset ask for, (B,) objects, `None` where they ask for none.

    :param distribution: the family's distribution
    :param options: of `reset`
    :param num_envs: B
    """
    tasks = [options.get("task")] * num_envs
    if "tasks" in options and tasks[0] is not None:
        raise ValueError('options has both "task" and "tasks": give one of them')
    if "tasks" in options:
        tasks = checked_list(options["tasks"], 'options["tasks"]')
    check_optional_tasks(distribution, tasks if "tasks" in options else tasks[:1])
    if len(tasks) != num_envs:
        raise ValueError(
            f'options["tasks"] has {len(tasks)} entries: '
            f"give one task (or None) for each of {num_envs}"
        )
    chosen = np.full(num_envs, None, dtype=object)
    chosen[:] = tasks
    return chosen


def check_optional_tasks(distribution: TaskDistribution, tasks: Iterable[Any]) -> None:
    """An error for the first item that is neither `None` nor a task of the family.

    :param distribution: the family's distribution
    :param tasks: what the user handed in
    """
    # Many sub-environments may be given the same task.
    for task in {id(task): task for task in tasks}.values():
        if task is not None:
            check_task(distribution, task)


def checked_list(tasks: Any, name: str) -> list[Any]:
    """`tasks` as a list, or `TypeError` where it is none.

    :param tasks: what the user handed in
    :param name: what to call it in the error
    """
    if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
        raise TypeError(
            f"{name}={tasks!r} must be a list with one task for each sub-environment; "
            "None in it stands for no task of its own"
        )
    return list(tasks)


def _integers(indices: Any) -> list[int]:
    """`indices` as integers, or `TypeError`: a mask would be read as indices 0 and 1."""
    where: list[Any] = list(indices) if isinstance(indices, Iterable) else [None]
    if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in where):
        raise TypeError(f"indices={indices!r} must be a list of integers, not a mask")
    return [int(i) for i in where if i is not None]
