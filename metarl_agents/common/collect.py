"""Collects a fixed number of episodes per task, one task per sub-environment of an SB3 `VecEnv`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import torch as th
from gymnasium import error, spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.playing import StepHook, play
from metarl_agents.common.policies import ActingPolicies, FunctionalPolicies
from metarl_agents.common.recorder import EpisodeRecorder
from metarl_agents.common.vec_env import TaskVecEnv

FLAT_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


@overload
def collect_episodes(
    venv: VecEnv,
    policies: ActingPolicies,
    n_episodes: int,
    *,
    seed: int,
    deterministic: bool = False,
    tasks: Sequence[Any] | None = None,
    on_step: None = None,
    dtype: th.dtype = th.float64,
) -> EpisodeBatch: ...


@overload
def collect_episodes(
    venv: VecEnv,
    policies: ActingPolicies,
    n_episodes: int,
    *,
    seed: int,
    deterministic: bool = False,
    tasks: Sequence[Any] | None = None,
    on_step: StepHook,
    dtype: th.dtype = th.float64,
) -> EpisodeBatch | None: ...


def collect_episodes(
    venv: VecEnv,
    policies: ActingPolicies,
    n_episodes: int,
    *,
    seed: int,
    deterministic: bool = False,
    tasks: Sequence[Any] | None = None,
    on_step: StepHook | None = None,
    dtype: th.dtype = th.float64,
) -> EpisodeBatch | None:
    """The first `n_episodes` episodes of every sub-environment after a seeded reset.

    None where `on_step` stopped it. Every task gets the same number of episodes, whatever their
    lengths: sub-environments that are ready play on until the last one is, and their surplus steps
    are thrown away (they do count as env steps). Recurrent policies see `episode_start` at the
    first step only, since their state is carried across the episodes of a task.

    :param venv: B sub-environments
    :param policies: M = B policies, row i acts in sub-environment i
    :param n_episodes: E, episodes per sub-environment
    :param seed: of the reset; sub-environment i gets `seed + i`
    :param deterministic: whether the policies take their most likely actions
    :param tasks: M tasks to play, for these episodes only; None plays what the env is on or draws
    :param on_step: hook for callbacks; see `StepHook`
    :param dtype: of the floating-point fields
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes={n_episodes} must be at least 1")
    if policies.n_tasks != venv.num_envs:
        raise ValueError(
            f"policies are for {policies.n_tasks} tasks but the env has {venv.num_envs} "
            "sub-environments: give one policy per sub-environment"
        )
    check_flat_spaces(venv)
    with _on_tasks(venv, tasks, n_episodes):
        venv.seed(seed)
        return play(
            venv, policies, EpisodeRecorder(venv, n_episodes, dtype), deterministic, on_step
        )


