import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from zoo.cli import main
from zoo.config import TrainConfig
from zoo.runs import load_run, train_run

ENV = "metarl/RecommendationSmall-v0"
SHORT = ("n_episodes_per_task=4", "n_exploration_tasks=2")


def short_run(folder: Path, n_timesteps: int, **changes: object) -> TrainConfig:
    return TrainConfig(
        algo="mtsrl",
        env=ENV,
        n_timesteps=n_timesteps,
        hyperparams=SHORT,
        folder=folder,
        progress=False,
        tensorboard=False,
        **changes,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["train", "mtsrl", ENV, "--folder", str(folder), "-n", "48"]
    assert main([*arguments, "--hyperparams", *SHORT, "--no-progress"]) == 0
    return folder / "mtsrl" / "metarl-RecommendationSmall-v0" / "0"


class Interrupt(BaseCallback):
    def _on_step(self) -> bool:
        if self.num_timesteps >= 30:
            raise KeyboardInterrupt
        return True


def test_train_leaves_checkpoint_configuration_versions_and_logs(run: Path) -> None:
    agent, record = load_run(run)
    assert agent.num_timesteps == 48
    assert record["algo"] == "mtsrl"
    assert record["arguments"]["n_episodes_per_task"] == 4
    assert {"torch", "gymnasium", "python"} <= set(record["versions"])
    assert list(run.glob("tensorboard/*/events*"))


@pytest.mark.parametrize("name", ["n_timesteps", "n_envs", "checkpoint_interval"])
@pytest.mark.parametrize("number", [0, -5])
def test_numbers_below_one_are_refused(tmp_path: Path, name: str, number: int) -> None:
    config = replace(short_run(tmp_path, 8), **{name: number})
    with pytest.raises(ValueError, match=f"{name}={number} must be at least 1"):
        train_run(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--n-episodes", "--n-adapt-episodes"])
def test_fewer_than_no_episodes_are_not_shown(run: Path, option: str, capsys) -> None:
    assert main(["enjoy", str(run), option, "-1"]) == 2
    assert option.removeprefix("--").replace("-", "_") in capsys.readouterr().err


def test_a_configuration_with_entries_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("algo: mtsrl\n")
    with pytest.raises(ValueError, match="lacks env, env_kwargs, n_envs"):
        load_run(tmp_path)


def test_a_second_run_does_not_overwrite_the_first(run: Path) -> None:
    config = short_run(run.parents[2], 48)
    with pytest.raises(ValueError, match="--resume goes on with it"):
        train_run(config)


def test_resuming_with_other_settings_is_refused(run: Path) -> None:
    config = TrainConfig(
        algo="mtsrl",
        env=ENV,
        n_timesteps=60,
        hyperparams=(*SHORT, "sigma2=0.5"),
        folder=run.parents[2],
        resume=True,
    )
    with pytest.raises(ValueError, match="other settings"):
        train_run(config)


def test_an_interrupted_run_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_run(short_run(tmp_path / "a", 60), Interrupt())
    stopped = load_run(tmp_path / "a/mtsrl/metarl-RecommendationSmall-v0/0")[0]
    assert stopped.num_timesteps == 24
    resumed = load_run(train_run(short_run(tmp_path / "a", 60, resume=True)))[0]
    straight = load_run(train_run(short_run(tmp_path / "b", 60)))[0]
    assert resumed.num_timesteps == straight.num_timesteps == 60
    np.testing.assert_array_equal(resumed.prior()[0], straight.prior()[0])


def test_evaluate_writes_table_json_csv_and_picture(run: Path, capsys) -> None:
    assert main(["evaluate", str(run), "--n-tasks", "3", "--n-episodes", "5"]) == 0
    assert "mtsrl" in capsys.readouterr().out
    output = run / "evaluation"
    result = json.loads((output / "mtsrl-0.json").read_text())
    assert np.shape(result["returns"]) == (3, 5, 1)
    with (output / "mtsrl-0.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 15
    assert (output / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    assert "| mtsrl |" in (output / "tables.md").read_text()


def test_enjoy_shows_every_step(run: Path, capsys) -> None:
    assert main(["enjoy", str(run), "--n-episodes", "2", "--n-adapt-episodes", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("reward") == 6
    assert "episode 2" in printed
    assert "episode 3" in printed


def test_compare_meets_the_same_tasks_with_a_trained_and_a_fresh_agent(
    run: Path, tmp_path: Path, capsys
) -> None:
    arguments = ["compare", str(run), "dqn_scratch", "--n-tasks", "2", "--n-episodes", "8"]
    assert main([*arguments, "--output", str(tmp_path), "--no-progress"]) == 0
    assert "dqn_scratch" in capsys.readouterr().out
    ids = [tuple(json.loads(path.read_text())["task_ids"]) for path in tmp_path.glob("*.json")]
    assert len(ids) == 2
    assert ids[0] == ids[1]


def test_compare_refuses_an_agent_of_another_env(run: Path, capsys) -> None:
    assert main(["compare", str(run), "--env", "metarl/Recommendation-v0"]) == 2
    assert "was trained on" in capsys.readouterr().err
