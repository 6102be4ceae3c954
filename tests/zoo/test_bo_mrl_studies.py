"""The studies of BO-MRL in frozen lakes, and what is made of them."""

from pathlib import Path

import numpy as np
import pytest

from zoo.studies import bo_mrl_report
from zoo.studies.bo_mrl import GROUPS, METHODS, VARIANCES, Options, play
from zoo.studies.bo_mrl_tabular import N_STEPS, ONE_VALUE, OWN_VALUES, best_on, lakes_of, trained
from zoo.studies.study import Context, Run

TINY = {
    **VARIANCES["low variance"],
    "kind": "tabular",
    "n_train": 3,
    "n_validation": 4,
    "n_test": 5,
    "meta_batch_size": 2,
    "learning_rate": 0.03,
}


def tiny_run(name: str, method: str, seed: int = 0, **config) -> Run:
    short = {key: METHODS[method][key][:3] for key in ("grid", "adapt_grid")}
    whole = {**TINY, **METHODS[method], **short, **config}
    return Run(name, seed, whole, {"n_iterations": 2})


def rows_of(names, folder: Path, n_seeds: int = 2) -> list[dict]:
    rows = []
    for name in names:
        for seed in range(n_seeds):
            run = tiny_run(f"low variance: {name}", name, seed)
            found = play(run, Context(folder))
            rows += [{"run": run.name, "seed": seed, **row} for row in found]
    run = Run("low variance: task variance", 0, {**TINY, "kind": "variance", "algorithm": 2}, {})
    variance = play(Run(run.name, 0, run.config, {"n_iterations": 2}), Context(folder))
    return rows + [{"run": run.name, "seed": 0, **row} for row in variance]


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_runs_that_options_can_shorten(group: str) -> None:
    study = GROUPS[group](Options(n_seeds=1, n_iterations=3))
    assert study.name == f"bo_mrl_{group}"
    assert {run.budget["n_iterations"] for run in study.runs} == {3}
    usual = {run.stem for run in GROUPS[group](Options()).runs}
    assert {run.stem for run in study.runs} <= usual


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_scored_after_every_number_of_steps(method: str, tmp_path: Path) -> None:
    rows = play(tiny_run("one", method), Context(tmp_path))
    scored = {(row["protocol"], row["step"]) for row in rows if row["kind"] == "gap"}
    protocols = (ONE_VALUE, OWN_VALUES)
    assert scored == {(f"gap, {p}", step) for p in protocols for step in range(N_STEPS + 1)}
    gaps = [
        float(value) for row in rows if row["kind"] == "gap" for value in row["by_task"].split()
    ]
    assert min(gaps) > -1e-9


def test_values_are_chosen_on_validation_tasks_and_not_on_test_tasks() -> None:
    config = tiny_run("one", "BO-MRL, Alg 2").config
    lakes = lakes_of(config, 0)
    other = lakes_of(config, 1)
    assert bool((lakes.test.rewards == other.test.rewards).all())
    assert bool((lakes.validation.rewards == other.validation.rewards).all())
    assert not bool((lakes.train.rewards == other.train.rewards).all())
    logits, _ = trained(config, lakes.train, 2, 0)
    found = best_on(config, lakes.validation, logits)
    assert found[ONE_VALUE].trained_with == found[ONE_VALUE].adapted_with
    assert {found[p].trained_with for p in found} <= set(config["grid"])


def test_certified_bounds_hold_in_every_test_task(tmp_path: Path) -> None:
    rows = play(tiny_run("one", "BO-MRL, Alg 2"), Context(tmp_path))
    certified = [row for row in rows if row["kind"] == "bound" and row["protocol"] in ("B5", "B6")]
    assert len(certified) == 1 + N_STEPS
    assert {float(row["holds"]) for row in certified} == {1.0}


def test_tables_and_picture_are_made_of_the_rows(tmp_path: Path) -> None:
    names = ("BO-MRL, Alg 2", "MAML, exact (E-MAML)", "uniform, Alg 2")
    rows = rows_of(names, tmp_path)
    grids = bo_mrl_report.grids_of("quick", rows)
    assert len(grids) == 6
    assert all(len(row) == len(grid.columns) for grid in grids for row in grid.rows)
    assert bo_mrl_report.draw("quick", rows, tmp_path).exists()


def test_paired_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    rows = rows_of(("BO-MRL, Alg 2", "uniform, Alg 2"), tmp_path, n_seeds=3)
    kind = f"gap, {ONE_VALUE}"
    ours = bo_mrl_report.seed_means(rows, "low variance: BO-MRL, Alg 2", kind)
    theirs = bo_mrl_report.seed_means(rows, "low variance: uniform, Alg 2", kind)
    expected = bo_mrl_report.mean_interval([theirs[seed][1] - ours[seed][1] for seed in range(3)])
    grid = bo_mrl_report.gaps_grid(rows, "low variance", ONE_VALUE)
    (line,) = [row for row in grid.rows if row[0] == "uniform, Alg 2"]
    assert line[3].startswith(f"{expected.estimate:.4f}")


def test_intervals_are_those_of_student_s_t() -> None:
    found = bo_mrl_report.mean_interval([1.0, 2.0, 3.0])
    # 4.3027 is the 97.5 % quantile with two degrees of freedom.
    assert found.high - found.estimate == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert np.isnan(bo_mrl_report.mean_interval([1.0]).low)


def test_plain_ascent_lowers_the_running_minimum(tmp_path: Path) -> None:
    (run, *_) = GROUPS["convergence"](Options(n_seeds=1, n_iterations=20)).runs
    found = play(run, Context(tmp_path))
    rows = [{"run": run.name, "seed": 0, **row} for row in found]
    returns = [float(row["return"]) for row in rows]
    assert returns[-1] > returns[0]
    assert len(bo_mrl_report.convergence_grid(rows).rows) == 1
    assert bo_mrl_report.draw("convergence", rows, tmp_path).exists()


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    context = Context(tmp_path, stopped=lambda: True)
    assert play(tiny_run("one", "uniform, Alg 2"), context) is None
