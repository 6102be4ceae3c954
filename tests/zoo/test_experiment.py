import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

from metarl_agents import FineTuned, FromScratch, Frozen, MetaOracle
from zoo.config import Settings
from zoo.experiment import (
    build_agent,
    comparator_learner,
    evaluate_on_line,
    held_out_tasks,
    true_prior,
)

ENV = "metarl/RecommendationSmall-v0"
TINY_PPO = Settings(
    source="test",
    n_timesteps=32,
    arguments={"n_envs": 2, "n_steps": 8, "batch_size": 8, "device": "cpu"},
    in_task={"n_steps": 6, "batch_size": 6},
)


def test_the_oracle_is_told_the_prior_of_its_own_env() -> None:
    kwargs = {"bias_std": 1.0}
    settings = Settings(true_prior={"arguments": ["prior_mean", "prior_covariance"], "n_tasks": 50})
    agent = build_agent("meta_oracle", ENV, settings=settings, env_kwargs=kwargs)
    assert isinstance(agent, MetaOracle)
    mean, _ = gym.make(ENV, **kwargs).unwrapped.q_prior(n_tasks=50)
    np.testing.assert_array_equal(agent.prior_mean, mean)


def test_a_truth_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="prior_variance"):
        true_prior(ENV, {}, {"arguments": ["prior_variance"], "n_tasks": 20})
    with pytest.raises(ValueError, match="no q_prior"):
        true_prior("CartPole-v1", {}, {"arguments": ["prior_mean"]})


def test_held_out_tasks_are_the_same_for_everyone_and_none_of_the_training_tasks() -> None:
    tasks = held_out_tasks(ENV, 5, seed=3)
    assert tasks == held_out_tasks(ENV, 5, seed=3)
    train = gym.make(ENV).unwrapped.sample_tasks(5, seed=3, split="train")
    assert not set(tasks) & set(train)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"mtsrl.*maskable_ppo"):
        build_agent("mtsrl2", ENV)


@pytest.mark.parametrize(
    ("algo", "role"), [("ppo", Frozen), ("maskable_ppo", Frozen), ("ppo_finetuned", FineTuned)]
)
def test_multi_task_comparators_are_trained_on_the_family(algo: str, role: type) -> None:
    learner = comparator_learner(algo, ENV, settings=TINY_PPO)
    assert isinstance(learner, role)
    assert learner.name == algo
    assert learner.model.num_timesteps == 32
    assert learner.model.n_envs == 2


def test_comparators_from_scratch_are_evaluated_on_line() -> None:
    settings = Settings(arguments={"n_steps": 6, "batch_size": 6, "device": "cpu"})
    learner = comparator_learner("ppo_scratch", ENV, settings=settings)
    assert isinstance(learner, FromScratch)
    assert learner.cls is PPO
    result = evaluate_on_line(learner, ENV, held_out_tasks(ENV, 2), n_episodes=4)
    assert result.returns.shape == (2, 4, 1)
    assert (result.regret >= -1e-12).all()


def test_env_arguments_reach_the_evaluation() -> None:
    kwargs = {"n_recommendations": 2}
    learner = comparator_learner("ppo", ENV, settings=TINY_PPO, env_kwargs=kwargs)
    tasks = held_out_tasks(ENV, 2, env_kwargs=kwargs)
    result = evaluate_on_line(learner, ENV, tasks, n_episodes=3, env_kwargs=kwargs)
    assert (result.lengths == 2).all()
    again = evaluate_on_line(learner, ENV, tasks, n_episodes=3, env_kwargs=kwargs)
    np.testing.assert_array_equal(result.returns, again.returns)
