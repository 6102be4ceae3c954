"""Makes the best agents of studies those that come with the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarl_agents.common.pretrained import TrainedAgent
from zoo.pretrained import TRAINED_AGENTS, publish_agent
from zoo.studies.study import Run, Study, collected, finished
from zoo.studies.training import loaded, scored_checkpoint_of

PROTOCOL, STEP = "equal steps", 1


def publish_best(
    study: Study, studies: Path, folder: Path = TRAINED_AGENTS
) -> dict[str, TrainedAgent]:
    """
    Publish, for every algorithm and env of a study, the agent that earns most after one step.

    :param study: whose runs train agents of ours
    :param studies: where the runs of all studies are kept
    :param folder: where to
    :return: the published agents by name
    """
    curves = _curves(collected(study, studies))
    best: dict[tuple[str, str], Run] = {}
    for run in finished(study, studies):
        if run.config["kind"] != "meta" or (run.name, run.seed) not in curves:
            continue
        key = run.config["algo"], run.config["env"]
        rival = best.get(key)
        if rival is None or _score(curves, run) > _score(curves, rival):
            best[key] = run
    published = (_published(study, run, curves, studies, folder) for run in best.values())
    return {entry.name: entry for entry in published}


def _published(
    study: Study,
    run: Run,
    curves: Mapping[tuple[str, int], list[float]],
    studies: Path,
    folder: Path,
) -> TrainedAgent:
    agent = loaded(run, scored_checkpoint_of(run, studies / study.name))
    others = [curve[STEP] for (name, _), curve in curves.items() if name == run.name]
    return publish_agent(
        agent,
        run.config["env"],
        env_kwargs=run.config["env_kwargs"],
        training={
            "study": study.name,
            "run": run.name,
            "seed": run.seed,
            "arguments": dict(run.config["arguments"]),
            "n_updates": agent._n_updates,
            "env_steps": agent.num_timesteps,
            "chosen": f"the best of {len(others)} seeds, whose median is {np.median(others):.1f}",
        },
        scores={
            "return after 0, 1, ... steps": curves[run.name, run.seed],
            "held_out_tasks": run.config["n_tasks"],
            "episodes_per_step": run.config["protocols"][PROTOCOL]["episodes_per_step"],
        },
        folder=folder,
    )


def _score(curves: Mapping[tuple[str, int], list[float]], run: Run) -> float:
    return curves[run.name, run.seed][STEP]


def _curves(rows: list[dict[str, Any]]) -> dict[tuple[str, int], list[float]]:
    """Mean returns after 0, 1, ... steps, by name and seed of the run."""
    curves: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row.get("kind") == "adaptation" and row["protocol"] == PROTOCOL:
            curves.setdefault((row["run"], int(row["seed"])), []).append(float(row["return"]))
    return curves
