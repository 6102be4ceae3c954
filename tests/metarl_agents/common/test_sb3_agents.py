"""Agents of SB3 and sb3-contrib live in our envs; tasks reach through all wrappers."""

import copy
import io
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers as gym_wrappers
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked_policy
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from metarl_agents.common.vec_env import TaskVecEnv, make_task_vec_env
from metarl_envs.core import task_id

SMALL = "metarl/RecommendationSmall-v0"
LINEAR_QUADRATIC = "metarl-test/LinearQuadratic-v0"
if LINEAR_QUADRATIC not in gym.registry:
    gym.register(
        LINEAR_QUADRATIC,
        entry_point="metarl_envs.probes:LinearQuadratic",
        vector_entry_point="metarl_envs.probes:LinearQuadraticVector",
    )
DISCRETE = [SMALL, "metarl/FrozenLakeHoles-v0", "metarl/GridGoal-v0"]
CONTINUOUS = [LINEAR_QUADRATIC, "metarl/PointGoal-v0"]
TRIALS = ["metarl/BernoulliBandit-v0", SMALL]

TINY = {"net_arch": [8]}
ON_POLICY = {"n_steps": 8, "policy_kwargs": TINY}
BATCHES = {"batch_size": 8}
OFF_POLICY = {"learning_starts": 8, "buffer_size": 100, "batch_size": 8, "policy_kwargs": TINY}
EITHER = {
    A2C: ON_POLICY,
    ARS: {"n_delta": 2, "n_eval_episodes": 1, "policy_kwargs": TINY},
    PPO: {**ON_POLICY, **BATCHES, "n_epochs": 1},
    RecurrentPPO: {
        **ON_POLICY, **BATCHES, "n_epochs": 1, "policy_kwargs": {**TINY, "lstm_hidden_size": 8}
    },
    TRPO: {**ON_POLICY, **BATCHES},
}  # fmt: skip
FOR_DISCRETE = {
    **EITHER,
    DQN: {**OFF_POLICY, "target_update_interval": 10},
    MaskablePPO: EITHER[PPO],
    QRDQN: {**OFF_POLICY, "policy_kwargs": {**TINY, "n_quantiles": 5}},
}
FOR_CONTINUOUS = {
    **EITHER,
    CrossQ: OFF_POLICY,
    DDPG: OFF_POLICY,
    SAC: OFF_POLICY,
    TD3: OFF_POLICY,
    TQC: OFF_POLICY,
}


def made(agent, venv, arguments):
    policy = "MlpLstmPolicy" if agent is RecurrentPPO else "MlpPolicy"
    # SB3 writes into policy_kwargs.
    return agent(policy, venv, seed=0, device="cpu", **copy.deepcopy(arguments))


def of_each(agents, ids):
    return [
        pytest.param(agent, env_id, arguments, id=f"{agent.__name__}-{env_id.split('/')[1]}")
        for agent, arguments in agents.items()
        for env_id in ids
        if agent is not RecurrentPPO or not is_multi_discrete(env_id)
    ]


def is_multi_discrete(env_id):
    # SB3 2.9 sizes such an observation by a NumPy integer, which torch's LSTM refuses.
    return isinstance(gym.make(env_id).observation_space, gym.spaces.MultiDiscrete)


@pytest.mark.parametrize(
    ("agent", "env_id", "arguments"),
    [*of_each(FOR_DISCRETE, DISCRETE), *of_each(FOR_CONTINUOUS, CONTINUOUS)],
)
def test_agents_learn_predict_save_load_and_are_evaluated(agent, env_id, arguments):
    venv = make_task_vec_env(env_id, n_envs=2, seed=0)
    assert isinstance(venv, TaskVecEnv)
    model = made(agent, venv, arguments).learn(32)
    assert model.num_timesteps >= 32
    observations = venv.reset()
    actions, _ = model.predict(observations, deterministic=True)
    assert all(venv.action_space.contains(action) for action in actions)

    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = agent.load(file, env=make_task_vec_env(env_id, n_envs=2, seed=0), device="cpu")
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], actions)
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded.num_timesteps > model.num_timesteps

    evaluate = evaluate_masked_policy if agent is MaskablePPO else evaluate_policy
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        returns, lengths = evaluate(
            loaded, make_task_vec_env(env_id, n_envs=2, seed=1), 4, return_episode_rewards=True
        )
    assert np.isfinite(returns).all()
    assert len(returns) == len(lengths) == 4


