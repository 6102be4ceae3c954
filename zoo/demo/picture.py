"""The picture of the demo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo import report
from zoo.demo.lab import LABELS, N_CONCURRENT, Entry

CURVES: Mapping[str, str] = {
    "meta_oracle": "#555555",
    "mtsrl": "#1b6ca8",
    "mtsrl_plus": "#3ba55d",
    "meta_lin_ts": "#b07aa1",
    "rlsvi": "#d1495b",
    "maskable_ppo": "#edae49",
    "dqn_scratch": "#8c564b",
}


def draw_picture(entries: Mapping[str, Entry], path: Path) -> None:
    """
    Three panels: within a new task, in total, and over the tasks of meta-training.

    :param entries: by name
    :param path: PNG
    """
    figure, (within, total, over) = report.new_figure(3)
    for name, colour in CURVES.items():
        report.draw_curve(
            within,
            entries[name].result,
            quantity="regret",
            label=LABELS[name],
            window=5,
            color=colour,
        )
    within.set(xlabel="customer of a new segment", ylabel="likes lost per customer", ylim=(0, None))
    within.set_title("Within a new task")
    within.legend(frameon=False, fontsize=8)
    _draw_totals(total, entries)
    _draw_history(over, entries)
    report.save_png(figure, path)


def _draw_totals(axes: Any, entries: Mapping[str, Entry]) -> None:
    names = list(LABELS)[::-1]
    intervals = [entries[name].result.mean("total_regret") for name in names]
    means = np.array([interval.estimate for interval in intervals])
    errors = np.array([[i.estimate - i.low, i.high - i.estimate] for i in intervals]).T
    colours = [CURVES.get(name, "#9aa5b1") for name in names]
    axes.barh(range(len(names)), means, xerr=errors, color=colours, error_kw={"elinewidth": 1})
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
    axes.set(xlabel="likes lost in a held-out task, with 95 % interval")
    axes.set_title("Regret per held-out task")


def _draw_history(axes: Any, entries: Mapping[str, Entry]) -> None:
    for name, colour in CURVES.items():
        history = entries[name].history
        if history is None:
            continue
        rounds = _by_round(history)
        mean, error = rounds.mean(axis=-1), rounds.std(axis=-1) / np.sqrt(rounds.shape[-1])
        last = np.arange(1, len(mean) + 1) * N_CONCURRENT
        axes.plot(last, mean, color=colour, label=LABELS[name], linewidth=1.6, marker="o", ms=4)
        axes.fill_between(last, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="tasks finished", ylabel="likes lost in a task, with standard error")
    axes.set_ylim(0, None)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"While the prior is learned, {N_CONCURRENT} tasks at a time")


def _by_round(history: np.ndarray) -> np.ndarray:
    """
    Regrets of the tasks that were played at once, in all replicates: (rounds, R * N_CONCURRENT).

    :param history: (R, K)
    """
    n_rounds = history.shape[1] // N_CONCURRENT
    whole = history[:, : n_rounds * N_CONCURRENT]
    return whole.reshape(len(history), n_rounds, -1).swapaxes(0, 1).reshape(n_rounds, -1)
