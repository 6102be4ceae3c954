"""Baselines: predicted returns that are subtracted from returns to reduce variance.

Padding is never fitted. Shapes: M tasks, E episodes, T steps, D features, `...` leading axes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch as th
from torch import Tensor

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies.networks import PolicyNetwork
from metarl_agents.common.returns import (
    WeightedEpisodes,
    deviation,
    discounted_returns,
    generalized_advantages,
    normalized,
)
from metarl_agents.common.value_baseline import ValueBaseline

__all__ = [
    "Baseline",
    "LinearBaseline",
    "LinearFeatureBaseline",
    "LinearTimeBaseline",
    "ValueBaseline",
    "ZeroBaseline",
    "predicted_values",
    "ridge_solution",
    "state_time_features",
    "time_features",
    "weighted_episodes",
]

N_RETRIES = 5


class Baseline(Protocol):
    """Predicts the return of every step."""

    def __call__(self, episodes: EpisodeBatch, returns: Tensor) -> Tensor:
        """Predictions of `returns`, (..., E, T), extrapolated where the mask is 0.

        :param episodes: leading axis M allowed; observations, mask and what the baseline looks at
        :param returns: (..., E, T) reward-to-go; baselines that are fitted in-sample fit it
        """
        ...


class ZeroBaseline:
    """Predicts nothing."""

    def __call__(self, episodes: EpisodeBatch, returns: Tensor) -> Tensor:
        """Zeros, (..., E, T); see `Baseline`."""
        return th.zeros_like(returns)


def time_features(episodes: EpisodeBatch) -> Tensor:
    """[t/100, (t/100)^2, (t/100)^3, 1] of each step, (..., E, T, 4) float64.

    :param episodes: leading axis M allowed
    """
    mask = episodes.mask
    t = th.arange(mask.shape[-1], device=mask.device, dtype=th.float64) / 100.0
    features = th.stack([t, t.square(), t**3, th.ones_like(t)], dim=-1)
    return features.expand(*mask.shape, 4)


def state_time_features(episodes: EpisodeBatch) -> Tensor:
    """[o, o^2] of the observation o clipped to [-10, 10], then `time_features`; float64.

    :param episodes: leading axis M allowed
    """
    clipped = episodes.observations.to(th.float64).clamp(-10.0, 10.0)
    return th.cat([clipped, clipped.square(), time_features(episodes)], dim=-1)


@dataclass(frozen=True)
class LinearBaseline:
    """Ridge regression of returns on features, fitted in each task to the data it is applied to.

    Solved in float64, since the features are nearly collinear; see `ridge_solution`.

    :param features: function from episodes to (..., E, T, D)
    :param ridge: added to the diagonal of the normal equations
    """

    features: Callable[[EpisodeBatch], Tensor]
    ridge: float = 1e-5

    def __call__(self, episodes: EpisodeBatch, returns: Tensor) -> Tensor:
        """In-sample predictions, (..., E, T); see `Baseline`."""
        mask = episodes.mask.to(th.float64)
        features = self.features(episodes).flatten(-3, -2)
        targets = returns.to(th.float64).flatten(-2, -1).unsqueeze(-1)
        weights = ridge_solution(features, targets, mask.flatten(-2, -1), self.ridge)
        return (features @ weights).reshape(mask.shape).to(returns.dtype)


class LinearFeatureBaseline(LinearBaseline):
    """Linear in observations, their squares and a cubic in time (Duan et al., 2016).

    :param ridge: added to the diagonal of the normal equations
    """

    def __init__(self, ridge: float = 1e-5) -> None:
        super().__init__(state_time_features, ridge)


class LinearTimeBaseline(LinearBaseline):
    """A cubic in time, as in the experiments with DiCE of Rothfuss et al. (2019).

    :param ridge: added to the diagonal of the normal equations
    """

    def __init__(self, ridge: float = 1e-5) -> None:
        super().__init__(time_features, ridge)


def ridge_solution(features: Tensor, targets: Tensor, mask: Tensor, ridge: float) -> Tensor:
    """Solves (X'X + ridge I) w = X'y, (..., D, 1), with the rows whose mask is 1.

    Where a system is not positive definite in float64, it is solved with 10 times the ridge, up to
    five times.

    :param features: X, (..., n, D)
    :param targets: y, (..., n, 1)
    :param mask: (..., n)
    :param ridge: the first one
    """
    weighted = features * mask.unsqueeze(-1)
    gram, moments = weighted.mT @ weighted, weighted.mT @ targets
    identity = th.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    weights = _solved(gram + ridge * identity, moments)
    for _ in range(N_RETRIES):
        failed = ~weights.isfinite().all(-2, keepdim=True)
        if not failed.any():
            return weights
        ridge *= 10.0
        weights = th.where(failed, _solved(gram + ridge * identity, moments), weights)
    if not weights.isfinite().all():
        raise ValueError(
            f"the linear baseline has no finite solution, even with ridge={ridge:g}: observations "
            "or returns are not finite or far too large; scale the rewards, or use no baseline"
        )
    return weights


def _solved(matrices: Tensor, right_sides: Tensor) -> Tensor:
    factors, failures = th.linalg.cholesky_ex(matrices)
    solutions = th.cholesky_solve(right_sides, factors)
    return solutions.masked_fill((failures != 0)[..., None, None], th.nan)


def weighted_episodes(
    network: PolicyNetwork,
    episodes: EpisodeBatch,
    baseline: Baseline,
    *,
    gamma: float,
    gae_lambda: float,
    normalize: Literal["task", "batch"] | None,
    bootstrap_truncated: bool = False,
) -> WeightedEpisodes:
    """Episodes with log-probabilities and advantages, which no gradient passes through.

    :param network: of the policy that acted
    :param episodes: leading axis M allowed
    :param baseline: predicts returns
    :param gamma: the discount factor
    :param gae_lambda: lambda of the advantages
    :param normalize: "task" gives advantages mean 0 and deviation 1 in each task; "batch" divides
        all by one number, their `deviation` over the whole meta-batch; None leaves them
    :param bootstrap_truncated: whether the baseline's prediction continues episodes that a time
        limit cut; otherwise the cut counts as their end
    """
    _check(network, episodes, normalize)
    rewards, mask = episodes.rewards * episodes.mask, episodes.mask
    with th.no_grad():
        values, last_values = predicted_values(
            baseline, episodes, gamma=gamma, bootstrap_truncated=bootstrap_truncated
        )
        advantages = generalized_advantages(rewards, values, mask, gamma, gae_lambda, last_values)
        if normalize == "task":
            advantages = normalized(advantages, mask)
        elif normalize == "batch":
            advantages = advantages / deviation(advantages, mask)
        log_probs = network.distribution.log_prob(
            episodes.dist_params, episodes.actions, episodes.action_masks
        )
    discounts = gamma ** th.arange(mask.shape[-1], dtype=mask.dtype, device=mask.device)
    return WeightedEpisodes(
        observations=episodes.observations,
        actions=episodes.actions,
        mask=mask,
        dist_params=episodes.dist_params,
        log_probs=log_probs * mask,
        advantages=advantages,
        rewards=discounts * rewards,
        baselines=discounts * values,
        returns=(discounts * rewards).sum(-1),
        action_masks=episodes.action_masks,
    )


def predicted_values(
    baseline: Baseline, episodes: EpisodeBatch, *, gamma: float, bootstrap_truncated: bool = False
) -> tuple[Tensor, Tensor | None]:
    """A baseline's predictions (..., E, T), and what follows truncated episodes (..., E).

    The latter is zero where an episode terminated, and None without `bootstrap_truncated`.

    :param baseline: predicts returns; those it is given end where the episodes do
    :param episodes: leading axis M allowed
    :param gamma: the discount factor
    :param bootstrap_truncated: whether time limits are no ends
    """
    returns = discounted_returns(episodes.rewards, episodes.mask, gamma)
    if not bootstrap_truncated:
        return baseline(episodes, returns) * episodes.mask, None
    pad = th.nn.functional.pad
    ends = episodes.lengths.unsqueeze(-1)
    observations = pad(episodes.observations, (0, 0, 0, 1))
    index = ends.unsqueeze(-1).expand(*ends.shape, observations.shape[-1])
    continued = episodes._replace(
        observations=observations.scatter(-2, index, episodes.final_observations.unsqueeze(-2)),
        mask=pad(episodes.mask, (0, 1)),
    )
    values = baseline(continued, pad(returns, (0, 1)))
    last_values = values.gather(-1, ends).squeeze(-1) * (1.0 - episodes.terminated)
    return values[..., :-1] * episodes.mask, last_values


def _check(network: PolicyNetwork, episodes: EpisodeBatch, normalize: str | None) -> None:
    n_params = network.distribution.n_params
    if episodes.dist_params.shape[-1] != n_params:
        raise ValueError(
            f"episodes.dist_params has {episodes.dist_params.shape[-1]} numbers per step but the "
            f"policy's distributions have {n_params}: collect episodes with FunctionalPolicy"
        )
    if normalize not in ("task", "batch", None):
        raise ValueError(f'normalize={normalize!r} must be "task", "batch" or None')
