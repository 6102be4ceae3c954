import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from metarl_agents.common.collect import (
    collect_episodes,
    collect_task_episodes,
    pinned_tasks,
    sample_tasks,
    task_of,
)
from metarl_agents.common.policies import FunctionalPolicies, PolicyList, make_network
from metarl_agents.common.vec_env import TaskVecEnv, make_task_vec_env
from metarl_envs.core import task_id
from tests.metarl_agents.common.tiny import ArmEnv, ArmMeta, ArmTask, RaggedArmEnv


class Always:
    def __init__(self, action):
        self.action, self.starts = action, []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.starts.append(bool(episode_start[0]))
        return np.full(len(observation), self.action), state


def arms(n_envs=2, env=ArmEnv):
    return DummyVecEnv([env] * n_envs)


def always(*actions):
    return PolicyList([Always(action) for action in actions])


def test_every_task_gets_the_same_number_of_episodes_whatever_their_lengths():
    batch = collect_episodes(arms(3, RaggedArmEnv), always(0, 1, 2), 5, seed=1)
    assert batch.mask.shape[:2] == (3, 5)
    assert batch.lengths.min() >= 1
    assert len(set(batch.lengths.flatten().tolist())) > 1
    assert batch.mask.shape[2] == batch.lengths.max()


def test_steps_are_filed_under_their_episode():
    batch = collect_episodes(arms(2, RaggedArmEnv), always(0, 1), 4, seed=3)
    for lengths, observations in zip(batch.lengths, batch.observations, strict=True):
        for length, rows in zip(lengths.tolist(), observations, strict=True):
            assert rows[:length, 0].tolist() == list(range(length))
            assert not rows[length:].any()
    assert th.equal(batch.final_observations[..., 0].to(th.int64), batch.lengths)
    assert batch.actions[0].unique().tolist() == [0]
    assert th.equal(batch.actions[1, ..., 0] == 1, batch.mask[1].bool())


def test_terminated_is_zero_where_a_time_limit_cut_the_episode():
    batch = collect_episodes(arms(2, RaggedArmEnv), always(0, 1), 20, seed=0)
    cut = batch.lengths == 6
    assert 0 < cut.sum() < cut.numel()
    # An episode may also terminate at its sixth step.
    assert (batch.terminated[~cut] == 1).all()
    assert (batch.terminated[cut] == 0).any()


