"""Surrogate losses of policy gradients: pure functions of log-probabilities and of constants.

Shapes: E episodes, T steps, ``...`` any leading axes (tasks), which every loss keeps. All losses
are minimised. The surrogates have the same first derivative where the policy is the one that acted;
they differ in the second, which is what an inner step of a meta-gradient is differentiated by.
"""

from collections.abc import Callable
from typing import Literal

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.common.policies.distributions import ActionDistribution
from metarl_agents.common.policies.networks import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes

Reduction = Literal["mean", "sum"]
InnerLoss = Callable[[Tensor, WeightedEpisodes, Reduction], Tensor]


def reinforce_loss(
    log_probs: Float[Tensor, "... episode time"],
    episodes: WeightedEpisodes,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """``- A_t log pi(a_t | s_t)`` (Williams 1992): the inner loss of MAML (Finn, Abbeel, Levine
    2017, https://arxiv.org/abs/1703.03400).

    :param log_probs: (..., E, T) of the policy to differentiate, 0 in padding
    :param episodes: their advantages, (..., E, T), are the weights
    :param reduction: "mean" over the valid steps of a task, as the published codes do, or "sum"
        over time and mean over episodes, the exact gradient of a return
    """
    return _reduced(-log_probs * episodes.advantages, episodes.mask, reduction)


def likelihood_ratio_loss(
    log_probs: Float[Tensor, "... episode time"],
    old_log_probs: Float[Tensor, "... episode time"] | None,
    episodes: WeightedEpisodes,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """``- A_t pi / pi_old``: as an inner loss the low-variance curvature of ProMP (Rothfuss et al.
    2019, equation 10, https://arxiv.org/abs/1810.06784); as an outer one the surrogate of TRPO.

    :param log_probs: (..., E, T) of the policy to differentiate, 0 in padding
    :param old_log_probs: (..., E, T), the constant denominators; None takes those of ``log_probs``
    :param episodes: their advantages, (..., E, T), are the weights
    :param reduction: see :func:`reinforce_loss`
    """
    ratios = _ratios(log_probs, old_log_probs)
    return _reduced(-ratios * episodes.advantages, episodes.mask, reduction)


def dice_loss(
    log_probs: Float[Tensor, "... episode time"],
    episodes: WeightedEpisodes,
    reduction: Reduction = "mean",
    *,
    baseline: bool = False,
) -> Float[Tensor, "..."]:
    """DiCE (Foerster et al. 2018, equations 5 and 9, https://arxiv.org/abs/1802.05098):
    ``- sum_t box(l_<=t) r_t``, where ``box(x) = exp(x - stop_gradient(x))`` and ``l_<=t`` is the
    sum of the log-probabilities up to and with step t; all derivatives are unbiased.

    Rewards, never rewards-to-go: their product with the box is wrong from the first derivative on.

    :param log_probs: (..., E, T) of the policy to differentiate, 0 in padding
    :param episodes: their discounted rewards, (..., E, T); with ``baseline`` also their discounted
        baselines
    :param reduction: see :func:`reinforce_loss`
    :param baseline: whether to add ``- sum_t (1 - box(l_t)) b_t``, which lowers the variance
    """
    values = _box(log_probs.cumsum(dim=-1)) * episodes.rewards
    if baseline:
        values = values + (1 - _box(log_probs)) * episodes.baselines
    return _reduced(-values, episodes.mask, reduction)


def loaded_dice_loss(
    log_probs: Float[Tensor, "... episode time"],
    episodes: WeightedEpisodes,
    reduction: Reduction = "mean",
    *,
    decay: float = 1.0,
) -> Float[Tensor, "..."]:
    """Loaded DiCE (Farquhar, Whiteson, Foerster 2019, equation 10,
    https://arxiv.org/abs/1909.10549): ``- sum_t [box(l_<=t) - box(l_<t)] A_t`` with ``l_<=t = sum_k
    decay^(t - k) log pi_k``. All derivatives are those of the return where A_t is exact and the
    decay is 1. Its value is 0: only derivatives mean something.

    :param log_probs: (..., E, T) of the policy to differentiate, 0 in padding
    :param episodes: their advantages, (..., E, T), are the weights
    :param reduction: see :func:`reinforce_loss`
    :param decay: weight of a step's log-probability in the dependencies of the next step; below 1
        it trades bias in the higher derivatives for variance (lambda in the paper)
    """
    inclusive = _decayed_sums(log_probs, decay)
    values = (_box(inclusive) - _box(inclusive - log_probs)) * episodes.advantages
    return _reduced(-values, episodes.mask, reduction)


def clipped_surrogate_loss(
    log_probs: Float[Tensor, "... episode time"],
    old_log_probs: Float[Tensor, "... episode time"] | None,
    episodes: WeightedEpisodes,
    clip_range: float,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """``- min(r A, clip(r, 1 - eps, 1 + eps) A)`` (Schulman et al. 2017, equation 7,
    https://arxiv.org/abs/1707.06347).

    :param log_probs: (..., E, T) of the policy to differentiate, 0 in padding
    :param old_log_probs: (..., E, T), the constant denominators of r; None takes those of
        ``log_probs``
    :param episodes: their advantages, (..., E, T), are the weights
    :param clip_range: eps
    :param reduction: see :func:`reinforce_loss`
    """
    ratios = _ratios(log_probs, old_log_probs)
    clipped = ratios.clamp(1 - clip_range, 1 + clip_range)
    surrogate = th.minimum(ratios * episodes.advantages, clipped * episodes.advantages)
    return _reduced(-surrogate, episodes.mask, reduction)


def mean_kl(
    distribution: ActionDistribution,
    old: Float[Tensor, "... episode time number"],
    new: Float[Tensor, "... episode time number"],
    mask: Float[Tensor, "... episode time"],
    action_masks: Bool[Tensor, "... episode time action"] | None = None,
) -> Float[Tensor, "..."]:
    """Return ``KL(old || new)``, averaged over the valid steps of each task.

    :param distribution: the family of both
    :param old: (..., E, T, P) numbers of the reference
    :param new: (..., E, T, P) numbers of the other
    :param mask: (..., E, T), 1 while an episode runs
    :param action_masks: (..., E, T, A), the actions that were allowed
    """
    divergences = distribution.kl(old, new, action_masks)
    return _reduced(th.where(mask > 0, divergences, 0.0), mask, "mean")


def episode_log_probs(
    network: PolicyNetwork, params: Params, episodes: WeightedEpisodes
) -> Float[Tensor, "... episode time"]:
    """Return the log-probabilities (..., E, T) of the actions taken, 0 in padding.

    :param network: the policy's architecture
    :param params: its parameters, with the leading axis of the episodes or with none
    :param episodes: observations and actions
    """
    numbers = network.dist_params(params, episodes.observations)
    return step_log_probs(network.distribution, numbers, episodes)


def step_log_probs(
    distribution: ActionDistribution,
    dist_params: Float[Tensor, "... episode time number"],
    episodes: WeightedEpisodes,
) -> Float[Tensor, "... episode time"]:
    """Return the log-probabilities (..., E, T) of the actions taken, 0 in padding.

    :param distribution: the family of all of them
    :param dist_params: (..., E, T, P) of the policy that is asked
    :param episodes: actions
    """
    log_probs = distribution.log_prob(dist_params, episodes.actions, episodes.action_masks)
    return th.where(episodes.mask > 0, log_probs, 0.0)


def total_log_prob(
    log_probs: Float[Tensor, "... episode time"], mask: Float[Tensor, "... episode time"]
) -> Float[Tensor, "..."]:
    """Return the log-probability (...) of all episodes together: a sum, as score terms need it.

    :param log_probs: (..., E, T)
    :param mask: (..., E, T), 1 while an episode runs
    """
    return th.where(mask > 0, log_probs, 0.0).sum(dim=(-2, -1))


def _reduced(values: Tensor, mask: Tensor, reduction: Reduction) -> Tensor:
    total = (values * mask).sum(dim=(-2, -1))
    if reduction == "mean":
        return total / mask.sum(dim=(-2, -1)).clamp_min(1)
    if reduction == "sum":
        return total / mask.shape[-2]
    raise ValueError(f"reduction={reduction!r} is not known: use 'mean' or 'sum'")


def _box(values: Tensor) -> Tensor:
    """The operator of DiCE: 1, with the derivative of its argument."""
    return (values - values.detach()).exp()


def _ratios(log_probs: Tensor, old_log_probs: Tensor | None) -> Tensor:
    old = log_probs if old_log_probs is None else old_log_probs
    return (log_probs - old.detach()).exp()


def _decayed_sums(log_probs: Tensor, decay: float) -> Tensor:
    if decay == 1:
        return log_probs.cumsum(dim=-1)
    steps = th.arange(log_probs.shape[-1], device=log_probs.device)
    ages = steps.unsqueeze(-1) - steps
    weights = th.where(ages >= 0, float(decay) ** ages.clamp_min(0), 0.0).to(log_probs.dtype)
    return log_probs @ weights.mT


def _low_variance_curvature(
    log_probs: Tensor, episodes: WeightedEpisodes, reduction: Reduction
) -> Tensor:
    return likelihood_ratio_loss(log_probs, None, episodes, reduction)


def _recorded_ratio(log_probs: Tensor, episodes: WeightedEpisodes, reduction: Reduction) -> Tensor:
    return likelihood_ratio_loss(log_probs, episodes.log_probs, episodes, reduction)


def _dice_with_baseline(
    log_probs: Tensor, episodes: WeightedEpisodes, reduction: Reduction
) -> Tensor:
    return dice_loss(log_probs, episodes, reduction, baseline=True)


# "none" takes MAML's gradient as a constant (first-order MAML). "ratio" is "lvc" with the recorded
# log-probabilities as denominators: what ProMP needs once its parameters left those that sampled.
INNER_LOSSES: dict[str, InnerLoss] = {
    "loglik": reinforce_loss,
    "none": reinforce_loss,
    "lvc": _low_variance_curvature,
    "ratio": _recorded_ratio,
    "dice": dice_loss,
    "dice_baseline": _dice_with_baseline,
    "loaded_dice": loaded_dice_loss,
}
