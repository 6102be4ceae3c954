"""SwimmerVel: Gymnasium's Swimmer with target speeds."""

import numpy as np
import pytest

from metarl_envs.locomotion.swimmer import SwimmerVelFamily
from metarl_envs.locomotion.tasks import VelocityTask
from tests.metarl_envs.locomotion.gymnasium_bodies import (
    N_ENVS,
    assert_same_physics,
    from_infos,
    gymnasium_body,
    play,
    start,
)


@pytest.fixture(scope="module")
def played():
    tasks = [VelocityTask(0.1), VelocityTask(0.17)]
    return play(SwimmerVelFamily(), tasks, [gymnasium_body("Swimmer-v5") for _ in range(N_ENVS)])


def test_it_moves_as_gymnasiums_bit_for_bit(played):
    assert_same_physics(played)
    assert not played.terminated.any()


def test_rewards_are_the_distance_from_the_speed_less_gymnasiums_control_cost(played):
    velocity, control = from_infos(played, "x_velocity", "reward_ctrl")
    expected = -np.abs(velocity - [[0.1], [0.17]]) + control
    assert np.array_equal(played.rewards, expected)


def test_velocities_are_those_of_gymnasiums_infos():
    family, other = SwimmerVelFamily(), gymnasium_body("Swimmer-v5")
    params = family.compile(np.array([[0.1]]))
    rows = family.initial(params, np.full((1, family.n_reset_uniforms), 0.3))
    start(family, other, rows[0])
    action = np.array([[0.5, -0.5]], np.float32)
    rows, _, _ = family.step(params, rows, np.zeros(1, int), action, np.empty((1, 0)))
    *_, info = other.step(action[0])
    infos = family.infos(rows, np.ones(1, int))
    for name in ("x_position", "y_position", "x_velocity", "y_velocity"):
        assert infos[name][0] == info[name]


def test_presets_are_those_of_the_published_code():
    assert SwimmerVelFamily().speed_weight == 1.0
    assert SwimmerVelFamily().ctrl_cost_weight == 1e-4
    finn = SwimmerVelFamily(preset="finn2017")
    assert (finn.speed_weight, finn.ctrl_cost_weight) == (1.5, 5e-3)
    assert SwimmerVelFamily(preset="finn2017", speed_weight=2.0).speed_weight == 2.0
    with pytest.raises(ValueError, match="speed_weight=-1"):
        SwimmerVelFamily(speed_weight=-1.0)
