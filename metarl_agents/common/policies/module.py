"""Policy networks as SB3 policy classes: the learned initial parameters, for `agent.policy`."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from metarl_agents.common.policies.networks import (
    MlpNetwork,
    Params,
    PolicyNetwork,
    TabularNetwork,
    make_network,
)


class NetworkPolicy(BasePolicy):
    """A `PolicyNetwork` with one set of parameters, the un-adapted ones.

    :param observation_space: of the env
    :param action_space: of the env
    :param network: the network
    :param rng: of the initial parameters; also of the actions that `predict` samples
    """

    network: PolicyNetwork

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        network: PolicyNetwork,
        rng: np.random.Generator | None,
    ) -> None:
        super().__init__(observation_space, action_space)
        rng = np.random.default_rng() if rng is None else rng
        self.network = network
        self._register(network.initial_params(rng))
        self._acting_rng = rng.spawn(1)[0]

    @abstractmethod
    def _register(self, params: Params) -> None:
        """Makes them parameters of the module, under their names."""

    def params(self) -> Params:
        """The parameters themselves, by the network's names and in its order."""
        return dict(self.named_parameters())

    def forward(self, obs: Tensor) -> Tensor:
        """Distribution parameters, (n, P).

        :param obs: (n, *obs_shape)
        """
        return self.network.dist_params(self.params(), obs.reshape(len(obs), self.network.obs_dim))

    def _predict(
        self, observation: Tensor | dict[str, Tensor], deterministic: bool = False
    ) -> Tensor:
        assert isinstance(observation, Tensor)
        distribution = self.network.distribution
        dist_params = self.forward(observation).detach().cpu().numpy()
        if deterministic:
            actions = distribution.mode(dist_params)
        else:
            noise = distribution.draw_noise(self._acting_rng, len(dist_params))
            actions = distribution.sample(dist_params, noise)
        return th.as_tensor(actions, device=self.device)


class MlpPolicy(NetworkPolicy):
    """A multilayer perceptron, see `MlpNetwork`.

    :param observation_space: of the env
    :param action_space: of the env
    :param net_arch: widths of the hidden layers
    :param activation: "tanh" or "relu"
    :param initial_log_std: logarithm of the initial standard deviation of continuous actions
    :param rng: of the initial parameters; also of the actions that `predict` samples
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        net_arch: Sequence[int] = (64, 64),
        activation: str = "tanh",
        initial_log_std: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        network = make_network(
            "MlpPolicy",
            observation_space,
            action_space,
            net_arch=net_arch,
            activation=activation,
            initial_log_std=initial_log_std,
        )
        super().__init__(observation_space, action_space, network, rng)

    def _register(self, params: Params) -> None:
        assert isinstance(self.network, MlpNetwork)
        self.layers = nn.ModuleList()
        for i in range(self.network.n_layers):
            layer = nn.Module()
            layer.weight = nn.Parameter(params[f"layers.{i}.weight"])
            layer.bias = nn.Parameter(params[f"layers.{i}.bias"])
            self.layers.append(layer)
        if self.network.is_gaussian:
            self.log_std = nn.Parameter(params["log_std"])

    def params(self) -> Params:
        """The parameters themselves, by the network's names and in its order."""
        named: Params = dict(self.named_parameters())
        if "log_std" in named:
            named["log_std"] = named.pop("log_std")
        return named


class TabularPolicy(NetworkPolicy):
    """One logit per state and action, see `TabularNetwork`.

    :param observation_space: `Discrete` or `MultiDiscrete`
    :param action_space: `Discrete`
    :param rng: of the actions that `predict` samples
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        network = make_network("TabularPolicy", observation_space, action_space)
        super().__init__(observation_space, action_space, network, rng)

    def _register(self, params: Params) -> None:
        assert isinstance(self.network, TabularNetwork)
        self.logits = nn.Parameter(params["logits"])
