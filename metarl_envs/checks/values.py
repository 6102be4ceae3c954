"""Checks of known values: optima and the returns of policies, where an env can tell them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from metarl_envs.checks.subject import (
    AnyEnv,
    NotApplicableError,
    Player,
    Subject,
    attribute,
    has_wrapper,
    require,
)
from metarl_envs.core import FloatArray, Task


def optimal_return_bounds_random_play(subject: Subject) -> None:
    """Random play earns no more than ``optimal_return(task)``, within 4 standard errors."""
    env = _env_with(subject, "optimal_return")
    for task in subject.distinct_tasks(3):
        best = attribute(env, "optimal_return")(task)
        require(np.isfinite(best), f"optimal_return({task}) is {best}")
        returns = _returns_of_random_play(env, task, subject.seed, 40)
        slack = 4 * float(np.std(returns, ddof=1)) / np.sqrt(len(returns)) + 1e-9
        mean = float(np.mean(returns))
        require(mean <= best + slack, f"random play earns {mean} of optimal_return {best}")


def optimal_return_agrees_with_optimal_returns(subject: Subject) -> None:
    """``optimal_returns(tasks)`` is (M,), and each of them what ``optimal_return(task)`` says."""
    env = _env_with(subject, "optimal_return", "optimal_returns")
    tasks = subject.distinct_tasks(4)
    one, many = attribute(env, "optimal_return"), attribute(env, "optimal_returns")
    together = np.asarray(many(tasks))
    require(together.shape == (len(tasks),), f"optimal_returns of {len(tasks)}: {together.shape}")
    for task, batched in zip(tasks, together, strict=True):
        single, listed = one(task), many([task])[0]
        for value in (listed, batched):
            # Batches of other sizes may round differently.
            close = np.isclose(value, single, rtol=1e-9, atol=1e-9)
            require(close, f"optimal_return({task}) is {single}, but optimal_returns says {value}")


def policy_returns_agree_with_random_play(subject: Subject) -> None:
    """``policy_returns`` of the uniform policy is what it earns, within 4 standard errors."""
    env = _env_with(subject, "n_stages", "stage_observations", "policy_returns", "optimal_returns")
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise NotApplicableError(f"{env.action_space} is not Discrete")
    limit = env.spec.max_episode_steps if env.spec is not None else None
    if limit is not None and limit < attribute(env, "n_stages"):
        raise NotApplicableError("a time limit cuts the episodes that policy_returns is about")
    tasks, uniform = subject.distinct_tasks(3), _uniform_policy(env, int(env.action_space.n))
    expected = np.asarray(attribute(env, "policy_returns")(tasks, uniform))
    require(expected.shape == (len(tasks),), f"policy_returns has shape {expected.shape}")
    best = attribute(env, "optimal_returns")(tasks)
    for index, task in enumerate(tasks):
        returns = _returns_of_random_play(env, task, subject.seed, 300)
        # With the best return among them, rewards too rare to be met leave some spread.
        spread = float(np.std([*returns, best[index]], ddof=1))
        slack = 4 * spread / np.sqrt(len(returns)) + 1e-9
        mean, value = float(np.mean(returns)), float(expected[index])
        require(abs(mean - value) <= slack, f"uniform play earns {mean}, policy_returns: {value}")


def _env_with(subject: Subject, *names: str) -> AnyEnv:
    env = subject.make()
    for name in names:
        if not env.has_wrapper_attr(name):
            raise NotApplicableError(f"the env has no {name}")
    if has_wrapper(env, "Trial"):
        raise NotApplicableError(f"{names[0]} is for one episode, not for a trial")
    return env


def _uniform_policy(env: AnyEnv, n_actions: int) -> list[FloatArray]:
    """Equal probabilities of all allowed actions, (S_h, A) for each stage."""
    policies = []
    for stage in range(attribute(env, "n_stages")):
        observations = attribute(env, "stage_observations")(stage)
        allowed = np.ones((len(observations), n_actions))
        if env.has_wrapper_attr("action_masks"):
            allowed = np.asarray(attribute(env, "action_masks")(observations), dtype=np.float64)
        policies.append(allowed / allowed.sum(axis=-1, keepdims=True))
    return policies


def _returns_of_random_play(env: AnyEnv, task: Task, seed: int, n_episodes: int) -> list[float]:
    player, returns = Player(env, seed), []
    for index in range(n_episodes):
        player.reset(seed=seed if index == 0 else None, task=task)
        returns.append(sum(row.reward for row in player.play(2000)))
    return returns
