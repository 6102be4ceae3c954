"""What users hand to the tabular functions: checked, and as tensors.

Shapes: M tasks, S states, A actions.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from numpy.typing import ArrayLike
from torch import Tensor

from metarl_agents.bilevel.exact import TabularTasks
from metarl_envs.tabular.mdp import FiniteMDP


def checked_inputs(
    mdps: Sequence[FiniteMDP] | FiniteMDP,
    logits: ArrayLike | Tensor,
    lam: Any,
    device: th.device | str,
) -> tuple[TabularTasks, Tensor]:
    """The tasks, and the logits of the meta-policy as a float64 tensor, (S, A).

    :param mdps: discounted MDPs of the same S and A, or one batch of them
    :param logits: (S, A)
    :param lam: must be a positive number
    :param device: where to compute
    """
    check_positive("lam", lam, "a larger one moves the policy less")
    tasks = stacked_tasks(mdps, device=device)
    return tasks, checked_logits(logits, tasks)


def stacked_tasks(
    mdps: Sequence[FiniteMDP] | FiniteMDP, *, device: th.device | str = "cpu"
) -> TabularTasks:
    """The MDPs as tensors.

    :param mdps: discounted MDPs of the same S and A, or one batch of them with a single batch axis
    :param device: where the tensors go
    """
    if not isinstance(mdps, FiniteMDP | Sequence):
        raise TypeError(f"mdps is a {type(mdps).__name__}, but must be a list of FiniteMDPs")
    parts = [mdps] if isinstance(mdps, FiniteMDP) else list(mdps)
    _check_mdps(parts, is_batch=isinstance(mdps, FiniteMDP))

    def gathered(name: str) -> Tensor:
        # Copies: the arrays of an MDP are read-only, which tensors cannot be.
        arrays = [getattr(mdp, name) for mdp in parts]
        array = np.array(arrays[0]) if isinstance(mdps, FiniteMDP) else np.stack(arrays)
        return th.as_tensor(array, dtype=th.float64, device=device)

    rewards = gathered("rewards")
    discount = th.tensor([float(mdp.discount) for mdp in parts], dtype=th.float64, device=device)
    return TabularTasks(
        gathered("transitions"), rewards, gathered("initial"), discount.expand(len(rewards))
    )


def _check_mdps(parts: list[FiniteMDP], *, is_batch: bool) -> None:
    if not parts:
        raise ValueError("mdps is empty: give at least one task")
    shape = parts[0].rewards.shape if isinstance(parts[0], FiniteMDP) else ()
    for index, mdp in enumerate(parts):
        where = "mdps" if is_batch else f"mdps[{index}]"
        if not isinstance(mdp, FiniteMDP):
            raise TypeError(
                f"{where} is a {type(mdp).__name__}, but must be a FiniteMDP: a SparseMDP has "
                "`to_finite_mdp()`"
            )
        if mdp.horizon is not None or not mdp.discount < 1.0:
            raise ValueError(
                f"{where} has horizon={mdp.horizon} and discount={mdp.discount}, but must be "
                "discounted: give it horizon=None and a discount below 1"
            )
        if len(mdp.batch_shape) != int(is_batch):
            remedy = "put a single MDP into a list" if is_batch else "hand the batch over by itself"
            raise ValueError(f"{where} has batch axes {mdp.batch_shape}: {remedy}")
        if mdp.rewards.shape != shape:
            raise ValueError(
                f"{where} has (S, A) = {mdp.rewards.shape}, but mdps[0] has {shape}: all tasks "
                "must have the same states and actions"
            )
    if is_batch and not parts[0].batch_shape[0]:
        raise ValueError("mdps is a batch of no tasks: give at least one")


def checked_logits(logits: ArrayLike | Tensor, tasks: TabularTasks) -> Tensor:
    """Logits as a float64 tensor without a graph, (S, A), on the device of the tasks.

    :param logits: what the user gave
    :param tasks: M tasks
    """
    array = logits.detach().cpu().numpy() if isinstance(logits, Tensor) else np.asarray(logits)
    shape = tuple(tasks.rewards.shape[1:])
    if array.shape != shape:
        raise ValueError(
            f"logits has shape {array.shape}, but the tasks have (S, A) = {shape}: give one number "
            "for each state and action"
        )
    if array.dtype.kind not in "iuf":
        raise TypeError(f"logits has dtype {array.dtype}, but must hold real numbers")
    array = array.astype(np.float64)
    if not np.all(np.isfinite(array)):
        wrong = array[~np.isfinite(array)][0]
        raise ValueError(
            f"logits must be finite, but hold {wrong}: bound them, a policy needs no zeros"
        )
    return th.as_tensor(array, device=tasks.rewards.device)


def check_positive(name: str, value: Any, remedy: str) -> None:
    """`TypeError` unless `value` is a number, `ValueError` unless it is positive and finite.

    :param name: of the argument
    :param value: what the user gave
    :param remedy: what to know in order to choose it
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}={value!r} must be a positive number: {remedy}")
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name}={value!r} must be positive and finite: {remedy}")
