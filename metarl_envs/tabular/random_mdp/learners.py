"""Reference learners for random MDPs, on many of them at once.

Both keep the exact posterior of the family's own prior (Dirichlet rows, Gaussian means) and plan
once per episode; they differ in the model that they plan for. After the comparison of Duan et al.
(2016), https://arxiv.org/abs/1611.02779.

Shapes: M tasks, E episodes, S states, A actions, H stages.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from metarl_envs.batched.checking import check_counts, check_seed
from metarl_envs.batched.family import Params
from metarl_envs.core import FloatArray, IntArray
from metarl_envs.tabular.mdp import FiniteMDP, action_values, optimal_values
from metarl_envs.tabular.random_mdp.family import RandomMDPFamily


class Posterior(NamedTuple):
    """What is known of M tasks."""

    concentrations: FloatArray
    """of the Dirichlet distributions of the rows, (M, S, A, S): 1 plus how often each was seen"""
    means: FloatArray
    """posterior means of the mean rewards, (M, S, A)"""
    deviations: FloatArray
    """posterior standard deviations of the mean rewards, (M, S, A)"""


Learner = Callable[[Posterior, np.random.Generator], tuple[FloatArray, FloatArray]]
"""The model to plan for in the next episode: transitions (M, S, A, S) and rewards (M, S, A)."""


def episode_returns(
    learner: Learner, family: RandomMDPFamily, *, n_tasks: int, n_episodes: int, seed: int
) -> FloatArray:
    """Returns of a learner that meets each task for `n_episodes` episodes, (M, E).

    :param learner: the model to plan for, from the posterior
    :param family: the MDPs; its `reward_std` must be positive
    :param n_tasks: M
    :param n_episodes: E
    :param seed: of the tasks, the learner and the episodes
    """
    check_counts(n_tasks=n_tasks, n_episodes=n_episodes)
    check_seed(seed=seed)
    if family.reward_std <= 0:
        raise ValueError("family has reward_std=0: the learners need a positive one")
    rng = np.random.default_rng(seed)
    distribution = family.task_distribution
    params = family.compile(
        distribution.arrays_from_uniforms(
            lambda rows: rng.random((len(rows), distribution.n_uniforms)), n_tasks
        )
    )
    seen = _Statistics(family, n_tasks)
    returns = np.zeros((n_tasks, n_episodes))
    for episode in range(n_episodes):
        transitions, rewards = learner(seen.posterior(), rng)
        policies = _best_policies(transitions, rewards, family.n_stages)
        returns[:, episode] = _play(family, params, policies, seen, rng)
    return returns


def sampled_model(posterior: Posterior, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """A draw from the posterior: PSRL (Strens, 2000; Osband, Russo and Van Roy, 2013,
    https://arxiv.org/abs/1306.0940).
    """
    weights = rng.standard_gamma(posterior.concentrations)
    noise = rng.standard_normal(posterior.means.shape)
    rewards = posterior.means + posterior.deviations * noise
    return weights / weights.sum(axis=-1, keepdims=True), rewards


def expected_model(posterior: Posterior, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """The posterior mean: certainty equivalence, without any exploration on purpose."""
    totals = posterior.concentrations.sum(axis=-1, keepdims=True)
    return posterior.concentrations / totals, posterior.means


class _Statistics:
    """Counts and sums of rewards, from which the posterior follows."""

    def __init__(self, family: RandomMDPFamily, n_tasks: int) -> None:
        shape = n_tasks, family.n_states, family.n_actions
        self.counts = np.zeros((*shape, family.n_states))
        self.reward_sums = np.zeros(shape)
        self.reward_precision = family.reward_std**-2

    def add(
        self, states: IntArray, actions: IntArray, following: IntArray, rewards: FloatArray
    ) -> None:
        """One step of every task, (M,) each."""
        rows = np.arange(len(states))
        self.counts[rows, states, actions, following] += 1.0
        self.reward_sums[rows, states, actions] += rewards

    def posterior(self) -> Posterior:
        """Conjugate updates of Dirichlet(1, ..., 1) and N(1, 1)."""
        precisions = 1.0 + self.reward_precision * self.counts.sum(axis=-1)
        means = (1.0 + self.reward_precision * self.reward_sums) / precisions
        return Posterior(1.0 + self.counts, means, precisions**-0.5)


def _best_policies(transitions: FloatArray, rewards: FloatArray, n_stages: int) -> IntArray:
    """The best actions in each model, (M, H, S)."""
    start = np.eye(transitions.shape[-1])[0]
    model = FiniteMDP(transitions, rewards, start, horizon=n_stages)
    return action_values(model, optimal_values(model)).argmax(axis=-1)


def _play(
    family: RandomMDPFamily,
    params: Params,
    policies: IntArray,
    seen: _Statistics,
    rng: np.random.Generator,
) -> FloatArray:
    """Returns of one episode of every task, (M,), which `seen` takes in."""
    rows = np.arange(len(policies))
    states = family.initial(params, np.empty((len(rows), 0)))
    returns = np.zeros(len(rows))
    for stage in range(family.n_stages):
        actions = policies[rows, stage, states]
        uniforms = rng.random((len(rows), family.n_step_uniforms))
        stages = np.full(len(rows), stage)
        following, rewards, _ = family.step(params, states, stages, actions, uniforms)
        seen.add(states, actions, following, rewards)
        returns += rewards
        states = following
    return returns
