"""Learned step sizes of the inner loop, kept as logarithms beside the policy's parameters."""

import math

import torch as th
from torch import Tensor

Params = dict[str, Tensor]

PREFIX = "log_inner_lr."
SMALLEST, LARGEST = 1e-4, 1.0
"""Bounds of learned step sizes; ours."""


def initial_log_step_sizes(params: Params, inner_lr: float, per: str | None) -> Params:
    """Logarithms of equal step sizes, under the names of the parameters with a prefix.

    One per element is Meta-SGD (Li, Zhou, Chen, Li 2017, https://arxiv.org/abs/1707.09835), one per
    tensor is near to MAML++ (Antoniou, Edwards, Storkey 2019, https://arxiv.org/abs/1810.09502).

    :param params: the policy's parameters by name
    :param inner_lr: the first step size
    :param per: "tensor" or "element"; None for none that are learned
    """
    if per is None:
        return {}
    return {
        PREFIX + name: th.full(
            tensor.shape if per == "element" else (),
            math.log(inner_lr),
            dtype=tensor.dtype,
            device=tensor.device,
        )
        for name, tensor in params.items()
    }


def within_bounds(params: Params) -> Params:
    """Parameters whose logarithms of step sizes are clipped to what step sizes may be.

    :param params: of the policy, with logarithms of step sizes or without
    """
    low, high = math.log(SMALLEST), math.log(LARGEST)
    return {
        name: tensor.clamp(low, high) if name.startswith(PREFIX) else tensor
        for name, tensor in params.items()
    }


def policy_part(params: Params) -> Params:
    """The parameters of the policy alone.

    :param params: of the policy, with logarithms of step sizes or without
    """
    return {name: tensor for name, tensor in params.items() if not name.startswith(PREFIX)}


def step_sizes(params: Params, inner_lr: float) -> float | Params:
    """The step size of every tensor of the policy, or the one for all where none are learned.

    :param params: of the policy, with logarithms of step sizes or without
    :param inner_lr: the step size where none are learned
    """
    learned = {
        name.removeprefix(PREFIX): tensor.exp()
        for name, tensor in params.items()
        if name.startswith(PREFIX)
    }
    return learned or inner_lr


def scaled(rates: float | Params, factor: float) -> float | Params:
    """Step sizes times a factor.

    :param rates: one for all, or one of every tensor
    :param factor: such as 0.5
    """
    if isinstance(rates, dict):
        return {name: factor * rate for name, rate in rates.items()}
    return factor * rates
