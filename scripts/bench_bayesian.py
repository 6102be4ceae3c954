"""What batching buys: one posterior draw, and one learned episode, alone and side by side.

Contenders run interleaved in one process on one thread; every figure is the median of the rounds,
in CPU time per task or per episode. Prints a table and writes it as CSV.

    python scripts/bench_bayesian.py [--rounds 7] [--output runs/bench_bayesian.csv]
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch as th

import metarl_envs  # noqa: F401  (registers the ids)
from metarl_agents import MTSRL
from metarl_agents.bayesian.beliefs import TaskBelief, ValueModel
from metarl_agents.common.collect import collect_episodes
from zoo.speed.timing import Contender, interleaved

ENV_ID = "metarl/RecommendationSmall-v0"
N_TASKS = 64


def played_belief(n_tasks: int, covariance: str) -> TaskBelief:
    """Return the beliefs of tasks after 60 episodes each."""
    agent = MTSRL("LinearQPolicy", ENV_ID, n_envs=n_tasks, covariance=covariance, device="cpu")
    rngs = [np.random.default_rng(i) for i in range(n_tasks)]
    policies = agent.initial_policies(rngs)
    episodes = collect_episodes(agent.env, policies, 60, seed=0)
    return agent.adapt_tasks(policies, episodes, rngs=rngs).belief


def draws(belief: TaskBelief, *, batched: bool) -> Callable[[], None]:
    """Return a function that draws the Q-functions of all tasks once."""
    noise = th.randn(belief.prior.mean.shape, dtype=th.float64)
    model = ValueModel()
    singles = [belief[i] for i in range(len(belief.sigma2))]

    def together() -> None:
        model.draw(belief, noise)

    def one_by_one() -> None:
        for i, single in enumerate(singles):
            model.draw(single, noise[i, None])

    return together if batched else one_by_one


def learning(n_replicates: int) -> Callable[[], None]:
    """Return a function that plays one task of 20 episodes in every replicate."""
    agent = MTSRL(
        "LinearQPolicy",
        ENV_ID,
        n_envs=n_replicates,
        n_replicates=n_replicates,
        n_episodes_per_task=20,
        seed=0,
        device="cpu",
    )

    def play() -> None:
        agent.learn_tasks(1, log_interval=None, reset_num_timesteps=False)

    return play


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("runs/bench_bayesian.csv"))
    arguments = parser.parse_args()
    th.set_num_threads(1)
    blocks, full = played_belief(N_TASKS, "block"), played_belief(N_TASKS, "full")
    units = {
        "draw, one task after the other": N_TASKS,
        "draw, 64 tasks at once": N_TASKS,
        "draw, 64 tasks at once, full covariance": N_TASKS,
        "episode learned, 1 replicate": 20,
        "episode learned, 16 replicates": 320,
    }
    runs = (
        draws(blocks, batched=False),
        draws(blocks, batched=True),
        draws(full, batched=True),
        learning(1),
        learning(16),
    )
    contenders = {
        name: Contender(run, n_units)
        for (name, n_units), run in zip(units.items(), runs, strict=True)
    }
    samples = interleaved(contenders, arguments.rounds)
    seconds = {name: np.median([each.cpu for each in samples[name]]) for name in units}
    rows = [(name, 1e6 * seconds[name] / units[name]) for name in units]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "cpu_microseconds"])
        writer.writerows((name, f"{value:.1f}") for name, value in rows)
    for group in (rows[:3], rows[3:]):
        for name, value in group:
            print(f"{name:<42} {value:>9.1f} us {group[0][1] / value:>7.2f} x")


if __name__ == "__main__":
    main()
