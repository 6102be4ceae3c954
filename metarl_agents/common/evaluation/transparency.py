"""Which wrapper, if any, stands between an agent and what an env says about itself.

A family's own methods (`features`, `action_masks`, `policy_returns`, ...) speak of its own
observations, actions and rewards. Where a wrapper changes these, the answers are about another
decision problem than the one that the agent plays, although they are still there to be asked.
"""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator
from gymnasium.vector import VectorEnv, VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
)

from metarl_agents.common.vec_env import TaskVecEnv

TRANSPARENT: tuple[type, ...] = (
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.TimeLimit,
    wrappers.Autoreset,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.HumanRendering,
    wrappers.RenderCollection,
    wrappers.vector.RecordEpisodeStatistics,
    wrappers.vector.RecordVideo,
    Monitor,
    VecCheckNan,
    VecMonitor,
)
"""Wrappers that leave observations, actions and rewards as they are. A class of one's own joins
them by a line `transparent = True` in its body; subclasses do not inherit it."""

_OF_WHOLE_EPISODES = (
    "optimal_return",
    "optimal_returns",
    "policy_returns",
    "myopic_returns",
    "n_stages",
)


def opaque_wrapper(env: Any, attribute: str) -> str | None:
    """The outermost wrapper that changes what the env's `attribute` is about; None if none does.

    Only layers above the one that owns `attribute` are looked at: a wrapper that defines it itself
    answers for what is below. What cannot be looked into (other processes without a spec) counts
    as a wrapper.

    :param env: gymnasium env or vector env, or SB3 `VecEnv`
    :param attribute: the method that is going to be asked
    """
    if isinstance(env, VecEnvWrapper):
        # `env_method` skips these layers, so none of them is ever the owner.
        return type(env).__name__ if is_opaque(env) else opaque_wrapper(env.venv, attribute)
    if isinstance(env, TaskVecEnv):
        return _in_vector_env(env.vector_env, attribute)
    if isinstance(env, DummyVecEnv):
        return _first(opaque_wrapper(single, attribute) for single in env.envs)
    if isinstance(env, VecEnv):
        return _in_other_processes(env, attribute)
    if isinstance(env, VectorEnv):
        return _in_vector_env(env, attribute)
    return _in_single_env(env, attribute)


def is_opaque(wrapper: Any) -> bool:
    """Whether a wrapper may change observations, actions or rewards.

    :param wrapper: of an env, a vector env or a `VecEnv`
    """
    if type(wrapper) is VecNormalize:
        return bool(wrapper.norm_obs or wrapper.norm_reward)
    return not is_transparent(type(wrapper))


def _in_vector_env(env: VectorEnv[Any, Any, Any], attribute: str) -> str | None:
    singles = getattr(env.unwrapped, "envs", None)
    while isinstance(env, VectorWrapper):
        # Where there are single envs, they are asked, past the wrappers of the vector env.
        if singles is None and hasattr(env, attribute):
            return None
        if is_opaque(env):
            return type(env).__name__
        env = env.env
    return _first(opaque_wrapper(single, attribute) for single in singles or ())


def _in_single_env(env: Any, attribute: str) -> str | None:
    while isinstance(env, gym.Wrapper) and not hasattr(env, attribute):
        if is_opaque(env) or _cuts_stages(env, attribute):
            return type(env).__name__
        env = env.env
    return None


def _in_other_processes(venv: VecEnv, attribute: str) -> str | None:
    try:
        specs = venv.get_attr("spec")
    except Exception:  # whatever the other process could not send
        return type(venv).__name__
    for spec in specs:
        if not isinstance(spec, EnvSpec):
            return type(venv).__name__
        # The last one is the outermost.
        for wrapper in reversed(spec.additional_wrappers):
            cls = wrapper_class(wrapper)
            if cls is not None and hasattr(cls, attribute):
                break
            if cls is None or not is_transparent(cls):
                return wrapper.name
        limit, stages = spec.max_episode_steps, _n_stages(venv, attribute)
        if limit is not None and stages is not None and limit < stages:
            return wrappers.TimeLimit.__name__
    return None


def _cuts_stages(env: gym.Wrapper[Any, Any, Any, Any], attribute: str) -> bool:
    """Whether a time limit ends episodes before the stages that the env computes with."""
    if type(env) is not wrappers.TimeLimit or attribute not in _OF_WHOLE_EPISODES:
        return False
    stages = env.get_wrapper_attr("n_stages") if env.has_wrapper_attr("n_stages") else None
    return stages is not None and env._max_episode_steps < int(stages)


def _n_stages(venv: VecEnv, attribute: str) -> int | None:
    if attribute not in _OF_WHOLE_EPISODES or not venv.has_attr("n_stages"):
        return None
    return int(venv.get_attr("n_stages", indices=[0])[0])


def wrapper_class(spec: WrapperSpec) -> Any:
    """The class that the spec of a wrapper names; None where it cannot be imported.

    :param spec: of a wrapper
    """
    try:
        return load_env_creator(spec.entry_point)
    except (ImportError, AttributeError):
        return None


def is_transparent(cls: type) -> bool:
    """Whether wrappers of this class leave observations, actions and rewards as they are.

    :param cls: class of a wrapper
    """
    # Not `isinstance`: a subclass may change what its parent leaves alone.
    return cls in TRANSPARENT or bool(vars(cls).get("transparent", False))


def _first(names: Iterable[str | None]) -> str | None:
    return next((name for name in names if name is not None), None)
