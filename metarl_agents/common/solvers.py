"""Solvers for meta-steps: conjugate gradients and the trust-region step of TRPO."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.common.policies.networks import Params


class TrustRegionStep(NamedTuple):
    """What a trust-region step did.

    :param params: the new parameters; the very same tensors as before where it was rejected
    :param accepted: whether the parameters moved
    :param loss: surrogate loss at ``params``
    :param kl: mean KL divergence at ``params``; 0 where the step was rejected
    :param step_fraction: part of the full step that was taken, 0 where it was rejected
    :param n_backtracks: how often the step was shortened
    """

    params: Params
    accepted: bool
    loss: float
    kl: float
    step_fraction: float
    n_backtracks: int


def trust_region_step(
    params: Params,
    gradient: Params,
    product: Callable[[Params], Params],
    evaluate: Callable[[Params], tuple[Tensor | float, Tensor | float]],
    *,
    max_kl: float,
    n_cg_iterations: int = 10,
    damping: float = 1e-5,
    max_backtracks: int = 15,
    backtrack_ratio: float = 0.8,
) -> TrustRegionStep:
    """Return the step of TRPO (Schulman et al. 2015, appendix C,
    https://arxiv.org/abs/1502.05477): ``- sqrt(2 delta / x'Fx) x`` with ``F x = g`` solved by
    conjugate gradients, shortened until the loss fell and the divergence is at most delta.

    Nothing is changed in place, and a NaN or infinity anywhere rejects the step: then the
    parameters of the result are those that came in.

    :param params: where to start
    :param gradient: g of the loss there
    :param product: v -> F v, curvature of the divergence there
    :param evaluate: parameters -> (loss, KL divergence from the policies at ``params``)
    :param max_kl: delta, largest mean divergence in nats
    :param n_cg_iterations: iterations of conjugate gradients
    :param damping: multiple of the identity added to F
    :param max_backtracks: how often to shorten the step before it is rejected
    :param backtrack_ratio: factor that shortens it
    """
    with th.no_grad():
        loss_before = float(evaluate(params)[0])
        step = _full_step(params, gradient, product, max_kl, n_cg_iterations, damping)
        if step is not None and math.isfinite(loss_before):
            for n_backtracks in range(max_backtracks + 1):
                fraction = backtrack_ratio**n_backtracks
                candidate = {name: p + fraction * step[name] for name, p in params.items()}
                loss, kl = (float(value) for value in evaluate(candidate))
                if math.isfinite(loss) and loss < loss_before and kl <= max_kl:
                    return TrustRegionStep(candidate, True, loss, kl, fraction, n_backtracks)
    return TrustRegionStep(params, False, loss_before, 0.0, 0.0, max_backtracks)


def _full_step(
    params: Params,
    gradient: Params,
    product: Callable[[Params], Params],
    max_kl: float,
    n_cg_iterations: int,
    damping: float,
) -> Params | None:
    """The step to the border of the quadratic trust region; None where there is none."""

    def damped(vector: Tensor) -> Tensor:
        return flatten(product(unflatten(vector, params))) + damping * vector

    slope = flatten({name: gradient[name] for name in params})
    direction = conjugate_gradient(damped, slope, n_iterations=n_cg_iterations)
    # Iterates of conjugate gradients are orthogonal to their residual: x'Fx = x'g.
    curvature = float(direction @ slope)
    if not (math.isfinite(curvature) and curvature > 0):
        return None
    step = -math.sqrt(2 * max_kl / curvature) * direction
    return unflatten(step, params) if bool(step.isfinite().all()) else None


def conjugate_gradient(
    product: Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]],
    b: Float[Tensor, " n"],
    *,
    n_iterations: int = 10,
    tolerance: float = 1e-10,
) -> Float[Tensor, " n"]:
    """Return x that solves ``A x = b`` for a symmetric positive definite A (Hestenes, Stiefel
    1952), started at 0.

    :param product: v -> A v; may return its argument, which is never changed
    :param b: (n,)
    :param n_iterations: largest number of products
    :param tolerance: stop where the squared residual is at most this part of the squared b
    """
    return krylov_solve(product, b, n_iterations=n_iterations, tolerance=tolerance).x


class KrylovSolve(NamedTuple):
    """What conjugate gradients found, and what they saw of the matrix A.

    :param x: the last iterate, (n,)
    :param n_products: how many products with A were made
    :param residual: norm of `b - A x`, relative to that of b, (); 0 where b is 0
    :param bend: p'Ap / p'p of the direction p that they stopped at since it is not positive, ();
        None where there was none
    :param lengths: of the steps
    :param momenta: what each direction kept of the one before
    """

    x: Float[Tensor, " n"]
    n_products: int
    residual: Float[Tensor, ""]
    bend: Float[Tensor, ""] | None
    lengths: list[Tensor]
    momenta: list[Tensor]

    def ritz_values(self) -> Float[Tensor, " k"]:
        """Eigenvalues of A on the space that was searched, ascending, (k,): they lie between the
        smallest and the largest of A, and the outer ones approach them (Golub, Van Loan 2013,
        section 11.3).
        """
        if not self.lengths:
            return self.x.new_zeros(0, dtype=th.float64).cpu()
        inverse = 1.0 / th.stack(self.lengths).to("cpu", th.float64)
        momenta = th.stack([*self.momenta, self.lengths[0].new_zeros(())]).to("cpu", th.float64)
        momenta = momenta[: len(inverse) - 1]
        diagonal = inverse.clone()
        diagonal[1:] += momenta * inverse[:-1]
        beside = momenta.sqrt() * inverse[:-1]
        return th.linalg.eigvalsh(diagonal.diag() + beside.diag(1) + beside.diag(-1))


def krylov_solve(
    product: Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]],
    b: Float[Tensor, " n"],
    *,
    n_iterations: int,
    tolerance: float,
) -> KrylovSolve:
    """Return what :func:`conjugate_gradient` does, with all that was learned on the way.

    :param product: v -> A v; may return its argument, which is never changed
    :param b: (n,)
    :param n_iterations: largest number of products
    :param tolerance: stop where the squared residual is at most this part of the squared b
    """
    x, residual, direction = th.zeros_like(b), b, b
    squared = start = residual @ residual
    lengths: list[Tensor] = []
    momenta: list[Tensor] = []
    n_products, bend = 0, None
    while n_products < n_iterations and not squared <= tolerance * start:
        image = product(direction)
        n_products += 1
        curvature = direction @ image
        if curvature <= 0:
            bend = curvature / (direction @ direction)
            break  # lost to rounding, or A is not definite: x so far is the best there is
        lengths.append(squared / curvature)
        x = x + lengths[-1] * direction
        residual = residual - lengths[-1] * image
        previous, squared = squared, residual @ residual
        momenta.append(squared / previous)
        direction = residual + momenta[-1] * direction
    relative = (squared / start).sqrt() if start > 0 else th.zeros_like(start)
    return KrylovSolve(x, n_products, relative, bend, lengths, momenta)


def flatten(params: Params) -> Float[Tensor, " n"]:
    """Return all parameters as one vector, in the order of the dict.

    :param params: tensors by name
    """
    return th.cat([param.reshape(-1) for param in params.values()])


def unflatten(vector: Float[Tensor, " n"], like: Params) -> Params:
    """Return the parts of a vector under the names and shapes of parameters.

    :param vector: what :func:`flatten` returns for them
    :param like: tensors whose names and shapes to take
    """
    parts = vector.split([param.numel() for param in like.values()])
    return {
        name: part.reshape(param.shape)
        for (name, param), part in zip(like.items(), parts, strict=True)
    }
