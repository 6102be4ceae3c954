from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs import FAMILIES
from metarl_envs.batched.family import View
from metarl_envs.batched.rendering import canvas, describe, draw_text, text_image, text_size

IDS = [env_id for env_id in FAMILIES if "Recommendation" in env_id or "Inverse" in env_id]


def frames(env_id, mode, n_steps):
    env = gym.make(env_id, render_mode=mode)
    env.reset(seed=1)
    result = [env.render()]
    for action in range(n_steps):
        env.step(action % 3)
        result.append(env.render())
    return result


@pytest.mark.parametrize("env_id", IDS)
def test_pictures_show_what_happens(env_id):
    pictures = frames(env_id, "rgb_array", 3)
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape == pictures[0].shape
        assert picture.ndim == 3 and min(picture.shape[:2]) > 100
    assert not any(np.array_equal(*pair) for pair in pairwise(pictures))


def test_text_of_a_customer_names_products_and_outcomes():
    start, *_, end = frames("metarl/RecommendationSmall-v0", "ansi", 3)
    assert "0 of 3 recommendations made, 0 liked" in start and "nothing yet" in start
    assert "3 of 3 recommendations made" in end and "last: product 2" in end
    marks = end.split("\n")[2].split("(")[0].split()
    assert sum(mark in "+-" for mark in marks) == 3 and marks.count(".") == 3


def test_text_of_a_chain_marks_the_current_state():
    start, after = frames("metarl/InverseBellman-v0", "ansi", 1)
    assert start.count("X") == after.count("X") == 1
    assert "stage 1 of 4" in after and "last step: action 0" in after


def test_render_without_a_mode_warns_and_returns_nothing():
    env = gym.make(IDS[0]).unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None
    vector = gym.make_vec(IDS[0])
    vector.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert vector.render() is None


def test_text_fills_its_size_and_is_cut_at_the_edge():
    height, width = text_size("HI 1", scale=3)
    image = canvas(height, width, (255, 255, 255))
    draw_text(image, 0, 0, "HI 1", (0, 0, 0), scale=3)
    ink = (image == 0).all(-1)
    assert ink.any(1).all() and ink[:, 0].any() and not ink[:, 15:18].any()
    draw_text(image, height - 2, width - 2, "HI", (0, 0, 0))
    draw_text(image, height + 5, 0, "HI", (0, 0, 0))


def test_families_without_a_picture_are_described():
    view = View(np.array([0.5, 1.0]), 2, np.int64(1), 0.25, 1.5, None)
    text = describe("Chain", view)
    assert "stage 2, return 1.50" in text and "action 1, reward 0.25" in text
    assert "none yet" in describe("Chain", view._replace(action=None))
    assert text_image(text).shape[2] == 3
