"""The Ant's families next to Gymnasium's Ant-v5, with and without contact forces."""

import math
import warnings

import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks
from metarl_envs.locomotion.ant import (
    AntDir2DFamily,
    AntDirFamily,
    AntGoalFamily,
    AntVelFamily,
)
from metarl_envs.locomotion.family import Moved
from metarl_envs.locomotion.humanoid import HumanoidDirFamily
from metarl_envs.locomotion.tasks import DiscTasks, HeadingTask, VelocityTask
from metarl_envs.navigation.tasks import GoalTask
from tests.metarl_envs.locomotion.gymnasium_bodies import (
    N_ENVS,
    assert_same_physics,
    from_infos,
    gymnasium_body,
    play,
)

WITHOUT_FORCES = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}
FORWARD, BACKWARD = HeadingTask(0.0), HeadingTask(math.pi)


def ants(**arguments):
    return [gymnasium_body("Ant-v5", **arguments) for _ in range(N_ENVS)]


@pytest.fixture(scope="module")
def forward_and_back():
    return play(AntDirFamily(), [FORWARD, BACKWARD], ants(**WITHOUT_FORCES))


def test_it_moves_and_falls_as_gymnasiums_bit_for_bit(forward_and_back):
    assert_same_physics(forward_and_back)
    assert forward_and_back.observations.shape == (2, 1000, 27)
    assert forward_and_back.terminated.any()
    assert not forward_and_back.terminated.all()


def test_forward_is_gymnasiums_own_reward_and_backward_has_the_other_sign(forward_and_back):
    played = forward_and_back
    assert np.array_equal(played.rewards[0], played.other_rewards[0])
    velocity, bonus, cost = from_infos(played, "x_velocity", "reward_survive", "reward_ctrl")
    assert np.array_equal(played.rewards[1], (-velocity[1] + bonus[1]) + cost[1])


def test_contact_forces_are_seen_and_paid_for_as_in_gymnasium():
    family = AntDirFamily(include_cfrc_ext_in_observation=True)
    played = play(family, [FORWARD, FORWARD], ants(), seed=1)
    assert_same_physics(played)
    assert played.observations.shape == (2, 1000, 105)
    assert np.array_equal(played.rewards, played.other_rewards)
    assert np.any(played.observations[..., 27:] != 0)
    assert np.any(from_infos(played, "reward_contact")[0] < 0)


