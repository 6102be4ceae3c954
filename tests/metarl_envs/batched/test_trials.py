"""Trials within the vector environment are those that the wrappers make of single ones."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl_envs import (
    ObserveTransition,
    ResampleTask,
    Trial,
    belief_mdp,
    check_task_env,
    check_task_vector_env,
)
from metarl_envs.batched import FamilyVectorEnv
from metarl_envs.checks.vector_subject import require_same_infos
from metarl_envs.probes import LinearQuadratic, LinearQuadraticVector
from tests.metarl_envs.reference_envs import without_new_tasks

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
# Of different kinds: masks, MultiDiscrete and Discrete observations, terminated and truncated.
IDS = ["metarl/RecommendationSmall-v0", "metarl/InverseBellman-v0", "metarl/RandomMDP-v0"]
OPTIONS = [
    {},
    {"reset_mode": "wasted_step"},
    {"reward_scale": 0.5},
    {"observe_transitions": False},
    {"observe_transitions": False, "reset_mode": "wasted_step"},
]


def pair(env_id, n, mode=SAME, **arguments):
    """The vector env with trials of its own, and Gymnasium's over wrapped single envs."""
    vector = gym.make_vec(
        env_id,
        num_envs=n,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        **arguments,
    )
    single = SyncVectorEnv([lambda: gym.make(env_id, **arguments)] * n, autoreset_mode=mode)
    return vector, single


def assert_same_steps(vector, single, n_steps, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n_steps):
        actions = random_actions(vector, rng)
        steps = (without_new_tasks(env.step(actions)) for env in (vector, single))
        (*ours, our_infos), (*theirs, their_infos) = steps
        assert data_equivalence(ours, theirs, exact=True), (ours, theirs)
        # Entries that Gymnasium's masks leave out mean nothing.
        require_same_infos(our_infos, their_infos, range(vector.num_envs), "infos differ")


def random_actions(env, rng):
    space = env.single_action_space
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=env.num_envs)
    shape = (env.num_envs, *space.shape)
    return rng.uniform(space.low, space.high, size=shape).astype(space.dtype)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize("options", OPTIONS)
def test_vector_trials_equal_wrapped_single_envs_bit_for_bit(env_id, mode, options):
    vector, single = pair(env_id, 3, mode, episodes_per_trial=3, **options)
    assert vector.single_observation_space == single.single_observation_space
    assert data_equivalence(vector.reset(seed=5), single.reset(seed=5), exact=True)
    assert_same_steps(vector, single, 80)
    assert data_equivalence(vector.reset(), single.reset(), exact=True)
    assert_same_steps(vector, single, 15)


@pytest.mark.parametrize("reset_mode", ["true_start", "wasted_step"])
def test_partial_resets_of_trials_leave_the_other_rows_alone(reset_mode):
    """Sub-environment i of one vector env is always reset, those of the other never."""
    arguments = {"num_envs": 4, "episodes_per_trial": 2, "reset_mode": reset_mode}
    reset, calm = (gym.make_vec("metarl/BernoulliBandit-v0", **arguments) for _ in range(2))
    mask = np.array([True, False, False, True])
    reset.reset(seed=0)
    calm.reset(seed=0)
    rng = np.random.default_rng(0)
    others = np.flatnonzero(~mask)
    for _ in range(60):
        actions = random_actions(calm, rng)
        ours, theirs = reset.step(actions), calm.step(actions)
        for left, right in zip(ours[:4], theirs[:4], strict=True):
            assert data_equivalence(left[others], right[others], exact=True)
        for _ in range(int(rng.integers(3))):
            observations, infos = reset.reset(options={"reset_mask": mask.copy()})
            assert data_equivalence(observations[others], ours[0][others], exact=True)
            assert not observations[mask][:, reset.observation_layout["action"]].any()
            # Only what began is told: statistics of episodes are not told twice.
            assert (infos["_task_id"] == mask).all() and "inner_episode" not in infos


@pytest.mark.parametrize("task_mode", ["resample", "fixed"])
def test_continuous_trials_equal_wrapped_single_envs(task_mode):
    vector = LinearQuadraticVector(num_envs=3, episodes_per_trial=2, task_mode=task_mode)
    single = SyncVectorEnv(
        [lambda: LinearQuadratic(episodes_per_trial=2, task_mode=task_mode)] * 3,
        autoreset_mode=SAME,
    )
    assert data_equivalence(vector.reset(seed=1), single.reset(seed=1), exact=True)
    assert_same_steps(vector, single, 70)


@pytest.mark.parametrize("env_id", IDS)
def test_make_gives_the_belief_mdp_of_the_env(env_id):
    made, wrapped = gym.make(env_id, episodes_per_trial=3), belief_mdp(env_id, 3)
    assert made.observation_space == wrapped.observation_space
    assert made.get_wrapper_attr("observation_layout") == wrapped.observation_layout
    assert data_equivalence(made.reset(seed=2), wrapped.reset(seed=2), exact=True)
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = int(rng.integers(made.action_space.n))
        left, right = made.step(action), wrapped.step(action)
        assert data_equivalence(left, right, exact=True)
        if left[2]:
            assert data_equivalence(made.reset(), wrapped.reset(), exact=True)


