"""Multilayer perceptrons as pure functions, in PyTorch and in NumPy.

Shapes: C parameter sets, n rows.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.policies.activations import tanh

Params = dict[str, Tensor]
"""Parameters of a network, by name."""

Arrays = Mapping[str, np.ndarray]
"""The same as NumPy arrays."""

Activation = Literal["tanh", "relu"]


def initial_mlp(sizes: Sequence[int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights uniform in +-sqrt(6 / (n_in + n_out)) (Glorot and Bengio, 2010), biases zero.

    Named `layers.0.weight` (n_out, n_in), `layers.0.bias` (n_out,), ...

    :param sizes: widths, from the inputs to the outputs
    :param rng: of the weights
    """
    arrays = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        limit = np.sqrt(6.0 / (n_in + n_out))
        arrays[f"layers.{i}.weight"] = rng.uniform(-limit, limit, (n_out, n_in))
        arrays[f"layers.{i}.bias"] = np.zeros(n_out)
    return arrays


def mlp(params: Params, inputs: Tensor, n_layers: int, activation: Activation) -> Tensor:
    """Outputs, (n, n_out), or (C, n, n_out) of C sets of parameters.

    :param params: one set, or C sets with a leading axis C
    :param inputs: (n, n_in), or (C, n, n_in) for C sets
    :param n_layers: number of layers
    :param activation: between layers
    """
    hidden = inputs
    for i in range(n_layers):
        if i:
            hidden = tanh(hidden) if activation == "tanh" else th.relu(hidden)
        weight, bias = params[f"layers.{i}.weight"], params[f"layers.{i}.bias"]
        if weight.ndim == 3:
            hidden = th.baddbmm(bias.unsqueeze(-2), hidden, weight.mT)
        else:
            hidden = th.nn.functional.linear(hidden, weight, bias)
    return hidden


def mlp_numpy(
    params: Arrays, inputs: np.ndarray, n_layers: int, activation: Activation
) -> np.ndarray:
    """The same in NumPy; one set of parameters serves (C, n, n_in) inputs, too.

    Row i of C is computed as it would be alone, bit for bit.

    :param params: one set, or C sets with a leading axis C
    :param inputs: (n, n_in) or (C, n, n_in)
    :param n_layers: number of layers
    :param activation: between layers
    """
    hidden = inputs
    for i in range(n_layers):
        if i and activation == "tanh":
            np.tanh(hidden, out=hidden)
        elif i:
            np.maximum(hidden, 0.0, out=hidden)
        hidden = np.matmul(hidden, params[f"layers.{i}.weight"].swapaxes(-1, -2))
        hidden += params[f"layers.{i}.bias"][..., None, :]
    return hidden
