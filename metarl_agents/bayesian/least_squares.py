"""Least squares per task, and what its estimates say about the prior once they are averaged.

Shapes: ``...`` leading axes, K tasks, H stages, C blocks, m features per block (see
:mod:`.linear_gaussian`), U successors. The task axis K stands right before the stage axis.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bayesian.hierarchical import PINV_CUTOFF, CovarianceEstimate
from metarl_agents.bayesian.linear_gaussian import (
    GaussianPrior,
    Statistics,
    Transitions,
    batched_product,
    posterior,
    successor_columns,
)
from metarl_agents.bayesian.rlsvi import (
    action_values,
    sample_parameters,
    successor_values,
    target_moment,
    target_moments,
)


class LeastSquares(NamedTuple):
    """Backward least-squares value iteration on one task, without a prior."""

    parameters: Float[Tensor, "... stage block feature"]
    inverse_gram: Float[Tensor, "... stage block feature feature"]  # pseudo-inverse
    residual_squares: Float[Tensor, "... stage"]
    residual_dof: Float[Tensor, "... stage"]  # n - rank; 0 where the fit is saturated


def least_squares(statistics: Statistics, *, bootstrap: bool = True) -> LeastSquares:
    """Return ``theta_h = G_h^+ X_h'y_h``, backwards, each stage's targets from the fit of the
    next."""
    inverse = pseudo_inverse(statistics.gram)
    fits: list[Tensor] = []
    for stage in reversed(range(inverse.shape[-4])):
        following = fits[-1] if fits and bootstrap else None
        moment = target_moment(statistics, stage, following)
        fits.append(batched_product(inverse[..., stage, :, :, :], moment))
    parameters = th.stack(fits[::-1], dim=-3)
    squares = residual_squares(statistics, parameters, bootstrap=bootstrap)
    rank = (th.diagonal(inverse @ statistics.gram, dim1=-2, dim2=-1).sum((-1, -2))).round()
    dof = (statistics.successor_counts.sum(-1) - rank).clamp_min(0)
    return LeastSquares(parameters, inverse, squares, dof)


def pseudo_inverse(
    gram: Float[Tensor, "... feature feature"],
) -> Float[Tensor, "... feature feature"]:
    """Return the Moore-Penrose inverse of positive semi-definite matrices, eigenvalues cut at
    ``PINV_CUTOFF`` of the largest."""
    return th.linalg.pinv(gram, hermitian=True, rtol=PINV_CUTOFF)


def residual_squares(
    statistics: Statistics,
    parameters: Float[Tensor, "... stage block feature"],
    *,
    bootstrap: bool = True,
    clip: bool = False,
) -> Float[Tensor, "... stage"]:
    """Return ``sum_i (r_i + v(s'_i) - phi_i'theta)^2`` of every stage, from the sufficient
    statistics."""
    n_stages = parameters.shape[-3]
    moments = target_moments(statistics, parameters, bootstrap=bootstrap, clip=clip)
    squares = statistics.reward_squares
    if bootstrap and n_stages > 1:
        values = th.stack(
            [
                successor_values(
                    statistics,
                    h,
                    parameters[..., h + 1, :, :],
                    (0.0, float(n_stages - h - 1)) if clip else None,
                )
                for h in range(n_stages - 1)
            ],
            dim=-2,
        )
        values = th.cat([values, th.zeros_like(values[..., :1, :])], dim=-2)
        cross = 2 * statistics.successor_rewards * values + statistics.successor_counts * values**2
        squares = squares + cross.sum(-1)
    fitted = parameters * (batched_product(statistics.gram, parameters) - 2 * moments)
    return (squares + fitted.sum((-1, -2))).clamp_min(0)


def posterior_residuals(
    prior: GaussianPrior,
    statistics: Statistics,
    sigma2: Float[Tensor, "... stage"],
    *,
    bootstrap: bool = True,
    clip: bool = False,
) -> tuple[Float[Tensor, "... stage"], Float[Tensor, "... stage"]]:
    """Return residual squares at the posterior mean and ``n - tr(G Cov / sigma2)`` per stage.

    Their ratio estimates the variance of the targets; the trace is the number of parameters that
    the data, rather than the prior, determine.
    """
    given = posterior(prior, statistics, sigma2)
    mean = sample_parameters(given, bootstrap=bootstrap, clip=clip)
    squares = residual_squares(statistics, mean, bootstrap=bootstrap, clip=clip)
    determined = (given.root * (statistics.gram @ given.root)).sum((-1, -2, -3)) / sigma2
    return squares, (statistics.successor_counts.sum(-1) - determined).clamp_min(0)


def estimation_noise(
    statistics: Statistics,
    transitions: Transitions | None,
    fit: LeastSquares,
    *,
    sandwich: bool,
    propagate: bool,
    bootstrap: bool = True,
) -> Float[Tensor, "... stage block feature feature"]:
    """Return the covariance of a task's least-squares estimate given its true parameters.

    ``homo``: ``s^2 G^+`` with the residual variance ``s^2``. ``sandwich``: ``G^+ (sum_i phi_i
    phi_i' e_i^2) G^+ n / (n - rank)`` (White 1980). With ``propagate`` the next stage's error is
    carried along the fitted greedy policy: ``V_h += T_h V_{h+1} T_h'``, ``T_h = G_h^+ X_h'D``, row
    i of D the greedy features at s'_i.

    :param transitions: the same transitions that ``statistics`` sums up; needed with ``sandwich``
    """
    dof = fit.residual_dof.clamp_min(1)
    if sandwich:
        assert transitions is not None
        meat = _squared_residual_gram(statistics, transitions, fit, bootstrap)
        counts = statistics.successor_counts.sum(-1)
        noise = fit.inverse_gram @ meat @ fit.inverse_gram * (counts / dof)[..., None, None, None]
    else:
        noise = fit.inverse_gram * (fit.residual_squares / dof)[..., None, None, None]
    return _propagate(statistics, fit, noise) if propagate and bootstrap else noise


def _squared_residual_gram(
    statistics: Statistics, transitions: Transitions, fit: LeastSquares, bootstrap: bool
) -> Float[Tensor, "... stage block feature feature"]:
    """Return ``sum_i phi_i phi_i' e_i^2`` of every stage and block."""
    n_stages, n_blocks = fit.parameters.shape[-3], fit.parameters.shape[-2]
    in_block = th.nn.functional.one_hot(transitions.blocks, n_blocks).to(th.float64)
    predicted = th.einsum(
        "...hem,...hec,...hcm->...he", transitions.features, in_block, fit.parameters
    )
    targets = transitions.rewards
    if bootstrap:
        columns = _columns(statistics, transitions)
        values = th.zeros_like(targets)
        for h in range(n_stages - 1):
            table = successor_values(statistics, h, fit.parameters[..., h + 1, :, :])
            values[..., h, :] = table.gather(-1, columns[..., h, :])
        targets = targets + values
    errors = (targets - predicted) ** 2 * transitions.weights
    return th.einsum(
        "...hem,...hen,...hec,...he->...hcmn",
        transitions.features,
        transitions.features,
        in_block,
        errors,
    )


def _columns(statistics: Statistics, transitions: Transitions) -> Tensor:
    """Return the successor column of every transition, shape (..., H, E)."""
    found = [
        successor_columns(
            statistics,
            transitions.successor_features.select(-3, e),
            transitions.successor_masks.select(-2, e),
        )
        for e in range(transitions.weights.shape[-1])
    ]
    return th.stack(found, dim=-1)


def _propagate(
    statistics: Statistics,
    fit: LeastSquares,
    noise: Float[Tensor, "... stage block feature feature"],
) -> Float[Tensor, "... stage block feature feature"]:
    n_stages, n_blocks = fit.parameters.shape[-3], fit.parameters.shape[-2]
    total = [noise[..., n_stages - 1, :, :, :]]
    for h in reversed(range(n_stages - 1)):
        greedy = _greedy_features(statistics, h, fit.parameters[..., h + 1, :, :], n_blocks)
        carried = th.einsum(
            "...cmn,...cnu,...udp->...cmdp",
            fit.inverse_gram[..., h, :, :, :],
            statistics.successor_moment[..., h, :, :, :],
            greedy,
        )
        extra = th.einsum("...cmdp,...dpq,...cndq->...cmn", carried, total[-1], carried)
        total.append(noise[..., h, :, :, :] + extra)
    return th.stack(total[::-1], dim=-4)


def _greedy_features(
    statistics: Statistics,
    stage: int,
    next_parameters: Float[Tensor, "... block feature"],
    n_blocks: int,
) -> Float[Tensor, "... successor block feature"]:
    features = statistics.successor_features[..., stage, :, :, :]
    masks = statistics.successor_masks[..., stage, :, :]
    values = action_values(features, next_parameters.unsqueeze(-3)).masked_fill(~masks, -th.inf)
    chosen = th.nn.functional.one_hot(values.argmax(-1), masks.shape[-1]).to(features.dtype)
    chosen = chosen * masks.any(-1, keepdim=True)
    if n_blocks == 1:
        return (chosen.unsqueeze(-1) * features).sum(-2, keepdim=True)
    return chosen.unsqueeze(-1) * features


def ols_mean(
    estimates: Float[Tensor, "... task stage block feature"],
    passed: Bool[Tensor, "... task stage block"],
) -> Float[Tensor, "... stage block feature"]:
    """Return the plain average of the per-task estimates that passed the gate, 0 where none did."""
    weights = passed.to(estimates.dtype)
    total = (weights.unsqueeze(-1) * estimates).sum(-4)
    return total / weights.sum(-3).clamp_min(1).unsqueeze(-1)


def ols_covariance(
    estimates: Float[Tensor, "... task stage block feature"],
    noise: Float[Tensor, "... task stage block feature feature"],
    passed: Bool[Tensor, "... task stage block"],
) -> CovarianceEstimate:
    """Return the covariance of the per-task estimates less their noise: ``E S = Sigma + mean_j
    V_j``.

    Not projected: it may have negative eigenvalues, see :func:`project_psd`.
    """
    weights = passed.to(estimates.dtype)
    counts = weights.sum(-3)
    centred = (estimates - ols_mean(estimates, passed).unsqueeze(-4)) * weights.unsqueeze(-1)
    bessel = counts / (counts - 1).clamp_min(1)
    outer = centred.unsqueeze(-1) * centred.unsqueeze(-2) * bessel[..., None, :, :, None, None]
    kept_noise = noise * weights[..., None, None]
    scale = counts.clamp_min(1)[..., None, None]
    return CovarianceEstimate(
        covariance=(outer - kept_noise).sum(-5) / scale,
        contributions=outer - kept_noise,
        weights=weights,
        noise=kept_noise.sum(-5) / scale,
    )
