"""The evaluation protocol: what is scored, what it depends on, and exact regret."""

import random

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecMonitor,
    VecNormalize,
)

import metarl_envs  # noqa: F401
from metarl_agents import RLSVI
from metarl_agents.common.evaluation import Frozen, evaluate_adaptation
from metarl_agents.common.evaluation.streams import Purpose, scoped_global_rng, task_streams
from metarl_agents.common.evaluation.transparency import opaque_wrapper
from metarl_agents.common.vec_env import TaskVecEnv, make_task_vec_env
from metarl_envs.core import task_id

ENV = "metarl/RecommendationSmall-v0"


@pytest.fixture(scope="module")
def tasks():
    return gym.make(ENV).get_wrapper_attr("sample_tasks")(7, seed=3, split="test")


@pytest.fixture(scope="module")
def agent():
    return RLSVI("LinearQPolicy", ENV, seed=0, device="cpu")


class FirstProduct:
    """Always the same action; stands for any SB3 `PolicyPredictor`."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=np.int64), None


class GlobalRandom(FirstProduct):
    """Acts at random from NumPy's and torch's global generators."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions = np.random.randint(3, size=len(observation)) + int(th.randint(3, ()))
        return actions + random.randrange(2), None


class Uniform(FirstProduct):
    """Acts uniformly, and says so."""

    def __init__(self, rng):
        self.rng = rng

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.rng.integers(6, size=len(observation)), None

    def action_probabilities(self, observations, stage=None, deterministic=False):
        return np.full((len(observations), 6), 1 / 6)


class Recorder:
    """A learner with the two verbs alone, which remembers what it was given."""

    def __init__(self, policy=None):
        self.policy = policy or FirstProduct()
        self.batches = []

    def initial_policy(self, *, rng=None):
        return self.policy

    def adapt(self, policy, episodes, *, rng):
        assert policy is self.policy
        self.batches.append(episodes)
        return policy


class UniformLearner(Recorder):
    def initial_policy(self, *, rng=None):
        return Uniform(rng)

    def adapt(self, policy, episodes, *, rng):
        return Uniform(rng)


class TwoVerbs:
    """A batched learner without its batched methods."""

    def __init__(self, agent):
        self.agent = agent

    def initial_policy(self, *, rng=None):
        return self.agent.initial_policy(rng=rng)

    def adapt(self, policy, episodes, *, rng):
        return self.agent.adapt(policy, episodes, rng=rng)


class Pinned(gym.Wrapper):
    """Tells its pin."""

    pinned_task = None

    def set_task(self, task):
        self.pinned_task = task
        self.env.get_wrapper_attr("set_task")(task)


# What is scored.


def test_adaptation_episodes_are_the_scored_ones(tasks):
    learner = Recorder()
    result = evaluate_adaptation(learner, ENV, tasks[:2], n_adapt_steps=3, episodes_per_step=2)
    assert result.returns.shape == (2, 4, 2) and result.n_tasks == 2 and result.n_adapt_steps == 3
    assert len(learner.batches) == 2 * 3  # the last collection is not adapted to
    for step in range(3):
        for task in range(2):
            batch = learner.batches[2 * step + task]
            assert batch.rewards.shape[0] == 2
            np.testing.assert_array_equal(result.returns[task, step], batch.returns)
    np.testing.assert_array_equal(result.lengths, 3)


def test_extra_episodes_are_scored_and_not_adapted_to(tasks, agent):
    on_line = evaluate_adaptation(agent, ENV, tasks, n_adapt_steps=4)
    extra = evaluate_adaptation(agent, ENV, tasks, n_adapt_steps=4, n_eval_episodes=5)
    assert extra.returns.shape == (7, 5, 5)
    # The policies are the same ones, so their exact regret is.
    np.testing.assert_array_equal(extra.regret, on_line.regret)
    assert not np.array_equal(extra.returns[..., :1], on_line.returns)


def test_zero_adaptations_score_the_initial_policy(tasks):
    learner = Recorder()
    result = evaluate_adaptation(learner, ENV, tasks[:2], n_adapt_steps=0, n_eval_episodes=4)
    assert result.returns.shape == (2, 1, 4) and not learner.batches


