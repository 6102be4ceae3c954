"""HumanoidDir: Gymnasium's Humanoid that runs in a direction."""

import gymnasium as gym
import numpy as np
import pytest

import metarl_envs
from metarl_envs.locomotion.humanoid import HumanoidDirFamily
from metarl_envs.locomotion.tasks import HeadingTask
from tests.metarl_envs.locomotion.gymnasium_bodies import (
    N_ENVS,
    assert_same_physics,
    from_infos,
    gymnasium_body,
    play,
)

HEADINGS = [HeadingTask(0.0), HeadingTask(2.5)]
WITHOUT_FORCES = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}


@pytest.fixture(scope="module")
def played():
    others = [gymnasium_body("Humanoid-v5", **WITHOUT_FORCES) for _ in range(N_ENVS)]
    return play(HumanoidDirFamily(), HEADINGS, others)


@pytest.fixture(scope="module")
def exactly_played():
    others = [gymnasium_body("Humanoid-v5") for _ in range(N_ENVS)]
    return play(HumanoidDirFamily(include_cfrc_ext_in_observation=True), HEADINGS, others)


def test_it_moves_and_falls_as_gymnasiums_bit_for_bit(played):
    assert_same_physics(played)
    assert played.observations.shape[-1] == 270
    assert 0 < played.terminated.mean() < 1


def test_with_contact_forces_it_is_gymnasiums_own_bit_for_bit(exactly_played):
    assert_same_physics(exactly_played)
    assert exactly_played.observations.shape[-1] == 348
    assert np.abs(exactly_played.observations[..., -78:]).max() > 0


def test_rewards_of_heading_zero_are_gymnasiums(played, exactly_played):
    assert np.array_equal(played.rewards[0], played.other_rewards[0])
    assert np.array_equal(exactly_played.rewards[0], exactly_played.other_rewards[0])


def test_rewards_of_other_headings_are_the_speed_along_them(played, exactly_played):
    names = "x_velocity", "y_velocity", "reward_survive", "reward_ctrl", "reward_contact"
    for each in (played, exactly_played):
        x, y, survive, control, contact = (part[1] for part in from_infos(each, *names))
        expected = 1.25 * (x * np.cos(2.5) + y * np.sin(2.5)) + survive + (control + contact)
        assert np.array_equal(each.rewards[1], expected)
    assert contact.min() < 0


def test_presets_are_the_defaults_by_name():
    names = "horizon", "forward_reward_weight", "ctrl_cost_weight", "healthy_reward"
    for preset in (None, "promp2019", "pearl2019"):
        family = HumanoidDirFamily(preset=preset)
        assert [getattr(family, name) for name in names] == [200, 1.25, 0.1, 5.0]
        assert family.contact_cost_weight == 5e-7
    with pytest.raises(ValueError, match="preset='finn2017'"):
        HumanoidDirFamily(preset="finn2017")


def test_contacts_cost_ten_at_most():
    family = HumanoidDirFamily(include_cfrc_ext_in_observation=True, contact_cost_weight=1e3)
    params = family.compile(np.zeros((1, 1)))
    rows = family.initial(params, np.full((1, family.n_reset_uniforms), 0.5))
    actions, rewards = np.zeros((1, 17), np.float32), []
    for stage in range(60):
        stages, uniforms = np.full(1, stage), np.empty((1, 0))
        rows, reward, _ = family.step(params, rows, stages, actions, uniforms)
        velocity = family.infos(rows, stages)["x_velocity"]
        rewards.append(float((reward - 1.25 * velocity)[0]))
    assert min(rewards) == pytest.approx(-10.0, abs=1e-12)  # a sum and a difference of numbers < 20


@pytest.mark.parametrize("arguments", [{"include_cfrc_ext_in_observation": True}, {"n_threads": 2}])
def test_vector_equals_single_in_the_other_modes_too(arguments):
    env = gym.make_vec(
        "metarl/HumanoidDir-v0", vectorization_mode="vector_entry_point", **arguments
    )
    names = {"vector_env_equals_single_envs", "vector_env_pickled_in_mid_episode_continues"}
    assert set(metarl_envs.check_task_vector_env(env, only=names)) == names


def test_threads_change_no_bit():
    rng = np.random.default_rng(0)
    families = [HumanoidDirFamily(n_threads=n) for n in (1, 2)]
    arrays = np.linspace(0, 6, 5)[:, None]
    uniforms = rng.random((5, families[0].n_reset_uniforms))
    params = families[0].compile(arrays)
    one, two = (family.initial(params, uniforms) for family in families)
    for stage in range(30):
        actions = rng.uniform(-0.4, 0.4, (5, 17)).astype(np.float32)
        rest = np.full(5, stage), actions, np.empty((5, 0))
        one, rewards, _ = families[0].step(params, one, *rest)
        two, same, _ = families[1].step(params, two, *rest)
        assert np.array_equal(one, two)
        assert np.array_equal(rewards, same)


def test_actions_in_another_memory_order_change_no_bit():
    family = HumanoidDirFamily()
    params = family.compile(np.zeros((4, 1)))
    rows = family.initial(params, np.full((4, family.n_reset_uniforms), 0.3))
    actions = np.random.default_rng(2).uniform(-0.4, 0.4, (4, 17)).astype(np.float32)
    rest = np.zeros(4, int), np.empty((4, 0))
    _, one, _ = family.step(params, rows, rest[0], actions, rest[1])
    _, two, _ = family.step(params, rows, rest[0], np.asfortranarray(actions), rest[1])
    assert np.array_equal(one, two)
