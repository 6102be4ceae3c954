"""What the wrappers share: the task interface, and checks of their arguments."""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs

from metarl_envs.core import Task, TaskDistribution

AnyEnv: TypeAlias = gym.Env[Any, Any]
StepResult: TypeAlias = tuple[Any, float, bool, bool, dict[str, Any]]


class TaskWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Forwards the task interface, which Gymnasium's own wrappers hide."""

    is_part_of_env = False
    """Whether the env's own constructor applied this wrapper, so that the arguments in the env's
    spec make it again.
    """

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """The spec that makes this env again."""
        return self.env.spec if self.is_part_of_env else super().spec

    @property
    def task_distribution(self) -> TaskDistribution:
        """Distribution that the env's tasks come from."""
        return self.env.get_wrapper_attr("task_distribution")

    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train") -> list[Task]:
        """Tasks drawn by the env's own ``sample_tasks``.

        :param n: how many
        :param seed: seed of the draw; ``None`` consumes the env's own task generator
        :param split: ``"train"`` or ``"test"``: disjoint streams
        """
        chosen = {} if split == "train" else {"split": split}
        return self.env.get_wrapper_attr("sample_tasks")(n, seed=seed, **chosen)

    def set_task(self, task: Task | None) -> None:
        """Pin ``task`` from the next reset on; ``None`` unpins."""
        self.env.get_wrapper_attr("set_task")(task)

    def get_task(self) -> Task:
        """Task of the running episode."""
        return self.env.get_wrapper_attr("get_task")()


def require_task_env(env: AnyEnv, wrapper: str) -> None:
    """``TypeError`` where ``env`` lacks the task interface that ``wrapper`` needs."""
    needed = ("task_distribution", "sample_tasks", "set_task", "get_task")
    missing = [name for name in needed if not env.has_wrapper_attr(name)]
    if missing:
        raise TypeError(f"{wrapper} needs a task env (metarl_envs.TaskEnv); {env} lacks {missing}")


def require_count(value: int, name: str) -> None:
    """``ValueError`` where ``value`` is no positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer")


def require_choice(value: str, name: str, choices: tuple[str, ...]) -> None:
    """``ValueError`` where ``value`` is none of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {choices}")
