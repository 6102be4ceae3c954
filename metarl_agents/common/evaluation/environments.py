"""The environments that an evaluation plays in, and sub-environments with seeds of their own."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.vector import VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from metarl_agents.common.evaluation.transparency import (
    is_opaque,
    is_transparent,
    wrapper_class,
)
from metarl_agents.common.vec_env import AnyEnv, TaskVecEnv, as_vec_env

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

    transparent = True

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
    venv = _made_vec_env(env, n_envs)
    try:
        yield venv
    finally:
        venv.close()


@contextmanager
def opened_single_env(env: EvaluationEnv) -> Iterator[gym.Env[Any, Any]]:
    """A single env, for learners that act by themselves; closed at the end if it was made here.

    :param env: id, spec, single env, or a vector env of single envs or with a spec
    """
    single = _single_inside(env)
    if isinstance(single, gym.Env):
        yield single
        return
    made = _made(single)
    try:
        yield made
    finally:
        made.close()


def another_env(env: EvaluationEnv) -> gym.Env[Any, Any]:
    """A second single env like this one, to score a learner while its own episode goes on.

    :param env: id, spec, single env, or a vector env of single envs or with a spec
    """
    single = _single_inside(env)
    if not isinstance(single, gym.Env):
        return _made(single)
    try:
        return copy.deepcopy(single)
    except Exception as error:
        raise ValueError(
            f"env={single} cannot be copied ({error}), which n_eval_episodes needs; pass the "
            "env's id instead"
        ) from error


def env_name(env: EvaluationEnv) -> str:
    """The id of the env, or its class where it has none.

    :param env: any env, spec or id
    """
    if isinstance(env, str):
        return env.rpartition(":")[2]
    spec = env if isinstance(env, EnvSpec) else _spec(env)
    return spec.id if spec is not None else type(env).__name__


def episode_steps(env: gym.Env[Any, Any]) -> tuple[int | None, bool]:
    """The greatest length of an episode (None: unknown), and whether all have it.

    :param env: a single env
    """
    limit = env.spec.max_episode_steps if env.spec is not None else None
    try:
        n_stages = int(env.get_wrapper_attr("n_stages"))
    except AttributeError:
        return limit, False
    return n_stages if limit is None else min(limit, n_stages), True


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


def _single_inside(env: EvaluationEnv) -> gym.Env[Any, Any] | EnvSpec | str:
    """The single env that every sub-environment is, or what one can be made of.

    Refuses layers around all sub-environments that would be missing from it.
    """
    inside: Any = env
    while isinstance(inside, VecEnvWrapper | VectorWrapper | TaskVecEnv):
        if isinstance(inside, VecEnvWrapper | VectorWrapper) and is_opaque(inside):
            raise ValueError(
                f"{type(inside).__name__} is around a whole vector env, and learners that train in "
                "the task act in a single env without it; wrap the single envs instead, e.g. "
                "DummyVecEnv([lambda: Wrapper(gym.make(id))]), or pass the env's id"
            )
        if isinstance(inside, TaskVecEnv):
            inside = inside.vector_env
        else:
            inside = inside.venv if isinstance(inside, VecEnvWrapper) else inside.env
    singles = getattr(inside, "envs", None)
    if singles:
        return cast(gym.Env[Any, Any], singles[0])
    if isinstance(inside, gym.Env | EnvSpec | str):
        return inside
    spec = _spec(inside)
    if spec is None or spec.kwargs.get("wrappers"):
        raise ValueError(
            f"env={env} cannot be used with a learner that acts by itself; pass the env's id or a "
            "single gymnasium env"
        )
    return spec


def _made(env: EnvSpec | str) -> gym.Env[Any, Any]:
    if isinstance(env, str):
        return gym.make(env, disable_env_checker=True)
    # Layers that change nothing and cannot be made again, such as SB3's Monitor, are left out.
    kept = [w for w in env.additional_wrappers if not (w.kwargs is None and _is_harmless(w))]
    lost = [wrapper.name for wrapper in kept if wrapper.kwargs is None]
    if lost:
        raise ValueError(
            f"the spec of {env.id} has wrappers {lost} that cannot be made again from it; pass the "
            "wrapped env itself, or derive them from gymnasium.utils.RecordConstructorArgs"
        )
    spec = copy.copy(env)
    spec.kwargs, spec.additional_wrappers = _env_kwargs(env), tuple(kept)
    return gym.make(spec, disable_env_checker=True)


def _made_vec_env(env: EnvSpec | str, n_envs: int) -> VecEnv:
    if isinstance(env, str):
        return as_vec_env(env, n_envs)
    if _is_as_registered(env):
        return as_vec_env(env.id, n_envs, env_kwargs=_env_kwargs(env))
    return DummyVecEnv([lambda: Monitor(_made(env))] * n_envs)


def _is_as_registered(spec: EnvSpec) -> bool:
    """Whether only arguments of the constructor tell it from its id."""
    registered = gym.registry.get(spec.id)
    return registered is not None and all(
        getattr(spec, name) == getattr(registered, name)
        for name in ("entry_point", "max_episode_steps", "additional_wrappers")
    )


def _is_harmless(wrapper: WrapperSpec) -> bool:
    cls = wrapper_class(wrapper)
    return cls is not None and is_transparent(cls)


def _env_kwargs(spec: EnvSpec) -> dict[str, Any]:
    """The arguments of a single env, without those that `gym.make_vec` has added to them."""
    return {key: value for key, value in spec.kwargs.items() if key not in _VECTOR_ARGUMENTS}


def _spec(env: Any) -> EnvSpec | None:
    if isinstance(env, VecEnv):
        specs = env.get_attr("spec") if env.has_attr("spec") else [None]
        return specs[0] if isinstance(specs[0], EnvSpec) else None
    return getattr(env, "spec", None)
