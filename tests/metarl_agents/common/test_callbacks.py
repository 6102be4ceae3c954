"""`MetaEvalCallback`: SB3's `EvalCallback` for adaptation."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import metarl_envs  # noqa: F401
from metarl_agents import MTSRL
from metarl_agents.common.callbacks import MetaEvalCallback
from metarl_agents.common.evaluation import AdaptationResult, Frozen, evaluate_adaptation
from metarl_agents.common.vec_env import make_task_vec_env

ENV = "metarl/RecommendationSmall-v0"
EPISODES, STEPS = 4, 3  # of one task: 12 env steps


def agent(**kwargs):
    settings = dict(n_episodes_per_task=EPISODES, n_exploration_tasks=2, seed=0, device="cpu")
    return MTSRL("LinearQPolicy", ENV, **{**settings, **kwargs})


def callback(eval_env=ENV, **kwargs):
    settings = dict(tasks=3, n_adapt_steps=2, eval_freq=EPISODES * STEPS, verbose=0)
    return MetaEvalCallback(eval_env, **{**settings, **kwargs})


class Recorded(KVWriter):
    """Keeps all that is logged."""

    def __init__(self):
        self.entries = []

    def write(self, key_values, key_excluded, step=0):
        self.entries.append((step, dict(key_values)))


class Count(BaseCallback):
    def _on_step(self):
        return True


def test_evaluates_every_so_many_calls_and_keeps_what_eval_callback_keeps():
    meta_eval = callback()
    agent().learn(5 * EPISODES * STEPS, callback=meta_eval)
    assert meta_eval.evaluations_timesteps == [12, 24, 36, 48, 60]
    assert [len(row) for row in meta_eval.evaluations_results] == [3] * 5
    assert meta_eval.evaluations_length == [[STEPS] * 3] * 5
    means = [np.mean(row) for row in meta_eval.evaluations_results]
    assert meta_eval.last_mean_reward == pytest.approx(means[-1])
    assert meta_eval.best_mean_reward == pytest.approx(max(means))
    assert isinstance(meta_eval.last_result, AdaptationResult)


def test_scores_the_agent_as_evaluate_adaptation_does():
    meta_eval = callback(n_eval_episodes=2, seed=4)
    learner = agent().learn(12, callback=meta_eval)
    # The evaluation came at the last step of the only collect, before anything was learned from it.
    expected = evaluate_adaptation(agent(), ENV, 3, n_adapt_steps=2, n_eval_episodes=2, seed=4)
    np.testing.assert_array_equal(meta_eval.last_result.returns, expected.returns)
    assert learner.num_timesteps == 12


def test_training_with_and_without_it_is_bit_equal():
    alone, watched = agent(), agent()
    alone.learn(8 * 12)
    watched.learn(8 * 12, callback=callback(eval_freq=5))
    assert watched.num_timesteps == alone.num_timesteps
    left, right = alone._learned_state(), watched._learned_state()
    assert left.keys() == right.keys() and all(th.equal(left[key], right[key]) for key in left)
    assert alone._rng.bit_generator.state == watched._rng.bit_generator.state


def test_a_plain_sb3_agent_is_evaluated_as_frozen_and_trains_as_without():
    def train(callback):
        model = PPO("MlpPolicy", make_vec_env(ENV), n_steps=24, batch_size=24, seed=0, device="cpu")
        return model.learn(72, callback=callback)

    meta_eval = callback(eval_freq=30)
    alone, watched = train(None), train(meta_eval)
    for left, right in zip(alone.policy.parameters(), watched.policy.parameters(), strict=True):
        assert th.equal(left, right)
    assert meta_eval.last_result.learner == "Frozen(PPO)"
    assert meta_eval.evaluations_timesteps == [30, 60]


def test_logs_the_score_after_every_number_of_adaptations():
    meta_eval, writer = callback(), Recorded()
    learner = agent()
    learner.set_logger(Logger(None, [writer]))
    learner.learn(2 * 12, callback=meta_eval)
    step, entry = next((s, e) for s, e in writer.entries if "eval/mean_reward" in e)
    assert step == 12
    curve = [entry[f"eval/mean_reward_{k}"] for k in range(3)]
    assert entry["eval/mean_reward"] == curve[2] and entry["eval/mean_ep_length"] == STEPS
    assert "eval/mean_reward_3" not in entry and entry["eval/mean_regret"] > 0.0


def test_training_stops_on_a_reward_threshold():
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1.0)
    meta_eval = callback(callback_on_new_best=stop)
    learner = agent().learn(20 * 12, callback=meta_eval)
    assert len(meta_eval.evaluations_timesteps) == 1 and learner.num_timesteps < 2 * 12
    assert stop.parent is meta_eval


def test_training_stops_without_improvement():
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=0)
    meta_eval = callback(callback_after_eval=stop)
    agent().learn(60 * 12, callback=meta_eval)
    best = np.maximum.accumulate([np.mean(row) for row in meta_eval.evaluations_results])
    # Two evaluations in a row without a new best are one too many.
    assert len(best) < 60 and np.all(best[-2:] == best[-3])


def test_child_callbacks_are_called_and_see_the_training():
    after, on_best = Count(), Count()
    meta_eval = callback(callback_after_eval=after, callback_on_new_best=on_best)
    learner = agent().learn(4 * 12, callback=meta_eval)
    assert after.n_calls == 4 and 1 <= on_best.n_calls <= 4
    assert after.model is learner and on_best.parent is meta_eval


def test_writes_the_evaluations_file_of_sb3_and_the_best_agent(tmp_path):
    meta_eval = callback(log_path=tmp_path / "logs", best_model_save_path=tmp_path / "best")
    learner = agent().learn(3 * 12, callback=meta_eval)
    with np.load(tmp_path / "logs" / "evaluations.npz") as log:
        np.testing.assert_array_equal(log["timesteps"], [12, 24, 36])
        np.testing.assert_array_equal(log["results"], meta_eval.evaluations_results)
        assert log["ep_lengths"].shape == (3, 3) and log["returns"].shape == (3, 3, 3, 1)
    (saved,) = (tmp_path / "best").iterdir()
    assert saved.stem == "best_model"
    best = type(learner).load(saved)
    assert isinstance(best, MTSRL)


def test_prints_one_line_per_evaluation_when_asked(capsys):
    agent().learn(12, callback=callback(verbose=1))
    assert "Eval num_timesteps=12" in capsys.readouterr().out


def test_the_training_env_is_refused_for_evaluation():
    venv = make_task_vec_env(ENV)
    learner = MTSRL("LinearQPolicy", venv, n_episodes_per_task=2, device="cpu")
    with pytest.raises(ValueError, match="is the env that the agent trains in"):
        learner.learn(12, callback=callback(venv))


@pytest.mark.parametrize("kind", ["env", "wrapped env", "vector env", "in a vec env"])
def test_the_training_env_is_refused_in_any_wrapping(kind):
    env = gym.make(ENV)
    if kind == "vector env":
        env = gym.make_vec(ENV, 1, vectorization_mode="vector_entry_point")
    learner = MTSRL("LinearQPolicy", env, n_episodes_per_task=2, device="cpu")
    shown = {
        "wrapped env": lambda: Monitor(env),
        "in a vec env": lambda: DummyVecEnv([lambda: env]),
    }
    with pytest.raises(ValueError, match="is the env that the agent trains in"):
        learner.learn(12, callback=callback(shown.get(kind, lambda: env)()))


def test_an_evaluation_frequency_below_one_is_refused():
    with pytest.raises(ValueError, match="eval_freq=0 must be at least 1"):
        callback(eval_freq=0)


def test_frozen_counterpart_of_an_agent_is_its_zero_shot_policy():
    learner = agent().learn(5 * 12)
    frozen = evaluate_adaptation(Frozen(learner), ENV, 5, n_adapt_steps=1, deterministic=True)
    itself = evaluate_adaptation(learner, ENV, 5, n_adapt_steps=1, deterministic=True)
    np.testing.assert_array_equal(frozen.returns[:, 0], itself.returns[:, 0])
