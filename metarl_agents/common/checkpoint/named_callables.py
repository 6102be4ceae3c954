"""The functions that constructor arguments may be: each has a name that a file can hold."""

import re
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.utils import LinearSchedule

NAMED_CALLABLES: dict[str, Callable[..., Any]] = {
    "elu": th.nn.ELU,
    "gelu": th.nn.GELU,
    "identity": th.nn.Identity,
    "leaky_relu": th.nn.LeakyReLU,
    "relu": th.nn.ReLU,
    "sigmoid": th.nn.Sigmoid,
    "silu": th.nn.SiLU,
    "softplus": th.nn.Softplus,
    "tanh": th.nn.Tanh,
}
"""Activation functions by name."""

_LINEAR_SCHEDULE = re.compile(r"lin_(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def named_callable(name: str) -> Callable[..., Any]:
    """What a name stands for: an activation class, or for "lin_3e-4" the schedule from 3e-4 to 0.

    :param name: key of `NAMED_CALLABLES`, or "lin_" and a number
    """
    if name in NAMED_CALLABLES:
        return NAMED_CALLABLES[name]
    match = _LINEAR_SCHEDULE.fullmatch(name)
    if match:
        return LinearSchedule(float(match[1]), 0.0, 1.0)
    raise ValueError(f"{name!r} is no known function: use {_remedy()}")


def callable_name(function: Callable[..., Any]) -> str:
    """The name of a registered callable; `ValueError` for any other.

    :param function: the callable
    """
    for name, registered in NAMED_CALLABLES.items():
        if registered is function:
            return name
    raise ValueError(
        f"{function!r} is a function that no file can hold, since loading runs no code from files: "
        f"use {_remedy()}"
    )


def _remedy() -> str:
    return f"one of {sorted(NAMED_CALLABLES)} or a schedule like 'lin_3e-4'"
