"""The variance of the regression targets: given, or estimated from finished tasks."""

from collections.abc import Sequence

import numpy as np
import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bayesian.beliefs import TaskBelief
from metarl_agents.bayesian.least_squares import posterior_residuals


def given_variance(sigma2: float | Sequence[float], n_stages: int) -> Float[Tensor, " stage"]:
    """Return one variance per stage.

    :param sigma2: one number, or one per stage
    :raises ValueError: if there is another number of them, or one is not positive and finite
    """
    given = np.asarray(sigma2, dtype=np.float64)
    if given.ndim and given.shape != (n_stages,):
        raise ValueError(
            f"sigma2 has shape {given.shape}: give one number, or one per stage ({n_stages})"
        )
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError(f"sigma2={sigma2} must be finite and above 0: it is a variance")
    return th.as_tensor(np.broadcast_to(given, (n_stages,)).copy())


def estimated_variance(
    sums: Float[Tensor, "2 replicate stage"], initial: float | Tensor
) -> Float[Tensor, "replicate stage"]:
    """Return residual squares over degrees of freedom, ``initial`` where there are too few.

    :param sums: from :func:`residual_sums`, added up over the finished tasks
    """
    squares, dof = sums
    known = (dof >= 2) & (squares > 0)
    return th.where(known, squares / dof.clamp_min(1), initial)


def residual_sums(
    belief: TaskBelief,
    so_far: Float[Tensor, "2 replicate stage"],
    *,
    bootstrap: bool,
    clip: bool,
    n_iterations: int = 5,
) -> Float[Tensor, "2 replicate stage"]:
    """Return residual squares of the posterior means and their degrees of freedom.

    The posterior means depend on the variance that is looked for, so the sums are iterated from the
    variance that was in use: otherwise a bad first guess would stay in them for ever. They are
    posterior means, not least squares, since without a prior an ill-conditioned stage multiplies
    the errors of the next one, and one such task would spoil the pooled variance.

    :param belief: of finished tasks, replicates outermost
    :param so_far: the sums of earlier tasks, which the iteration pools with the new ones
    """
    n_replicates = so_far.shape[1]
    variance = belief.sigma2
    for _ in range(n_iterations):
        squares, dof = posterior_residuals(
            belief.effective_prior(), belief.statistics, variance, bootstrap=bootstrap, clip=clip
        )
        sums = th.stack([squares, dof]).unflatten(1, (n_replicates, -1)).sum(2)
        pooled = estimated_variance(
            so_far + sums, belief.sigma2.unflatten(0, (n_replicates, -1))[:, 0]
        )
        variance = pooled.repeat_interleave(len(variance) // n_replicates, dim=0)
    return sums
