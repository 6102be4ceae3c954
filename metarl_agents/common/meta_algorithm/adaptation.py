"""Adapts an agent to one environment and leaves the agent as it was."""

from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.common.collect import collect_episodes, task_of
from metarl_agents.common.meta_algorithm.seeds import draw_seed
from metarl_agents.common.policies import PolicyPredictor, stack_policies

if TYPE_CHECKING:
    from metarl_agents.common.meta_algorithm.algorithm import MetaAlgorithm


def adapted_policy(
    agent: "MetaAlgorithm", venv: VecEnv, n_episodes: int, task: Any | None, seed: int | None
) -> PolicyPredictor:
    """The policy after `n_episodes` episodes in one task, adapted as often as the agent asks for.

    :param agent: who adapts
    :param venv: one sub-environment
    :param n_episodes: episodes to play
    :param task: the task to play; None for the one that the env is on, or draws first
    :param seed: of everything random; None for fresh entropy
    """
    if venv.num_envs != 1:
        raise ValueError(f"env has {venv.num_envs} sub-environments: adapt_to takes one at a time")
    if hasattr(agent, "observation_space"):
        agent._check_spaces(venv)
    agent._prepare_for(venv)
    rng = np.random.default_rng(seed)
    # Drawn in any case, so that handing over the task that the env is on changes nothing.
    first_seed = draw_seed(rng)
    tasks = [task_of(venv, seed=first_seed) if task is None else task]
    policy = agent.initial_policy(rng=rng)
    at_once = agent._episodes_per_adaptation
    for start in range(0, n_episodes, at_once):
        policies = stack_policies([policy])
        n_now = min(at_once, n_episodes - start)
        batch = collect_episodes(venv, policies, n_now, seed=draw_seed(rng), tasks=tasks)
        policy = agent.adapt(policy, batch.task(0), rng=rng)
    return policy
