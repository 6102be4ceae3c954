"""Backward induction for lakes, which share their moves: gathers over tiles, one row per tile.

Shapes: M tasks, S tiles.
"""

import numpy as np

from metarl_envs.core import BoolArray, FloatArray, IntArray

_CHUNK = 256
"""Tasks at a time, so that the values of all tiles stay in the cache."""


def optimal_start_values(
    moves: IntArray,
    rewards: FloatArray,
    ends: BoolArray,
    success_rates: FloatArray | None,
    *,
    absorbing: bool,
    horizon: int,
    start: int,
) -> FloatArray:
    """The best expected return of `horizon` steps from the start tile, (M,).

    :param moves: the tile that each direction leads to, (S, 4)
    :param rewards: of entering a tile, (M, S)
    :param ends: holes and goals, (M, S)
    :param success_rates: probability of the intended direction, (M,); the two perpendicular ones
        share the rest. `None`: 1
    :param absorbing: whether holes and goals keep the agent and pay again, instead of ending the
        episode
    :param horizon: number of steps
    :param start: index of a tile
    """
    values = [
        _induction(
            np.ascontiguousarray(moves.T),
            np.ascontiguousarray(rewards[first : first + _CHUNK].T),
            np.ascontiguousarray(ends[first : first + _CHUNK].T),
            None if success_rates is None else success_rates[first : first + _CHUNK],
            absorbing,
            horizon,
        )[start]
        for first in range(0, len(rewards), _CHUNK)
    ]
    return np.concatenate([np.empty(0), *values])


def _induction(
    moves: IntArray,
    rewards: FloatArray,
    ends: BoolArray,
    success_rates: FloatArray | None,
    absorbing: bool,
    horizon: int,
) -> FloatArray:
    """Values of all tiles, (S, M), from moves (4, S) and tables (S, M)."""
    values = np.zeros_like(rewards)
    for _ in range(horizon):
        arriving = rewards + values
        reached = arriving.take(moves, axis=0)
        if success_rates is not None:
            reached = _slipped(reached, success_rates)
        before, values = values, reached.max(axis=0)
        np.copyto(values, arriving if absorbing else 0.0, where=ends)
        # A fixed point of the undiscounted backup stays one for all the stages that are left.
        if np.array_equal(before, values):
            break
    return values


def _slipped(reached: FloatArray, success_rates: FloatArray) -> FloatArray:
    """Expected values of the four actions, (4, S, M), from those of the directions."""
    aside = 0.5 * (1.0 - success_rates)
    across = aside * (reached[0] + reached[2])
    along = aside * (reached[1] + reached[3])
    return np.stack(
        [
            success_rates * direction + perpendicular
            for direction, perpendicular in zip(reached, [along, across] * 2, strict=True)
        ]
    )
