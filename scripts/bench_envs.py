"""How fast environments step and exact values come, beside Gymnasium, SB3 and others.

Contenders run interleaved in one process; ratios are taken within rounds, and the table shows their
medians with the smallest and the largest. Let nothing else run meanwhile.

    python scripts/bench_envs.py [--tabular] [--peers] [--rounds 9] [--output FILE.csv]
"""

import argparse
import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

import metarl_envs  # noqa: F401  (registers the ids)
from zoo.speed import locomotion, tabular
from zoo.speed.timing import Row, interleaved, rows_of, show, write


def tabular_groups(rounds: int) -> Iterator[list[Row]]:
    """Yield the rows of the tabular families: CPU time, one thread."""
    makers = [partial(tabular.stepping, n_envs) for n_envs in tabular.SIZES] + [tabular.solving]
    for make in makers:
        with threadpool_limits(1):
            contenders = make()
            yield rows_of(contenders, interleaved(contenders, rounds), clock="cpu")


def locomotion_groups() -> list[tuple[int, ...]]:
    """Return what `locomotion_rows` is asked for: races, then policies, then bodies."""
    races = range(len(locomotion.RACES))
    return [*itertools.product(races, locomotion.SIZES, (1, 2)), (0,), (1,)]


def locomotion_rows(group: tuple[int, ...], rounds: int, peers: bool) -> list[Row]:
    """Return the rows of one group of contenders: wall time where the machine was quiet."""
    with threadpool_limits(1):
        if len(group) == 3:
            number, n_envs, n_threads = group
            contenders = locomotion.race(locomotion.RACES[number], n_envs, n_threads, peers=peers)
        else:
            contenders = (locomotion.policies, locomotion.per_env_bodies)[group[0]]()
        return rows_of(contenders, interleaved(contenders, rounds))


def raced(rounds: int, peers: bool) -> Iterator[list[Row]]:
    """Yield the rows of each group, which has a process of its own: it forks before it threads."""
    context = multiprocessing.get_context("spawn")
    for group in locomotion_groups():
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            yield pool.submit(locomotion_rows, group, rounds, peers).result()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tabular", action="store_true", help="finite MDPs instead of locomotion")
    parser.add_argument("--peers", action="store_true", help="race EnvPool, too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="default: zoo/results/bench_envs_*.csv")
    arguments = parser.parse_args()
    kind = "tabular" if arguments.tabular else "locomotion"
    output = arguments.output or Path(f"zoo/results/bench_envs_{kind}.csv")
    rows: list[Row] = []
    groups = (
        tabular_groups(arguments.rounds)
        if arguments.tabular
        else raced(arguments.rounds, arguments.peers)
    )
    for group in groups:
        rows += group
        show(group)
        write(rows, output)  # after every group, so that nothing is lost
    print(f"written to {output}")


if __name__ == "__main__":
    main()