def test_recurrent_ppo_plays_multi_discrete_observations_once_they_are_flat():
    venv = DummyVecEnv([lambda: gym_wrappers.FlattenObservation(gym.make(SMALL))] * 2)
    model = made(RecurrentPPO, venv, EITHER[RecurrentPPO]).learn(32)
    actions, memory = model.predict(venv.reset())
    assert actions.shape == (2,)
    assert memory[0].shape == (1, 2, 8)


@pytest.mark.parametrize("env_id", TRIALS)
def test_agents_with_memory_learn_in_trials(env_id):
    venv = make_task_vec_env(env_id, n_envs=4, env_kwargs={"episodes_per_trial": 3}, seed=0)
    assert isinstance(venv, TaskVecEnv)
    layout = venv.get_attr("observation_layout")[0]
    assert list(layout) == ["observation", "action", "reward", "done"]
    model = made(RecurrentPPO, venv, EITHER[RecurrentPPO]).learn(64)
    single = gym.make(env_id, episodes_per_trial=3)
    assert single.observation_space == venv.observation_space
    returns, lengths = evaluate_policy(model, Monitor(single), 2, return_episode_rewards=True)
    assert np.isfinite(returns).all()

    (task,) = venv.env_method("sample_tasks", 1, seed=5)[0]
    venv.env_method("set_task", task)
    observations, ends = venv.reset(), np.zeros(4, dtype=int)
    assert not observations[:, layout["action"].start :].any()
    memory, starts = None, np.ones(4, dtype=bool)
    for _ in range(lengths[0]):
        actions, memory = model.predict(observations, memory, starts)
        observations, rewards, starts, infos = venv.step(actions)
        rows = zip(infos, observations, strict=True)
        seen = np.array([info.get("terminal_observation", row) for info, row in rows])
        assert np.array_equal(seen[:, layout["action"]].argmax(axis=1), actions)
        assert np.allclose(seen[:, layout["reward"].start], rewards, rtol=1e-6)
        ended = np.array([info["episode_done"] for info in infos])
        assert np.array_equal(seen[:, layout["done"].start] == 1, ended)
        assert {info["task_id"] for info in infos} == {task_id(task)}
        ends += ended
        assert np.array_equal(starts, ends == 3)
        if starts.any():
            break
    assert starts.any()


@pytest.mark.parametrize("env_kwargs", [{}, {"episodes_per_trial": 2}], ids=["episodes", "trials"])
@pytest.mark.parametrize("env_id", DISCRETE)
def test_masked_agents_never_take_a_forbidden_action(env_id, env_kwargs):
    venv = make_task_vec_env(env_id, 2, env_kwargs=env_kwargs, seed=0)
    model = made(MaskablePPO, venv, FOR_DISCRETE[MaskablePPO]).learn(32)
    buffer = model.rollout_buffer
    actions = buffer.actions.reshape(-1).astype(int)
    masks = buffer.action_masks.reshape(len(actions), -1)
    assert (masks[np.arange(len(actions)), actions] == 1).all()
    if env_id == SMALL:
        assert (masks == 0).any()


@pytest.mark.parametrize("make", [str, gym.make], ids=["an id", "a single env"])
def test_agents_make_vec_envs_of_their_own(make):
    model = made(A2C, make(SMALL), EITHER[A2C]).learn(16)
    (task,) = model.env.env_method("sample_tasks", 1, seed=0)[0]
    model.env.env_method("set_task", task)
    model.env.reset()
    assert model.env.env_method("get_task") == [task]


