"""Which task an episode belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from gymnasium.utils import RecordConstructorArgs

from metarl_envs.core import Task, TaskDistribution
from metarl_envs.wrappers.base import (
    AnyEnv,
    TaskWrapper,
    require_choice,
    require_count,
    require_task_env,
)

TaskOrder: TypeAlias = Literal["random", "cycle"]

_RESAMPLE_STREAM = 0x7A5C  # spawn key: no other generator is spawned from a reset seed by this key


class ResampleTask(TaskWrapper):
    """Draws a new task every ``n_episodes`` resets, whatever the env's own ``task_mode``.

    A seeded reset starts a new block, and the tasks follow from its seed. ``set_task`` pins a task
    as ever, here or on the env inside (which tells by ``pinned_task``; an env without it has to be
    pinned through the wrapper); ``reset(options={"task": t})`` sets one for that episode and does
    not count.

    :param env: a task env
    :param n_episodes: resets that share one task
    :param tasks: draw from these (tasks, or their arrays) instead of the env's own distribution
    :param order: ``"random"`` draws uniformly from ``tasks``, ``"cycle"`` goes through them in turn
    """

    def __init__(
        self,
        env: AnyEnv,
        n_episodes: int = 1,
        *,
        tasks: Sequence[Task | Sequence[float]] | None = None,
        order: TaskOrder = "random",
    ) -> None:
        require_task_env(env, "ResampleTask")
        require_count(n_episodes, "n_episodes")
        require_choice(order, "order", get_args(TaskOrder))
        listed = None if tasks is None else _as_tasks(env, tasks)
        arrays = None if listed is None else [task.to_array().tolist() for task in listed]
        RecordConstructorArgs.__init__(self, n_episodes=n_episodes, tasks=arrays, order=order)
        super().__init__(env)
        self.n_episodes = n_episodes
        self.tasks = listed
        self.order = order
        self._pinned = False
        # An env that draws a new task at every reset already does what is asked for.
        self._env_resamples = (
            listed is None
            and n_episodes == 1
            and env.has_wrapper_attr("task_mode")
            and env.get_wrapper_attr("task_mode") == "resample"
        )
        self._task: Task | None = None
        self._n_started = self._n_drawn = 0
        self._start_stream(np.random.SeedSequence())

    def set_task(self, task: Task | None) -> None:
        """Pin ``task`` from the next reset on; ``None`` unpins, and a new block starts."""
        super().set_task(task)
        self._pinned = task is not None
        self._task = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, on a new task where a block of ``n_episodes`` begins."""
        if seed is not None:
            self._start_stream(np.random.SeedSequence(seed, spawn_key=(_RESAMPLE_STREAM,)))
        if (
            self._env_resamples
            or self._is_pinned()
            or (options is not None and options.get("task") is not None)
        ):
            return self.env.reset(seed=seed, options=options)
        if self._task is None or self._n_started >= self.n_episodes:
            self._task, self._n_started = self._draw(), 0
        self._n_started += 1
        return self.env.reset(seed=seed, options={**(options or {}), "task": self._task})

    def _is_pinned(self) -> bool:
        if self.env.has_wrapper_attr("pinned_task"):
            return self.env.get_wrapper_attr("pinned_task") is not None
        return self._pinned

    def _start_stream(self, seed: np.random.SeedSequence) -> None:
        self._generator = np.random.default_rng(seed)
        self._task = None
        self._n_started = 0
        self._n_drawn = 0

    def _draw(self) -> Task:
        if self.tasks is None:
            return self.sample_tasks(1, seed=int(self._generator.integers(2**53)))[0]
        self._n_drawn += 1
        if self.order == "cycle":
            return self.tasks[(self._n_drawn - 1) % len(self.tasks)]
        return self.tasks[int(self._generator.integers(len(self.tasks)))]


def _as_tasks(env: AnyEnv, tasks: Sequence[Task | Sequence[float]]) -> tuple[Task, ...]:
    if len(tasks) == 0:
        raise ValueError("tasks is empty; give at least one, or None for the env's own tasks")
    distribution: TaskDistribution = env.get_wrapper_attr("task_distribution")
    return tuple(
        task
        if isinstance(task, Task)
        else distribution.from_array(np.asarray(task, dtype=np.float64))
        for task in tasks
    )
