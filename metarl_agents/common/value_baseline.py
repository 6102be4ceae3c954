"""A neural network as baseline, shared by all tasks and learned over meta-iterations."""

from collections.abc import Sequence

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies.encodings import Encoding, Numbers
from metarl_agents.common.policies.mlp import initial_mlp, mlp

LARGEST_INPUT = 10.0
SMALLEST_SCALE = 1e-6


class ValueBaseline:
    """Predicts returns from the observation and the time, by a network with tanh layers.

    It is fitted to finished meta-iterations and used in the next one: its weights never depend on
    the episodes it is applied to. Targets are standardised, and outputs kept when mean and scale
    move (van Hasselt et al., 2016, section 2). Every fit starts Adam anew, so the state is that of
    the weights alone. Before the first fit it predicts 0.

    :param obs_dim: numbers in one observation
    :param rng: of the initial weights
    :param encoding: what the first layer sees of an observation; None for its numbers
    :param net_arch: widths of the hidden layers
    :param learning_rate: of Adam
    :param n_epochs: passes over the data in each fit
    :param minibatch_size: steps per update of Adam
    :param device: where the weights live
    :param dtype: of the weights
    """

    def __init__(
        self,
        obs_dim: int,
        *,
        rng: np.random.Generator,
        encoding: Encoding | None = None,
        net_arch: Sequence[int] = (64, 64),
        learning_rate: float = 1e-3,
        n_epochs: int = 5,
        minibatch_size: int = 2048,
        device: th.device | str = "cpu",
        dtype: th.dtype = th.float32,
    ) -> None:
        self.encoding = Numbers(obs_dim) if encoding is None else encoding
        self.learning_rate, self.n_epochs = learning_rate, n_epochs
        self.minibatch_size = minibatch_size
        self.n_layers = len(net_arch) + 1
        arrays = initial_mlp((self.encoding.n_features + 1, *net_arch, 1), rng)
        arrays[f"layers.{self.n_layers - 1}.weight"][:] = 0.0
        arrays |= {"mean": np.zeros(()), "scale": np.ones(())}
        self._state = {n: th.as_tensor(a).to(device, dtype) for n, a in arrays.items()}

    def __call__(self, episodes: EpisodeBatch, returns: Tensor) -> Tensor:
        """Predictions, (..., E, T); `returns` only says in which precision."""
        with th.no_grad():
            outputs = self._outputs(self._state, self._inputs(episodes).flatten(0, -2))
            values = self._state["mean"] + self._state["scale"] * outputs
        return values.reshape(returns.shape).to(returns)

    def fit(self, episodes: EpisodeBatch, returns: Tensor, *, rng: np.random.Generator) -> float:
        """Moves the predictions towards the returns of a finished meta-iteration.

        :param episodes: leading axis M allowed
        :param returns: (..., E, T) targets
        :param rng: of the order of the steps
        :return: the fraction of the returns' variance that was explained beforehand, at most 1
        """
        valid = episodes.mask.flatten().bool()
        inputs = self._inputs(episodes).flatten(0, -2)[valid]
        targets = returns.detach().to(inputs).flatten()[valid]
        if not targets.isfinite().all():
            raise ValueError("returns are not finite: the value baseline cannot be fitted to them")
        if not inputs.isfinite().all():
            raise ValueError(
                "observations are not finite: the value baseline cannot be fitted to them"
            )
        predictions = self(episodes, returns).to(inputs).flatten()[valid]
        variance = targets.var(correction=0).clamp(min=SMALLEST_SCALE**2)
        explained = 1.0 - (targets - predictions).square().mean() / variance
        self._standardize(targets)
        self._descend(inputs, (targets - self._state["mean"]) / self._state["scale"], rng)
        return float(explained)

    def state(self) -> dict[str, Tensor]:
        """All that was learned, by name."""
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` returned.

        :param state: tensors by name
        """
        for name, own in self._state.items():
            if name not in state or state[name].shape != own.shape:
                found = tuple(state[name].shape) if name in state else None
                raise ValueError(f"{name} has shape {found}, not {tuple(own.shape)}")
        self._state = {n: state[n].detach().clone().to(own) for n, own in self._state.items()}

    def _inputs(self, episodes: EpisodeBatch) -> Tensor:
        """(..., E, T, n_features + 1): the observation, clipped, and t / 100."""
        own = self._state["mean"]
        observations = episodes.observations.to(own.device)
        features = self.encoding.encoded(observations, own.dtype)
        times = th.arange(features.shape[-2], device=own.device, dtype=own.dtype) / 100.0
        times = times[:, None].expand(*features.shape[:-1], 1)
        return th.cat([features.clamp(-LARGEST_INPUT, LARGEST_INPUT), times], dim=-1)

    def _outputs(self, params: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return mlp(params, inputs, self.n_layers, "tanh").squeeze(-1)

    def _standardize(self, targets: Tensor) -> None:
        """Moves mean and scale to those of the targets, and the last layer so that outputs stay."""
        old_mean, old_scale = self._state["mean"], self._state["scale"]
        mean, scale = targets.mean(), targets.std(correction=0).clamp(min=SMALLEST_SCALE)
        weight, bias = (f"layers.{self.n_layers - 1}.{name}" for name in ("weight", "bias"))
        self._state = {
            **self._state,
            weight: self._state[weight] * old_scale / scale,
            bias: (self._state[bias] * old_scale + old_mean - mean) / scale,
            "mean": mean,
            "scale": scale,
        }

    def _descend(self, inputs: Tensor, targets: Tensor, rng: np.random.Generator) -> None:
        """Adam on the mean squared error, with its usual constants."""
        params = {
            name: tensor.clone().requires_grad_()
            for name, tensor in self._state.items()
            if name.startswith("layers.")
        }
        adam = th.optim.Adam(params.values(), lr=self.learning_rate)
        for _ in range(self.n_epochs):
            order = th.as_tensor(rng.permutation(len(targets)), device=inputs.device)
            for rows in order.split(self.minibatch_size):
                errors = self._outputs(params, inputs[rows]) - targets[rows]
                adam.zero_grad()
                errors.square().mean().backward()
                adam.step()
        self._state |= {name: tensor.detach() for name, tensor in params.items()}
