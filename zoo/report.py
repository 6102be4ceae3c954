"""Tables and pictures: from evaluation results and from the registries."""

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from metarl_agents import ALGORITHMS
from metarl_agents.common.evaluation.intervals import Interval
from metarl_agents.common.evaluation.statistics import Metric, ScoreStatistics
from metarl_envs import FAMILIES

Results = Mapping[str, ScoreStatistics]


class Grid(NamedTuple):
    """A table as text: a title, the heads of its columns, and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for i, name in enumerate(self.columns):
            numeric = all(row[i][:1].isdigit() for row in self.rows)
            table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric or not i)
        for row in self.rows:
            table.add_row(*(cell.replace("`", "") for cell in row))
        return table

    def markdown(self) -> str:
        """For a document, without the title."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Phase:
    """Consecutive episodes within a new task, counted from 1, both ends included."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """Such as ``2-5``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def families_grid() -> Grid:
    """One row per id of ``FAMILIES``."""
    rows = tuple((f"`{row.id}`", row.description) for row in FAMILIES.values())
    return Grid("Task families", ("id", "what it is"), rows)


def algorithms_grid() -> Grid:
    """One row per name of ``ALGORITHMS``."""
    rows = tuple(
        (f"`{name}`", f"`{cls.__name__}`", _first_sentence(cls)) for name, cls in ALGORITHMS.items()
    )
    return Grid("Algorithms", ("name", "class", "what it does"), rows)


def regret_grid(
    results: Results,
    *,
    baseline: str | None,
    oracle: str | None,
    notes: Mapping[str, str] | None = None,
) -> Grid:
    """
    Regret of each learner, summed over the episodes of a held-out task, with paired ratios.

    :param results: evaluations on the same tasks, by name
    :param baseline: name of the learner that starts afresh
    :param oracle: name of the learner that is told the truth
    :param notes: by name, what each had learned from before
    """
    metric = common_metric(results)
    columns = ["learner", _METRIC_NAMES[metric]]
    for reference in (baseline, oracle):
        columns += [f"x {reference}"] if reference else []
    columns += ["learned before"] if notes else []
    rows = []
    for name, result in results.items():
        cells = [name, interval_text(result.mean(metric))]
        for reference in (baseline, oracle):
            if reference:
                cells.append(_ratio_text(result, results[reference], metric, name == reference))
        if notes:
            cells.append(notes.get(name, "nothing"))
        rows.append(tuple(cells))
    title = f"{_METRIC_NAMES[metric].capitalize()} per held-out task, mean [95 % interval]"
    return Grid(title, tuple(columns), tuple(rows))


def phase_grid(results: Results, phases: Sequence[Phase]) -> Grid:
    """
    Mean reward of an episode by how many episodes of the new task came before it.

    :param results: on-line evaluations (every adaptation episode scored), by name
    :param phases: the columns
    """
    columns = ("learner", *(phase.name for phase in phases))
    rows = []
    for name, result in results.items():
        curve = result.curve_scores("return").mean(axis=(0, 1))
        means = [curve[phase.first - 1 : phase.last].mean() for phase in phases]
        rows.append((name, *(f"{mean:.2f}" for mean in means)))
    return Grid("Mean reward of an episode, by its number within a new task", columns, tuple(rows))


def phases_of(n_episodes: int) -> list[Phase]:
    """
    Episode 1, 2-5, 6-10, 11-20, 21-40, ... up to the last one.

    :param n_episodes: episodes in a task
    """
    bounds = [0, 1, 5, 10]
    while bounds[-1] < n_episodes:
        bounds.append(2 * bounds[-1])
    ends = [end for end in bounds if end < n_episodes] + [n_episodes]
    return [Phase(start + 1, end) for start, end in itertools.pairwise(ends)]


def summary_grid(results: Results) -> Grid:
    """
    Interquartile mean of the first and the last episode of a task, and the cost of the way.

    :param results: evaluations, by name
    """
    metric = common_metric(results)
    metrics: tuple[Metric, ...] = ("zero_shot_return", "final_return", metric)
    columns = ("learner", *(_METRIC_NAMES[name] for name in metrics))
    rows = tuple(
        (name, *(interval_text(result.iqm(metric)) for metric in metrics))
        for name, result in results.items()
    )
    return Grid("Interquartile means over held-out tasks [95 % interval]", columns, rows)


def common_metric(results: Results) -> Metric:
    """
    Total regret where every learner has it, else the mean return.

    :param results: evaluations, by name
    """
    runs = [run for result in results.values() for run in result.runs]
    return "total_regret" if all(run.regret is not None for run in runs) else "mean_return"


