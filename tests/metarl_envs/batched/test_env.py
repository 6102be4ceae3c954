import copy
import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from metarl_envs import FAMILIES

IDS = [env_id for env_id in FAMILIES if "Recommendation" in env_id or "Inverse" in env_id]
ID = "metarl/RecommendationSmall-v0"


def make(env_id=ID, **arguments):
    return gym.make(env_id, **arguments).unwrapped


def rollout(env, n_steps, seed=0, action_seed=0):
    """Everything that `n_steps` random steps return, resets included."""
    rng = np.random.default_rng(action_seed)
    record = [env.reset(seed=seed)]
    for _ in range(n_steps):
        record.append(env.step(int(rng.integers(env.action_space.n))))
        if record[-1][2] or record[-1][3]:
            record.append(env.reset())
    return record


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", [None, "ansi", "rgb_array"])
def test_public_checkers_pass_without_a_warning(env_id, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, render_mode=mode).unwrapped)
        sb3_check_env(gym.make(env_id, render_mode=mode))


@pytest.mark.parametrize("env_id", IDS)
def test_every_reset_draws_a_new_task(env_id):
    env = make(env_id)
    env.reset(seed=0)
    tasks = [env.reset()[1]["task"] for _ in range(30)]
    assert len(set(tasks)) == 30


@pytest.mark.parametrize("env_id", IDS)
def test_fixed_mode_keeps_the_first_task(env_id):
    env = make(env_id, task_mode="fixed")
    tasks = [env.reset(seed=seed)[1]["task"] for seed in (0, None, 1)]
    assert len(set(tasks)) == 1


@pytest.mark.parametrize("env_id", IDS)
def test_same_seed_and_task_give_the_same_rollout_pinned_or_drawn(env_id):
    drawn, pinned = make(env_id), make(env_id)
    drawn.reset(seed=5)
    task = drawn.get_task()
    pinned.set_task(task)
    assert data_equivalence(drawn.reset(seed=5), pinned.reset(seed=5), exact=True)
    for action in (0, 1, 2):
        assert data_equivalence(drawn.step(action), pinned.step(action), exact=True)


def test_sampling_and_pinning_tasks_leave_the_dynamics_alone():
    env, reference = make(), make()
    env.reset(seed=0)
    reference.reset(seed=0)
    env.sample_tasks(5)
    env.sample_tasks(5, seed=3, split="test")
    env.set_task(env.sample_tasks(1)[0])
    assert env.np_random.bit_generator.state == reference.np_random.bit_generator.state
    for action in (3, 1, 0):
        assert data_equivalence(env.step(action), reference.step(action), exact=True)


def test_pinned_task_survives_resets_and_one_episode_of_another():
    env = make()
    pinned, other = env.sample_tasks(2, seed=0)
    env.set_task(pinned)
    assert env.reset(seed=1)[1]["task"] == pinned
    assert env.reset(options={"task": other})[1]["task"] == other == env.get_task()
    assert env.reset()[1]["task"] == pinned
    env.set_task(None)
    assert env.reset()[1]["task"] != pinned


def test_refused_task_changes_nothing():
    env, reference = make(), make()
    env.reset(seed=0)
    reference.reset(seed=0)
    with pytest.raises(TypeError, match="task"):
        env.reset(seed=9, options={"task": 3})
    with pytest.raises(TypeError, match="task"):
        env.set_task("task")
    assert data_equivalence(env.step(0), reference.step(0), exact=True)
    assert data_equivalence(env.reset(), reference.reset(), exact=True)


@pytest.mark.parametrize("env_id", IDS)
def test_unpickled_env_continues_in_the_middle_of_an_episode(env_id):
    env = make(env_id)
    rollout(env, 7)
    for twin in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        original = pickle.loads(pickle.dumps(env))
        assert twin.get_task() == env.get_task()
        done = False
        while not done:
            steps = [one.step(1) for one in (original, twin)]
            assert data_equivalence(*steps, exact=True)
            done = steps[0][2]
        assert data_equivalence(original.reset(), twin.reset(), exact=True)


def test_unpickled_env_keeps_its_pinned_task():
    env = make()
    task = env.sample_tasks(1, seed=0)[0]
    env.set_task(task)
    twin = pickle.loads(pickle.dumps(env))
    assert twin.reset(seed=0)[1]["task"] == task


@pytest.mark.parametrize("env_id", IDS)
def test_tasks_are_json_and_hashable(env_id):
    env = make(env_id)
    task = env.sample_tasks(1, seed=0)[0]
    array = np.array(json.loads(json.dumps(task.to_array().tolist())))
    assert env.task_distribution.from_array(array) == task
    assert hash(env.task_distribution.from_array(array)) == hash(task)
    assert json.dumps(asdict(task))


def test_two_processes_agree():
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import hashlib, numpy as np, gymnasium as gym, metarl_envs\n"
        "digest = hashlib.sha256()\n"
        "for id in ('metarl/RecommendationSmall-v0', 'metarl/InverseBellman-v0'):\n"
        "    env = gym.make(id); o, i = env.reset(seed=3); done = False\n"
        "    digest.update(i['task'].to_array().tobytes())\n"
        "    while not done:\n"
        "        o, r, done, _, i = env.step(1)\n"
        "        digest.update(o.tobytes() + np.float64(r).tobytes())\n"
        "print(digest.hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        ).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    "action", [-1, 6, 1.0, np.nan, np.inf, "1", None, True, [0], np.array([0, 1]), 2**70]
)
def test_action_outside_the_space_is_refused_and_changes_nothing(action):
    env, reference = make(), make()
    env.reset(seed=0)
    reference.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    assert data_equivalence(env.step(0), reference.step(0), exact=True)


def test_stepping_without_a_running_episode_is_refused():
    env = make()
    for method in (lambda: env.step(0), env.action_masks, env.get_task):
        with pytest.raises(gym.error.ResetNeeded):
            method()
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(0)


@pytest.mark.parametrize("env_id", IDS)
def test_infos_name_the_task_object_at_resets_only(env_id):
    for item in rollout(make(env_id), 12):
        info = item[-1]
        assert isinstance(info["task_id"], int) and isinstance(info["stage"], int)
        assert info["action_mask"].dtype == np.int8
        assert ("task" in info) == (len(item) == 2)


@pytest.mark.parametrize("env_id", IDS)
def test_episodes_terminate_and_are_never_truncated(env_id):
    env = make(env_id)
    ends = [item for item in rollout(env, 3 * env.n_stages) if len(item) == 5 and item[2]]
    assert len(ends) == 3
    assert not any(item[3] for item in ends)
    assert all(item[4]["stage"] == env.n_stages for item in ends)


@pytest.mark.parametrize("arguments", [{"task_mode": "new"}, {"render_mode": "video"}])
def test_unknown_modes_are_refused(arguments):
    from metarl_envs.tabular.recommendation import RecommendationEnv

    with pytest.raises(ValueError, match="mode"):
        RecommendationEnv(**arguments)


def test_maskable_agents_find_the_masks_through_wrappers():
    env = gym.make(ID)
    env.reset(seed=0)
    env.step(4)
    assert is_masking_supported(env)
    assert get_action_masks(env).tolist() == [True] * 4 + [False, True]


def test_env_works_without_a_seed():
    env = make()
    env.sample_tasks(1)
    first, second = env.reset()[1]["task"], make().reset()[1]["task"]
    assert first != second


def test_replaced_generator_is_used():
    env = make()
    env.np_random = np.random.default_rng(0)
    env.reset()
    assert env.step(0)[4]["stage"] == 1
