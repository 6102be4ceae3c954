"""Tables, bars and the picture of the study of estimators."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.report import Grid, new_figure, save_png
from zoo.studies.estimators import (
    BY_EPISODES,
    BY_STEP_SIZE,
    BY_STEPS,
    CENTRED,
    CONTROLLED,
    FOUR_BATCHES,
    ONE_TASK,
    SCORE,
    TABLE,
    TWO_STEPS,
    WITH_BASELINE,
    Setting,
)

Rows = Sequence[Mapping[str, Any]]
EXACT = 1e-10
"""Relative bias below which an estimator counts as exact: rounding."""
_STYLES: Mapping[str, tuple[str, str]] = {
    "FOMAML": ("tab:gray", "-"),
    "MAML": ("tab:blue", "-"),
    "LVC": ("tab:green", "-"),
    "DiCE": ("tab:purple", "-"),
    "E-MAML": ("tab:orange", "-"),
    SCORE: ("tab:red", "-"),
    WITH_BASELINE: ("tab:red", "--"),
    CONTROLLED: ("tab:red", ":"),
}


def grids_of(rows: Rows) -> list[Grid]:
    """
    The tables of biases, and whether the bars are met.

    :param rows: of the finished runs
    """
    both = "Mean of two tasks: relative bias to the gradient of"
    return [
        _bias_grid(f"{both} J_N", TABLE, rows, "relative_bias"),
        _bias_grid(f"{both} J_inf", TABLE, rows, "relative_bias_infinite"),
        _bias_grid("Task A: relative bias to the gradient of J_N", ONE_TASK, rows),
        _bias_grid("The same, inner weights centred over the batch", CENTRED, rows),
        _bias_grid("The same, two inner steps", (*TWO_STEPS, FOUR_BATCHES), rows),
        bars_grid(rows),
    ]


def bars_grid(rows: Rows) -> Grid:
    """
    What must hold: SG-MRL is exact, E-MAML for one episode only.

    :param rows: of the finished runs
    """
    bars = [
        *((SCORE, setting, 0.0, EXACT) for setting in (*TABLE, *TWO_STEPS, FOUR_BATCHES)),
        ("E-MAML", TABLE[2], 0.0, EXACT),
        ("E-MAML", TABLE[3], 0.224, 0.230),
    ]
    lines = []
    for name, setting, least, most in bars:
        row = _row(rows, name, setting)
        if row is None:
            lines.append((name, setting.name, "-", "", "not run"))
            continue
        bias = float(row["relative_bias"])
        bar = f"{least:g} to {most:g}"
        verdict = "met" if least <= bias <= most else "MISSED"
        lines.append((name, setting.name, f"{bias:.3g}", bar, verdict))
    columns = ("estimator", "setting", "bias", "bar", "verdict")
    return Grid("Bars", columns, tuple(lines))


def draw(rows: Rows, path: Path) -> None:
    """
    Bias and noise of one estimate against N, K and alpha, on task A.

    :param rows: of the finished runs
    :param path: PNG
    """
    sweeps = (
        (BY_EPISODES, "n_episodes", "episodes per inner batch, N   ($\\alpha$ = 0.5, K = 1)"),
        (BY_STEPS, "n_inner_steps", "inner steps, K   ($\\alpha$ = 0.3, N = 1)"),
        (BY_STEP_SIZE, "inner_lr", "inner step size, $\\alpha$   (N = 2, K = 1)"),
    )
    figure, _ = new_figure(1, width=13.0, height=7.6)
    figure.clear()
    panels = figure.subplots(2, 3, sharex="col", sharey="row")
    for column, (settings, field, label) in enumerate(sweeps):
        for line, quantity in enumerate(("relative_bias", "relative_std")):
            axes = panels[line][column]
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25, linewidth=0.6)
            for name in _STYLES:
                _draw_curve(axes, rows, name, settings, field, quantity)
            axes.set_yscale("log")
            if field != "n_inner_steps":
                axes.set_xscale("log")
            ticks = [getattr(setting, field) for setting in settings]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
            axes.minorticks_off()
        panels[1][column].set_xlabel(label)
    panels[0][0].set_ylim(bottom=3e-4)
    note = "SG-MRL, and E-MAML at N = 1:\nbelow $10^{-10}$, off the scale"
    panels[0][0].text(0.03, 0.04, note, transform=panels[0][0].transAxes, fontsize=9)
    panels[0][0].set_ylabel("bias / |gradient of $J_N$|")
    panels[1][0].set_ylabel("standard deviation / |gradient of $J_N$|")
    handles, labels = panels[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), frameon=False, loc="outside upper center")
    save_png(figure, path)


def _draw_curve(
    axes: Any, rows: Rows, name: str, settings: Sequence[Setting], field: str, quantity: str
) -> None:
    points = []
    for setting in settings:
        row = _row(rows, name, setting)
        if row is None:
            continue
        value, error = float(row[quantity]), float(row["bias_standard_error"])
        is_bias = quantity == "relative_bias"
        # Exact ones lie off the scale; sampled ones below 4 standard errors are not known.
        if is_bias and (value < EXACT or value < 4 * error):
            continue
        points.append((getattr(setting, field), value))
    color, style = _STYLES[name]
    x, y = zip(*points, strict=True) if points else ((), ())
    axes.plot(x, y, style, color=color, label=name, marker="o", markersize=3.5, linewidth=1.5)


def _bias_grid(
    title: str, settings: Sequence[Setting], rows: Rows, field: str = "relative_bias"
) -> Grid:
    names = [row["estimator"] for row in rows if any(_is_of(row, s) for s in settings)]
    columns = ("estimator", *(_head(setting) for setting in settings))
    lines = [
        (name, *(_cell(_row(rows, name, setting), field) for setting in settings))
        for name in dict.fromkeys(names)
    ]
    return Grid(title, columns, tuple(lines))


def _head(setting: Setting) -> str:
    head = f"a={setting.inner_lr:g} N={setting.n_episodes}"
    return head + (f" K={setting.n_inner_steps}" if setting.n_inner_steps > 1 else "")


def _cell(row: Mapping[str, Any] | None, field: str) -> str:
    if row is None:
        return ""
    bias = float(row[field])
    return "0" if bias < EXACT else f"{bias:.3f}" if bias >= 0.0995 else f"{bias:.3g}"


def _row(rows: Rows, name: str, setting: Setting) -> Mapping[str, Any] | None:
    for row in rows:
        if row["estimator"] == name and _is_of(row, setting):
            return row
    return None


def _is_of(row: Mapping[str, Any], setting: Setting) -> bool:
    return all(str(row[field]) == str(value) for field, value in setting._asdict().items())
