import copy
import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from metarl_agents.common.vec_env import TaskVecEnv, as_vec_env, make_task_vec_env
from metarl_agents.common.vec_env.infos import LazyInfos
from tests.metarl_agents.common.tiny import ArmEnv, ArmTask, RaggedArmEnv

SMALL = "metarl/RecommendationSmall-v0"
IDS = [SMALL, "metarl/InverseBellman-v0"]


def singles(env_id, n_envs):
    return DummyVecEnv([lambda: Monitor(gym.make(env_id)) for _ in range(n_envs)])


def sync(env=RaggedArmEnv, n_envs=2, mode=AutoresetMode.SAME_STEP):
    return SyncVectorEnv([env] * n_envs, autoreset_mode=mode)


def rollout(venv, n_steps, seed):
    venv.seed(seed)
    rng = np.random.default_rng(seed)
    steps = [(venv.reset(), None, None, None)]
    for _ in range(n_steps):
        masks = np.stack(venv.env_method("action_masks"))
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        observations, rewards, dones, infos = venv.step(actions)
        steps.append((observations, rewards, dones, infos))
    return steps


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return np.array_equal(first, second)


@pytest.mark.parametrize("env_id", IDS)
def test_adapter_equals_a_dummy_vec_env_of_single_envs(env_id):
    batched, dummy = make_task_vec_env(env_id, 3), singles(env_id, 3)
    assert isinstance(batched, TaskVecEnv)
    assert batched.observation_space == dummy.observation_space
    assert batched.action_space == dummy.action_space
    for ours, theirs in zip(rollout(batched, 40, 5), rollout(dummy, 40, 5), strict=True):
        assert np.array_equal(ours[0], theirs[0])
        assert ours[0].dtype == theirs[0].dtype
        if ours[1] is None:
            continue
        assert np.array_equal(ours[1], theirs[1])
        assert (ours[1].dtype, ours[2].dtype) == (np.float32, np.bool_)
        assert np.array_equal(ours[2], theirs[2])
        for our_info, their_info in zip(ours[3], theirs[3], strict=True):
            for info in (our_info, their_info):
                info.get("episode", {}).pop("t", None)
            assert same(our_info, their_info)


@pytest.mark.parametrize("env_id", IDS)
def test_reset_infos_are_those_of_the_episode_that_begins(env_id):
    batched, dummy = make_task_vec_env(env_id, 2), singles(env_id, 2)
    for venv in (batched, dummy):
        rollout(venv, 11, 7)
    for ours, theirs in zip(batched.reset_infos, dummy.reset_infos, strict=True):
        assert same({**ours, "task": None}, {**theirs, "task": None})
    # Those of autoresets tell the task by its number only.
    tasks = [info["task"] for info in dummy.reset_infos]
    assert batched.env_method("get_task") == dummy.env_method("get_task") == tasks


def test_sync_vector_env_works_as_well():
    ours, theirs = TaskVecEnv(sync()), DummyVecEnv([lambda: Monitor(RaggedArmEnv())] * 2)
    for our_step, their_step in zip(rollout(ours, 30, 1), rollout(theirs, 30, 1), strict=True):
        assert np.array_equal(our_step[0], their_step[0])
        if our_step[1] is not None:
            assert np.array_equal(our_step[1], their_step[1])
            ends = [info.get("terminal_observation") for info in our_step[3]]
            assert same(
                dict(enumerate(ends)),
                dict(enumerate(info.get("terminal_observation") for info in their_step[3])),
            )


@pytest.mark.parametrize(
    "make",
    [lambda: make_task_vec_env(SMALL, 3), lambda: singles(SMALL, 3)],
    ids=["batched", "dummy"],
)
def test_tasks_are_set_and_got_by_index(make):
    venv = make()
    tasks = venv.env_method("sample_tasks", 3, seed=1)[0]
    assert tasks == venv.env_method("sample_tasks", 3, seed=1, indices=2)[0]
    venv.env_method("set_task", tasks[0], indices=1)
    venv.env_method("set_task", tasks[1], indices=[0, 2])
    venv.reset()
    assert venv.env_method("get_task") == [tasks[1], tasks[0], tasks[1]]
    assert venv.env_method("get_task", indices=1) == [tasks[0]]
    venv.env_method("set_task", None)
    venv.reset()
    assert not set(venv.env_method("get_task")) & set(tasks)


