"""Plays the runs of a study side by side, one process each, until they or the time are over."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from metarl_agents.common.task_chunks import one_intra_op_thread
from zoo.allocator import keep_freed_memory
from zoo.report import Grid
from zoo.studies.study import Context, Run, Study, finished, play_run

_LISTENING = 0.5  # s between two looks at the clock while runs go on
_STOP: list[Any] = []
"""In a worker: the event by which all are told to stop."""


@dataclass
class Progression:
    """What became of a study."""

    study: Study
    folder: Path
    unfinished: list[Run] = field(default_factory=list)
    """started and stopped; those with checkpoints go on from there"""
    failures: dict[str, str] = field(default_factory=dict)
    """tracebacks by run and seed"""
    was_stopped: bool = False
    """by Ctrl-C"""

    @property
    def n_missing(self) -> int:
        """How many runs are not finished."""
        return len(self.study.runs) - len(finished(self.study, self.folder))

    def grid(self) -> Grid:
        """What was planned, and what is done."""
        done = finished(self.study, self.folder)
        rows = []
        for name in dict.fromkeys(run.name for run in self.study.runs):
            planned = [run for run in self.study.runs if run.name == name]
            n_done = sum(run in done for run in planned)
            rows.append((name, str(len(planned)), str(n_done), self._state(planned, n_done)))
        columns = ("run", "planned", "done", "state")
        return Grid(f"Runs of {self.study.name}", columns, tuple(rows))

    def _state(self, planned: Sequence[Run], n_done: int) -> str:
        states = []
        n_failed = sum(_label(run) in self.failures for run in planned)
        n_stopped = sum(run in self.unfinished for run in planned)
        if n_failed:
            states.append(f"{n_failed} failed")
        if n_stopped:
            states.append(f"{n_stopped} stopped on the way")
        if not states:
            states.append("finished" if n_done == len(planned) else "waiting")
        return ", ".join(states)


def run_study(
    study: Study,
    folder: Path,
    *,
    n_workers: int = 1,
    time_budget: float | None = None,
    progress: bool = True,
) -> Progression:
    """Play what is missing; Ctrl-C and the end of the time leave what is finished, and checkpoints.

    :param study: the study
    :param folder: where the runs of all studies are kept
    :param n_workers: processes side by side, of one thread each; 1 plays in this process
    :param time_budget: seconds after which nothing new is started and running ones are asked to
        stop; None for no end
    :param progress: show a progress bar
    """
    if n_workers < 1:
        raise ValueError(f"n_workers={n_workers} must be at least 1")
    if time_budget is not None and time_budget < 0:
        raise ValueError(f"time_budget={time_budget} must be at least 0 seconds")
    deadline = None if time_budget is None else time.time() + time_budget
    outcome = Progression(study, folder)
    done = finished(study, folder)
    left = [run for run in study.runs if run not in done]
    with _bar(study, len(done), progress) as advance:
        if n_workers == 1:
            _play_here(outcome, left, deadline, advance)
        elif left:
            _play_side_by_side(outcome, left, deadline, advance, n_workers)
    return outcome


def _play_here(
    outcome: Progression, runs: Sequence[Run], deadline: float | None, advance: Callable[[], None]
) -> None:
    context = Context(outcome.folder / outcome.study.name, deadline)
    with one_intra_op_thread(), threadpool_limits(1):
        for run in runs:
            if context.is_over():
                return
            try:
                is_finished = play_run(outcome.study, run, context)
            except KeyboardInterrupt:
                outcome.unfinished.append(run)
                outcome.was_stopped = True
                return
            except Exception:
                outcome.failures[_label(run)] = traceback.format_exc()
                is_finished = True
            if not is_finished:
                outcome.unfinished.append(run)
            advance()


def _play_side_by_side(
    outcome: Progression,
    runs: Sequence[Run],
    deadline: float | None,
    advance: Callable[[], None],
    n_workers: int,
) -> None:
    waiting = deque(runs)
    # A worker that is killed, as for want of memory, takes its pool with it, not the other runs.
    while not _play_in_pool(outcome, waiting, deadline, advance, n_workers):
        pass


def _play_in_pool(
    outcome: Progression,
    waiting: deque[Run],
    deadline: float | None,
    advance: Callable[[], None],
    n_workers: int,
) -> bool:
    """Plays what is waiting; False where a worker was killed before the end."""
    # Never fork: threads of torch do not survive it.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    going: dict[Future[bool], Run] = {}
    with ProcessPoolExecutor(
        n_workers, mp_context=context, initializer=_start_worker, initargs=(stop,)
    ) as pool:
        try:
            while True:
                is_late = deadline is not None and time.time() >= deadline
                while waiting and len(going) < n_workers and not is_late:
                    task = (outcome.study, waiting[0], outcome.folder / outcome.study.name)
                    future = pool.submit(_played_in_worker, *task, deadline)
                    going[future] = waiting.popleft()
                if not going:
                    return True
                _take(outcome, going, advance)
        except BrokenProcessPool:  # of `submit`
            is_stopped = False
        except KeyboardInterrupt:
            outcome.was_stopped = is_stopped = True
            stop.set()
        while going:
            _take(outcome, going, advance)
    return is_stopped


def _take(
    outcome: Progression, going: dict[Future[bool], Run], advance: Callable[[], None]
) -> None:
    """Waits a little for runs to end, and takes those that did out of `going`."""
    for future in wait(going, _LISTENING, FIRST_COMPLETED).done:
        run, error = going.pop(future), future.exception()
        if error is not None:
            outcome.failures[_label(run)] = "".join(traceback.format_exception(error))
        elif not future.result():
            outcome.unfinished.append(run)
        advance()


def _start_worker(stop: Any) -> None:
    # Ctrl-C reaches every process of the terminal; the first one decides, and asks the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STOP[:] = [stop]
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Where that is killed, nobody waits for the rows, and the next call plays the same runs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _played_in_worker(study: Study, run: Run, folder: Path, deadline: float | None) -> bool:
    context = Context(folder, deadline, lambda: any(stop.is_set() for stop in _STOP))
    with one_intra_op_thread(), threadpool_limits(1):
        return play_run(study, run, context)


@contextmanager
def _bar(study: Study, n_done: int, progress: bool) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), disable=not progress) as bars:
        bar = bars.add_task(study.name, total=len(study.runs), completed=n_done)
        yield lambda: bars.advance(bar)


def _label(run: Run) -> str:
    return f"{run.name}, seed {run.seed}"
