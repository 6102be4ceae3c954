import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import metarl_envs  # noqa: F401 - registers the ids
from metarl_envs.checks import TASK_ENV_CHECKS, check_task_env
from metarl_envs.probes import Chain, LinearQuadratic, WhichArm
from metarl_envs.wrappers import ObserveTask, ObserveTransition, ResampleTask, Trial, belief_mdp
from tests.metarl_envs.reference_envs import HORIZON, N_ACTIONS, ReferenceEnv

REFERENCE = "metarl-test/WrappedReference-v0"
if REFERENCE not in gym.registry:
    gym.register(
        REFERENCE,
        entry_point="tests.metarl_envs.reference_envs:ReferenceEnv",
        max_episode_steps=HORIZON,
    )
SMALL = "metarl/RecommendationSmall-v0"


def tasks_of_resets(env, n, seed=None):
    tasks = []
    for index in range(n):
        env.reset(seed=seed if index == 0 else None)
        tasks.append(env.get_task())
    return tasks


def trial_rows(env, *, seed=0, actions=None, options=None):
    """Rows (observation, reward, terminated, truncated, info) of a trial, the reset first."""
    observation, info = env.reset(seed=seed, options=options)
    rows = [(observation, 0.0, False, False, info)]
    env.action_space.seed(seed)
    while not (rows[-1][2] or rows[-1][3]):
        mask = rows[-1][4]["action_mask"]
        rows.append(env.step(env.action_space.sample(mask=mask)))
    return rows


# ResampleTask


def test_resample_task_keeps_a_task_for_a_block_of_resets():
    tasks = tasks_of_resets(ResampleTask(gym.make(REFERENCE), 3), 9, seed=0)
    assert tasks[0] == tasks[1] == tasks[2] != tasks[3] == tasks[4] == tasks[5] != tasks[6]
    assert len(set(tasks)) == 3


def test_resample_task_resamples_an_env_that_keeps_its_task():
    env = gym.make(REFERENCE, task_mode="fixed")
    assert len(set(tasks_of_resets(ResampleTask(env), 5))) == 5


def test_resample_task_follows_the_seed_of_a_reset_which_begins_a_block():
    env = ResampleTask(gym.make(REFERENCE), 2)
    first = tasks_of_resets(env, 5, seed=3)
    env.reset()
    assert tasks_of_resets(env, 5, seed=3) == first
    assert tasks_of_resets(ResampleTask(gym.make(REFERENCE), 2), 5, seed=3) == first
    assert tasks_of_resets(env, 5, seed=4) != first


def test_resample_task_goes_through_a_list_in_turn():
    listed = WhichArm(n_arms=3).task_distribution.tasks
    env = ResampleTask(WhichArm(n_arms=3), tasks=listed, order="cycle")
    assert tasks_of_resets(env, 7, seed=0) == [*listed, *listed, listed[0]]
    assert tasks_of_resets(env, 2, seed=5) == list(listed[:2])


def test_resample_task_draws_uniformly_from_a_list():
    env = gym.make(REFERENCE)
    listed = env.unwrapped.sample_tasks(4, seed=0)
    met = tasks_of_resets(ResampleTask(env, tasks=listed), 800, seed=0)
    counts = np.array([met.count(task) for task in listed])
    # 4 standard deviations of a binomial count.
    assert np.abs(counts - 200).max() <= 4 * np.sqrt(800 * 0.25 * 0.75)


def test_resample_task_takes_tasks_as_arrays():
    env = gym.make(REFERENCE)
    listed = env.unwrapped.sample_tasks(2, seed=0)
    wrapped = ResampleTask(env, tasks=[task.to_array() for task in listed], order="cycle")
    assert tasks_of_resets(wrapped, 2) == listed


def test_resample_task_leaves_pinned_and_chosen_tasks_alone():
    env = ResampleTask(gym.make(REFERENCE), 2)
    pinned, chosen = env.sample_tasks(2, seed=9)
    block = tasks_of_resets(env, 1, seed=0)
    env.reset(options={"task": chosen})
    assert env.get_task() == chosen
    assert tasks_of_resets(env, 2) == [block[0], env.get_task()]
    assert env.get_task() != block[0]
    env.set_task(pinned)
    assert tasks_of_resets(env, 3) == [pinned] * 3
    env.set_task(None)
    assert pinned not in tasks_of_resets(env, 3)


