"""What docs/families.md says is true: its code runs, its table is what is computed."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs import FAMILIES, FiniteTasks
from metarl_envs.tabular.t_maze import TMazeTask
from zoo.optima import every_task, optima_grid, random_returns

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "families.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def grid():
    return optima_grid()


def estimate(cell):
    """Mean and half width of the interval of a cell."""
    mean, _, half_width = cell.partition(" ± ")
    return float(mean), float(half_width or 0)


def test_the_code_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "families.md", "exec"), names)
    assert names["returns"] == pytest.approx([4, 155 / 14, 155 / 14, 155 / 14])


def test_every_id_is_described():
    described = set(re.findall(r"`(?:metarl/)?(\w+)(?:-v0)?`", PAGE.split("## What is known")[0]))
    assert {env_id[len("metarl/") : -len("-v0")] for env_id in FAMILIES} <= described


def test_the_table_is_what_the_command_prints(grid):
    match = re.search(r"<!-- optima: .*? -->\n(.*?)\n<!-- end of optima -->", PAGE, flags=re.DOTALL)
    assert match is not None
    assert match.group(1) == grid.markdown()


@pytest.mark.parametrize(
    ("env_id", "told", "random"),
    [
        # The largest of five uniform numbers is 5/6 on average, any one of them 1/2.
        ("metarl/BernoulliBandit-v0", 10 * 5 / 6, 10 / 2),
        ("metarl/GaussianBandit-v0", 500 * 5 / 6, 500 / 2),
        ("metarl/RandomMDP-v0", None, 10.0),
        ("metarl/GridGoal-v0", 155 / 14, None),
        ("metarl/PointCorner-v0", 8**0.5, None),
    ],
)
def test_means_agree_with_closed_forms(grid, env_id, told, random):
    row = next(row for row in grid.rows if row[0] == f"`{env_id}`")
    for cell, expected in ((row[3], told), (row[5], random)):
        mean, half_width = estimate(cell)
        # Intervals of 95 %, doubled; the rest is rounding to at least two decimals.
        assert expected is None or abs(mean - expected) <= 2 * half_width + 0.005


def test_nobody_earns_more_than_who_is_told_the_task(grid):
    for row in grid.rows:
        (told, width), (random, _) = estimate(row[3]), estimate(row[5])
        assert random < told
        assert not row[4] or random < float(row[4]) <= told + width


@pytest.mark.parametrize("name", ["Goal", "Slip"])
def test_random_play_agrees_with_the_exact_value(name):
    env = gym.make(f"metarl/FrozenLake{name}-v0").unwrapped
    tasks = env.sample_tasks(500, seed=3)
    exact = env.stationary_policy_returns(tasks, np.full((16, 4), 0.25))
    errors = random_returns(env.family, tasks, n_episodes=4, seed=0) - exact
    # Four standard errors.
    assert abs(errors.mean()) < 4 * errors.std() / len(tasks) ** 0.5


def test_finite_families_are_enumerated():
    def of(env_id):
        return every_task(gym.make(env_id).unwrapped.task_distribution)

    assert len(set(of("metarl/DarkRoom-v0"))) == 81
    assert len(set(of("metarl/TMaze-v0"))) == 2
    assert of("metarl/RandomMDP-v0") is None


def test_tasks_of_unequal_probability_are_not_averaged_alike():
    assert every_task(FiniteTasks([TMazeTask(-1), TMazeTask(1)], [0.25, 0.75])) is None


def test_the_picture_is_small():
    assert (DOCS / "images" / "families.png").stat().st_size < 400_000
