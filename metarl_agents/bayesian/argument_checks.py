"""Checks of constructor arguments that the Bayesian agents share."""

from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.argument_checks import check_number


def check_positive(name: str, value: Any, *, whole: bool = False, zero: bool = False) -> None:
    """Raise unless ``value`` is a finite number above zero (or zero, where ``zero`` allows it).

    :raises TypeError: if it is not a number, or not a whole one where ``whole`` asks for that
    :raises ValueError: if it is too small or not finite
    """
    bound = {"at_least" if zero else "above": 0}
    check_number(name, value, whole=whole, **bound)


def checked_mean(name: str, value: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a prior mean as (H, C, m).

    :param value: (H, d), or a number for all
    :param shape: (H, C, m)
    :raises ValueError: if it has another shape or is not finite
    """
    stages, blocks, size = shape
    mean = _numbers(name, value)
    if mean.ndim and mean.shape != (stages, blocks * size):
        raise ValueError(
            f"{name} has shape {mean.shape}: give (n_stages, n_features) = "
            f"{(stages, blocks * size)}"
        )
    if not np.isfinite(mean).all():
        raise ValueError(f"{name} is not finite: replace NaN and infinite entries")
    return np.broadcast_to(mean, (stages, blocks * size)).reshape(shape).copy()


def checked_covariance(name: str, value: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a prior covariance as blocks (H, C, m, m).

    :param value: (H, d, d), or a variance for all
    :param shape: (H, C, m)
    :raises ValueError: if it has another shape, is not finite, symmetric or positive semi-definite
        beyond rounding, or couples features of different blocks
    """
    stages, blocks, size = shape
    width = blocks * size
    matrix = _numbers(name, value)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} is not finite: replace NaN and infinite entries")
    if matrix.ndim == 0:
        if matrix < 0:
            raise ValueError(f"{name}={float(matrix)} must be at least 0: it is a variance")
        matrix = np.broadcast_to(matrix * np.eye(width), (stages, width, width))
    if matrix.shape != (stages, width, width):
        raise ValueError(
            f"{name} has shape {matrix.shape}: give (n_stages, n_features, n_features) = "
            f"{(stages, width, width)} or one variance"
        )
    scale = max(float(np.abs(matrix).max()), 1e-300)
    if np.abs(matrix - matrix.swapaxes(-1, -2)).max() > 1e-8 * scale:
        raise ValueError(f"{name} is not symmetric: pass (C + C') / 2")
    if np.linalg.eigvalsh((matrix + matrix.swapaxes(-1, -2)) / 2).min() < -1e-8 * scale:
        raise ValueError(
            f"{name} is not positive semi-definite: clip its negative eigenvalues at 0"
        )
    split = matrix.reshape(stages, blocks, size, blocks, size)
    own = np.einsum("hcmcn->hcmn", split)
    within = np.einsum("hcmn,cd->hcmdn", own, np.eye(blocks))
    if np.abs(split - within).max() > 1e-8 * scale:
        raise ValueError(
            f"{name} couples features of different blocks: pass covariance='full' to the agent, or "
            "its block diagonal"
        )
    return np.ascontiguousarray(own)


def checked_prior(mean: Tensor, covariance: Tensor) -> None:
    """Raise unless a learned prior is one: shapes that fit, float64, finite, and a covariance.

    :param mean: shape (R, H, C, m)
    :param covariance: shape (R, H, C, m, m)
    :raises ValueError: with what is wrong
    """
    if mean.ndim != 4 or covariance.shape != (*mean.shape, mean.shape[-1]):
        raise ValueError(
            f"the learned prior has shapes {tuple(mean.shape)} and {tuple(covariance.shape)}: the "
            "state is damaged"
        )
    if mean.dtype != th.float64 or covariance.dtype != th.float64:
        raise ValueError(f"the learned prior is {mean.dtype}, not float64: the state is damaged")
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError("the learned prior is not finite: the state is damaged")
    scale = covariance.abs().amax().clamp_min(1e-300)
    symmetric = (covariance - covariance.mT).abs().amax() <= 1e-8 * scale
    if not symmetric or th.linalg.eigvalsh(covariance).amin() < -1e-8 * scale:
        raise ValueError("the learned prior covariance is no covariance: the state is damaged")


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r} must be a number or an array of numbers") from None
