"""What inverse Bellman families are made of: tasks, kernels, features and the Gaussian prior.

Shapes: H stages, S states, A actions, d features.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray, TupleTask
from metarl_envs.distributions import GaussianTasks

Kernel = Literal["stochastic", "deterministic"]

# Spawn keys of the population seed: what one argument replaces leaves the other draws as they are.
_KERNEL_KEY, _FEATURE_KEY, _MEAN_KEY, _COVARIANCE_KEY = range(4)


@dataclass(frozen=True)
class InverseBellmanTask(TupleTask):
    """The parameters of the optimal Q-function: `Q*_h(s, a) = sum_j features[h, s, a, j]
    parameters[h][j]`.
    """

    parameters: tuple[tuple[float, ...], ...]
    """(H, d)"""

    @classmethod
    def from_array(cls, array: FloatArray, *, n_stages: int) -> "InverseBellmanTask":
        """The inverse of `to_array`, from (H d,) numbers."""
        return cls(tuple(map(tuple, array.reshape(n_stages, -1).tolist())))


def _population_rng(seed: int, key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))


def draw_features(shape: tuple[int, int, int, int], seed: int) -> FloatArray:
    """Features (H, S, A, d) of variance 1 / d: Q-values are of the order of the parameters."""
    return _population_rng(seed, _FEATURE_KEY).standard_normal(shape) / np.sqrt(shape[-1])


def draw_transitions(kernel: Kernel, shape: tuple[int, int, int], seed: int) -> FloatArray:
    """Kernels (H, S, A, S): uniform on the simplex, or each a single random state."""
    rng = _population_rng(seed, _KERNEL_KEY)
    n_states = shape[1]
    if kernel == "deterministic":
        return np.eye(n_states)[rng.integers(n_states, size=shape)]
    return rng.dirichlet(np.ones(n_states), size=shape)


def prior_mean(mean: ArrayLike | None, shape: tuple[int, int], seed: int) -> FloatArray:
    """The mean handed in, as (H, d), or standard normal numbers."""
    if mean is None:
        return _population_rng(seed, _MEAN_KEY).standard_normal(shape)
    array = _checked_numbers("prior_mean", mean)
    if array.shape not in (shape, shape[1:]) or not np.all(np.isfinite(array)):
        raise ValueError(
            f"prior_mean has shape {array.shape}: give finite numbers of shape (H, d) = {shape} "
            "or (d,)"
        )
    return np.broadcast_to(array, shape).copy()


def prior_covariance(
    covariance: ArrayLike | None, shape: tuple[int, int, int], task_std: float, seed: int
) -> FloatArray:
    """The covariance handed in, or one with equal variances `task_std^2` and random
    correlations.
    """
    if covariance is None:
        draws = _population_rng(seed, _COVARIANCE_KEY).standard_normal(shape)
        gram = draws @ draws.swapaxes(-1, -2) / shape[-1] + np.eye(shape[-1])
        scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
        return task_std**2 * gram / (scale[:, :, None] * scale[:, None, :])
    array = _checked_numbers("prior_covariance", covariance)
    if array.shape not in (shape, shape[1:]) or not np.all(np.isfinite(array)):
        raise ValueError(
            f"prior_covariance has shape {array.shape}: give finite numbers of shape "
            f"(H, d, d) = {shape} or (d, d)"
        )
    largest = np.abs(array).max()
    if not np.allclose(array, array.swapaxes(-1, -2), rtol=0, atol=1e-10 * largest):
        raise ValueError("prior_covariance is not symmetric")
    smallest = np.linalg.eigvalsh(array).min()
    if smallest < -1e-10 * largest:
        raise ValueError(
            f"prior_covariance has the negative eigenvalue {smallest:.3g}: "
            "give a positive semi-definite one"
        )
    return np.broadcast_to(array, shape).copy()


def _checked_numbers(name: str, value: ArrayLike) -> FloatArray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}={value!r} is not an array of numbers") from error


def gaussian_tasks(mean: FloatArray, covariance: FloatArray) -> GaussianTasks:
    """Independent stages; the factor is block-diagonal, by eigenvectors, so that singular
    covariances are legal.
    """
    n_stages, d = mean.shape
    values, vectors = np.linalg.eigh(covariance)
    factors = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    factor = np.zeros((n_stages, d, n_stages, d))
    stage = np.arange(n_stages)
    factor[stage, :, stage, :] = factors
    make_task = partial(InverseBellmanTask.from_array, n_stages=n_stages)
    return GaussianTasks(make_task, mean.ravel(), factor=factor.reshape(n_stages * d, n_stages * d))
