"""Integrals over the start in closed form: how far from the goal straight moves leave a point.

A coordinate at offset u from its goal is `max(|u| - reach, 0)` away after moves that cover `reach`.

Shapes: M tasks, H steps.
"""

import numpy as np

from metarl_envs.core import FloatArray


def mean_moments(
    low: FloatArray, high: FloatArray, reaches: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """Means of `1[distance <= radius]` and of `distance 1[distance <= radius]`, (M, H) each, for
    offsets from the goal that are uniform in a rectangle.

    :param low: smallest offsets, (M, 2)
    :param high: largest offsets, (M, 2), above `low`
    :param reaches: what the moves cover so far, (H,)
    :param radius: infinite for the mean distance
    """
    shape = len(low), len(reaches)
    inside, distance = np.zeros(shape), np.zeros(shape)
    for x, x_sign in ((high[:, 0], 1.0), (low[:, 0], -1.0)):
        for y, y_sign in ((high[:, 1], 1.0), (low[:, 1], -1.0)):
            # The integrands are even in each offset, so their integrals from 0 are odd.
            sign = (x_sign * y_sign * np.sign(x) * np.sign(y))[:, None]
            parts = _moments_from_zero(np.abs(x)[:, None], np.abs(y)[:, None], reaches, radius)
            inside += sign * parts[0]
            distance += sign * parts[1]
    area = np.prod(high - low, axis=1)[:, None]
    return inside / area, distance / area


def _moments_from_zero(
    width: FloatArray, height: FloatArray, reach: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """Integrals over offsets in [0, width] x [0, height]; those within reach leave no distance."""
    reached = np.minimum(width, reach), np.minimum(height, reach)
    left = np.maximum(width - reach, 0.0), np.maximum(height - reach, 0.0)
    within = np.minimum(left[0], radius), np.minimum(left[1], radius)
    inside, distance = _moments_of_disc(*left, radius)
    inside += reached[0] * reached[1] + reached[0] * within[1] + reached[1] * within[0]
    distance += (reached[0] * within[1] ** 2 + reached[1] * within[0] ** 2) / 2
    return inside, distance


def _moments_of_disc(
    width: FloatArray, height: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """Integrals of 1 and of the distance from 0 over the part of [0, width] x [0, height] within
    `radius` of 0.

    In polar coordinates the part ends at `width / cos` for small angles, at the circle, and at
    `height / sin` for large ones; the integrals are of its square / 2 and its cube / 3.
    """
    bound = np.minimum(radius, 2 * np.hypot(width, height))
    a, b = np.minimum(width, bound), np.minimum(height, bound)
    side_a = np.minimum(b, np.sqrt(bound**2 - a**2))
    side_b = np.minimum(a, np.sqrt(bound**2 - b**2))
    arc = np.arctan2(b, side_b) - np.arctan2(side_a, a)
    inside = (a * side_a + b * side_b + bound**2 * arc) / 2
    distance = _triangle(a, side_a) + _triangle(b, side_b) + bound**3 * arc / 3
    return inside, distance


def _triangle(base: FloatArray, side: FloatArray) -> FloatArray:
    """Integral of the distance from 0 over the triangle (0, 0), (base, 0), (base, side)."""
    slope = np.divide(side, base, out=np.zeros_like(base), where=base > 0)
    return (base * side * np.hypot(base, side) + base**3 * np.arcsinh(slope)) / 6
