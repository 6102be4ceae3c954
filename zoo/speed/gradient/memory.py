"""Peak memory of meta-gradients and products with the curvature, each in a process of its own."""

import multiprocessing
import resource
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch as th

from metarl_agents.common.fisher import meta_fisher_product
from zoo.speed.gradient.problem import INNER_LR, differentiated, multiplied, problem
from zoo.speed.timing import Row

MOST_MEGABYTES = 1200.0


def memory_rows(runs: Iterable[str] = ("1 worker", "2 workers", "vmap", "trpo")) -> list[Row]:
    """Peak memory of whole processes, each of which does one thing and nothing else.

    :param runs: names of what they do
    """
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in runs:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            megabytes = pool.submit(peak_megabytes, name).result()
        bar = ""
        if name != "vmap":
            said = "met" if megabytes <= MOST_MEGABYTES else "MISSED"
            bar = f"<= {MOST_MEGABYTES:g} MB: {said}"
        what = _MEMORY_RUNS[name][0]
        rows.append(Row(f"peak memory: {what}", "MB", megabytes, "memory", bar=bar))
    return rows


def peak_megabytes(name: str) -> float:
    """Largest resident size of this process so far, after a run.

    :param name: of the run
    """
    th.set_num_threads(1)
    _MEMORY_RUNS[name][1]()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _gradient_alone(**arguments: Any) -> None:
    differentiated(problem(), **arguments)()


def _trpo_alone() -> None:
    given = problem()
    inner, outer = given.data
    product = meta_fisher_product(
        given.network, given.params, [inner], outer, inner_lr=INNER_LR, n_workers=2
    )
    multiplied(product, given.params)


_MEMORY_RUNS: Mapping[str, tuple[str, Callable[[], None]]] = {
    "1 worker": ("meta-gradient, 1 worker", partial(_gradient_alone, n_workers=1)),
    "2 workers": ("meta-gradient, 2 workers", partial(_gradient_alone, n_workers=2)),
    "vmap": ("meta-gradient, all tasks by vmap", partial(_gradient_alone, backend="vmap")),
    "trpo": ("product for TRPO, graphs kept", _trpo_alone),
}
