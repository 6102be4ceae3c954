"""Means over seeds with their intervals, and what they say in words.

Values of one seed are means over its own tasks, so that seeds are what is drawn anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from metarl_agents.common.evaluation.intervals import Interval

_CONFIDENCE = 0.95


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """
    The mean over seeds with the 95 % interval of Student's t; NaN bounds for a single seed.

    :param values: one per seed
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return Interval(float(array.mean()), np.nan, np.nan)
    half = stats.t.ppf(0.5 + _CONFIDENCE / 2, len(array) - 1) * stats.sem(array)
    return Interval(float(array.mean()), float(array.mean() - half), float(array.mean() + half))


def by_seed(rows: Iterable[Mapping[str, Any]], column: str, /, **where: object) -> dict[int, float]:
    """
    The numbers of a column, by seed; rows in which it is empty are left out.

    :param rows: of a table, fresh or read from a file
    :param column: its name
    :param where: what other columns must hold; one row of each seed at most
    """
    found: dict[int, float] = {}
    for row in rows:
        if row.get(column, "") != "" and all(str(row.get(k)) == str(v) for k, v in where.items()):
            seed = int(row["seed"])
            if seed in found:
                raise ValueError(f"several rows of seed {seed} have {column} with {where}")
            found[seed] = float(row[column])
    return found


def interval_of(rows: Iterable[Mapping[str, Any]], column: str, /, **where: object) -> Interval:
    """
    The mean over seeds of what `by_seed` finds.

    :param rows: of a table
    :param column: its name
    :param where: what other columns must hold
    """
    return mean_interval(list(by_seed(rows, column, **where).values()))


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Interval:
    """
    The first minus the second, seed by seed.

    :param first: by seed
    :param second: by seed
    """
    both = sorted(first.keys() & second.keys())
    return mean_interval([first[seed] - second[seed] for seed in both])


def sign_of(interval: Interval) -> int:
    """
    1 or -1 where the interval excludes 0, else 0; a single seed says nothing.

    :param interval: of a difference
    """
    return int(interval.low > 0.0) - int(interval.high < 0.0)


def change_text(interval: Interval) -> str:
    """
    ``falls by 0.12 [0.10, 0.14]``, or that there is no clear change.

    :param interval: of a difference
    """
    sign = sign_of(interval)
    if sign > 0:
        return f"rises by {cell(interval)}"
    if sign < 0:
        return f"falls by {cell(Interval(-interval.estimate, -interval.high, -interval.low))}"
    return f"shows no clear change ({cell(interval)})"


def cell(interval: Interval) -> str:
    """
    ``0.123 [0.101, 0.145]``; without bounds where there is a single seed.

    :param interval: mean and bounds
    """
    if np.isnan(interval.low):
        return f"{interval.estimate:.3g}"
    return str(interval)


def mean_cell(values: Mapping[int, float]) -> str:
    """
    The mean over seeds and its interval; nothing where there is no seed.

    :param values: by seed
    """
    return cell(mean_interval([*values.values()])) if values else ""


def levels_of(rows: Iterable[Mapping[str, Any]], column: str) -> list[str]:
    """
    What a column holds, in order, as text.

    :param rows: of a table
    :param column: its name
    """
    return list(dict.fromkeys(str(row[column]) for row in rows if row.get(column, "") != ""))