# Locomotion: time limits are bootstrapped, falls are not


class Notebook(VecEnvWrapper):
    """Keeps what every call of the env returned, before SB3 adds to the rewards in place."""

    def __init__(self, venv):
        super().__init__(venv)
        self.resets, self.steps = [], []

    def reset(self):
        self.resets.append(self.venv.reset())
        return self.resets[-1]

    def step_wait(self):
        step = self.venv.step_wait()
        self.steps.append(copy.deepcopy(step))
        return step


LOCOMOTION = {
    # Never falls.
    "metarl/HalfCheetahVel-v0": {"horizon": 5},
    # Falls before and after its limit.
    "metarl/HopperRandParams-v0": {"horizon": 20},
    # Torques up to 0.4.
    "metarl/HumanoidDir-v0": {"horizon": 5},
}
every_body = pytest.mark.parametrize("env_id", LOCOMOTION)


def noted(env_id):
    return Notebook(make_task_vec_env(env_id, n_envs=2, env_kwargs=LOCOMOTION[env_id], seed=0))


def ends_of(env_id, steps):
    """Who was cut and who fell, (T, B) each, which is what the body should do."""
    cut = np.array([[info["TimeLimit.truncated"] for info in step[3]] for step in steps])
    done = np.array([step[2] for step in steps])
    assert cut.any() and (done & ~cut).any() == ("Hopper" in env_id)
    return cut, done


@every_body
@pytest.mark.parametrize("agent", [PPO, TRPO])
def test_on_policy_agents_value_what_follows_a_time_limit(agent, env_id):
    venv = noted(env_id)
    arguments = {**EITHER[agent], "n_steps": 40, "gamma": 0.9}

    class Compared(BaseCallback):
        n_rollouts = 0

        def _on_step(self):
            return True

        def _on_rollout_end(self):
            steps = venv.steps[-40:]
            cut, _ = ends_of(env_id, steps)
            expected = np.array([step[1] for step in steps])
            for t, i in np.argwhere(cut):
                last = steps[t][3][i]["terminal_observation"]
                seen = self.model.policy.obs_to_tensor(last)[0]
                expected[t, i] += 0.9 * self.model.policy.predict_values(seen).item()
            rewards = self.model.rollout_buffer.rewards
            assert np.allclose(rewards, expected, rtol=1e-5, atol=1e-6)  # float32
            self.n_rollouts += 1

    compared = Compared()
    model = made(agent, venv, arguments).learn(160, callback=compared)
    assert compared.n_rollouts == 2
    assert model.action_space == gym.make(env_id).action_space


@every_body
@pytest.mark.parametrize("agent", [SAC, TD3])
def test_replay_buffers_keep_last_observations_and_know_time_limits(agent, env_id):
    venv = noted(env_id)
    arguments = {**OFF_POLICY, "buffer_size": 1000}
    buffer = made(agent, venv, arguments).learn(160).replay_buffer
    cut, done = ends_of(env_id, venv.steps)
    n_steps = len(venv.steps)
    assert np.array_equal(buffer.dones[:n_steps], done)
    assert np.array_equal(buffer.timeouts[:n_steps], cut)
    shown = np.array([venv.resets[0], *(step[0] for step in venv.steps)])
    assert np.array_equal(buffer.observations[:n_steps], shown[:-1])
    for t, (observations, rewards, dones, infos) in enumerate(venv.steps):
        assert np.array_equal(buffer.rewards[t], rewards)
        for i, info in enumerate(infos):
            follows = info["terminal_observation"] if dones[i] else observations[i]
            assert np.array_equal(buffer.next_observations[t, i], follows)
            if dones[i]:
                # The first one of the next episode is another one.
                assert not np.array_equal(observations[i], follows)
    assert np.abs(buffer.actions[:n_steps]).max() <= 1


