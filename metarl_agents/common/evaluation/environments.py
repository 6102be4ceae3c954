"""The environments that an evaluation plays in, and sub-environments with seeds of their own."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from metarl_agents.common.vec_env import AnyEnv, as_vec_env

EvaluationEnv = AnyEnv | EnvSpec | str

_VECTOR_ARGUMENTS = (
    "num_envs",
    "vectorization_mode",
    "vector_kwargs",
    "wrappers",
    "autoreset_mode",
)


class SeededResets(VecEnvWrapper):
    """Resets every sub-environment with a seed of its own, where SB3 would count up from one.

    :param venv: the env
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.next_seeds: list[int] = list(range(venv.num_envs))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Arranges that the next reset uses `next_seeds`.

        :param seed: not used
        """
        inner = self.venv.unwrapped
        inner._seeds = list(self.next_seeds)
        return list(self.next_seeds)

    def reset(self) -> VecEnvObs:
        """Resets all sub-environments."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Steps all sub-environments."""
        return self.venv.step_wait()


@contextmanager
def opened_vec_env(env: EvaluationEnv, n_envs: int) -> Iterator[VecEnv]:
    """Any kind of env as a `VecEnv`; closed at the end if it was made here.

    :param env: id, spec, env, vector env or `VecEnv`
    :param n_envs: sub-environments to make of an id or spec
    """
    if not isinstance(env, str | EnvSpec):
        venv = as_vec_env(env)
        with _frozen_normalization(venv):
            yield venv
        return
    name, kwargs = (env, {}) if isinstance(env, str) else (env.id, _env_kwargs(env))
    venv = as_vec_env(name, n_envs, env_kwargs=kwargs)
    try:
        yield venv
    finally:
        venv.close()


@contextmanager
def opened_single_env(env: EvaluationEnv) -> Iterator[gym.Env[Any, Any]]:
    """A single env, for learners that act by themselves; closed at the end if it was made here.

    :param env: id, spec, single env, or a vector env that has a spec
    """
    if isinstance(env, gym.Env):
        yield env
        return
    made = _made(env)
    try:
        yield made
    finally:
        made.close()


def another_env(env: EvaluationEnv) -> gym.Env[Any, Any]:
    """A second single env like this one, to score a learner while its own episode goes on.

    :param env: id, spec, single env, or a vector env that has a spec
    """
    if not isinstance(env, gym.Env):
        return _made(env)
    try:
        return copy.deepcopy(env)
    except Exception as error:
        raise ValueError(
            f"env={env} cannot be copied ({error}), which n_eval_episodes needs; pass the env's id "
            "instead"
        ) from error


def env_name(env: EvaluationEnv) -> str:
    """The id of the env, or its class where it has none.

    :param env: any env, spec or id
    """
    if isinstance(env, str):
        return env
    spec = env if isinstance(env, EnvSpec) else _spec(env)
    return spec.id if spec is not None else type(env).__name__


def episode_steps(env: gym.Env[Any, Any]) -> tuple[int | None, bool]:
    """The greatest length of an episode (None: unknown), and whether all have it.

    :param env: a single env
    """
    try:
        return int(env.get_wrapper_attr("n_stages")), True
    except AttributeError:
        limit = env.spec.max_episode_steps if env.spec is not None else None
        return limit, False


@contextmanager
def _frozen_normalization(venv: VecEnv) -> Iterator[None]:
    """Keeps the statistics of a `VecNormalize` as they are, and the rewards raw."""
    normalizer = unwrap_vec_normalize(venv)
    if normalizer is None:
        yield
        return
    former = normalizer.training, normalizer.norm_reward
    normalizer.training = normalizer.norm_reward = False
    try:
        yield
    finally:
        normalizer.training, normalizer.norm_reward = former


def _made(env: EvaluationEnv) -> gym.Env[Any, Any]:
    spec = env if isinstance(env, str | EnvSpec) else _spec(env)
    if spec is None:
        raise ValueError(
            f"env={env} cannot be used with a learner that acts by itself; pass the env's id or a "
            "single gymnasium env"
        )
    if isinstance(spec, str):
        return gym.make(spec, disable_env_checker=True)
    return gym.make(spec.id, disable_env_checker=True, **_env_kwargs(spec))


def _env_kwargs(spec: EnvSpec) -> dict[str, Any]:
    """The arguments of a single env, without those that `gym.make_vec` has added to them."""
    return {key: value for key, value in spec.kwargs.items() if key not in _VECTOR_ARGUMENTS}


def _spec(env: Any) -> EnvSpec | None:
    if isinstance(env, VecEnv):
        specs = env.get_attr("spec") if env.has_attr("spec") else [None]
        return specs[0] if isinstance(specs[0], EnvSpec) else None
    return getattr(env, "spec", None)
