"""SB3's agents as learners: frozen, fine-tuned and from scratch."""

import warnings
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import MaskablePPO
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import metarl_envs  # noqa: F401
from metarl_agents.common.evaluation import FineTuned, FromScratch, Frozen, evaluate_adaptation
from metarl_agents.common.evaluation.interaction import TrainingEnv, TrainingOverError
from metarl_agents.common.evaluation.sb3_policies import SB3Policies
from metarl_agents.common.evaluation.settings import Settings
from metarl_agents.common.evaluation.streams import task_streams
from metarl_agents.common.vec_env import make_task_vec_env

ENV = "metarl/RecommendationSmall-v0"  # episodes of 3 steps, 6 actions
ON_POLICY = {"n_steps": 6, "batch_size": 6, "n_epochs": 2}
SETTINGS = {
    "PPO": (PPO, ON_POLICY),
    "A2C": (A2C, {"n_steps": 6}),
    "DQN": (DQN, {"learning_starts": 6, "train_freq": 4, "buffer_size": 1000}),
    "MaskablePPO": (MaskablePPO, ON_POLICY),
}


def small():
    return {"net_arch": [8]}


@pytest.fixture(scope="module")
def tasks():
    return gym.make(ENV).get_wrapper_attr("sample_tasks")(4, seed=3, split="test")


@pytest.fixture(scope="module")
def models():
    """One briefly trained multi-task agent per algorithm."""
    trained = {}
    for name, (cls, kwargs) in SETTINGS.items():
        model = cls(
            "MlpPolicy",
            make_task_vec_env(ENV),
            seed=0,
            device="cpu",
            policy_kwargs=small(),
            **kwargs,
        )
        trained[name] = model.learn(60)
    return trained


def parameters(model):
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(th.equal(left[key], right[key]) for key in left)


def from_scratch(name, n_steps=None):
    cls, kwargs = SETTINGS[name]
    return FromScratch(
        cls,
        n_steps,
        policy="MlpPolicy",
        device="cpu",
        policy_kwargs=small(),
        model_kwargs=kwargs,
    )


@dataclass(frozen=True)
class Goal:
    sign: float

    def to_array(self):
        return np.array([self.sign])