@pytest.mark.parametrize("agent", [PPO, TRPO, SAC, TD3])
def test_agents_learn_directions_of_the_ant_and_are_evaluated(agent):
    venv = make_task_vec_env("metarl/AntDir-v0", 2, env_kwargs={"horizon": 5}, seed=0)
    model = made(agent, venv, FOR_CONTINUOUS[agent]).learn(32)
    returns, lengths = evaluate_policy(model, venv, 4, return_episode_rewards=True)
    assert np.isfinite(returns).all() and lengths == [5] * 4
    assert venv.observation_space.shape == (27,) and venv.action_space.shape == (8,)


# Wrappers of SB3 around vector envs


VEC_WRAPPERS = {
    "VecNormalize": VecNormalize,
    "VecMonitor": VecMonitor,
    "VecFrameStack": partial(VecFrameStack, n_stack=3),
    "VecCheckNan": partial(VecCheckNan, raise_exception=True),
    # VecNormalize comes last: SB3's replay buffers store what it was given.
    "all": lambda venv: VecNormalize(
        VecFrameStack(VecCheckNan(VecMonitor(venv), raise_exception=True), n_stack=2)
    ),
}


@pytest.mark.parametrize("wrap", VEC_WRAPPERS.values(), ids=VEC_WRAPPERS.keys())
@pytest.mark.parametrize("env_id", CONTINUOUS)
def test_tasks_reach_through_the_vec_wrappers_of_sb3(env_id, wrap):
    bare, venv = (make_task_vec_env(env_id, 2, monitor=False) for _ in range(2))
    venv = wrap(venv)
    first, second = venv.env_method("sample_tasks", 2, seed=3)[0]
    for each in (bare, venv):
        each.env_method("set_task", first, indices=0)
        each.env_method("set_task", second, indices=1)
        each.seed(0)
        each.reset()
    assert venv.env_method("get_task") == [first, second]
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 2, *bare.action_space.shape)):
        _, rewards, dones, _ = bare.step(action)
        _, seen, seen_dones, infos = venv.step(action)
        if isinstance(venv, VecNormalize):
            seen = venv.get_original_reward()
        assert np.array_equal(seen, rewards)
        assert np.array_equal(seen_dones, dones)
        assert [info["task_id"] for info in infos] == [task_id(first), task_id(second)]


@pytest.mark.parametrize("wrap", VEC_WRAPPERS.values(), ids=VEC_WRAPPERS.keys())
@pytest.mark.parametrize("agent", [PPO, SAC])
def test_agents_learn_in_the_vec_wrappers_of_sb3(agent, wrap):
    venv = wrap(make_task_vec_env(LINEAR_QUADRATIC, 2, seed=0, monitor=False))
    model = made(agent, venv, FOR_CONTINUOUS[agent]).learn(48)
    assert model.num_timesteps >= 48


# Callbacks


@pytest.mark.parametrize("is_single", [False, True], ids=["batched", "single"])
def test_callbacks_of_sb3_evaluate_and_checkpoint(tmp_path, is_single):
    venv = VecNormalize(make_task_vec_env(LINEAR_QUADRATIC, 2, seed=0))
    tasks = venv.env_method("sample_tasks", 2, seed=1, split="test")[0]
    if is_single:
        held_out = DummyVecEnv([lambda: Monitor(gym.make(LINEAR_QUADRATIC))] * 2)
    else:
        held_out = make_task_vec_env(LINEAR_QUADRATIC, 2, seed=1)
    for i, task in enumerate(tasks):
        held_out.env_method("set_task", task, indices=i)
    evaluation = EvalCallback(
        VecNormalize(held_out, training=False),
        n_eval_episodes=2,
        eval_freq=10,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        verbose=0,
    )
    checkpoint = CheckpointCallback(
        10, str(tmp_path), "check", save_replay_buffer=True, save_vecnormalize=True
    )
    made(SAC, venv, OFF_POLICY).learn(40, callback=[evaluation, checkpoint])
    assert held_out.env_method("get_task") == tasks
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 2)
    loaded = SAC.load(tmp_path / "check_40_steps", env=venv, device="cpu")
    loaded.load_replay_buffer(tmp_path / "check_replay_buffer_40_steps")
    assert loaded.replay_buffer.size() > 10
    assert VecNormalize.load(tmp_path / "check_vecnormalize_40_steps.pkl", held_out).num_envs == 2
    assert SAC.load(tmp_path / "best_model", device="cpu").num_timesteps in (20, 40)


