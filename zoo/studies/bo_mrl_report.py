"""What is made of the studies of BO-MRL: tables and a picture for each."""

from pathlib import Path
from typing import Any

import numpy as np

from metarl_agents.common.evaluation.intervals import Curve, Interval
from zoo.report import Grid, new_figure, save_png
from zoo.studies.adaptation_report import Rows, draw_band, names_of
from zoo.studies.bo_mrl_locomotion import LOCOMOTION
from zoo.studies.bo_mrl_locomotion_report import draw_locomotion, locomotion_grids
from zoo.studies.bo_mrl_questions_report import draw_question, question_grids
from zoo.studies.bo_mrl_questions_tables import TABLES
from zoo.studies.bo_mrl_tabular import N_STEPS, PROTOCOLS, PUBLISHED
from zoo.studies.seed_statistics import by_seed, difference, mean_interval

RESULTS, IMAGES = Path("zoo/results"), Path("docs/images")
OURS = "BO-MRL, Alg 2"
BEATEN = {
    "MAML, exact (E-MAML)": (1,),
    "multi-task, Alg 2": (1, 2, 3),
    "uniform, Alg 2": (1, 2, 3),
}
"""Methods that Alg 2 is to beat, and after how many steps."""
_FLOOR = 1e-4
_CLAIMED_GROUPS, _HIGH, _LOW = ("quick", "frozen_lake"), "high variance", "low variance"


def grids_of(group: str, rows: Rows) -> list[Grid]:
    """
    The tables of a study.

    :param group: its name on the command line
    :param rows: of its finished runs
    """
    if group in TABLES:
        return question_grids(group, rows)
    if group == "convergence":
        return [convergence_grid(rows)]
    if group in LOCOMOTION:
        return locomotion_grids(rows)
    grids = []
    for variance in variances_of(rows):
        is_claimed = group in _CLAIMED_GROUPS and variance in (_HIGH, _LOW)
        for protocol in PROTOCOLS:
            grids += [
                curves_grid(rows, variance, protocol),
                gaps_grid(rows, variance, protocol, is_claimed=is_claimed),
            ]
    return [*grids, bounds_grid(rows), variances_grid(rows)]


def draw(group: str, rows: Rows, folder: Path = IMAGES) -> Path:
    """
    The picture of a study.

    :param group: its name on the command line
    :param rows: of its finished runs
    :param folder: where to
    """
    path = folder / f"bo_mrl_{group}.png"
    if group in TABLES:
        draw_question(group, rows, path)
    elif group == "convergence":
        _draw_convergence(rows, path)
    elif group in LOCOMOTION:
        draw_locomotion(rows, path)
    else:
        _draw_curves(rows, path)
    return path


def variances_of(rows: Rows) -> list[str]:
    """
    The families of tasks in a table, in order.

    :param rows: of the table
    """
    return list(dict.fromkeys(name.partition(": ")[0] for name in names_of(rows)))


def methods_of(rows: Rows, variance: str) -> list[str]:
    """
    The methods that were run on a family.

    :param rows: of the table
    :param variance: the family
    """
    names = [row["run"] for row in rows if row["kind"] == "adaptation"]
    found = [name.partition(": ")[2] for name in names if name.partition(": ")[0] == variance]
    return list(dict.fromkeys(found))


def seed_means(rows: Rows, name: str, protocol: str) -> dict[int, np.ndarray]:
    """
    Means over the test tasks after 0 to K steps, by seed.

    :param rows: of the table
    :param name: of the run
    :param protocol: such as "gap, published values"
    """
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        if (row["run"], row.get("protocol")) == (name, protocol):
            found.setdefault(int(row["seed"]), {})[int(row["step"])] = float(row["return"])
    return {seed: np.array([by[step] for step in sorted(by)]) for seed, by in sorted(found.items())}


def curves_grid(rows: Rows, variance: str, protocol: str) -> Grid:
    """
    Return after 0 to 4 steps on the test tasks, one line per method.

    :param rows: of the table
    :param variance: the family
    :param protocol: how lambda and the step size were chosen
    """
    lines = []
    for method in methods_of(rows, variance):
        name = f"{variance}: {method}"
        means = np.array(list(seed_means(rows, name, f"adaptation, {protocol}").values()))
        cells = [_text(mean_interval(column)) for column in means.T]
        lines.append((method, str(len(means)), *cells, _choices(rows, name, protocol)))
    n_steps = len(lines[0]) - 3 if lines else 0
    columns = ("method", "seeds", *(f"k = {k}" for k in range(n_steps)), "trained / adapted with")
    title = f"{variance}, {protocol}: return after k steps on test tasks, mean of seeds [95 %]"
    return Grid(title, columns, tuple(lines))


