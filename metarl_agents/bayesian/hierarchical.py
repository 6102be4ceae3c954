"""Hierarchical linear regression: the prior as the distribution of the tasks' parameters.

Generalised least squares weighs every direction of every task by what its data say about the prior
mean; expectation-maximisation learns the covariance as well.

Shapes: ``...`` leading axes, K tasks, H stages, C blocks, m features per block (see
:mod:`.linear_gaussian`). The task axis K stands right before the stage axis.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bayesian.linear_gaussian import batched_product

PINV_CUTOFF = 1e-8  # relative eigenvalue below which a direction counts as not observed


class CovarianceEstimate(NamedTuple):
    """A covariance as a weighted mean of one contribution per task, as the bootstrap needs it."""

    covariance: Float[Tensor, "... stage block feature feature"]
    contributions: Float[Tensor, "... task stage block feature feature"]
    weights: Float[Tensor, "... task stage block"]
    noise: Float[Tensor, "... stage block feature feature"]  # mean noise of the per-task estimates


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
    filler = unseen_directions(pooled) * (threshold + 1)
    smallest = th.linalg.eigvalsh(grams + filler.unsqueeze(-5))[..., 0]
    seen = th.diagonal(pooled, dim1=-2, dim2=-1).amax(-1) > 0
    return (smallest >= threshold) & seen.unsqueeze(-3)


def unseen_directions(
    pooled: Float[Tensor, "... feature feature"],
) -> Float[Tensor, "... feature feature"]:
    """Return the projector onto the directions in which nothing was ever observed.

    :param pooled: Gram matrix of all tasks
    """
    values, vectors = th.linalg.eigh(pooled)
    largest = values.amax(-1, keepdim=True).clamp_min(1e-300)
    unseen = (values <= PINV_CUTOFF * largest).to(pooled.dtype)
    return (vectors * unseen.unsqueeze(-2)) @ vectors.mT


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
        mean, _ = best_mean(grams, moments, covariance, sigma2, hyper_precision)
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
    mean, uncertainty = best_mean(grams, moments, covariance, sigma2, hyper_precision)
    for _ in range(n_iterations):
        posterior, shift = _posterior_tasks(grams, moments, mean, covariance, sigma2)
        contributions = posterior + shift.unsqueeze(-1) * shift.unsqueeze(-2)
        total = contributions.sum(-5) + shrinkage * start
        covariance = total / (n_tasks + shrinkage)
        mean, uncertainty = best_mean(grams, moments, covariance, sigma2, hyper_precision)
    weights = th.ones(contributions.shape[:-2], dtype=grams.dtype, device=grams.device)
    estimate = CovarianceEstimate(covariance, contributions, weights, th.zeros_like(covariance))
    return HierarchicalFit(mean, uncertainty, estimate)


def best_mean(
    grams: Float[Tensor, "... task stage block feature feature"],
    moments: Float[Tensor, "... task stage block feature"],
    covariance: Float[Tensor, "... stage block feature feature"],
    sigma2: Float[Tensor, "... stage"],
    hyper_precision: float,
) -> tuple[
    Float[Tensor, "... stage block feature"], Float[Tensor, "... stage block feature feature"]
]:
    """Return the GLS mean of all tasks and its uncertainty, see :func:`gls_mean`."""
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
