"""Presets of the frozen lakes, and checks of their arguments."""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from metarl_envs.batched.checking import check_counts, check_finite
from metarl_envs.tabular.frozen_lake.maps import LARGEST_SIZE

_SMALLEST_P = (0.3, 0.35, 0.4, 0.45)
"""For maps of up to 5x5, of 6x6, 7x7 and 8x8 tiles: there, about one map in 100 has a path."""


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


def setting_of(preset: str, **given: Any) -> Setting:
    """What a preset and the arguments that were given say.

    :param preset: one of `PRESETS`
    :param given: the fields of a `Setting`; `None` leaves one to the preset
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset={preset!r} must be one of {sorted(PRESETS)}")
    chosen = {name: value for name, value in given.items() if value is not None}
    if "horizon" in chosen:
        check_counts(horizon=chosen["horizon"])
    return replace(PRESETS[preset], **chosen)


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
    smallest = _SMALLEST_P[max(0, int(size) - 5)]
    if not smallest <= p <= 1.0:
        raise ValueError(
            f"p={p!r} must lie in [{smallest}, 1] for maps of size={size!r}: below, hardly one has "
            "a path"
        )


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