# Wrappers of Gymnasium around single envs


def doubled(observation):
    return 2 * observation


def transformed(env):
    return gym_wrappers.TransformObservation(env, doubled, env.observation_space)


def negated(reward):
    return -reward


STACKS = {
    "TimeLimit": partial(gym_wrappers.TimeLimit, max_episode_steps=2),
    "RecordEpisodeStatistics": gym_wrappers.RecordEpisodeStatistics,
    "TransformObservation": transformed,
    "FlattenObservation": gym_wrappers.FlattenObservation,
    "NormalizeObservation": gym_wrappers.NormalizeObservation,
    "OrderEnforcing": gym_wrappers.OrderEnforcing,
    "TimeAwareObservation": lambda env: gym_wrappers.TimeAwareObservation(
        gym_wrappers.TimeLimit(env, 3)
    ),
    "TransformReward": lambda env: gym_wrappers.TransformReward(env, negated),
    "Monitor": Monitor,
}
CONTINUOUS_STACKS = {
    **STACKS,
    "RescaleAction": lambda env: gym_wrappers.RescaleAction(env, -2.0, 2.0),
    "ClipAction": gym_wrappers.ClipAction,
}


def stacked(names, env_id):
    env = gym.make(env_id)
    for name in names:
        env = CONTINUOUS_STACKS[name](env)
    return env


def cases():
    found = []
    for env_id, stacks in ((SMALL, STACKS), (LINEAR_QUADRATIC, CONTINUOUS_STACKS)):
        flat = ["FlattenObservation"]
        orders = [[name] if name in flat else [*flat, name] for name in stacks]
        everything = [*flat, *(name for name in stacks if name not in flat)]
        for names in (*orders, everything):
            label = "all" if names == everything else names[-1]
            found.append(pytest.param(names, env_id, id=f"{label}-{env_id.split('/')[1]}"))
    return found


def played_as(env, task, actions):
    """Rewards of episodes that each are given their task, to compare with a pinned one."""
    env.reset(seed=0, options={"task": task})
    rewards = []
    for action in actions:
        _, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            env.reset(options={"task": task})
    return np.array(rewards)


def random_actions(env, n):
    env.action_space.seed(0)
    return [env.action_space.sample() for _ in range(n)]


@pytest.mark.parametrize(("names", "env_id"), cases())
def test_the_task_interface_reaches_through_the_wrappers_of_gymnasium(names, env_id):
    env, other = stacked(names, env_id), stacked(names, env_id)
    tasks = env.get_wrapper_attr("sample_tasks")(2, seed=7)
    assert tasks == gym.make(env_id).unwrapped.sample_tasks(2, seed=7)
    env.get_wrapper_attr("set_task")(tasks[0])
    actions, rewards = random_actions(env, 12), []
    _, info = env.reset(seed=0)
    assert info["task"] == tasks[0]
    for action in actions:
        assert env.get_wrapper_attr("get_task")() == tasks[0]
        _, reward, terminated, truncated, info = env.step(action)
        assert info["task_id"] == task_id(tasks[0])
        rewards.append(reward)
        if terminated or truncated:
            env.reset()
    assert np.array_equal(rewards, played_as(other, tasks[0], actions))
    assert not np.array_equal(rewards, played_as(other, tasks[1], actions))
    env.get_wrapper_attr("set_task")(None)
    _, info = env.reset()
    assert info["task"] not in tasks


