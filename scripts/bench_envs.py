"""How fast environments step and exact values come, against Gymnasium, on one thread.

Contenders run interleaved in one process; a round times each of them in CPU time, ratios are taken
within a round, and the table shows medians over rounds with the smallest and largest ratio. Nothing
else should run meanwhile.

    python scripts/bench_envs.py --tabular [--rounds 9] [--output zoo/results/bench_envs_tabular.csv]
"""

import argparse
import csv
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from threadpoolctl import threadpool_limits

import metarl_envs  # noqa: F401  (registers the ids)
from metarl_envs.tabular import optimal_values

OUTPUT = Path("zoo/results/bench_envs_tabular.csv")
SIZES = 1_000, 10_000
HOLES = "metarl/FrozenLakeHoles-v0"
N_TASKS = 1_000
# Vector steps of one round: long enough for many episodes, short enough for many rounds.
N_STEPS = {"gymnasium": {1_000: 30, 10_000: 4}, "ours": {1_000: 600, 10_000: 100}}


class Row(NamedTuple):
    """One line of the table."""

    name: str
    unit: str
    value: float
    reference: str
    ratio: float
    low: float
    high: float
    bar: str


class Stepping(NamedTuple):
    """A vector env that is stepped, and what it is compared with."""

    make: Callable[[int], Any]
    n_steps: Mapping[int, int]
    reference: str = ""
    least: float | None = None
    most: float | None = None


def gymnasium_lakes(env_id: str) -> Callable[[int], Any]:
    """Return a function that makes n of Gymnasium's lakes."""
    return lambda n: SyncVectorEnv(
        [lambda: gym.make(env_id)] * n, autoreset_mode=AutoresetMode.SAME_STEP
    )


def ours(env_id: str, **arguments: Any) -> Callable[[int], Any]:
    """Return a function that makes n of our environments, batched."""
    return lambda n: gym.make_vec(
        env_id, num_envs=n, vectorization_mode="vector_entry_point", **arguments
    )


def steppers() -> dict[str, Stepping]:
    """Return what is stepped: Gymnasium first, then ours, then ours within trials."""
    lake, large = "Gymnasium FrozenLake-v1", "Gymnasium FrozenLake8x8-v1"
    kept, new = "holes 4x4, own map kept", "holes 4x4, new map per episode"
    quick = N_STEPS["ours"]
    slippery = {"is_slippery": True}
    kept_lake = {**slippery, "task_mode": "fixed"}
    plain = {"episodes_per_trial": 4, "observe_transitions": False}
    found = {
        lake: Stepping(gymnasium_lakes("FrozenLake-v1"), N_STEPS["gymnasium"]),
        large: Stepping(gymnasium_lakes("FrozenLake8x8-v1"), N_STEPS["gymnasium"]),
        kept: Stepping(ours(HOLES, **kept_lake), quick, lake, least=200),
        new: Stepping(ours(HOLES, **slippery), quick, lake),
        "slip 4x4, own slip kept": Stepping(
            ours("metarl/FrozenLakeSlip-v0", task_mode="fixed"), quick, lake, least=200
        ),
        "slip 4x4, new slip per episode": Stepping(ours("metarl/FrozenLakeSlip-v0"), quick, lake),
        "holes 8x8, own map kept": Stepping(ours(HOLES, size=8, **kept_lake), quick, large, 200),
        "trials of 4, own map kept": Stepping(ours(HOLES, **kept_lake, **plain), quick, kept),
        "trials of 4, new map per trial": Stepping(
            ours(HOLES, **slippery, **plain), quick, new, most=1.1
        ),
        "the same, transitions observed": Stepping(
            ours(HOLES, **slippery, episodes_per_trial=4), quick, new
        ),
    }
    for name, env_id in (("grid", "metarl/GridGoal-v0"), ("bandit", "metarl/BernoulliBandit-v0")):
        found[name] = Stepping(ours(env_id), quick)
        found[f"{name}, trials of 4"] = Stepping(ours(env_id, **plain), quick, name, most=1.1)
    return found


def stepping_rows(n: int, rounds: int) -> list[Row]:
    """Return one row per stepped environment, with n sub-environments each."""
    contenders = steppers()
    runs = {name: _run(one.make(n), one.n_steps[n]) for name, one in contenders.items()}
    seconds = interleaved(runs, rounds)
    rows = []
    for name, one in contenders.items():
        per_step = seconds[name] / (n * one.n_steps[n])
        rate = f"{n:,} envs: {name}"
        if not one.reference:
            rows.append(Row(rate, "env steps/s", 1 / float(np.median(per_step)), "", 1, 1, 1, ""))
            continue
        reference = contenders[one.reference]
        ratios = seconds[one.reference] / (n * reference.n_steps[n]) / per_step
        rows.append(_row(rate, per_step, ratios, one))
    return rows