@pytest.mark.parametrize("wrap", [ResampleTask, lambda env: belief_mdp(env, 2)])
def test_a_pin_of_the_env_inside_is_respected(wrap):
    inner = gym.make(SMALL)
    env = wrap(inner)
    pinned, other = env.unwrapped.sample_tasks(2, seed=9)
    inner.unwrapped.set_task(pinned)
    assert tasks_of_resets(env, 3, seed=0) == [pinned] * 3
    env.reset(options={"task": other})
    assert env.get_task() == other
    assert tasks_of_resets(env, 2) == [pinned] * 2
    inner.unwrapped.set_task(None)
    assert len({pinned, *tasks_of_resets(env, 3)}) == 4
    env.set_task(pinned)
    inner.unwrapped.set_task(None)
    assert pinned not in tasks_of_resets(env, 3)


def test_an_env_that_does_not_tell_its_pin_is_pinned_through_the_wrapper():
    env = ResampleTask(gym.make(REFERENCE))
    assert not env.has_wrapper_attr("pinned_task")
    task = env.sample_tasks(1, seed=9)[0]
    env.set_task(task)
    assert tasks_of_resets(env, 3, seed=0) == [task] * 3
    env.set_task(None)
    assert task not in tasks_of_resets(env, 3)


@pytest.mark.parametrize("env", [gym.make_vec(SMALL, num_envs=2), 3])
def test_a_belief_mdp_is_made_of_a_single_env(env):
    with pytest.raises(TypeError, match=r"must be an id or a single gymnasium\.Env"):
        belief_mdp(env, 2)


def test_resample_task_passes_the_checks():
    ran = check_task_env(lambda: ResampleTask(gym.make(REFERENCE)))
    missing = TASK_ENV_CHECKS.keys() - set(ran)
    assert missing == {"fixed_mode_keeps_the_first_task", "policy_returns_agree_with_random_play"}


# Trial


@pytest.mark.parametrize("n_episodes", [1, 3])
def test_a_trial_is_as_many_episodes_as_asked_for(n_episodes):
    env = Trial(gym.make(SMALL), n_episodes)
    rows = trial_rows(env)
    assert len(rows) - 1 == 3 * n_episodes
    done = [row[4]["episode_done"] for row in rows]
    assert done == [False] + [False, False, True] * n_episodes


def test_a_trial_keeps_one_task_and_the_next_one_draws_another():
    env = Trial(gym.make(REFERENCE), 4)
    env.reset(seed=0)
    task, tasks, done = env.get_task(), [], False
    while not done:
        *_, done, _, _ = env.step(0)
        tasks.append(env.get_task())
    assert set(tasks) == {task}
    env.reset()
    assert env.get_task() != task


def test_the_first_observation_of_an_inner_episode_is_visible():
    """Episodes of a trial are those of the bare env: same seed, same task, same actions."""
    env, bare = Trial(gym.make(REFERENCE), 3), gym.make(REFERENCE)
    observation, _ = env.reset(seed=1)
    task = env.get_task()
    expected, _ = bare.reset(seed=1, options={"task": task})
    done = False
    while not done:
        assert np.array_equal(observation, expected)
        observation, reward, done, _, info = env.step(1)
        expected, bare_reward, terminated, truncated, _ = bare.step(1)
        assert reward == bare_reward
        assert info["episode_done"] == (terminated or truncated)
        if info["episode_done"] and not done:
            assert np.array_equal(info["inner_final_obs"], expected)
            expected, _ = bare.reset(options={"task": task})


