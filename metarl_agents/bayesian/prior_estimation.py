"""Learn the Gaussian that task parameters are drawn from, out of the statistics of finished tasks.

Three estimators, all per stage and block, all batched: least squares per task, gated and averaged
(``ols``); generalised least squares, which weighs every direction of every task by what its data
say (``gls``); and expectation-maximisation of the marginal likelihood, which learns the covariance
as well (``em``).

Shapes: ``...`` leading axes, K tasks, H stages, C blocks, m features per block (see
:mod:`.linear_gaussian`), U successors. The task axis K stands right before the stage axis.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

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

PINV_CUTOFF = 1e-8  # relative eigenvalue below which a direction counts as not observed


class LeastSquares(NamedTuple):
    """Backward least-squares value iteration on one task, without a prior."""

    parameters: Float[Tensor, "... stage block feature"]
    inverse_gram: Float[Tensor, "... stage block feature feature"]  # pseudo-inverse
    residual_squares: Float[Tensor, "... stage"]
    residual_dof: Float[Tensor, "... stage"]  # n - rank; 0 where the fit is saturated


class CovarianceEstimate(NamedTuple):
    """A covariance as a weighted mean of one contribution per task, as the bootstrap needs it."""

    covariance: Float[Tensor, "... stage block feature feature"]
    contributions: Float[Tensor, "... task stage block feature feature"]
    weights: Float[Tensor, "... task stage block"]
    noise: Float[Tensor, "... stage block feature feature"]  # mean noise of the per-task estimates


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
) -> Float[Tensor, "... stage"]:
    """Return ``sum_i (r_i + v(s'_i) - phi_i'theta)^2`` of every stage, from the sufficient
    statistics."""
    n_stages = parameters.shape[-3]
    moments = target_moments(statistics, parameters, bootstrap=bootstrap)
    squares = statistics.reward_squares
    if bootstrap and n_stages > 1:
        values = th.stack(
            [
                successor_values(statistics, h, parameters[..., h + 1, :, :])
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
) -> tuple[Float[Tensor, "... stage"], Float[Tensor, "... stage"]]:
    """Return residual squares at the posterior mean and ``n - tr(G Cov / sigma2)`` per stage.

    Their ratio estimates the variance of the targets; the trace is the number of parameters that
    the data, rather than the prior, determine.
    """
    given = posterior(prior, statistics, sigma2)
    mean = sample_parameters(given, bootstrap=bootstrap)
    squares = residual_squares(statistics, mean, bootstrap=bootstrap)
    determined = (given.root * (statistics.gram @ given.root)).sum((-1, -2, -3)) / sigma2
    return squares, (statistics.successor_counts.sum(-1) - determined).clamp_min(0)


def gate(
    grams: Float[Tensor, "... task stage block feature feature"],
    threshold: float,
    pooled: Float[Tensor, "... stage block feature feature"] | None = None,
) -> Bool[Tensor, "... task stage block"]:
    """Return which tasks saw every identifiable direction of a (stage, block) at least
    ``threshold`` often.

    A direction that no task ever saw (a feature that is structurally zero, or collinear with others
    at this stage) is left out: with a fixed start state it would keep the gate shut for ever.

    :param grams: ``X'X`` per task
    :param threshold: smallest eigenvalue that passes
    :param pooled: what has been seen in all tasks; None takes the sum of ``grams``
    """
    pooled = grams.sum(-5) if pooled is None else pooled
    values, vectors = th.linalg.eigh(pooled)
    largest = values.amax(-1, keepdim=True)
    unseen = (values <= PINV_CUTOFF * largest.clamp_min(1e-300)).to(grams.dtype)
    filler = (vectors * unseen.unsqueeze(-2)) @ vectors.mT * (threshold + 1)
    smallest = th.linalg.eigvalsh(grams + filler.unsqueeze(-5))[..., 0]
    return (smallest >= threshold) & (largest.squeeze(-1) > 0).unsqueeze(-3)


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


def gls_information(
    grams: Float[Tensor, "... block feature feature"],
    moments: Float[Tensor, "... block feature"],
    covariance: Float[Tensor, "... block feature feature"],
    sigma2: Float[Tensor, "... stage"],
) -> tuple[Float[Tensor, "... block feature feature"], Float[Tensor, "... block feature"]]:
    """Return what each task says about the prior mean: ``W`` and ``W theta``, finite for singular
    Gram matrices.

    Marginally ``theta_j ~ N(mean, covariance + sigma2 G_j^-1)``, so ``W_j = (sigma2 I + G_j
    covariance)^-1 G_j`` and ``W_j theta_j = (sigma2 I + G_j covariance)^-1 X_j'y_j``.

    :param grams: ``X'X``, shape (..., H, C, m, m)
    :param moments: ``X'y``, shape (..., H, C, m)
    :param covariance: within-prior covariance, shape (..., H, C, m, m), broadcast
    """
    size = grams.shape[-1]
    eye = th.eye(size, dtype=grams.dtype, device=grams.device)
    system = sigma2[..., None, None, None] * eye + grams @ covariance
    solved = th.linalg.solve(system, th.cat([grams, moments.unsqueeze(-1)], dim=-1))
    information = solved[..., :size]
    return (information + information.mT) / 2, solved[..., size]


def gls_mean(
    information: Float[Tensor, "... block feature feature"],
    evidence: Float[Tensor, "... block feature"],
    hyper_precision: float,
) -> tuple[Float[Tensor, "... block feature"], Float[Tensor, "... block feature feature"]]:
    """Return the prior mean ``Omega evidence`` and its uncertainty ``Omega = (information +
    hyper_precision I)^-1``.

    The mean is the exact posterior mean under the hyper-prior ``N(0, I / hyper_precision)``.
    """
    eye = th.eye(information.shape[-1], dtype=information.dtype, device=information.device)
    uncertainty = th.linalg.inv(information + hyper_precision * eye)
    uncertainty = (uncertainty + uncertainty.mT) / 2
    return batched_product(uncertainty, evidence), uncertainty


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


class HierarchicalFit(NamedTuple):
    """The outcome of expectation-maximisation."""

    mean: Float[Tensor, "... stage block feature"]
    mean_uncertainty: Float[Tensor, "... stage block feature feature"]
    estimate: CovarianceEstimate


def isotropic_variance(
    grams: Float[Tensor, "... task stage block feature feature"],
    moments: Float[Tensor, "... task stage block feature"],
    start: float,
    sigma2: Float[Tensor, "... stage"],
    *,
    n_iterations: int = 10,
    hyper_precision: float = 0.0,
) -> Float[Tensor, "... stage block"]:
    """Return the evidence estimate of ``tau^2`` in ``theta_j ~ N(mean, tau^2 I)``.

    MacKay's (1992) fixed point ``tau^2 = sum_j |m_j - mu|^2 / sum_j tr(I - K_j / tau^2)`` counts
    only the directions that the data determine, so unseen ones do not hold it where it started. The
    k - 1 in place of k pays for the estimated mean.

    :param start: where to start, and the answer where the data determine nothing
    """
    shape = grams.shape[:-5] + grams.shape[-4:]
    eye = th.eye(shape[-1], dtype=grams.dtype, device=grams.device)
    variance = th.full(shape[:-2], start, dtype=grams.dtype, device=grams.device)
    n_tasks = grams.shape[-5]
    for _ in range(n_iterations):
        covariance = variance[..., None, None] * eye
        mean, _ = _best_mean(grams, moments, covariance, sigma2, hyper_precision)
        posterior, shift = _posterior_tasks(grams, moments, mean, covariance, sigma2)
        resolved = 1 - th.diagonal(posterior, dim1=-2, dim2=-1) / variance[..., None, :, :, None]
        determined = resolved.sum((-1, -4)) * max(n_tasks - 1, 1) / n_tasks
        found = (shift**2).sum((-1, -4)) / determined.clamp_min(1e-300)
        variance = th.where(determined >= 1, found.clamp_min(1e-8 * start), variance)
    return variance


def expectation_maximisation(
    grams: Float[Tensor, "... task stage block feature feature"],
    moments: Float[Tensor, "... task stage block feature"],
    covariance: Float[Tensor, "... stage block feature feature"],
    sigma2: Float[Tensor, "... stage"],
    *,
    n_iterations: int = 8,
    shrinkage: float = 0.0,
    hyper_precision: float = 0.0,
) -> HierarchicalFit:
    """Fit ``theta_j ~ N(mean, covariance)`` to the marginal likelihood of all tasks.

    E-step: ``K_j = (I + Sigma G_j / sigma2)^-1 Sigma``, ``m_j = mu + K_j (X_j'y_j - G_j mu) /
    sigma2``. M-step for the covariance: ``[sum_j K_j + (m_j - mu)(m_j - mu)' + shrinkage Psi] / (k
    + shrinkage)`` with ``Psi`` where the iteration started; the mean by generalised least squares,
    which maximises the marginal likelihood outright. Without shrinkage each half-step raises the
    likelihood (Liu and Rubin 1994, ECME), with it the posterior density under an inverse-Wishart
    prior; the covariance is positive semi-definite by construction.

    :param covariance: where to start, shape (..., H, C, m, m)
    :param shrinkage: weight of the start, in tasks
    """
    start, n_tasks = covariance, grams.shape[-5]
    mean, uncertainty = _best_mean(grams, moments, covariance, sigma2, hyper_precision)
    for _ in range(n_iterations):
        posterior, shift = _posterior_tasks(grams, moments, mean, covariance, sigma2)
        contributions = posterior + shift.unsqueeze(-1) * shift.unsqueeze(-2)
        total = contributions.sum(-5) + shrinkage * start
        covariance = total / (n_tasks + shrinkage)
        mean, uncertainty = _best_mean(grams, moments, covariance, sigma2, hyper_precision)
    weights = th.ones(contributions.shape[:-2], dtype=grams.dtype, device=grams.device)
    estimate = CovarianceEstimate(covariance, contributions, weights, th.zeros_like(covariance))
    return HierarchicalFit(mean, uncertainty, estimate)


def _best_mean(
    grams: Tensor, moments: Tensor, covariance: Tensor, sigma2: Tensor, hyper_precision: float
) -> tuple[Tensor, Tensor]:
    """Return the GLS mean of all tasks and its uncertainty."""
    information, evidence = gls_information(grams, moments, covariance.unsqueeze(-5), sigma2)
    return gls_mean(information.sum(-5), evidence.sum(-4), hyper_precision)


def _posterior_tasks(
    grams: Tensor, moments: Tensor, mean: Tensor, covariance: Tensor, sigma2: Tensor
) -> tuple[Tensor, Tensor]:
    """Return every task's posterior covariance ``K_j`` and shift ``m_j - mu``."""
    size = grams.shape[-1]
    eye = th.eye(size, dtype=grams.dtype, device=grams.device)
    scale = sigma2[..., None, None, None]
    prior = covariance.unsqueeze(-5)
    posterior = th.linalg.solve(eye + prior @ grams / scale, prior.expand_as(grams))
    posterior = (posterior + posterior.mT) / 2
    surprise = moments - batched_product(grams, mean.unsqueeze(-4))
    return posterior, batched_product(posterior, surprise) / scale.squeeze(-1)


def marginal_log_likelihood(
    grams: Float[Tensor, "... task stage block feature feature"],
    moments: Float[Tensor, "... task stage block feature"],
    mean: Float[Tensor, "... stage block feature"],
    covariance: Float[Tensor, "... stage block feature feature"],
    sigma2: Float[Tensor, "... stage"],
) -> Float[Tensor, "... stage block"]:
    """Return ``sum_j log p(y_j | mean, covariance)`` up to what does not depend on them."""
    eye = th.eye(grams.shape[-1], dtype=grams.dtype, device=grams.device)
    scale = sigma2[..., None, None, None]
    prior, centre = covariance.unsqueeze(-5), mean.unsqueeze(-4)
    system = eye + prior @ grams / scale
    surprise = moments - batched_product(grams, centre)
    gain = batched_product(th.linalg.solve(system, prior.expand_as(grams)), surprise)
    flat = sigma2[..., None]
    quadratic = (surprise * gain).sum(-1) / flat**2
    data = (centre * (2 * moments - batched_product(grams, centre))).sum(-1) / flat
    return ((quadratic + data - th.linalg.slogdet(system).logabsdet) / 2).sum(-3)


def project_psd(
    covariance: Float[Tensor, "... feature feature"], floor: float = 0.0
) -> Float[Tensor, "... feature feature"]:
    """Return the symmetric part with eigenvalues below ``floor`` raised to it."""
    values, vectors = th.linalg.eigh((covariance + covariance.mT) / 2)
    return (vectors * values.clamp_min(floor).unsqueeze(-2)) @ vectors.mT


def schedule_width(estimate: CovarianceEstimate, scale: float) -> Float[Tensor, "... stage block"]:
    """Return ``scale ||Sigma + V||_op (sqrt(r / k) + r / k)``, r the effective rank ``tr /
    ||.||_op``: O(k^-1/2).

    The shape is that of sub-Gaussian covariance concentration; the norm is taken of the projected
    covariance plus the mean noise, which one ill-conditioned task cannot blow up as it does the raw
    covariance.
    """
    total = project_psd(estimate.covariance) + project_psd(estimate.noise)
    norm = th.linalg.eigvalsh(total)[..., -1]
    rank = th.diagonal(total, dim1=-2, dim2=-1).sum(-1) / norm.clamp_min(1e-300)
    ratio = rank / estimate.weights.sum(-3).clamp_min(1)
    return scale * norm * (ratio.sqrt() + ratio)


def bootstrap_width(
    estimate: CovarianceEstimate,
    resamples: Float[Tensor, "resample task"],
    quantile: float = 0.9,
) -> Float[Tensor, "... stage block"]:
    """Return a quantile of ``||Sigma - Sigma_boot||_op`` over resampled sets of tasks.

    :param resamples: how often each task stands in each resample (multinomial counts)
    """
    counts = th.einsum("bk,...khc->b...hc", resamples, estimate.weights).clamp_min(1)
    sums = th.einsum("bk,...khcmn->b...hcmn", resamples, estimate.contributions)
    difference = sums / counts[..., None, None] - estimate.covariance
    norms = th.linalg.eigvalsh((difference + difference.mT) / 2).abs().amax(-1)
    return th.quantile(norms, quantile, dim=0)
