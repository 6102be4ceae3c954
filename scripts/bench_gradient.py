"""How fast meta-learning by gradients is: sampling, meta-gradients, products for TRPO, iterations.

Contenders run interleaved in one process; ratios are taken within rounds, and the table shows their
medians with the smallest and the largest. Let nothing else run meanwhile. On a machine with CUDA a
second table is written, from runs on the GPU.

    python scripts/bench_gradient.py [--peers] [--rounds 7] [--group NAME] [--cuda-only]
"""

import argparse
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch as th
from threadpoolctl import threadpool_limits

from zoo.speed.gradient import contenders
from zoo.speed.gradient.memory import memory_rows
from zoo.speed.timing import Contender, Row, interleaved, rows_of, show, write

Make = Callable[[], dict[str, Contender]]
_MOST_LONG_ROUNDS = 3  # of whole iterations, which take half a minute


def groups(peers: bool) -> Mapping[str, list[Make]]:
    """Return what is timed together, each in a process of its own."""
    return {
        "sampling": [partial(contenders.sampling, n_threads) for n_threads in (1, 2)],
        "meta_gradient": [partial(contenders.meta_gradients, peers=peers)],
        "product": [contenders.curvature],
        "iteration": [contenders.iterations],
    }


def cuda_groups() -> Mapping[str, list[Make]]:
    """Return the same for machines with CUDA."""
    iteration = partial(contenders.iterations, "cuda", 1)
    return {"cuda": [contenders.on_cuda], "iteration": [iteration]}


def timed(make: Make, rounds: int, clock: str | None) -> list[Row]:
    """Return the rows of one group: wall time where the machine was quiet, else CPU time."""
    th.set_num_threads(1)
    with threadpool_limits(1):
        found = make()
        return rows_of(found, interleaved(found, rounds), clock=clock)


def race(
    makers: Mapping[str, list[Make]], rounds: int, output: Path, *, clock: str | None, memory: bool
) -> None:
    """Time every group and write the table after each, so that nothing is lost."""
    context = multiprocessing.get_context("spawn")
    rows: list[Row] = []
    for name, group in makers.items():
        for make in group:
            n_rounds = min(rounds, _MOST_LONG_ROUNDS) if name == "iteration" else rounds
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                found = pool.submit(timed, make, n_rounds, clock).result()
            show(found)
            rows += found
            write(rows, output)
    if memory:
        found = memory_rows()
        show(found)
        write(rows + found, output)
    print(f"written to {output}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="race cloned modules, too")
    known = [*groups(False), "memory"]
    parser.add_argument("--group", action="append", choices=known, help="only these; CPU")
    parser.add_argument("--cuda-only", action="store_true", help="only what runs on the GPU")
    parser.add_argument("--output", type=Path, default=Path("zoo/results/bench_gradient.csv"))
    arguments = parser.parse_args()
    if arguments.cuda_only and not th.cuda.is_available():
        parser.error("--cuda-only: torch sees no CUDA device here")
    if not arguments.cuda_only:
        chosen = arguments.group or known
        makers = {name: group for name, group in groups(arguments.peers).items() if name in chosen}
        race(makers, arguments.rounds, arguments.output, clock=None, memory="memory" in chosen)
    if th.cuda.is_available() and not arguments.group:
        output = arguments.output.with_name(f"{arguments.output.stem}_cuda.csv")
        race(cuda_groups(), arguments.rounds, output, clock="wall", memory=False)


if __name__ == "__main__":
    main()
