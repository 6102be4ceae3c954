"""The studies of BO-MRL in locomotion, and what is made of them."""

from pathlib import Path

import numpy as np
import pytest

from metarl_agents import ALGORITHMS
from zoo.config import check_arguments
from zoo.experiment import held_out_tasks
from zoo.studies.bo_mrl_locomotion import LOCOMOTION, PAPER, alone_run
from zoo.studies.bo_mrl_locomotion_report import (
    alone_returns,
    differences_grid,
    draw_locomotion,
    episodes_grid,
    gains_grid,
    locomotion_grids,
    optima_grid,
)
from zoo.studies.bo_mrl_methods import Options
from zoo.studies.study import Context, Run

PROTOCOLS = {"equal steps": 4, "60 episodes at once": 2, "30 episodes, twice": 3}


def learner(name: str, bonus: float, n_seeds: int = 3, n_tasks: int = 4) -> list[dict]:
    """Rows as a study has them: after step k seed s and task m earn m + (10 + bonus) k + s / 10."""
    return [
        {
            "run": name,
            "seed": seed,
            "kind": "adaptation",
            "protocol": protocol,
            "step": step,
            "by_task": " ".join(
                str(task + (10.0 + bonus) * step + seed / 10) for task in range(n_tasks)
            ),
        }
        for protocol, n_steps in PROTOCOLS.items()
        for seed in range(n_seeds)
        for step in range(n_steps)
    ]


def alone(task: int, earned: float) -> dict:
    row = {"run": f"PPO, task {task} alone", "seed": 0, "kind": "alone"}
    return {**row, "task": task, "return": earned}


ROWS = [
    *learner("BO-MRL, Alg 2", 5.0),
    *learner("MAML (TRPO)", 0.0),
    *learner("ProMP", 8.0),
    alone(0, 50.0),
    alone(2, 60.0),
]
LEARNERS = [row for row in ROWS if row["kind"] == "adaptation"]


@pytest.mark.parametrize("groups", [LOCOMOTION, PAPER], ids=["small", "paper"])
@pytest.mark.parametrize("group", LOCOMOTION)
def test_all_methods_play_equally_many_episodes(groups, group: str) -> None:
    runs = [run for run in groups[group](Options()).runs if run.config["kind"] == "meta"]
    episodes = set()
    for run in runs:
        arguments = run.config["arguments"]
        check_arguments(arguments, ALGORITHMS[run.config["algo"]], where=run.name)
        factor = 1 + arguments.get("n_episodes_after_factor", 1)
        n_episodes = arguments["meta_batch_size"] * arguments["n_episodes_per_task"] * factor
        episodes.add((n_episodes, run.budget["n_iterations"], run.config["n_tasks"]))
    assert len(episodes) == 1
    assert len({run.name for run in runs}) == 6
    assert {run.seed for run in runs} == {0, 1, 2}


@pytest.mark.parametrize("group", ["halfcheetah_dir", "halfcheetah_vel"])
def test_single_tasks_are_different_held_out_ones(group: str) -> None:
    runs = [run for run in LOCOMOTION[group](Options()).runs if run.config["kind"] == "alone"]
    config = runs[0].config
    tasks = held_out_tasks(config["env"], config["n_tasks"], env_kwargs=config["env_kwargs"])
    assert len({tasks[run.config["task"]] for run in runs}) == len(runs) >= 2


def test_a_gain_is_that_of_the_same_task_and_seed() -> None:
    (ours, theirs, *_) = gains_grid(LEARNERS).rows
    assert ours[2].startswith("15.0 [15.0, 15.0]")
    assert ours[-1] == "met"
    assert theirs[-1] == ""  # nothing is claimed of others


def test_a_gain_whose_interval_reaches_zero_is_said_to_be_missed() -> None:
    (line,) = gains_grid(learner("BO-MRL, Alg 1", -10.0)).rows
    assert line[-1] == "MISSED"


def test_differences_are_paired_and_have_a_verdict() -> None:
    maml, promp = differences_grid(LEARNERS).rows
    assert maml[3].startswith("5.00 [") and maml[4].startswith("15.0 [")
    assert maml[-1] == "ours is better"
    assert promp[-1] == "theirs is better"
    again = differences_grid([*learner("BO-MRL, Alg 2", 0.0), *learner("ProMP", 0.0)]).rows
    assert again[0][-1] == "no difference shown"


def test_uses_of_the_same_episodes_stand_side_by_side() -> None:
    ours = episodes_grid(LEARNERS).rows[0]
    # Tasks earn 1.5 on average, seeds 0.1, and a step 15: one step, two steps, three steps.
    assert [cell.split(" ")[0] for cell in ours[2:]] == ["16.6", "31.6", "46.6"]


def test_gaps_are_to_the_same_task() -> None:
    best, ours, *_ = optima_grid(LEARNERS, alone_returns(ROWS)).rows
    assert best[2] == "55.0"
    # Tasks 0 and 2 earn 1 + 15 + 0.1 after one step.
    assert ours[3].startswith("38.9 [")


def test_tables_and_picture_are_made_of_the_rows(tmp_path: Path) -> None:
    grids = locomotion_grids(ROWS)
    assert len(grids) == 5
    assert all(len(row) == len(grid.columns) for grid in grids for row in grid.rows)
    draw_locomotion(ROWS, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()
    assert len(locomotion_grids(LEARNERS)) == 4
    assert locomotion_grids([alone(0, 1.0)]) == []
    assert len(locomotion_grids(learner("BO-MRL, Alg 2", 5.0))) == 3  # nobody to compare with


def test_ppo_alone_is_trained_and_scored_in_one_held_out_task(tmp_path: Path) -> None:
    config = {
        "kind": "alone",
        "env": "metarl/PointGoal-v0",
        "env_kwargs": {"horizon": 4},
        "n_tasks": 3,
        "task": 1,
        "n_envs": 2,
        "n_episodes": 2,
        "arguments": {"n_steps": 4, "batch_size": 8, "n_epochs": 1},
    }
    run = Run("PPO, task 1 alone", 0, config, {"n_timesteps": 16, "device": "cpu"})
    (row,) = alone_run(run, Context(tmp_path))
    assert (row["kind"], row["task"], row["env_steps"]) == ("alone", 1, 16)
    assert np.isfinite(float(row["return"]))
    assert alone_run(run, Context(tmp_path, stopped=lambda: True)) is None
