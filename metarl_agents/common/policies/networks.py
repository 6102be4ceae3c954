"""Policy networks as pure functions of a dictionary of parameters.

The same weights run in PyTorch, for learning, and in NumPy, for acting: at these sizes a NumPy
forward pass costs a fraction of PyTorch's. Shapes: C parameter sets, P distribution parameters,
S states, A actions, `...` any axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor

from metarl_agents.common.policies.distributions import (
    ActionDistribution,
    Categorical,
    DiagonalGaussian,
)
from metarl_agents.common.policies.encodings import Encoding, Numbers, encoding_of
from metarl_agents.common.policies.mlp import (
    Activation,
    Arrays,
    Params,
    initial_mlp,
    mlp,
    mlp_numpy,
)

__all__ = [
    "LOG_STD_FLOOR",
    "Activation",
    "Arrays",
    "MlpNetwork",
    "Params",
    "PolicyNetwork",
    "TabularNetwork",
    "make_network",
]

LOG_STD_FLOOR = float(np.log(1e-6))


class PolicyNetwork(Protocol):
    """Maps observations to the parameters of a distribution over actions; holds no parameters.

    Frozen and pure, so that threads can share it.
    """

    @property
    def distribution(self) -> ActionDistribution:
        """Of the actions."""
        ...

    @property
    def obs_dim(self) -> int:
        """Numbers in one observation, as `EpisodeBatch` holds it."""
        ...

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation as the env gives it."""
        ...

    @property
    def dtype(self) -> th.dtype:
        """Of parameters, unless `initial_params` is told otherwise."""
        ...

    def initial_params(
        self,
        rng: np.random.Generator,
        *,
        device: th.device | str = "cpu",
        dtype: th.dtype | None = None,
    ) -> Params:
        """Fresh parameters.

        :param rng: of their random numbers
        :param device: where they are to live
        :param dtype: None for the network's own
        """
        ...

    def dist_params(self, params: Params, observations: Tensor) -> Tensor:
        """Distribution parameters, (..., P), or (C, ..., P) of C sets of parameters.

        :param params: one set, or C sets with a leading axis C in each tensor
        :param observations: (..., obs_dim), or (C, ..., obs_dim) for C sets
        """
        ...

    def dist_params_numpy(self, params: Arrays, observations: np.ndarray) -> np.ndarray:
        """The same in NumPy: (n, obs_dim) to (n, P), or (C, n, obs_dim) to (C, n, P).

        :param params: one set, or C sets with a leading axis C in each array; one set serves
            (C, n, obs_dim) too
        :param observations: (n, obs_dim) or (C, n, obs_dim)
        """
        ...


