"""Walker2dVel and Walker2dRandParams: Gymnasium's Walker2d with target speeds, or other bodies."""

import numpy as np
import pytest

from metarl_envs.locomotion.tasks import VelocityTask
from metarl_envs.locomotion.walker2d import Walker2dRandParamsFamily, Walker2dVelFamily
from tests.metarl_envs.locomotion.gymnasium_bodies import (
    N_ENVS,
    assert_same_physics,
    from_infos,
    gymnasium_body,
    play,
)
from tests.metarl_envs.locomotion.random_bodies import (
    assert_equals_a_model_of_its_own,
    assert_never_compounds,
    neutral_task,
)


@pytest.fixture(scope="module")
def others():
    return [gymnasium_body("Walker2d-v5") for _ in range(N_ENVS)]


@pytest.fixture(scope="module")
def played(others):
    return play(Walker2dVelFamily(), [VelocityTask(0.5), VelocityTask(2.5)], others)


def test_it_moves_and_falls_as_gymnasiums_bit_for_bit(played):
    assert_same_physics(played)
    assert 0 < played.terminated.mean() < 1


def test_rewards_are_the_distance_from_the_speed_plus_gymnasiums_bonus_and_cost(played):
    names = "x_velocity", "reward_survive", "reward_ctrl"
    velocity, survive, control = from_infos(played, *names)
    expected = -np.abs(velocity - [[0.5], [2.5]]) + survive + control
    assert np.array_equal(played.rewards, expected)
    assert set(np.unique(survive)) == {0.0, 1.0}


def test_exponents_of_zero_give_gymnasiums_body_and_rewards_bit_for_bit(others):
    family = Walker2dRandParamsFamily()
    again = play(family, [neutral_task(family)] * N_ENVS, others, seed=1)
    assert_same_physics(again)
    assert np.array_equal(again.rewards, again.other_rewards)


def test_random_parameters_equal_a_model_of_its_own():
    assert_equals_a_model_of_its_own(Walker2dRandParamsFamily())


def test_parameters_never_compound_over_tasks():
    assert_never_compounds("metarl/Walker2dRandParams-v0")


def test_tasks_have_an_exponent_for_each_parameter_that_is_not_zero():
    task = neutral_task(Walker2dRandParamsFamily())
    sizes = [len(part) for part in (task.body_mass, task.body_inertia)]
    assert sizes == [7, 21]
    assert [len(task.geom_friction), len(task.dof_damping)] == [24, 6]


def test_episodes_go_on_where_falls_do_not_end_them():
    family = Walker2dVelFamily(terminate_when_unhealthy=False)
    params = family.compile(np.array([[1.0]]))
    rows = family.initial(params, np.full((1, family.n_reset_uniforms), 0.5))
    falls, ends, rng = Walker2dVelFamily(), [], np.random.default_rng(0)
    for stage in range(100):
        actions = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
        played = params, rows, np.full(1, stage), actions, np.empty((1, 0))
        _, fallen, would_end = falls.step(*played)
        rows, rewards, terminated = family.step(*played)
        assert rewards[0] == fallen[0]
        assert not terminated.any()
        ends.append(bool(would_end[0]))
    assert any(ends)


def test_the_preset_of_promp_is_ten_metres_per_second_and_a_bonus_of_fifteen():
    family = Walker2dVelFamily(preset="promp2019")
    assert (family.task_range, family.healthy_reward) == ((0.0, 10.0), 15.0)
    assert Walker2dVelFamily(preset="promp2019", healthy_reward=1.0).healthy_reward == 1.0
    with pytest.raises(ValueError, match="preset='maml'"):
        Walker2dVelFamily(preset="maml")