class Walk(gym.Env):
    """Episodes of 1 to 9 steps, ended by a coin; the reward is the action times the sign."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    task = None

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def sample_tasks(self, n, *, seed=None, split="train"):
        return [Goal(1.0 - 2.0 * (i % 2)) for i in range(n)]

    def set_task(self, task):
        self.task = task

    def get_task(self):
        return self.task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        ended = bool(self.np_random.random() < 0.3)
        return np.zeros(1, np.float32), self.task.sign * float(action[0]), ended, False, {}


gym.register("test/Walk-v0", entry_point=Walk, max_episode_steps=9)
gym.register("test/EndlessWalk-v0", entry_point=Walk)


class Stubborn:
    """Acts by itself, always the same way, and learns nothing."""

    interacts = True
    n_steps = None

    def start_in(self, env, *, seed):
        self.seeds = [*getattr(self, "seeds", []), seed]
        return env

    def train_in(self, env, n_steps):
        for _ in range(n_steps):
            env.reset(seed=123)
            done = False
            while not done:
                _, _, terminated, truncated, _ = env.step(0)
                done = terminated or truncated

    def policy_of(self, env, rng):
        return self

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=np.int64), None


# All four algorithms, all three learners.


@pytest.mark.parametrize("name", SETTINGS)
def test_frozen_models_are_scored_exactly(name, models, tasks):
    before = parameters(models[name])
    result = evaluate_adaptation(
        Frozen(models[name]), ENV, tasks, n_adapt_steps=2, n_eval_episodes=150
    )
    # Nothing adapts: one policy, one regret.
    np.testing.assert_allclose(result.regret[:, 1:], result.regret[:, :1].repeat(2, axis=1))
    means = result.returns.reshape(4, -1).mean(axis=1)
    error = result.returns.reshape(4, -1).std(axis=1) / np.sqrt(450)
    assert np.all(np.abs(means - (result.optimal_returns - result.regret[:, 0])) < 4 * error)
    assert same(before, parameters(models[name]))
    assert result.learner == f"Frozen({name})"


@pytest.mark.parametrize("n_eval_episodes", [None, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_fine_tuning_learns_in_a_copy(name, n_eval_episodes, models, tasks):
    model = models[name]
    before, steps, rng = parameters(model), model.num_timesteps, model.action_space.np_random
    play = dict(n_adapt_steps=6, n_eval_episodes=n_eval_episodes)
    learner = FineTuned(model, model_kwargs={"learning_rate": 0.1})
    result = evaluate_adaptation(learner, ENV, tasks[:2], **play)
    assert result.returns.shape == (2, 7, n_eval_episodes or 1)
    frozen = evaluate_adaptation(Frozen(model), ENV, tasks[:2], **play)
    # Zero-shot is the model itself, later it has moved.
    np.testing.assert_allclose(result.regret[:, 0], frozen.regret[:, 0], atol=1e-6)
    assert np.all(np.abs(result.regret[:, -1] - frozen.regret[:, -1]) > 1e-7)
    assert same(before, parameters(model)) and model.num_timesteps == steps
    assert model.action_space.np_random is rng and model.get_env() is not None


@pytest.mark.parametrize("n_eval_episodes", [None, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_training_afresh_is_deterministic_and_task_by_task(name, n_eval_episodes, tasks):
    learner = from_scratch(name)
    play = dict(n_adapt_steps=6, n_eval_episodes=n_eval_episodes)
    together = evaluate_adaptation(learner, ENV, tasks[:3], **play)
    alone = evaluate_adaptation(learner, ENV, [tasks[2]], **play)
    np.testing.assert_array_equal(alone.returns[0], together.returns[2])
    np.testing.assert_array_equal(alone.regret[0], together.regret[2])
    assert len(np.unique(together.regret[:, 0])) == 3  # fresh weights in every task
    assert not np.array_equal(together.regret[:, -1], together.regret[:, 0])
    other = evaluate_adaptation(learner, ENV, tasks[:3], seed=1, **play)
    assert not np.array_equal(other.regret, together.regret)


def test_frozen_maskable_models_never_repeat_a_product(models, tasks):
    play = dict(n_adapt_steps=0, n_eval_episodes=50)
    masked = evaluate_adaptation(Frozen(models["MaskablePPO"]), ENV, tasks, **play)
    assert masked.regret.min() > -1e-9
    seen = []
    policies = SB3Policies(models["MaskablePPO"], [np.random.default_rng(0)])
    venv = make_task_vec_env(ENV, seed=0)
    observation = venv.reset()
    for _ in range(300):
        action, _ = policies.in_env(venv).predict(observation)
        seen.append(observation[0, action[0]] == 1)  # 1: not shown yet
        observation, *_ = venv.step(action)
    assert all(seen)


def test_action_probabilities_are_those_that_sampling_shows(models):
    observations = np.ones((1, 6), dtype=np.int64)
    for name in SETTINGS:
        policies = SB3Policies(models[name], [np.random.default_rng(0)])
        (expected,) = policies.action_probabilities(observations)
        actions, _ = policies.predict(observations.repeat(4000, axis=0))
        observed = np.bincount(actions, minlength=6) / 4000
        error = np.sqrt(expected * (1 - expected) / 4000)
        assert np.all(np.abs(observed - expected) <= 4 * error)
        (greedy,) = policies.action_probabilities(observations, deterministic=True)
        assert (
            greedy.max() == 1.0
            and greedy.argmax() == models[name].predict(observations, deterministic=True)[0]
        )


def test_arguments_of_fresh_agents_stay_as_they_were(tasks):
    """SB3's A2C writes its optimiser into the policy_kwargs that it is given."""
    kwargs = small()
    learner = FromScratch(A2C, policy="MlpPolicy", device="cpu", policy_kwargs=kwargs)
    evaluate_adaptation(learner, ENV, tasks[:1], n_adapt_steps=1)
    assert kwargs == small() and learner.kwargs["policy_kwargs"] == small()


def test_sb3_policies_keep_sb3s_contract_for_single_observations(models):
    policies = SB3Policies(models["PPO"], [np.random.default_rng(0)])
    action, state = policies.predict(np.ones(6, dtype=np.int64))
    assert np.shape(action) == () and state is None


# Training in the task.


