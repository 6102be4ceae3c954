"""Randomised least-squares value iteration: Q-functions drawn backwards through the stages of a
task.

Shapes as in :mod:`.linear_gaussian`: ``...`` leading axes, H stages, C blocks of m features, U
successors.
"""

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bayesian.linear_gaussian import Posterior, Statistics, batched_product


def sample_parameters(
    given: Posterior,
    noise: Float[Tensor, "... stage block feature"] | None = None,
    *,
    bootstrap: bool = True,
    clip: bool = False,
) -> Float[Tensor, "... stage block feature"]:
    """Draw the parameters of every stage from the posterior, backwards, each stage's targets from
    the draw of the next.

    ``y = r + max_a' phi_{h+1}(s', a')' theta_{h+1}``; ``theta_h = mu + P (P'(X'y - G mu) / sigma2 +
    z)``. This is randomised least-squares value iteration with a Gaussian prior (Osband, Van Roy,
    Wen 2016, Algorithm 1).

    :param given: from :func:`posterior`
    :param noise: standard normal z; ``None`` gives the posterior mean, with targets from the mean
        of the next stage
    :param bootstrap: False drops the value of the successor from the targets (a contextual bandit
        per stage)
    :param clip: clip the value of stage h's successors to [0, H - h - 1] (stages from 0)
    :return: shape (..., H, C, m)
    """
    n_stages = given.statistics.gram.shape[-4]
    draws: list[Tensor] = []
    for stage in reversed(range(n_stages)):
        moment = target_moment(
            given.statistics, stage, draws[-1] if draws and bootstrap else None, clip=clip
        )
        mean = given.prior.mean[..., stage, :, :]
        gram, root = given.statistics.gram[..., stage, :, :, :], given.root[..., stage, :, :, :]
        surprise = moment - batched_product(gram, mean)
        white = batched_product(root.mT, surprise) / given.sigma2[..., stage, None, None]
        if noise is not None:
            white = white + noise[..., stage, :, :]
        draws.append(mean + batched_product(root, white))
    return th.stack(draws[::-1], dim=-3)


def target_moment(
    statistics: Statistics,
    stage: int,
    next_parameters: Float[Tensor, "... block feature"] | None,
    *,
    clip: bool = False,
) -> Float[Tensor, "... block feature"]:
    """Return ``X'y`` of one stage, ``y = r + v(s')`` with v from the next stage's parameters
    (``None``: v = 0)."""
    moment = statistics.reward_moment[..., stage, :, :]
    if next_parameters is None:
        return moment
    n_left = statistics.gram.shape[-4] - stage - 1
    bounds = (0.0, float(n_left)) if clip else None
    values = successor_values(statistics, stage, next_parameters, bounds)
    return moment + batched_product(
        statistics.successor_moment[..., stage, :, :, :], values.unsqueeze(-2)
    )


def target_moments(
    statistics: Statistics,
    parameters: Float[Tensor, "... stage block feature"],
    *,
    bootstrap: bool = True,
    clip: bool = False,
) -> Float[Tensor, "... stage block feature"]:
    """Return ``X'y`` of every stage with the successors valued by ``parameters``, shape (..., H, C,
    m)."""
    n_stages = parameters.shape[-3]
    following = [
        parameters[..., stage + 1, :, :] if bootstrap and stage + 1 < n_stages else None
        for stage in range(n_stages)
    ]
    return th.stack(
        [target_moment(statistics, h, following[h], clip=clip) for h in range(n_stages)], dim=-3
    )


def action_values(
    features: Float[Tensor, "... action feature"],
    parameters: Float[Tensor, "... block feature"],
) -> Float[Tensor, "... action"]:
    """Return ``phi(s, a)' theta`` for every action; C = 1 broadcasts over actions, C = A pairs
    them."""
    return (features * parameters).sum(-1)


def successor_values(
    statistics: Statistics,
    stage: int,
    next_parameters: Float[Tensor, "... block feature"],
    clip: tuple[float, float] | None = None,
) -> Float[Tensor, "... successor"]:
    """Return ``max_a phi_{h+1}(s', a)' theta_{h+1}`` over the actions allowed in s', 0 where there
    is no successor.

    :param statistics: of one task, leading axes allowed
    :param stage: h, the stage whose successors are valued
    :param next_parameters: ``theta_{h+1}``, shape (..., C, m)
    :param clip: bounds on the value, as in clipped RLSVI (Agrawal, Chen, Jiang 2021)
    """
    features = statistics.successor_features[..., stage, :, :, :]
    masks = statistics.successor_masks[..., stage, :, :]
    values = action_values(features, next_parameters.unsqueeze(-3))
    best = values.masked_fill(~masks, -th.inf).amax(-1)
    best = best if clip is None else best.clamp(*clip)
    return th.where(masks.any(-1), best, 0.0)
