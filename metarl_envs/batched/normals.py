"""Normal random numbers from uniform ones, for families that are handed uniform numbers only."""

import numpy as np
from scipy.special import ndtri

from metarl_envs.core import FloatArray

SMALLEST_UNIFORM = 2.0**-54
"""Stands for a uniform number of 0, whose normal quantile and logarithm are infinite."""


def normals(uniforms: FloatArray) -> FloatArray:
    """Standard normal numbers, one for each uniform one in [0, 1), of the same shape.

    :param uniforms: multiples of 2^-53, as `Generator.random` gives them
    """
    return np.asarray(ndtri(np.maximum(uniforms, SMALLEST_UNIFORM)))