def test_with_a_wasted_step_the_first_observation_is_seen_too_late():
    normal = Trial(gym.make(REFERENCE), 2)
    wasted = Trial(gym.make(REFERENCE), 2, reset_mode="wasted_step")
    for env in (normal, wasted):
        env.reset(seed=2, options={"task": env.sample_tasks(1, seed=0)[0]})
    done = False
    while not done:
        seen, reward, done, _, info = normal.step(0)
        blind, *rest, blind_info = wasted.step(0)
        # The same trial, step by step: only the observation at the seam differs.
        assert rest == [reward, done, False]
        if info["episode_done"] and not done:
            assert np.array_equal(blind, info["inner_final_obs"])
            assert np.array_equal(blind_info["start_obs"], seen)
            assert not np.array_equal(blind, seen)
        else:
            assert np.array_equal(blind, seen)


def test_a_trial_ends_terminated_and_keeps_apart_how_its_episodes_ended():
    env = Trial(gym.make(REFERENCE), 30)
    rows = trial_rows(env, seed=0)
    assert rows[-1][2] is True
    assert not any(row[3] for row in rows)
    ends = [row[4]["inner_episode"] for row in rows if row[4]["episode_done"]]
    assert (
        {end["terminated"] for end in ends} == {end["truncated"] for end in ends} == {True, False}
    )


def test_a_trial_reports_every_inner_episode():
    env = Trial(gym.make(REFERENCE), 5)
    rows = trial_rows(env, seed=3)
    total, length, episodes = 0.0, 0, []
    for _, reward, _, _, info in rows[1:]:
        total, length = total + reward, length + 1
        if info["episode_done"]:
            episodes.append((info["inner_episode"]["r"], info["inner_episode"]["l"]))
            assert episodes[-1] == (total, length)
            assert info["inner_episode"]["k"] == len(episodes) - 1
            total, length = 0.0, 0
        else:
            assert "inner_episode" not in info
    assert len(episodes) == 5


def test_a_trial_names_its_task_at_its_reset_only():
    rows = trial_rows(Trial(gym.make(REFERENCE), 3))
    assert [index for index, row in enumerate(rows) if "task" in row[4]] == [0]
    assert len({row[4]["task_id"] for row in rows}) == 1


@pytest.mark.parametrize("reset_mode", ["true_start", "wasted_step"])
def test_masks_in_a_trial_are_of_the_state_that_the_next_action_meets(reset_mode):
    env = Trial(gym.make(SMALL), 3, reset_mode=reset_mode)
    for row in trial_rows(env)[:-1]:
        assert row[4]["action_mask"].any()
    env.reset(seed=0)
    for step in range(3):
        *_, info = env.step(step)
    masks = env.get_wrapper_attr("action_masks")()
    assert masks.all()
    assert info["action_mask"].all()
    assert info["stage"] == 0


def test_set_task_within_a_trial_waits_for_the_next_one():
    env = Trial(gym.make(REFERENCE), 3)
    env.reset(seed=0)
    task = env.get_task()
    other = env.sample_tasks(1, seed=8)[0]
    env.set_task(other)
    done = False
    while not done:
        assert env.get_task() == task
        *_, done, _, _ = env.step(0)
    env.reset()
    assert env.get_task() == other


def test_statistics_of_wrappers_inside_a_trial_survive():
    env = Trial(gym.wrappers.RecordEpisodeStatistics(gym.make(REFERENCE)), 3)
    ended = [row[4] for row in trial_rows(env) if row[4]["episode_done"]]
    assert [info["episode"]["r"] for info in ended] == [
        info["inner_episode"]["r"] for info in ended
    ]


# ObserveTransition


def test_observe_transition_appends_action_reward_and_done_flag():
    env = ObserveTransition(ResampleTask(Trial(gym.make(REFERENCE), 2)), reward_scale=0.5)
    layout = env.observation_layout
    assert [part.stop - part.start for part in layout.values()] == [2, N_ACTIONS, 1, 1]
    observation, _ = env.reset(seed=0)
    assert not observation[2:].any()
    done, flags = False, []
    for action in [0, 1, 2] * 10:
        observation, reward, done, _, info = env.step(action)
        assert observation in env.observation_space
        assert np.array_equal(observation[layout["action"]], np.eye(N_ACTIONS)[action])
        assert observation[layout["reward"]] == 0.5 * reward
        assert observation[layout["done"]] == info["episode_done"]
        flags.append(info["episode_done"])
        if done:
            break
    assert sum(flags) == 2


