"""Checks of what users ask of a vector environment, before anything changes.

Shapes: B sub-environments.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from metarl_envs.batched.checking import check_seed
from metarl_envs.core import BoolArray, Task


def checked_seeds(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed (or `None`) per sub-environment; `ValueError` where one is no seed.

    :param seed: of `reset`: s stands for s, s + 1, ...
    :param num_envs: B
    """
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str | bytes):
        check_seed(seed=seed)
        return [int(seed) + i for i in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(
            f"seed has {len(seed)} entries: give an integer or one for each of {num_envs}"
        )
    check_seed(**{f"seed[{i}]": item for i, item in enumerate(seed) if item is not None})
    return [None if item is None else int(item) for item in seed]


def checked_mask(mask: Any, num_envs: int) -> BoolArray:
    """Which sub-environments to reset, (B,): all of them without a mask.

    :param mask: `options["reset_mask"]` of `reset`
    :param num_envs: B
    """
    if mask is None:
        return np.ones(num_envs, dtype=np.bool_)
    mask = np.asarray(mask)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise ValueError(
            f'options["reset_mask"]={mask!r} must be a boolean array of shape '
            f"({num_envs},) with a True in it"
        )
    return mask


def checked_list(tasks: Any, name: str) -> list[Any]:
    """`tasks` as a list, or `TypeError` where it is none.

    :param tasks: what the user handed in
    :param name: what to call it in the error
    """
    if isinstance(tasks, Task) or not isinstance(tasks, Iterable):
        raise TypeError(
            f"{name}={tasks!r} must be a list with one task for each sub-environment; "
            "None in it stands for no task of its own"
        )
    return list(tasks)
