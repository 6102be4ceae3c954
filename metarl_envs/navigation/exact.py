"""Integrals over the start: how far from the goal straight moves leave a point.

A coordinate at offset u from its goal is `max(|u| - reach, 0)` away after moves that cover `reach`.
So each coordinate's distance is 0 with some probability and otherwise uniform, on either side of
the goal, and the integrals are sums over these pieces. With u = c + s t and t uniform in [-1, 1],
pieces are intervals of t: however small s is, nothing is lost by subtracting nearly equal offsets.

Shapes: M tasks, H steps.
"""

from typing import NamedTuple

import numpy as np

from metarl_envs.core import FloatArray

# Beyond so many half widths from the goal, differences of antiderivatives lose digits, and the
# distance is so smooth that quadrature with 8 x 8 nodes is exact up to rounding: its error falls as
# (7 + sqrt(48))^-16.
_FAR = 8.0
_NODES, _MASSES = np.polynomial.legendre.leggauss(8)


class _Piece(NamedTuple):
    """Where a coordinate's distance is uniform; (M, H) each."""

    probability: FloatArray
    low: FloatArray
    high: FloatArray


def mean_moments(
    centres: FloatArray, half_widths: FloatArray, reaches: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """Means of `1[distance <= radius]` and of `distance 1[distance <= radius]`, (M, H) each, for
    offsets from the goal that are uniform in a rectangle.

    :param centres: of the rectangles, (M, 2)
    :param half_widths: of the rectangles, positive and of similar size, (2,)
    :param reaches: what the moves cover so far, (H,)
    :param radius: infinite for the mean distance; a finite one is precise only where it is no more
        than some half widths away
    """
    (x_still, x_sides), (y_still, y_sides) = (
        _pieces(np.abs(centres[:, i, None]), half_widths[i], reaches, radius) for i in (0, 1)
    )
    inside, distance = x_still * y_still, np.zeros((len(centres), len(reaches)))
    for still, sides in ((x_still, y_sides), (y_still, x_sides)):
        for side in sides:
            inside += still * side.probability
            distance += still * side.probability * (side.low + side.high) / 2
    for x in x_sides:
        for y in y_sides:
            parts = _moments_of_both(x, y, half_widths, radius)
            inside += parts[0]
            distance += parts[1]
    return inside, distance


def _pieces(
    centre: FloatArray, half_width: float, reaches: FloatArray, radius: float
) -> tuple[FloatArray, list[_Piece]]:
    """The probability that a coordinate reaches its goal, and its distances up to `radius` on both
    sides of it.
    """

    def t(offset: FloatArray) -> FloatArray:
        return np.clip((offset - centre) / half_width, -1.0, 1.0)

    sides = []
    for sign in (1.0, -1.0):
        # On the other side, t runs the other way.
        ends = sign * t(sign * reaches), sign * t(sign * (reaches + radius))
        bounds = [np.maximum(sign * centre - reaches + half_width * end, 0.0) for end in ends]
        sides.append(_Piece((ends[1] - ends[0]) / 2, *bounds))
    return (t(reaches) - t(-reaches)) / 2, sides


def _moments_of_both(
    x: _Piece, y: _Piece, half_widths: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """What the pairs of distances in two pieces add to the two means."""
    area = 4 * half_widths[0] * half_widths[1]
    inside, distance = np.zeros_like(x.low), np.zeros_like(x.low)
    for width, x_sign in ((x.high, 1.0), (x.low, -1.0)):
        for height, y_sign in ((y.high, 1.0), (y.low, -1.0)):
            parts = _moments_of_disc(width, height, radius)
            inside += x_sign * y_sign * parts[0]
            distance += x_sign * y_sign * parts[1]
    inside, distance = inside / area, distance / area
    if np.isinf(radius):
        far = np.maximum(x.high, y.high) > _FAR * np.max(half_widths)
        inside[far] = x.probability[far] * y.probability[far]
        distance[far] = inside[far] * _mean_far_distance(
            x.low[far], x.high[far], y.low[far], y.high[far]
        )
    return inside, distance


def _mean_far_distance(
    x_low: FloatArray, x_high: FloatArray, y_low: FloatArray, y_high: FloatArray
) -> FloatArray:
    """The mean distance from 0 of points that are uniform in rectangles far away from it."""
    total = np.zeros_like(x_low)
    for x_node, x_mass in zip(_NODES, _MASSES, strict=True):
        x = (x_low + x_high + x_node * (x_high - x_low)) / 2
        for y_node, y_mass in zip(_NODES, _MASSES, strict=True):
            y = (y_low + y_high + y_node * (y_high - y_low)) / 2
            total += x_mass * y_mass / 4 * np.hypot(x, y)
    return total


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
