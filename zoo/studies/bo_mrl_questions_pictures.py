"""Pictures of the studies of open questions about BO-MRL; bands are 95 % intervals over seeds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl_agents.common.evaluation.intervals import Curve, Interval
from zoo.report import new_figure, save_png
from zoo.studies.adaptation_report import Rows, draw_band, names_of, rows_of
from zoo.studies.bo_mrl_questions_tables import families_of
from zoo.studies.seed_statistics import interval_of, levels_of

_WIDTH = 4.8


def draw_n_tasks(rows: Rows, path: Path) -> None:
    """
    Gap by the number of training tasks, a panel per family.

    :param rows: of the table
    :param path: PNG
    """
    figure, panels = _panels(families_of(rows))
    for panel, family in zip(panels, families_of(rows), strict=True):
        own = [row for row in rows if row["run"].startswith(f"{family}: ")]
        counts = levels_of(own, "n_train")
        for part, label in (("train", "training tasks"), ("test", "test tasks")):
            found = [interval_of(own, part, n_train=n, step=1) for n in counts]
            _band(panel, [float(n) for n in counts], found, label)
        _label(panel, "training tasks", "gap after one step", logs="xy")
        _tick(panel, counts)
    _save(figure, panels, path)


def draw_lam(rows: Rows, path: Path) -> None:
    """
    Gap by lambda of training and of adaptation, a map per family.

    :param rows: of the table
    :param path: PNG
    """
    figure, panels = _panels(names_of(rows))
    for panel, name in zip(panels, names_of(rows), strict=True):
        own = [row for row in rows_of(rows, name) if row["kind"] == "matrix"]
        values = levels_of(own, "adapted_with")
        gaps = np.array(
            [
                [interval_of(own, "test", trained_with=i, adapted_with=j).estimate for j in values]
                for i in values
            ]
        )
        image = panel.imshow(np.log10(np.maximum(gaps, 1e-6)), cmap="viridis_r", aspect="auto")
        figure.colorbar(image, ax=panel, label="log10 of the gap after one step")
        texts = [f"{float(value):.3g}" for value in values]
        panel.set_xticks(range(len(values)), texts, rotation=60, fontsize=7)
        panel.set_yticks(range(len(values)), texts, fontsize=7)
        panel.grid(visible=False)
        _label(panel, "relative lambda of adaptation", "relative lambda of training")
    save_png(figure, path)


def draw_metric(rows: Rows, path: Path) -> None:
    """
    Gap by how far adaptation moves the policy, a panel per family.

    :param rows: of the table
    :param path: PNG
    """
    figure, panels = _panels(families_of(rows))
    for panel, family in zip(panels, families_of(rows), strict=True):
        for name in (name for name in names_of(rows) if name.startswith(f"{family}: ")):
            own = [row for row in rows_of(rows, name) if row["kind"] == "metric"]
            points = [
                (interval_of(own, "test_kl", lam=lam), interval_of(own, "test", lam=lam))
                for lam in levels_of(own, "lam")
            ]
            _crosses(panel, points, name.partition(": ")[2], line="-")
        panel.set_xlim(left=1e-3)
        _label(panel, "mean KL of adaptation, nats", "gap after one step", logs="xy")
    _save(figure, panels, path)


def draw_sparse(rows: Rows, path: Path) -> None:
    """
    What is missing by the number of episodes, a panel for sparse and one for dense rewards.

    :param rows: of the table
    :param path: PNG
    """
    figure, panels = _panels([f"{rewards} rewards" for rewards in families_of(rows)])
    numbers = [n for n in levels_of(rows, "n_episodes") if n != "exact"]
    ticks = [*sorted(numbers, key=int), "exact"]
    for panel, rewards in zip(panels, families_of(rows), strict=True):
        for name in (name for name in names_of(rows) if name.startswith(f"{rewards}: ")):
            own = rows_of(rows, name)
            there = [n for n in ticks if n in levels_of(own, "n_episodes")]
            found = [interval_of(own, "missing", n_episodes=n, step=1) for n in there]
            _band(panel, [ticks.index(n) for n in there], found, name.partition(": ")[2])
        panel.set_xticks(range(len(ticks)), ticks)
        _label(panel, "episodes of adaptation", "share of the optimum missing, k = 1", logs="y")
    _save(figure, panels, path)


def draw_data(rows: Rows, path: Path) -> None:
    """
    Gap by episodes, a panel per level of task variance.

    :param rows: of the table
    :param path: PNG
    """
    figure, panels = _panels(names_of(rows))
    for panel, name in zip(panels, names_of(rows), strict=True):
        own = rows_of(rows, name)
        counts = levels_of(own, "n_episodes")
        for protocol in levels_of(own, "protocol"):
            found = [interval_of(own, "test", protocol=protocol, n_episodes=n) for n in counts]
            _band(panel, [float(n) for n in counts], found, protocol)
        _label(panel, "episodes in a test task", "gap", logs="xy")
        _tick(panel, counts)
    _save(figure, panels, path)


def draw_conditioning(rows: Rows, path: Path) -> None:
    """
    Condition numbers in the logits by lambda, a panel per family.

    :param rows: of the table
    :param path: PNG
    """
    figure, panels = _panels(families_of(rows))
    for panel, family in zip(panels, families_of(rows), strict=True):
        for name in (name for name in names_of(rows) if name.startswith(f"{family}: ")):
            own = rows_of(rows, name)
            lams = levels_of(own, "lam")
            for at in ("uniform", "trained"):
                found = [interval_of(own, "log_condition_logits", at=at, lam=lam) for lam in lams]
                label = f"{name.partition(': ')[2]}, {at} policy"
                _band(panel, [float(lam) for lam in lams], found, label)
        _label(panel, "lambda", "log10 of the condition number in the logits", logs="x")
    _save(figure, panels, path)


def draw_heterogeneity(rows: Rows, path: Path) -> None:
    """
    Gap, and bounds, by the variance of the tasks.

    :param rows: of the table
    :param path: PNG
    """
    shown = {"test": "gap after one step", "B5": "B5 (certified)", "B4": "B_paper"}
    figure, panels = _panels(list(shown.values()))
    for panel, column in zip(panels, shown, strict=True):
        for series in dict.fromkeys(name.partition(", ")[0] for name in names_of(rows)):
            names = [name for name in names_of(rows) if name.startswith(f"{series}, ")]
            points = [
                tuple(interval_of(rows_of(rows, name), c) for c in ("variance", column))
                for name in names
            ]
            _crosses(panel, points, series)
        _label(panel, "variance of the tasks, reverse KL", shown[column])
    _save(figure, panels, path)


def _panels(titles: Sequence[str]) -> tuple[Any, list[Any]]:
    figure, panels = new_figure(len(titles), width=_WIDTH * len(titles))
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10)
    return figure, panels


def _band(panel: Any, x: Sequence[float], found: Sequence[Interval], label: str) -> None:
    draw_band(panel, Curve(*np.array(found).T), label=label, x=x)


def _crosses(
    panel: Any, points: Sequence[tuple[Interval, ...]], label: str, *, line: str = ""
) -> None:
    x, y = (np.array([point[axis] for point in points]) for axis in (0, 1))
    bars = [np.nan_to_num(np.abs(values[:, 1:].T - values[:, 0])) for values in (x, y)]
    panel.errorbar(
        x[:, 0], y[:, 0], bars[1], bars[0], label=label, marker=".", linestyle=line, linewidth=1
    )


def _label(panel: Any, x: str, y: str, *, logs: str = "") -> None:
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if "x" in logs:
        panel.set_xscale("log")
    if "y" in logs:
        panel.set_yscale("log")


def _tick(panel: Any, counts: Sequence[str]) -> None:
    panel.minorticks_off()
    panel.set_xticks([float(n) for n in counts], counts)


def _save(figure: Any, panels: Sequence[Any], path: Path) -> None:
    panels[0].legend(frameon=False, fontsize=7)
    save_png(figure, path)


PICTURES: Mapping[str, Callable[[Rows, Path], None]] = {
    "n_tasks": draw_n_tasks,
    "lam": draw_lam,
    "metric": draw_metric,
    "sparse": draw_sparse,
    "data": draw_data,
    "conditioning": draw_conditioning,
    "heterogeneity": draw_heterogeneity,
}
"""By group."""
