"""HalfCheetah's families next to Gymnasium's HalfCheetah-v5 and to models of their own."""

import mujoco
import numpy as np
import pytest

from metarl_envs.locomotion.half_cheetah import (
    HalfCheetahDirFamily,
    HalfCheetahMassFamily,
    HalfCheetahVelFamily,
)
from metarl_envs.locomotion.physics import load_model
from metarl_envs.locomotion.tasks import DirectionTask, MassTask, VelocityTask
from tests.metarl_envs.locomotion.gymnasium_bodies import (
    N_ENVS,
    assert_same_physics,
    from_infos,
    gymnasium_body,
    play,
)


def cheetahs(**arguments):
    return [gymnasium_body("HalfCheetah-v5", **arguments) for _ in range(N_ENVS)]


@pytest.fixture(scope="module")
def played():
    family = HalfCheetahVelFamily()
    return play(family, [VelocityTask(0.0), VelocityTask(1.7)], cheetahs(ctrl_cost_weight=0.05))


def test_it_moves_as_gymnasiums_bit_for_bit(played):
    assert_same_physics(played)
    assert not played.terminated.any()


def test_rewards_are_the_distance_from_the_speed_less_gymnasiums_control_cost(played):
    velocity, control = from_infos(played, "x_velocity", "reward_ctrl")
    assert np.array_equal(played.rewards, -np.abs(velocity - [[0.0], [1.7]]) + control)


def test_forward_is_gymnasiums_own_reward_and_backward_the_same_with_the_other_sign():
    others = cheetahs(ctrl_cost_weight=0.05)
    played = play(HalfCheetahDirFamily(), [DirectionTask(1), DirectionTask(-1)], others, seed=1)
    assert_same_physics(played)
    velocity, control = from_infos(played, "x_velocity", "reward_ctrl")
    assert np.array_equal(played.rewards[0], played.other_rewards[0])
    assert np.array_equal(played.rewards[1], -velocity[1] + control[1])


def test_the_usual_mass_is_gymnasiums_own_cheetah():
    others = cheetahs(ctrl_cost_weight=0.05)
    played = play(HalfCheetahMassFamily(), [MassTask(0.0), MassTask(0.0)], others, seed=2)
    assert_same_physics(played)
    assert np.array_equal(played.rewards, played.other_rewards)


def test_a_mass_is_stepped_as_mj_step_does_a_model_of_that_mass():
    family, tasks = HalfCheetahMassFamily(), [MassTask(-1.0), MassTask(0.37), MassTask(1.0)]
    models = [own_model(task) for task in tasks]
    datas = [mujoco.MjData(model) for model in models]
    rng = np.random.default_rng(0)
    params = family.compile(np.stack([task.to_array() for task in tasks]))
    rows = family.initial(params, rng.random((3, family.n_reset_uniforms)))
    qpos, qvel = family.physics.columns["qpos"], family.physics.columns["qvel"]
    for model, data, row in zip(models, datas, rows, strict=True):
        data.qpos[:], data.qvel[:] = row[qpos], row[qvel]
        mujoco.mj_forward(model, data)
    for stage in range(300):
        actions = rng.uniform(-1, 1, (3, 6)).astype(np.float32)
        before = np.array([data.qpos[0] for data in datas])
        stages = np.full(3, stage)
        rows, rewards, _ = family.step(params, rows, stages, actions, np.empty((3, 0)))
        for model, data, action in zip(models, datas, actions, strict=True):
            data.ctrl[:] = action
            mujoco.mj_step(model, data, nstep=5)
        assert np.array_equal(rows[:, qpos], [data.qpos for data in datas])
        assert np.array_equal(rows[:, qvel], [data.qvel for data in datas])
        costs = [0.05 * np.sum(np.square(action)) for action in actions]
        after = np.array([data.qpos[0] for data in datas])
        assert np.array_equal(rewards, (after - before) / family.physics.dt - costs)


def own_model(task):
    model = load_model("half_cheetah.xml")
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    model.body_mass[:] *= 2**task.exponent
    model.body_inertia[:] *= 2**task.exponent
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def test_the_mass_is_what_the_task_says():
    family = HalfCheetahMassFamily()
    params = family.compile(np.array([[-1.0], [0.0], [1.0]]))
    usual = family.physics.model.body_mass
    # Factors are powers of two: exact.
    assert np.array_equal(params["model.body_mass"], [0.5 * usual, usual, 2 * usual])
    assert np.array_equal(params["model.body_inertia"][2], 2 * family.physics.model.body_inertia)
    assert np.array_equal(family.physics.model.body_mass, usual)


@pytest.mark.parametrize(
    ("preset", "speeds", "horizon"),
    [
        (None, (0.0, 3.0), 200),
        ("finn2017", (0.0, 2.0), 200),
        ("promp2019", (0.0, 3.0), 100),
        ("pearl2019", (0.0, 3.0), 200),
        ("bomrl2024", (0.0, 2.0), 200),
    ],
)
def test_presets_are_those_of_the_publications(preset, speeds, horizon):
    family = HalfCheetahVelFamily(preset=preset)
    assert (family.task_range, family.horizon, family.ctrl_cost_weight) == (speeds, horizon, 0.05)
    assert family.task_distribution.space.high == speeds[1]
    assert HalfCheetahDirFamily(preset=preset).horizon == horizon
    chosen = HalfCheetahVelFamily(preset=preset, horizon=7, task_range=(1, 2), ctrl_cost_weight=0)
    assert (chosen.task_range, chosen.horizon, chosen.ctrl_cost_weight) == ((1.0, 2.0), 7, 0)


def test_there_are_two_directions_and_training_tasks_are_test_tasks():
    family = HalfCheetahDirFamily()
    assert family.task_distribution.tasks == (DirectionTask(-1), DirectionTask(1))
    assert (family.n_train_tasks, family.n_test_tasks) == (2, 2)
    assert np.array_equal(family.compile(np.array([[-1.0], [1.0]]))["direction"][:, 0], [-1, 1])


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        (HalfCheetahVelFamily, {"ctrl_cost_weight": -1}),
        (HalfCheetahVelFamily, {"task_range": (3, 0)}),
        (HalfCheetahVelFamily, {"task_range": 3}),
        (HalfCheetahVelFamily, {"task_range": ("0", "1")}),
        (HalfCheetahVelFamily, {"task_range": {0: 1, 1: 2}}),
        (HalfCheetahVelFamily, {"task_range": (False, True)}),
        (HalfCheetahVelFamily, {"task_range": [[0, 1], [2]]}),
        (HalfCheetahVelFamily, {"task_range": (-1e308, 1e308)}),
        (HalfCheetahDirFamily, {"horizon": 0}),
        (HalfCheetahDirFamily, {"reset_noise_scale": -0.1}),
        (HalfCheetahMassFamily, {"task_range": (0, float("inf"))}),
        (HalfCheetahMassFamily, {"task_range": (0, 11)}),
        (HalfCheetahMassFamily, {"n_threads": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(family, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        family(**arguments)
