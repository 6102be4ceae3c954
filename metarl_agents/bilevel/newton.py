"""Safeguarded Newton for the proximal step in the logits, many states at once.

Shapes: R independent problems (states of all tasks), A actions.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bilevel.exact import centred

_ARMIJO = 1e-4
_MAX_HALVINGS = 50
_EPS = th.finfo(th.float64).eps


class ProximalProblems(NamedTuple):
    """R problems `min_theta  -n <Q, softmax(theta)> + lambda ||theta - phi||^2`.

    :param logits: phi, (R, A)
    :param action_values: Q, (R, A)
    :param weight: n, (R,)
    :param lam: lambda, (R,)
    """

    logits: Float[Tensor, "problem action"]
    action_values: Float[Tensor, "problem action"]
    weight: Float[Tensor, " problem"]
    lam: Float[Tensor, " problem"]

    def subset(self, mask: Bool[Tensor, " problem"]) -> "ProximalProblems":
        """Those of the problems where `mask` is true.

        :param mask: (R,)
        """
        return ProximalProblems(*(tensor[mask] for tensor in tuple(self)))

    def objective(self, theta: Float[Tensor, "problem action"]) -> Float[Tensor, " problem"]:
        """What is minimised, (R,).

        :param theta: (R, A)
        """
        gain = (theta.softmax(-1) * self.action_values).sum(-1)
        return self.lam * (theta - self.logits).square().sum(-1) - self.weight * gain

    def gradient(self, theta: Float[Tensor, "problem action"]) -> Float[Tensor, "problem action"]:
        """`2 lambda (theta - phi) - n b` with `b = p (Q - <p, Q>)`, (R, A).

        :param theta: (R, A)
        """
        b = centred(theta.softmax(-1), self.action_values)
        return 2.0 * self.lam[:, None] * (theta - self.logits) - self.weight[:, None] * b

    def hessian(
        self, theta: Float[Tensor, "problem action"]
    ) -> Float[Tensor, "problem action action"]:
        """`2 lambda I - n (diag(b) - b p' - p b')`, (R, A, A).

        :param theta: (R, A)
        """
        p = theta.softmax(-1)
        b = centred(p, self.action_values)
        cross = b[:, :, None] * p[:, None, :]
        bracket = th.diag_embed(b) - cross - cross.mT
        identity = th.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        return 2.0 * self.lam[:, None, None] * identity - self.weight[:, None, None] * bracket


def proximal_logits(
    problems: ProximalProblems, *, max_iterations: int
) -> Float[Tensor, "problem action"]:
    """Local minima theta, (R, A), reached from phi by steps that never raise the objective.

    Newton steps; where the Hessian is not positive definite, with the absolute values of its
    eigenvalues. Steps are halved until they satisfy the condition of Armijo (1966).

    :param problems: what to minimise
    :param max_iterations: steps at most; a problem that stops improving is left alone
    """
    # Only differences of Q matter, and small numbers lose less.
    best = problems.action_values.amax(-1, keepdim=True)
    problems = problems._replace(action_values=problems.action_values - best)
    theta = problems.logits.clone()
    is_active = th.ones_like(problems.weight, dtype=th.bool)
    for _ in range(max_iterations):
        part = problems.subset(is_active)
        before = theta[is_active]
        gradient = part.gradient(before)
        after = before + _step(part, before, gradient)
        theta[is_active] = after
        # One step more after the gradient is small: Newton then squares what is left.
        is_done = (gradient.abs().amax(-1) <= _tolerance(part)) | (after == before).all(-1)
        is_active = is_active.masked_scatter(is_active, ~is_done)
        if not bool(is_active.any()):
            break
    return theta


def _tolerance(problems: ProximalProblems) -> Tensor:
    """A gradient this small has lost half its digits, (R,)."""
    span = problems.action_values.amax(-1) - problems.action_values.amin(-1)
    return 1e-9 * (problems.weight * span).clamp(min=_EPS)


def _step(problems: ProximalProblems, theta: Tensor, gradient: Tensor) -> Tensor:
    direction = _newton_direction(problems.hessian(theta), gradient)
    slope = (direction * gradient).sum(-1)
    start = problems.objective(theta)
    span = problems.action_values.amax(-1) - problems.action_values.amin(-1)
    # The objective is known up to rounding only; near the minimum its differences are below that.
    rounding = 8.0 * _EPS * (problems.weight * span + start.abs())
    length = th.ones_like(slope)
    for _ in range(_MAX_HALVINGS):
        value = problems.objective(theta + length[:, None] * direction)
        is_long = value > start + _ARMIJO * length * slope + rounding
        if not bool(is_long.any()):
            return length[:, None] * direction
        length = th.where(is_long, length / 2.0, length)
    return th.where(is_long, th.zeros_like(length), length)[:, None] * direction


def _newton_direction(hessian: Tensor, gradient: Tensor) -> Tensor:
    factor, failed = th.linalg.cholesky_ex(hessian)
    is_bad = failed > 0
    if not bool(is_bad.any()):
        return -th.cholesky_solve(gradient[..., None], factor)[..., 0]
    direction = th.empty_like(gradient)
    good = ~is_bad
    direction[good] = -th.cholesky_solve(gradient[good][..., None], factor[good])[..., 0]
    eigenvalues, vectors = th.linalg.eigh(hessian[is_bad])
    size = eigenvalues.abs()
    size = size.clamp(min=1e-8 * float(size.max()))
    along = (vectors.mT @ gradient[is_bad][..., None]) / size[..., None]
    direction[is_bad] = -(vectors @ along)[..., 0]
    return direction
