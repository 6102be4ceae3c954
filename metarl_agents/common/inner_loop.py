"""Inner steps: gradient descent on the episodes of a task, differentiable with respect to the
parameters it starts from.

Parameters may carry a leading axis C, one entry per task, with episodes (C, E, T): the loss of a
task depends on its own parameters alone, so the gradient of the sum holds all per-task gradients.
Nothing averages over tasks, which would divide every inner step by their number.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch as th
from torch import Tensor

from metarl_agents.common.losses import INNER_LOSSES, Reduction, step_log_probs
from metarl_agents.common.policies.networks import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes

InnerLR = float | Mapping[str, Tensor]


class InnerSteps(NamedTuple):
    """What K inner steps went through.

    :param params: theta_0, ..., theta_K
    :param dist_params: (..., E, T, P) of theta_k at the observations of D_k, for k < K
    """

    params: list[Params]
    dist_params: list[Tensor]


def adapted_params(
    network: PolicyNetwork,
    params: Params,
    batches: Sequence[WeightedEpisodes],
    *,
    loss: str = "loglik",
    reduction: Reduction = "mean",
    inner_lr: InnerLR | Sequence[InnerLR],
    first_order: bool = False,
    create_graph: bool = True,
) -> list[Params]:
    """Return the parameters ``[theta_0, ..., theta_K]`` before and after each inner step,
    ``theta_(k+1) = theta_k - alpha grad L(theta_k; D_k)`` (Finn, Abbeel, Levine 2017, equation 1).

    :param network: the policy's architecture
    :param params: theta_0, without axes of tasks or with one
    :param batches: D_0, ..., D_(K-1), one per step
    :param loss: a name of ``INNER_LOSSES``; "none" implies ``first_order``
    :param reduction: see :func:`~metarl_agents.common.losses.reinforce_loss`
    :param inner_lr: alpha; a number, or a positive tensor per parameter (see :func:`inner_step`),
        or a list with one of these per step
    :param first_order: whether inner gradients count as constants: ``d theta_K / d theta_0 = I``
    :param create_graph: whether the result can be differentiated; False returns plain tensors
    """
    return inner_steps(
        network,
        params,
        batches,
        loss=loss,
        reduction=reduction,
        inner_lr=inner_lr,
        first_order=first_order,
        create_graph=create_graph,
    ).params


def inner_steps(
    network: PolicyNetwork,
    params: Params,
    batches: Sequence[WeightedEpisodes],
    *,
    loss: str = "loglik",
    reduction: Reduction = "mean",
    inner_lr: InnerLR | Sequence[InnerLR],
    first_order: bool = False,
    create_graph: bool = True,
) -> InnerSteps:
    """Return the parameters of :func:`adapted_params`, and what the policies said on the way.

    Where inner gradients can be differentiated, so can these numbers: a penalty on them costs no
    pass through the network.

    :param network: see :func:`adapted_params`, as for all others
    :param params: theta_0
    :param batches: D_0, ..., D_(K-1)
    :param loss: a name of ``INNER_LOSSES``
    :param reduction: see :func:`~metarl_agents.common.losses.reinforce_loss`
    :param inner_lr: alpha
    :param first_order: whether inner gradients count as constants
    :param create_graph: whether the result can be differentiated
    """
    second_order = create_graph and not first_order and loss != "none"
    steps, numbers = [params], []
    for episodes, learning_rate in zip(
        batches, learning_rates(inner_lr, len(batches)), strict=True
    ):
        gradient, dist_params = _gradient_and_numbers(
            network, steps[-1], episodes, loss, reduction, second_order
        )
        numbers.append(dist_params if second_order else dist_params.detach())
        with th.set_grad_enabled(create_graph):
            steps.append(inner_step(steps[-1], gradient, learning_rate))
    return InnerSteps(steps, numbers)


def inner_gradient(
    network: PolicyNetwork,
    params: Params,
    episodes: WeightedEpisodes,
    *,
    loss: str = "loglik",
    reduction: Reduction = "mean",
    create_graph: bool,
) -> Params:
    """Return the gradient of the inner loss of every task with respect to its own parameters.

    :param network: the policy's architecture
    :param params: where to take the gradient, without axes of tasks or with one
    :param episodes: (..., E, T) of these tasks
    :param loss: a name of ``INNER_LOSSES``
    :param reduction: see :func:`~metarl_agents.common.losses.reinforce_loss`
    :param create_graph: whether the gradient can be differentiated
    """
    return _gradient_and_numbers(network, params, episodes, loss, reduction, create_graph)[0]


def _gradient_and_numbers(
    network: PolicyNetwork,
    params: Params,
    episodes: WeightedEpisodes,
    loss: str,
    reduction: Reduction,
    create_graph: bool,
) -> tuple[Params, Tensor]:
    if loss not in INNER_LOSSES:
        raise ValueError(f"loss={loss!r} is not known: use one of {sorted(INNER_LOSSES)}")
    with th.enable_grad():
        variables = {
            name: param if param.requires_grad else param.detach().requires_grad_()
            for name, param in params.items()
        }
        numbers = network.dist_params(variables, episodes.observations)
        log_probs = step_log_probs(network.distribution, numbers, episodes)
        total = INNER_LOSSES[loss](log_probs, episodes, reduction).sum()
        gradients = th.autograd.grad(
            total, list(variables.values()), create_graph=create_graph, materialize_grads=True
        )
    return dict(zip(variables, gradients, strict=True)), numbers


def inner_step(params: Params, gradient: Params, inner_lr: InnerLR) -> Params:
    """Return ``theta - alpha g``.

    :param params: theta
    :param gradient: g, of the same names and shapes
    :param inner_lr: alpha; a number, or one tensor per parameter: its shape is that of the
        parameter (a step size per element), or the leading axes of it (per tensor), or () for all
    """
    if not isinstance(inner_lr, Mapping):
        return {name: param - inner_lr * gradient[name] for name, param in params.items()}
    return {
        name: param - step_size(inner_lr[name], gradient[name]) * gradient[name]
        for name, param in params.items()
    }


def step_size(learning_rate: Tensor, gradient: Tensor) -> Tensor:
    """Return the step size with axes of length 1 behind, so that it multiplies the gradient.

    :param learning_rate: shape of the gradient, or its first axes
    :param gradient: of one parameter
    """
    lead = tuple(learning_rate.shape)
    if lead != tuple(gradient.shape[: len(lead)]):
        raise ValueError(
            f"inner_lr of shape {lead} does not fit a parameter of shape {tuple(gradient.shape)}: "
            "give it the shape of the parameter, or its first axes, or no axes"
        )
    return learning_rate.reshape(lead + (1,) * (gradient.ndim - len(lead)))


def learning_rates(inner_lr: InnerLR | Sequence[InnerLR], n_steps: int) -> Sequence[InnerLR]:
    """Return one alpha per inner step.

    :param inner_lr: one for all steps, or a list with one per step
    :param n_steps: K
    """
    if not isinstance(inner_lr, Sequence):
        return [inner_lr] * n_steps
    if len(inner_lr) != n_steps:
        raise ValueError(
            f"inner_lr has {len(inner_lr)} entries for {n_steps} inner steps: give one per step, "
            "or a single one for all"
        )
    return inner_lr
