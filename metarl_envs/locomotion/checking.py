"""Checks of what users hand to locomotion families."""

from typing import Any

import numpy as np


def checked_range(name: str, bounds: Any) -> tuple[float, float]:
    """Lower and upper bound, or `ValueError` where they are not finite and in order.

    :param name: of the argument
    :param bounds: what the user handed in
    """
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={bounds!r} must be two numbers, (low, high)") from error
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{name}={bounds!r} must be finite, and low must be below high")
    return low, high
