"""The lower level as a trust region: the best surrogate return within a distance of pi_phi.

    maximise sum_s nu(s) <pi_theta(s), Q(s)>  subject to  D^2(phi, theta) <= delta

Its solution is that of the penalised problem whose lambda makes the constraint active: the
multiplier. Everything here is our derivation.

Shapes: M tasks, S states, A actions.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.diagnostics import checked_solution
from metarl_agents.bilevel.exact import (
    TabularTasks,
    evaluate,
    occupancy_vjp,
    return_gradient,
)
from metarl_agents.bilevel.hypergradient import Hypergradients, pulled_back
from metarl_agents.bilevel.lower_level import Adapted, Distance, LowerLevel, solve_lower_level
from metarl_agents.bilevel.settings import DEFAULT_SETTINGS, HypergradientSettings

_LEAST_MULTIPLIER = 1e-4
_MOST_MULTIPLIER = 1e8
_MAX_STEPS = 100
_TOLERANCE = 1e-13


class TrustRegionSolution(NamedTuple):
    """Policies on the border of their trust regions.

    :param problem: the penalised lower level whose `lam` is the multiplier, (M,)
    :param adapted: its solution
    """

    problem: LowerLevel
    adapted: Adapted


def solve_trust_region(
    distance: Distance,
    problem: LowerLevel,
    *,
    max_distance: float,
    settings: HypergradientSettings = DEFAULT_SETTINGS,
) -> TrustRegionSolution:
    """Solutions of M trust-region problems, by a safeguarded Newton on log lambda.

    `log D^2` falls as log lambda grows. `ValueError` where no multiplier above 1e-4 times the span
    of Q makes the constraint active: then the problem is linear in pi, and its solution has no
    derivative.

    :param distance: D
    :param problem: M lower-level problems, whose `lam` is ignored
    :param max_distance: delta, the largest D^2
    :param settings: of the lower level
    """
    q = problem.action_values
    span = (q.amax(-1) - q.amin(-1)).amax(-1).clamp(min=th.finfo(q.dtype).tiny)
    low, high = (span * _LEAST_MULTIPLIER).log(), (span * _MOST_MULTIPLIER).log()
    reach, _ = _log_distance(distance, problem, low, settings)
    log_target = th.tensor(max_distance, dtype=q.dtype, device=q.device).log()
    _check_active(reach, log_target, max_distance)
    log_lam = (low + high) / 2.0
    for _ in range(_MAX_STEPS):
        value, slope = _log_distance(distance, problem, log_lam, settings)
        error = value - log_target
        low, high = th.where(error > 0.0, log_lam, low), th.where(error > 0.0, high, log_lam)
        newton = log_lam - error / slope
        is_inside = (newton > low) & (newton < high)
        following = th.where(is_inside, newton, (low + high) / 2.0)
        is_done = (error.abs() <= _TOLERANCE) | (high - low <= _TOLERANCE)
        log_lam = th.where(is_done, log_lam, following)
        if bool(is_done.all()):
            break
    problem = problem._replace(lam=log_lam.exp())
    return TrustRegionSolution(problem, _solved(distance, problem, settings))


def trust_region_hypergradients(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    *,
    distance: Distance,
    max_distance: float,
    settings: HypergradientSettings = DEFAULT_SETTINGS,
) -> Hypergradients:
    """Gradients in phi of the return after a trust-region adaptation, (M, S, A).

    With `theta'(phi, lambda)` of the penalised problem and lambda(phi) from `D^2 = delta`:
    `grad F = F_phi - (F_lambda / D_lambda) D_phi`, each a total derivative of the penalised
    problem. It equals the solution of the bordered (KKT) system.

    :param tasks: M tasks
    :param logits: phi, (S, A) or (M, S, A)
    :param distance: D
    :param max_distance: delta
    :param settings: of the lower level, and whether to be strict
    """
    before, problem = lower_level_at(tasks, logits, 1.0)
    problem, adapted = solve_trust_region(
        distance, problem, max_distance=max_distance, settings=settings
    )
    after = evaluate(tasks, adapted.policy)
    theta, upper = adapted.logits, return_gradient(tasks, after)
    in_theta, in_phi, in_occupancy = _distance_gradients(distance, problem, theta)
    by_lam = distance.derivative_in_lam(problem, theta)
    ratio = (upper * by_lam).sum((-2, -1)) / (in_theta * by_lam).sum((-2, -1))
    cotangent = upper - ratio[:, None, None] * in_theta
    gradients = pulled_back(tasks, before, distance.pullback(problem, theta, cotangent))
    explicit = in_phi + occupancy_vjp(tasks, before, in_occupancy)
    gradients = gradients - ratio[:, None, None] * explicit
    is_valid = checked_solution(problem, before, adapted, None, settings)
    return Hypergradients(gradients, problem, before, adapted, after, is_valid)


def _solved(distance: Distance, problem: LowerLevel, settings: HypergradientSettings) -> Adapted:
    return solve_lower_level(distance, problem, max_iterations=settings.max_iterations)


def _log_distance(
    distance: Distance, problem: LowerLevel, log_lam: Tensor, settings: HypergradientSettings
) -> tuple[Tensor, Tensor]:
    """log D^2 of the penalised solution and its derivative in log lambda, (M,) each."""
    problem = problem._replace(lam=log_lam.exp())
    theta = distance.solution(problem, max_iterations=settings.max_iterations)
    squared = distance.squared(problem, theta)
    in_theta, _, _ = _distance_gradients(distance, problem, theta)
    slope = (in_theta * distance.derivative_in_lam(problem, theta)).sum((-2, -1))
    return squared.log(), problem.lam * slope / squared


def _distance_gradients(
    distance: Distance, problem: LowerLevel, theta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of D^2 in theta, in phi and in nu."""
    with th.enable_grad():
        variables = [
            tensor.detach().requires_grad_()
            for tensor in (theta, problem.logits, problem.occupancy)
        ]
        moving = problem._replace(logits=variables[1], occupancy=variables[2])
        value = distance.squared(moving, variables[0]).sum()
        first, second, third = th.autograd.grad(
            value, variables, allow_unused=True, materialize_grads=True
        )
    return first, second, third


def _check_active(reach: Tensor, log_target: Tensor, max_distance: float) -> None:
    is_inactive = ~(reach > log_target)
    if bool(is_inactive.any()):
        task = int(th.nonzero(is_inactive)[0, 0])
        raise ValueError(
            f"max_distance={max_distance!r} is not reached in task {task}, whose greedy policy is "
            f"within {float(reach[task].exp()):.4g}: the constraint is inactive and the solution "
            "has no derivative. Use a smaller max_distance"
        )
