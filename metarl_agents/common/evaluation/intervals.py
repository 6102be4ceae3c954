"""Interquartile means and bootstrap intervals of scores over seeds and tasks.

Shapes: R seeds, M tasks, C columns.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
StatisticName = Literal["iqm", "mean"]

# Elements of one batch of resamples: bounds the memory of long curves (64 MiB of float64).
_BATCH_ELEMENTS = 2**23


class Interval(NamedTuple):
    """A point estimate and the bounds of its bootstrap interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Curve(NamedTuple):
    """Estimates after 0, 1, ..., K adaptations and their bootstrap bounds, each (K+1,)."""

    estimate: Floats
    low: Floats
    high: Floats


def interquartile_mean(scores: Floats, axis: int = -1) -> Floats:
    """Mean of the middle half of the scores along `axis`.

    A quarter of the values, rounded down, is cut at either end (Agarwal et al. 2021,
    https://arxiv.org/abs/2108.13264).

    :param scores: Array of any shape
    :param axis: The axis to reduce
    """
    return np.asarray(stats.trim_mean(scores, 0.25, axis=axis), dtype=np.float64)


def named_statistic(name: StatisticName) -> Callable[[Floats], Floats]:
    """The function that reduces the last axis: the interquartile mean or the plain mean.

    :param name: `"iqm"` or `"mean"`
    """
    if name == "iqm":
        return interquartile_mean
    if name == "mean":
        return _mean
    raise ValueError(f"statistic={name!r} is unknown; use 'iqm' or 'mean'")


def bootstrap_curve(
    statistic: Callable[..., Floats],
    *scores: Floats,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Curve:
    """Percentile bootstrap intervals of a statistic of paired scores (R, M, C).

    With several seeds the resampling is stratified: the seeds of every task are drawn anew within
    that task, as in Agarwal et al. (2021). With one seed there is nothing to draw within a task,
    so the tasks are drawn anew. All arrays are resampled together, and so are their columns. With
    a single seed and a single task no interval exists: its bounds are NaN.

    The percentile method is used rather than BCa: its bounds stay defined where the resampled
    statistic is constant.

    :param statistic: Maps arrays (C, ..., R*M), one for each of `scores`, to (C, ...)
    :param scores: Arrays of one shape (R, M, C)
    :param confidence_level: Probability covered by the interval
    :param n_resamples: Number of bootstrap resamples
    :param seed: Seed of the resampling
    """
    _check_bootstrap(confidence_level, n_resamples)
    columns = [np.moveaxis(np.asarray(values, dtype=np.float64), -1, 0) for values in scores]
    if columns[0].shape[1] == 1:
        columns = [values.swapaxes(1, 2) for values in columns]
    n_columns, n_units, n_strata = columns[0].shape
    estimate = np.asarray(statistic(*(values.reshape(n_columns, -1) for values in columns)))
    if n_units < 2:
        return Curve(estimate, np.full(n_columns, np.nan), np.full(n_columns, np.nan))
    interval = stats.bootstrap(
        (np.arange(n_units),) * n_strata,
        _of_units(statistic, columns),
        n_resamples=n_resamples,
        batch=max(1, _BATCH_ELEMENTS // (columns[0].size * len(columns))),
        vectorized=True,
        axis=-1,
        confidence_level=confidence_level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Curve(estimate, np.asarray(interval.low), np.asarray(interval.high))


def _of_units(statistic: Callable[..., Floats], columns: list[Floats]) -> Callable[..., Floats]:
    """The statistic as a function of which units (..., units) were drawn in each stratum.

    SciPy resamples the strata's unit numbers rather than their scores, so that one draw picks from
    every array: that keeps the scores paired.

    :param statistic: see `bootstrap_curve`
    :param columns: arrays (C, units, strata)
    """
    n_columns, _, n_strata = columns[0].shape

    def resampled(*units: NDArray[np.int64], axis: int = -1) -> Floats:
        drawn = np.stack(np.broadcast_arrays(*units), axis=-1)
        picked = (values[:, drawn, np.arange(n_strata)] for values in columns)
        shape = (n_columns, *drawn.shape[:-2], -1)
        return np.asarray(statistic(*(scores.reshape(shape) for scores in picked)))

    return resampled


def bootstrap_interval(
    statistic: Callable[..., Floats],
    *scores: Floats,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The interval of one column: `bootstrap_curve` for scores (R, M).

    :param statistic: Maps arrays (1, ..., R*M), one for each of `scores`, to (1, ...)
    :param scores: Arrays of one shape (R, M)
    :param confidence_level: Probability covered by the interval
    :param n_resamples: Number of bootstrap resamples
    :param seed: Seed of the resampling
    """
    curve = bootstrap_curve(
        statistic,
        *(np.asarray(values)[..., None] for values in scores),
        confidence_level=confidence_level,
        n_resamples=n_resamples,
        seed=seed,
    )
    return Interval(float(curve.estimate[0]), float(curve.low[0]), float(curve.high[0]))


def _mean(scores: Floats) -> Floats:
    return np.asarray(scores.mean(axis=-1))


def _check_bootstrap(confidence_level: float, n_resamples: int) -> None:
    if not 0.0 < confidence_level < 1.0:
        raise ValueError(
            f"confidence_level={confidence_level} must lie strictly between 0 and 1, for example "
            "0.95"
        )
    if n_resamples < 1:
        raise ValueError(f"n_resamples={n_resamples} must be at least 1; 2000 is the default")
