"""The study of estimators: settings, rows, bars."""

import pytest

from zoo.studies import estimators
from zoo.studies.estimators import (
    BY_EPISODES,
    CONTROLLED,
    FOUR_BATCHES,
    SCORE,
    TABLE,
    WITH_BASELINE,
    Setting,
    estimator_study,
    play,
)
from zoo.studies.estimators_report import bars_grid, draw, grids_of
from zoo.studies.study import Context, Run


@pytest.fixture(scope="module")
def rows():
    settings = (TABLE[2], TABLE[3], *BY_EPISODES[:2], Setting("A", 0.5, 16, is_sampled=True))
    found = []
    for setting in settings:
        run = Run(setting.name, 0, setting._asdict(), {"n_replicates": 2000})
        found += play(run, Context(None))
    return found


def number(rows, name, field, **where):
    (row,) = (
        row
        for row in rows
        if row["estimator"] == name and all(row[key] == value for key, value in where.items())
    )
    return float(row[field])


def test_runs_have_names_of_their_own_and_a_quick_study_has_fewer():
    whole, quick = estimator_study().runs, estimator_study(quick=True).runs
    assert len({run.name for run in whole}) == len(whole) > len(quick)
    assert Setting(**whole[0].config) == TABLE[0]


def test_sampled_rows_agree_with_what_is_known(rows):
    sampled = {"is_sampled": True}
    # Exactly unbiased ones: within 4 standard errors of the one that serves as truth.
    for name in (SCORE, WITH_BASELINE):
        bias = number(rows, name, "relative_bias", **sampled)
        assert bias < 4 * number(rows, name, "bias_standard_error", **sampled)
    assert number(rows, "MAML", "relative_bias", **sampled) == pytest.approx(0.27, abs=0.03)


def test_noise_falls_with_episodes_only_where_the_score_is_controlled(rows):
    def ratio(name):
        few, many = (number(rows, name, "relative_std", tasks="A", n_episodes=n) for n in (1, 16))
        return many / few

    assert ratio(SCORE) > 3  # the square root of 16, nearly
    assert 0.5 < ratio(WITH_BASELINE) < 1.5
    assert ratio(CONTROLLED) < 0.35
    assert ratio("DiCE") < 0.35


def test_bars_judge_what_was_run(rows):
    verdicts = {(row[0], row[1]): row[-1] for row in bars_grid(rows).rows}
    assert verdicts["E-MAML", TABLE[3].name] == "met"
    assert verdicts[SCORE, TABLE[3].name] == "met"
    assert verdicts[SCORE, FOUR_BATCHES.name] == "not run"
    wrong = [{**row, "relative_bias": "0.1"} if row["estimator"] == SCORE else row for row in rows]
    assert "MISSED" in [row[-1] for row in bars_grid(wrong).rows]


def test_tables_and_picture_come_from_whatever_is_there(rows, tmp_path):
    cells = {row[0]: row for row in grids_of(rows)[0].rows}
    assert cells["DiCE"][4] == "0.095"
    assert cells[SCORE][4] == "0"
    draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_run_that_is_told_to_stop_leaves_no_rows(monkeypatch):
    monkeypatch.setattr(estimators, "names_in", lambda setting: ("MAML",))
    run = Run("x", 0, TABLE[0]._asdict())
    assert play(run, Context(None, stopped=lambda: True)) is None
    assert len(play(run, Context(None))) == 1