@pytest.mark.parametrize(
    "family", [AntDirFamily, AntDir2DFamily, AntVelFamily, AntGoalFamily, HumanoidDirFamily]
)
def test_threads_without_work_are_warned_of(family):
    with pytest.warns(UserWarning, match=r"n_threads=2 .*include_cfrc_ext_in_observation=True"):
        family(include_cfrc_ext_in_observation=True, n_threads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        family(include_cfrc_ext_in_observation=True)
        family(n_threads=2)
    with pytest.raises(ValueError, match="n_threads='2'"):
        family(include_cfrc_ext_in_observation=True, n_threads="2")


def test_directions_of_the_plane_are_rewarded_by_the_velocity_along_them():
    angles = np.array([[1.0], [4.0]])
    tasks = [HeadingTask(float(angle[0])) for angle in angles]
    played = play(AntDir2DFamily(), tasks, ants(**WITHOUT_FORCES), seed=2)
    names = ("x_velocity", "y_velocity", "reward_survive", "reward_ctrl")
    x, y, bonus, cost = from_infos(played, *names)
    expected = (x * np.cos(angles) + y * np.sin(angles)) + bonus + cost
    assert np.array_equal(played.rewards, expected)


def test_speeds_are_rewarded_by_the_distance_from_them():
    tasks = [VelocityTask(0.0), VelocityTask(2.5)]
    played = play(AntVelFamily(), tasks, ants(**WITHOUT_FORCES), seed=3)
    velocity, bonus, cost = from_infos(played, "x_velocity", "reward_survive", "reward_ctrl")
    assert np.array_equal(played.rewards, -np.abs(velocity - [[0.0], [2.5]]) + bonus + cost)


@pytest.mark.parametrize("has_forces", [False, True])
def test_goals_are_rewarded_by_the_torsos_distance_and_nothing_ends(has_forces):
    arguments = {
        "ctrl_cost_weight": 0.1,
        "healthy_reward": 0.0,
        "terminate_when_unhealthy": False,
        "exclude_current_positions_from_observation": False,
        "include_cfrc_ext_in_observation": has_forces,
        "contact_cost_weight": 5e-4 if has_forces else 0,
    }
    family = AntGoalFamily(include_cfrc_ext_in_observation=has_forces)
    goals = np.array([[1.0, -2.0], [0.0, 0.5]])
    others = [Watched(ant) for ant in ants(**arguments)]
    played = play(family, [GoalTask(tuple(goal)) for goal in goals.tolist()], others, seed=4)
    assert_same_physics(played)
    assert played.observations.shape[-1] == (107 if has_forces else 29)
    assert not played.terminated.any()
    x, y, control, contact = from_infos(
        played, "torso_x", "torso_y", "reward_ctrl", "reward_contact"
    )
    distance = np.abs(x - goals[:, :1]) + np.abs(y - goals[:, 1:])
    # Gymnasium adds the costs to each other first.
    assert np.array_equal(played.rewards, -distance - (-control - contact))


class Watched:
    """One of Gymnasium's ants that also tells where its torso is."""

    def __init__(self, ant):
        self.ant = ant

    def __getattr__(self, name):
        return getattr(self.ant, name)

    def step(self, action):
        *rest, info = self.ant.step(action)
        x, y = self.ant.data.body("torso").xpos[:2].tolist()
        return *rest, info | {"torso_x": x, "torso_y": y}


def test_health_is_a_closed_range_of_heights_and_finite_numbers():
    family = AntDirFamily()
    heights = [0.2, 1.0, np.nextafter(0.2, 0), np.nextafter(1.0, 2), np.nan, 0.5, 0.5]
    qpos, qvel = np.zeros((7, 15)), np.zeros((7, 14))
    qpos[:, 2] = heights
    qpos[5, 9], qvel[6, 3] = np.inf, np.nan
    moved = moved_by(family, qpos, qvel)
    healthy = [True, True, False, False, False, False, False]
    assert family.is_healthy(moved).tolist() == healthy
    assert (~family.is_terminal(moved)).tolist() == healthy
    lasting = AntDirFamily(terminate_when_unhealthy=False)
    assert not lasting.is_terminal(moved).any()


def moved_by(family, qpos, qvel):
    nothing = np.zeros((len(qpos), 2))
    return Moved(nothing, nothing, qpos, qvel, np.zeros((len(qpos), 8), np.float32), {})


def test_the_two_directions_are_forward_and_backward_without_a_share_of_y():
    family = AntDirFamily()
    assert family.task_distribution.tasks == (FORWARD, BACKWARD)
    directions = family.compile(np.array([[0.0], [math.pi]]))["direction"]
    assert directions.tolist() == [[1.0, 0.0], [-1.0, 0.0]]
    assert (family.n_train_tasks, family.n_test_tasks) == (2, 2)


def test_goals_are_uniform_in_a_disc():
    goals = np.array(
        [task.goal for task in sample_tasks(DiscTasks(GoalTask.from_array, 3.0), 4000)]
    )
    squares = (goals**2).sum(axis=1) / 9
    assert np.all(squares <= 1 + 1e-12)
    # A share of the area is uniform: mean 1/2, variance 1/12; each coordinate has variance 9/4.
    assert abs(squares.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 4000)
    assert np.all(np.abs(goals.mean(axis=0)) < 4 * 1.5 / math.sqrt(4000))


def test_a_goal_beyond_the_disc_is_none():
    tasks = AntGoalFamily().task_distribution
    assert tasks.from_array(np.array([0.0, 3.0])) == GoalTask((0.0, 3.0))
    with pytest.raises(ValueError, match="outside the disc of radius 3"):
        tasks.from_array(np.array([2.5, 2.5]))
    with pytest.raises(ValueError, match="outside the task space"):
        tasks.from_array(np.array([0.0, 3.1]))
    square = AntGoalFamily(goal_shape="square").task_distribution
    assert square.from_array(np.array([2.5, 2.5])) == GoalTask((2.5, 2.5))


def test_goals_drawn_from_the_edge_of_the_uniforms_are_goals():
    tasks = DiscTasks(GoalTask.from_array, 3.0)
    angles = np.linspace(0, 1, 1000, endpoint=False)
    uniforms = np.stack([np.full(1000, 1 - 2.0**-53), angles], axis=-1)
    for array in tasks.arrays_from_uniforms(lambda rows: uniforms[rows], 1000):
        assert np.array_equal(tasks.from_array(array).to_array(), array)


def test_presets_are_those_of_the_published_code():
    numbers = ("ctrl_cost_weight", "healthy_reward", "terminate_when_unhealthy")
    expected = {
        (AntDirFamily, None): (0.5, 1.0, True),
        (AntDirFamily, "pearl2019"): (0.5, 1.0, True),
        (AntDirFamily, "finn2017"): (0.005, 0.05, True),
        (AntDir2DFamily, "finn2017"): (0.005, 0.05, True),
        (AntVelFamily, None): (0.5, 1.0, True),
        (AntVelFamily, "finn2017"): (0.005, 1.05, True),
        (AntDirFamily, "bomrl2024"): (0.005, 1.05, True),
        (AntVelFamily, "bomrl2024"): (0.005, 1.05, True),
        (AntGoalFamily, None): (0.1, 0.0, False),
        (AntGoalFamily, "promp2019"): (0.1, 0.0, False),
        (AntGoalFamily, "pearl2019"): (0.1, 0.0, False),
        (AntGoalFamily, "finn2017"): (0.005, 4.05, True),
    }
    for (kind, preset), values in expected.items():
        family = kind(preset=preset)
        assert tuple(getattr(family, name) for name in numbers) == values
        assert family.horizon == 200
        assert kind(preset=preset, healthy_reward=0.0).healthy_reward == 0.0
    assert AntVelFamily().task_range == (0.0, 3.0)
    assert AntGoalFamily(preset="finn2017").goal_shape == "square"
    assert (AntGoalFamily.n_train_tasks, AntGoalFamily.n_test_tasks) == (150, 30)


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        (AntDirFamily, {"contact_cost_weight": -1}),
        (AntDir2DFamily, {"healthy_reward": math.nan}),
        (AntVelFamily, {"task_range": (1, 1)}),
        (AntGoalFamily, {"goal_shape": "circle"}),
        (AntGoalFamily, {"goal_limit": -1}),
        (AntGoalFamily, {"preset": "bomrl2024"}),
        (AntDir2DFamily, {"preset": "bomrl2024"}),
    ],
)
def test_settings_that_make_no_sense_are_refused(family, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        family(**arguments)
