"""Every registered id, single and vector, keeps the contract: ours, Gymnasium's and SB3's."""

import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import metarl_envs
from metarl_envs.checks import TASK_ENV_CHECKS, TASK_VECTOR_ENV_CHECKS
from metarl_envs.core import task_id

ROOT = Path(__file__).parents[2]
IDS = sorted(metarl_envs.FAMILIES)
# A family may do without linear features, masks and known optima, and then these do not run.
OPTIONAL = {
    "features_are_pure_and_complete",
    "action_masks_agree_with_infos",
    "optimal_return_bounds_random_play",
    "optimal_return_agrees_with_optimal_returns",
    "policy_returns_agree_with_random_play",
}
UNBOUNDED = ("observation space minimum value is", "observation space maximum value is")
# SB3's checker recommends actions from -1 to 1; Gymnasium's Humanoid has torques up to 0.4.
OTHER_ACTIONS = "We recommend you to use a symmetric and normalized Box action space"
IDS_WITH_OTHER_ACTIONS = {"metarl/HumanoidDir-v0"}

every_id = pytest.mark.parametrize("env_id", IDS)
quick = settings(
    max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def run(code, *arguments):
    """Standard output of ``code`` in a fresh process, in which a warning is an error."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_only_unbounded(caught):
    messages = [str(item.message) for item in caught]
    other = [text for text in messages if not any(part in text for part in UNBOUNDED)]
    assert not other, other


def test_there_are_ids():
    assert len(IDS) >= 5


@every_id
def test_the_single_env_keeps_the_laws_without_warnings(env_id):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ran = metarl_envs.check_task_env(env_id)
    assert TASK_ENV_CHECKS.keys() - set(ran) <= OPTIONAL
    assert_only_unbounded(caught)


@every_id
def test_the_vector_env_keeps_the_laws_without_warnings(env_id):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ran = metarl_envs.check_task_vector_env(env_id)
    assert set(ran) == TASK_VECTOR_ENV_CHECKS.keys()
    assert_only_unbounded(caught)


@every_id
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_the_vector_env_equals_single_envs_in_the_other_autoreset_modes(env_id, mode):
    # Bodies cost time: short episodes begin anew as long ones do, and more often. The test above
    # has those of full length.
    short = {"horizon": 50} if ".locomotion." in gym.spec(env_id).entry_point else {}
    env = gym.make_vec(
        env_id, vectorization_mode="vector_entry_point", autoreset_mode=mode, **short
    )
    names = {
        "vector_env_equals_single_envs",
        "infos_name_the_tasks",
        "autoresets_draw_new_tasks",
        "set_tasks_pins_through_autoresets",
        "vector_env_pickled_in_mid_episode_continues",
    }
    assert set(metarl_envs.check_task_vector_env(env, only=names)) == names


@every_id
@pytest.mark.parametrize("check", [check_env, check_env_of_sb3])
def test_the_checks_of_gymnasium_and_sb3_pass_without_warnings(env_id, check):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(gym.make(env_id).unwrapped, skip_render_check=False)
    if check is check_env_of_sb3 and env_id in IDS_WITH_OTHER_ACTIONS:
        about_actions = [item for item in caught if OTHER_ACTIONS in str(item.message)]
        assert len(about_actions) == 1
        caught.remove(about_actions[0])
    assert_only_unbounded(caught)


@every_id
def test_the_spec_names_entry_points_that_are_strings(env_id):
    spec = gym.spec(env_id)
    assert isinstance(spec.entry_point, str)
    assert isinstance(spec.vector_entry_point, str)
    json.loads(spec.to_json())


@every_id
def test_envs_and_vector_envs_follow_the_protocols(env_id):
    assert isinstance(gym.make(env_id).unwrapped, metarl_envs.TaskEnv)
    vector_env = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    assert isinstance(vector_env, metarl_envs.TaskVectorEnv)
    assert isinstance(vector_env.task_distribution, metarl_envs.TaskDistribution)


@every_id
@given(seed=st.integers(0, 2**63 - 1), split=st.sampled_from(["train", "test"]))
@quick
def test_sampled_tasks_survive_every_trip(env_id, seed, split):
    env = _cached(env_id)
    task = env.sample_tasks(1, seed=seed, split=split)[0]
    assert_survives(env, task)
    env.set_task(task)
    _, info = env.reset()
    assert env.get_task() == info["task"] == task
    assert info["task_id"] == task_id(task)
    env.set_task(None)


@every_id
@given(data=st.data())
@quick
def test_any_array_of_the_task_space_is_a_task_that_survives_every_trip(env_id, data):
    env = _cached(env_id)
    space = env.task_distribution.space
    unit = data.draw(arrays(np.float64, space.shape, elements=st.floats(0.0, 1.0)))
    # Away from floating-point overflow, which no family has to survive.
    low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
    array = np.clip(low + (high - low) * unit, low, high)
    try:
        task = env.task_distribution.from_array(array)
    except ValueError:  # no cell, map or kernel: the space is a box around what tasks there are
        task = env.sample_tasks(1, seed=data.draw(st.integers(0, 2**63 - 1)))[0]
        array = task.to_array()
    assert np.array_equal(env.task_distribution.from_array(array).to_array(), array)
    assert_survives(env, task)


def assert_survives(env, task):
    distribution = env.task_distribution
    array = task.to_array()
    assert distribution.space.contains(array)
    assert distribution.from_array(array) == task
    text = json.dumps(distribution.space.to_jsonable([array]))
    from_json = distribution.from_array(distribution.space.from_jsonable(json.loads(text))[0])
    from_pickle = pickle.loads(pickle.dumps(task))
    for other in (from_json, from_pickle):
        assert other == task
        assert hash(other) == hash(task)
        assert task_id(other) == task_id(task)


_envs = {}


def _cached(env_id):
    if env_id not in _envs:
        _envs[env_id] = gym.make(env_id).unwrapped
    return _envs[env_id]


IDENTIFY = """
import sys, gymnasium as gym, metarl_envs
for env_id in sys.argv[1:]:
    env = gym.make(env_id)
    _, info = env.reset(seed=3)
    env.action_space.seed(3)
    observation, reward, *_ = env.step(env.action_space.sample())
    print(env_id, info["task_id"], observation.tolist(), repr(reward))
"""


def test_processes_agree_on_tasks_and_rollouts():
    assert run(IDENTIFY, *IDS) == run(IDENTIFY, *IDS)


def test_ids_can_be_made_without_an_import():
    code = "import gymnasium as gym, sys; print(gym.make('metarl_envs:' + sys.argv[1]).spec.id)"
    for env_id in IDS:
        assert run(code, env_id).strip() == env_id


LIGHT = """
import sys
import gymnasium
before = {name.split(".")[0] for name in sys.modules}
import metarl_envs
after = {name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
print(*sorted(after))
assert not after & {"torch", "stable_baselines3", "sb3_contrib", "mujoco", "metarl_agents", "zoo"}
"""


def test_importing_the_package_adds_itself_to_gymnasium_and_nothing_else():
    added = {name for name in run(LIGHT).split() if not name.startswith("_")}
    assert added == {"metarl_envs"}


def test_registering_again_changes_nothing():
    specs = {env_id: gym.spec(env_id) for env_id in IDS}
    metarl_envs.registry.register_families()
    assert all(gym.spec(env_id) is spec for env_id, spec in specs.items())
