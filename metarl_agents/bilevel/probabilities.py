"""Softmax over few actions for many states at once.

Shapes: M tasks, S states, A actions.
"""

import torch as th
from jaxtyping import Float
from torch import Tensor

_FEW_ACTIONS = 8
"""Up to here torch is three to six times faster with actions first, as it then treats many states
with one instruction; measured with 320 and 6,400 states."""


def softmax(logits: Float[Tensor, "*state action"]) -> Float[Tensor, "*state action"]:
    """Action probabilities, (..., A).

    :param logits: (..., A), such as (M, S, A)
    """
    if logits.shape[-1] > _FEW_ACTIONS:
        return logits.softmax(-1)
    return _actions_last(_actions_first(logits).softmax(0))


def log_softmax(logits: Float[Tensor, "*state action"]) -> Float[Tensor, "*state action"]:
    """Their logarithms, (..., A).

    :param logits: (..., A), such as (M, S, A)
    """
    if logits.shape[-1] > _FEW_ACTIONS:
        return logits.log_softmax(-1)
    return _actions_last(_actions_first(logits).log_softmax(0))


def _actions_first(table: Tensor) -> Tensor:
    return table.movedim(-1, 0).contiguous()


def _actions_last(table: Tensor) -> Tensor:
    return table.movedim(0, -1).contiguous()