def test_training_episodes_meet_the_noise_that_other_learners_meet(tasks):
    stubborn = Stubborn()
    play = dict(n_adapt_steps=5, episodes_per_step=2)
    by_itself = evaluate_adaptation(stubborn, ENV, tasks, **play)
    collected = evaluate_adaptation(Frozen(stubborn), ENV, tasks, **play)
    np.testing.assert_array_equal(by_itself.returns, collected.returns)
    assert len(set(stubborn.seeds)) == len(tasks)
    extra = dict(n_adapt_steps=3, n_eval_episodes=4)
    by_itself = evaluate_adaptation(stubborn, ENV, tasks, **extra)
    collected = evaluate_adaptation(Frozen(stubborn), ENV, tasks, **extra)
    np.testing.assert_array_equal(by_itself.returns, collected.returns)


def test_rollouts_may_be_longer_than_adaptation_steps(tasks):
    kwargs = {"n_steps": 15, "batch_size": 15}
    learner = FromScratch(PPO, policy="MlpPolicy", device="cpu", model_kwargs=kwargs)
    result = evaluate_adaptation(learner, ENV, tasks[:1], n_adapt_steps=11)
    changes = np.flatnonzero(np.diff(result.regret[0])) + 1
    # 15 steps are 5 episodes: the policy of collections 5 and 10 is new.
    np.testing.assert_array_equal(changes, [5, 10])


def test_dqn_goes_on_cleanly_from_step_to_step(tasks):
    agents = []

    class Watched(FromScratch):
        def start_in(self, env, *, seed):
            agents.append(super().start_in(env, seed=seed))
            return agents[-1]

    learner = Watched(
        DQN,
        3,
        policy="MlpPolicy",
        device="cpu",
        learning_starts=6,
        train_freq=4,
        exploration_fraction=0.5,
        exploration_final_eps=0.1,
        buffer_size=500,
    )
    evaluate_adaptation(learner, ENV, tasks[:1], n_adapt_steps=9)
    (agent,) = agents
    assert agent.num_timesteps == agent.replay_buffer.pos == 30  # 10 collections of 3 steps
    assert agent._n_updates == 6  # after steps 8, 12, ..., 28
    # Exploration ends at half of the whole budget, not of each adaptation step.
    assert agent.exploration_schedule(1 - 14 / 30) > 0.1
    assert agent.exploration_rate == pytest.approx(0.1)
    # Every stored episode is whole: it begins at the empty state and ends after three steps.
    dones = agent.replay_buffer.dones[:30, 0]
    np.testing.assert_array_equal(np.flatnonzero(dones), np.arange(2, 30, 3))
    starts = agent.replay_buffer.observations[0:30:3, 0]
    np.testing.assert_array_equal(starts, np.ones((10, 6)))


def test_regret_of_dqn_counts_its_exploration(tasks):
    """Before learning starts DQN acts uniformly; the greedy policy is scored on extra episodes."""
    learner = from_scratch("DQN")
    uniform = np.full((1, 6), 1 / 6)
    env = gym.make(ENV).unwrapped
    stages = [np.repeat(uniform, len(env.stage_observations(h)), axis=0) for h in range(3)]
    expected = env.optimal_returns(tasks[:1]) - env.policy_returns(tasks[:1], stages)
    on_line = evaluate_adaptation(learner, ENV, tasks[:1], n_adapt_steps=3, deterministic=True)
    np.testing.assert_allclose(on_line.regret[0, 0], expected[0])
    greedy = evaluate_adaptation(
        learner, ENV, tasks[:1], n_adapt_steps=3, n_eval_episodes=1, deterministic=True
    )
    assert abs(greedy.regret[0, 0] - expected[0]) > 1e-3


def test_a_number_of_training_steps_needs_no_whole_episodes_when_extra_ones_are_scored(tasks):
    result = evaluate_adaptation(
        from_scratch("DQN", 10), ENV, tasks[:1], n_adapt_steps=3, n_eval_episodes=2
    )
    assert result.returns.shape == (1, 4, 2)


def test_training_stops_at_its_budget_and_reports_every_period(tasks):
    settings = Settings(
        n_adapt_steps=2, episodes_per_step=1, n_eval_episodes=5, deterministic=False, seed=0
    )
    env = TrainingEnv(gym.make(ENV), settings, n_steps=4)
    env.get_wrapper_attr("set_task")(tasks[0])
    periods = []
    episodes = []
    env.begin_task(task_streams(tasks[:1], 0)[0], periods.append, episodes.append)
    assert env.budget("x") == 8
    for step in range(8):
        if step % 3 == 0:
            env.reset()
        env.step(step % 3)
    assert periods == [0, 1]
    assert episodes == [0, 0, 1]  # the second begins after 3 steps, the third after 6
    with pytest.raises(TrainingOverError):
        env.step(2)


