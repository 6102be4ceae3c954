"""Chunks of tasks and the pool of threads."""

import threading
from typing import NamedTuple

import pytest
import torch as th

from metarl_agents.common.task_chunks import (
    ROWS_PER_CHUNK,
    chunk_of,
    chunk_plan,
    count_tasks,
    for_each_task,
    map_tensors,
    rows_per_task,
    run_on_threads,
)

PARAMS = {"w": th.zeros(3, 2)}


class Pair(NamedTuple):
    first: th.Tensor
    second: th.Tensor | None


@pytest.fixture
def two_threads():
    before = th.get_num_threads()
    th.set_num_threads(2)
    yield
    assert th.get_num_threads() == 2
    th.set_num_threads(before)


@pytest.mark.parametrize("n_workers", [1, 2, 3, 20])
def test_results_come_in_order_from_one_intra_op_thread_each(two_threads, n_workers):
    results = run_on_threads(
        lambda item: (item, th.get_num_threads(), threading.get_ident()),
        range(9),
        n_workers=n_workers,
    )
    assert [item for item, _, _ in results] == list(range(9))
    assert {threads for _, threads, _ in results} == {1}
    assert (threading.get_ident() in {ident for *_, ident in results}) == (n_workers == 1)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_thread_counts_are_restored_after_an_exception(two_threads, n_workers):
    def fail(item):
        raise RuntimeError(f"item {item}")

    with pytest.raises(RuntimeError, match="item 0"):
        run_on_threads(fail, range(4), n_workers=n_workers)
    assert th.get_num_threads() == 2
    with pytest.raises(ValueError, match="n_workers=0"):
        run_on_threads(fail, range(4), n_workers=0)


def test_threads_started_later_keep_the_callers_number(two_threads):
    run_on_threads(lambda item: item, range(4), n_workers=2)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(th.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [2]


def test_nested_data_is_split_by_task_and_a_single_task_loses_its_axis():
    data = {"pair": Pair(th.arange(6).reshape(3, 2), None), "list": [th.arange(3)], "t": ()}
    two = chunk_of(data, slice(1, 3))
    assert isinstance(two["pair"], Pair)
    assert two["pair"].first.tolist() == [[2, 3], [4, 5]]
    assert two["pair"].second is None
    assert two["list"][0].tolist() == [1, 2]
    one = chunk_of(data, slice(1, 2))
    assert one["pair"].first.tolist() == [2, 3]
    assert one["list"][0].tolist() == 1
    assert count_tasks(data) == 3


def test_data_that_cannot_be_split_is_refused():
    with pytest.raises(TypeError, match="data holds a float"):
        map_tensors(lambda tensor: tensor, {"alpha": 0.1})
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        count_tasks((th.zeros(2), th.zeros(3)))
    with pytest.raises(ValueError, match=r"lengths \[0\]"):
        count_tasks(th.zeros(()))
    with pytest.raises(ValueError, match=r"lengths \[\]"):
        count_tasks(None)


def test_shared_parameters_get_a_task_axis_unless_there_is_one_task():
    assert for_each_task(PARAMS, 1) is PARAMS
    assert for_each_task(PARAMS, 4)["w"].shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("backend", "chunk_size", "sizes"),
    [
        ("loop", None, [1] * 5),
        ("loop", 3, [1] * 5),
        ("batched", None, [5]),
        ("vmap", 2, [2, 2, 1]),
        ("threads", 4, [4, 1]),
        ("threads", 9, [5]),
    ],
)
def test_plans_cover_all_tasks_in_order(backend, chunk_size, sizes):
    plan = chunk_plan(backend, chunk_size, PARAMS, th.zeros(5, 2, 3))
    assert plan.backend == backend
    assert [chunk.stop - chunk.start for chunk in plan.chunks] == sizes
    covered = [task for chunk in plan.chunks for task in range(chunk.start, chunk.stop)]
    assert covered == list(range(5))


def test_on_a_cpu_chunks_hold_about_as_many_rows_as_the_caches():
    for n_steps, size in ((ROWS_PER_CHUNK, 1), (ROWS_PER_CHUNK // 8, 8), (4 * ROWS_PER_CHUNK, 1)):
        plan = chunk_plan("auto", None, PARAMS, (th.zeros(40, 1, n_steps), th.zeros(40)))
        assert plan.backend == "threads"
        assert plan.chunks[0] == slice(0, size)
    few_rows = chunk_plan("auto", None, PARAMS, th.zeros(8, 1, 1))
    assert len(few_rows.chunks) == 4
    assert rows_per_task((th.zeros(7, 2, 3, 5), th.zeros(7, 9), None)) == 6


def test_unknown_plans_are_refused():
    with pytest.raises(ValueError, match="backend='processes' is not known"):
        chunk_plan("processes", None, PARAMS, th.zeros(2))
    with pytest.raises(ValueError, match="chunk_size=0"):
        chunk_plan("batched", 0, PARAMS, th.zeros(2))