@dataclass(frozen=True)
class MlpNetwork:
    """A multilayer perceptron; for continuous actions, deviations do not depend on the state.

    Initial weights are those of `initial_mlp`, as in the code of ProMP (Rothfuss et al., 2019). For
    continuous actions there is a parameter `log_std` (act_dim,), too, bounded below by log(1e-6)
    wherever it is used: sampling and log-probabilities see the same value.

    :param obs_dim: numbers in one observation
    :param distribution: of the actions
    :param net_arch: widths of the hidden layers
    :param activation: after each hidden layer
    :param initial_log_std: logarithm of the initial standard deviation
    :param encoding: what the first layer sees of an observation; None for its numbers
    :param space_shape: shape of one observation as the env gives it; None for (obs_dim,)
    :param dtype: of parameters
    """

    obs_dim: int
    distribution: ActionDistribution
    net_arch: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    initial_log_std: float = 0.0
    encoding: Encoding | None = None
    space_shape: tuple[int, ...] | None = None
    dtype: th.dtype = th.float32

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation as the env gives it."""
        return (self.obs_dim,) if self.space_shape is None else self.space_shape

    @property
    def is_gaussian(self) -> bool:
        """Whether actions are continuous."""
        return isinstance(self.distribution, DiagonalGaussian)

    @cached_property
    def layer_sizes(self) -> tuple[int, ...]:
        """Widths, from the inputs to the outputs."""
        n_out = self.distribution.act_dim if self.is_gaussian else self.distribution.n_params
        return (self._encoding.n_features, *self.net_arch, n_out)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.net_arch) + 1

    def initial_params(
        self,
        rng: np.random.Generator,
        *,
        device: th.device | str = "cpu",
        dtype: th.dtype | None = None,
    ) -> Params:
        """Glorot-uniform weights, zero biases; see `PolicyNetwork.initial_params`."""
        arrays = initial_mlp(self.layer_sizes, rng)
        if self.is_gaussian:
            arrays["log_std"] = np.full(self.distribution.act_dim, self.initial_log_std)
        dtype = self.dtype if dtype is None else dtype
        return {n: th.as_tensor(a).to(device=device, dtype=dtype) for n, a in arrays.items()}

    def dist_params(self, params: Params, observations: Tensor) -> Tensor:
        """See `PolicyNetwork.dist_params`."""
        first = params["layers.0.weight"]
        inputs = self._encoding.encoded(observations, first.dtype)
        lead, batched = inputs.shape[:-1], first.ndim == 3
        # Matrices, not stacks of them, are what products are fastest on.
        shape = (first.shape[0], -1) if batched else (-1,)
        flat = inputs.reshape(*shape, inputs.shape[-1])
        outputs = mlp(params, flat, self.n_layers, self.activation)
        if self.is_gaussian:
            log_std = params["log_std"].clamp(min=LOG_STD_FLOOR)
            log_std = log_std.unsqueeze(-2) if batched else log_std
            outputs = th.cat([outputs, log_std.expand_as(outputs)], dim=-1)
        return outputs.reshape(*lead, outputs.shape[-1])

    def dist_params_numpy(self, params: Arrays, observations: np.ndarray) -> np.ndarray:
        """See `PolicyNetwork.dist_params_numpy`."""
        inputs = self._encoding.encoded_numpy(observations, params["layers.0.weight"].dtype)
        means = mlp_numpy(params, inputs, self.n_layers, self.activation)
        if not self.is_gaussian:
            return means
        n = means.shape[-1]
        out = np.empty((*means.shape[:-1], 2 * n), dtype=means.dtype)
        floor = means.dtype.type(LOG_STD_FLOOR)
        out[..., :n] = means
        out[..., n:] = np.maximum(params["log_std"], floor)[..., None, :]
        return out

    @cached_property
    def _encoding(self) -> Encoding:
        return Numbers(self.obs_dim) if self.encoding is None else self.encoding


@dataclass(frozen=True)
class TabularNetwork:
    """A softmax policy with one logit per state and action, initially uniform.

    Parameters: `logits` (S, A).

    An observation of several numbers is a state, too, with the last number running fastest.

    :param n_states: S
    :param n_actions: A
    :param first_state: the number of state 0
    :param dtype: of parameters
    :param sizes: how many values each number of an observation takes; empty for a single number
    """

    n_states: int
    n_actions: int
    first_state: int = 0
    dtype: th.dtype = th.float64
    sizes: tuple[int, ...] = ()

    @property
    def distribution(self) -> Categorical:
        """Of the actions."""
        return Categorical(self.n_actions)

    @property
    def obs_dim(self) -> int:
        """1, the number of the state, or as many numbers as make it up."""
        return max(1, len(self.sizes))

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """() for the number of the state, or (obs_dim,)."""
        return (len(self.sizes),) if self.sizes else ()

    @property
    def strides(self) -> tuple[int, ...]:
        """What each number of an observation counts for in the number of the state."""
        return tuple(prod(self.sizes[i + 1 :]) for i in range(self.obs_dim))

    def states(self, observations: Tensor) -> Tensor:
        """Numbers of states, (...), from 0.

        :param observations: (..., obs_dim)
        """
        numbers = observations.to(th.int64)
        found = sum(numbers[..., i] * stride for i, stride in enumerate(self.strides))
        return th.as_tensor(found - self.first_state)

    def initial_params(
        self,
        rng: np.random.Generator,
        *,
        device: th.device | str = "cpu",
        dtype: th.dtype | None = None,
    ) -> Params:
        """Zeros; see `PolicyNetwork.initial_params`."""
        dtype = self.dtype if dtype is None else dtype
        return {"logits": th.zeros(self.n_states, self.n_actions, device=device, dtype=dtype)}

    def dist_params(self, params: Params, observations: Tensor) -> Tensor:
        """See `PolicyNetwork.dist_params`."""
        logits, lead = params["logits"], observations.shape[:-1]
        # Padding is 0, which need not be a state.
        states = self.states(observations).clamp(0, self.n_states - 1)
        if logits.ndim == 3:
            rows = states.reshape(logits.shape[0], -1, 1).expand(-1, -1, self.n_actions)
            return logits.gather(1, rows).reshape(*lead, self.n_actions)
        return logits.index_select(0, states.reshape(-1)).reshape(*lead, self.n_actions)

    def dist_params_numpy(self, params: Arrays, observations: np.ndarray) -> np.ndarray:
        """See `PolicyNetwork.dist_params_numpy`."""
        logits = params["logits"]
        states = observations.astype(np.int64) @ np.array(self.strides) - self.first_state
        if states.size and not (states.min() >= 0 and states.max() < self.n_states):
            wrong = states[(states < 0) | (states >= self.n_states)][0] + self.first_state
            raise ValueError(
                f"the observation {wrong} is no state: the table has {self.n_states} from "
                f"{self.first_state} on"
            )
        if logits.ndim == 3:
            return logits[np.arange(len(logits))[:, None], states]
        return logits[states]


def make_network(
    policy_name: str,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    net_arch: Sequence[int] = (64, 64),
    activation: str = "tanh",
    initial_log_std: float = 0.0,
) -> PolicyNetwork:
    """The network of a policy name for these spaces.

    :param policy_name: "MlpPolicy" or "TabularPolicy"
    :param observation_space: Box, Discrete, MultiDiscrete or MultiBinary; for "TabularPolicy"
        Discrete or MultiDiscrete
    :param action_space: Box or Discrete; for "TabularPolicy" Discrete
    :param net_arch: widths of the hidden layers; the table has none
    :param activation: "tanh" or "relu"
    :param initial_log_std: logarithm of the initial standard deviation of continuous actions
    """
    if policy_name not in ("MlpPolicy", "TabularPolicy"):
        raise ValueError(f'policy={policy_name!r} must be "MlpPolicy" or "TabularPolicy"')
    distribution = _distribution(action_space)
    if policy_name == "TabularPolicy":
        return _tabular(observation_space, distribution)
    if activation not in ("tanh", "relu"):
        raise ValueError(f'activation={activation!r} must be "tanh" or "relu"')
    if any(isinstance(n, bool) or n != int(n) or n < 1 for n in net_arch):
        raise ValueError(f"net_arch={net_arch!r} must hold integers of at least 1")
    shape = observation_space.shape or ()
    return MlpNetwork(
        obs_dim=prod(shape),
        distribution=distribution,
        net_arch=tuple(int(n) for n in net_arch),
        activation="tanh" if activation == "tanh" else "relu",
        initial_log_std=float(initial_log_std),
        encoding=encoding_of(observation_space),
        space_shape=shape,
    )


def _distribution(action_space: spaces.Space[Any]) -> DiagonalGaussian | Categorical:
    if isinstance(action_space, spaces.Box) and np.issubdtype(action_space.dtype, np.floating):
        return DiagonalGaussian(prod(action_space.shape))
    if isinstance(action_space, spaces.Discrete) and action_space.start == 0:
        return Categorical(int(action_space.n))
    raise ValueError(
        f"action_space={action_space} is not supported: use a Box of floats, or Discrete(n) that "
        "starts at 0"
    )


def _tabular(
    observation_space: spaces.Space[Any], distribution: DiagonalGaussian | Categorical
) -> TabularNetwork:
    space = observation_space
    is_table = isinstance(space, spaces.Discrete) or (
        isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1
    )
    if not is_table or not isinstance(distribution, Categorical):
        raise ValueError(
            'policy="TabularPolicy" needs Discrete (or MultiDiscrete) observations and Discrete '
            f'actions, got observation_space={space} and {distribution}: use "MlpPolicy"'
        )
    if isinstance(space, spaces.Discrete):
        return TabularNetwork(int(space.n), distribution.n_actions, int(space.start))
    assert isinstance(space, spaces.MultiDiscrete)
    sizes = tuple(int(size) for size in space.nvec)
    table = TabularNetwork(prod(sizes), distribution.n_actions, sizes=sizes)
    return replace(table, first_state=int(np.dot(space.start, table.strides)))
