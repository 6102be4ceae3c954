"""Gradients of the mean of a loss over tasks."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.common.policies.networks import Params
from metarl_agents.common.task_chunks import (
    Backend,
    chunk_of,
    chunk_plan,
    count_tasks,
    for_each_task,
    map_tensors,
    run_on_threads,
)

TaskLoss = Callable[[Params, Any], Tensor | tuple[Tensor, dict[str, Tensor]]]


class MetaGradient(NamedTuple):
    """Losses of all tasks and the gradient of their mean.

    :param losses: (M,)
    :param gradient: of the mean over tasks, by parameter
    :param metrics: further numbers of the tasks by name, (M,) each
    """

    losses: Float[Tensor, " task"]
    gradient: Params
    metrics: dict[str, Tensor]

    @property
    def norm(self) -> float:
        """The Euclidean norm of the whole gradient."""
        return float(sum(part.square().sum() for part in self.gradient.values()) ** 0.5)

    def clipped(self, max_norm: float | None) -> Params:
        """The gradient, shortened to a norm if it is longer (Pascanu, Mikolov, Bengio 2013).

        :param max_norm: largest norm; None for no limit
        """
        norm = self.norm
        if max_norm is None or norm <= max_norm:
            return self.gradient
        return {name: part * (max_norm / norm) for name, part in self.gradient.items()}

    @property
    def is_finite(self) -> bool:
        """Whether all losses are, and the squares of the gradient, which optimisers remember."""
        return bool(self.losses.isfinite().all()) and isfinite(self.norm)


def meta_gradient(
    task_loss: TaskLoss,
    params: Params,
    data: Any,
    *,
    backend: Backend = "auto",
    chunk_size: int | None = None,
    n_workers: int = 1,
) -> MetaGradient:
    """Return the gradient of the mean of ``task_loss`` over tasks.

    :param task_loss: pure function of parameters and of the data of C tasks, both with a leading
        axis C, to losses (C,), or to losses and a dict of further numbers (C,) each. For a single
        task the axis is left out everywhere: of parameters, data and losses, which then are ().
    :param params: the parameters shared by all tasks
    :param data: tensors with a leading axis M (and None), in tuples, lists and dicts
    :param backend: "loop" (one task after the other, with torch's threads as they are), "threads"
        (chunks of tasks on a pool of workers with one thread each), "batched" (all tasks at once,
        or chunks of ``chunk_size``), "vmap" (the same by ``torch.func``); "auto" takes "threads" on
        a CPU, and elsewhere "batched" in chunks that fit the free memory
    :param chunk_size: tasks per chunk; None chooses by device and size of the data
    :param n_workers: threads of the pool; the result does not depend on it
    """
    variables = {name: param.detach() for name, param in params.items()}
    plan = chunk_plan(backend, chunk_size, variables, data)
    of_chunk = _vmapped_gradient if plan.backend == "vmap" else _chunk_gradient
    parts = plan.map(lambda chunk: of_chunk(task_loss, variables, data, chunk), n_workers=n_workers)
    return _mean(parts)


def task_map(function: Callable[[Any], Any], data: Any, *, n_workers: int = 1) -> list[Any]:
    """Return the function of the data of every task, in order, computed on a pool of threads.

    :param function: of the data of one task, without the axis M; must not change anything shared
    :param data: tensors with a leading axis M (and None), in tuples, lists and dicts
    :param n_workers: threads of the pool, with one intra-op thread each
    """
    return run_on_threads(
        lambda task: function(chunk_of(data, slice(task, task + 1))),
        range(count_tasks(data)),
        n_workers=n_workers,
    )


def _chunk_gradient(task_loss: TaskLoss, params: Params, data: Any, chunk: slice) -> MetaGradient:
    """Losses of a chunk and the gradient of their sum."""
    n_tasks = chunk.stop - chunk.start
    with th.enable_grad():
        variables = {name: param.detach().requires_grad_() for name, param in params.items()}
        result = task_loss(for_each_task(variables, n_tasks), chunk_of(data, chunk))
        losses, metrics = result if isinstance(result, tuple) else (result, {})
        gradient = th.autograd.grad(losses.sum(), list(variables.values()), materialize_grads=True)
    return MetaGradient(
        losses.detach().reshape(n_tasks),
        dict(zip(variables, gradient, strict=True)),
        {name: value.detach().reshape(n_tasks) for name, value in metrics.items()},
    )


def _vmapped_gradient(task_loss: TaskLoss, params: Params, data: Any, chunk: slice) -> MetaGradient:
    """The same by ``torch.func``: the gradients of the single tasks, then their sum."""
    tensors: list[Tensor] = []
    map_tensors(lambda tensor: tensors.append(tensor[chunk]), data)

    def loss_of_one(variables: Params, own: list[Tensor]) -> tuple[Tensor, Any]:
        remaining = iter(own)
        result = task_loss(variables, map_tensors(lambda _: next(remaining), data))
        losses, metrics = result if isinstance(result, tuple) else (result, {})
        return losses, (losses, dict(metrics))

    gradients, (losses, metrics) = th.func.vmap(
        th.func.grad(loss_of_one, has_aux=True), in_dims=(None, 0)
    )(params, tensors)
    return MetaGradient(
        losses, {name: part.sum(dim=0) for name, part in gradients.items()}, metrics
    )


def _mean(parts: Sequence[MetaGradient]) -> MetaGradient:
    losses = th.cat([part.losses for part in parts])
    totals = {
        name: th.stack([part.gradient[name] for part in parts]).sum(dim=0)
        for name in parts[0].gradient
    }
    return MetaGradient(
        losses,
        {name: total / len(losses) for name, total in totals.items()},
        {name: th.cat([part.metrics[name] for part in parts]) for name in parts[0].metrics},
    )
