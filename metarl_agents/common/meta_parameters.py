"""All tensors that an agent learns, and the optimiser's memory of them, as named groups."""

from collections.abc import Mapping, Sequence

import torch as th
from torch import Tensor

from metarl_agents.common.adam import AdamState, adam_step, initial_adam_state
from metarl_agents.common.baselines import Baseline, ValueBaseline
from metarl_agents.common.policies import Params
from metarl_agents.common.policies.module import NetworkPolicy
from metarl_agents.common.step_sizes import policy_part, within_bounds

Groups = dict[str, Params]


class MetaParameters:
    """A policy's theta, step sizes of an inner loop that learns them, and Adam's memory of both.

    A baseline that is learned is kept in files with them, though it learns by itself.

    :param policy: the module that holds theta, which is updated in place
    :param baseline: of returns
    :param step_sizes: the first ones, as :func:`.initial_log_step_sizes` returns them; None where
        none are learned
    """

    def __init__(
        self,
        policy: NetworkPolicy,
        baseline: Baseline,
        step_sizes: Params | None = None,
    ) -> None:
        self.policy, self.baseline = policy, baseline
        step_sizes = step_sizes or {}
        adam = initial_adam_state({**self.theta(), **step_sizes})
        self.groups: Groups = {
            "step_sizes": step_sizes,
            "adam": {"n_steps": adam.n_steps},
            "adam_mean": adam.mean,
            "adam_square": adam.square,
        }

    def theta(self) -> Params:
        """A copy of the policy's parameters."""
        return {name: tensor.detach().clone() for name, tensor in self.policy.params().items()}

    def outer(self) -> Params:
        """What meta-gradients are taken of: theta, and step sizes where they are learned."""
        return {**self.theta(), **self.groups["step_sizes"]}

    def set_outer(self, params: Params) -> None:
        """Takes over new values of what `outer` returns; step sizes are kept within bounds.

        :param params: with its names
        """
        bounded, own = within_bounds(params), self.policy.params()
        with th.no_grad():
            for name, tensor in policy_part(bounded).items():
                own[name].copy_(tensor)
        self.groups["step_sizes"] = {name: bounded[name] for name in self.groups["step_sizes"]}

    def descend(
        self, gradient: Params, learning_rate: float, only: Sequence[str] | None = None
    ) -> None:
        """One step of Adam for all parameters, or for some of them.

        :param gradient: by name
        :param learning_rate: of Adam
        :param only: names; None for all
        """
        params, groups = self.outer(), self.groups
        names = list(params) if only is None else list(only)
        memory = AdamState(groups["adam"]["n_steps"], groups["adam_mean"], groups["adam_square"])
        after, memory = adam_step(
            {name: params[name] for name in names}, gradient, memory, learning_rate
        )
        self.set_outer({**params, **after})
        groups["adam"] = {"n_steps": memory.n_steps}
        groups["adam_mean"] = {**groups["adam_mean"], **memory.mean}
        groups["adam_square"] = {**groups["adam_square"], **memory.square}

    def all_groups(self) -> Groups:
        """Every learned tensor by group and name, with theta as "policy", and "baseline"."""
        theta = {name: tensor.detach() for name, tensor in self.policy.params().items()}
        baseline = self.baseline.state() if isinstance(self.baseline, ValueBaseline) else {}
        return {"policy": theta, **self.groups, "baseline": baseline}

    def set_groups(self, groups: Groups) -> None:
        """Takes over what `all_groups` returned.

        :param groups: with its names
        """
        if isinstance(self.baseline, ValueBaseline):
            self.baseline.restore(groups["baseline"])
        self.set_outer({**groups["policy"], **groups["step_sizes"]})
        self.groups = {name: groups[name] for name in self.groups}


def flat_names(groups: Groups) -> dict[str, Tensor]:
    """Tensors by "group/name".

    :param groups: tensors by group and name
    """
    return {
        f"{group}/{name}": tensor
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def grouped(state: Mapping[str, Tensor], like: Groups) -> Groups:
    """What `flat_names` made flat, on the devices of an agent's own; raises unless it fits.

    :param state: tensors by "group/name"
    :param like: the agent's own groups: their names, shapes and types are asked for
    """
    _check_fits(state, flat_names(like))
    return {
        group: {
            name: state[f"{group}/{name}"].detach().clone().to(own.device)
            for name, own in tensors.items()
        }
        for group, tensors in like.items()
    }


def _check_fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"the learned state lacks {missing} and has {unknown} too many: it is of an agent with "
            "other arguments (policy_kwargs, learn_inner_lr, baseline) or of other spaces"
        )
    for name, tensor in own.items():
        given = state[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            raise ValueError(
                f"{name} of the learned state is {given.dtype} of shape {tuple(given.shape)}, the "
                f"agent's is {tensor.dtype} of shape {tuple(tensor.shape)}: use equal arguments"
            )
        if given.is_floating_point() and not bool(given.isfinite().all()):
            raise ValueError(f"{name} of the learned state is not finite: the state is damaged")
