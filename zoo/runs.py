"""Training runs: what `train` leaves in a folder, and how an agent comes back from there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.callbacks import BaseCallback

from metarl_agents import (
    ALGORITHMS,
    MetaAlgorithm,
    load_pretrained,
    make_task_vec_env,
    trained_agents,
)
from metarl_agents.common.evaluation.result import library_versions
from zoo.comparators import COMPARATORS
from zoo.config import (
    Settings,
    TrainConfig,
    check_arguments,
    load_settings,
    parse_key_values,
    read_yaml,
)
from zoo.experiment import build_agent, check_env_id
from zoo.report import file_name

CHECKPOINT = "agent.zip"
CONFIG = "config.yml"


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
