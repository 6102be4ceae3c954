"""Presets of the frozen lakes, and checks of their arguments."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from metarl_envs.batched.checking import check_counts, check_finite
from metarl_envs.tabular.frozen_lake.maps import LARGEST_SIZE

SMALLEST_P = 0.3
"""Below, hardly any 8x8 map has a path, and rejection would go on for ever."""


@dataclass(frozen=True)
class Setting:
    """What a preset decides."""

    hole_reward: float
    absorbing: bool
    discount: float
    horizon: int | None = None
    """`None`: 100 for maps of at most 4x4 tiles, else 200"""


PRESETS = MappingProxyType(
    {
        "gymnasium": Setting(hole_reward=0.0, absorbing=False, discount=1.0),
        "bomrl2024": Setting(hole_reward=-1.0, absorbing=True, discount=0.8, horizon=49),
    }
)


def setting_of(preset: str, given: dict[str, Any]) -> Setting:
    """What a preset and the arguments that were given say.

    :param preset: one of `PRESETS`
    :param given: arguments by name; `None` leaves one to the preset
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset={preset!r} must be one of {sorted(PRESETS)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    if "horizon" in chosen:
        check_counts(horizon=chosen["horizon"])
    return replace(PRESETS[preset], **chosen)


def check_flags(**flags: Any) -> None:
    """`TypeError` for the first argument that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}={value!r} must be True or False")


def check_probabilities(**numbers: Any) -> None:
    """`ValueError` for the first argument that is no number in [0, 1]."""
    check_finite(**numbers)
    for name, value in numbers.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value!r} must lie in [0, 1]")


def check_map(size: Any, p: Any) -> None:
    """`ValueError` for a size or a probability that random maps cannot have."""
    check_counts(size=size)
    if not 2 <= size <= LARGEST_SIZE:
        raise ValueError(f"size={size!r} must be from 2 to {LARGEST_SIZE}")
    check_finite(p=p)
    if not SMALLEST_P <= p <= 1.0:
        raise ValueError(f"p={p!r} must lie in [{SMALLEST_P}, 1]: below, hardly a map has a path")


def checked_range(slip_range: Any) -> tuple[float, float]:
    """The bounds of the slip probabilities, or `ValueError`."""
    try:
        low, high = slip_range
    except (TypeError, ValueError) as error:
        raise ValueError(f"slip_range={slip_range!r} must be two numbers, (low, high)") from error
    check_finite(**{"slip_range[0]": low, "slip_range[1]": high})
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"slip_range={slip_range!r} must satisfy 0 <= low < high <= 1")
    return float(low), float(high)
