"""Checks of constructor arguments that agents of all families share."""

from collections.abc import Sequence
from operator import ge, gt, le
from typing import Any

import numpy as np


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> None:
    """`TypeError` unless `value` is a number, `ValueError` unless it lies within its bounds.

    :param name: of the argument
    :param value: what the user gave
    :param above: the value must be larger
    :param at_least: the value may not be smaller
    :param at_most: the value may not be larger
    :param whole: whether only integers will do
    """
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name}={value!r} must be {'an integer' if whole else 'a number'}")
    bounds = (("above", above, gt), ("at least", at_least, ge), ("at most", at_most, le))
    given = [(word, bound, holds) for word, bound, holds in bounds if bound is not None]
    if not np.isfinite(value) or not all(holds(value, bound) for _, bound, holds in given):
        asked = [*([] if whole else ["finite"]), *(f"{word} {bound}" for word, bound, _ in given)]
        raise ValueError(f"{name}={value!r} must be {' and '.join(asked)}")


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> None:
    """`ValueError` unless `value` is one of `choices`.

    :param name: of the argument
    :param value: what the user gave
    :param choices: what it may be
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(
            f"{name}={value!r} is unknown: choose one of {', '.join(map(str, choices))}"
        )


def check_flag(name: str, value: Any) -> None:
    """`TypeError` unless `value` is True or False.

    :param name: of the argument
    :param value: what the user gave
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False")
