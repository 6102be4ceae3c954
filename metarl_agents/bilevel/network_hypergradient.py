"""Hypergradients of BO-MRL with networks, by the implicit function theorem and products alone.

Where the lower level is stationary at theta' and its Hessian H there is regular,

    grad_phi J(theta'(phi)) = - grad_phi <u, grad_theta l(theta'; phi)>  with  H u = grad J(theta')

where u and theta' are held fixed on the right: the form of the hypergradient of Xu & Zhu 2024,
"Meta-Reinforcement Learning with Universal Policy Adaptation", https://arxiv.org/abs/2410.09728,
in our derivation. It exists where H is regular. With `l2` H is positive definite as soon as 2
lambda + 2 eta exceeds the largest curvature of the surrogate gain. With a KL distance the Hessian
of D^2 at phi is the Fisher matrix, singular for every softmax and for directions that no visited
state feels; the proximal term adds `2 eta / lambda` to all of it. Conjugate gradients start from 0,
so that where H is only semidefinite, and the right side in its range, they still find a solution;
at a direction of non-positive curvature they stop, and the result says so.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.network_problem import (
    NetworkProblem,
    check_problem,
    lower_level_loss,
)
from metarl_agents.bilevel.network_sampled import PARTS, check_parts, sampled_pullback
from metarl_agents.common.argument_checks import check_number
from metarl_agents.common.policies.networks import Params
from metarl_agents.common.solvers import flatten, krylov_solve, unflatten

__all__ = [
    "PARTS",
    "NetworkLinearSolve",
    "hypergradient_of",
    "implicit_solve",
    "sampled_hypergradient",
]

ParamsProduct = Callable[[Params], Params]
ParamsLoss = Callable[[Params, Params], Tensor]
"""(theta, phi) -> the lower-level loss, a scalar."""


class NetworkLinearSolve(NamedTuple):
    """`H x = b` by conjugate gradients.

    :param x: by parameter
    :param n_iterations: the products that were made
    :param residual: norm of `b - H x`, relative to that of b; 0 where b is 0
    :param curvature: the smallest Ritz value; where a direction p had `p'Hp <= 0`, at which the
        iterations stop, its `p'Hp / p'p`; +inf where b is 0
    :param max_curvature: the largest Ritz value; -inf where there is none
    """

    x: Params
    n_iterations: int
    residual: float
    curvature: float
    max_curvature: float

    @property
    def is_definite(self) -> bool:
        """Whether no direction of non-positive curvature was met."""
        return self.curvature > 0.0

    @property
    def condition(self) -> float:
        """The largest over the smallest Ritz value, a lower bound of the condition number; +inf
        where H is not positive definite.
        """
        return self.max_curvature / self.curvature if 0.0 < self.curvature < math.inf else math.inf


def hypergradient_of(
    loss: ParamsLoss,
    theta: Params,
    phi: Params,
    cotangent: Params,
    *,
    n_cg: int = 50,
    tolerance: float = 1e-10,
) -> tuple[Params, NetworkLinearSolve]:
    """The hypergradient of any lower-level loss, and the solve of u.

    It is exact where the loss differentiates Q and the occupancy as functions of phi. Costs one
    pass forth and back, twice that per iteration, and one pass back through both.

    :param loss: (theta, phi) -> l(theta; phi), which autograd can differentiate twice
    :param theta: theta', at which the loss is stationary
    :param phi: parameters of the meta-policy
    :param cotangent: gradient of the upper level's objective at theta'
    :param n_cg: iterations of conjugate gradients at most
    :param tolerance: on their relative residual
    """
    with th.enable_grad():
        adapted, meta = _leaves(theta), _leaves(phi)
        slopes = _slopes(loss(adapted, meta), adapted)
    solve = implicit_solve(
        _hessian_product(slopes, adapted), cotangent, n_iterations=n_cg, tolerance=tolerance
    )
    gradient = _pulled_back(slopes, meta, solve.x)
    return _checked({name: -part for name, part in gradient.items()}), solve


def sampled_hypergradient(
    problem: NetworkProblem,
    theta: Params,
    cotangent: Params,
    *,
    parts: Sequence[str] = PARTS,
    gamma: float,
    n_cg: int = 10,
    tolerance: float = 1e-10,
    advantages: Float[Tensor, "episode time"] | None = None,
) -> tuple[Params, NetworkLinearSolve]:
    """The hypergradient from the episodes of the lower level, and the solve of u.

    Costs one pass forth and back, about twice that per iteration, and some three at the end. With
    `parts=("distance",)` it is what publicly available experiment scripts follow: episodes and
    returns count as constants.

    :param problem: the lower level at phi
    :param theta: theta', at which it is stationary
    :param cotangent: gradient of the upper level's objective at theta'
    :param parts: of `PARTS`, what depends on phi; see
        :func:`~metarl_agents.bilevel.network_sampled.sampled_pullback`
    :param gamma: discount of the returns
    :param n_cg: iterations of conjugate gradients at most; scripts take 10
    :param tolerance: on their relative residual
    :param advantages: of pi_phi, with less noise than Qhat, to follow the action values by, (E,
        T); None for Qhat
    """
    check_problem(problem)
    check_parts(parts)
    check_number("n_cg", n_cg, at_least=1, whole=True)
    with th.enable_grad():
        adapted = _leaves(theta)
        slopes = _slopes(lower_level_loss(problem, adapted), adapted)
    solve = implicit_solve(
        _hessian_product(slopes, adapted), cotangent, n_iterations=n_cg, tolerance=tolerance
    )
    gradient = sampled_pullback(
        problem, theta, solve.x, parts=parts, gamma=gamma, advantages=advantages
    )
    return _checked(gradient), solve


def implicit_solve(
    hessian_product: ParamsProduct,
    b: Params,
    *,
    n_iterations: int,
    tolerance: float,
) -> NetworkLinearSolve:
    """Solve `H x = b` by conjugate gradients from 0, which stop where H is not positive definite.

    :param hessian_product: v -> H v
    :param b: right side, by parameter
    :param n_iterations: products at most
    :param tolerance: on the norm of `b - H x`, relative to that of b
    """
    right_side = flatten(b)
    size = right_side.norm()
    if not math.isfinite(float(size)):
        raise ValueError(
            "the right side of the implicit system is not finite: check the gradient of the "
            "objective after adaptation"
        )
    # Squares of small numbers underflow.
    unit = right_side / th.where(size > 0.0, size, 1.0)
    solve = krylov_solve(
        lambda vector: flatten(_in_order(hessian_product(unflatten(vector, b)), b)),
        unit,
        n_iterations=n_iterations,
        tolerance=tolerance**2,
    )
    if not bool(solve.x.isfinite().all()):
        raise ValueError(
            "products with the Hessian of the lower level are not finite: adapt less (raise lam or "
            "lower max_distance), or squash the ratio"
        )
    values = solve.ritz_values().tolist()
    smallest = float(solve.bend) if solve.bend is not None else (values or [math.inf])[0]
    return NetworkLinearSolve(
        unflatten(solve.x * size, b),
        solve.n_products,
        float(solve.residual),
        smallest,
        values[-1] if values else -math.inf,
    )


def _hessian_product(slopes: Params, leaves: Params) -> ParamsProduct:
    return lambda vector: _pulled_back(slopes, leaves, vector)


def _leaves(params: Params) -> Params:
    return {name: param.detach().requires_grad_() for name, param in params.items()}


def _slopes(loss: Tensor, leaves: Params) -> Params:
    """The gradient of a loss, with its graph."""
    if not bool(loss.isfinite()):
        raise ValueError(
            f"the lower-level loss is {float(loss.detach())} at theta, so that it has no "
            "derivatives: hand over the parameters that a solver found"
        )
    parts = th.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
    return dict(zip(leaves, parts, strict=True))


def _pulled_back(slopes: Params, leaves: Params, vector: Params) -> Params:
    """The gradient of <slopes, vector> in the leaves; the graph is kept."""
    curved = {name: slope for name, slope in slopes.items() if slope.requires_grad}
    if not curved:
        return {name: th.zeros_like(leaf) for name, leaf in leaves.items()}
    parts = th.autograd.grad(
        list(curved.values()),
        list(leaves.values()),
        [vector[name] for name in curved],
        retain_graph=True,
        materialize_grads=True,
    )
    return dict(zip(leaves, parts, strict=True))


def _in_order(params: Params, like: Params) -> Params:
    return {name: params[name] for name in like}


def _checked(gradient: Params) -> Params:
    if all(bool(part.isfinite().all()) for part in gradient.values()):
        return gradient
    raise ValueError(
        "the hypergradient is not finite: adapt less (raise lam or lower max_distance), or squash "
        "the ratio"
    )
