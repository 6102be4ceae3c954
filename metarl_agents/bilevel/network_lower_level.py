"""Solvers of the lower level of BO-MRL with networks: gradient steps as in publicly available
experiment scripts, and Newton steps after them, which reach a stationary point.

Shapes: E episodes, T steps, n parameters in all. One task.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch as th
from torch import Tensor

from metarl_agents.bilevel.arguments import check_positive
from metarl_agents.bilevel.network_newton import newton_minimum
from metarl_agents.bilevel.network_problem import (
    NetworkProblem,
    check_problem,
    loss_and_distance,
    lower_level_loss,
    network_problem,
)
from metarl_agents.common.adam import adam_step, initial_adam_state
from metarl_agents.common.argument_checks import check_choice, check_number
from metarl_agents.common.policies.networks import Params
from metarl_agents.common.solvers import flatten, unflatten

__all__ = [
    "OPTIMIZERS",
    "NetworkProblem",
    "NetworkSolution",
    "Optimizer",
    "lower_level_loss",
    "network_problem",
    "solve_lower_level",
]

Optimizer = Literal["adam", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adam", "sgd")
_MAX_HALVINGS = 10


class NetworkSolution(NamedTuple):
    """What a solver of the lower level found.

    :param params: theta'
    :param residual: norm of the gradient of the loss at theta', relative to that at phi
    :param distance: D^2(phi, theta')
    :param n_steps: steps of the optimiser that were taken, Newton steps not counted
    :param stopped_early: whether every further step, halved ten times, would have gone beyond the
        largest distance; then theta' is not stationary
    :param n_polish_steps: Newton steps that were taken
    """

    params: Params
    residual: float
    distance: float
    n_steps: int
    stopped_early: bool
    n_polish_steps: int = 0


class _Point(NamedTuple):
    """The loss at one theta, (n,), with its gradient."""

    theta: Tensor
    loss: float
    distance: float
    gradient: Tensor


def solve_lower_level(
    problem: NetworkProblem,
    *,
    n_steps: int = 50,
    learning_rate: float = 1e-3,
    optimizer: Optimizer = "adam",
    max_distance: float = 3.0,
    polish_steps: int = 0,
    polish_cg_iterations: int = 50,
    tolerance: float = 1e-8,
) -> NetworkSolution:
    """Minimise the lower level from phi: gradient steps, then Newton steps where asked for.

    Costs `n_steps + 1` passes forth and back through the network, and ten more at most.
    `ValueError` where the loss becomes NaN or infinite.

    Differs from the scripts, which return the first iterate beyond the largest distance. Ours are
    all within: a step that would leave is halved, and so are all after it.

    :param problem: the lower level
    :param n_steps: gradient steps at most; scripts take 50
    :param learning_rate: of the optimiser; scripts take 1e-3 with Adam
    :param optimizer: `"adam"` or `"sgd"`. One step of `"sgd"` on `l2` with eta = 0 and learning
        rate 1/2 is the inner step of MAML with step size 1 / (2 lambda)
    :param max_distance: no step lets D^2 exceed it
    :param polish_steps: damped Newton steps at most, each a linear solve by conjugate gradients
    :param polish_cg_iterations: of each linear solve
    :param tolerance: stop polishing at this residual
    """
    check_problem(problem)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_positive("learning_rate", learning_rate, "it is the size of a gradient step")
    check_positive("max_distance", max_distance, "it bounds D^2; give a large number for no bound")
    check_number("n_steps", n_steps, at_least=0, whole=True)
    check_number("polish_steps", polish_steps, at_least=0, whole=True)
    start = point = _point(problem, flatten(problem.phi), 0, learning_rate)
    direction, rate, n_halvings = _stepper(optimizer, start.theta), learning_rate, 0
    n_taken, stopped = 0, False
    while n_taken < n_steps and not stopped:
        step = direction(point)
        further = _point(problem, point.theta + rate * step, n_taken + 1, rate)
        while further.distance > max_distance and n_halvings < _MAX_HALVINGS:
            rate, n_halvings = rate / 2.0, n_halvings + 1
            further = _point(problem, point.theta + rate * step, n_taken + 1, rate)
        stopped = further.distance > max_distance
        if not stopped:
            point, n_taken = further, n_taken + 1
    residual = _relative(point.gradient, start.gradient)
    solution = NetworkSolution(
        unflatten(point.theta, problem.phi), residual, point.distance, n_taken, stopped
    )
    if stopped or not polish_steps or residual <= tolerance:
        return solution
    return _polished(
        problem, solution, start, max_distance, polish_steps, polish_cg_iterations, tolerance
    )


def _point(problem: NetworkProblem, theta: Tensor, n_steps: int, learning_rate: float) -> _Point:
    """One pass forth and back; `ValueError` where the loss is not finite."""
    with th.enable_grad():
        leaf = theta.detach().requires_grad_()
        loss, distance = loss_and_distance(problem, unflatten(leaf, problem.phi))
        (gradient,) = th.autograd.grad(loss, leaf)
    # One transfer from the device.
    numbers = th.stack([loss.detach(), distance.detach(), gradient.norm()]).tolist()
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(
            f"the lower level is not finite after {n_steps} steps with learning_rate="
            f"{learning_rate} and lam={problem.lam}: lower the learning rate or max_distance, "
            "raise lam (the weight of the distance), or squash the ratio"
        )
    return _Point(theta.detach(), numbers[0], numbers[1], gradient)


def _stepper(optimizer: Optimizer, like: Tensor) -> Callable[[_Point], Tensor]:
    """What a learning rate multiplies; the optimiser's memory goes on with every call."""
    if optimizer == "sgd":
        return lambda point: -point.gradient
    state, origin = initial_adam_state({"": like}), {"": th.zeros_like(like)}

    def step(point: _Point) -> Tensor:
        nonlocal state
        after, state = adam_step(origin, {"": point.gradient}, state, 1.0)
        return after[""]

    return step


def _polished(
    problem: NetworkProblem,
    solution: NetworkSolution,
    start: _Point,
    max_distance: float,
    n_steps: int,
    n_cg_iterations: int,
    tolerance: float,
) -> NetworkSolution:
    """Newton steps on top, as long as they stay within the largest distance."""

    def value_of(theta: Tensor) -> tuple[Tensor, Tensor]:
        return loss_and_distance(problem, unflatten(theta, problem.phi))

    found = newton_minimum(
        value_of,
        flatten(solution.params),
        max_distance=max_distance,
        n_steps=n_steps,
        n_cg_iterations=n_cg_iterations,
        gradient_norm=tolerance * float(start.gradient.norm()),
        scale=float((problem.weights * problem.episodes.advantages.abs()).sum()) / problem.lam,
    )
    return solution._replace(
        params=unflatten(found.theta, problem.phi),
        residual=_relative(found.gradient, start.gradient),
        distance=found.distance,
        stopped_early=found.left,
        n_polish_steps=found.n_steps,
    )


def _relative(gradient: Tensor, start: Tensor) -> float:
    """The norm of a gradient, relative to where the solver started; 0 where both vanish."""
    norm, first = float(gradient.norm()), float(start.norm())
    if norm == 0.0:
        return 0.0
    return norm / first if first > 0.0 else math.inf
