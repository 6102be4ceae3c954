"""All tensors that a tabular agent learns: phi, the optimiser's memory, the unit of lambda."""

from collections.abc import Mapping

import torch as th
from torch import Tensor, nn

from metarl_agents.common.adam import AdamState, adam_step, initial_adam_state

_POLICY = "policy/logits"
_UNIT = "lam_unit"


class MetaLogits:
    """The meta-policy and what its optimiser remembers.

    :param logits: phi, the parameter of a policy module, which is updated in place, (S, A)
    :param optimizer: "adam" or "sgd"
    """

    def __init__(self, logits: nn.Parameter, optimizer: str) -> None:
        self.parameter, self.optimizer = logits, optimizer
        self.adam = initial_adam_state({"logits": self.logits})
        self.lam_unit = logits.detach().new_zeros(())
        """What one unit of a relative lambda is; 0 until the first update has found out"""

    @property
    def logits(self) -> Tensor:
        """A copy of phi, (S, A)."""
        return self.parameter.detach().clone()

    def ascended(self, gradient: Tensor, learning_rate: float) -> tuple[Tensor, AdamState]:
        """Phi after one step of ascent, and what the optimiser remembers then; changes nothing.

        :param gradient: (S, A)
        :param learning_rate: step size
        """
        if self.optimizer == "sgd":
            return self.logits + learning_rate * gradient, self.adam
        params, adam = adam_step(
            {"logits": self.logits}, {"logits": -gradient}, self.adam, learning_rate
        )
        return params["logits"], adam

    def set_logits(self, logits: Tensor, adam: AdamState) -> None:
        """Takes over new values.

        :param logits: phi, (S, A)
        :param adam: what the optimiser remembers
        """
        with th.no_grad():
            self.parameter.copy_(logits)
        self.adam = adam

    def state(self) -> dict[str, Tensor]:
        """Every learned tensor, by name."""
        return {
            _POLICY: self.parameter.detach(),
            _UNIT: self.lam_unit,
            "adam/n_steps": self.adam.n_steps,
            "adam_mean/logits": self.adam.mean["logits"],
            "adam_square/logits": self.adam.square["logits"],
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state` returned; checks before it changes anything.

        :param state: tensors by name
        """
        own = self.state()
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            raise ValueError(f"the learned state lacks {missing} and has {unknown} too many")
        for name, tensor in own.items():
            given = state[name]
            if given.shape != tensor.shape or given.dtype != tensor.dtype:
                raise ValueError(
                    f"{name} of the learned state is {given.dtype} of shape {tuple(given.shape)}, "
                    f"the agent's is {tensor.dtype} of shape {tuple(tensor.shape)}: it is of an "
                    "agent with other spaces"
                )
            if not bool(given.isfinite().all()):
                raise ValueError(f"{name} of the learned state is not finite: it is damaged")
        device = self.parameter.device
        moved = {name: tensor.detach().clone().to(device) for name, tensor in state.items()}
        adam = AdamState(
            moved["adam/n_steps"],
            {"logits": moved["adam_mean/logits"]},
            {"logits": moved["adam_square/logits"]},
        )
        self.set_logits(moved[_POLICY], adam)
        self.lam_unit = moved[_UNIT]
