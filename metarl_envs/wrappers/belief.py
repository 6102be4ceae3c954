"""The wrappers of learners that infer the task from experience, in the right order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from metarl_envs.wrappers.base import AnyEnv, require_count
from metarl_envs.wrappers.observing import ObserveTransition
from metarl_envs.wrappers.resampling import ResampleTask
from metarl_envs.wrappers.trial import ResetMode, Trial


def belief_mdp(
    env: str | AnyEnv,
    episodes_per_trial: int,
    *,
    max_episode_steps: int | None = None,
    reset_mode: ResetMode = "true_start",
    observe_transitions: bool = True,
    reward_scale: float = 1.0,
    env_kwargs: Mapping[str, Any] | None = None,
) -> AnyEnv:
    """The problem of acting well over K episodes in an unknown task, for agents with memory.

    Applies ``ObserveTransition(ResampleTask(Trial(TimeLimit(env))))``. An env in
    ``task_mode="fixed"`` keeps its first task, so ``ResampleTask`` is left out there.

    :param env: an id or a task env; a vector env is made of envs that were wrapped
    :param episodes_per_trial: inner episodes per trial (K)
    :param max_episode_steps: time limit of an inner episode, on top of any that the env has
    :param reset_mode: see :class:`Trial`
    :param observe_transitions: whether to apply ``ObserveTransition``
    :param reward_scale: see :class:`ObserveTransition`
    :param env_kwargs: arguments of ``gymnasium.make`` where ``env`` is an id
    """
    require_count(episodes_per_trial, "episodes_per_trial")
    if isinstance(env, str):
        env = gym.make(env, **dict(env_kwargs or {}))
    elif env_kwargs:
        raise ValueError(f"env_kwargs={dict(env_kwargs)} need env to be an id, not {env}")
    if isinstance(env, gym.vector.VectorEnv) or not isinstance(env, gym.Env):
        raise TypeError(
            f"env={env!r} must be an id or a single gymnasium.Env; for several at once give "
            "SyncVectorEnv functions that each make a belief_mdp"
        )
    if max_episode_steps is not None:
        env = gym.wrappers.TimeLimit(env, max_episode_steps)
    env = Trial(env, episodes_per_trial, reset_mode=reset_mode)
    fixed = env.has_wrapper_attr("task_mode") and env.get_wrapper_attr("task_mode") == "fixed"
    env = env if fixed else ResampleTask(env)
    return ObserveTransition(env, reward_scale=reward_scale) if observe_transitions else env
