"""SB3 `VecEnv`s over any kind of environment, batched ones first."""

from metarl_agents.common.vec_env.factory import (
    AnyEnv,
    as_vec_env,
    checked_n_envs,
    make_task_vec_env,
)
from metarl_agents.common.vec_env.task_vec_env import TaskVecEnv

__all__ = ["AnyEnv", "TaskVecEnv", "as_vec_env", "checked_n_envs", "make_task_vec_env"]
