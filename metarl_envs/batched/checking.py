"""Checks of what users hand to tabular families, with errors that name argument, value and remedy.

Shapes: M tasks, S_h observations at stage h, A actions.
"""

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np

from metarl_envs.core import FloatArray
from metarl_envs.distributions import check_seed

__all__ = [
    "LARGEST_MAGNITUDE",
    "Structure",
    "Target",
    "check_choice",
    "check_counts",
    "check_deviations",
    "check_finite",
    "check_flags",
    "check_magnitudes",
    "check_observations",
    "check_prior_options",
    "check_seed",
    "check_stage",
    "checked_numbers",
    "checked_policies",
]

Target = Literal["optimal", "myopic"]
Structure = Literal["block", "full"]

LARGEST_MAGNITUDE = 1e6
"""Of rewards and lengths, so that neither sums over an episode nor squares overflow."""


def check_counts(**counts: Any) -> None:
    """`ValueError` for the first argument that is no positive integer."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer of at least 1")


def check_deviations(**deviations: Any) -> None:
    """`ValueError` for the first argument that is negative or not finite."""
    for name, value in deviations.items():
        if not (_is_finite(value) and value >= 0):
            raise ValueError(f"{name}={value!r} must be a finite number of at least 0")


def check_finite(**numbers: Any) -> None:
    """`ValueError` for the first argument that is no finite number."""
    for name, value in numbers.items():
        if not _is_finite(value):
            raise ValueError(f"{name}={value!r} must be a finite number")


def check_magnitudes(**numbers: Any) -> None:
    """`ValueError` for the first argument that is no number of at most `LARGEST_MAGNITUDE`, up to
    its sign.
    """
    for name, value in numbers.items():
        if not (_is_finite(value) and abs(value) <= LARGEST_MAGNITUDE):
            raise ValueError(
                f"{name}={value!r} must be a number from {-LARGEST_MAGNITUDE:g} to "
                f"{LARGEST_MAGNITUDE:g}: choose smaller units"
            )


def check_flags(**flags: Any) -> None:
    """`ValueError` for the first argument that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name}={value!r} must be True or False")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """`ValueError` where `value` is none of a `Literal`'s values."""
    # An array answers `in` with an array, or not at all.
    if isinstance(value, np.ndarray) or value not in get_args(choices):
        raise ValueError(f"{name}={value!r} must be one of {get_args(choices)}")


def check_stage(stage: int, n_stages: int) -> None:
    """`ValueError` where `stage` is none of a family's stages."""
    if not 0 <= stage < n_stages:
        raise ValueError(f"stage={stage!r} must lie in [0, {n_stages})")


def check_observations(observations: Any, low: Any, high: Any) -> None:
    """`ValueError` where a number lies outside its bounds, or is none.

    :param observations: (..., n)
    :param low: smallest values, (n,) or a number
    :param high: largest values, (n,) or a number
    """
    array = np.asarray(observations)
    # NaN fails both comparisons.
    if array.dtype.kind not in "iuf" or not np.all((array >= low) & (array <= high)):
        raise ValueError(
            f"observations={observations!r} lie outside the observation space: "
            f"numbers must be from {low} to {high}"
        )


def checked_numbers(name: str, array: Any, *shapes: tuple[int, ...]) -> FloatArray:
    """`array` as float64, or `ValueError` where it holds anything but finite real numbers or has
    none of the shapes.

    :param name: what to call it in the error
    :param array: what the user handed in
    :param shapes: that it may have
    """
    try:
        numbers = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={array!r} is no array: give numbers in rows alike") from error
    # NumPy would read text and dates as numbers, and leave out imaginary parts.
    if numbers.dtype.kind not in "biuf":
        raise ValueError(f"{name}={array!r} must hold real numbers")
    if numbers.shape not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise ValueError(f"{name} has shape {numbers.shape}: give {allowed}")
    result = numbers.astype(np.float64)
    if not np.all(np.isfinite(result)):
        raise ValueError(f"{name}={array!r} must hold finite numbers only")
    return result


def check_prior_options(
    *,
    n_tasks: int,
    seed: int,
    target: str,
    structure: str,
    ridge: float,
    covariance_scale: float = 1.0,
    mean_shift: float = 0.0,
) -> None:
    """`ValueError` for options that `q_prior` does not have."""
    check_counts(n_tasks=n_tasks)
    if n_tasks < 2:
        raise ValueError(
            f"n_tasks={n_tasks!r} must be at least 2: a covariance needs more than one task"
        )
    check_seed(seed=seed)
    check_choice("target", target, Target)
    check_choice("structure", structure, Structure)
    check_deviations(ridge=ridge, covariance_scale=covariance_scale)
    check_finite(mean_shift=mean_shift)


def checked_policies(
    probabilities: Sequence[Any], n_tasks: int, n_states: Sequence[int], n_actions: int
) -> list[FloatArray]:
    """One policy per stage, (M, S_h, A) each, or `ValueError` where a row is no distribution over
    actions.

    :param probabilities: for each stage (M, S_h, A) or (S_h, A)
    :param n_tasks: M
    :param n_states: S_h of each stage
    :param n_actions: A
    """
    if len(probabilities) != len(n_states):
        raise ValueError(
            f"probabilities has {len(probabilities)} entries: give one array for each of "
            f"{len(n_states)} stages"
        )
    policies = []
    for stage, policy in enumerate(probabilities):
        shape = (n_tasks, n_states[stage], n_actions)
        array = np.asarray(policy, dtype=np.float64)
        if array.shape not in (shape, shape[1:]):
            raise ValueError(
                f"probabilities[{stage}] has shape {array.shape}: give {shape} or {shape[1:]}"
            )
        if not (np.all(array >= 0) and np.allclose(array.sum(-1), 1.0, rtol=0, atol=1e-6)):
            raise ValueError(
                f"probabilities[{stage}] must be non-negative and sum to 1 over actions"
            )
        policies.append(np.broadcast_to(array, shape))
    return policies


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False
