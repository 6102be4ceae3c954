"""The studies of BO-MRL in frozen lakes, and what is made of them."""

from pathlib import Path

import pytest

from zoo.studies import bo_mrl_report
from zoo.studies.bo_mrl import GROUPS, METHODS, VARIANCES, Options, play
from zoo.studies.bo_mrl_methods import LAMS, SIZE, STEP_SIZES, published
from zoo.studies.bo_mrl_tabular import (
    N_STEPS,
    ONE_VALUE,
    PROTOCOLS,
    PUBLISHED,
    best_on,
    lakes_of,
    trained,
)
from zoo.studies.seed_statistics import mean_interval
from zoo.studies.study import Context, Run

TINY = {
    **SIZE,
    **VARIANCES["low variance"],
    "kind": "tabular",
    "n_train": 3,
    "n_validation": 4,
    "n_test": 5,
    "meta_batch_size": 2,
}


def tiny_run(name: str, method: str, seed: int = 0, **config) -> Run:
    short = {key: METHODS[method][key][:3] for key in ("grid", "adapt_grid")}
    published = {key: values[-2:] for key, values in short.items()}
    whole = {**TINY, **METHODS[method], **short, "published": published, **config}
    return Run(name, seed, whole, {"n_iterations": 2})


def rows_of(names, folder: Path, n_seeds: int = 2) -> list[dict]:
    rows = []
    for name in names:
        for seed in range(n_seeds):
            run = tiny_run(f"low variance: {name}", name, seed)
            found = play(run, Context(folder))
            rows += [{"run": run.name, "seed": seed, **row} for row in found]
    for seed in range(n_seeds):
        config = {**TINY, "kind": "variance", "algorithm": 2}
        run = Run("low variance: task variance", seed, config, {"n_iterations": 2})
        rows += [{"run": run.name, "seed": seed, **row} for row in play(run, Context(folder))]
    return rows


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_runs_that_options_can_shorten(group: str) -> None:
    study = GROUPS[group](Options(n_seeds=1, n_iterations=3))
    assert study.name == f"bo_mrl_{group}"
    usual = {run.stem: run.budget for run in GROUPS[group](Options()).runs}
    for run in study.runs:
        (length,) = {"n_iterations", "n_timesteps"} & run.budget.keys()
        assert run.budget[length] < usual[run.stem][length]
        assert length == "n_timesteps" or run.budget[length] == 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_scored_after_every_number_of_steps(method: str, tmp_path: Path) -> None:
    rows = play(tiny_run("one", method), Context(tmp_path))
    scored = {(row["protocol"], row["step"]) for row in rows if row["kind"] == "gap"}
    assert scored == {(f"gap, {p}", step) for p in PROTOCOLS for step in range(N_STEPS + 1)}
    assert min(float(row["smallest"]) for row in rows if row["kind"] == "gap") > -1e-9


def test_values_are_chosen_from_their_grids() -> None:
    config = tiny_run("one", "BO-MRL, Alg 2").config
    lakes = lakes_of(config, 0)
    logits = trained(config, lakes.train, 2, 0)
    found = best_on(config, lakes.validation, logits)
    assert found[ONE_VALUE].trained_with == found[ONE_VALUE].adapted_with
    assert {found[p].trained_with for p in found} <= set(config["grid"])
    assert found[PUBLISHED].adapted_with in config["published"]["adapt_grid"]


def test_published_values_are_in_the_grids() -> None:
    for variance in VARIANCES:
        for method, config in METHODS.items():
            values = published(variance, method)
            assert all(len(values[key]) > 0 for key in values)
            assert all(set(values[key]) <= set(config[key]) for key in values)


@pytest.mark.parametrize(
    ("method", "adapted_with", "trained_with"),
    [
        ("BO-MRL, Alg 1", [0.05], LAMS),
        ("BO-MRL, Alg 2", [0.1], LAMS),
        ("multi-task, Alg 2", [0.1], (0.0,)),
        ("uniform, Alg 2", [0.2], (0.0,)),
        ("MAML, naive", [1.0, 4.0, 10.0, 20.0], [1.0, 4.0, 10.0, 20.0]),
    ],
)
def test_published_values_are_those_of_the_scripts(method, adapted_with, trained_with) -> None:
    values = published("low variance", method)
    assert (values["adapt_grid"], values["grid"]) == (adapted_with, trained_with)
    assert set(STEP_SIZES) > {1.0, 4.0, 10.0, 20.0}


