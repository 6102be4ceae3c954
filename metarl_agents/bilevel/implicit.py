"""The hypergradient by implicit differentiation: no closed form, only products with the Hessian.

It knows of a distance no more than D^2 itself; autograd and conjugate gradients do the rest. So it
checks the closed forms, and is checked by them.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bilevel.exact import TabularTasks, evaluate
from metarl_agents.bilevel.lower_level import Distance, LowerLevel

_ROUNDING = 1e-14


class LinearSolve(NamedTuple):
    """`A x = b` for many symmetric blocks at once, by conjugate gradients.

    :param x: (..., n)
    :param n_iterations: the products that were needed
    :param residual: of `b - A x`, relative to b, (...); 0 where b is 0
    :param curvature: the smallest `p'Ap / p'Dp` met, D the diagonal, (...); +inf where none was
    """

    x: Float[Tensor, "*block n"]
    n_iterations: int
    residual: Float[Tensor, "*block"]
    curvature: Float[Tensor, "*block"]

    @property
    def is_definite(self) -> Bool[Tensor, "*block"]:
        """Whether no direction of non-positive curvature was met, (...)."""
        return self.curvature > 0.0


def implicit_hypergradient(
    tasks: TabularTasks,
    distance: Distance,
    problem: LowerLevel,
    theta: Float[Tensor, "task state action"],
    cotangent: Float[Tensor, "task state action"],
    *,
    max_iterations: int = 200,
    tolerance: float = 1e-13,
) -> tuple[Float[Tensor, "task state action"], LinearSolve]:
    """`- grad_phi <u, grad_theta l(theta'; phi)>` with `H u = g`, (M, S, A), and the solve of u.

    By the implicit function theorem, for a theta' at which the lower level is stationary; u and
    theta' are held fixed, and Q and nu are differentiated as functions of phi. Our derivation.
    `ValueError` where g asks for a state that the data, with nu = 0, never visited.

    The Hessian H has one block per state. For the KL distances it is singular along constants,
    to which g is orthogonal, so that any solution will do.

    :param tasks: M tasks
    :param distance: D
    :param problem: the lower level at phi; its Q and nu may come from samples
    :param theta: theta', (M, S, A)
    :param cotangent: g, of theta', (M, S, A)
    :param max_iterations: of conjugate gradients
    :param tolerance: on their relative residual, in each state
    """

    def product(vector: Tensor) -> Tensor:
        with th.enable_grad():
            point = theta.detach().requires_grad_()
            value = _objective(distance, problem, point)
            (slope,) = th.autograd.grad(value, point, create_graph=True)
            (image,) = th.autograd.grad((slope * vector).sum(), point)
        return image

    size = cotangent.abs().amax(-1, keepdim=True)
    # What rounding put where the adapted policy never goes would ask for visits there.
    matters = size > _ROUNDING * size.amax((-2, -1), keepdim=True)
    right_side = th.where(matters, cotangent, 0.0)
    free = _free_coordinates(distance, theta)
    solve = block_conjugate_gradient(
        lambda vector: th.where(free, product(vector), 0.0),
        th.where(free, right_side, 0.0),
        diagonal=_diagonal(product, theta),
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    _check_unvisited(problem, solve)
    with th.enable_grad():
        phi = problem.logits.detach().requires_grad_()
        at = evaluate(tasks, phi.softmax(-1))
        moving = problem._replace(
            logits=phi, action_values=at.action_values, occupancy=at.occupancy
        )
        point = theta.detach().requires_grad_()
        (slope,) = th.autograd.grad(_objective(distance, moving, point), point, create_graph=True)
        (gradient,) = th.autograd.grad((slope * solve.x).sum(), phi)
    return -gradient, solve


def _check_unvisited(problem: LowerLevel, solve: LinearSolve) -> None:
    """`ValueError` where the linear system has no solution."""
    is_empty = (problem.occupancy == 0.0) & (solve.curvature == 0.0) & (solve.residual > 0.0)
    if bool(is_empty.any()):
        task = int(th.nonzero(is_empty)[0, 0])
        states = th.nonzero(is_empty[task])[:, 0].tolist()
        raise ValueError(
            f"in task {task} the meta-policy never visited states {states}, but the adapted policy "
            "does, so the implicit system has no solution: collect more episodes, or use "
            "method='closed_form', which works with probabilities instead"
        )


def _objective(distance: Distance, problem: LowerLevel, theta: Tensor) -> Tensor:
    gain = (theta.softmax(-1) * problem.action_values).sum(-1)
    penalty = problem.lam * distance.squared(problem, theta)
    return penalty.sum() - (problem.occupancy * gain).sum()


def _free_coordinates(distance: Distance, theta: Tensor) -> Bool[Tensor, "task state action"]:
    """Coordinates to solve for: a KL distance leaves one logit per state to choose, and without
    that of the likeliest action nothing is lost to rounding.
    """
    if not distance.is_shift_invariant:
        return th.ones_like(theta, dtype=th.bool)
    indices = th.arange(theta.shape[-1], device=theta.device)
    return indices != theta.argmax(-1, keepdim=True)


def _diagonal(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The diagonal of a matrix of blocks over the last axis, by one product per coordinate."""
    columns = []
    for action in range(like.shape[-1]):
        unit = th.zeros_like(like)
        unit[..., action] = 1.0
        columns.append(product(unit)[..., action])
    return th.stack(columns, dim=-1)


