"""Turns whatever a user calls an environment into an SB3 `VecEnv`."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import metarl_envs.core  # noqa: F401  so that our ids are registered
from metarl_agents.common.vec_env.task_vec_env import RENDER_MODE, TaskVecEnv, autoreset_mode

AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv


def as_vec_env(
    env: AnyEnv | str,
    n_envs: int = 1,
    seed: int | None = None,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
) -> VecEnv:
    """Any kind of environment as an SB3 `VecEnv`.

    :param env: registered id, gymnasium `Env` or `VectorEnv` (autoreset SAME_STEP), or a `VecEnv`,
        which is returned as it is
    :param n_envs: sub-environments to make of an id; else it must be 1 (the default) or agree
    :param seed: of the next reset; None leaves the env's own
    :param env_kwargs: for the env's constructor, with an id only
    """
    n_envs = checked_n_envs(n_envs)
    if isinstance(env, str):
        return make_task_vec_env(env, n_envs, seed=seed, env_kwargs=env_kwargs)
    if env_kwargs:
        raise ValueError(
            f"env_kwargs={dict(env_kwargs)} go with an env id, but env is already made: "
            "hand them to its constructor"
        )
    venv = _wrapped(env)
    if n_envs not in (1, venv.num_envs):
        raise ValueError(
            f"n_envs={n_envs} but env has {venv.num_envs} sub-environment(s): leave n_envs out, "
            "or pass an env id to have that many made"
        )
    if seed is not None:
        venv.seed(seed)
    return venv


def make_task_vec_env(
    env_id: str,
    n_envs: int = 1,
    *,
    seed: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    monitor: bool = True,
) -> VecEnv:
    """`n_envs` sub-environments of a registered id, each on its own task.

    SB3's own agents can be given it too. Ids whose `vector_entry_point` resets in the same step are
    stepped as one batch, all others one after the other in a `DummyVecEnv`.

    :param env_id: as `gym.make` takes it, `"module:id"` included
    :param n_envs: number of sub-environments
    :param seed: of the next reset; sub-environment i gets `seed + i`
    :param env_kwargs: for the env's constructor
    :param monitor: whether infos carry the `episode` statistics that SB3 logs
    """
    n_envs, kwargs = checked_n_envs(n_envs), dict(env_kwargs or {})
    vector_env = _batched(env_id, n_envs, kwargs)
    if vector_env is not None:
        venv: VecEnv = TaskVecEnv(vector_env, monitor=monitor)
    else:
        venv = DummyVecEnv([partial(_single, env_id, kwargs, monitor)] * n_envs)
    if seed is not None:
        venv.seed(seed)
        venv.action_space.seed(seed)
    return venv


def checked_n_envs(n_envs: int) -> int:
    """`n_envs` as an int, or an error that says what it must be.

    :param n_envs: number of sub-environments
    """
    if isinstance(n_envs, bool) or not isinstance(n_envs, (int, np.integer)) or n_envs < 1:
        raise ValueError(f"n_envs={n_envs!r} must be an integer of at least 1")
    return int(n_envs)


def _wrapped(env: Any) -> VecEnv:
    if isinstance(env, VecEnv):
        return env
    if isinstance(env, VectorEnv):
        return TaskVecEnv(env)
    if isinstance(env, gym.Env):
        return DummyVecEnv([lambda: env if _has_monitor(env) else Monitor(env)])
    raise TypeError(
        f"env={env!r} is a {type(env).__name__}: give an env id, a gymnasium Env or VectorEnv, "
        "or a Stable-Baselines3 VecEnv"
    )


def _has_monitor(env: gym.Env[Any, Any]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Monitor):
            return True
        env = env.env
    return False


def _batched(env_id: str, n_envs: int, kwargs: dict[str, Any]) -> VectorEnv[Any, Any, Any] | None:
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    if gym.spec(name).vector_entry_point is None:
        return None
    make = partial(gym.make_vec, name, n_envs, vectorization_mode="vector_entry_point")
    vector_env = _made(make, kwargs)
    if autoreset_mode(vector_env) is AutoresetMode.SAME_STEP:
        return vector_env
    vector_env.close()
    return None


def _single(env_id: str, kwargs: dict[str, Any], monitor: bool) -> gym.Env[Any, Any]:
    env = _made(partial(gym.make, env_id), kwargs)
    return Monitor(env) if monitor else env


def _made(make: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
    # As SB3 does, so that videos can be recorded; envs that draw nothing refuse the argument.
    try:
        return make(**{"render_mode": RENDER_MODE, **kwargs})
    except TypeError:
        return make(**kwargs)