def test_a_number_of_tasks_draws_from_the_test_stream(agent):
    env = gym.make(ENV)
    held_out = env.get_wrapper_attr("sample_tasks")(3, seed=5, split="test")
    training = env.get_wrapper_attr("sample_tasks")(3, seed=5, split="train")
    result = evaluate_adaptation(agent, ENV, 3, n_adapt_steps=1, seed=5)
    assert result.task_ids.tolist() == [task_id(task) for task in held_out]
    assert not set(result.task_ids.tolist()) & {task_id(task) for task in training}
    np.testing.assert_array_equal(result.tasks, [task.to_array() for task in held_out])


def test_the_result_says_how_it_was_made(tasks, agent):
    result = evaluate_adaptation(agent, ENV, tasks[:1], n_adapt_steps=1, seed=9, deterministic=True)
    assert (result.learner, result.env_id, result.seed) == ("RLSVI", ENV, 9)
    assert result.settings["deterministic"] is True and result.settings["n_adapt_steps"] == 1
    numpy_integers = evaluate_adaptation(
        agent, ENV, tasks[:1], n_adapt_steps=np.int64(1), seed=np.int64(9), deterministic=np.True_
    )
    assert numpy_integers.to_json() == result.to_json()
    assert {"python", "numpy", "torch", "gymnasium"} <= set(result.versions)


# What a result depends on.


@pytest.mark.parametrize("learner", ["batched", "looped", "global random"])
def test_a_tasks_result_does_not_depend_on_the_other_tasks(tasks, agent, learner):
    chosen = {
        "batched": agent,
        "looped": TwoVerbs(agent),
        "global random": Recorder(GlobalRandom()),
    }
    play = dict(n_adapt_steps=3, episodes_per_step=2)
    together = evaluate_adaptation(chosen[learner], ENV, tasks, **play)
    alone = evaluate_adaptation(chosen[learner], ENV, [tasks[4]], **play)
    reverse = evaluate_adaptation(chosen[learner], ENV, tasks[::-1], n_envs=3, **play)
    np.testing.assert_array_equal(alone.returns[0], together.returns[4])
    np.testing.assert_array_equal(reverse.returns[::-1], together.returns)
    if together.regret is not None:
        np.testing.assert_allclose(reverse.regret[::-1], together.regret, rtol=0, atol=1e-12)


def test_learners_are_scored_alike_batched_or_looped(tasks, agent):
    batched = evaluate_adaptation(agent, ENV, tasks, n_adapt_steps=5)
    looped = evaluate_adaptation(TwoVerbs(agent), ENV, tasks, n_adapt_steps=5)
    np.testing.assert_array_equal(looped.returns, batched.returns)
    np.testing.assert_allclose(looped.regret, batched.regret, rtol=0, atol=1e-12)


def test_every_learner_meets_the_same_noise(tasks):
    one = evaluate_adaptation(Recorder(), ENV, tasks, n_adapt_steps=4, n_eval_episodes=3)
    other = evaluate_adaptation(
        Frozen(FirstProduct()), ENV, tasks, n_adapt_steps=4, n_eval_episodes=3
    )
    np.testing.assert_array_equal(one.returns, other.returns)


def test_equal_tasks_meet_different_noise(tasks):
    result = evaluate_adaptation(Recorder(), ENV, [tasks[0]] * 20, n_adapt_steps=4)
    assert len({row.tobytes() for row in result.returns}) > 10
    assert len(set(result.task_ids.tolist())) == 1


def test_streams_differ_by_seed_task_step_and_purpose(tasks):
    first, second, third = task_streams([tasks[0], tasks[0], tasks[1]], seed=0)
    (reseeded,) = task_streams(tasks[:1], seed=1)
    seeds = [s.integer(0, Purpose.ACTING) for s in (first, second, third, reseeded)]
    seeds += [first.integer(1, Purpose.ACTING), first.integer(0, Purpose.ADAPTATION)]
    assert len(set(seeds)) == len(seeds)


