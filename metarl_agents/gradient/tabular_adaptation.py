"""Inner batches of a small tabular task, all of them or a sample, as one leading axis.

They go through the surrogates, the inner loop and the estimator that training uses; only the value
of an adapted policy is computed exactly.

Shapes: C chains of inner batches, K inner steps, N episodes of a batch, L trajectories of a task, H
stages, S states, A actions.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.inner_loop import adapted_params
from metarl_agents.common.losses import Reduction, episode_log_probs, total_log_prob
from metarl_agents.common.policies.networks import Params, TabularNetwork
from metarl_agents.common.returns import WeightedEpisodes, discounted_returns
from metarl_agents.gradient.enumeration import (
    TabularTask,
    Trajectories,
    all_trajectories,
    multisets,
)
from metarl_envs.tabular.mdp import FiniteMDP

AdvantageBaseline = Literal["none", "batch", "value"]
MetaLoss = Callable[..., Tensor]

_ROWS_PER_CHUNK = 100_000  # steps of all episodes of a chunk: some 100 MB with second derivatives


class AdaptationSettings(NamedTuple):
    """How a task is adapted to; see `certify_meta_gradient`."""

    n_episodes: int
    n_inner_steps: int
    inner_lr: float
    reduction: Reduction = "sum"
    baseline: AdvantageBaseline = "none"


class BatchChains(NamedTuple):
    """Some chains of inner batches, batch k played by the policy after the steps on those before.

    :param draws: (C,), orders in which the episodes of a chain may come, times the environment's
        part of its probability
    :param batches: K of them, fields (C, N, ...)
    """

    draws: Tensor
    batches: list[WeightedEpisodes]


class TabularAdaptation:
    """Adaptation of a softmax policy to one finite-horizon MDP.

    :param mdp: the task
    :param logits: theta, (S, A) float64
    :param settings: of the inner steps
    """

    def __init__(self, mdp: FiniteMDP, logits: Tensor, settings: AdaptationSettings) -> None:
        self.task = TabularTask(mdp)
        self.logits = logits
        self.settings = settings
        self.network = TabularNetwork(mdp.n_states, mdp.n_actions)
        self.trajectories = all_trajectories(mdp)

    def all_chains(self) -> Iterator[BatchChains]:
        """Every chain once, up to the order of episodes, in chunks that fit into memory."""
        n, k, h = self.settings.n_episodes, self.settings.n_inner_steps, self.task.horizon
        picks, orders = multisets(len(self.trajectories.states), n)
        sizes = [len(picks)] * k
        total = len(picks) ** k
        step = max(1, _ROWS_PER_CHUNK // (n * k * h))
        for start in range(0, total, step):
            numbers = np.arange(start, min(start + step, total))
            chain = th.as_tensor(np.stack(np.unravel_index(numbers, sizes)))  # (K, C)
            yield self._played(partial(_listed, picks[chain]), orders[chain].prod(0))

    def sampled_chains(self, n_chains: int, rng: np.random.Generator) -> BatchChains:
        """Chains as they come in training; `draws` are 1.

        :param n_chains: C
        :param rng: of the draws
        """
        generator = th.Generator().manual_seed(int(rng.integers(2**62)))
        size = self.settings.n_episodes

        def draw(_: int, params: Params) -> Tensor:
            chances = self.trajectory_probabilities(params)
            return th.multinomial(chances, size, replacement=True, generator=generator)

        chains = self._played(draw, th.ones(n_chains, dtype=self.logits.dtype))
        return chains._replace(draws=th.ones_like(chains.draws))

    def expected_value(self, chains: BatchChains) -> tuple[Tensor, Tensor, Tensor]:
        """These chains' part of J_N, its gradient (S, A), and the probability of each chain (C,).

        The probabilities themselves are differentiated, so no score term is involved.

        :param chains: some of all chains
        """
        theta = self.logits.clone().requires_grad_()
        params = _repeated(theta, len(chains.draws))
        steps = self._adapted(params, chains.batches, create_graph=True)
        log_prob = th.zeros_like(chains.draws)
        for sampler, batch in zip(steps[:-1], chains.batches, strict=True):
            log_probs = episode_log_probs(self.network, sampler, batch)
            log_prob = log_prob + total_log_prob(log_probs, batch.mask)
        probabilities = chains.draws * log_prob.exp()
        value = (probabilities * self._value(steps[-1])).sum()
        (gradient,) = th.autograd.grad(value, theta)
        return value.detach(), gradient, probabilities.detach()

    def estimates(
        self, chains: BatchChains, meta_loss: MetaLoss, score_baseline: float = 0.0
    ) -> Tensor:
        """The estimate of the meta-gradient from each chain, (C, S, A).

        :param chains: the data
        :param meta_loss: of an estimator
        :param score_baseline: subtracted from the return after adaptation in the score term
        """
        leaf = _repeated(self.logits, len(chains.draws))["logits"].clone().requires_grad_()
        losses = meta_loss(
            self.network,
            {"logits": leaf},
            chains.batches,
            lambda adapted: -self._value(adapted),
            lambda adapted: self._value(adapted) - score_baseline,
            inner_lr=self.settings.inner_lr,
            reduction=self.settings.reduction,
        )
        if not isinstance(losses, Tensor) or not losses.requires_grad:
            raise ValueError(
                "meta_loss must return a tensor that depends on params differentiably, got "
                f"{type(losses).__name__} without a graph"
            )
        if losses.shape != chains.draws.shape:
            raise ValueError(
                f"meta_loss returned shape {tuple(losses.shape)} for params with a leading axis of "
                f"{len(leaf)}: it must return one loss for each, {tuple(chains.draws.shape)}"
            )
        (gradient,) = th.autograd.grad(losses.sum(), leaf)
        return -gradient

    def exact_infinite(self) -> Tensor:
        """The gradient of J_inf, (S, A): of the value after K exact gradient steps."""
        theta = self.logits.clone().requires_grad_()
        n_steps = self.task.horizon if self.settings.reduction == "mean" else 1
        adapted = theta
        for _ in range(self.settings.n_inner_steps):
            (gradient,) = th.autograd.grad(self.task.value(adapted), adapted, create_graph=True)
            adapted = adapted + self.settings.inner_lr / n_steps * gradient
        (gradient,) = th.autograd.grad(self.task.value(adapted), theta)
        return gradient

    def adapted_values(self, chains: BatchChains) -> Tensor:
        """The value of the policy after the steps on each chain, (C,).

        :param chains: the data
        """
        params = _repeated(self.logits, len(chains.draws))
        return self._value(self._adapted(params, chains.batches, create_graph=False)[-1])

    def weighted(self, picks: Tensor, params: Params) -> WeightedEpisodes:
        """Trajectories as the inner steps see them, fields (C, N, ...).

        :param picks: (C, N), numbers of trajectories
        :param params: of the C policies that play them
        """
        found = Trajectories(*(field[picks] for field in self.trajectories))
        mask = th.ones_like(found.rewards)
        discounts = self.task.discount ** th.arange(self.task.horizon, dtype=mask.dtype)
        returns_to_go = discounted_returns(found.rewards, mask, self.task.discount)
        baselines = discounts * self._baselines(returns_to_go, found.states, params)
        observations = found.states[..., None].to(mask.dtype)
        actions = found.actions[..., None]
        rows = self.network.dist_params(params, observations.flatten(1, 2))
        dist_params = rows.unflatten(1, mask.shape[1:])
        return WeightedEpisodes(
            observations=observations,
            actions=actions,
            mask=mask,
            dist_params=dist_params,
            log_probs=self.network.distribution.log_prob(dist_params, actions),
            advantages=discounts * returns_to_go - baselines,
            rewards=discounts * found.rewards,
            baselines=baselines,
            returns=returns_to_go[..., 0],
        )

    def trajectory_probabilities(self, params: Params) -> Tensor:
        """Of every trajectory under each policy, (C, L).

        :param params: of C policies
        """
        log_policy = params["logits"].log_softmax(-1)
        taken = log_policy[:, self.trajectories.states, self.trajectories.actions]  # (C, L, H)
        return self.trajectories.environment_probabilities * taken.sum(-1).exp()

    def _played(self, pick: Callable[[int, Params], Tensor], draws: Tensor) -> BatchChains:
        """Chains of batches; `pick` numbers the trajectories (C, N) of a step and its policies."""
        params = _repeated(self.logits, len(draws))
        batches: list[WeightedEpisodes] = []
        for step in range(self.settings.n_inner_steps):
            picks = pick(step, params)
            draws = draws * self.trajectories.environment_probabilities[picks].prod(-1)
            batches.append(self.weighted(picks, params))
            params = self._adapted(params, batches[-1:], create_graph=False)[-1]
        return BatchChains(draws, batches)

    def _baselines(self, returns_to_go: Tensor, states: Tensor, params: Params) -> Tensor:
        if self.settings.baseline == "batch":
            return returns_to_go.mean(-2, keepdim=True).expand_as(returns_to_go)
        if self.settings.baseline == "value":
            values = self.task.stage_values(params["logits"])  # (C, H, S)
            per_episode = values[:, None].expand(-1, states.shape[1], -1, -1)
            return per_episode.gather(-1, states[..., None])[..., 0]
        return th.zeros_like(returns_to_go)

    def _adapted(
        self, params: Params, batches: list[WeightedEpisodes], *, create_graph: bool
    ) -> list[Params]:
        return adapted_params(
            self.network,
            params,
            batches,
            loss="loglik",
            reduction=self.settings.reduction,
            inner_lr=self.settings.inner_lr,
            create_graph=create_graph,
        )

    def _value(self, params: Params) -> Tensor:
        return self.task.value(params["logits"])


def _listed(picks: Tensor, step: int, params: Params) -> Tensor:
    return picks[step]


def _repeated(logits: Tensor, n: int) -> Params:
    return {"logits": logits.expand(n, *logits.shape)}