def interval_text(interval: Interval) -> str:
    """
    ``16.3 [14.9, 17.8]``, or ``0.97 [0.84, 1.12]`` for numbers below 10.

    :param interval: estimate and bounds
    """
    decimals = 1 if abs(interval.estimate) >= 10 else 2
    estimate, low, high = (f"{value:.{decimals}f}" for value in interval)
    return f"{estimate} [{low}, {high}]"


def console() -> Console:
    """Where tables are printed: at least 100 columns wide when it is no terminal."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=max(100, plain.width))


def write_results(folder: Path, results: Results, grids: Sequence[Grid]) -> None:
    """
    Write every evaluation as JSON and CSV, and the tables as Markdown, into ``folder``.

    :param folder: made if missing
    :param results: evaluations, by name
    :param grids: the tables
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        for run in result.runs:
            stem = folder / f"{file_name(name)}-{run.seed}"
            run.to_json(stem.with_suffix(".json"))
            run.to_csv(stem.with_suffix(".csv"))
    write_tables(folder / "tables.md", grids)


def write_tables(path: Path, grids: Sequence[Grid]) -> None:
    """
    Write tables as Markdown, each under its title.

    :param path: the file, whose folder is made if missing
    :param grids: the tables
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(map(titled, grids)) + "\n", encoding="utf-8")


def titled(grid: Grid) -> str:
    """
    A table as Markdown, with its title above.

    :param grid: the table
    """
    return f"**{grid.title}**\n\n{grid.markdown()}"


def file_name(name: str) -> str:
    """
    A learner's or an env's name as part of a path: ``metarl/X-v0`` becomes ``metarl-X-v0``.

    :param name: any text
    """
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name).strip("-")


def draw_adaptation(results: Results, path: Path) -> None:
    """
    One picture: what an episode earns (or loses) by the number of episodes seen of a new task.

    :param results: evaluations, by name
    :param path: PNG
    """
    figure, axes = new_figure(1, width=7.0)
    quantity = "regret" if common_metric(results) == "total_regret" else "return"
    for name, result in results.items():
        draw_curve(axes[0], result, quantity=quantity, label=name)
    axes[0].set_xlabel("episodes seen of a new task")
    axes[0].set_ylabel(f"{quantity} of one episode")
    axes[0].legend(frameon=False)
    save_png(figure, path)


def draw_curve(
    axes: Any, result: ScoreStatistics, *, quantity: Any, label: str, window: int = 1, **style: Any
) -> None:
    """
    A learner's mean adaptation curve with its 95 % band.

    :param axes: where to draw
    :param result: the evaluation
    :param quantity: ``"return"`` or ``"regret"``
    :param label: name in the legend
    :param window: episodes that are averaged
    :param style: of the line
    """
    curve = result.curve(quantity, statistic="mean", n_resamples=500)
    estimate, low, high = (_smooth(values, window) for values in curve)
    steps = np.arange(len(estimate)) + 1
    (line,) = axes.plot(steps, estimate, label=label, linewidth=1.6, **style)
    axes.fill_between(steps, low, high, alpha=0.15, color=line.get_color(), linewidth=0)


def new_figure(n_panels: int, *, width: float = 15.0, height: float = 4.2) -> tuple[Any, list[Any]]:
    """
    A figure of ``n_panels`` panels side by side that needs no display.

    :param n_panels: panels
    :param width: inches
    :param height: inches
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
    return figure, list(axes)


def save_png(figure: Any, path: Path) -> None:
    """
    Write a figure as a small PNG: 128 colours are plenty for lines and text.

    :param figure: the figure
    :param path: PNG
    """
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    raw = io.BytesIO()
    figure.savefig(raw, format="png")
    raw.seek(0)
    Image.open(raw).convert("RGB").quantize(128).save(path, optimize=True)


_METRIC_NAMES: Mapping[str, str] = {
    "total_regret": "regret",
    "mean_return": "mean return",
    "zero_shot_return": "first return",
    "final_return": "last return",
}


def _ratio_text(
    result: ScoreStatistics, reference: ScoreStatistics, metric: Metric, same: bool
) -> str:
    return "1" if same else interval_text(result.ratio(reference, metric))


def _first_sentence(cls: type) -> str:
    doc = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    return doc.split(". ")[0].rstrip(".").replace("|", "\\|")


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average; at the ends over what there is."""
    if window <= 1:
        return values
    kernel = np.ones(window)
    weights = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.asarray(np.convolve(values, kernel, mode="same") / weights)
