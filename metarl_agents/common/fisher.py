"""Curvature of the divergence between policies: products of Fisher matrices with vectors, plain and
through the inner steps of a meta-gradient.

Where two policies are equal, their divergence and its gradient vanish. So its Hessian in the
parameters before adaptation is ``mean_i J_i' F_i J_i``, J_i the derivative of the adapted
parameters of task i and F_i the Fisher matrix at them, and no third derivative is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.inner_loop import (
    InnerLR,
    adapted_params,
    inner_gradient,
    inner_step,
    learning_rates,
)
from metarl_agents.common.losses import Reduction, mean_kl
from metarl_agents.common.policies.networks import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.task_chunks import (
    Backend,
    ChunkPlan,
    chunk_of,
    chunk_plan,
    count_tasks,
    for_each_task,
    map_tensors,
)

ParamsProduct = Callable[[Params], Params]


def fisher_product(
    network: PolicyNetwork, params: Params, episodes: WeightedEpisodes
) -> ParamsProduct:
    """Return ``v -> F v``, F the Fisher matrix at ``params`` averaged over the valid steps.

    It is taken in the numbers of the distribution, between a forward-mode and a backward pass
    through the network (Schraudolph 2002; Martens 2020, section 9). Both are backward passes
    through graphs that are kept between products: the pull-back of the network is linear in its
    cotangent, and its transpose is the push-forward.

    :param network: the policy's architecture
    :param params: where to take F, without an axis of tasks or with one (then so have all v)
    :param episodes: (..., E, T), their observations are averaged over
    """
    with th.enable_grad():
        leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
        numbers = network.dist_params(leaves, episodes.observations)
        cotangent = th.zeros_like(numbers).requires_grad_()
        pulled = _pull_back([numbers], leaves, [cotangent], create_graph=True)
    n_steps = episodes.mask.sum(dim=(-2, -1), keepdim=True).clamp_min(1)
    weights = (episodes.mask / n_steps).unsqueeze(-1)

    def product(vector: Params) -> Params:
        pushed = _pull_back(
            list(pulled.values()), {"": cotangent}, [vector[name] for name in pulled]
        )[""]
        image = network.distribution.fisher_product(numbers.detach(), pushed, episodes.action_masks)
        return _pull_back([numbers], leaves, [weights * image])

    return product


def meta_fisher_product(
    network: PolicyNetwork,
    params: Params,
    inner: Sequence[WeightedEpisodes],
    outer: WeightedEpisodes,
    *,
    loss: str = "loglik",
    reduction: Reduction = "mean",
    inner_lr: InnerLR | Sequence[InnerLR],
    first_order: bool = False,
    subsample: float = 1.0,
    rng: np.random.Generator | None = None,
    backend: Backend = "auto",
    chunk_size: int | None = None,
    n_workers: int = 1,
) -> ParamsProduct:
    """Return ``v -> mean_i J_i' F_i J_i v`` with ``J_i = (I - alpha H_i(K-1)) ... (I - alpha
    H_i0)``, H_ik the Hessian of the inner loss of task i at its parameters before step k.

    The graphs of the inner gradients are kept between products. A product costs two Hessian-vector
    products per inner step, and a pass forth and back through the adapted policy.

    :param network: the policy's architecture
    :param params: parameters before adaptation, without an axis of tasks
    :param inner: one batch (M, E, T) per inner step
    :param outer: (M, E, T), of the adapted policies
    :param loss: a name of ``INNER_LOSSES``; "none" implies ``first_order``
    :param reduction: of the inner loss
    :param inner_lr: alpha, as :func:`~metarl_agents.common.inner_loop.adapted_params` takes it
    :param first_order: whether ``J_i = I``
    :param subsample: part of the episodes, the same of all tasks, that H and F are averaged over;
        the adapted parameters come from all of them
    :param rng: draws these episodes; needed where ``subsample`` is below 1
    :param backend: as :func:`~metarl_agents.common.meta_gradient.meta_gradient` takes it, except
        "vmap", which keeps no graphs
    :param chunk_size: tasks per chunk; None chooses by device and size of the data
    :param n_workers: threads of the pool; the result does not depend on it
    """
    if backend == "vmap":
        raise ValueError('backend="vmap" cannot keep graphs between products: use "batched"')
    plan = chunk_plan(backend, chunk_size, params, (list(inner), outer))
    kept = [_subsampled(batch, subsample, rng) for batch in (*inner, outer)]
    alphas = learning_rates(inner_lr, len(inner))
    n_differentiated = 0 if first_order or loss == "none" else len(inner)

    def of_chunk(chunk: slice) -> ParamsProduct:
        n_tasks = chunk.stop - chunk.start
        steps = adapted_params(
            network,
            for_each_task({name: param.detach() for name, param in params.items()}, n_tasks),
            chunk_of(list(inner), chunk),
            loss=loss,
            reduction=reduction,
            inner_lr=[_for_each_task(alpha, n_tasks) for alpha in alphas],
            create_graph=False,
        )
        *batches, last = chunk_of(kept, chunk)
        jacobians = [
            _StepJacobian(
                _for_each_task(alphas[k], n_tasks),
                hessian_product(network, steps[k], batches[k], loss=loss, reduction=reduction),
            )
            for k in range(n_differentiated)
        ]
        return _summed_through(jacobians, fisher_product(network, steps[-1], last), n_tasks)

    products = plan.map(of_chunk, n_workers=n_workers)
    return _mean_of_chunks(products, plan, count_tasks(outer), n_workers)


def hessian_product(
    network: PolicyNetwork,
    params: Params,
    episodes: WeightedEpisodes,
    *,
    loss: str = "loglik",
    reduction: Reduction = "mean",
) -> ParamsProduct:
    """Return ``v -> H v``, H the Hessian of the inner loss at ``params``; keeps the graph of its
    gradient.

    :param network: the policy's architecture
    :param params: where to take H, without an axis of tasks or with one (then so have all v)
    :param episodes: (..., E, T)
    :param loss: a name of ``INNER_LOSSES``
    :param reduction: see :func:`~metarl_agents.common.losses.reinforce_loss`
    """
    leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
    slopes = inner_gradient(
        network, leaves, episodes, loss=loss, reduction=reduction, create_graph=True
    )
    curved = {name: slope for name, slope in slopes.items() if slope.requires_grad}

    def product(vector: Params) -> Params:
        return _pull_back(list(curved.values()), leaves, [vector[name] for name in curved])

    return product


def meta_kl_product(
    network: PolicyNetwork,
    params: Params,
    inner: Sequence[WeightedEpisodes],
    outer: WeightedEpisodes,
    *,
    loss: str = "loglik",
    reduction: Reduction = "mean",
    inner_lr: InnerLR | Sequence[InnerLR],
    first_order: bool = False,
    backend: Backend = "auto",
    chunk_size: int | None = None,
    n_workers: int = 1,
) -> ParamsProduct:
    """Return the product of :func:`meta_fisher_product`, by differentiating ``mean_i KL(theta_i' ||
    theta_i'(theta))`` twice through the inner steps: the slow reference, which keeps no graphs.

    :param network: the policy's architecture
    :param params: parameters before adaptation, without an axis of tasks
    :param inner: one batch (M, E, T) per inner step
    :param outer: (M, E, T), of the adapted policies
    :param loss: a name of ``INNER_LOSSES``; "none" implies ``first_order``
    :param reduction: of the inner loss
    :param inner_lr: alpha, as :func:`~metarl_agents.common.inner_loop.adapted_params` takes it
    :param first_order: whether adapted parameters move as much as those before adaptation
    :param backend: as :func:`~metarl_agents.common.meta_gradient.meta_gradient` takes it, except
        "vmap"
    :param chunk_size: tasks per chunk; None chooses by device and size of the data
    :param n_workers: threads of the pool
    """
    if backend == "vmap":
        raise ValueError('backend="vmap" is not made for products: use "batched"')
    plan = chunk_plan(backend, chunk_size, params, (list(inner), outer))
    alphas = learning_rates(inner_lr, len(inner))

    def divergences(theta: Params, chunk: slice) -> Tensor:
        n_tasks = chunk.stop - chunk.start
        adapted = adapted_params(
            network,
            for_each_task(theta, n_tasks),
            chunk_of(list(inner), chunk),
            loss=loss,
            reduction=reduction,
            inner_lr=[_for_each_task(alpha, n_tasks) for alpha in alphas],
            first_order=first_order,
        )[-1]
        own: WeightedEpisodes = chunk_of(outer, chunk)
        numbers = network.dist_params(adapted, own.observations)
        return mean_kl(network.distribution, numbers.detach(), numbers, own.mask, own.action_masks)

    def of_chunk(chunk: slice) -> ParamsProduct:
        def product(vector: Params) -> Params:
            leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
            with th.enable_grad():
                total = divergences(leaves, chunk).sum()
                slopes = _pull_back([total], leaves, None, create_graph=True)
            curved = {name: slope for name, slope in slopes.items() if slope.requires_grad}
            return _pull_back(list(curved.values()), leaves, [vector[name] for name in curved])

        return product

    return _mean_of_chunks([of_chunk(c) for c in plan.chunks], plan, count_tasks(outer), n_workers)


class _StepJacobian(NamedTuple):
    """``I - alpha H`` of an inner step and its transpose; alpha is diagonal."""

    inner_lr: InnerLR
    hessian: ParamsProduct

    def times(self, vector: Params) -> Params:
        return inner_step(vector, self.hessian(vector), self.inner_lr)

    def transpose_times(self, vector: Params) -> Params:
        still = {name: th.zeros_like(part) for name, part in vector.items()}
        return inner_step(vector, self.hessian(inner_step(still, vector, self.inner_lr)), -1.0)


def _summed_through(
    jacobians: Sequence[_StepJacobian], fisher: ParamsProduct, n_tasks: int
) -> ParamsProduct:
    """``v -> sum_i J_i' F_i J_i v`` over the tasks of a chunk."""

    def product(vector: Params) -> Params:
        image = for_each_task(vector, n_tasks)
        for jacobian in jacobians:
            image = jacobian.times(image)
        image = fisher(image)
        for jacobian in reversed(jacobians):
            image = jacobian.transpose_times(image)
        return image if n_tasks == 1 else {name: part.sum(0) for name, part in image.items()}

    return product


def _mean_of_chunks(
    products: Sequence[ParamsProduct], plan: ChunkPlan, n_tasks: int, n_workers: int
) -> ParamsProduct:
    """The mean over tasks, from one product (a sum over tasks) per chunk, on the same pool."""
    indices = {chunk.start: index for index, chunk in enumerate(plan.chunks)}

    def product(vector: Params) -> Params:
        plain = {name: part.detach() for name, part in vector.items()}
        parts = plan.map(lambda chunk: products[indices[chunk.start]](plain), n_workers=n_workers)
        return {
            name: th.stack([part[name] for part in parts]).sum(dim=0) / n_tasks for name in plain
        }

    return product


def _for_each_task(inner_lr: InnerLR, n_tasks: int) -> InnerLR:
    if not isinstance(inner_lr, Mapping):
        return inner_lr
    return for_each_task({name: alpha.detach() for name, alpha in inner_lr.items()}, n_tasks)


def _subsampled(
    episodes: WeightedEpisodes, part: float, rng: np.random.Generator | None
) -> WeightedEpisodes:
    """The episodes at some positions, the same for all tasks."""
    if not 0 < part <= 1:
        raise ValueError(f"subsample={part} must lie in (0, 1]")
    if part == 1:
        return episodes
    if rng is None:
        raise ValueError(f"subsample={part} draws episodes: give it a generator as rng")
    n_episodes = episodes.mask.shape[-2]
    drawn = rng.choice(n_episodes, size=ceil(part * n_episodes), replace=False)
    positions = th.as_tensor(np.sort(drawn), device=episodes.mask.device)
    return map_tensors(lambda field: field.index_select(1, positions), episodes)


def _pull_back(
    outputs: Sequence[Tensor],
    leaves: Params,
    cotangents: Sequence[Tensor] | None,
    *,
    create_graph: bool = False,
) -> Params:
    """Cotangents times the derivative of the outputs in the leaves; the graph is kept."""
    if not outputs:
        return {name: th.zeros_like(leaf) for name, leaf in leaves.items()}
    gradients = th.autograd.grad(
        outputs,
        list(leaves.values()),
        cotangents,
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return dict(zip(leaves, gradients, strict=True))
