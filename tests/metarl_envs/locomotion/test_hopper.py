"""HopperRandParams: Gymnasium's Hopper with other masses, inertias, frictions and dampings."""

import pickle

import numpy as np
import pytest

from metarl_envs.locomotion.family import Moved
from metarl_envs.locomotion.hopper import HopperRandParamsFamily
from tests.metarl_envs.locomotion.gymnasium_bodies import (
    N_ENVS,
    assert_same_physics,
    gymnasium_body,
    play,
)
from tests.metarl_envs.locomotion.random_bodies import (
    assert_equals_a_model_of_its_own,
    assert_never_compounds,
    neutral_task,
)


@pytest.fixture(scope="module")
def family():
    return HopperRandParamsFamily()


def test_exponents_of_zero_give_gymnasiums_body_and_rewards_bit_for_bit(family):
    others = [gymnasium_body("Hopper-v5") for _ in range(N_ENVS)]
    played = play(family, [neutral_task(family)] * N_ENVS, others)
    assert_same_physics(played)
    assert np.array_equal(played.rewards, played.other_rewards)
    assert 0 < played.terminated.mean() < 1


def test_random_parameters_equal_a_model_of_its_own(family):
    assert_equals_a_model_of_its_own(family)


def test_parameters_never_compound_over_tasks():
    assert_never_compounds("metarl/HopperRandParams-v0")


def test_health_is_gymnasiums_at_every_bound(family):
    other = gymnasium_body("Hopper-v5")
    cases = [(1, 0.7), (1, 0.7001), (1, 300.0), (2, 0.2), (2, -0.2), (2, 0.1999), (3, 100.0)]
    cases += [(4, -100.0), (5, 99.9), (6, 100.0), (11, -100.1), (11, 99.0), (0, 500.0), (6, np.nan)]
    for place, value in cases:
        numbers = np.concatenate([other.init_qpos, other.init_qvel])
        numbers[place] = value
        other.data.qpos[:], other.data.qvel[:] = numbers[:6], numbers[6:]
        zeros = np.zeros((1, 2))
        moved = Moved(zeros, zeros, numbers[None, :6], numbers[None, 6:], zeros, {})
        assert bool(family.is_healthy(moved)[0]) == bool(other.is_healthy), (place, value)


def test_factors_are_powers_of_the_published_bases(family):
    n = family.task_distribution.space.shape[0]
    array = np.linspace(-3, 3, n)
    task = family.task_distribution.from_array(array)
    assert np.array_equal(task.to_array(), array)
    model, params = family.physics.model, family.compile(array[None])
    for name, base in (("body_mass", 1.5), ("geom_friction", 1.5), ("dof_damping", 1.3)):
        usual, values = getattr(model, name), params[f"model.{name}"][0]
        assert np.array_equal(values == 0, usual == 0)
        found = np.log(values[usual != 0] / usual[usual != 0]) / np.log(base)
        assert np.allclose(found, getattr(task, name), rtol=0, atol=1e-12)  # of logarithms
    assert n == 4 + 12 + 15 + 3


def test_sixteen_of_the_numbers_act(family):
    n = family.task_distribution.space.shape[0]
    across, sliding = np.arange(4 + 1, 16, 3), np.arange(16, 31, 3)
    acting = np.concatenate([np.arange(4), across, sliding, np.arange(31, 34)])
    arrays = np.zeros((2 + len(acting), n))
    arrays[1] = 2.5
    arrays[1, acting] = 0.0
    arrays[2 + np.arange(len(acting)), acting] = 2.5
    params, rng = family.compile(arrays), np.random.default_rng(0)
    uniforms = np.tile(rng.random(family.n_reset_uniforms), (len(arrays), 1))
    rows = family.initial(params, uniforms)
    for stage in range(200):
        actions = np.tile(rng.uniform(-1, 1, 3), (len(arrays), 1)).astype(np.float32)
        stages, nothing = np.full(len(arrays), stage), np.empty((len(arrays), 0))
        rows, _, _ = family.step(params, rows, stages, actions, nothing)
    assert len(acting) == 16
    assert np.array_equal(rows[1], rows[0])
    # A geom's sliding friction acts where it is on the floor; the leg above the foot never was.
    differs = np.abs(rows[2:] - rows[0]).max(axis=1) > 1e-6
    assert np.flatnonzero(~differs).tolist() == [8 + 3]


def test_compiled_fields_have_the_same_names_whatever_the_task(family):
    zeros = family.compile(np.zeros((1, *family.task_distribution.space.shape)))
    ones = family.compile(np.ones((1, *family.task_distribution.space.shape)))
    assert zeros.keys() == ones.keys()
    assert not np.array_equal(zeros["model.dof_invweight0"], ones["model.dof_invweight0"])


def test_tasks_of_a_pickled_family_are_its_tasks(family):
    other = pickle.loads(pickle.dumps(family))
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    assert other.task_distribution.sample(again) == family.task_distribution.sample(rng)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan, np.inf, "3"])
def test_a_limit_that_is_no_positive_number_is_refused(limit):
    with pytest.raises(ValueError, match="log_scale_limit="):
        HopperRandParamsFamily(log_scale_limit=limit)
