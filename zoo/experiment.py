"""Agents by name: build, train, load, evaluate.

The only place where an agent may be told the truth about its tasks.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from metarl_agents import (
    ALGORITHMS,
    FineTuned,
    FromScratch,
    Frozen,
    MetaAlgorithm,
    evaluate_adaptation,
    load_pretrained,
    make_task_vec_env,
    trained_agents,
)
from metarl_agents.common.evaluation.result import AdaptationResult, library_versions
from metarl_envs import FAMILIES
from zoo.comparators import COMPARATORS, agent_class
from zoo.config import (
    Settings,
    TrainConfig,
    check_arguments,
    load_settings,
    parse_key_values,
    read_yaml,
)
from zoo.report import file_name

CHECKPOINT = "agent.zip"
CONFIG = "config.yml"


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


def run_folder(config: TrainConfig) -> Path:
    """
    Where a training run lives: ``FOLDER/<algo>/<env>/<seed>``.

    :param config: the run
    """
    return config.folder / config.algo / file_name(config.env) / str(config.seed)


def train_run(config: TrainConfig, callback: BaseCallback | None = None) -> Path:
    """
    Train an agent; its checkpoint, configuration and logs are left in the folder returned.

    :param config: what to train, and how long
    :param callback: an SB3 callback
    """
    if config.algo not in ALGORITHMS:
        hint = "`compare` trains it" if config.algo in COMPARATORS else "see `agents`"
        raise ValueError(f"algo {config.algo!r} must be one of {', '.join(ALGORITHMS)} ({hint})")
    check_env_id(config.env)
    for name in ("n_timesteps", "n_envs", "checkpoint_interval"):
        number = getattr(config, name)
        if number is not None and number < 1:
            raise ValueError(f"{name}={number} must be at least 1")
    settings = _settings_of(config)
    if settings.n_timesteps is None:
        raise ValueError(
            f"zoo/hyperparams/{config.algo}.yml has no entry for {config.env}: give --n-timesteps"
        )
    folder = run_folder(config)
    record = _record(config, settings)
    agent = (
        _resumed(config, folder, record) if config.resume else _started(config, folder, settings)
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")
    remaining = settings.n_timesteps - agent.num_timesteps
    if remaining > 0:
        agent.learn(
            remaining,
            callback=callback,
            reset_num_timesteps=not config.resume,
            progress_bar=config.progress,
            checkpoint_path=folder / CHECKPOINT,
            checkpoint_interval=config.checkpoint_interval,
        )
    return folder


def load_run(folder: Path) -> tuple[MetaAlgorithm, dict[str, Any]]:
    """
    The agent of a training run, and the run's configuration.

    :param folder: what ``train_run`` returned
    """
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder} is no folder that `train` wrote: it has no {CONFIG}")
    record = read_yaml(folder / CONFIG)
    missing = sorted({"algo", "env", "n_envs", "env_kwargs"} - set(record))
    if missing:
        raise ValueError(f"{folder / CONFIG} lacks {', '.join(missing)}: `train` writes them")
    cls = ALGORITHMS.get(record.get("algo", ""))
    if cls is None:
        raise ValueError(f"{folder / CONFIG}: algo {record.get('algo')!r} is none of ours")
    check_env_id(record["env"])
    venv = make_task_vec_env(record["env"], record["n_envs"], env_kwargs=record["env_kwargs"])
    return cls.load(folder / CHECKPOINT, env=venv), record


def load_named(run: str) -> tuple[MetaAlgorithm, str, dict[str, Any]]:
    """
    An agent, the id of its environment and that one's arguments.

    :param run: folder that ``train`` wrote, or name of a trained agent
    """
    known = trained_agents()
    if run in known:
        return load_pretrained(run), known[run].env_id, dict(known[run].env_kwargs)
    if not Path(run).is_dir():
        names = ", ".join(known) or "there are none"
        raise ValueError(f"{run!r} is neither a folder of `train` nor a trained agent ({names})")
    agent, record = load_run(Path(run))
    return agent, record["env"], record["env_kwargs"]


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


def _settings_of(config: TrainConfig) -> Settings:
    settings = load_settings(config.algo, config.env, preset=config.preset)
    arguments = {
        **settings.arguments,
        **parse_key_values(config.hyperparams, option="hyperparams"),
    }
    check_arguments(arguments, ALGORITHMS[config.algo], where=f"{config.algo} on {config.env}")
    given = parse_key_values(config.env_kwargs, option="env-kwargs")
    return replace(
        settings,
        n_timesteps=config.n_timesteps or settings.n_timesteps,
        arguments=arguments,
        env_kwargs={**settings.env_kwargs, **given},
    )


def _record(config: TrainConfig, settings: Settings) -> dict[str, Any]:
    """What `config.yml` says; all but the last four entries must agree when a run is resumed."""
    arguments = dict(settings.arguments)
    n_envs = config.n_envs or arguments.pop("n_envs", 1)
    arguments.pop("n_envs", None)
    return {
        "algo": config.algo,
        "env": config.env,
        "env_kwargs": dict(settings.env_kwargs),
        "seed": config.seed,
        "n_envs": n_envs,
        "policy": settings.policy,
        "arguments": arguments,
        "true_prior": dict(settings.true_prior),
        "preset": config.preset,
        "source": settings.source,
        "n_timesteps": settings.n_timesteps,
        "versions": library_versions(),
    }


def _started(config: TrainConfig, folder: Path, settings: Settings) -> MetaAlgorithm:
    if (folder / CHECKPOINT).exists():
        raise ValueError(
            f"{folder} holds a run already: --resume goes on with it, another --seed or --folder "
            "starts a new one"
        )
    agent = build_agent(
        config.algo,
        config.env,
        settings=settings,
        seed=config.seed,
        n_envs=config.n_envs,
        device=config.device,
        verbose=config.verbose,
        tensorboard_log=str(folder / "tensorboard") if config.tensorboard else None,
    )
    assert isinstance(agent, MetaAlgorithm)
    return agent


def _resumed(config: TrainConfig, folder: Path, record: Mapping[str, Any]) -> MetaAlgorithm:
    agent, started = load_run(folder)
    different = [
        f"{key}: {started.get(key)!r}, now {value!r}"
        for key, value in record.items()
        if key not in ("preset", "source", "n_timesteps", "versions") and started.get(key) != value
    ]
    if different:
        raise ValueError(f"{folder} was started with other settings ({'; '.join(different)})")
    agent.verbose = config.verbose
    return agent
