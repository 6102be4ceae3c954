"""What is made of the studies of gradient-based meta-learning: one table and picture for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.report import Grid, new_figure, save_png
from zoo.studies import adaptation_report as adaptation
from zoo.studies.adaptation_report import Rows, median_of_seeds, names_of, rows_of
from zoo.studies.convergence import fitted_exponent, running_minimum, samples_to_reach

RESULTS, IMAGES = Path("zoo/results"), Path("docs/images")
QUICK_BARS: Mapping[str, float] = {
    "MAML": -24.0,
    "ProMP": -24.0,
    "LVC": -24.0,
    "FOMAML": -28.0,
    "SG-MRL, weight 0.1": -24.0,
    "SG-MRL, control variate": -33.0,
}
"""Median return after one step and 100 meta-iterations on PointGoal that is expected."""
FINN_POINT = {"Finn et al. (2017), their 2-D navigation": (-40.41, -11.68, -3.33, -3.23)}
FINN_CHEETAH = {"Finn et al. (2017), rllab's cheetah, 200 steps": (-50.69, 293.19, 313.48, 315.65)}
_ABOUT_250 = ("about 250: RLlib's curve, 100 steps", 250.0)
CHEETAH_BAR = 200.0
"""Median return after one step that HalfCheetahDir should reach for one of its methods."""
_LEVELS = (0.5, 0.25, 0.125, 0.0625)
"""Of the gradient's norm, relative to that at the start."""


def grids_of(group: str, rows: Rows) -> list[Grid]:
    """
    The tables of a study.

    :param group: its name on the command line
    :param rows: of its finished runs
    """
    if group == "quick":
        return [adaptation.bars_grid(rows, "equal steps", 1, QUICK_BARS)]
    if group == "convergence":
        return [convergence_grid(rows)]
    beside = {"finn_squared": FINN_POINT, "halfcheetah_dir": FINN_CHEETAH}.get(group, {})
    grids = []
    for protocol in adaptation.protocols_of(rows):
        grids.append(adaptation.adaptation_grid(rows, protocol, beside=beside))
    if group == "halfcheetah_dir":
        best = max(names_of(rows), key=lambda name: median_of_seeds(rows, name, "equal steps", 1))
        bars = {best: CHEETAH_BAR}
        grids.append(adaptation.bars_grid(rows, "equal steps", 1, bars))
    return grids


def draw(group: str, rows: Rows, folder: Path = IMAGES) -> Path:
    """
    The picture of a study.

    :param group: its name on the command line
    :param rows: of its finished runs
    :param folder: where to
    """
    path = folder / f"gradient_{group}.png"
    drawn: dict[str, Callable[[Rows, Path], None]] = {
        "sgmrl_k": adaptation.draw_by_inner_steps,
        "inner_lr": adaptation.draw_by_step_size,
        "discrete": adaptation.draw_families,
        "convergence": draw_convergence,
        "halfcheetah_dir": _draw_cheetah,
    }
    drawn.get(group, adaptation.draw_adaptation)(rows, path)
    return path


def convergence_grid(rows: Rows) -> Grid:
    """
    Norms that exact ascents end with, episodes that sampled ones need, and the fitted exponent.

    :param rows: of the study
    """
    lines = []
    for method in _methods(rows):
        exact = rows_of(rows, f"{method}, exact")
        start, end = running_minimum(exact)[[0, -1]] if exact else (np.nan, np.nan)
        levels = [level * start**0.5 for level in _LEVELS]
        best = _best_samples(rows, method, levels)
        cells = [f"{n:,.0f}" if np.isfinite(n) else "not reached" for n in best]
        exponent = fitted_exponent(levels, best)
        cells.append("" if np.isnan(exponent) else f"{exponent:.2f}")
        lines.append((method, f"{start:.3g}", f"{end:.3g}", *cells))
    relative = tuple(f"episodes to {level:g} of the norm" for level in _LEVELS)
    columns = (
        "estimator",
        "squared norm, start",
        "running minimum, exact ascent",
        *relative,
        "exponent",
    )
    title = "Stationary points of J_N: medians of replicates, best of the step sizes for each level"
    return Grid(title, columns, tuple(lines))


def draw_convergence(rows: Rows, path: Path) -> None:
    """
    Running minima of the squared norm of the exact gradient, against iterations and episodes.

    :param rows: of the study
    :param path: PNG
    """
    figure, (exact_panel, sampled_panel) = new_figure(2, width=11.0)
    for method in _methods(rows):
        style = "-" if method.startswith("sgmrl") else "--"
        colour = f"C{int(method.rpartition('=')[2]) - 1}"
        exact = rows_of(rows, f"{method}, exact")
        if exact:
            exact_panel.plot(running_minimum(exact), style, color=colour, label=method)
        found = _median_curve(rows, method)
        if found is not None:
            sampled_panel.plot(*found, style, color=colour, label=method, marker=".", markersize=3)
    exact_panel.set_xlabel("iterations, expected estimates")
    sampled_panel.set_xlabel("episodes, sampled estimates (median, best step size)")
    sampled_panel.set_xscale("log")
    for panel in (exact_panel, sampled_panel):
        panel.set_yscale("log")
        panel.legend(frameon=False, fontsize=8)
    exact_panel.set_ylabel("running minimum of the squared norm of grad J_N")
    save_png(figure, path)


def _draw_cheetah(rows: Rows, path: Path) -> None:
    adaptation.draw_adaptation(rows, path, level=_ABOUT_250)


def _methods(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name.rpartition(", ")[0] for name in names_of(rows)))


def _replicates(rows: Rows, name: str) -> list[list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows_of(rows, name):
        found.setdefault((str(row["seed"]), str(row["replicate"])), []).append(row)
    return list(found.values())


def _step_sizes(rows: Rows, method: str) -> list[str]:
    return [name for name in names_of(rows) if name.startswith(f"{method}, step ")]


def _best_samples(rows: Rows, method: str, levels: Sequence[float]) -> list[float]:
    """For each level, the least median number of episodes among the step sizes."""
    medians = []
    for name in _step_sizes(rows, method):
        needed = [samples_to_reach(each, levels) for each in _replicates(rows, name)]
        medians.append([float(np.median([one[level] for one in needed])) for level in levels])
    return np.min(medians, axis=0).tolist() if medians else [np.inf] * len(levels)


def _median_curve(rows: Rows, method: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Episodes and median running minimum, of the step size that ends lowest."""
    best: tuple[np.ndarray, np.ndarray] | None = None
    for name in _step_sizes(rows, method):
        replicates = _replicates(rows, name)
        norms = np.median([running_minimum(each) for each in replicates], axis=0)
        episodes = np.array(sorted(float(row["n_episodes"]) for row in replicates[0]))
        if best is None or norms[-1] < best[1][-1]:
            best = episodes, norms
    return None if best is None else (best[0][1:], best[1][1:])
