"""Work on many tasks: in chunks that fit the caches, on a pool of threads.

On a CPU, the activations of a paper-size meta-batch do not fit the caches, so tasks are taken in
chunks and the chunks are spread over threads with one intra-op thread each. Chunks never depend on
the number of workers: neither do results, bit for bit, as long as they are summed in order.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch as th
from torch import Tensor

from metarl_agents.common.policies.networks import Params

Item = TypeVar("Item")
Result = TypeVar("Result")
Backend = Literal["auto", "loop", "threads", "batched", "vmap"]

ROWS_PER_CHUNK = 6000  # fewer pay more per operation, the activations of more leave the caches
LEAST_CHUNKS = 4  # so that a few workers have something to share
COPIES_OF_ACTIVATIONS = 24  # what a second-order gradient keeps, generously
PART_OF_FREE_MEMORY = 0.4


class ChunkPlan(NamedTuple):
    """How to go through the tasks.

    :param backend: any but "auto"
    :param chunks: slices of the task axis, in order
    """

    backend: Backend
    chunks: list[slice]

    def map(self, function: Callable[[slice], Result], *, n_workers: int) -> list[Result]:
        """Return the function of every chunk, in order; "threads" spreads them over a pool.

        :param function: must not change anything shared
        :param n_workers: threads of the pool
        """
        if self.backend == "threads":
            return run_on_threads(function, self.chunks, n_workers=n_workers)
        return [function(chunk) for chunk in self.chunks]


def chunk_plan(backend: Backend, chunk_size: int | None, params: Params, data: Any) -> ChunkPlan:
    """Return the chunks of tasks that suit device and data.

    :param backend: "loop" (single tasks), "threads", "batched", "vmap" (all tasks at once unless
        ``chunk_size`` is given), "auto" ("threads" on a CPU, else "batched")
    :param chunk_size: tasks per chunk; None chooses
    :param params: the parameters of the network
    :param data: nested data with a leading axis M
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r} is not known: use one of {get_args(Backend)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1, or None to choose")
    n_tasks = count_tasks(data)
    device = next(iter(params.values())).device
    if backend == "auto":
        backend = "threads" if device.type == "cpu" else "batched"
        if device.type == "cuda" and chunk_size is None:
            chunk_size = _tasks_that_fit(params, data, device)
    if backend == "threads" and chunk_size is None:
        fitting = max(ROWS_PER_CHUNK // rows_per_task(data), 1)
        chunk_size = min(fitting, ceil(n_tasks / LEAST_CHUNKS))
    size = 1 if backend == "loop" else min(chunk_size or n_tasks, n_tasks)
    return ChunkPlan(
        backend, [slice(at, min(at + size, n_tasks)) for at in range(0, n_tasks, size)]
    )


def run_on_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, n_workers: int
) -> list[Result]:
    """Return the function of every item, in order, each computed with one intra-op thread; the
    caller's number of threads is restored.

    :param function: must not change anything shared
    :param items: one call each
    :param n_workers: threads of the pool; 1 works in the calling thread
    """
    if n_workers < 1:
        raise ValueError(f"n_workers={n_workers} must be at least 1")
    n_workers = min(n_workers, len(items))
    with one_intra_op_thread():
        if n_workers <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(n_workers, initializer=th.set_num_threads, initargs=(1,)) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()


@contextmanager
def one_intra_op_thread() -> Iterator[None]:
    """Give PyTorch one thread per operation for a while."""
    before = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(before)


def map_tensors(function: Callable[[Tensor], Any], data: Any) -> Any:
    """Return nested data with every tensor replaced by the function of it.

    :param function: of one tensor
    :param data: tensors and None, in tuples (also named ones), lists and dicts
    """
    if data is None:
        return None
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, dict):
        return {key: map_tensors(function, value) for key, value in data.items()}
    if isinstance(data, list):
        return [map_tensors(function, value) for value in data]
    if isinstance(data, tuple):
        values = [map_tensors(function, value) for value in data]
        return type(data)._make(values) if hasattr(data, "_make") else tuple(values)
    raise TypeError(
        f"data holds a {type(data).__name__}: only tensors and None, in tuples, lists and dicts, "
        "can be split over tasks"
    )


def chunk_of(data: Any, chunk: slice) -> Any:
    """Return the data of a chunk of tasks; a single task has no task axis.

    Without it a network multiplies plain matrices, which is faster than stacks of one.

    :param data: nested data with a leading axis M
    :param chunk: which tasks
    """
    index = chunk.start if chunk.stop - chunk.start == 1 else chunk
    return map_tensors(lambda tensor: tensor[index], data)


def for_each_task(params: Params, n_tasks: int) -> Params:
    """Return shared parameters with a task axis in front; for a single task as they are.

    :param params: tensors by name
    :param n_tasks: length of the axis
    """
    if n_tasks == 1:
        return params
    return {name: param.expand(n_tasks, *param.shape) for name, param in params.items()}


def count_tasks(data: Any) -> int:
    """Return M, the length of the first axis of all tensors.

    :param data: nested data
    """
    lengths: set[int] = set()
    map_tensors(lambda tensor: lengths.add(tensor.shape[0] if tensor.ndim else 0), data)
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "data must hold tensors that share a first axis of at least one task, got lengths "
            f"{sorted(lengths)}"
        )
    return lengths.pop()


def rows_per_task(data: Any) -> int:
    """Return the largest number of rows E T that a tensor (M, E, T, ...) of the data has.

    :param data: nested data with a leading axis M
    """
    rows = [1]
    map_tensors(lambda x: rows.append(x.shape[1] * x.shape[2] if x.ndim > 2 else 1), data)
    return max(rows)


def _tasks_that_fit(params: Params, data: Any, device: th.device) -> int:
    free, _ = th.cuda.mem_get_info(device)
    width = sum(max(param.shape, default=1) * param.element_size() for param in params.values())
    bytes_per_task = COPIES_OF_ACTIVATIONS * width * rows_per_task(data)
    return max(int(PART_OF_FREE_MEMORY * free / bytes_per_task), 1)
