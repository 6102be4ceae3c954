"""Agents by name: build, compare, evaluate.

The only place where an agent may be told the truth about its tasks.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from metarl_agents import (
    FineTuned,
    FromScratch,
    Frozen,
    MetaAlgorithm,
    evaluate_adaptation,
    make_task_vec_env,
)
from metarl_agents.common.evaluation.result import AdaptationResult
from metarl_envs import FAMILIES
from zoo.comparators import COMPARATORS, agent_class
from zoo.config import Settings, check_arguments, load_settings


def true_prior(
    env_id: str, env_kwargs: Mapping[str, Any], truth: Mapping[str, Any]
) -> dict[str, Any]:
    """
    The constructor arguments by which an agent is told the prior that the family really has.

    :param env_id: id of a family that can compute it
    :param env_kwargs: arguments of the environment
    :param truth: ``arguments`` (``prior_mean``, ``prior_covariance``), keywords of ``q_prior``
    """
    if not truth:
        return {}
    keywords = dict(truth)
    wanted = keywords.pop("arguments")
    env = gym.make(env_id, **env_kwargs)
    if not hasattr(env.unwrapped, "q_prior"):
        raise ValueError(
            f"{env_id} has no q_prior(), so its true prior cannot be handed to an agent"
        )
    mean, covariance = env.unwrapped.q_prior(**keywords)
    env.close()
    known = {"prior_mean": mean, "prior_covariance": covariance}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ValueError(f"true_prior.arguments: {unknown} must be among {sorted(known)}")
    return {name: known[name] for name in wanted}


def build_agent(
    algo: str,
    env_id: str,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    n_envs: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> BaseAlgorithm:
    """
    An untrained agent, ours or Stable-Baselines3's, on its own vector environment.

    :param algo: name in ``ALGORITHMS`` or ``COMPARATORS``
    :param env_id: id of the task family
    :param settings: hyper-parameters (default: those of the YAML file)
    :param seed: of the agent
    :param n_envs: tasks side by side (default: from the settings, else 1)
    :param env_kwargs: arguments of the environment, on top of the settings'
    :param arguments: of the constructor, on top of the settings'
    """
    cls = agent_class(algo)
    settings = settings or load_settings(algo, env_id)
    env_kwargs = {**settings.env_kwargs, **(env_kwargs or {})}
    merged = {**settings.arguments, **arguments}
    n_envs = n_envs or merged.pop("n_envs", 1)
    merged.pop("n_envs", None)
    check_arguments(merged, cls, where=f"{algo} on {env_id}")
    told = true_prior(env_id, env_kwargs, settings.true_prior)
    venv = make_task_vec_env(env_id, n_envs, env_kwargs=env_kwargs)
    names = cls.policy_aliases if issubclass(cls, MetaAlgorithm) else ("MlpPolicy",)
    default_policy = next(iter(names))
    policy = settings.policy or default_policy
    return cls(policy, venv, seed=seed, **{**told, **merged})


def held_out_tasks(
    env_id: str, n_tasks: int, *, seed: int = 0, env_kwargs: Mapping[str, Any] | None = None
) -> list[Any]:
    """
    Tasks from the stream that training never sees.

    :param env_id: id of the task family
    :param n_tasks: how many
    :param seed: of the stream
    :param env_kwargs: arguments of the environment
    """
    env: Any = gym.make(env_id, **(env_kwargs or {}))
    tasks = env.unwrapped.sample_tasks(n_tasks, seed=seed, split="test")
    env.close()
    return list(tasks)


def evaluate_on_line(
    learner: Any,
    env_id: str,
    tasks: Sequence[Any],
    *,
    n_episodes: int,
    n_eval_episodes: int | None = None,
    deterministic: bool = False,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
) -> AdaptationResult:
    """
    ``n_episodes`` episodes in each task, each played by what was learned from those before it.

    :param learner: one of our agents, or a ``Frozen``, ``FineTuned`` or ``FromScratch``
    :param env_id: id of the task family
    :param tasks: held-out tasks
    :param n_episodes: episodes in each
    :param n_eval_episodes: extra episodes that score each step instead
    :param deterministic: take the most likely actions
    :param seed: of the episodes
    :param env_kwargs: arguments of the environment
    """
    return evaluate_adaptation(
        learner,
        env_spec(env_id, env_kwargs),
        tasks,
        n_adapt_steps=n_episodes - 1 if n_eval_episodes is None else n_episodes,
        n_eval_episodes=n_eval_episodes,
        deterministic=deterministic,
        seed=seed,
    )


def comparator_learner(
    algo: str,
    env_id: str,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
    callback: BaseCallback | None = None,
) -> Any:
    """
    An agent of Stable-Baselines3 in its role, trained first where its role asks for it.

    :param algo: name in ``COMPARATORS``
    :param env_id: id of the task family
    :param settings: hyper-parameters (default: those of the YAML file)
    :param seed: of the agent
    :param env_kwargs: arguments of the environment
    :param callback: an SB3 callback
    """
    comparator, settings = COMPARATORS[algo], settings or load_settings(algo, env_id)
    if comparator.role is FromScratch:
        check_arguments(settings.arguments, comparator.agent, where=f"{algo} on {env_id}")
        arguments = {"policy": settings.policy or "MlpPolicy", **settings.arguments}
        return FromScratch(comparator.agent, model_kwargs=arguments, name=algo)
    if settings.n_timesteps is None:
        raise ValueError(f"zoo/hyperparams/{algo}.yml has no n_timesteps for {env_id}")
    model = build_agent(algo, env_id, settings=settings, seed=seed, env_kwargs=env_kwargs)
    model.learn(settings.n_timesteps, callback=callback)
    if comparator.role is FineTuned:
        return FineTuned(model, model_kwargs=settings.in_task, name=algo)
    return Frozen(model, name=algo)


def env_spec(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> EnvSpec:
    """
    Gymnasium's specification of an environment with these arguments; the registered one stays.

    :param env_id: id of the environment
    :param env_kwargs: arguments on top of those that are registered
    """
    spec = copy.deepcopy(gym.spec(env_id))
    spec.kwargs.update(env_kwargs or {})
    return spec


def check_env_id(env_id: str) -> None:
    """
    Raise unless Gymnasium knows the id.

    :param env_id: such as ``metarl/Recommendation-v0``, or ``module:id``
    """
    try:
        gym.spec(env_id)
    except gym.error.Error as error:
        raise ValueError(
            f"env {env_id!r} is unknown ({error}); ours: {', '.join(FAMILIES)}"
        ) from error