def _row(name: str, per_step: np.ndarray, ratios: np.ndarray, one: Stepping) -> Row:
    ratio, bar = float(np.median(ratios)), ""
    if one.least is not None:
        bar = f">= {one.least:g}x: {_said(ratio >= one.least)}"
    if one.most is not None:
        bar = f"costs <= {one.most - 1:.0%}: {_said(1 / ratio <= one.most)}"
    rate = 1 / float(np.median(per_step))
    return Row(name, "env steps/s", rate, one.reference, ratio, ratios.min(), ratios.max(), bar)


def _said(holds: bool) -> str:
    return "met" if holds else "MISSED"


def _run(env: Any, n_steps: int) -> Callable[[], None]:
    """Return a function that plays actions drawn beforehand; the env runs in already."""
    rng = np.random.default_rng(0)
    actions = rng.integers(env.single_action_space.n, size=(n_steps, env.num_envs))
    env.reset(seed=0)

    def run() -> None:
        for chosen in actions:
            env.step(chosen)

    return run


def solving_rows(rounds: int) -> list[Row]:
    """Return one row per way to get the optimal values of 1,000 lakes."""
    bars = {4: 40.0, 8: 250.0}
    rows = []
    for size, most in bars.items():
        runs = {}
        for label, arguments in (
            ("horizon 100", {"horizon": 100}),
            ("discount 0.8", {"discount": 0.8, "absorbing": True}),
            ("discount 0.99", {"discount": 0.99}),
        ):
            env = gym.make(HOLES, size=size, is_slippery=True, **arguments).unwrapped
            tasks = env.sample_tasks(N_TASKS, seed=0)
            runs[f"optimal_returns, {label}"] = _solve(env.optimal_returns, tasks)
            runs[f"optimal_values, {label}"] = _solve(optimal_values, env.sparse_mdps(tasks))
            dense = env.finite_mdps(tasks)
            runs[f"optimal_values of dense MDPs, {label}"] = _solve(optimal_values, dense)
        for name, seconds in interleaved(runs, rounds).items():
            milliseconds = 1e3 * float(np.median(seconds))
            bar = f"<= {most:g} ms: {_said(milliseconds <= most)}"
            title = f"{N_TASKS:,} tasks, {size}x{size}: {name}"
            low, high = 1e3 * seconds.min(), 1e3 * seconds.max()
            rows.append(Row(title, "CPU ms", milliseconds, "", 1, low, high, bar))
    return rows


def _solve(function: Callable[[Any], Any], argument: Any) -> Callable[[], None]:
    def run() -> None:
        function(argument)

    return run


def interleaved(runs: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, np.ndarray]:
    """Return the CPU seconds of every contender, (rounds,) each, after one warm-up round."""
    seconds = np.zeros((rounds + 1, len(runs)))
    for turn in range(rounds + 1):
        for column, run in enumerate(runs.values()):
            start = time.process_time()
            run()
            seconds[turn, column] = time.process_time() - start
    return dict(zip(runs, seconds[1:].T, strict=True))


def stamp() -> dict[str, str]:
    """Return what the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    libraries = {name: version(name) for name in ("gymnasium", "numpy", "scipy")}
    return {"commit": commit, "python": platform.python_version(), **libraries}


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    for row in rows:
        value = f"{row.value:,.0f}" if row.unit == "env steps/s" else f"{row.value:,.1f}"
        against = f"{row.ratio:7.2f}x [{row.low:.2f}, {row.high:.2f}]  {row.reference}"
        if not row.reference:
            against = f"         [{row.low:.1f}, {row.high:.1f}]" if row.unit == "CPU ms" else ""
        print(f"{row.name:<62} {value:>12} {row.unit:<11} {against:<58} {row.bar}")


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the table as CSV, what it depends on in comments above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        for name, value in stamp().items():
            file.write(f"# {name}: {value}\n")
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        for row in rows:
            numbers = (f"{row.ratio:.3f}", f"{row.low:.3f}", f"{row.high:.3f}")
            writer.writerow(
                (row.name, row.unit, f"{row.value:.1f}", row.reference, *numbers, row.bar)
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tabular", action="store_true", help="the families of finite MDPs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    rows: list[Row] = []
    with threadpool_limits(1):
        for n in SIZES:
            rows += stepping_rows(n, arguments.rounds)
        rows += solving_rows(arguments.rounds)
    show(rows)
    write(rows, arguments.output)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