def test_observe_transition_shows_the_seam_and_the_new_start_together():
    inner = Trial(gym.make(REFERENCE), 2)
    env = ObserveTransition(inner)
    env.reset(seed=0)
    while True:
        observation, reward, *_, info = env.step(0)
        if info["episode_done"]:
            break
    position = env.unwrapped.observe()
    assert np.array_equal(observation[:2], position)
    assert not np.array_equal(info["inner_final_obs"], position)
    assert observation[2:].tolist() == [1.0, 0.0, 0.0, reward, 1.0]


@pytest.mark.parametrize(
    ("env_id", "size"),
    [("FrozenLake-v1", 16 + 4 + 2), ("Pendulum-v1", 3 + 1 + 2), ("Blackjack-v1", None)],
)
def test_observe_transition_works_on_any_env_with_flattenable_spaces(env_id, size):
    env = ObserveTransition(gym.make(env_id))
    observation, _ = env.reset(seed=0)
    assert size in (None, len(observation))
    observation, *_ = env.step(env.action_space.sample())
    assert observation in env.observation_space
    assert observation.dtype == np.float32


# ObserveTask


def test_observe_task_appends_the_array_of_the_task():
    env = ObserveTask(gym.make(REFERENCE))
    assert env.observation_layout == {"observation": slice(0, 2), "task": slice(2, 5)}
    for _ in range(3):
        observation, _ = env.reset()
        assert np.array_equal(observation[2:], env.get_task().to_array())
        observation, *_ = env.step(0)
        assert np.array_equal(observation[2:], env.get_task().to_array())
        assert observation in env.observation_space


def test_observe_task_flattens_discrete_observations():
    env = ObserveTask(Chain(n_stages=2))
    observation, _ = env.reset(seed=0)
    # One-hot of the stage (3) and of the state (5), then the direction.
    assert observation.tolist() == [1, 0, 0, 1, 0, 0, 0, 0, env.get_task().direction]
    assert observation.dtype == np.float32


class DictEnv(ReferenceEnv):
    def __init__(self):
        super().__init__()
        self.observation_space = gym.spaces.Dict({"position": self.observation_space})

    def observe(self):
        return {"position": super().observe()}

    def action_masks(self, observations=None):
        return np.ones(N_ACTIONS, bool)


def test_observe_task_adds_an_entry_to_a_dict():
    env = ObserveTask(DictEnv())
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert np.array_equal(observation["task"], env.get_task().to_array())
    with pytest.raises(ValueError, match="key='position'"):
        ObserveTask(DictEnv(), key="position")


def test_observe_task_shows_the_new_task_after_a_reset_of_a_trial():
    env = ObserveTask(ResampleTask(Trial(gym.make(REFERENCE), 2)))
    shown = {tuple(env.reset()[0][2:]) for _ in range(5)}
    assert len(shown) == 5


# belief_mdp


def test_belief_mdp_applies_the_wrappers_in_order():
    env = belief_mdp(SMALL, 2, max_episode_steps=2)
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    assert names[:4] == ["ObserveTransition", "ResampleTask", "Trial", "TimeLimit"]


def test_belief_mdp_of_a_fixed_env_keeps_its_task():
    env = belief_mdp(REFERENCE, 2, env_kwargs={"task_mode": "fixed"})
    assert len(set(tasks_of_resets(env, 4))) == 1


@pytest.mark.parametrize("reset_mode", ["true_start", "wasted_step"])
@pytest.mark.parametrize("env_id", [REFERENCE, SMALL])
def test_belief_mdp_passes_the_checks(env_id, reset_mode):
    def make(task_mode="resample"):
        return belief_mdp(env_id, 2, reset_mode=reset_mode, env_kwargs={"task_mode": task_mode})

    missing = TASK_ENV_CHECKS.keys() - set(check_task_env(make))
    assert missing == {
        "optimal_return_bounds_random_play",
        "optimal_return_agrees_with_optimal_returns",
        "policy_returns_agree_with_random_play",
    }