def test_learning_happens_within_a_task():
    """The best action of `Walk` is the sign of the task: A2C finds it in both tasks."""
    learner = FromScratch(
        A2C,
        100,
        policy="MlpPolicy",
        device="cpu",
        learning_rate=0.02,
        policy_kwargs=small(),
        model_kwargs={"n_steps": 20},
    )
    result = evaluate_adaptation(learner, "test/Walk-v0", 2, n_adapt_steps=6, n_eval_episodes=50)
    mean_rewards = result.returns.sum(-1) / result.lengths.sum(-1)
    assert np.all(mean_rewards[:, -1] > 0.5) and np.all(np.abs(mean_rewards[:, 0]) < 0.3)
    assert result.regret is None and result.optimal_returns is None


def test_episodes_of_varying_length_are_recorded_whole():
    learner = FromScratch(PPO, policy="MlpPolicy", device="cpu", model_kwargs=ON_POLICY)
    result = evaluate_adaptation(learner, "test/Walk-v0", 2, n_adapt_steps=4, episodes_per_step=3)
    assert result.returns.shape == (2, 5, 3)
    assert (
        result.lengths.min() >= 1
        and result.lengths.max() <= 9
        and len(np.unique(result.lengths)) > 2
    )


def test_continuous_actions_are_sampled_task_by_task():
    model = SAC(
        "MlpPolicy", "test/Walk-v0", seed=0, device="cpu", policy_kwargs=small(), buffer_size=10
    )
    goals = [Goal(1.0), Goal(-1.0), Goal(0.5)]
    together = evaluate_adaptation(Frozen(model), "test/Walk-v0", goals, n_adapt_steps=2)
    alone = evaluate_adaptation(Frozen(model), "test/Walk-v0", goals[2:], n_adapt_steps=2)
    np.testing.assert_allclose(alone.returns[0], together.returns[2], rtol=1e-6)


def test_normalised_models_see_what_they_were_trained_on():
    venv = VecNormalize(DummyVecEnv([lambda: Monitor(gym.make("test/Walk-v0"))]))
    venv.env_method("set_task", Goal(1.0))
    model = PPO("MlpPolicy", venv, device="cpu", policy_kwargs=small(), **ON_POLICY).learn(12)
    venv.obs_rms.mean[:] = 5.0
    count = venv.obs_rms.count
    policies = SB3Policies(model, [np.random.default_rng(0)])
    action, _ = policies.predict(np.zeros((1, 1), np.float32), deterministic=True)
    shown = venv.normalize_obs(np.zeros((1, 1), np.float32))
    assert action == model.predict(shown, deterministic=True)[0]
    evaluate_adaptation(FineTuned(model), "test/Walk-v0", [Goal(1.0)], n_adapt_steps=3)
    assert venv.obs_rms.count == count and model.get_vec_normalize_env() is venv


def test_a_single_env_serves_for_training_too(tasks):
    env = gym.make(ENV)
    for play in (dict(), dict(n_eval_episodes=2)):
        one = evaluate_adaptation(from_scratch("DQN"), env, tasks[:1], n_adapt_steps=3, **play)
        other = evaluate_adaptation(from_scratch("DQN"), ENV, tasks[:1], n_adapt_steps=3, **play)
        np.testing.assert_array_equal(one.returns, other.returns)
    venv = make_task_vec_env(ENV, 2)
    again = evaluate_adaptation(from_scratch("DQN"), venv, tasks[:1], n_adapt_steps=3, **play)
    np.testing.assert_array_equal(again.returns, other.returns)


class Richer(gym.RewardWrapper):
    def reward(self, reward):
        return reward + 100.0


class RicherBatch(gym.vector.VectorRewardWrapper):
    def rewards(self, reward):
        return reward + 100.0


