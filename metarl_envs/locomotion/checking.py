"""Checks of what users hand to locomotion families."""

import warnings
from typing import Any

import numpy as np

from metarl_envs.batched.checking import LARGEST_MAGNITUDE, check_counts


def checked_range(name: str, bounds: Any) -> tuple[float, float]:
    """Lower and upper bound, or `ValueError` where they are not finite and in order.

    :param name: of the argument
    :param bounds: what the user handed in
    """
    try:
        array = np.asarray(bounds)
    except ValueError as error:  # of lists of several lengths
        raise ValueError(f"{name}={bounds!r} must be two numbers, (low, high)") from error
    if array.shape != (2,) or array.dtype.kind not in "iuf":
        raise ValueError(f"{name}={bounds!r} must be two numbers, (low, high)")
    low, high = (float(bound) for bound in array)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{name}={bounds!r} must be finite, and low must be below high")
    if max(-low, high) > LARGEST_MAGNITUDE:
        raise ValueError(
            f"{name}={bounds!r} must lie within [{-LARGEST_MAGNITUDE:g}, {LARGEST_MAGNITUDE:g}]: "
            "choose smaller units"
        )
    return low, high


def warn_of_idle_threads(n_threads: Any, *, has_forces: bool) -> None:
    """Warns where several threads are asked for, but contact forces leave work for one only.

    :param n_threads: what the user handed in
    :param has_forces: whether observations have contact forces
    """
    check_counts(n_threads=n_threads)
    if has_forces and n_threads > 1:
        warnings.warn(
            f"n_threads={n_threads} does nothing with include_cfrc_ext_in_observation=True, which "
            "steps one simulation after the other: leave one of the two out",
            stacklevel=2,
        )