def reached(venv, env_id, n_steps=8):
    """Infos of steps in two sub-environments that are pinned, each to its own task."""
    tasks = venv.env_method("sample_tasks", 2, seed=7)[0]
    assert tasks == gym.make(env_id).unwrapped.sample_tasks(2, seed=7)
    for i, task in enumerate(tasks):
        venv.env_method("set_task", task, indices=i)
    venv.seed(0)
    venv.reset()
    assert venv.env_method("get_task") == tasks
    actions, steps = random_actions(gym.make(env_id), 2 * n_steps), []
    for pair in zip(actions[::2], actions[1::2], strict=True):
        _, rewards, _, infos = venv.step(np.array(pair))
        assert [info["task_id"] for info in infos] == [task_id(task) for task in tasks]
        steps.append(rewards)
    assert venv.env_method("get_task", indices=1) == tasks[1:]
    venv.env_method("set_task", None)
    venv.reset()
    assert not set(venv.env_method("get_task")) & set(tasks)
    venv.close()
    # SubprocVecEnv alone hands rewards on in float64.
    return np.array(steps, dtype=np.float32)


@pytest.mark.parametrize(("names", "env_id"), cases())
def test_env_method_reaches_through_the_wrappers_in_vec_envs(names, env_id):
    made_env = partial(stacked, names, env_id)
    dummy = reached(DummyVecEnv([made_env] * 2), env_id)
    same_step = gym.vector.AutoresetMode.SAME_STEP
    synced = TaskVecEnv(gym.vector.SyncVectorEnv([made_env] * 2, autoreset_mode=same_step))
    assert np.array_equal(reached(synced, env_id), dummy)


def test_env_method_reaches_through_the_wrappers_in_other_processes():
    names, env_id = cases()[-1].values
    made_env = partial(stacked, names, env_id)
    elsewhere = reached(SubprocVecEnv([made_env] * 2, start_method="fork"), env_id)
    assert np.array_equal(elsewhere, reached(DummyVecEnv([made_env] * 2), env_id))


VECTOR_STACKS = {
    "RecordEpisodeStatistics": gym_wrappers.vector.RecordEpisodeStatistics,
    "TransformReward": lambda env: gym_wrappers.vector.TransformReward(env, negated),
    "ClipAction": gym_wrappers.vector.ClipAction,
    "all": lambda env: gym_wrappers.vector.ClipAction(
        gym_wrappers.vector.TransformReward(
            gym_wrappers.vector.RecordEpisodeStatistics(env), np.abs
        )
    ),
}


@pytest.mark.parametrize("wrap", VECTOR_STACKS.values(), ids=VECTOR_STACKS.keys())
def test_env_method_reaches_through_the_vector_wrappers_of_gymnasium(wrap):
    batched = gym.make_vec(LINEAR_QUADRATIC, 2, vectorization_mode="vector_entry_point")
    bare = reached(make_task_vec_env(LINEAR_QUADRATIC, 2), LINEAR_QUADRATIC, n_steps=12)
    wrapped = reached(TaskVecEnv(wrap(batched)), LINEAR_QUADRATIC, n_steps=12)
    assert np.array_equal(np.abs(wrapped), np.abs(bare))


def test_episode_statistics_of_gymnasium_reach_the_agent():
    batched = gym.make_vec(SMALL, 2, vectorization_mode="vector_entry_point")
    recorded = gym_wrappers.vector.RecordEpisodeStatistics(batched)
    venv = TaskVecEnv(recorded, monitor=False)
    model = made(A2C, venv, EITHER[A2C]).learn(48)
    assert [episode["l"] for episode in model.ep_info_buffer] == [3] * 16
    assert [episode["r"] for episode in model.ep_info_buffer] == list(recorded.return_queue)
    assert not any("episode" in info for info in venv.reset_infos)
