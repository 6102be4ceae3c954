"""The best agents of studies become those that come with the package."""

import json
from pathlib import Path

import numpy as np

from metarl_agents import evaluate_adaptation, load_pretrained
from zoo.experiment import env_spec, held_out_tasks
from zoo.studies.gradient import play
from zoo.studies.publishing import publish_best
from zoo.studies.study import Context, Run, Study, play_run

CONFIG = {
    "kind": "meta",
    "algo": "promp",
    "env": "metarl/PointGoal-v0",
    "env_kwargs": {"horizon": 4},
    "arguments": {
        "meta_batch_size": 2,
        "n_episodes_per_task": 2,
        "n_envs": 4,
        "policy_kwargs": {"net_arch": [4]},
    },
    "n_tasks": 3,
    "protocols": {"equal steps": {"n_adapt_steps": 1, "episodes_per_step": 2}},
}


def test_the_best_seed_is_published_with_its_scores(tmp_path: Path) -> None:
    budget = {"n_iterations": 1, "device": "cpu"}
    runs = tuple(Run("ProMP", seed, CONFIG, budget) for seed in range(3))
    study = Study("tiny", play, runs)
    for run in runs[:2]:
        assert play_run(study, run, Context(tmp_path / "tiny"))
    (entry,) = publish_best(study, tmp_path, tmp_path / "agents").values()
    assert entry.name == "promp/PointGoal-v0"
    assert "best of 2 seeds" in entry.training["chosen"]
    returns = []
    for run in runs[:2]:
        rows = json.loads((tmp_path / "tiny" / run.file).read_text())["rows"]
        returns.append([float(r["return"]) for r in rows if r.get("protocol")])
    best = int(np.argmax([curve[1] for curve in returns]))
    assert entry.training["seed"] == best
    assert entry.scores["return after 0, 1, ... steps"] == returns[best]
    agent = load_pretrained(entry.name, folder=tmp_path / "agents")
    tasks = held_out_tasks(CONFIG["env"], 3, env_kwargs=CONFIG["env_kwargs"])
    again = evaluate_adaptation(
        agent,
        env_spec(CONFIG["env"], CONFIG["env_kwargs"]),
        tasks,
        seed=best,
        exact_regret=False,
        **CONFIG["protocols"]["equal steps"],
    )
    assert np.round(again.returns.mean(axis=(0, 2)), 3).tolist() == returns[best]
