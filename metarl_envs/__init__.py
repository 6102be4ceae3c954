"""Families of related tasks for meta-reinforcement learning, behind Gymnasium's interface.

Importing this package registers every id of `FAMILIES`; it needs Gymnasium and NumPy only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metarl_envs.core import (
    ExactEnv,
    LinearQEnv,
    Task,
    TaskDistribution,
    TaskEnv,
    TaskVectorEnv,
    task_id,
)
from metarl_envs.distributions import FiniteTasks, GaussianTasks, UniformTasks
from metarl_envs.registry import FAMILIES, register_families

if TYPE_CHECKING:
    from metarl_envs.checks import check_task_env, check_task_vector_env
    from metarl_envs.wrappers import (
        ObserveTask,
        ObserveTransition,
        ResampleTask,
        Trial,
        belief_mdp,
    )

_LAZY = {
    "check_task_env": "checks",
    "check_task_vector_env": "checks",
    "ObserveTask": "wrappers",
    "ObserveTransition": "wrappers",
    "ResampleTask": "wrappers",
    "Trial": "wrappers",
    "belief_mdp": "wrappers",
}

__all__ = [
    "FAMILIES",
    "ExactEnv",
    "FiniteTasks",
    "GaussianTasks",
    "LinearQEnv",
    "ObserveTask",
    "ObserveTransition",
    "ResampleTask",
    "Task",
    "TaskDistribution",
    "TaskEnv",
    "TaskVectorEnv",
    "Trial",
    "UniformTasks",
    "belief_mdp",
    "check_task_env",
    "check_task_vector_env",
    "task_id",
]


def __getattr__(name: str) -> Any:
    # Checks and wrappers are loaded when they are asked for: registration stays light.
    if name in _LAZY:
        return getattr(import_module(f"metarl_envs.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_families()
