"""Make estimated covariances positive semi-definite, and wide enough.

Shapes as in :mod:`.hierarchical`.
"""

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bayesian.hierarchical import CovarianceEstimate


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
    """Return a quantile of ``||S - S_boot||_op`` over resampled sets of tasks, S their mean.

    :param resamples: how often each task stands in each resample (multinomial counts)
    """
    counts = th.einsum("bk,...khc->b...hc", resamples, estimate.weights).clamp_min(1)
    sums = th.einsum("bk,...khcmn->b...hcmn", resamples, estimate.contributions)
    plain_counts = estimate.weights.sum(-3).clamp_min(1)[..., None, None]
    plain = estimate.contributions.sum(-5) / plain_counts
    difference = sums / counts[..., None, None] - plain
    norms = th.linalg.eigvalsh((difference + difference.mT) / 2).abs().amax(-1)
    return th.quantile(norms, quantile, dim=0)
