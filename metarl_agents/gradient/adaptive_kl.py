"""A penalty coefficient that follows the divergence it is to hold."""

import torch as th
from torch import Tensor

SMALLEST, LARGEST = 1e-6, 1e3
"""Bounds of coefficients, within reach of each other in some thirty updates; ours."""


def followed_coefficients(coefficients: Tensor, divergences: Tensor, target: float) -> Tensor:
    """Doubled where the divergence is above 1.5 targets, halved where below target / 1.5, (K,).

    Schulman, Wolski, Dhariwal, Radford, Klimov (2017), "Proximal policy optimization algorithms",
    section 4, https://arxiv.org/abs/1707.06347. Differs from it: coefficients stay within [1e-6,
    1e3], since one that underflowed to 0 would never come back.

    :param coefficients: (K,), one per inner step
    :param divergences: (K,), measured after the update
    :param target: the divergence to hold
    """
    too_far, too_near = divergences > 1.5 * target, divergences < target / 1.5
    followed = th.where(too_far, coefficients * 2.0, coefficients)
    return th.where(too_near, coefficients / 2.0, followed).clamp(SMALLEST, LARGEST)
