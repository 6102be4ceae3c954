"""Play tasks to their end: one posterior draw, one episode, one update, N times."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.bayesian.beliefs import TaskBelief
from metarl_agents.bayesian.exact_regret import ExactRegret
from metarl_agents.bayesian.linear_q_policy import LinearQPolicies, UniformPolicies
from metarl_agents.common.collect import collect_episodes, pinned_tasks, sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm.seeds import draw_seed
from metarl_agents.common.playing import StepHook


class FinishedTasks(NamedTuple):
    """M tasks, each played for N episodes: what ``collect`` hands to ``train``."""

    belief: TaskBelief
    returns: np.ndarray  # (M, E)
    regret: np.ndarray | None  # (M, E), exact, of every episode's policy


class TaskPlayer(Protocol):
    """What of an agent playing its tasks needs; see :class:`.ThompsonMeta`."""

    env: VecEnv | None
    n_episodes_per_task: int
    n_uniform_episodes: int
    track_regret: bool
    exact_regret: ExactRegret

    @property
    def is_exploring(self) -> bool: ...

    def first_policies(self, rngs: Sequence[np.random.Generator]) -> LinearQPolicies: ...

    def adapt_tasks(
        self, policies: Any, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> LinearQPolicies: ...

    def _begin_collect(self) -> int: ...

    def _step_hook(self, callback: BaseCallback) -> StepHook: ...


def play_tasks(agent: TaskPlayer, callback: BaseCallback) -> FinishedTasks | None:
    """Play a new task in every sub-environment; None when the callback asked to stop."""
    assert agent.env is not None
    rng = np.random.default_rng(agent._begin_collect())
    tasks = sample_tasks(agent.env, agent.env.num_envs, seed=draw_seed(rng))
    rngs = rng.spawn(len(tasks))
    policies = agent.first_policies(rngs)
    returns, regrets = [], []
    with pinned_tasks(agent.env, tasks):
        for episode in range(agent.n_episodes_per_task):
            acting = _acting(agent, policies, episode, rngs)
            if agent.track_regret:
                regrets.append(agent.exact_regret(acting, tasks))
            episodes = collect_episodes(
                agent.env,
                acting,
                1,
                seed=draw_seed(rng),
                on_step=agent._step_hook(callback),
            )
            if episodes is None:
                return None
            returns.append(episodes.returns[:, 0].cpu().numpy())
            policies = agent.adapt_tasks(policies, episodes, rngs=rngs)
    regret = np.stack(regrets, axis=1) if regrets else None
    return FinishedTasks(policies.belief, np.stack(returns, axis=1), regret)


def _acting(
    agent: TaskPlayer,
    policies: LinearQPolicies,
    episode: int,
    rngs: Sequence[np.random.Generator],
) -> LinearQPolicies | UniformPolicies:
    """Return who plays the episode: the draws, or uniform exploration where it is asked for."""
    if episode < agent.n_uniform_episodes and agent.is_exploring:
        return UniformPolicies(policies, [rng.spawn(1)[0] for rng in rngs])
    return policies