def test_the_seed_decides_everything(tasks):
    learner = Recorder(GlobalRandom())
    runs = [
        evaluate_adaptation(learner, ENV, tasks[:3], n_adapt_steps=4, seed=s).returns
        for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize("kind", ["spec", "env", "vector env", "vec env", "dummy vec env"])
def test_every_kind_of_env_gives_the_result_of_the_id(kind, tasks, agent):
    made = {
        "spec": lambda: gym.spec(ENV),
        "env": lambda: gym.make(ENV),
        "vector env": lambda: gym.make_vec(
            ENV, 3, vectorization_mode="vector_entry_point", autoreset_mode=AutoresetMode.SAME_STEP
        ),
        "vec env": lambda: make_task_vec_env(ENV, 2),
        "dummy vec env": lambda: DummyVecEnv([lambda: gym.make(ENV)] * 4),
    }
    play = dict(n_adapt_steps=2, episodes_per_step=2, n_eval_episodes=2)
    result = evaluate_adaptation(agent, made[kind](), tasks, **play)
    reference = evaluate_adaptation(agent, ENV, tasks, **play)
    np.testing.assert_array_equal(result.returns, reference.returns)
    np.testing.assert_allclose(result.regret, reference.regret, rtol=0, atol=1e-12)
    if kind != "dummy vec env":
        assert result.env_id == ENV


# What it leaves alone.


def test_pins_are_put_back(tasks, agent):
    env = Pinned(gym.make(ENV))
    env.set_task(tasks[0])
    evaluate_adaptation(agent, env, tasks[1:3], n_adapt_steps=1)
    assert env.pinned_task == tasks[0]
    assert env.reset(seed=0)[1]["task"] == tasks[0]


def test_global_generators_are_left_alone(tasks):
    states = random.getstate(), np.random.get_state()[1].copy(), th.get_rng_state().clone()
    evaluate_adaptation(Recorder(GlobalRandom()), ENV, tasks[:2], n_adapt_steps=1)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert th.equal(th.get_rng_state(), states[2])


def test_global_generators_come_back_after_an_error():
    before = np.random.get_state()[1].copy()
    with pytest.raises(KeyError), scoped_global_rng(1):
        np.random.rand()
        raise KeyError
    np.testing.assert_array_equal(np.random.get_state()[1], before)


class FloatObservations(gym.ObservationWrapper):
    """`VecNormalize` wants a Box."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0.0, 2.0, env.observation_space.shape)

    def observation(self, observation):
        return observation.astype(np.float32)


def test_statistics_of_a_normalised_env_stay_and_rewards_are_raw(tasks):
    venv = VecNormalize(DummyVecEnv([lambda: FloatObservations(gym.make(ENV))] * 2))
    venv.seed(0)
    venv.reset()
    mean, count = venv.obs_rms.mean.copy(), venv.obs_rms.count
    result = evaluate_adaptation(Recorder(), venv, tasks, n_adapt_steps=2)
    np.testing.assert_array_equal(venv.obs_rms.mean, mean)
    assert venv.obs_rms.count == count and venv.training and venv.norm_reward
    assert set(np.unique(result.returns)) <= {0.0, 1.0}


# Exact regret.


def test_regret_is_the_gap_between_the_optimum_and_the_mean_return(tasks):
    result = evaluate_adaptation(
        UniformLearner(), ENV, tasks[:2], n_adapt_steps=0, n_eval_episodes=1500
    )
    samples = result.returns[:, 0]
    expected = result.optimal_returns - result.regret[:, 0]
    error = samples.std(axis=1) / np.sqrt(samples.shape[1])
    assert np.all(np.abs(samples.mean(axis=1) - expected) < 4 * error)
    np.testing.assert_allclose(
        result.optimal_returns, gym.make(ENV).get_wrapper_attr("optimal_returns")(tasks[:2])
    )


def test_regret_of_policies_that_obey_the_masks_is_never_negative(tasks, agent):
    result = evaluate_adaptation(agent, ENV, tasks, n_adapt_steps=10)
    assert result.regret.shape == (7, 11) and result.regret.min() > -1e-12


def test_regret_can_be_left_out_or_insisted_on(tasks, agent):
    one = evaluate_adaptation(agent, ENV, tasks[:1], n_adapt_steps=1, exact_regret=False)
    assert one.regret is None and one.optimal_returns is not None
    assert evaluate_adaptation(Recorder(), ENV, tasks[:1], n_adapt_steps=1).regret is None
    with pytest.raises(ValueError, match="exact_regret=True is impossible for 'Recorder'"):
        evaluate_adaptation(Recorder(), ENV, tasks[:1], n_adapt_steps=1, exact_regret=True)


class Reversed(gym.ObservationWrapper):
    def observation(self, observation):
        return observation[::-1].copy()


class Shifted(gym.ActionWrapper):
    def action(self, action):
        return (action + 3) % 6


class Doubled(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


class Counted(gym.Wrapper):
    """Changes nothing, and says so."""

    transparent = True


class DoubledBatch(gym.vector.VectorRewardWrapper):
    def rewards(self, reward):
        return 2 * reward


@pytest.mark.parametrize("wrapper", [Reversed, Shifted, Doubled])
def test_there_is_no_exact_regret_behind_a_wrapper_that_changes_the_problem(wrapper, tasks):
    env = wrapper(gym.make(ENV))
    result = evaluate_adaptation(UniformLearner(), env, tasks[:1], n_adapt_steps=1)
    assert result.regret is None and result.optimal_returns is None
    with pytest.raises(ValueError, match=f"impossible for 'UniformLearner' .*{wrapper.__name__}"):
        evaluate_adaptation(UniformLearner(), env, tasks, n_adapt_steps=1, exact_regret=True)


def test_there_is_no_exact_regret_of_flattened_observations(tasks):
    def flat():
        return gym.wrappers.FlattenObservation(gym.make(ENV))

    model = PPO("MlpPolicy", flat(), n_steps=8, batch_size=8, device="cpu")
    assert evaluate_adaptation(Frozen(model), flat(), tasks[:1], n_adapt_steps=0).regret is None


def test_there_is_no_exact_regret_behind_a_wrapper_of_a_vector_env(tasks):
    env = DoubledBatch(gym.make_vec(ENV, 2, vectorization_mode="vector_entry_point"))
    result = evaluate_adaptation(UniformLearner(), env, tasks[:2], n_adapt_steps=0)
    assert result.regret is None and result.returns.max() > 3.0


def test_wrappers_that_change_nothing_keep_exact_regret(tasks):
    plain = evaluate_adaptation(UniformLearner(), ENV, tasks[:2], n_adapt_steps=0)
    env = Counted(gym.wrappers.RecordEpisodeStatistics(gym.make(ENV)))
    result = evaluate_adaptation(UniformLearner(), env, tasks[:2], n_adapt_steps=0)
    np.testing.assert_array_equal(result.regret, plain.regret)


def test_a_wrapped_spec_is_made_with_its_wrappers(tasks):
    spec = gym.wrappers.TransformReward(gym.make(ENV), lambda reward: reward + 100.0).spec
    result = evaluate_adaptation(Recorder(), spec, tasks[:2], n_adapt_steps=0)
    assert result.returns.min() >= 300.0


def test_total_regret_is_of_the_sampled_episodes_that_were_adapted_to(tasks):
    model = PPO("MlpPolicy", ENV, n_steps=8, batch_size=8, seed=0, device="cpu")
    play = dict(n_adapt_steps=3, episodes_per_step=5, n_eval_episodes=2)
    sampled, greedy = (
        evaluate_adaptation(Frozen(model), ENV, tasks, deterministic=deterministic, **play)
        for deterministic in (False, True)
    )
    np.testing.assert_allclose(sampled.total_regret, 15 * sampled.regret[:, 0])
    np.testing.assert_allclose(greedy.total_regret, sampled.total_regret)
    assert not np.allclose(greedy.regret, sampled.regret)
    on_line = evaluate_adaptation(Frozen(model), ENV, tasks, n_adapt_steps=3, deterministic=True)
    np.testing.assert_allclose(on_line.total_regret, on_line.regret.sum(axis=1))


# Which wrappers are in the way.


def test_the_outermost_changing_wrapper_is_named():
    env = gym.make(ENV)
    assert opaque_wrapper(env, "features") is None
    assert opaque_wrapper(Monitor(gym.wrappers.TimeLimit(env, 9)), "features") is None
    assert opaque_wrapper(Monitor(Doubled(Shifted(env))), "features") == "Doubled"
    assert opaque_wrapper(make_task_vec_env(ENV, 2), "features") is None
    mixed = DummyVecEnv([lambda: env, lambda: Shifted(gym.make(ENV))])
    assert opaque_wrapper(mixed, "features") == "Shifted"
    batch = gym.make_vec(ENV, 2, vectorization_mode="vector_entry_point")
    assert opaque_wrapper(batch, "features") is None
    assert opaque_wrapper(TaskVecEnv(DoubledBatch(batch)), "features") == "DoubledBatch"


def test_a_wrapper_that_has_the_method_itself_answers_for_what_is_below():
    class Own(Doubled):
        def optimal_returns(self, tasks):
            return 2 * self.env.get_wrapper_attr("optimal_returns")(tasks)

    env = Monitor(Own(gym.make(ENV)))
    assert opaque_wrapper(env, "optimal_returns") is None
    assert opaque_wrapper(env, "policy_returns") == "Own"
    assert opaque_wrapper(Shifted(env), "optimal_returns") == "Shifted"


def test_a_subclass_of_a_transparent_wrapper_is_not_transparent():
    class Louder(Counted):
        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            return observation, 2 * reward, *rest

    assert opaque_wrapper(Counted(gym.make(ENV)), "features") is None
    assert opaque_wrapper(Louder(gym.make(ENV)), "features") == "Louder"


def test_a_time_limit_that_cuts_stages_changes_returns_but_not_features():
    env = gym.wrappers.TimeLimit(gym.make(ENV), 2)
    assert opaque_wrapper(env, "policy_returns") == "TimeLimit"
    assert opaque_wrapper(env, "features") is None


def test_normalisation_is_in_the_way_unless_it_is_switched_off():
    venv = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    assert opaque_wrapper(VecNormalize(venv), "step") == "VecNormalize"
    off = VecNormalize(venv, norm_obs=False, norm_reward=False)
    assert opaque_wrapper(VecMonitor(off), "step") is None


def test_envs_in_other_processes_are_known_by_their_spec():
    def make():
        return Monitor(gym.make(f"metarl_envs:{ENV}"))

    venv = SubprocVecEnv([make])
    flat = SubprocVecEnv([lambda: Monitor(gym.wrappers.FlattenObservation(make()))])
    short = SubprocVecEnv([lambda: gym.wrappers.TimeLimit(make(), 2)])
    assert opaque_wrapper(venv, "features") is None
    assert opaque_wrapper(flat, "features") == "FlattenObservation"
    assert opaque_wrapper(short, "policy_returns") == "TimeLimit"
    for env in (venv, flat, short):
        env.close()


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_adapt_steps": -1}, "n_adapt_steps=-1 must be an integer of at least 0"),
        ({"n_adapt_steps": 1.5}, "n_adapt_steps=1.5"),
        ({"episodes_per_step": 0}, "episodes_per_step=0 must be an integer of at least 1"),
        ({"n_eval_episodes": 0}, "n_eval_episodes=0 must be an integer of at least 1"),
        ({"seed": -1}, "seed=-1 must be an integer of at least 0"),
        ({"n_envs": 0}, "n_envs=0 must be an integer of at least 1"),
        ({"n_envs": "a"}, "n_envs='a' must be an integer of at least 1"),
        ({"n_envs": 2.5}, "n_envs=2.5 must be an integer of at least 1"),
        ({"deterministic": "no"}, "deterministic='no' must be True or False"),
        ({"exact_regret": "yes"}, "exact_regret='yes' must be None, True or False"),
        ({"tasks": [1, 2]}, r"tasks\[0\]=1 is a int without to_array"),
        ({"tasks": (None, None)}, r"tasks\[0\]=None is a NoneType without to_array"),
        ({"tasks": "ab"}, r"tasks\[0\]='a' is a str without to_array"),
        ({"tasks": np.zeros((2, 3))}, r"task_distribution\.from_array\(array\)"),
        ({"tasks": [[0.1, 0.2]]}, r"task_distribution\.from_array\(array\)"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": 0}, "tasks=0 must be an integer of at least 1"),
        ({"tasks": True}, "tasks=True must be an integer"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, agent):
    given = {"n_adapt_steps": 1, "tasks": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        evaluate_adaptation(agent, ENV, given.pop("tasks"), **given)


def test_what_cannot_adapt_is_refused(tasks):
    model = PPO("MlpPolicy", ENV, n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(TypeError, match=r"wrap an SB3 model as Frozen\(model\)"):
        evaluate_adaptation(model, ENV, tasks, n_adapt_steps=1)


def test_a_half_interacting_learner_is_refused(tasks):
    class Half:
        interacts = True

    with pytest.raises(TypeError, match="start_in"):
        evaluate_adaptation(Half(), ENV, tasks, n_adapt_steps=1)


def test_an_env_without_tasks_is_refused(agent):
    with pytest.raises(ValueError, match="no sample_tasks"):
        evaluate_adaptation(Frozen(FirstProduct()), "CartPole-v1", 2, n_adapt_steps=1)


def test_an_agent_for_other_spaces_is_refused(agent):
    with pytest.raises(ValueError, match="do not match"):
        evaluate_adaptation(agent, "metarl/Recommendation-v0", 2, n_adapt_steps=1)