def block_conjugate_gradient(
    product: Callable[[Float[Tensor, "*block n"]], Float[Tensor, "*block n"]],
    b: Float[Tensor, "*block n"],
    *,
    diagonal: Float[Tensor, "*block n"],
    max_iterations: int,
    tolerance: float,
) -> LinearSolve:
    """Conjugate gradients (Hestenes & Stiefel 1952) in each block, from 0, scaled by the diagonal.

    A block stops where its residual is small enough, or at a direction of non-positive curvature;
    then x is its last iterate, and the curvature says so.

    :param product: v -> A v, where A is symmetric and consists of blocks over the last axis
    :param b: (..., n)
    :param diagonal: of A, (..., n); entries that are not positive are taken to be 1
    :param max_iterations: of all blocks together
    :param tolerance: on the norm of `b - A x`, relative to that of b, both scaled by the diagonal
    """
    size = b.abs().amax(-1, keepdim=True)
    is_active = size[..., 0] > 0.0
    b = b / th.where(is_active[..., None], size, 1.0)  # squares of small numbers underflow
    diagonal = th.where(diagonal > 0.0, diagonal, 1.0)
    x, residual, direction = th.zeros_like(b), b, b / diagonal
    squared = start = (residual * direction).sum(-1)
    curvature = th.full_like(start, th.inf)
    n_iterations = 0
    while bool(is_active.any()) and n_iterations < max_iterations:
        image = product(direction)
        n_iterations += 1
        bend = (direction * image).sum(-1)
        relative_bend = bend / (direction.square() * diagonal).sum(-1)
        curvature = th.where(is_active, th.minimum(curvature, relative_bend), curvature)
        is_active = is_active & (bend > 0.0)
        step = th.where(is_active, squared / bend, 0.0)[..., None]
        x, residual = x + step * direction, residual - step * image
        scaled = residual / diagonal
        previous = squared
        squared = th.where(is_active, (residual * scaled).sum(-1), squared)
        is_active = is_active & (squared > tolerance**2 * start)
        momentum = th.where(is_active, squared / previous, 0.0)[..., None]
        direction = th.where(is_active[..., None], scaled + momentum * direction, direction)
    relative = (squared / th.where(start > 0.0, start, 1.0)).sqrt()
    return LinearSolve(x * size, n_iterations, relative, curvature)