def test_same_seed_same_episodes_and_the_state_of_the_env_does_not_matter():
    venv = arms(2, RaggedArmEnv)
    first = collect_episodes(venv, always(0, 1), 3, seed=5)
    venv.step(np.array([0, 0]))
    second = collect_episodes(venv, always(0, 1), 3, seed=5)
    other = collect_episodes(venv, always(0, 1), 3, seed=6)
    assert all(th.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not th.equal(first.rewards, other.rewards)


def test_tasks_are_played_for_these_episodes_only():
    tasks = [ArmTask((10.0, 0.0, 0.0)), ArmTask((-10.0, 0.0, 0.0))]
    for n_episodes in (1, 3):
        venv = arms()
        batch = collect_episodes(venv, always(0, 0), n_episodes, seed=0, tasks=tasks)
        assert (batch.returns[0] > 15).all()
        assert (batch.returns[1] < -15).all()
        assert venv.get_attr("pinned_task") == [None, None]


def test_pinned_tasks_puts_former_pins_back_even_after_an_error():
    venv, former = arms(), ArmTask((1.0, 2.0, 3.0))
    venv.env_method("set_task", former, indices=[1])
    with pytest.raises(KeyError), pinned_tasks(venv, [ArmTask((0.0,) * 3)] * 2):
        assert venv.get_attr("pinned_task") == [ArmTask((0.0,) * 3)] * 2
        raise KeyError
    assert venv.get_attr("pinned_task") == [None, former]


def test_task_of_is_the_current_task_or_the_one_that_the_seed_draws():
    fresh, other = arms(1), arms(1)
    assert task_of(fresh, seed=3) == task_of(other, seed=3)
    current = fresh.env_method("get_task")[0]
    assert task_of(fresh, seed=4) == current
    assert task_of(DummyVecEnv([lambda: gym.make("CartPole-v1")]), seed=0) is None


def test_hook_counts_all_steps_but_sees_no_surplus_episode():
    steps, seen = [], []

    def hook(n_new_steps, infos, dones):
        steps.append(n_new_steps)
        seen.append(dones.copy())
        assert len(infos) == 3
        return True

    batch = collect_episodes(arms(3, RaggedArmEnv), always(0, 1, 2), 2, seed=2, on_step=hook)
    assert set(steps) == {3}
    assert sum(steps) >= batch.n_steps
    assert np.sum(seen, axis=0).tolist() == [2, 2, 2]


def test_hook_stops_the_collection():
    calls = []
    hook = lambda n, infos, dones: calls.append(1) or len(calls) < 3  # noqa: E731
    assert collect_episodes(arms(), always(0, 1), 5, seed=0, on_step=hook) is None
    assert len(calls) == 3


def test_episode_start_means_task_start():
    policies = always(0, 1)
    collect_episodes(arms(), policies, 3, seed=0)
    assert policies[0].starts == [True] + [False] * 5


def test_action_masks_are_recorded_where_the_env_has_them():
    venv = make_task_vec_env("metarl/RecommendationSmall-v0", 2)
    first = venv.observation_space.nvec.shape[0]
    batch = collect_episodes(venv, always(0, 1), 1, seed=0)
    assert batch.action_masks.shape == (2, 1, 3, first)
    assert batch.action_masks[:, :, 0].all()
    # Product 0 was shown in the first step of the first task.
    assert not batch.action_masks[0, 0, 1, 0]


class PointEnv(gym.Env):
    """Box actions; remembers what it was given."""

    observation_space = spaces.Box(-1.0, 1.0, (2, 3), dtype=np.float32)
    action_space = spaces.Box(-0.5, 0.5, (2,), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((2, 3), np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action.astype(np.float32))
        return np.ones((2, 3), np.float32), float(action.sum()), False, True, {}


class Wide:
    n_tasks = 1

    def act(self, observation, state, episode_start, deterministic):
        return np.array([[2.0, 0.25]]), state, np.array([[1.0, 2.0, 3.0]])


def test_box_actions_are_kept_as_sampled_and_clipped_for_the_env():
    batch = collect_episodes(DummyVecEnv([PointEnv]), Wide(), 2, seed=0)
    assert batch.actions[0, :, 0].tolist() == [[2.0, 0.25]] * 2
    assert batch.rewards[0, :, 0].tolist() == [0.75, 0.75]
    assert batch.dist_params[0, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert batch.observations.shape == (1, 2, 1, 6)
    assert batch.action_masks is None


class SilentArmEnv(ArmEnv):
    """Does not tell what it is pinned to, as envs need not."""

    def has_wrapper_attr(self, name):
        return name != "pinned_task" and super().has_wrapper_attr(name)

    def get_wrapper_attr(self, name):
        if name == "pinned_task":
            raise AttributeError(name)
        return super().get_wrapper_attr(name)


def test_envs_in_other_processes_need_not_tell_their_pins():
    workers = SubprocVecEnv([SilentArmEnv], start_method="spawn")
    try:
        with pinned_tasks(workers, [ArmTask((1.0, 2.0, 3.0))]):
            assert workers.env_method("get_task") == [ArmTask((1.0, 2.0, 3.0))]
    finally:
        workers.close()


def test_other_processes_give_the_same_episodes():
    tasks = [ArmTask((1.0, 0.0, 0.0)), ArmTask((0.0, 1.0, 0.0))]
    venv = SubprocVecEnv([RaggedArmEnv] * 2, start_method="fork")
    try:
        theirs = collect_episodes(venv, always(0, 1), 2, seed=1, tasks=tasks)
    finally:
        venv.close()
    ours = collect_episodes(arms(2, RaggedArmEnv), always(0, 1), 2, seed=1, tasks=tasks)
    assert all(th.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("n_episodes", [1, 2])
@pytest.mark.parametrize("kind", ["batched", "sync", "dummy"])
def test_every_kind_of_vector_env_plays_the_tasks(kind, n_episodes):
    env_id = "metarl/RecommendationSmall-v0"
    if kind == "batched":
        venv = make_task_vec_env(env_id, 2)
    elif kind == "sync":
        mode = AutoresetMode.SAME_STEP
        venv = TaskVecEnv(SyncVectorEnv([lambda: gym.make(env_id)] * 2, autoreset_mode=mode))
    else:
        venv = DummyVecEnv([lambda: gym.make(env_id)] * 2)
    tasks = sample_tasks(venv, 2, seed=1)
    seen = []

    def hook(n, infos, dones):
        seen.append([info["task_id"] for info in infos])
        return True

    collect_episodes(venv, always(0, 1), n_episodes, seed=3, tasks=tasks, on_step=hook)
    assert seen == [[task_id(task) for task in tasks]] * (3 * n_episodes)
    venv.reset()
    assert not set(venv.env_method("get_task")) & set(tasks)


@pytest.mark.parametrize("n_episodes", [1, 2])
def test_wrong_numbers_and_missing_tasks_are_refused(n_episodes):
    with pytest.raises(ValueError, match="one policy per sub-environment"):
        collect_episodes(arms(2), always(0), n_episodes, seed=0)
    with pytest.raises(ValueError, match="n_episodes=0"):
        collect_episodes(arms(1), always(0), 0, seed=0)
    with pytest.raises(ValueError, match="one task for each"):
        collect_episodes(arms(2), always(0, 0), n_episodes, seed=0, tasks=[ArmTask((0.0,) * 3)])
    cartpole = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(ValueError, match="has no set_task"):
        collect_episodes(cartpole, always(0), n_episodes, seed=0, tasks=[ArmTask((0.0,) * 3)])
    with pytest.raises(ValueError, match="has no sample_tasks"):
        sample_tasks(cartpole, 1, seed=0)


def test_nested_and_unbounded_spaces_are_refused_with_the_remedy():
    class DictEnv(PointEnv):
        observation_space = spaces.Dict({"x": PointEnv.observation_space})

    class Unbounded(PointEnv):
        action_space = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)

    for env, match in ((DictEnv, "FlattenObservation"), (Unbounded, "finite bounds")):
        with pytest.raises(ValueError, match=match):
            collect_episodes(DummyVecEnv([env]), Wide(), 1, seed=0)
        with pytest.raises(ValueError, match=match):
            ArmMeta("ArmPolicy", env())


def random_arm_policies(n_tasks, venv, seed=0):
    """Softmax policies with different parameters in each task."""
    network = make_network("MlpPolicy", venv.observation_space, venv.action_space, net_arch=(4,))
    sets = [network.initial_params(np.random.default_rng([seed, i])) for i in range(n_tasks)]
    params = {name: th.stack([p[name] for p in sets]) for name in sets[0]}
    rngs = [np.random.default_rng([seed, i, 1]) for i in range(n_tasks)]
    return FunctionalPolicies(network, params, action_space=venv.action_space, rngs=rngs)


def arm_tasks(n):
    rng = np.random.default_rng(7)
    return [ArmTask(tuple(rng.standard_normal(3).tolist())) for _ in range(n)]


def collected(n_tasks, n_envs, n_episodes=4, env=RaggedArmEnv, **changes):
    venv = arms(n_envs, env)
    policies = random_arm_policies(n_tasks, venv)
    arguments = {"tasks": arm_tasks(n_tasks), "seed": 11, **changes}
    return collect_task_episodes(venv, policies, n_episodes, **arguments)


def test_episodes_of_tasks_come_in_the_order_of_the_tasks_for_every_number_of_envs():
    for n_envs in (3, 6, 12, 1):
        batch = collected(3, n_envs, env=ArmEnv)
        assert batch.mask.shape == (3, 4, 2)
        assert batch.observations.dtype == th.float32
        values = th.tensor([task.values for task in arm_tasks(3)])
        expected = values[:, None, None].expand(3, 4, 2, 3).gather(-1, batch.actions)[..., 0]
        # Noise of deviation 0.1, five times that; tasks differ by far more.
        assert (batch.rewards - expected).abs().max() < 0.5


def test_rounds_give_the_episodes_that_all_tasks_at_once_give():
    at_once, in_rounds = collected(4, 4), collected(4, 2)
    one_by_one = collected(4, 1)
    assert all(th.equal(a, b) for a, b in zip(at_once, in_rounds, strict=True))
    assert all(th.equal(a, b) for a, b in zip(at_once, one_by_one, strict=True))


def test_episodes_of_a_task_do_not_depend_on_the_tasks_beside_it():
    for n_each in (1, 2):
        beside = collected(4, 4 * n_each)
        venv = arms(2 * n_each, RaggedArmEnv)
        policies = random_arm_policies(4, venv).subset(slice(0, 2))
        alone = collect_task_episodes(venv, policies, 4, tasks=arm_tasks(2), seed=11)
        n_steps = alone.mask.shape[-1]
        for name, field in alone._asdict().items():
            theirs = getattr(beside, name)[:2]
            if name not in ("final_observations", "terminated"):
                theirs = theirs[:, :, :n_steps]
            assert th.equal(field, theirs), name


def test_policies_that_played_before_give_the_same_distribution_parameters_for_other_noise():
    venv = arms(2, RaggedArmEnv)
    policies = random_arm_policies(2, venv)
    first, second = (
        collect_task_episodes(venv, policies, 30, tasks=arm_tasks(2), seed=0) for _ in range(2)
    )
    assert not th.equal(first.actions[:, :, 0], second.actions[:, :, 0])
    assert th.equal(first.dist_params[:, :, 0], second.dist_params[:, :, 0])


def test_actions_of_the_recorded_distribution_keep_to_the_recorded_masks():
    venv = make_task_vec_env("metarl/RecommendationSmall-v0", 4)
    policies = random_arm_policies(2, venv)
    tasks = sample_tasks(venv, 2, seed=1)
    batch = collect_task_episodes(venv, policies, 6, tasks=tasks, seed=3)
    assert batch.action_masks.gather(-1, batch.actions).all()
    assert not batch.action_masks.all()


def test_hooks_see_and_stop_collections_of_tasks():
    steps = []
    assert collected(4, 2, on_step=lambda n, infos, dones: steps.append(n) or len(infos) == 2)
    assert set(steps) == {2}
    assert collected(4, 2, on_step=lambda n, infos, dones: False) is None


@pytest.mark.parametrize(
    ("n_tasks", "n_envs", "n_episodes", "match"),
    [
        (4, 6, 4, "n_envs=6 must divide or be a multiple of meta_batch_size=4"),
        (6, 4, 4, "n_envs=4 must divide or be a multiple of meta_batch_size=6"),
        (2, 6, 4, "n_episodes_per_task=4 must be a positive multiple of the 3"),
        (2, 2, 0, "n_episodes_per_task=0"),
    ],
)
def test_numbers_of_envs_that_do_not_fit_are_refused(n_tasks, n_envs, n_episodes, match):
    with pytest.raises(ValueError, match=match):
        collected(n_tasks, n_envs, n_episodes)


def test_numbers_of_policies_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="policies are for 2 tasks, but tasks has 3"):
        collected(2, 2, tasks=arm_tasks(3))


def test_long_episodes_outgrow_the_first_buffers():
    class LongArmEnv(ArmEnv):
        def __init__(self):
            super().__init__(horizon=300)

    batch = collected(2, 2, n_episodes=2, env=LongArmEnv)
    assert batch.mask.shape == (2, 2, 300)
    counts = th.arange(300).float().expand(2, 2, 300)
    assert th.equal(batch.observations[..., 0], counts)
