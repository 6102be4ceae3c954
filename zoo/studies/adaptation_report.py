"""Tables and pictures of studies in which agents adapt to held-out tasks.

Shapes: R seeds, M tasks, C columns, K adaptations.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl_agents.common.evaluation.intervals import (
    Curve,
    Interval,
    bootstrap_curve,
    named_statistic,
)
from zoo.report import Grid, interval_text, new_figure, save_png

Rows = Sequence[Mapping[str, Any]]
_N_RESAMPLES = 1000


def names_of(rows: Rows) -> list[str]:
    """
    The runs of a table, in order.

    :param rows: of the table
    """
    return list(dict.fromkeys(row["run"] for row in rows))


def rows_of(rows: Rows, name: str) -> list[Mapping[str, Any]]:
    """
    The rows of a run, of all its seeds.

    :param rows: of the table
    :param name: of the run
    """
    return [row for row in rows if row["run"] == name]


def protocols_of(rows: Rows) -> list[str]:
    """
    The ways in which they were evaluated.

    :param rows: of the table
    """
    return list(dict.fromkeys(row["protocol"] for row in rows if row.get("protocol")))


def scores(rows: Rows, name: str, protocol: str) -> np.ndarray:
    """
    Mean returns of every task after 0 to K adaptations, (R, M, K+1).

    :param rows: of the table
    :param name: of the run
    :param protocol: of the evaluation
    """
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows_of(rows, name):
        if row.get("protocol") == protocol:
            by_task = [float(value) for value in str(row["by_task"]).split()]
            found[int(row["seed"]), int(row["step"])] = by_task
    if not found:
        raise ValueError(f"the table has no evaluation {protocol!r} of {name!r}")
    seeds = sorted({seed for seed, _ in found})
    steps = sorted({step for _, step in found})
    return np.array([[found[seed, step] for step in steps] for seed in seeds]).swapaxes(1, 2)


def curve_of(rows: Rows, name: str, protocol: str) -> Curve:
    """
    Interquartile means over seeds and tasks after 0 to K adaptations, with 95 % intervals.

    :param rows: of the table
    :param name: of the run
    :param protocol: of the evaluation
    """
    values = scores(rows, name, protocol)
    return bootstrap_curve(named_statistic("iqm"), values, n_resamples=_N_RESAMPLES)


def median_of_seeds(rows: Rows, name: str, protocol: str, step: int) -> float:
    """
    The median over seeds of the mean over tasks.

    :param rows: of the table
    :param name: of the run
    :param protocol: of the evaluation
    :param step: adaptations
    """
    return float(np.median(scores(rows, name, protocol)[..., step].mean(axis=1)))


def adaptation_grid(rows: Rows, protocol: str, *, beside: Mapping[str, Sequence[float]]) -> Grid:
    """
    Return after 0 to K adaptations, one line per run, and published values.

    :param rows: of the table
    :param protocol: of the evaluation
    :param beside: published returns after 0, 1, ... steps, by their source
    """
    lines = []
    n_steps = max(scores(rows, name, protocol).shape[-1] for name in names_of(rows))
    for name in names_of(rows):
        curve = curve_of(rows, name, protocol)
        cells = [interval_text(Interval(*each)) for each in zip(*curve, strict=True)]
        cells += [""] * (n_steps - len(cells))
        n_seeds = str(len(scores(rows, name, protocol)))
        lines.append((name, n_seeds, _number(median_of_seeds(rows, name, protocol, -1)), *cells))
    for source, values in beside.items():
        cells = [f"{value:g}" for value in values[:n_steps]]
        lines.append((source, "", "", *cells, *[""] * (n_steps - len(cells))))
    steps = [f"{step} steps" if step != 1 else "1 step" for step in range(n_steps)]
    columns = ("run", "seeds", "median of seeds, last", *steps)
    title = f"Return after adaptation ({protocol}), interquartile mean [95 % interval]"
    return Grid(title, columns, tuple(lines))


def bars_grid(rows: Rows, protocol: str, step: int, bars: Mapping[str, float]) -> Grid:
    """
    Medians of seeds beside what is expected of them.

    :param rows: of the table
    :param protocol: of the evaluation
    :param step: adaptations
    :param bars: smallest median that is good enough, by run
    """
    lines = []
    for name in names_of(rows):
        curve, median = curve_of(rows, name, protocol), median_of_seeds(rows, name, protocol, step)
        before = median_of_seeds(rows, name, protocol, 0)
        interval = Interval(*(values[step] for values in curve))
        cells = (f"{before:.1f}", f"{median:.1f}", interval_text(interval), "", "")
        if name in bars:
            said = "met" if median >= bars[name] else "MISSED"
            cells = (*cells[:3], f">= {bars[name]:g}", said)
        n_seeds = len(scores(rows, name, protocol))
        lines.append((name, str(n_seeds), *cells))
    columns = ("run", "seeds", "before", "median after", "IQM [95 % interval]", "bar", "")
    return Grid(f"Return after {step} step(s), medians of seeds", columns, tuple(lines))


def draw_adaptation(rows: Rows, path: Path, *, level: tuple[str, float] | None = None) -> None:
    """
    Returns by adaptation step, one panel per evaluation, and returns while training.

    :param rows: of the table
    :param path: PNG
    :param level: a published return, and how to call it
    """
    protocols = protocols_of(rows)
    training = [row for row in rows if row.get("kind") == "training"]
    figure, panels = new_figure(len(protocols) + bool(training), width=5.0 * (len(protocols) + 1))
    for panel, protocol in zip(panels, protocols, strict=False):
        for name in names_of(rows):
            draw_band(panel, curve_of(rows, name, protocol), label=name)
        panel.set_xlabel(f"adaptation steps ({protocol})")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set_ylabel("return, interquartile mean")
        _draw_level(panel, level)
    if training:
        _draw_training(panels[-1], training)
        _draw_level(panels[-1], level)
    panels[0].legend(frameon=False, fontsize=7)
    save_png(figure, path)


def draw_by_inner_steps(rows: Rows, path: Path) -> None:
    """
    Return by the number of steps at test time, one panel per number of steps in training.

    :param rows: of the table, whose runs are called ``NAME, K=k``
    :param path: PNG
    """
    _draw_split(rows, path, ", K=", "trained with K={}", "adaptation steps at test time")


def draw_by_step_size(rows: Rows, path: Path) -> None:
    """
    Return after one step against its size, a line per method.

    :param rows: of the table, whose runs are called ``NAME, inner_lr=a``
    :param path: PNG
    """
    figure, (panel,) = new_figure(1, width=6.0)
    (protocol,) = protocols_of(rows)
    methods: dict[str, list[tuple[float, Interval]]] = {}
    for name in names_of(rows):
        method, _, rate = name.partition(", inner_lr=")
        curve = curve_of(rows, name, protocol)
        last = Interval(*(values[-1] for values in curve))
        methods.setdefault(method, []).append((float(rate), last))
    for method, found in methods.items():
        rates = [rate for rate, _ in sorted(found)]
        estimates = Curve(*np.array([interval for _, interval in sorted(found)]).T)
        draw_band(panel, estimates, label=method, x=rates)
    panel.set_xscale("log")
    panel.set_xlabel("inner_lr, in training and at test time")
    panel.set_ylabel("return after one step")
    panel.legend(frameon=False, fontsize=8)
    save_png(figure, path)


def draw_families(rows: Rows, path: Path) -> None:
    """
    Return by adaptation step, one panel per family.

    :param rows: of the table, whose runs are called ``FAMILY: NAME``
    :param path: PNG
    """
    renamed = []
    for row in rows:
        family, _, method = row["run"].partition(": ")
        renamed.append({**row, "run": f"{method}@{family}"})
    _draw_split(renamed, path, "@", "{}", "adaptation steps")


def draw_band(panel: Any, curve: Curve, *, label: str, x: Sequence[float] | None = None) -> None:
    """
    A line with its interval.

    :param panel: where
    :param curve: the line
    :param label: of the legend
    :param x: by default 0, 1, ...
    """
    places = np.arange(len(curve.estimate)) if x is None else np.asarray(x)
    (line,) = panel.plot(places, curve.estimate, label=label, linewidth=1.5, marker=".")
    panel.fill_between(
        places, curve.low, curve.high, alpha=0.15, color=line.get_color(), linewidth=0
    )


def _draw_split(rows: Rows, path: Path, mark: str, title: str, axis: str) -> None:
    (protocol,) = protocols_of(rows)
    parts: dict[str, list[str]] = {}
    for name in names_of(rows):
        parts.setdefault(name.rpartition(mark)[2], []).append(name)
    figure, panels = new_figure(len(parts), width=4.6 * len(parts))
    for panel, (part, names) in zip(panels, parts.items(), strict=True):
        for name in names:
            draw_band(panel, curve_of(rows, name, protocol), label=name.rpartition(mark)[0])
        panel.set_title(title.format(part), fontsize=10)
        panel.set_xlabel(axis)
    panels[0].set_ylabel("return, interquartile mean")
    panels[0].legend(frameon=False, fontsize=7)
    save_png(figure, path)


def _draw_training(panel: Any, rows: Rows) -> None:
    for name in names_of(rows):
        points: dict[int, list[float]] = {}
        for row in rows_of(rows, name):
            if row["step"] == "K":
                points.setdefault(int(row["iteration"]), []).append(float(row["return"]))
        places = sorted(points)
        panel.plot(places, [np.median(points[place]) for place in places], label=name, linewidth=1)
    panel.set_xlabel("meta-iterations")
    panel.set_ylabel("return after the last inner step, median of seeds")


def _draw_level(panel: Any, level: tuple[str, float] | None) -> None:
    if level is not None:
        panel.axhline(level[1], color="grey", linestyle="--", linewidth=0.8)
        panel.annotate(level[0], (0.02, level[1]), xycoords=("axes fraction", "data"), fontsize=7)


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
