"""Interleaved timing of contenders in one process, and the table that comes of it."""

import csv
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np

QUIET = 0.05
"""Share of the machine's CPU time that others may take in a round that counts as quiet."""
_LEAST_QUIET_ROUNDS = 3
_LIBRARIES = ("gymnasium", "numpy", "scipy", "mujoco", "stable-baselines3", "torch", "envpool")


class Contender(NamedTuple):
    """Something that is timed, and what it is compared with."""

    run: Callable[[], None]
    n_units: int
    """what one run does: environment steps, tasks, ..."""
    unit: str = "env steps/s"
    against: tuple[tuple[str, float | None], ...] = ()
    """names of the contenders that it is compared with, each with the smallest ratio of rates, own
    to theirs, that is good enough
    """
    most_milliseconds: float | None = None
    """longest call that is good enough; the table then shows milliseconds instead of rates"""
    n_calls: int = 1
    """calls in one run"""
    n_threads: int = 1
    """threads (or processes) that it uses; comparisons by CPU time need 1"""


class Sample(NamedTuple):
    """One run."""

    wall: float
    """s"""
    cpu: float
    """s, of this process and its children"""
    foreign: float
    """share of the machine's CPU time that went to other processes"""


class Row(NamedTuple):
    """One line of the table; rates per second, of wall or of CPU time."""

    name: str
    unit: str
    rate: float
    clock: str
    reference: str = ""
    ratio: float = 1.0
    low: float = 1.0
    high: float = 1.0
    bar: str = ""


def interleaved(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Sample]]:
    """Samples of every contender, round after round, without a first round to warm up.

    :param contenders: by name
    :param rounds: samples of each
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            taken = _sample(contender.run)
            if turn:
                samples[name].append(taken)
    return samples


def rows_of(
    contenders: Mapping[str, Contender],
    samples: Mapping[str, Sequence[Sample]],
    *,
    clock: str | None = None,
) -> list[Row]:
    """One row per contender, ratios taken within rounds.

    :param contenders: by name
    :param samples: of each
    :param clock: "cpu" or "wall"; where absent, wall time of the quiet rounds where there are
        enough of them, else CPU time, which is fair between contenders of one thread only
    """
    rows = []
    for name, contender in contenders.items():
        if contender.most_milliseconds is not None:
            rows.append(_timed_row(name, contender, samples[name], clock or "cpu"))
            continue
        chosen, rounds = _comparable(samples[name], samples[name], clock)
        rates = _rates(contender, samples[name], chosen)[rounds]
        rows.append(Row(name, contender.unit, float(np.median(rates)), chosen))
        for reference, least in contender.against:
            pair = _Pair(contender, contenders[reference], samples[name], samples[reference])
            rows.append(_compared(name, reference, pair, least, clock))
    return rows


def unjudged(contenders: Mapping[str, Contender]) -> dict[str, Contender]:
    """The same contenders and comparisons without bars.

    :param contenders: by name
    """
    return {
        name: each._replace(
            against=tuple((reference, None) for reference, _ in each.against),
            most_milliseconds=None if each.most_milliseconds is None else np.inf,
        )
        for name, each in contenders.items()
    }


class _Pair(NamedTuple):
    own: Contender
    other: Contender
    own_samples: Sequence[Sample]
    other_samples: Sequence[Sample]


def _compared(
    name: str, reference: str, pair: _Pair, least: float | None, clock: str | None
) -> Row:
    chosen, rounds = _comparable(pair.own_samples, pair.other_samples, clock)
    rates = _rates(pair.own, pair.own_samples, chosen)[rounds]
    ratios = rates / _rates(pair.other, pair.other_samples, chosen)[rounds]
    ratio, bar = float(np.median(ratios)), ""
    if least is not None:
        bar = f">= {least:.3g}x: {'met' if ratio >= least else 'MISSED'}"
        if chosen == "cpu" and max(pair.own.n_threads, pair.other.n_threads) > 1:
            bar = f">= {least:.3g}x: not judged, as too few rounds were quiet"
    return Row(
        name,
        pair.own.unit,
        float(np.median(rates)),
        chosen,
        reference,
        ratio,
        float(ratios.min()),
        float(ratios.max()),
        bar,
    )


def show(rows: Sequence[Row]) -> None:
    """Prints the table."""
    for row in rows:
        if row.reference:
            against = f"{row.ratio:8.2f}x [{row.low:.2f}, {row.high:.2f}] {row.reference}"
            print(f"{'':<58}{'':>13} {against:<96} ({row.clock}) {row.bar}")
            continue
        rate = f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.2f}"
        print(f"{row.name:<58}{rate:>13} {row.unit} ({row.clock}) {row.bar}")


def write(rows: Sequence[Row], path: Path) -> None:
    """Writes the table as CSV, with what it depends on in comments above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        for name, value in stamp().items():
            file.write(f"# {name}: {value}\n")
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        for row in rows:
            numbers = (f"{row.ratio:.3f}", f"{row.low:.3f}", f"{row.high:.3f}")
            rate = f"{row.rate:.4g}" if row.rate < 100 else f"{row.rate:.0f}"
            writer.writerow((row.name, row.unit, rate, row.clock, row.reference, *numbers, row.bar))


def stamp() -> dict[str, str]:
    """What figures depend on: commit, Python, libraries, cores."""
    found = {"commit": commit(), "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "cores": str(os.cpu_count())}


def commit() -> str:
    """The commit of the sources, shortened, or "unknown" where there is no repository."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


def _sample(run: Callable[[], None]) -> Sample:
    busy, own, start = _busy_seconds(), _own_seconds(), time.perf_counter()
    run()
    wall = time.perf_counter() - start
    cpu = _own_seconds() - own
    foreign = max(0.0, _busy_seconds() - busy - cpu) / (wall * (os.cpu_count() or 1))
    return Sample(wall, cpu, foreign)


def _busy_seconds() -> float:
    """CPU time that all processes of the machine have used."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU time of this process, of its children that ended, and of those that live."""
    times = os.times()
    own = time.process_time() + times.children_user + times.children_system
    return own + sum(_seconds_of(child) for child in _descendants(os.getpid()))


def _descendants(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []
    return children + [each for child in children for each in _descendants(child)]


def _seconds_of(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            # The command's name, in parentheses, may hold blanks.
            user, system = file.read().rpartition(")")[2].split()[11:13]
    except FileNotFoundError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _comparable(
    samples: Sequence[Sample], others: Sequence[Sample], clock: str | None
) -> tuple[str, list[int]]:
    every = list(range(len(samples)))
    if clock is not None:
        return clock, every
    quiet = [i for i in every if max(samples[i].foreign, others[i].foreign) < QUIET]
    if len(quiet) >= _LEAST_QUIET_ROUNDS:
        return "wall, quiet", quiet
    return "cpu", every


def _timed_row(name: str, contender: Contender, samples: Sequence[Sample], clock: str) -> Row:
    most = contender.most_milliseconds
    assert most is not None
    times = 1e3 / _rates(contender._replace(n_units=contender.n_calls), samples, clock)
    value = float(np.median(times))
    bar = f"<= {most:g} ms: {'met' if value <= most else 'MISSED'}" if most < np.inf else ""
    return Row(name, "ms", value, clock, low=times.min(), high=times.max(), bar=bar)


def _rates(contender: Contender, samples: Sequence[Sample], clock: str) -> np.ndarray:
    seconds = np.array([each.cpu if clock == "cpu" else each.wall for each in samples])
    return contender.n_units / seconds
