"""How well conditioned the lower level of BO-MRL is where adaptation ends: one run of that study.

Shapes: M tasks, S states, A actions.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.exact import TabularTasks, return_gradient
from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.implicit import implicit_hypergradient
from metarl_agents.bilevel.lower_level import Adapted, Distance, LowerLevel, distance_of
from metarl_agents.bilevel.meta_training import LENIENT
from zoo.studies.bo_mrl_questions import invalid_ones_counted, meta_policies, number
from zoo.studies.bo_mrl_tasks import lakes_of
from zoo.studies.study import Context, Row, Run


class Conditions(NamedTuple):
    """Condition numbers of M tasks, without the directions that change no policy.

    :param all_states: of the whole Hessian, (M,)
    :param one_state: the largest of one state's block alone, (M,)
    """

    all_states: Float[Tensor, " task"]
    one_state: Float[Tensor, " task"]


def conditioning_run(run: Run, context: Context) -> list[Row] | None:
    """
    Condition numbers of the lower level's curvature, and what implicit differentiation costs.

    At the uniform policy and at the trained one, for every lambda of one distance.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    with invalid_ones_counted():
        logits = meta_policies(config, lakes, run)
    rows: list[Row] = []
    for lam, phi in zip(config["grid"], logits, strict=True):
        for where, point in (("uniform", th.zeros_like(phi)), ("trained", phi)):
            if context.is_over():
                return None
            rows.append(
                {
                    "kind": "conditioning",
                    "algorithm": config["algorithm"],
                    "at": where,
                    "lam": f"{lam:g}",
                    **_conditioning(lakes.train, config["algorithm"], point, lam),
                }
            )
    return rows


def _conditioning(tasks: TabularTasks, algorithm: int, phi: Tensor, lam: float) -> dict[str, str]:
    distance = distance_of(algorithm)
    with invalid_ones_counted():
        found = task_hypergradients(tasks, phi, distance=distance, lam=lam, settings=LENIENT)
    at = conditions(distance, found.problem, found.adapted)
    numbers = {
        "log_condition_logits": at.all_states.log10().median(),
        "log_condition_state": at.one_state.log10().median(),
        "definite": found.is_valid.double().mean(),
    }
    if distance.is_shift_invariant:
        numbers["log_condition_policy"] = found.diagnostics["hessian_cond"].log10().median()
    upper = return_gradient(tasks, found.after)
    implicit, solve = implicit_hypergradient(
        tasks, distance, found.problem, found.adapted.logits, upper
    )
    valid = found.is_valid
    if bool(valid.any()):
        error = (implicit - found.gradients)[valid].flatten(1).norm(dim=-1)
        relative = error / found.gradients[valid].flatten(1).norm(dim=-1)
        numbers["log_error"] = relative.clamp(min=th.finfo(relative.dtype).eps).log10().median()
    return {name: number(value) for name, value in numbers.items()} | {
        "n_products": str(solve.n_iterations)
    }


def conditions(distance: Distance, problem: LowerLevel, adapted: Adapted) -> Conditions:
    """Condition numbers of the Hessian of the lower level at its solution.

    A KL distance does not feel a constant added to the logits of a state, nor a state with nu = 0:
    these directions are left out. Eigenvalues count by their size, and those below rounding as
    rounding, so that no number is larger than 1 / eps.

    :param distance: D
    :param problem: the lower level
    :param adapted: its solution
    """
    values = th.linalg.eigvalsh(hessian_blocks(distance, problem, adapted.logits))
    counts = th.ones_like(values, dtype=th.bool)
    if distance.is_shift_invariant:
        values = _without_nearest_zero(values)
        counts = (problem.occupancy > 0.0)[..., None].expand_as(values)
    eps = th.finfo(values.dtype).eps
    size = values.abs()
    in_state = size.amax(-1) / size.amin(-1).clamp(min=eps * size.amax(-1))
    largest = th.where(counts, size, 0.0).amax((-2, -1))
    smallest = th.where(counts, size, th.inf).amin((-2, -1))
    return Conditions(
        largest / th.maximum(smallest, eps * largest),
        th.where(counts.any(-1), in_state, 1.0).amax(-1),
    )


def hessian_blocks(
    distance: Distance, problem: LowerLevel, theta: Float[Tensor, "task state action"]
) -> Float[Tensor, "task state action action"]:
    """The Hessian of the lower level in theta, one block for each state, (M, S, A, A).

    By autograd, from D^2 alone.

    :param distance: D
    :param problem: the lower level
    :param theta: where, (M, S, A)
    """
    with th.enable_grad():
        point = theta.detach().requires_grad_()
        gain = (point.softmax(-1) * problem.action_values).sum(-1)
        loss = problem.lam * distance.squared(problem, point)
        loss = loss - (problem.occupancy * gain).sum(-1)
        (slope,) = th.autograd.grad(loss.sum(), point, create_graph=True)
        columns = [
            th.autograd.grad(slope[..., action].sum(), point, retain_graph=True)[0]
            for action in range(theta.shape[-1])
        ]
    blocks = th.stack(columns, dim=-1)
    return (blocks + blocks.mT) / 2.0


def _without_nearest_zero(values: Tensor) -> Tensor:
    """Eigenvalues (..., A - 1) without the one of constants, which is 0 up to rounding."""
    nearest = values.abs().argmin(-1, keepdim=True)
    indices = th.arange(values.shape[-1], device=values.device)
    return values[indices != nearest].unflatten(0, values.shape[:-1] + (-1,))