def test_wrappers_are_applied_in_the_documented_order():
    env = gym.make(IDS[0], episodes_per_trial=2)
    order = []
    while isinstance(env, gym.Wrapper):
        order.append(type(env))
        env = env.env
    assert [kind for kind in order if kind.__module__.startswith("metarl_envs")] == [
        ObserveTransition,
        ResampleTask,
        Trial,
    ]


def test_a_trial_keeps_its_task_and_the_next_one_has_another():
    env = gym.make_vec(IDS[2], num_envs=4, episodes_per_trial=3, n_stages=5)
    env.reset(seed=0)
    tasks = [env.get_tasks()]
    for _ in range(45):
        env.step(np.zeros(4, dtype=np.int64))
        tasks.append(env.get_tasks())
    for trial in range(3):
        # The step that ends a trial shows the task of the next one.
        within = tasks[15 * trial : 15 * (trial + 1)]
        assert all(each == within[0] for each in within)
    firsts = [task for trial in range(4) for task in tasks[15 * trial]]
    assert len(set(firsts)) == 16


def test_tasks_pinned_during_a_trial_wait_for_the_next():
    env = gym.make_vec(IDS[2], num_envs=2, episodes_per_trial=2, n_stages=4)
    env.reset(seed=0)
    before = env.get_tasks()
    pinned = env.sample_tasks(2, seed=9)
    env.set_tasks(pinned)
    for step in range(1, 17):
        env.step(np.zeros(2, dtype=np.int64))
        assert env.get_tasks() == (before if step < 8 else pinned)


def test_statistics_of_inner_episodes_survive_in_infos():
    env = gym.make_vec(IDS[2], num_envs=3, episodes_per_trial=2, n_stages=4)
    env.reset(seed=0)
    rewards = []
    for step in range(1, 9):
        _, reward, terminated, truncated, infos = env.step(np.zeros(3, dtype=np.int64))
        rewards.append(reward)
        where = infos["final_info"] if step == 8 else infos
        assert where["episode_done"].all() == (step % 4 == 0)
        assert terminated.all() == (step == 8) and not truncated.any()
        if step % 4 == 0:
            inner = where["inner_episode"]
            assert (inner["k"] == step // 4 - 1).all() and (inner["l"] == 4).all()
            np.testing.assert_allclose(inner["r"], np.sum(rewards[-4:], axis=0), rtol=1e-12)
            assert (inner["truncated"] | inner["terminated"]).all()


def test_trials_pickled_within_an_episode_continue():
    env = gym.make_vec(IDS[0], num_envs=3, episodes_per_trial=3)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(random_actions(env, rng))
    twin = pickle.loads(pickle.dumps(env))
    assert_same_steps(env, twin, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes_per_trial": 0}, "episodes_per_trial=0"),
        ({"episodes_per_trial": 2.5}, "episodes_per_trial=2.5"),
        ({"episodes_per_trial": 2, "reset_mode": "never"}, "reset_mode='never'"),
        ({"episodes_per_trial": 2, "reward_scale": -1.0}, "reward_scale=-1.0"),
        ({"reset_mode": "wasted_step"}, "give episodes_per_trial"),
        ({"observe_transitions": False}, "give episodes_per_trial"),
        ({"reward_scale": 2.0}, "give episodes_per_trial"),
    ],
)
def test_bad_options_of_trials_are_refused(arguments, message):
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            make(IDS[0], **arguments)


def test_a_time_limit_that_would_cut_trials_is_refused():
    with pytest.raises(ValueError, match="would cut trials"):
        gym.make_vec(IDS[0], num_envs=2, episodes_per_trial=2, max_episode_steps=3)


def test_specs_of_trials_can_be_made_with_other_arguments():
    env = gym.make(IDS[0], episodes_per_trial=2)
    other = gym.make(env.spec, task_mode="fixed", episodes_per_trial=3, reward_scale=0.5)
    assert other.get_wrapper_attr("n_episodes") == 3
    assert len({other.reset()[1]["task_id"] for _ in range(4)}) == 1
    assert gym.make(env.spec, episodes_per_trial=None).observation_space != env.observation_space


@pytest.mark.parametrize("env_id", IDS)
def test_trials_keep_the_laws(env_id):
    ran = check_task_env(gym.make(env_id, episodes_per_trial=2))
    assert len(ran) >= 25
    assert len(check_task_vector_env(gym.make_vec(env_id, episodes_per_trial=2))) >= 20


def test_specs_of_trials_survive_json():
    env = gym.make(IDS[0], episodes_per_trial=2)
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert data_equivalence(env.reset(seed=0), twin.reset(seed=0), exact=True)
    vector = gym.make_vec(IDS[0], num_envs=2, episodes_per_trial=2)
    assert isinstance(vector, FamilyVectorEnv)
    again = gym.make_vec(gym.envs.registration.EnvSpec.from_json(vector.spec.to_json()))
    assert data_equivalence(vector.reset(seed=0), again.reset(seed=0), exact=True)