def gaps_grid(rows: Rows, variance: str, protocol: str, *, is_claimed: bool = True) -> Grid:
    """
    The gap after one step, and what Alg 2 gains on each method, seed by seed.

    A row says MISSED where Alg 2 is to be better and the interval of a difference reaches 0; with
    other values than published ones, and in families and sizes of which nothing is claimed, which
    are extras, the word is written small.

    :param rows: of the table
    :param variance: the family
    :param protocol: how lambda and the step size were chosen
    :param is_claimed: whether Alg 2 is to be better there
    """
    kind, lines = f"gap, {protocol}", []
    ours = seed_means(rows, f"{variance}: {OURS}", kind)
    for method in methods_of(rows, variance):
        theirs = seed_means(rows, f"{variance}: {method}", kind)
        both = sorted(ours.keys() & theirs.keys())
        cells = [_text(mean_interval([theirs[seed][1] for seed in both]))]
        differences = {
            step: mean_interval([theirs[seed][step] - ours[seed][step] for seed in both])
            for step in (1, 2, 3)
        }
        cells += ["" if method == OURS else _text(found) for found in differences.values()]
        is_beaten = all(differences[step].low > 0.0 for step in BEATEN.get(method, ()))
        verdict = ("met" if is_beaten else "MISSED") if method in BEATEN else ""
        verdict = verdict if protocol == PUBLISHED and is_claimed else verdict.lower()
        lines.append((method, str(len(both)), *cells, verdict))
    columns = ("method", "seeds", "gap, k = 1", *(f"minus {OURS}, k = {k}" for k in (1, 2, 3)), "")
    title = f"{variance}, {protocol}: gap to each task's optimum, paired differences [95 %]"
    return Grid(title, columns, tuple(lines))


def bounds_grid(rows: Rows) -> Grid:
    """
    Bounds on the gap, and the share of test tasks in which each holds; means over seeds.

    A row of B5 or B6 says MISSED where the bound fails in any task of any seed; of other algorithms
    than Alg 2, for which it is certified, only where its assumption is true in all of them.

    :param rows: of the table
    """
    lines = []
    found = [row for row in rows if row["kind"] == "bound"]
    for name in names_of(found):
        for protocol, step in dict.fromkeys((row["protocol"], int(row["step"])) for row in found):
            chosen = [
                row
                for row in found
                if (row["run"], row["protocol"], int(row["step"])) == (name, protocol, step)
            ]
            if not chosen:
                continue
            gaps = [values[step] for values in seed_means(rows, name, f"gap, {PUBLISHED}").values()]
            holds = np.array([float(row["holds"]) for row in chosen])
            assumed = np.mean([float(row["assumed"]) for row in chosen])
            is_ours = name.partition(": ")[2] == OURS
            is_certain = protocol in ("B5", "B6") and (is_ours or assumed == 1.0)
            lines.append(
                (
                    name,
                    protocol if protocol != "B4" else "B4 (mean: B_paper)",
                    str(step),
                    f"{np.mean(gaps):.4f}",
                    f"{np.mean([float(row['return']) for row in chosen]):.4f}",
                    f"{holds.mean():.1%}",
                    f"{assumed:.1%}",
                    ("met" if (holds == 1.0).all() else "MISSED") if is_certain else "",
                )
            )
    columns = ("run", "bound", "k", "gap", "value", "holds in", "its assumption is true in", "")
    return Grid("Bounds on the gap on test tasks (our derivations)", columns, tuple(lines))


def variances_grid(rows: Rows) -> Grid:
    """
    The variance of the tasks beside the gap of Alg 2 after one step, for each family; and whether
    both are larger with high variance, seed by seed.

    :param rows: of the table
    """
    found = {variance: _variances_and_gaps(rows, variance) for variance in variances_of(rows)}
    lines = [
        (variance, *(_text(mean_interval([*values.values()])) if values else "" for values in both))
        for variance, both in found.items()
    ]
    verdicts = [""] * len(lines)
    if _HIGH in found and _LOW in found:
        pairs = zip(found[_HIGH], found[_LOW], strict=True)
        differences = [difference(high, low) for high, low in pairs]
        lines.append((f"{_HIGH} minus {_LOW}", *map(_text, differences)))
        is_larger = all(interval.low > 0.0 for interval in differences)
        verdicts.append("met" if is_larger else "MISSED")
    columns = ("tasks", "Var, reverse KL", f"gap of {OURS}, k = 1", "")
    return Grid(
        "Task variance of the test tasks, and the gap, mean of seeds [95 %]",
        columns,
        tuple((*line, verdict) for line, verdict in zip(lines, verdicts, strict=True)),
    )


