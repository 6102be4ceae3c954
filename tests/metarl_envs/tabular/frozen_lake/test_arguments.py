"""What frozen lakes accept, refuse and show."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import MAPS

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular.frozen_lake import (
    FrozenLakeGoalFamily,
    FrozenLakeHolesFamily,
    FrozenLakeRewardFamily,
    FrozenLakeSlipFamily,
    HolesTask,
    LakeGoalTask,
    MarksTask,
    SlipTask,
)
from metarl_envs.tabular.frozen_lake.maps import has_path, rows_of_ice

IDS = [f"metarl/FrozenLake{name}-v0" for name in ("Holes", "Reward", "Slip", "Goal")]


@pytest.mark.parametrize("family_class", [FrozenLakeHolesFamily, FrozenLakeRewardFamily])
@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"size": 1}, ValueError, "size"),
        ({"size": 9}, ValueError, "size"),
        ({"size": 4.0}, ValueError, "size"),
        ({"p": 0.1}, ValueError, "p="),
        ({"size": 8, "p": 0.44}, ValueError, r"p=0.44 must lie in \[0.45, 1\] for maps of size=8"),
        ({"p": 1.5}, ValueError, "p="),
        ({"p": "0.8"}, ValueError, "p="),
        ({"preset": "paper"}, ValueError, r"\['bomrl2024', 'gymnasium'\]"),
        ({"preset": None}, ValueError, "preset"),
        ({"success_rate": 1.2}, ValueError, "success_rate"),
        ({"is_slippery": 1}, ValueError, "is_slippery"),
        ({"absorbing": "yes"}, ValueError, "absorbing"),
        ({"discount": -0.1}, ValueError, "discount"),
        ({"discount": np.nan}, ValueError, "discount"),
        ({"horizon": 0}, ValueError, "horizon"),
        ({"horizon": 2.5}, ValueError, "horizon"),
        ({"reward": 1.0}, TypeError, "unexpected keyword"),
    ],
)
def test_bad_arguments_are_refused(family_class, arguments, error, name):
    with pytest.raises(error, match=name):
        family_class(**arguments)


@pytest.mark.parametrize(
    ("family_class", "arguments", "name"),
    [
        (FrozenLakeHolesFamily, {"hole_reward": np.inf}, "hole_reward"),
        (FrozenLakeHolesFamily, {"hole_reward": -1e300}, "hole_reward"),
        (FrozenLakeRewardFamily, {"penalty": 1e7}, "penalty"),
        (FrozenLakeRewardFamily, {"penalty": "much"}, "penalty"),
        (FrozenLakeSlipFamily, {"map_name": "5x5"}, r"\['4x4', '8x8'\]"),
        (FrozenLakeSlipFamily, {"slip_range": (0.5, 0.1)}, "slip_range"),
        (FrozenLakeSlipFamily, {"slip_range": (0.0, 1.5)}, "slip_range"),
        (FrozenLakeSlipFamily, {"slip_range": 0.5}, "slip_range"),
        (FrozenLakeGoalFamily, {"map_name": ["SF", "FG"]}, "map_name"),
    ],
)
def test_bad_arguments_of_one_family_are_refused(family_class, arguments, name):
    with pytest.raises(ValueError, match=name):
        family_class(**arguments)


def test_what_is_given_wins_over_the_preset():
    family = FrozenLakeHolesFamily(preset="bomrl2024", hole_reward=-3.0, absorbing=False)
    assert (family.hole_reward, family.absorbing) == (-3.0, False)
    assert (family.discount, family.horizon) == (0.8, 49)
    family = FrozenLakeSlipFamily(preset="bomrl2024", discount=1.0, horizon=20)
    assert (family.hole_reward, family.absorbing, family.discount) == (-1.0, True, 1.0)
    assert family.horizon == family.finite_mdp(SlipTask(0.5)).horizon == 20


@pytest.mark.parametrize("map_name", MAPS)
def test_time_limits_are_those_of_gymnasiums_registration(map_name):
    limit = gym.spec("FrozenLake-v1" if map_name == "4x4" else "FrozenLake8x8-v1").max_episode_steps
    assert FrozenLakeSlipFamily(map_name=map_name).horizon == limit
    assert FrozenLakeHolesFamily(size=int(map_name[0])).horizon == limit


@pytest.mark.parametrize(
    "desc",
    [
        ["SFFF", "FHFH", "FFFH"],
        ["SFFF", "FHFH", "FFFH", "HFF"],
        "SFFFFHFHFFFHHFFG",
        ["FFFF", "FHFH", "FFFH", "HFFG"],
        ["SFFF", "FHFH", "FFFH", "HFFF"],
        ["SFFF", "FHFX", "FFFH", "HFFG"],
        ["SFFF", "FHSH", "FFFH", "HFFG"],
        ["SHFF", "HFFF", "FFFF", "FFFG"],
    ],
)
def test_maps_that_are_no_task_are_refused(desc):
    for family in (FrozenLakeHolesFamily(), FrozenLakeGoalFamily()):
        with pytest.raises(ValueError, match=r"desc|no task"):
            family.task_from_desc(desc)
    with pytest.raises(ValueError, match="desc"):
        FrozenLakeRewardFamily().task_from_desc(MAPS["4x4"])


def test_the_smallest_p_leaves_enough_maps_with_a_path():
    rng = np.random.default_rng(0)
    for size, p in ((4, 0.3), (5, 0.3), (6, 0.35), (7, 0.4), (8, 0.45)):
        FrozenLakeRewardFamily(size=size, p=p)
        holes = rng.random((20_000, size * size)) > p
        holes[:, [0, -1]] = False
        assert has_path(rows_of_ice(holes, size)).mean() > 1 / 150


def test_the_map_of_gymnasiums_env_is_a_task():
    for name in ("FrozenLake-v1", "FrozenLake8x8-v1"):
        desc = gym.make(name).unwrapped.desc
        rows = [row.tobytes().decode() for row in desc]
        for family in (
            FrozenLakeHolesFamily(size=len(desc)),
            FrozenLakeGoalFamily(map_name=f"{len(desc)}x{len(desc)}"),
        ):
            task = family.task_from_desc(desc)
            assert family.desc(task) == rows
            assert family.task_from_desc(desc.astype(str)) == family.task_from_desc(rows) == task


@pytest.mark.parametrize("desc", [None, 5, {"SF", "FG"}, np.zeros((4, 4)), b"SF"])
def test_what_is_no_map_is_refused(desc):
    error = ValueError if isinstance(desc, bytes) else TypeError
    for family in (FrozenLakeHolesFamily(), FrozenLakeGoalFamily(), FrozenLakeRewardFamily()):
        with pytest.raises(error, match="desc="):
            family.task_from_desc(desc)


@pytest.mark.parametrize(
    "tasks",
    [
        [MarksTask((0,) * 16)],
        [HolesTask((0,) * 15)],
        [HolesTask((0,) * 16), HolesTask((0,) * 64)],
        [HolesTask((0, 1, 0, 0, 1) + (0,) * 11)],
        [HolesTask((0, 2) + (0,) * 14)],
        [HolesTask((1,) + (0,) * 15)],
        [HolesTask((float("nan"),) * 16)],
    ],
)
def test_tasks_of_another_family_have_no_values(tasks):
    family = FrozenLakeHolesFamily()
    for method in (family.optimal_returns, family.finite_mdps, family.sparse_mdps):
        with pytest.raises(ValueError, match=r"task|array"):
            method(tasks)
    with pytest.raises(TypeError, match="list"):
        family.optimal_returns(tasks[0])


def test_single_numbers_outside_a_family_have_no_values():
    for family, task in (
        (FrozenLakeSlipFamily(), SlipTask(0.9)),
        (FrozenLakeSlipFamily(), SlipTask("0.1")),
        (FrozenLakeGoalFamily(), LakeGoalTask(5)),
        (FrozenLakeGoalFamily(), SlipTask(0.1)),
    ):
        with pytest.raises(ValueError, match=r"task|array"):
            family.optimal_returns([task])


def test_policies_of_the_wrong_shape_are_refused():
    family = FrozenLakeSlipFamily()
    with pytest.raises(ValueError, match="policies has shape"):
        family.stationary_policy_returns([SlipTask(0.1)], np.full((2, 16, 4), 0.25))


@pytest.mark.parametrize("policies", ["a", None, np.full((16, 4), np.nan), [[0.25], [0.5, 0.5]]])
def test_policies_that_are_no_numbers_are_refused(policies):
    family = FrozenLakeSlipFamily(discount=0.9)
    for method in (family.stationary_policy_returns, family.discounted_policy_returns):
        with pytest.raises(ValueError, match="policies"):
            method([SlipTask(0.1)], policies)


@pytest.mark.parametrize("env_id", IDS)
def test_pictures_show_the_task_and_the_agent(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    first, second = env.unwrapped.sample_tasks(2, seed=1)
    pictures = []
    for task in (first, second):
        env.reset(seed=0, options={"task": task})
        pictures.append(env.render())
    env.step(1)
    pictures.append(env.render())
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[1], pictures[2])


def test_text_shows_the_map_and_where_the_agent_was():
    env = gym.make("metarl/FrozenLakeHoles-v0", render_mode="ansi")
    task = env.unwrapped.family.task_from_desc(MAPS["4x4"])
    env.reset(seed=0, options={"task": task})
    env.step(1)
    env.step(2)
    assert env.render().split("\n") == [
        "step 2 of 100, return 0.00",
        " s  F  F  F ",
        " f [H] F  H ",
        " F  F  F  H ",
        " H  F  F  G ",
        "last step: right, reward 0.00",
    ]


def test_tasks_vary_much_in_holes_and_little_in_marks():
    # What the two families are for: a policy without knowledge of the task loses more on the one.
    uniform = np.full((16, 4), 0.25)
    spreads = []
    for family in (
        FrozenLakeHolesFamily(preset="bomrl2024"),
        FrozenLakeRewardFamily(preset="bomrl2024"),
    ):
        tasks = sample_tasks(family.task_distribution, 200, seed=0)
        spreads.append(family.discounted_policy_returns(tasks, uniform).std())
    assert spreads[0] > 3 * spreads[1]
