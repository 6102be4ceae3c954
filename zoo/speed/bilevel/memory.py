"""Peak memory of tabular BO-MRL, of processes that do one thing each."""

import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch as th

from metarl_agents.bilevel.exact import evaluate
from zoo.speed.bilevel.contenders import SIZES, repeated_updates
from zoo.speed.bilevel.problem import lakes, meta_logits
from zoo.speed.timing import Row


def memory_rows(runs: Iterable[str] | None = None) -> list[Row]:
    """Peak memory of whole processes, of which the first only imports.

    :param runs: names of what they do; None for all
    """
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in _RUNS if runs is None else runs:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            megabytes = pool.submit(peak_megabytes, name).result()
        rows.append(Row(f"peak memory: {name}", "MB", megabytes, "memory"))
    return rows


def peak_megabytes(name: str) -> float:
    """Largest resident size of this process so far, after a run.

    :param name: of the run
    """
    th.set_num_threads(1)
    _RUNS[name]()
    # Unlike ru_maxrss, this knows nothing of the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) / 1024


def _imports_alone() -> None:
    pass


def _evaluation_alone(n_tasks: int) -> None:
    tasks = lakes(n_tasks)
    evaluate(tasks, meta_logits(tasks).softmax(-1))


def _updates_alone(algorithm: int, n_tasks: int) -> None:
    repeated_updates(algorithm, n_tasks, 2)()


_RUNS: Mapping[str, Callable[[], None]] = {
    "imports": _imports_alone,
    "evaluation, 400 tasks": partial(_evaluation_alone, 400),
    **{f"agent, Alg 2, {m} tasks": partial(_updates_alone, 2, m) for m in SIZES},
    "agent, Alg 1, 400 tasks": partial(_updates_alone, 1, 400),
    "agent, Alg 3, 400 tasks": partial(_updates_alone, 3, 400),
}
