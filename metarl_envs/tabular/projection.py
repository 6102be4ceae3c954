"""Least-squares projection of action values on features, and the moments of what comes out.

Shapes: M tasks, H stages, A actions, m features per action, d features.
"""

import numpy as np

from metarl_envs.core import BoolArray, FloatArray


def projector(features: FloatArray, ridge: float) -> FloatArray:
    """The matrix (m, rows) from values to the coefficients of ridge regression.

    :param features: (rows, m)
    :param ridge: added to the diagonal of the Gram matrix; with 0, the shortest solution
    """
    if ridge == 0:
        return np.asarray(np.linalg.pinv(features))
    gram = features.T @ features + ridge * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(gram, features.T))


def project_actions(
    values: FloatArray, features: FloatArray, allowed: BoolArray, ridge: float
) -> tuple[FloatArray, FloatArray]:
    """Coefficients (M, A, m) of one regression per action, and the mean squared residual (M,) over
    all of them.

    :param values: (M, rows, A)
    :param features: (rows, m), the same for every action
    :param allowed: (rows, A), the rows that count for each action
    :param ridge: added to the Gram matrices
    """
    n_tasks, _, n_actions = values.shape
    coefficients = np.zeros((n_tasks, n_actions, features.shape[1]))
    squares = np.zeros(n_tasks)
    for a in range(n_actions):
        rows = allowed[:, a]
        target = values[:, rows, a]
        coefficients[:, a] = target @ projector(features[rows], ridge).T
        squares += np.sum((target - coefficients[:, a] @ features[rows].T) ** 2, axis=1)
    return coefficients, squares / allowed.sum()


def prior_moments(
    parameters: FloatArray,
    mean_squared_residuals: FloatArray,
    *,
    n_blocks: int = 1,
    covariance_scale: float = 1.0,
    mean_shift: float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Mean (H, d) and covariance (H, d, d) over tasks.

    :param parameters: (M, H, d)
    :param mean_squared_residuals: (H,), added to the variances
    :param n_blocks: covariances between different blocks (d / n_blocks numbers each) are set to
        zero
    :param covariance_scale: multiplies the covariance
    :param mean_shift: added to the mean, in standard deviations
    """
    mean = parameters.mean(axis=0)
    centred = parameters - mean
    covariance = np.einsum("khi,khj->hij", centred, centred, optimize=True) / (len(parameters) - 1)
    d = parameters.shape[-1]
    block = np.repeat(np.arange(n_blocks), d // n_blocks)
    covariance = np.where(block[:, None] == block, covariance, 0.0)
    covariance = covariance + mean_squared_residuals[:, None, None] * np.eye(d)
    return misspecified(mean, covariance, covariance_scale, mean_shift)


def misspecified(
    mean: FloatArray, covariance: FloatArray, covariance_scale: float, mean_shift: float
) -> tuple[FloatArray, FloatArray]:
    """A prior that is wrong on purpose: the mean (H, d) shifted by standard deviations, the
    covariance (H, d, d) scaled.
    """
    deviations = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return mean + mean_shift * deviations, covariance_scale * covariance
