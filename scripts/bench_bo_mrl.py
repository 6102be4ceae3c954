"""How fast tabular BO-MRL is: exact evaluation, meta-updates, whole meta-iterations, memory.

Contenders run interleaved in one process, after a check that they agree; ratios are taken within
rounds, and the table shows their medians with the smallest and the largest. CPU time is judged;
wall time stands below it. On a machine with CUDA rows of the GPU follow.

    python scripts/bench_bo_mrl.py [--rounds 9] [--group NAME]
"""

import argparse
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch as th
from threadpoolctl import threadpool_limits

from zoo.speed.bilevel import contenders
from zoo.speed.bilevel.memory import memory_rows
from zoo.speed.timing import Contender, Row, interleaved, rows_of, show, unjudged, write

Make = Callable[[], dict[str, Contender]]
GROUPS: Mapping[str, Sequence[Make]] = {
    "evaluation": [partial(contenders.evaluation, n_tasks) for n_tasks in contenders.SIZES],
    "update": [contenders.updates],
    "hypergradient": [contenders.alternatives],
    "iteration": [contenders.collecting],
}
"""What is timed together, each in a process of its own."""


def timed(make: Make, rounds: int, clocks: Sequence[str]) -> list[Row]:
    """Return the rows of one group, bars only by the first of the clocks."""
    th.set_num_threads(1)
    with threadpool_limits(1):
        found = make()
        samples = interleaved(found, rounds)
        rows = rows_of(found, samples, clock=clocks[0])
        for clock in clocks[1:]:
            rows += rows_of(unjudged(found), samples, clock=clock)
        return rows


def raced(make: Make, rounds: int, clocks: Sequence[str]) -> list[Row]:
    """Return the same from a fresh process, and show them."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        rows = pool.submit(timed, make, rounds, clocks).result()
    show(rows)
    return rows


def cuda_rows(rounds: int) -> list[Row]:
    """Return the rows of the GPU, or one that says that there is none."""
    if th.cuda.is_available():
        return raced(contenders.on_cuda, rounds, ["wall"])
    rows = [Row("on cuda: missing, as torch sees no CUDA device here", "", float("nan"), "none")]
    show(rows)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    known = [*GROUPS, "memory", "cuda"]
    parser.add_argument("--group", action="append", choices=known, help="only these")
    parser.add_argument("--output", type=Path, default=Path("zoo/results/bench_bo_mrl.csv"))
    arguments = parser.parse_args()
    chosen, rows = arguments.group or known, list[Row]()
    for name in known[:-2]:
        for make in GROUPS[name] if name in chosen else ():
            rows += raced(make, arguments.rounds, ["cpu", "wall"])
            write(rows, arguments.output)  # after each, so that nothing is lost
    if "memory" in chosen:
        found = memory_rows()
        show(found)
        rows += found
    if "cuda" in chosen:
        rows += cuda_rows(arguments.rounds)
    write(rows, arguments.output)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
