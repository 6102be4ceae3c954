"""Puts trained agents where `metarl_agents.load_pretrained` finds them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl_agents import ALGORITHMS, MetaAlgorithm
from metarl_agents.common.evaluation.result import library_versions
from metarl_agents.common.pretrained import (
    INDEX,
    TrainedAgent,
    sha256_of,
    trained_agents,
    write_index,
)
from zoo.report import file_name

TRAINED_AGENTS = Path(__file__).parent / "trained_agents"


def publish_agent(
    agent: MetaAlgorithm,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    folder: Path = TRAINED_AGENTS,
) -> TrainedAgent:
    """
    Write an agent's file and its entry in the index; one of the same name is replaced.

    :param agent: a trained agent of a class in ``ALGORITHMS``
    :param env_id: id of the env that it was trained in
    :param env_kwargs: arguments of that env
    :param training: how it was trained: plain data
    :param scores: what it scored on held-out tasks: plain data
    :param folder: where to
    """
    for word, told in (("env_kwargs", env_kwargs), ("training", training), ("scores", scores)):
        _check_plain(word, told)
    algo = _name_of(type(agent))
    name = f"{algo}/{env_id.rpartition('/')[2]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(name)}.zip"
    agent.save(path)
    entry = TrainedAgent(
        name=name,
        file=path.name,
        sha256=sha256_of(path),
        class_name=type(agent).__name__,
        env_id=env_id,
        env_kwargs=dict(env_kwargs or {}),
        training=dict(training or {}),
        scores=dict(scores or {}),
        versions=library_versions(),
    )
    known = trained_agents(folder) if (folder / INDEX).exists() else {}
    write_index(folder, {**known, name: entry})
    return entry


def _check_plain(word: str, told: Mapping[str, Any] | None) -> None:
    """Before anything is written: a new file with the old index would be refused."""
    try:
        json.dumps(told, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{word}={told!r} is no plain data: give str, bool, int, finite float, lists and "
            f"dicts of these ({error})"
        ) from error


def _name_of(cls: type[MetaAlgorithm]) -> str:
    for name, algorithm in ALGORITHMS.items():
        if algorithm is cls:
            return name
    raise ValueError(f"{cls.__name__} is not in ALGORITHMS ({', '.join(ALGORITHMS)})")