def test_certified_bounds_hold_in_every_test_task(tmp_path: Path) -> None:
    rows = play(tiny_run("one", "BO-MRL, Alg 2"), Context(tmp_path))
    certified = [row for row in rows if row["kind"] == "bound" and row["protocol"] in ("B5", "B6")]
    assert len(certified) == 1 + N_STEPS
    assert {float(row["holds"]) for row in certified} == {1.0}


def test_tables_and_picture_are_made_of_the_rows(tmp_path: Path) -> None:
    names = ("BO-MRL, Alg 2", "MAML, exact (E-MAML)", "uniform, Alg 2")
    rows = rows_of(names, tmp_path)
    grids = bo_mrl_report.grids_of("quick", rows)
    assert len(grids) == 8
    assert all(len(row) == len(grid.columns) for grid in grids for row in grid.rows)
    assert bo_mrl_report.draw("quick", rows, tmp_path).exists()


def test_paired_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    rows = rows_of(("BO-MRL, Alg 2", "uniform, Alg 2"), tmp_path, n_seeds=3)
    kind = f"gap, {PUBLISHED}"
    ours = bo_mrl_report.seed_means(rows, "low variance: BO-MRL, Alg 2", kind)
    theirs = bo_mrl_report.seed_means(rows, "low variance: uniform, Alg 2", kind)
    expected = mean_interval([theirs[seed][1] - ours[seed][1] for seed in range(3)])
    grid = bo_mrl_report.gaps_grid(rows, "low variance", PUBLISHED)
    (line,) = [row for row in grid.rows if row[0] == "uniform, Alg 2"]
    assert line[3].startswith(f"{expected.estimate:.4f}")


def two_families(gaps: dict[str, float], variances: dict[str, float]) -> list[dict]:
    """Rows of three seeds of Alg 2 and of one that it is to beat, in both families."""
    rows = []
    for family, gap in gaps.items():
        for seed in range(3):
            for method, more in (("BO-MRL, Alg 2", 0.0), ("MAML, exact (E-MAML)", 0.1)):
                for kind in ("adaptation", "gap"):
                    for protocol in PROTOCOLS:
                        rows += [
                            {
                                "run": f"{family}: {method}",
                                "seed": seed,
                                "kind": kind,
                                "protocol": f"{kind}, {protocol}",
                                "step": step,
                                "return": f"{gap + more + 0.01 * seed}",
                                "chosen": "1",
                                "chosen_adapt": "1",
                                "on_edge": 0,
                            }
                            for step in range(5)
                        ]
            value = variances[family] + 0.01 * seed**2
            variance = {"kind": "variance", "protocol": "reverse_kl", "step": 0, "return": value}
            rows.append({"run": f"{family}: task variance", "seed": seed, **variance})
    return rows


@pytest.mark.parametrize(("low", "verdict"), [(0.1, "met"), (0.9, "MISSED")])
def test_gap_and_variance_are_to_be_larger_with_high_variance(low: float, verdict: str) -> None:
    gaps = {"high variance": 0.5, "low variance": low}
    rows = two_families(gaps, {"high variance": 0.3, "low variance": 0.2})
    *families, last = bo_mrl_report.variances_grid(rows).rows
    assert [line[0] for line in families] == ["high variance", "low variance"]
    assert last[0] == "high variance minus low variance"
    assert last[-1] == verdict


@pytest.mark.parametrize(
    ("group", "family", "verdict"),
    [
        ("frozen_lake", "high variance", "met"),
        ("frozen_lake", "high variance, p 0.95", "met"),
    ],
)
def test_what_is_beaten_is_said_to_be_beaten(group: str, family: str, verdict: str) -> None:
    rows = two_families({family: 0.5}, {family: 0.3})
    verdicts = {row[-1] for grid in bo_mrl_report.grids_of(group, rows) for row in grid.rows}
    assert verdict in verdicts


@pytest.mark.parametrize(
    ("group", "family", "is_missed"),
    [
        ("quick", "high variance", True),
        ("frozen_lake", "high variance, p 0.95", False),
        ("frozen_lake_400", "high variance", False),
    ],
)
def test_bars_are_missed_only_where_something_is_claimed(
    group: str, family: str, is_missed: bool
) -> None:
    rows = two_families({family: 0.5}, {family: 0.3})
    theirs = [{**row, "return": "0"} if "MAML" in row["run"] else row for row in rows]
    verdicts = {row[-1] for grid in bo_mrl_report.grids_of(group, theirs) for row in grid.rows}
    assert ("MISSED" in verdicts) == is_missed
    assert "missed" in verdicts


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