def collect_task_episodes(
    venv: VecEnv,
    policies: FunctionalPolicies,
    n_episodes: int,
    *,
    tasks: Sequence[Any],
    seed: int,
    on_step: StepHook | None = None,
    dtype: th.dtype = th.float32,
) -> EpisodeBatch | None:
    """`n_episodes` episodes of each of M tasks over B sub-environments, in the order of the tasks.

    None where `on_step` stopped it. With B = M k, k sub-environments share the episodes of a task;
    with M = B r, tasks are played in r rounds, which give the same episodes as B = M would. Tasks
    are pinned only meanwhile.

    :param venv: B sub-environments whose family has tasks
    :param policies: of the M tasks
    :param n_episodes: E, episodes per task
    :param tasks: M tasks
    :param seed: of the resets; sub-environment i of round j gets `seed + j B + i`
    :param on_step: hook for callbacks; see `StepHook`
    :param dtype: of the floating-point fields
    """
    n_tasks, n_envs = len(tasks), venv.num_envs
    if policies.n_tasks != n_tasks:
        raise ValueError(f"policies are for {policies.n_tasks} tasks, but tasks has {n_tasks}")
    n_each = envs_per_task(n_envs, n_tasks, n_episodes)
    n_at_once = n_envs // n_each
    check_flat_spaces(venv)
    batches = []
    for first in range(0, n_tasks, n_at_once):
        chosen = slice(first, first + n_at_once)
        acting = policies if n_at_once == n_tasks else policies.subset(chosen)
        pins = [task for task in tasks[chosen] for _ in range(n_each)]
        recorder = EpisodeRecorder(venv, n_episodes // n_each, dtype)
        with _on_tasks(venv, pins, n_episodes // n_each):
            venv.seed(seed + first)
            batch = play(venv, acting.repeated(n_each), recorder, False, on_step)
        if batch is None:
            return None
        batches.append(_by_task(batch, n_each))
    if len(batches) == 1:
        return batches[0]
    return EpisodeBatch.stack([task for batch in batches for task in batch.tasks()])


def envs_per_task(n_envs: int, n_tasks: int, n_episodes: int) -> int:
    """How many sub-environments share a task, 1 where tasks are played in rounds.

    :param n_envs: B, which must divide or be a multiple of the number of tasks
    :param n_tasks: M
    :param n_episodes: E, of which each sub-environment of a task must get equally many
    """
    if n_envs % n_tasks and n_tasks % n_envs:
        raise ValueError(
            f"n_envs={n_envs} must divide or be a multiple of meta_batch_size={n_tasks}"
        )
    n_each = max(n_envs // n_tasks, 1)
    if n_episodes < 1 or n_episodes % n_each:
        raise ValueError(
            f"n_episodes_per_task={n_episodes} must be a positive multiple of the {n_each} "
            f"sub-environments that each task gets of n_envs={n_envs}"
        )
    return n_each


def _by_task(batch: EpisodeBatch, n_each: int) -> EpisodeBatch:
    """The episodes of `n_each` neighbours as episodes of one task."""

    def joined(field: Tensor | None) -> Tensor | None:
        return (
            None if field is None else field.reshape(-1, n_each * field.shape[1], *field.shape[2:])
        )

    return EpisodeBatch._make(joined(field) for field in batch)


def sample_tasks(venv: VecEnv, n: int, *, seed: int) -> list[Any]:
    """Training tasks drawn by the env, the same for the same seed.

    :param venv: an env whose family draws tasks (`sample_tasks`)
    :param n: how many
    :param seed: of the draw
    """
    _require_tasks(venv, "sample_tasks")
    return list(venv.env_method("sample_tasks", n, seed=seed, indices=[0])[0])


def task_of(venv: VecEnv, *, seed: int) -> Any | None:
    """The task that a single environment is on; before its first reset, the one it draws.

    :param venv: one sub-environment
    :param seed: of the reset that draws it, if one is needed
    :return: None where the env knows no tasks
    """
    if not venv.has_attr("get_task"):
        return None
    try:
        return venv.env_method("get_task")[0]
    except error.ResetNeeded:
        venv.seed(seed)
        venv.reset()
        return venv.env_method("get_task")[0]


@contextmanager
def pinned_tasks(venv: VecEnv, tasks: Sequence[Any]) -> Iterator[None]:
    """Keeps sub-environment i on `tasks[i]` through all resets inside the block.

    Afterwards the former pins are back where the env tells them (`pinned_task`), else none is left.

    :param venv: an env whose family has tasks (`set_task`)
    :param tasks: one per sub-environment
    """
    _check_tasks(venv, tasks)
    former = _pins(venv)
    try:
        _pin(venv, tasks)
        yield
    finally:
        _pin(venv, former)


@contextmanager
def _on_tasks(venv: VecEnv, tasks: Sequence[Any] | None, n_episodes: int) -> Iterator[None]:
    if tasks is None or all(task is None for task in tasks):
        yield
    elif n_episodes == 1 and _takes_task_options(venv):
        # For one episode the reset's option is enough, and no pin has to be put back.
        _check_tasks(venv, tasks)
        venv.set_options([{} if task is None else {"task": task} for task in tasks])
        yield
    else:
        with pinned_tasks(venv, tasks):
            yield


def _takes_task_options(venv: VecEnv) -> bool:
    return not isinstance(venv.unwrapped, TaskVecEnv) or venv.unwrapped.takes_task_options


def _check_tasks(venv: VecEnv, tasks: Sequence[Any]) -> None:
    _require_tasks(venv, "set_task")
    if len(tasks) != venv.num_envs:
        raise ValueError(
            f"{len(tasks)} tasks for {venv.num_envs} sub-environments: give one task for each"
        )


def _pin(venv: VecEnv, tasks: Sequence[Any]) -> None:
    if isinstance(venv.unwrapped, TaskVecEnv):
        venv.unwrapped.set_tasks(tasks)
        return
    for index, task in enumerate(tasks):
        venv.env_method("set_task", task, indices=[index])


def _pins(venv: VecEnv) -> list[Any]:
    # Asked first: a process of its own ends where its env lacks an attribute.
    if not venv.has_attr("pinned_task"):
        return [None] * venv.num_envs
    return list(venv.get_attr("pinned_task"))


def _require_tasks(venv: VecEnv, method: str) -> None:
    if not venv.has_attr(method):
        raise ValueError(
            f"the env has no {method}(): meta-learning needs an env with a task distribution "
            "(metarl_envs.core.TaskEnv), for example metarl/Recommendation-v0"
        )


def check_flat_spaces(venv: VecEnv) -> None:
    """`ValueError` where the spaces are not those that batches can hold.

    :param venv: the env
    """
    for name in ("observation_space", "action_space"):
        space = getattr(venv, name)
        if not isinstance(space, FLAT_SPACES):
            raise ValueError(
                f"{name}={space} is not supported: use Box, Discrete, MultiDiscrete or MultiBinary "
                "(gymnasium.wrappers.FlattenObservation turns nested observations into a Box)"
            )
    space = venv.action_space
    if isinstance(space, spaces.Box) and not np.isfinite([space.low, space.high]).all():
        raise ValueError(
            f"action_space={space} is unbounded: give the actions finite bounds, to which samples "
            "can be clipped"
        )
