"""How fast environments step and exact values come, beside Gymnasium, SB3 and others.

Contenders run interleaved in one process; ratios are taken within rounds, and the table shows their
medians with the smallest and the largest. Let nothing else run meanwhile.

    python scripts/bench_envs.py [--tabular] [--peers] [--rounds 9] [--output FILE.csv]
"""

import argparse
from pathlib import Path

from threadpoolctl import threadpool_limits

import metarl_envs  # noqa: F401  (registers the ids)
from zoo.speed import tabular
from zoo.speed.timing import Row, interleaved, rows_of, show, write


def tabular_rows(rounds: int) -> list[Row]:
    """Return the rows of the tabular families: CPU time, one thread."""
    rows: list[Row] = []
    for n_envs in tabular.SIZES:
        contenders = tabular.stepping(n_envs)
        rows += rows_of(contenders, interleaved(contenders, rounds), clock="cpu")
    solvers = tabular.solving()
    return rows + rows_of(solvers, interleaved(solvers, rounds), clock="cpu")


def locomotion_rows(rounds: int, *, peers: bool) -> list[Row]:
    """Return the rows of the locomotion families: wall time where the machine was quiet."""
    from zoo.speed import locomotion

    groups = [
        locomotion.race(one, n_envs, n_threads, peers=peers)
        for one in locomotion.RACES
        for n_envs in locomotion.SIZES
        for n_threads in (1, 2)
    ]
    groups += [locomotion.policies(), locomotion.per_env_bodies()]
    rows: list[Row] = []
    for contenders in groups:
        rows += rows_of(contenders, interleaved(contenders, rounds))
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tabular", action="store_true", help="finite MDPs instead of locomotion")
    parser.add_argument("--peers", action="store_true", help="race EnvPool, too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="default: zoo/results/bench_envs_*.csv")
    arguments = parser.parse_args()
    kind = "tabular" if arguments.tabular else "locomotion"
    with threadpool_limits(1):
        if arguments.tabular:
            rows = tabular_rows(arguments.rounds)
        else:
            rows = locomotion_rows(arguments.rounds, peers=arguments.peers)
    output = arguments.output or Path(f"zoo/results/bench_envs_{kind}.csv")
    show(rows)
    write(rows, output)
    print(f"written to {output}")


if __name__ == "__main__":
    main()
