import csv

import numpy as np
import pytest
from rich.console import Console

from zoo.config import DemoConfig
from zoo.demo import LOG, ORDER, SAVED, play, run_demo
from zoo.demo.lab import LABELS, Entry, Lab, write_log
from zoo.demo.picture import draw_picture
from zoo.demo.service import serve_customers


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DemoConfig:
    return DemoConfig(
        output=tmp_path_factory.mktemp("demo"),
        n_tasks=8,
        n_test_tasks=3,
        n_episodes=5,
        n_replicates=2,
        progress=False,
    )


@pytest.fixture(scope="module")
def mtsrl(config: DemoConfig) -> Entry:
    return play("mtsrl", config)


def test_every_learner_has_a_label_a_turn_and_settings_with_a_source(config: DemoConfig) -> None:
    assert sorted(ORDER) == sorted(LABELS)
    for name in set(LABELS) - {"mtsrl_plus_logged"}:
        assert Lab(config).settings(name).source


def test_the_log_has_one_row_per_step_and_no_repeats(config: DemoConfig) -> None:
    path = config.output / "small.csv"
    assert write_log(path, Lab(config), n_tasks=3, n_episodes=2) == 18
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert [row["stage"] for row in rows[:4]] == ["0", "1", "2", "0"]
    shown = {row["action"] for row in rows[:3]}
    assert len(shown) == 3


def test_logged_segments_are_not_those_of_the_test(config: DemoConfig) -> None:
    lab = Lab(config)
    logged = lab.make_env().sample_tasks(40, seed=config.seed + 1)
    assert not set(logged) & set(lab.tasks)


def test_ours_learn_in_replicates_and_meet_every_held_out_task(mtsrl: Entry) -> None:
    assert mtsrl.result.returns.shape == (3, 5, 1)
    assert mtsrl.result.regret is not None
    assert mtsrl.experience == "120 steps"
    assert mtsrl.history is not None
    assert mtsrl.history.shape == (2, 8)


def test_a_prior_fitted_to_the_log_needs_no_training(config: DemoConfig) -> None:
    write_log(config.output / LOG, Lab(config), n_tasks=6, n_episodes=5)
    entry = play("mtsrl_plus_logged", config)
    assert entry.experience == "the log"
    assert np.isfinite(entry.result.returns).all()


def test_the_saved_agent_serves_a_new_segment_in_words(
    config: DemoConfig, mtsrl: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    serve_customers(
        config.output / SAVED,
        Lab(config).make_env(),
        n_customers=2,
        n_more=2,
        seed=0,
        console=Console(width=100),
    )
    printed = capsys.readouterr().out
    assert printed.count("likes from here on") == 6
    assert "after 2 customers" in printed
    assert "after 4 customers" in printed


def test_the_picture_is_small_enough_for_a_readme(config: DemoConfig, mtsrl: Entry) -> None:
    draw_picture(dict.fromkeys(LABELS, mtsrl), config.output / "demo.png")
    assert len((config.output / "demo.png").read_bytes()) < 300_000


@pytest.mark.slow
def test_the_demo_shows_what_it_is_for(tmp_path) -> None:
    from metarl_agents import AdaptationResult

    run_demo(DemoConfig(output=tmp_path, progress=False))
    results = {
        path.stem: AdaptationResult.from_json(path)
        for path in tmp_path.glob("*.json")
        if path.stem.endswith("-0")
    }
    regret = {name: result.total_regret.mean() for name, result in results.items()}
    ours = regret["MTSRL-0"]
    assert regret["RLSVI-0"] >= 1.7 * ours
    assert ours <= 1.25 * regret["meta-oracle-0"]
    assert min(value for name, value in regret.items() if name.startswith("SB3")) > ours