@pytest.mark.parametrize("kind", ["dummy vec env", "sync vector env", "spec"])
@pytest.mark.parametrize("n_eval_episodes", [None, 2])
def test_training_happens_in_the_wrapped_env_that_other_learners_meet(kind, n_eval_episodes, tasks):
    env = {
        "dummy vec env": lambda: DummyVecEnv([lambda: Monitor(Richer(gym.make(ENV)))] * 2),
        "sync vector env": lambda: gym.make_vec(
            ENV,
            2,
            vectorization_mode="sync",
            wrappers=[Richer],
            vector_kwargs={"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP},
        ),
        "spec": lambda: gym.wrappers.TransformReward(gym.make(ENV), lambda r: r + 100.0).spec,
    }[kind]()
    stubborn = Stubborn()
    play = dict(n_adapt_steps=2, n_eval_episodes=n_eval_episodes)
    by_itself = evaluate_adaptation(stubborn, env, tasks[:2], **play)
    collected = evaluate_adaptation(Frozen(stubborn), env, tasks[:2], **play)
    assert by_itself.returns.min() >= 300.0
    np.testing.assert_array_equal(by_itself.returns, collected.returns)


@pytest.mark.parametrize("kind", ["batch", "vec normalize"])
def test_wrappers_around_a_whole_vector_env_are_refused_for_training_in_it(kind, tasks):
    env = RicherBatch(gym.make_vec(ENV, 2, vectorization_mode="vector_entry_point"))
    name, tasks = "RicherBatch", tasks[:1]
    if kind == "vec normalize":
        env = VecNormalize(DummyVecEnv([lambda: gym.make("test/Walk-v0")]))
        name, tasks = "VecNormalize", [Goal(1.0)]
    with pytest.raises(ValueError, match=f"{name} is around a whole vector env"):
        evaluate_adaptation(Stubborn(), env, tasks, n_adapt_steps=1)


def test_a_spec_with_wrappers_that_cannot_be_made_again_is_refused(tasks):
    spec = Monitor(Richer(gym.make(ENV))).spec
    with pytest.raises(ValueError, match=r"wrappers \['Richer'\] that cannot be made again"):
        evaluate_adaptation(Stubborn(), spec, tasks[:1], n_adapt_steps=1)
    harmless = Monitor(gym.make(ENV)).spec
    evaluate_adaptation(Stubborn(), harmless, tasks[:1], n_adapt_steps=1, n_eval_episodes=1)


def test_total_regret_of_training_is_that_of_every_episode_however_they_are_grouped(tasks):
    learner = from_scratch("DQN")
    one_by_one = evaluate_adaptation(learner, ENV, tasks[:2], n_adapt_steps=11)
    grouped = evaluate_adaptation(learner, ENV, tasks[:2], n_adapt_steps=1, episodes_per_step=6)
    assert one_by_one.adaptation_regret.shape == (2, 12)
    np.testing.assert_array_equal(one_by_one.adaptation_regret, one_by_one.regret)
    played = recorded_regret(learner, tasks[0], n_adapt_steps=1, episodes_per_step=6)
    np.testing.assert_allclose(grouped.total_regret[0], sum(played))
    assert len(set(played)) > 1
    assert not np.isclose(grouped.total_regret[0], 6 * grouped.regret[0].sum())


def recorded_regret(learner, task, **play):
    """Exact regret at the start of every training episode, asked of the agent independently."""
    env, regrets = gym.make(ENV).unwrapped, []

    class Watched(gym.Wrapper):
        transparent = True

        def step(self, action):
            stage = self.env.get_wrapper_attr("stages")(self.last)
            if stage == 0:
                policy = SB3Policies(agents[-1], [np.random.default_rng(0)])
                rows = [policy.action_probabilities(env.stage_observations(h)) for h in range(3)]
                regrets.append(env.optimal_return(task) - env.policy_returns([task], rows)[0])
            self.last, *rest = self.env.step(action)
            return self.last, *rest

        def reset(self, **kwargs):
            self.last, info = self.env.reset(**kwargs)
            return self.last, info

    agents, start_in = [], learner.start_in
    learner.start_in = lambda env, *, seed: agents.append(start_in(env, seed=seed)) or agents[-1]
    evaluate_adaptation(learner, Watched(gym.make(ENV)), [task], **play)
    return regrets


def test_total_regret_counts_the_training_episodes_also_where_extra_ones_are_scored(tasks):
    play = dict(n_adapt_steps=6, episodes_per_step=2)
    learner = from_scratch("DQN")
    extra = evaluate_adaptation(
        learner, ENV, tasks[:2], n_eval_episodes=1, deterministic=True, **play
    )
    sampled = evaluate_adaptation(learner, ENV, tasks[:2], n_eval_episodes=1, **play)
    assert extra.adaptation_regret.shape == (2, 6)
    np.testing.assert_array_equal(extra.adaptation_regret, sampled.adaptation_regret)
    assert not np.allclose(extra.total_regret, 2 * extra.regret[:, :-1].sum(axis=1))


class Thirds(gym.RewardWrapper):
    """Rewards that float32 does not hold exactly."""

    def reward(self, reward):
        return float(reward) + 1.0 / 3.0


def test_returns_of_all_learners_are_rounded_alike(tasks):
    stubborn, env = Stubborn(), Thirds(gym.make(ENV))
    by_itself = evaluate_adaptation(stubborn, env, tasks, n_adapt_steps=2)
    collected = evaluate_adaptation(Frozen(stubborn), env, tasks, n_adapt_steps=2)
    np.testing.assert_array_equal(by_itself.returns, collected.returns)


@pytest.mark.parametrize("make", [Frozen, FineTuned])
def test_masks_of_the_current_state_alone_allow_no_regret(make, tasks):
    def masked():
        return ActionMasker(gym.make(ENV), lambda env: np.ones(6, dtype=bool))

    model = MaskablePPO("MlpPolicy", masked(), device="cpu", seed=0, **ON_POLICY)
    assert evaluate_adaptation(make(model), masked(), tasks[:1], n_adapt_steps=2).regret is None


def test_an_env_whose_masks_take_no_observations_allows_no_regret(models, tasks):
    class Masked(gym.Wrapper):
        transparent = True

        def action_masks(self):
            return np.ones(6, dtype=bool)

    learner, env = Frozen(models["MaskablePPO"]), Masked(gym.make(ENV))
    assert evaluate_adaptation(learner, env, tasks[:1], n_adapt_steps=0).regret is None
    with pytest.raises(ValueError, match=r"action_masks\(observations\)"):
        evaluate_adaptation(learner, env, tasks[:1], n_adapt_steps=0, exact_regret=True)


# Bad input.


def test_training_steps_that_do_not_fit_the_scored_episodes_are_refused(tasks):
    message = r"n_steps=4, but the 1 episode\(s\) .* have 3 steps; use n_steps=None"
    with pytest.raises(ValueError, match=message):
        evaluate_adaptation(from_scratch("DQN", 4), ENV, tasks, n_adapt_steps=1)
    with pytest.raises(ValueError, match="varying number of steps"):
        evaluate_adaptation(from_scratch("PPO", 9), "test/Walk-v0", 1, n_adapt_steps=1)
    with pytest.raises(ValueError, match="max_episode_steps"):
        evaluate_adaptation(from_scratch("PPO"), "test/EndlessWalk-v0", 1, n_adapt_steps=1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m: Frozen(3), TypeError, "model=3 has no predict"),
        (lambda m: FineTuned(object()), TypeError, "no SB3 model"),
        (lambda m: FineTuned(m, 0), ValueError, "n_steps=0 must be a positive number"),
        (lambda m: FineTuned(m, model_kwargs={"lr": 1}), ValueError, "lr"),
        (lambda m: FromScratch(m, policy="MlpPolicy"), TypeError, "no SB3 algorithm class"),
        (lambda m: FromScratch(PPO), ValueError, "policy is missing"),
        (lambda m: FromScratch(PPO, 2.5, policy="MlpPolicy"), ValueError, "n_steps=2.5"),
        (lambda m: FromScratch(PPO, policy="MlpPolicy", seed=1), ValueError, r"\['seed'\]"),
    ],
)
def test_wrong_arguments_are_refused(make, error, message, models):
    with pytest.raises(error, match=message):
        make(models["PPO"])


def test_a_rollout_longer_than_the_evaluation_is_warned_of(tasks):
    learner = FromScratch(PPO, policy="MlpPolicy", device="cpu")
    with pytest.warns(UserWarning, match="n_steps=2048 never updates within the 6 env steps"):
        evaluate_adaptation(learner, ENV, tasks[:1], n_adapt_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_adaptation(from_scratch("PPO"), ENV, tasks[:1], n_adapt_steps=3)


def test_an_agent_that_stops_training_early_is_reported(tasks):
    class Lazy(Stubborn):
        def train_in(self, env, n_steps):
            env.reset()
            env.step(0)

    with pytest.raises(ValueError, match="Lazy stopped training after 1 of 9"):
        evaluate_adaptation(Lazy(), ENV, tasks[:1], n_adapt_steps=2)
