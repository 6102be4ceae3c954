"""Returns and advantages of padded episodes.

Shapes: E episodes, T steps, `...` any leading axes, such as tasks. Steps beyond the end of an
episode have mask 0; whatever stands there is ignored, and zeros come out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-8


class WeightedEpisodes(NamedTuple):
    """What losses need of E episodes of one task; leading axes, such as tasks, are allowed.

    Everything but the observations, actions and masks is a constant: no gradient passes through it.

    :param observations: (..., E, T, obs_dim)
    :param actions: (..., E, T, act_dim), as sampled
    :param mask: (..., E, T), 1 while the episode runs
    :param dist_params: (..., E, T, P) of the policy that acted
    :param log_probs: (..., E, T) of the actions under the policy that acted
    :param advantages: (..., E, T) A_t, zero in padding
    :param rewards: (..., E, T) gamma^t r_t, what DiCE multiplies
    :param baselines: (..., E, T) gamma^t b_t, for DiCE's baseline term
    :param returns: (..., E) the discounted return of each episode
    :param action_masks: (..., E, T, A) bool, None where the env has no such rule
    """

    observations: Tensor
    actions: Tensor
    mask: Tensor
    dist_params: Tensor
    log_probs: Tensor
    advantages: Tensor
    rewards: Tensor
    baselines: Tensor
    returns: Tensor
    action_masks: Tensor | None = None


def discounted_returns(
    rewards: Float[Tensor, "*batch T"],
    mask: Float[Tensor, "*batch T"],
    gamma: float,
    bootstrap: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Discounted reward-to-go R_t = r_t + gamma R_{t+1} of each step.

    :param rewards: r_t
    :param mask: 1 while the episode runs
    :param gamma: the discount factor
    :param bootstrap: the value of what follows the last step; None for zero
    """
    rewards = rewards * mask
    if bootstrap is not None:
        rewards = rewards + gamma * bootstrap.unsqueeze(-1) * _last_steps(mask)
    return _discounted_sums(rewards, gamma) * mask


def generalized_advantages(
    rewards: Float[Tensor, "*batch T"],
    values: Float[Tensor, "*batch T"],
    mask: Float[Tensor, "*batch T"],
    gamma: float,
    gae_lambda: float,
    last_values: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Generalised advantage estimates (Schulman et al., 2016, equation 16).

    A_t = sum_k (gamma lambda)^k delta_{t+k} with delta_t = r_t + gamma V(s_{t+1}) - V(s_t).

    :param rewards: r_t
    :param values: V(s_t)
    :param mask: 1 while the episode runs
    :param gamma: the discount factor
    :param gae_lambda: lambda; 1 gives returns minus values
    :param last_values: V of what follows the last step, zero where the episode terminated; None
        for zero everywhere, which counts time limits as ends
    """
    values = values * mask
    following = th.nn.functional.pad(values[..., 1:], (0, 1))
    if last_values is not None:
        following = following + last_values.unsqueeze(-1) * _last_steps(mask)
    deltas = (rewards + gamma * following - values) * mask
    return _discounted_sums(deltas, gamma * gae_lambda) * mask


def normalized(advantages: Tensor, mask: Tensor, axes: int | Sequence[int] = (-2, -1)) -> Tensor:
    """(A - mean) / (std + 1e-8) with moments over the valid steps along the axes; zero in padding.

    The standard deviation divides by the number of steps, as NumPy's does.

    :param advantages: (..., E, T)
    :param mask: (..., E, T), 1 while the episode runs
    :param axes: (-2, -1) for each task by itself
    """
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    centred, spread = _centred_and_spread(advantages, mask, axes)
    return centred / spread


def deviation(advantages: Tensor, mask: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """The standard deviation of the valid steps, what normalisation divides by.

    :param advantages: (..., E, T)
    :param mask: (..., E, T), 1 while the episode runs
    :param axes: those to take it over, which stay with length 1; None for all: a scalar
    """
    return _centred_and_spread(advantages, mask, axes)[1]


def _centred_and_spread(
    advantages: Tensor, mask: Tensor, axes: tuple[int, ...] | None
) -> tuple[Tensor, Tensor]:
    """Advantages less their mean, zero in padding, and their deviation plus 1e-8."""
    keepdim = axes is not None
    n_steps = mask.sum(axes, keepdim=keepdim).clamp(min=1.0)
    mean = (advantages * mask).sum(axes, keepdim=keepdim) / n_steps
    centred = (advantages - mean) * mask
    return centred, (centred.square().sum(axes, keepdim=keepdim) / n_steps).sqrt() + EPSILON


def _discounted_sums(terms: Tensor, factor: float) -> Tensor:
    """S_t = x_t + factor * S_{t+1} along the last axis."""
    running, sums = th.zeros_like(terms[..., 0]), []
    for term in reversed(terms.unbind(-1)):
        running = term + factor * running
        sums.append(running)
    return th.stack(sums[::-1], dim=-1) if sums else terms


def _last_steps(mask: Tensor) -> Tensor:
    """1 at the last step of each episode."""
    return mask - th.nn.functional.pad(mask[..., 1:], (0, 1))
