"""What all bodies share: resets, infos, one room, single environments that equal vector ones."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from scipy import stats

import metarl_envs
from metarl_envs.locomotion.ant import AntDirFamily
from metarl_envs.locomotion.half_cheetah import HalfCheetahMassFamily, HalfCheetahVelFamily
from metarl_envs.locomotion.swimmer import SwimmerVelFamily

ROOT = Path(__file__).parents[3]
IDS = sorted(row.id for row in metarl_envs.FAMILIES.values() if ".locomotion." in row.entry_point)
# Reward, physics, and falls before the end.
some_ids = pytest.mark.parametrize(
    "env_id", ["metarl/HalfCheetahVel-v0", "metarl/HalfCheetahMass-v0", "metarl/AntDir-v0"]
)
N_ENVS, HORIZON, N_STEPS = 3, 7, 24


# Resets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "is_normal"),
    [
        (HalfCheetahVelFamily(), True),
        (AntDirFamily(), True),
        (SwimmerVelFamily(), False),
        (HalfCheetahVelFamily(reset_noise_scale=0.3), True),
    ],
)
def test_starts_have_gymnasiums_noise(family, is_normal):
    n, scale = 2000, family.reset_noise_scale
    uniforms = np.random.default_rng(0).random((n, family.n_reset_uniforms))
    params = family.compile(np.zeros((n, 1)))
    rows = family.initial(params, uniforms)
    noise = rows[:, : len(family.physics.rest)] - family.physics.rest
    qpos = noise[:, family.physics.columns["qpos"]] / scale
    qvel = noise[:, family.physics.columns["qvel"]] / scale
    assert np.abs(qpos).max() <= 1 + 1e-12
    n_numbers = qpos.size
    # Variance and excess kurtosis of uniform noise on [-1, 1] are 1/3 and -6/5; a mean of squares
    # has a standard error of sqrt(4/45 / n).
    assert abs(qpos.mean()) < 4 * np.sqrt(1 / 3 / n_numbers)
    assert abs((qpos**2).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / n_numbers)
    variance, of_squares = (1.0, 2.0) if is_normal else (1 / 3, 4 / 45)
    assert abs(qvel.mean()) < 4 * np.sqrt(variance / qvel.size)
    assert abs((qvel**2).mean() - variance) < 4 * np.sqrt(of_squares / qvel.size)
    shape = stats.norm if is_normal else stats.uniform(-1, 2)
    # Kolmogorov and Smirnov's distance is beyond 2 / sqrt(n) with probability 2 exp(-8).
    for values, law in ((qpos, stats.uniform(-1, 2)), (qvel, shape)):
        assert stats.kstest(values.ravel(), law.cdf).statistic < 2 / np.sqrt(values.size)
    # No two numbers go together: correlations are normal with standard error 1 / sqrt(n).
    correlations = np.corrcoef(np.hstack([qpos, qvel]).T)
    assert np.abs(correlations - np.eye(len(correlations))).max() < 5 / np.sqrt(n)


def test_the_smallest_uniform_number_gives_a_finite_start():
    family = AntDirFamily()
    rows = family.initial({}, np.zeros((1, family.n_reset_uniforms)))
    assert np.isfinite(rows).all()


def test_without_noise_the_body_starts_as_its_model_does():
    family = HalfCheetahVelFamily(reset_noise_scale=0.0)
    rows = family.initial({}, np.random.default_rng(0).random((2, family.n_reset_uniforms)))
    for columns in family.physics.columns.values():
        assert np.array_equal(rows[:, columns], [family.physics.rest[columns]] * 2)


# Steps ----------------------------------------------------------------------------------------


def test_the_order_of_actions_in_memory_changes_no_bit():
    family = AntDirFamily()
    rng = np.random.default_rng(0)
    params = family.compile(np.zeros((4, 1)))
    rows = family.initial(params, rng.random((4, family.n_reset_uniforms)))
    actions = rng.uniform(-1, 1, (4, 8)).astype(np.float32)
    stages = np.zeros(4, int)
    whole = family.step(params, rows, stages, actions, np.empty((4, 0)))
    other = family.step(params, rows, stages, np.asfortranarray(actions), np.empty((4, 0)))
    for one, two in zip(whole, other, strict=True):
        assert np.array_equal(one, two)


def test_infos_have_gymnasiums_names():
    for family, names in (
        (HalfCheetahVelFamily(), {"x_position", "x_velocity"}),
        (AntDirFamily(), {"x_position", "x_velocity", "y_position", "y_velocity"}),
    ):
        rows = family.initial({}, np.full((2, family.n_reset_uniforms), 0.25))
        infos = family.infos(rows, np.zeros(2, int))
        assert infos.keys() == names | {"stage"}
        assert np.array_equal(infos["x_position"], rows[:, family.physics.columns["qpos"].start])
        assert not infos["x_velocity"].any()


# Single and vector environments ---------------------------------------------------------------


def actions_of(env, n=N_STEPS, seed=5):
    space = env.single_action_space
    rng = np.random.default_rng(seed)
    return rng.uniform(space.low, space.high, (n, N_ENVS, *space.shape)).astype(np.float32)


def vector(env_id, **arguments):
    arguments = {"horizon": HORIZON, "n_threads": 2} | arguments
    mode = "vector_entry_point"
    return gym.make_vec(env_id, num_envs=N_ENVS, vectorization_mode=mode, **arguments)


def singles(env_id, **arguments):
    arguments = {"horizon": HORIZON} | arguments
    return [gym.make(env_id, disable_env_checker=True, **arguments) for _ in range(N_ENVS)]


def play_single(env, actions, seed, mode):
    """What a vector environment shows of this one: observation, reward and ends of each step."""
    shown, _ = env.reset(seed=seed)
    steps, is_over = [shown], False
    for action in actions:
        if is_over and mode is AutoresetMode.NEXT_STEP:
            (shown, _), reward, terminated, truncated = env.reset(), 0.0, False, False
        else:
            shown, reward, terminated, truncated, _ = env.step(action)
        is_over = terminated or truncated
        if is_over and mode is AutoresetMode.SAME_STEP:
            shown, _ = env.reset()
        steps.append((shown, reward, terminated, truncated))
    return steps


def assert_same(vector_steps, single_steps):
    for i, steps in enumerate(single_steps):
        assert np.array_equal(vector_steps[0][i], steps[0])
        for ours, (shown, *rest) in zip(vector_steps[1:], steps[1:], strict=True):
            assert np.array_equal(ours[0][i], shown)
            assert [float(part[i]) for part in ours[1:]] == [float(part) for part in rest]


@some_ids
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("trials", [{}, {"episodes_per_trial": 2}])
def test_a_vector_env_is_single_ones_bit_for_bit_even_after_a_pickle_on_the_way(
    env_id, mode, trials
):
    env = vector(env_id, autoreset_mode=mode, **trials)
    actions = actions_of(env)
    steps = [env.reset(seed=11)[0]]
    for t, action in enumerate(actions):
        if t == HORIZON // 2 + HORIZON:
            env = pickle.loads(pickle.dumps(env.unwrapped))
        steps.append(env.step(action)[:4])
    assert any(step[3].any() or step[2].any() for step in steps[1:])
    others = [
        play_single(single, actions[:, i], 11 + i, mode)
        for i, single in enumerate(singles(env_id, **trials))
    ]
    assert_same(steps, others)


@some_ids
def test_partial_resets_leave_the_others_alone(env_id):
    env = vector(env_id, autoreset_mode=AutoresetMode.DISABLED, horizon=10**6)
    actions, mask = actions_of(env), np.array([False, True, False])
    env.reset(seed=3)
    single = singles(env_id, horizon=10**6)[1].unwrapped
    single.reset(seed=4)
    for t, action in enumerate(actions[:6]):
        if t == 3:
            shown, _ = env.reset(options={"reset_mask": mask})
            assert np.array_equal(shown[mask][0], single.reset()[0])
            assert np.array_equal(shown[~mask], before[~mask])
        before, rewards, *_ = env.step(action)
        shown, reward, *_ = single.step(action[1])
        assert np.array_equal(before[1], shown)
        assert rewards[1] == reward


@some_ids
def test_a_vector_env_computes_in_one_room_however_many_begin_anew(env_id):
    env = vector(env_id, autoreset_mode=AutoresetMode.DISABLED).unwrapped
    env.reset(seed=0)
    for n in (1, 2, 1, 3):
        env.reset(options={"reset_mask": np.arange(N_ENVS) < n})
        env.step(actions_of(env, 1)[0])
    rooms = env.family.physics._rooms
    assert rooms.keys() <= {"states", "constants"}
    assert all(room.n == N_ENVS for room in rooms.values())


def test_a_task_of_other_physics_leaves_nothing_behind_for_the_next():
    family = HalfCheetahMassFamily(horizon=5)
    env = gym.make("metarl/HalfCheetahMass-v0", disable_env_checker=True).unwrapped
    light, usual = (family.task_distribution.from_array(np.array([x])) for x in (-1.0, 0.0))
    action = np.full(6, 0.3, np.float32)
    rewards = {}
    for name, task in (("first", usual), ("light", light), ("second", usual)):
        env.reset(seed=0, options={"task": task})
        rewards[name] = [env.step(action)[1] for _ in range(5)]
    assert rewards["first"] == rewards["second"] != rewards["light"]


# Silence --------------------------------------------------------------------------------------

QUIET = """
import sys, gymnasium as gym, metarl_envs
for env_id in sys.argv[1:]:
    for render_mode in ("ansi", "rgb_array"):
        env = gym.make(env_id, render_mode=render_mode)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        try:
            env.render()
        except OSError:  # a machine without OpenGL
            assert render_mode == "rgb_array"
        env.close()
    vector = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    vector.reset(seed=0)
    vector.step(vector.action_space.sample())
    vector.close()
"""


def test_no_body_prints_or_writes_anything(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET, *IDS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
