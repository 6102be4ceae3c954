import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import ACCENT, GREEN, RED
from metarl_envs.navigation import PointCornerFamily, PointGoalFamily, PointWindFamily

NAMES = ["PointGoal", "PointRobot", "SparsePointGoal", "PointCorner", "PointWind"]


def view_of(path, params):
    path = np.array(path, dtype=np.float32)
    return View(path[-1], len(path) - 1, np.zeros(2), 0.5, 1.5, None, params, path)


def centre_of(image, colour):
    """Mean row and column of a colour above the legend."""
    rows, columns = np.nonzero(np.all(image[:464] == np.array(colour), axis=-1))
    assert rows.size
    return rows.mean(), columns.mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_env_draws_frames_of_one_shape(name):
    env = gym.make(f"metarl/{name}-v0", render_mode="rgb_array")
    env.reset(seed=0)
    env.action_space.seed(0)
    first = env.render()
    for _ in range(3):
        env.step(env.action_space.sample())
    frame = env.render()
    assert frame.dtype == np.uint8 and frame.shape == first.shape
    assert not np.array_equal(frame, first)


def test_the_first_axis_goes_right_and_the_second_one_up():
    family = PointGoalFamily()
    goal = np.array([0.4, 0.3])
    image = family.render_rgb(view_of([[0, 0], [-0.2, -0.1]], {"goal": goal}))
    (goal_row, goal_column), (row, column) = centre_of(image, GREEN), centre_of(image, RED)
    assert goal_row < row and goal_column > column
    # The window is 1.4 wide and 400 pixels: 0.4 and 0.6 apart.
    assert row - goal_row == pytest.approx(0.4 * 400 / 1.4, abs=1)
    assert goal_column - column == pytest.approx(0.6 * 400 / 1.4, abs=1)


def test_the_path_is_drawn():
    family = PointGoalFamily()
    before = family.render_rgb(view_of([[0, 0]], {}))
    after = family.render_rgb(view_of([[0, 0], [0.4, 0.0], [0.4, 0.4]], {}))
    rows, columns = np.nonzero((before[64:464] != after[64:464]).any(axis=-1))
    # 0.8 of the window's 1.4, in lines of about two pixels.
    assert rows.size > 2 * 0.8 * 400 / 1.4
    turn = after[64 + 199 : 64 + 202, 52 + 200 + 113 : 52 + 200 + 116]
    assert np.all(turn == np.array(ACCENT), axis=-1).any()
    assert columns.min() >= 52 + 200 - 8 and rows.max() <= 200 + 8


def test_the_window_grows_for_a_path_that_leaves_it():
    family = PointGoalFamily()
    goal = np.array([0.4, 0.3])
    image = family.render_rgb(view_of([[0, 0], [-2.0, -2.0]], {"goal": goal}))
    assert centre_of(image, GREEN)[0] < centre_of(image, RED)[0]
    assert "x -2.8 to 2.8" in family.render_ansi(view_of([[0, 0], [-2.0, -2.0]], {"goal": goal}))


def test_text_shows_start_goal_and_agent_where_they_are():
    family = PointCornerFamily()
    text = family.render_ansi(view_of([[0, 0], [0.5, -0.5]], {"goal": np.array([-2.0, 2.0])}))
    lines = text.split("\n")[2:-3]
    where = {mark: (i, line.index(mark)) for i, line in enumerate(lines) for mark in line if mark}
    assert where["G"][0] < where["S"][0] < where["A"][0]
    assert where["G"][1] < where["S"][1] < where["A"][1]
    assert "".join(lines).count("o") == 3
    assert text.startswith("step 1 of 100, return 1.50")


def test_pictures_need_neither_path_nor_params():
    family = PointWindFamily()
    view = View(np.zeros(2, np.float32), 0, None, 0.0, 0.0, None)
    assert "last step: none yet" in family.render_ansi(view)
    assert family.render_rgb(view).shape[2] == 3


def test_the_wind_is_shown():
    family = PointWindFamily()
    wind = {"wind": np.array([0.05, -0.02])}
    assert "wind (0.050, -0.020)" in family.render_ansi(view_of([[0, 0]], wind))
    calm, windy = (family.render_rgb(view_of([[0, 0]], params)) for params in ({}, wind))
    assert not np.array_equal(calm, windy)
