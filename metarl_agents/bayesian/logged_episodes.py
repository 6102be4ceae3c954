"""Logged interactions: from a CSV file or batches of episodes to the transitions of every task."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch as th

from metarl_agents.bayesian.linear_gaussian import Transitions
from metarl_agents.bayesian.stage_features import StageFeatures
from metarl_agents.bayesian.stage_transitions import stage_transitions
from metarl_agents.common.episodes import EpisodeBatch

Logs = str | Path | EpisodeBatch | Sequence[EpisodeBatch]

COLUMNS = ("task", "episode", "stage", "action", "reward")


def logged_transitions(
    features: StageFeatures, logs: Logs, device: th.device | str = "cpu"
) -> list[Transitions]:
    """Return the transitions of every logged task, each with a leading axis of 1.

    :param features: of the family that the logs come from
    :param logs: a CSV file (see :func:`read_episodes`), one batch per task, or one batch with a
        task axis
    :raises TypeError: if ``logs`` is none of these
    :raises ValueError: if the logs are empty or do not fit the family
    """
    return [_transitions(features, batch, device) for batch in _one_batch_per_task(logs)]


def _one_batch_per_task(logs: Logs) -> list[EpisodeBatch]:
    if isinstance(logs, str | Path):
        return read_episodes(logs)
    batches = [logs] if isinstance(logs, EpisodeBatch) else list(logs)
    if not batches:
        raise ValueError("episodes is empty: pass at least one logged task")
    for batch in batches:
        if not isinstance(batch, EpisodeBatch):
            raise TypeError(
                f"episodes holds a {type(batch).__name__}: pass EpisodeBatch, one per task, or the "
                "path of a CSV file"
            )
    return [
        task for batch in batches for task in (batch.tasks() if batch.has_task_axis else [batch])
    ]


def _transitions(
    features: StageFeatures, batch: EpisodeBatch, device: th.device | str
) -> Transitions:
    actions = batch.actions[batch.mask.bool()]
    if (actions < 0).any() or (actions >= features.n_actions).any():
        raise ValueError(
            f"episodes hold actions outside 0..{features.n_actions - 1}: log the env's own actions"
        )
    width = int(np.prod(features.observation_space.shape or (1,)))
    if batch.observations.shape[-1] != width:
        raise ValueError(
            f"episodes hold observations of {batch.observations.shape[-1]} numbers, the env has "
            f"{width}: log the observations of this env"
        )
    _check_steps(features, batch)
    return stage_transitions(features, EpisodeBatch.stack([batch]), device)


def _check_steps(features: StageFeatures, batch: EpisodeBatch) -> None:
    """Raise ``ValueError`` where a logged step cannot have happened in the family."""
    played = batch.mask.cpu().numpy().astype(bool)
    shape, dtype = features.observation_space.shape or (), features.observation_space.dtype
    observed = batch.observations[batch.mask.bool()]
    if not np.issubdtype(dtype, np.floating) and (observed != observed.round()).any():
        raise ValueError("episodes hold observations that are not whole numbers, the env's are")
    rows = batch.observations.cpu().numpy().reshape(*played.shape, *shape)
    actions = batch.actions.cpu().numpy().reshape(played.shape).astype(np.int64)
    for stage in range(min(played.shape[-1], features.n_stages)):
        here = played[:, stage]
        allowed = features.masks(rows[here, stage])
        forbidden = ~np.take_along_axis(allowed, actions[here, stage, None], axis=-1)[:, 0]
        if forbidden.any():
            raise ValueError(
                f"episodes hold the masked action {actions[here, stage][forbidden][0]} at stage "
                f"{stage}: leave such episodes out"
            )
        if features.knows_stages and (features.stages(rows[here, stage]) != stage).any():
            raise ValueError(
                f"episodes hold an observation at stage {stage} that belongs to another stage: log "
                "every step of an episode from its beginning"
            )


def read_episodes(path: str | Path) -> list[EpisodeBatch]:
    """Return one batch per task of a log with the columns task, episode, stage, obs_0..., action,
    reward.

    ``stage`` counts the steps of an episode from 0; the observation of the next row of the same
    episode is the successor, and the last row of an episode is taken as terminal.

    :param path: of a CSV file with a header
    :raises ValueError: if a column is missing, a value is not a number, or an episode has a gap
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        names = _observation_columns(path, rows.fieldnames or ())
        tasks: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(dict))
        for row in rows:
            step = _numbers(path, rows.line_num, row, names)
            episode = tasks[row["task"]][row["episode"]]
            if int(step[0]) in episode:
                raise ValueError(
                    f"{path} line {rows.line_num}: this stage stands twice in its episode"
                )
            episode[int(step[0])] = step[1:]
    if not tasks:
        raise ValueError(f"{path} holds no steps: log at least one episode")
    return [_batch(path, name, list(episodes.values())) for name, episodes in tasks.items()]


def _observation_columns(path: Path, header: Iterable[str]) -> list[str]:
    header = list(header)
    observations = [name for name in header if name.startswith("obs_")]
    expected = [f"obs_{i}" for i in range(len(observations))]
    missing = [name for name in COLUMNS if name not in header]
    if missing or not observations or sorted(observations) != sorted(expected):
        raise ValueError(
            f"{path} has the columns {header}: it needs task, episode, stage, obs_0, obs_1, ..., "
            "action, reward"
        )
    return expected


def _numbers(path: Path, line: int, row: dict[str, str], names: list[str]) -> list[float]:
    """Return stage, action, reward and the observation of one row."""
    try:
        values = [float(row[name]) for name in ("stage", "action", "reward", *names)]
    except (TypeError, ValueError):
        raise ValueError(
            f"{path} line {line}: every column but task and episode is a number"
        ) from None
    if not np.isfinite(values).all() or values[0] != int(values[0]) or values[1] != int(values[1]):
        raise ValueError(f"{path} line {line}: stage and action are whole numbers, all are finite")
    return values


def _batch(path: Path, task: str, episodes: list[dict[int, list[float]]]) -> EpisodeBatch:
    for episode in episodes:
        if sorted(episode) != list(range(len(episode))):
            raise ValueError(
                f"{path}: an episode of task {task} has the stages {sorted(episode)}: log every "
                "step from stage 0 on"
            )
    n_steps = max(len(episode) for episode in episodes)
    width = len(next(iter(episodes[0].values()))) - 2
    table = np.zeros((len(episodes), n_steps, width + 2))
    mask = np.zeros((len(episodes), n_steps))
    for e, episode in enumerate(episodes):
        for stage, values in episode.items():
            table[e, stage], mask[e, stage] = values, 1.0
    return EpisodeBatch(
        observations=th.as_tensor(table[..., 2:].copy()),
        actions=th.as_tensor(table[..., :1].astype(np.int64)),
        rewards=th.as_tensor(table[..., 1].copy()),
        mask=th.as_tensor(mask),
        dist_params=th.zeros(len(episodes), n_steps, 0, dtype=th.float64),
        final_observations=th.zeros(len(episodes), width, dtype=th.float64),
        terminated=th.ones(len(episodes), dtype=th.float64),
    )
