"""The usual way to write MAML in PyTorch, to race against: a module that is copied for every task.

It is the scheme of learn2learn's `MAML.clone` and `adapt`, written here without that library: the
copy's parameters are replaced by differentiable functions of the original's, and distributions and
losses are built from `torch.nn` and `torch.distributions`, task after task.
"""

import copy

import torch as th
from torch import Tensor, nn

from metarl_agents.common.returns import WeightedEpisodes


class GaussianPolicy(nn.Module):
    """Two tanh layers of 64, and a free logarithm of the standard deviation.

    :param obs_dim: numbers of an observation
    :param act_dim: numbers of an action
    """

    def __init__(self, obs_dim: int, act_dim: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Linear(obs_dim, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, act_dim)
        )
        self.log_std = nn.Parameter(th.zeros(act_dim))

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Of the actions, (...).

        :param observations: (..., obs_dim)
        :param actions: (..., act_dim)
        """
        normal = th.distributions.Normal(self.mean(observations), self.log_std.exp())
        return normal.log_prob(actions).sum(-1)


def meta_gradient(
    policy: GaussianPolicy, data: tuple[WeightedEpisodes, WeightedEpisodes], inner_lr: float
) -> list[Tensor]:
    """The gradient of the mean over tasks of the loss after one step, in order of the parameters.

    :param policy: whose
    :param data: inner and outer episodes of M tasks
    :param inner_lr: step size
    """
    inner, outer = data
    n_tasks = len(inner.mask)
    losses = []
    for task in range(n_tasks):
        clone = cloned(policy)
        adapt(
            clone, inner.observations[task], inner.actions[task], inner.advantages[task], inner_lr
        )
        log_probs = clone.log_prob(outer.observations[task], outer.actions[task])
        ratios = (log_probs - log_probs.detach()).exp()
        losses.append(-(ratios * outer.advantages[task]).mean())
    return list(th.autograd.grad(th.stack(losses).mean(), list(policy.parameters())))


def cloned(policy: GaussianPolicy) -> GaussianPolicy:
    """A copy whose parameters are functions of the original's.

    :param policy: the original
    """
    clone = copy.deepcopy(policy)
    _replace(clone, {name: value.clone() for name, value in policy.named_parameters()})
    return clone


def adapt(
    clone: GaussianPolicy,
    observations: Tensor,
    actions: Tensor,
    advantages: Tensor,
    inner_lr: float,
) -> None:
    """One policy-gradient step of a copy, which stays a function of the original.

    :param clone: the copy
    :param observations: (E, T, obs_dim)
    :param actions: (E, T, act_dim)
    :param advantages: (E, T)
    :param inner_lr: step size
    """
    loss = -(clone.log_prob(observations, actions) * advantages).mean()
    params = _tensors(clone)
    gradients = th.autograd.grad(loss, list(params.values()), create_graph=True)
    stepped = {
        name: value - inner_lr * gradient
        for (name, value), gradient in zip(params.items(), gradients, strict=True)
    }
    _replace(clone, stepped)


def _tensors(clone: GaussianPolicy) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, module in clone.named_modules()
        for name, tensor in module._parameters.items()
        if tensor is not None
    }


def _replace(clone: GaussianPolicy, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        prefix, _, own = name.rpartition(".")
        # `setattr` refuses tensors that are not leaves.
        clone.get_submodule(prefix)._parameters[own] = tensor  # type: ignore[assignment]
