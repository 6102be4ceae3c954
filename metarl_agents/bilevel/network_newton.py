"""Newton steps for a loss of many parameters, by products with its Hessian.

Shapes: n parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.common.solvers import krylov_solve

_ARMIJO = 1e-4
_MAX_HALVINGS = 30
# The linear system is solved the better the closer the minimum is: Newton then converges
# superlinearly (Nocedal & Wright 2006, theorem 7.2).
_LARGEST_FORCING = 0.1

Values = Callable[[Float[Tensor, " n"]], tuple[Float[Tensor, ""], Float[Tensor, ""]]]
"""theta -> (loss, distance)."""


class Minimum(NamedTuple):
    """Where Newton steps ended.

    :param theta: (n,)
    :param gradient: of the loss there, (n,)
    :param distance: there
    :param n_steps: steps taken
    :param left: whether the next step would have gone beyond the largest distance
    """

    theta: Float[Tensor, " n"]
    gradient: Float[Tensor, " n"]
    distance: float
    n_steps: int
    left: bool


def newton_minimum(
    values: Values,
    start: Float[Tensor, " n"],
    *,
    max_distance: float,
    n_steps: int,
    n_cg_iterations: int,
    gradient_norm: float,
    scale: float,
) -> Minimum:
    """A stationary point, by steps that never raise the loss (Nocedal & Wright 2006, algorithm
    7.1: line-search Newton with conjugate gradients).

    Where the Hessian is not positive definite a step goes along what was solved for so far, or
    down the gradient; it is halved until the loss falls as Armijo (1966) asks. What is left where
    no step helps is for the caller to judge by the gradient.

    :param values: the loss, which autograd can differentiate twice, and a distance
    :param start: (n,)
    :param max_distance: stop before the distance exceeds it
    :param n_steps: at most
    :param n_cg_iterations: of each linear solve
    :param gradient_norm: stop where the gradient is this small
    :param scale: size of the terms of the loss: differences below its rounding are none
    """
    point = _point(values, start)
    first, n_taken, left = point.norm, 0, False
    while n_taken < n_steps and point.norm > gradient_norm and not left:
        direction = _direction(point, n_cg_iterations, min(_LARGEST_FORCING, point.norm / first))
        after = _after_step(values, point, direction, scale)
        if after is None:
            break
        further = _point(values, after)
        left = further.distance > max_distance
        if not left:
            point, n_taken = further, n_taken + 1
    return Minimum(point.theta.detach(), point.slope.detach(), point.distance, n_taken, left)


class _Point(NamedTuple):
    """The loss at theta; the graph of its slope is kept, for products with the Hessian."""

    theta: Tensor
    slope: Tensor
    loss: float
    distance: float
    norm: float


def _point(values: Values, theta: Tensor) -> _Point:
    with th.enable_grad():
        leaf = theta.detach().requires_grad_()
        loss, distance = values(leaf)
        (slope,) = th.autograd.grad(loss, leaf, create_graph=True)
    numbers = th.stack([loss.detach(), distance.detach(), slope.detach().norm()]).tolist()
    return _Point(leaf, slope, *numbers)


def _direction(point: _Point, n_iterations: int, forcing: float) -> Tensor:
    """`- H^-1 g`, or what conjugate gradients had of it where H turned out not to be definite."""

    def product(vector: Tensor) -> Tensor:
        if not point.slope.requires_grad:  # the loss is linear
            return th.zeros_like(vector)
        (image,) = th.autograd.grad(point.slope, point.theta, vector, retain_graph=True)
        return image

    downhill = -point.slope.detach()
    solve = krylov_solve(product, downhill, n_iterations=n_iterations, tolerance=forcing**2)
    if solve.lengths or solve.bend is None:
        return solve.x
    bend = solve.bend.abs()
    return downhill / th.where(bend > 0.0, bend, 1.0)


def _after_step(values: Values, point: _Point, direction: Tensor, scale: float) -> Tensor | None:
    """theta after the longest step, by halving, that lowers the loss enough; None for none."""
    slope = float(direction @ point.slope.detach())
    # The loss is known up to rounding only; near the minimum its differences are below that.
    rounding = 8.0 * th.finfo(direction.dtype).eps * (scale + abs(point.loss))
    length = 1.0
    with th.no_grad():
        for _ in range(_MAX_HALVINGS):
            after = point.theta.detach() + length * direction
            # False for NaN, too.
            if float(values(after)[0]) <= point.loss + _ARMIJO * length * slope + rounding:
                return after
            length /= 2.0
    return None
