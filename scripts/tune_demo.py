"""Tune what the demo compares, every learner for itself, on tasks of the training stream.

Our agents are scored by the regret per task in the second half of meta-training;
Stable-Baselines3's by their regret in training tasks that they did not meet. Held-out tasks are
never looked at. Prints a table and writes it to ``--output``.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from joblib import Parallel, delayed
from rich.console import Console

from metarl_agents import ALGORITHMS
from zoo.config import DemoConfig
from zoo.demo.lab import Lab
from zoo.experiment import comparator_learner, evaluate_on_line
from zoo.report import Grid

SIGMA2 = (0.02, 0.05, 0.1, 0.25)
PRECISION = (1.0, 4.0, 10.0)
GRIDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "meta_oracle": {"sigma2": SIGMA2},
    "mtsrl": {"sigma2": SIGMA2, "prior_precision": (1.0, 4.0)},
    "mtsrl_plus": {"sigma2": SIGMA2, "shrinkage": (1.0, 4.0)},
    "meta_lin_ts": {"sigma2": SIGMA2, "prior_precision": (1.0, 4.0)},
    "rlsvi": {"sigma2": SIGMA2, "prior_precision": PRECISION},
    "ppo": {"n_steps": (8, 32), "learning_rate": (1e-3, 3e-3)},
    "maskable_ppo": {"n_steps": (8, 32), "learning_rate": (1e-3, 3e-3)},
    "dqn_scratch": {
        "learning_rate": (1e-3, 3e-3),
        "gradient_steps": (1, 2),
        "target_update_interval": (15, 60),
    },
}


@dataclass(frozen=True)
class Options:
    """What to tune."""

    agents: tuple[str, ...] = tuple(GRIDS)
    """names"""
    seeds: tuple[int, ...] = (1000, 1001)
    """of the training stream"""
    n_tasks: int = 16
    """tasks of meta-training, and training tasks that SB3's agents are scored on"""
    n_workers: int = 2
    """processes"""
    output: Path = field(default=Path("runs/tune_demo.md"))
    """the table"""


def main(options: Options) -> None:
    """
    Score every point of every grid.

    :param options: what to tune
    """
    jobs = [(name, point) for name in options.agents for point in _points(GRIDS[name])]
    scores = Parallel(n_jobs=options.n_workers, verbose=5)(
        delayed(_score)(name, point, options) for name, point in jobs
    )
    rows = []
    for (name, point), score in sorted(
        zip(jobs, scores, strict=True), key=lambda entry: (entry[0][0], entry[1].mean())
    ):
        text = ", ".join(f"{key}={value:g}" for key, value in point.items())
        error = score.std(ddof=1) / np.sqrt(len(score))
        rows.append((name, text, f"{score.mean():.1f} +- {error:.1f}"))
    grid = Grid("Regret per training task", ("agent", "hyper-parameters", "regret"), tuple(rows))
    Console().print(grid.rich())
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(grid.markdown() + "\n", encoding="utf-8")


def _points(axes: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _score(name: str, point: Mapping[str, Any], options: Options) -> np.ndarray:
    """Regret of every replicate, or of every task."""
    import torch as th

    th.set_num_threads(1)
    return np.concatenate([_regrets(name, point, seed, options.n_tasks) for seed in options.seeds])


def _regrets(name: str, point: Mapping[str, Any], seed: int, n_tasks: int) -> np.ndarray:
    lab = Lab(DemoConfig(seed=seed))
    settings = lab.settings(name)
    settings = replace(settings, arguments={**settings.arguments, **point})
    if name in ALGORITHMS:
        agent = lab.agent(name, settings=settings, n_replicates=8, n_concurrent=4)
        agent.learn_tasks(n_tasks)
        return np.asarray(agent.regret_history[:, n_tasks // 2 :].sum(axis=-1).mean(axis=1))
    learner = comparator_learner(
        name, lab.env_id, settings=settings, seed=seed, env_kwargs=lab.env_kwargs
    )
    result = evaluate_on_line(
        learner,
        lab.env_id,
        lab.make_env().sample_tasks(n_tasks, seed=seed, split="train"),
        n_episodes=lab.config.n_episodes,
        deterministic=settings.n_timesteps is not None,
        seed=seed,
        env_kwargs=lab.env_kwargs,
    )
    return result.total_regret


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
