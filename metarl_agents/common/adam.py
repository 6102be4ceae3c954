"""Adam on named tensors: one step as a pure function, its memory as tensors that files can hold."""

from typing import NamedTuple

import torch as th
from torch import Tensor

Params = dict[str, Tensor]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamState(NamedTuple):
    """What Adam remembers.

    :param n_steps: () float64, steps so far
    :param mean: running means of the gradients, by name
    :param square: running means of their squares, by name
    """

    n_steps: Tensor
    mean: Params
    square: Params


def initial_adam_state(params: Params) -> AdamState:
    """Nothing remembered yet.

    :param params: tensors that will be optimised
    """
    some = next(iter(params.values()))
    return AdamState(
        th.zeros((), dtype=th.float64, device=some.device),
        {name: th.zeros_like(tensor) for name, tensor in params.items()},
        {name: th.zeros_like(tensor) for name, tensor in params.items()},
    )


def adam_step(
    params: Params, gradient: Params, state: AdamState, learning_rate: float
) -> tuple[Params, AdamState]:
    """The parameters after one descent step, and what is remembered for the next.

    Kingma, Ba (2015), "Adam: a method for stochastic optimization", algorithm 1,
    https://arxiv.org/abs/1412.6980, with its constants beta = (0.9, 0.999) and epsilon = 1e-8:
    m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2,
    x <- x - lr (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon).

    :param params: by name
    :param gradient: with the names and shapes of `params`
    :param state: of the steps before
    :param learning_rate: step size
    """
    n_steps = state.n_steps + 1.0
    corrections = [1.0 - beta ** float(n_steps) for beta in BETAS]
    after, means, squares = {}, {}, {}
    for name, tensor in params.items():
        g = gradient[name]
        means[name] = BETAS[0] * state.mean[name] + (1.0 - BETAS[0]) * g
        squares[name] = BETAS[1] * state.square[name] + (1.0 - BETAS[1]) * g.square()
        scale = (squares[name] / corrections[1]).sqrt() + EPSILON
        after[name] = tensor - learning_rate * (means[name] / corrections[0]) / scale
    return after, AdamState(n_steps, means, squares)
