"""Tables and pictures of BO-MRL in locomotion.

Shapes: R seeds, M tasks, K adaptations.
"""

from pathlib import Path

import numpy as np

from metarl_agents.common.evaluation.intervals import Interval, bootstrap_curve, named_statistic
from zoo.report import Grid, interval_text
from zoo.studies import adaptation_report as adaptation
from zoo.studies.adaptation_report import Rows, names_of, scores

_PROTOCOL = "equal steps"
_OURS = "BO-MRL"
_BUDGETS = ("60 episodes at once", "30 episodes, twice", _PROTOCOL)


def locomotion_grids(rows: Rows) -> list[Grid]:
    """
    The tables of an environment.

    :param rows: of its finished runs
    """
    learners = _of_learners(rows)
    if not learners:
        return []
    grids = [
        adaptation.adaptation_grid(learners, _PROTOCOL, beside={}),
        gains_grid(learners),
        differences_grid(learners),
        episodes_grid(learners),
    ]
    alone = alone_returns(rows)
    if alone:
        grids.append(optima_grid(learners, alone))
    return [grid for grid in grids if grid.rows]  # nothing to compare with yet


def draw_locomotion(rows: Rows, path: Path) -> None:
    """
    Returns by adaptation step, and while training.

    :param rows: of the table
    :param path: PNG
    """
    drawn = [row for row in _of_learners(rows) if row.get("protocol") in (None, "", _PROTOCOL)]
    adaptation.draw_adaptation(drawn, path)


def gains_grid(rows: Rows) -> Grid:
    """
    What 1 to K adaptations add to the return, task by task and seed by seed.

    A run of ours says MISSED where the interval of the first step's gain reaches 0.

    :param rows: of the learners
    """
    lines = []
    for name in names_of(rows):
        values = scores(rows, name, _PROTOCOL)
        curve = bootstrap_curve(named_statistic("mean"), values - values[..., :1])
        cells = [interval_text(Interval(*each)) for each in zip(*curve, strict=True)][1:]
        verdict = "met" if curve.low[1] > 0.0 else "MISSED"
        lines.append((name, str(len(values)), *cells, verdict if name.startswith(_OURS) else ""))
    columns = ("run", "seeds", *(f"k = {k}" for k in range(1, len(lines[0]) - 2)), "")
    title = "Return after k adaptations less the return before, mean [95 % interval]"
    return Grid(title, columns, tuple(lines))


def differences_grid(rows: Rows) -> Grid:
    """
    Returns of ours less those of the others after 1 and K adaptations, in the same tasks.

    :param rows: of the learners
    """
    found = {name: scores(rows, name, _PROTOCOL) for name in names_of(rows)}
    lines = []
    for ours in (name for name in found if name.startswith(_OURS)):
        for theirs in (name for name in found if not name.startswith(_OURS)):
            n_seeds = min(len(found[ours]), len(found[theirs]))
            first, second = found[ours][:n_seeds], found[theirs][:n_seeds]
            curve = bootstrap_curve(_difference_of_means, first, second)
            cells = [interval_text(Interval(*each)) for each in zip(*curve, strict=True)]
            lines.append(
                (ours, theirs, str(n_seeds), cells[1], cells[-1], _said(curve.low, curve.high))
            )
    columns = ("ours", "theirs", "seeds", "k = 1", "last k", "k = 1 says")
    title = "Return of BO-MRL less that of another method, equal episodes, mean [95 % interval]"
    return Grid(title, columns, tuple(lines))


def episodes_grid(rows: Rows) -> Grid:
    """
    Return after as many episodes at once or with adaptations in between.

    :param rows: of the learners
    """
    lines = []
    for name in names_of(rows):
        values = [scores(rows, name, protocol)[..., -1:] for protocol in _BUDGETS]
        curve = bootstrap_curve(named_statistic("mean"), np.concatenate(values, axis=-1))
        cells = [interval_text(Interval(*each)) for each in zip(*curve, strict=True)]
        lines.append((name, str(len(values[0])), *cells))
    columns = ("run", "seeds", "60 at once", "30, twice", "20, three times")
    title = "Return after 60 episodes of data, by how often they were used, mean [95 % interval]"
    return Grid(title, columns, tuple(lines))


def optima_grid(rows: Rows, alone: dict[int, float]) -> Grid:
    """
    The gap to long training in the task alone, mean over those tasks in which PPO was trained.

    :param rows: of the learners
    :param alone: return of PPO by task
    """
    tasks = sorted(alone)
    best = np.array([alone[task] for task in tasks])
    lines = [("PPO in each task alone", "1", f"{best.mean():.1f}", "", "")]
    for name in names_of(rows):
        values = scores(rows, name, _PROTOCOL)[:, tasks]
        curve = bootstrap_curve(named_statistic("mean"), best[:, None] - values)
        cells = [interval_text(Interval(*each)) for each in zip(*curve, strict=True)]
        mean = f"{values[..., 1].mean():.1f}"
        lines.append((name, str(len(values)), mean, cells[1], cells[-1]))
    columns = ("run", "seeds", "return, k = 1", "gap, k = 1", "gap, last k")
    title = f"Gap to PPO trained in the task alone, {len(tasks)} tasks, mean [95 % interval]"
    return Grid(title, columns, tuple(lines))


def alone_returns(rows: Rows) -> dict[int, float]:
    """
    Returns of PPO in a task of its own, by task.

    :param rows: of the table
    """
    return {int(row["task"]): float(row["return"]) for row in rows if row["kind"] == "alone"}


def _of_learners(rows: Rows) -> Rows:
    learners = {row["run"] for row in rows if row["kind"] == "adaptation"}
    return [row for row in rows if row["run"] in learners]


def _difference_of_means(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray((first - second).mean(axis=-1))


def _said(low: np.ndarray, high: np.ndarray) -> str:
    if low[1] > 0.0:
        return "ours is better"
    return "theirs is better" if high[1] < 0.0 else "no difference shown"
