"""Check MTSRL and MTSRL+ where the Gaussian Q-prior is exactly right: metarl/InverseBellman-v0.

Every agent meets the same tasks with the same noise, all with the same settings; many replicates
run at once. Prints the regret per task over the second half of the tasks, its ratio to the
meta-oracle's with a 95 % interval (bootstrap over replicates, paired), and whether the first tasks
of the learners equal those of RLSVI exactly. Exits with 1 where a bar is missed.

    python scripts/check_mtsrl.py [--seed 0] [--n-tasks 60] [--kernel stochastic]
"""

import argparse
import csv
import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from scipy.stats import bootstrap

import metarl_envs  # noqa: F401  (registers the ids)
from metarl_agents import MTSRL, RLSVI, MetaOracle, MTSRLPlus

ENV_ID = "metarl/InverseBellman-v0"
BARS = {"MTSRL (gls)": (0.0, 1.10), "MTSRL+ (em)": (0.0, 1.35), "RLSVI": (3.0, np.inf)}


def run_agents(arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return the regret of every task by agent, (n_tasks, n_replicates)."""
    env_kwargs = {"n_features": arguments.n_features, "kernel": arguments.kernel}
    mean, covariance = gym.make(ENV_ID, **env_kwargs).unwrapped.q_prior()
    known = {"prior_covariance": covariance}
    agents = {
        "oracle": (MetaOracle, {"prior_mean": mean, **known}),
        "RLSVI": (RLSVI, {}),
        "MTSRL (gls)": (MTSRL, {"estimator": "gls", **known}),
        "MTSRL+ (em)": (MTSRLPlus, {"estimator": "em"}),
    }
    common = {
        "n_episodes_per_task": arguments.n_episodes,
        "n_replicates": arguments.n_replicates,
        "n_envs": arguments.n_replicates,
        "env_kwargs": env_kwargs,
        "sigma2": "estimate" if arguments.sigma2 is None else arguments.sigma2,
        "track_regret": True,
        "seed": arguments.seed,
        "device": "cpu",
    }
    regrets = {}
    for name, (algorithm, own) in agents.items():
        start = time.perf_counter()
        agent = algorithm("LinearQPolicy", ENV_ID, **common, **own)
        agent.learn_tasks(arguments.n_tasks, log_interval=None)
        regrets[name] = agent.regret_history.sum(-1).T
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return regrets


def report(regrets: dict[str, np.ndarray]) -> bool:
    """Print the table; return whether every bar is met."""
    half = len(regrets["oracle"]) // 2
    tails = {name: regret[half:].mean(0) for name, regret in regrets.items()}
    print(f"{'agent':<12} {'regret/task':>11} {'ratio to oracle':>16} {'95 % interval':>16}  bar")
    met = True
    for name, tail in tails.items():
        ratio, low, high = _ratio(tail, tails["oracle"])
        least, most = BARS.get(name, (0.0, np.inf))
        ok = least <= ratio <= most
        met &= ok
        bar = f">= {least}" if least else f"<= {most}" if most < np.inf else ""
        mark = ("met" if ok else "MISSED") if bar else ""
        interval = f"{low:.3f}..{high:.3f}"
        row = f"{name:<12} {tail.mean():>11.2f} {ratio:>16.3f} {interval:>16}  {bar} {mark}"
        print(row.rstrip())
    for name in ("MTSRL (gls)", "MTSRL+ (em)"):
        equal = np.array_equal(regrets[name][:5], regrets["RLSVI"][:5])
        differs = not np.array_equal(regrets[name][5:], regrets["RLSVI"][5:])
        met &= equal and differs
        print(f"{name}: tasks 1..5 equal RLSVI's exactly: {equal}; later ones differ: {differs}")
    return met


def _ratio(tail: np.ndarray, oracle: np.ndarray) -> tuple[float, float, float]:
    """Return the ratio of the means and its interval over replicates."""
    if tail is oracle:
        return 1.0, 1.0, 1.0
    result = bootstrap(
        (tail, oracle),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return float(tail.mean() / oracle.mean()), float(interval.low), float(interval.high)


def write_csv(path: Path, regrets: dict[str, np.ndarray], arguments: argparse.Namespace) -> None:
    """Write one row per agent, replicate and task, with what produced them in the header."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    versions = {p: importlib.metadata.version(p) for p in ("numpy", "torch", "gymnasium")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        settings = {name: value for name, value in vars(arguments).items() if name != "csv"}
        hash_ = commit.stdout.strip() or "unknown"
        file.write(f"# commit {hash_}, {versions}, {settings}\n")
        writer = csv.writer(file)
        writer.writerow(["agent", "replicate", "task", "regret"])
        for name, regret in regrets.items():
            for task, row in enumerate(regret):
                for replicate, value in enumerate(row):
                    writer.writerow([name, replicate, task + 1, f"{value:.4f}"])


def main() -> int:
    """Run the check; 0 where every bar is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-tasks", type=int, default=60)
    parser.add_argument("--n-episodes", type=int, default=60)
    parser.add_argument("--n-replicates", type=int, default=16)
    parser.add_argument("--n-features", type=int, default=8)
    parser.add_argument("--kernel", choices=("stochastic", "deterministic"), default="stochastic")
    parser.add_argument("--sigma2", type=float, default=None, help="None estimates it per stage")
    parser.add_argument("--csv", type=Path, default=None)
    arguments = parser.parse_args()
    th.set_num_threads(1)
    regrets = run_agents(arguments)
    if arguments.csv is not None:
        write_csv(arguments.csv, regrets, arguments)
    return 0 if report(regrets) else 1


if __name__ == "__main__":
    sys.exit(main())