@pytest.mark.parametrize("env_id", [REFERENCE, SMALL])
@pytest.mark.parametrize(
    "wrap",
    [
        ResampleTask,
        ObserveTask,
        ObserveTransition,
        lambda env: Trial(env, 2),
        lambda env: belief_mdp(env, 2),
    ],
)
def test_wrapped_envs_pass_the_checks_of_gymnasium_and_sb3(env_id, wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*observation space (min|max)imum value is.*")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(wrap(gym.make(env_id)), skip_render_check=True)
        check_env_of_sb3(wrap(gym.make(env_id)))


# What all of them share


WRAPPERS = {
    "ResampleTask": lambda env: ResampleTask(env, 2),
    "ResampleTask of a list": lambda env: ResampleTask(
        env, tasks=env.unwrapped.sample_tasks(3, seed=0), order="cycle"
    ),
    "Trial": lambda env: Trial(env, 2, reset_mode="wasted_step"),
    "ObserveTransition": lambda env: ObserveTransition(env, reward_scale=0.1),
    "ObserveTask": lambda env: ObserveTask(env, key="goal"),
    "belief_mdp": lambda env: belief_mdp(env, 2),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_specs_of_wrapped_envs_survive_json(wrap):
    env = wrap(gym.make(REFERENCE))
    text = env.spec.to_json()
    json.loads(text)
    twin = gym.make(EnvSpec.from_json(text))
    assert str(twin) == str(env)
    for _ in range(2):
        rows = trial_rows(env, seed=5), trial_rows(twin, seed=5)
        assert all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrapped_envs_pickled_in_mid_episode_continue_identically(wrap):
    env = wrap(gym.make(REFERENCE))
    env.reset(seed=0)
    env.step(0)
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(40):
        rows = [each.step(1) for each in (env, twin)]
        assert np.array_equal(rows[0][0], rows[1][0])
        assert rows[0][1:4] == rows[1][1:4]
        if rows[0][2] or rows[0][3]:
            starts = [each.reset()[0] for each in (env, twin)]
            assert np.array_equal(*starts)
            assert env.get_task() == twin.get_task()


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_set_task_and_sample_tasks_reach_through(wrap):
    env = wrap(gym.make(REFERENCE))
    task = env.sample_tasks(1, seed=3)[0]
    assert task == env.unwrapped.sample_tasks(1, seed=3)[0]
    held_out = env.sample_tasks(1, seed=3, split="test")
    assert held_out == env.unwrapped.sample_tasks(1, seed=3, split="test")
    env.set_task(task)
    assert tasks_of_resets(env, 3) == [task] * 3
    assert env.task_distribution is env.unwrapped.task_distribution


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda env: ResampleTask(env, 0), ValueError, "n_episodes=0"),
        (lambda env: ResampleTask(env, tasks=[]), ValueError, "tasks is empty"),
        (lambda env: ResampleTask(env, order="best"), ValueError, "order='best'"),
        (lambda env: ResampleTask(env, tasks=[[9.0] * 3]), ValueError, "outside"),
        (lambda env: Trial(env, 1.5), ValueError, "n_episodes=1.5"),
        (lambda env: Trial(env, 2, reset_mode="obs"), ValueError, "reset_mode='obs'"),
        (lambda env: ObserveTransition(env, reward_scale=0.0), ValueError, "reward_scale=0.0"),
        (lambda env: belief_mdp(env, 2, env_kwargs={"a": 1}), ValueError, "env_kwargs"),
        (lambda env: Trial(gym.make("CartPole-v1"), 2), TypeError, "needs a task env"),
        (lambda env: ObserveTask(gym.make("CartPole-v1")), TypeError, "lacks"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(gym.make(REFERENCE))


def test_continuous_actions_are_observed_as_they_are():
    env = ObserveTransition(LinearQuadratic())
    env.reset(seed=0)
    observation, *_ = env.step(np.array([0.25], np.float32))
    assert observation[env.observation_layout["action"]] == 0.25
