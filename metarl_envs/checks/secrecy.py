"""Checks of law 5: a hidden task stays hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces.utils import flatten
from numpy.typing import NDArray

from metarl_envs.checks.subject import (
    AnyEnv,
    NotApplicableError,
    Subject,
    has_wrapper,
    is_same,
    require,
    rollout,
)
from metarl_envs.core import Task


def first_observations_do_not_reveal_the_task(subject: Subject) -> None:
    """No entry of the first observation is a function of the task alone.

    An entry that is the same for every seed but differs between tasks gives the task away.
    Noisy encodings, and later observations, which dynamics may rightly let depend on the task,
    cannot be judged from outside and are not looked at. A stack with ``ObserveTask`` may show it.
    """
    env = subject.make()
    if has_wrapper(env, "ObserveTask"):
        raise NotApplicableError("ObserveTask shows the task on purpose")
    if not env.observation_space.is_np_flattenable:
        raise NotApplicableError(f"{env.observation_space} cannot be flattened")
    tasks, seeds = subject.distinct_tasks(8), range(subject.seed, subject.seed + 4)
    first = np.array([[_first_observation(env, task, seed) for seed in seeds] for task in tasks])
    constant_in_seed = (first == first[:, :1]).all(axis=(0, 1))
    differs_between_tasks = (first != first[:1]).any(axis=(0, 1))
    revealing = np.flatnonzero(constant_in_seed & differs_between_tasks).tolist()
    require(not revealing, f"entries {revealing} of the first observation reveal the task")


def infos_do_not_reveal_the_task(subject: Subject) -> None:
    """Where two tasks look the same so far, so do their infos, but for ``task_id`` and ``task``.

    Rollouts of one seed are compared for as long as observations, rewards and ends agree.
    """
    env = subject.make()
    if has_wrapper(env, "ObserveTask"):
        raise NotApplicableError("ObserveTask shows the task on purpose")
    tasks = subject.distinct_tasks(4)
    for seed in range(subject.seed, subject.seed + 10):
        first, *others = (rollout(env, seed=seed, task=task) for task in tasks)
        for other in others:
            for index, (left, right) in enumerate(zip(first, other, strict=False)):
                if not is_same(left[:4], right[:4]):
                    break
                infos = [_without_task(row.info) for row in (left, right)]
                message = f"the infos of step {index} reveal the task: {infos[0]}, {infos[1]}"
                require(is_same(*infos), message)


def _without_task(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name not in ("task", "task_id")}


def _first_observation(env: AnyEnv, task: Task, seed: int) -> NDArray[Any]:
    observation, _ = env.reset(seed=seed, options={"task": task})
    return np.asarray(flatten(env.observation_space, observation)).copy()