def test_pins_are_told_per_sub_env_and_none_where_the_env_does_not_tell():
    venv = make_task_vec_env(SMALL, 3)
    task = venv.env_method("sample_tasks", 1, seed=3)[0][0]
    venv.env_method("set_task", task, indices=1)
    assert venv.get_attr("pinned_task") == [None, task, None]
    assert venv.get_attr("pinned_task", indices=[1]) == [task]
    taskless = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point",
                            vector_kwargs={})  # fmt: skip
    taskless.metadata = {**taskless.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
    assert TaskVecEnv(taskless).get_attr("pinned_task") == [None, None]


def test_reset_options_set_tasks_once():
    venv = make_task_vec_env(SMALL, 2)
    task = venv.env_method("sample_tasks", 1, seed=3)[0][0]
    venv.set_options([{}, {"task": task}])
    venv.reset()
    assert venv.env_method("get_task")[1] == task != venv.env_method("get_task")[0]
    venv.reset()
    assert task not in venv.env_method("get_task")
    venv.set_options([{"a": 1}, {"a": 2}])
    with pytest.raises(ValueError, match="must be the same for all"):
        venv.reset()


def test_task_options_reach_a_single_sync_env_and_are_refused_for_several():
    task = ArmTask((1.0, 2.0, 3.0))
    one, two = TaskVecEnv(sync(n_envs=1)), TaskVecEnv(sync(n_envs=2))
    for venv in (one, two):
        venv.seed(0)
        venv.set_options({"task": task})
    one.reset()
    assert one.env_method("get_task") == [task]
    with pytest.raises(ValueError, match="set_task"):
        two.reset()


def test_action_masks_come_as_rows():
    venv = make_task_vec_env(SMALL, 2)
    venv.seed(0)
    venv.reset()
    venv.step(np.array([1, 4]))
    masks = venv.env_method("action_masks")
    assert [np.flatnonzero(~mask).tolist() for mask in masks] == [[1], [4]]
    assert np.array_equal(venv.env_method("action_masks", indices=1)[0], masks[1])
    bound = venv.get_attr("action_masks", indices=1)[0]
    assert np.array_equal(bound(), masks[1])


def test_attributes_and_methods_of_the_family_are_repeated_per_index():
    venv = make_task_vec_env(SMALL, 3)
    assert venv.get_attr("n_stages") == [3, 3, 3]
    assert venv.get_attr("n_stages", indices=[0, 2]) == [3, 3]
    observations = np.ones((5, 6))
    features = venv.env_method("features", 0, observations, indices=0)[0]
    assert features.shape[:2] == (5, 6)
    for name in ("set_task", "get_task", "sample_tasks", "action_masks", "features"):
        assert venv.has_attr(name)
    assert not venv.has_attr("no_such_attribute")
    with pytest.raises(IndexError, match="indices"):
        venv.get_attr("n_stages", indices=7)


def test_set_attr_refuses_tasks_and_parts_of_a_batch():
    venv = make_task_vec_env(SMALL, 2)
    venv.set_attr("note", 3)
    assert venv.get_attr("note") == [3, 3]
    with pytest.raises(ValueError, match="set_task"):
        venv.set_attr("task", None)
    with pytest.raises(ValueError, match="leave indices out"):
        venv.set_attr("note", 4, indices=[0])
    several = TaskVecEnv(sync(ArmEnv))
    several.set_attr("p_end", 0.5, indices=[1])
    assert several.get_attr("p_end") == [0.0, 0.5]


def test_monitor_is_said_to_be_there_exactly_where_it_is():
    for venv, expected in (
        (make_task_vec_env(SMALL, 2), True),
        (make_task_vec_env(SMALL, 2, monitor=False), False),
        (singles(SMALL, 2), True),
    ):
        assert venv.env_is_wrapped(Monitor) == [expected] * 2
        rollout(venv, 3, 0)
        *_, infos = venv.step(np.array([0, 0]))
    plain = make_task_vec_env(SMALL, 1, monitor=False)
    assert not any("episode" in info for step in rollout(plain, 9, 0)[1:] for info in step[3])
    assert TaskVecEnv(sync(lambda: Monitor(ArmEnv()))).env_is_wrapped(Monitor) == [True, True]


def test_vec_monitor_and_vec_normalize_wrap_it():
    venv = VecMonitor(make_task_vec_env(SMALL, 2, monitor=False))
    ends = [
        info["episode"] for step in rollout(venv, 9, 0)[1:] for info in step[3] if "episode" in info
    ]
    assert [end["l"] for end in ends] == [3] * 6
    normalized = VecNormalize(as_vec_env(sync(ArmEnv)), norm_reward=False)
    normalized.seed(0)
    normalized.reset()
    assert normalized.step(np.array([0, 1]))[0].shape == (2, 1)


def test_frames_are_rendered_one_per_sub_environment():
    venv = make_task_vec_env(SMALL, 4)
    venv.reset()
    images = venv.get_images()
    assert len(images) == 4
    assert venv.render().ndim == 3
    silent = make_task_vec_env(SMALL, 2, env_kwargs={"render_mode": None})
    silent.reset()
    assert silent.get_images() == [None, None]


def test_ids_without_same_step_batches_fall_back_to_single_envs():
    cartpole = make_task_vec_env("CartPole-v1", 2, seed=0)
    assert isinstance(cartpole, DummyVecEnv)
    assert cartpole.env_is_wrapped(Monitor) == [True, True]
    assert isinstance(make_task_vec_env("metarl_envs:" + SMALL, 2), TaskVecEnv)


def test_env_kwargs_reach_the_env():
    venv = make_task_vec_env("metarl/InverseBellman-v0", 2, env_kwargs={"n_actions": 3})
    assert venv.action_space.n == 3
    venv = make_task_vec_env("CartPole-v1", 1, env_kwargs={"render_mode": None})
    assert venv.render_mode is None


def test_as_vec_env_takes_every_kind_of_env():
    venv = singles(SMALL, 2)
    assert as_vec_env(venv) is as_vec_env(venv, 2) is venv
    assert isinstance(as_vec_env(SMALL, 3), TaskVecEnv)
    assert as_vec_env(SMALL, 3).num_envs == 3
    assert isinstance(as_vec_env(sync()), TaskVecEnv)
    assert as_vec_env(ArmEnv()).env_is_wrapped(Monitor) == [True]
    assert as_vec_env(Monitor(ArmEnv())).env_is_wrapped(Monitor) == [True]
    first, second = as_vec_env(ArmEnv(), seed=3), as_vec_env(ArmEnv(), seed=3)
    assert np.array_equal(first.reset(), second.reset())
    assert first.env_method("get_task") == second.env_method("get_task")


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: as_vec_env(sync(mode=AutoresetMode.NEXT_STEP)), ValueError, "SAME_STEP"),
        (lambda: as_vec_env(singles(SMALL, 2), 3), ValueError, "n_envs=3 but env has 2"),
        (lambda: as_vec_env(ArmEnv(), 2), ValueError, "pass an env id"),
        (lambda: as_vec_env(SMALL, 0), ValueError, "n_envs=0"),
        (lambda: as_vec_env(SMALL, True), ValueError, "n_envs=True"),
        (lambda: as_vec_env(3), TypeError, "give an env id"),
        (lambda: as_vec_env(ArmEnv(), env_kwargs={"p_end": 1}), ValueError, "already made"),
    ],
)
def test_wrong_envs_are_refused_with_the_remedy(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("agent", "kwargs"),
    [
        (PPO, {"n_steps": 16, "batch_size": 16, "n_epochs": 1}),
        (A2C, {}),
        (DQN, {"learning_starts": 10, "buffer_size": 500}),
        (MaskablePPO, {"n_steps": 16, "batch_size": 16, "n_epochs": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_sb3_agents_train_in_it(agent, kwargs):
    venv = make_task_vec_env(SMALL, 4, seed=0)
    model = agent("MlpPolicy", venv, seed=0, device="cpu", **kwargs).learn(256)
    assert model.num_timesteps >= 256
    assert len(model.ep_info_buffer) > 50
    if agent is MaskablePPO:
        # Masked, no product is shown twice, so every episode is as good as its length allows.
        masks = model.rollout_buffer.action_masks
        assert (masks == 0).any()


def test_sb3_evaluates_in_it_without_a_warning():
    model = PPO("MlpPolicy", make_task_vec_env(SMALL, 2), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _, lengths = evaluate_policy(
            model, make_task_vec_env(SMALL, 2), 6, return_episode_rewards=True
        )
    assert lengths == [3] * 6


def test_observations_handed_out_are_not_written_over():
    venv = make_task_vec_env(SMALL, 2)
    first = venv.reset()
    copy = first.copy()
    venv.step(np.array([0, 1]))
    assert np.array_equal(first, copy)


def lazy():
    return LazyInfos(lambda: [{"a": 1}, {"a": 2}], 2)


@pytest.mark.parametrize(
    "look",
    [
        list,
        tuple,
        len,
        bool,
        repr,
        json.dumps,
        copy.copy,
        copy.deepcopy,
        lambda infos: pickle.loads(pickle.dumps(infos)),
        lambda infos: infos[1],
        lambda infos: infos[:1],
        lambda infos: [*infos, 3],
        lambda infos: infos + [3],
        lambda infos: [3] + infos,
        lambda infos: infos * 2,
        lambda infos: 2 * infos,
        lambda infos: infos.copy(),
        lambda infos: infos.index({"a": 2}),
        lambda infos: infos.count({"a": 2}),
        lambda infos: {"a": 2} in infos,
        lambda infos: infos == [{"a": 1}, {"a": 2}],
        lambda infos: [{"a": 1}, {"a": 2}] == infos,  # noqa: SIM300
        lambda infos: infos != [{"a": 1}],
        lambda infos: list(reversed(infos)),
        lambda infos: list(zip(infos, "xy", strict=True)),
        lambda infos: sorted(infos, key=lambda info: -info["a"]),
        lambda infos: np.array(infos).tolist(),
        lambda infos: infos.pop(),
        lambda infos: [infos.append(4), len(infos), infos[2]],
        lambda infos: [infos.__setitem__(0, 5), infos[0], infos[1]],
        lambda infos: [[].extend(infos), [*infos]],
    ],
)
def test_lazy_infos_are_a_list_of_dicts_however_one_looks(look):
    assert look(lazy()) == look([{"a": 1}, {"a": 2}])


def test_lazy_infos_are_made_once_and_only_if_somebody_looks():
    made = []
    infos = LazyInfos(lambda: made.append(1) or [{}], 1)
    assert (len(infos), made) == (1, [])
    assert infos[0] is infos[0]
    assert made == [1]


def test_infos_of_a_step_are_its_own_even_if_looked_at_after_the_next():
    early, late = (
        make_task_vec_env("metarl/PointGoal-v0", 3),
        make_task_vec_env("metarl/PointGoal-v0", 3),
    )
    infos = []
    for venv in (early, late):
        venv.seed(0)
        venv.reset()
        look = list if venv is early else lambda step_infos: step_infos
        infos.append([look(venv.step(np.full((3, 2), 0.1))[3]) for _ in range(4)])
    assert infos[0] == infos[1]
    assert [step[0]["stage"] for step in infos[0]] == [1, 2, 3, 4]