def _variances_and_gaps(rows: Rows, variance: str) -> tuple[dict[int, float], dict[int, float]]:
    """By seed."""
    name = f"{variance}: task variance"
    gaps = seed_means(rows, f"{variance}: {OURS}", f"gap, {PUBLISHED}")
    return (
        by_seed(rows, "return", run=name, kind="variance"),
        {seed: float(values[1]) for seed, values in gaps.items()},
    )


def convergence_grid(rows: Rows) -> Grid:
    """
    Running minima of the squared norm of the gradient, medians of seeds; and of networks, whose
    lower levels are solved by iterations, the largest residual that any gradient was taken at.

    :param rows: of the table
    """
    lines = []
    for name in names_of(rows):
        residuals = [row.get("residual") or "" for row in rows if row["run"] == name]
        norms = _running_minima(rows, name)
        looks = [0, *(n for n in (10, 100, 1000) if n < norms.shape[1]), norms.shape[1] - 1]
        cells = (f"{i}: {np.median(norms[:, i]):.2e}" for i in dict.fromkeys(looks))
        lines.append((name, str(len(norms)), ", ".join(cells), max(residuals, key=_size)))
    title = "Plain gradient ascent: running minimum of the squared norm of grad F, by iteration"
    columns = ("run", "seeds", "iteration: median of seeds", "lower levels' largest residual")
    return Grid(title, columns, tuple(lines))


def _draw_curves(rows: Rows, path: Path) -> None:
    """Gap by adaptation step, a panel per family. Bands are of the means of seeds: the tasks of a
    seed share its meta-policy, so they are not drawn anew."""
    variances, kind = variances_of(rows), f"gap, {PUBLISHED}"
    figure, panels = new_figure(len(variances), width=4.6 * len(variances))
    for panel, variance in zip(panels, variances, strict=True):
        for method in methods_of(rows, variance):
            means = seed_means(rows, f"{variance}: {method}", kind)
            curve = [mean_interval(column) for column in np.array([*means.values()]).T]
            # Below a ten-thousandth, which is where the axis ends, everything is the optimum.
            draw_band(panel, Curve(*np.maximum(np.array(curve), _FLOOR).T), label=method)
        panel.set_yscale("log")
        panel.set_ylim(bottom=_FLOOR)
        panel.set_xticks(range(N_STEPS + 1))
        panel.set_title(variance, fontsize=10)
        panel.set_xlabel("adaptation steps")
    panels[0].set_ylabel(f"gap to the optimum of each task ({PUBLISHED})")
    panels[0].legend(frameon=False, fontsize=7)
    save_png(figure, path)


def _draw_convergence(rows: Rows, path: Path) -> None:
    """A panel for tables and, where there are any, one for networks."""
    names = names_of(rows)
    networks = [name for name in names if name.startswith("network")]
    tables = [name for name in names if name not in networks]
    shown = {title: own for title, own in (("tables", tables), ("networks", networks)) if own}
    figure, panels = new_figure(len(shown), width=6.0 * len(shown))
    for panel, (title, own) in zip(panels, shown.items(), strict=True):
        for index, name in enumerate(own):
            norms = _running_minima(rows, name)
            iterations = np.arange(1, norms.shape[1] + 1)
            for seed, curve in enumerate(norms):
                label = name if seed == 0 else None
                panel.plot(iterations, curve, color=f"C{index}", linewidth=1, label=label)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("iterations of gradient ascent")
        panel.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("running minimum of the squared norm of grad F")
    save_png(figure, path)


def _running_minima(rows: Rows, name: str) -> np.ndarray:
    """(seeds, iterations + 1)."""
    by_seed: dict[int, list[tuple[int, float]]] = {}
    for row in rows:
        if row["run"] == name:
            point = int(row["step"]), float(row["squared_norm"])
            by_seed.setdefault(int(row["seed"]), []).append(point)
    curves = [[norm for _, norm in sorted(points)] for points in by_seed.values()]
    return np.asarray(np.minimum.accumulate(np.array(curves), axis=1))


def _size(number: str) -> float:
    """Of a cell, which may be empty."""
    return float(number or 0.0)


def _choices(rows: Rows, name: str, protocol: str) -> str:
    """Medians of the values that were chosen, with a mark where one was on the edge of its grid."""
    chosen: list[Any] = [
        row
        for row in rows
        if (row["run"], row.get("protocol")) == (name, f"gap, {protocol}") and int(row["step"]) == 1
    ]
    adapted = np.median([float(row["chosen_adapt"]) for row in chosen])
    trained = [float(row["chosen"]) for row in chosen]
    n_edge = sum(int(row["on_edge"]) for row in chosen)
    first = "-" if not any(trained) else f"{np.median(trained):g}"
    return f"{first} / {adapted:g}" + (f" ({n_edge} on an edge)" if n_edge else "")


def _text(interval: Interval) -> str:
    estimate, low, high = (f"{value:.4f}" for value in interval)
    return f"{estimate} [{low}, {high}]"
