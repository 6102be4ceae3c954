"""The lower level of BO-MRL in tabular tasks: adapt a policy by solving a regularised problem.

For each task, from Q and nu of the one policy pi_phi,

    minimise over theta  l(theta; phi) = - sum_s nu(s) <pi_theta(s), Q(s)> + lambda D^2(phi, theta)

with D^2 the mean over nu of KL(pi_phi || pi_theta) (`forward_kl`, Alg 1) or of KL(pi_theta ||
pi_phi) (`reverse_kl`, Alg 2), or ||theta - phi||^2 (`l2`, Alg 3): Xu & Zhu 2024,
"Meta-Reinforcement Learning with Universal Policy Adaptation", https://arxiv.org/abs/2410.09728.
How each problem is solved here is our derivation.

Shapes: M tasks, S states, A actions.
"""

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bilevel.exact import centred
from metarl_agents.bilevel.forward_kl import log_root, sgd20_logits
from metarl_agents.bilevel.newton import ProximalProblems, proximal_logits
from metarl_agents.bilevel.probabilities import log_softmax

Solver = Literal["exact", "sgd20"]
SOLVERS: tuple[Solver, ...] = ("exact", "sgd20")


class LowerLevel(NamedTuple):
    """M lower-level problems; they separate over states.

    :param logits: phi, (M, S, A)
    :param action_values: Q of pi_phi, (M, S, A)
    :param occupancy: nu of pi_phi, (M, S)
    :param lam: lambda, (M,)
    """

    logits: Float[Tensor, "task state action"]
    action_values: Float[Tensor, "task state action"]
    occupancy: Float[Tensor, "task state"]
    lam: Float[Tensor, " task"]

    @property
    def scale(self) -> Float[Tensor, "task 1 1"]:
        """lambda, ready to broadcast over states and actions."""
        return self.lam[:, None, None]


class Adapted(NamedTuple):
    """Solutions of M lower-level problems.

    :param logits: theta', (M, S, A); for the KL distances up to a constant per state
    :param residual: the largest component of the gradient that should vanish, over lambda, (M,);
        of each state's problem without its factor nu for the KL distances
    :param min_eigenvalue: of the curvature over all states, (M,); for `l2` the Hessian in theta,
        for the KL distances M(s) = lambda Hess_pi d^2, which is diagonal
    :param max_eigenvalue: the same, (M,)
    :param decreased: whether the objective is no larger than at phi, (M,)
    """

    logits: Float[Tensor, "task state action"]
    residual: Float[Tensor, " task"]
    min_eigenvalue: Float[Tensor, " task"]
    max_eigenvalue: Float[Tensor, " task"]
    decreased: Bool[Tensor, " task"]

    @property
    def log_policy(self) -> Float[Tensor, "task state action"]:
        """log pi', (M, S, A)."""
        return log_softmax(self.logits)

    @property
    def policy(self) -> Float[Tensor, "task state action"]:
        """pi', (M, S, A)."""
        return self.logits.softmax(-1)


class Pullback(NamedTuple):
    """A cotangent of theta' pulled back to what the lower level was given.

    :param logits: to phi where it stands in D^2 explicitly, (M, S, A)
    :param action_values: to Q, (M, S, A)
    :param occupancy: to nu, (M, S); `None` where the solution does not depend on it
    """

    logits: Float[Tensor, "task state action"]
    action_values: Float[Tensor, "task state action"]
    occupancy: Float[Tensor, "task state"] | None


@runtime_checkable
class Distance(Protocol):
    """What one of the three distances needs to know."""

    name: str
    is_shift_invariant: bool  # whether a constant added to all logits of a state changes nothing

    def solution(self, problem: LowerLevel, *, max_iterations: int) -> Tensor:
        """theta', (M, S, A).

        :param problem: M lower-level problems
        :param max_iterations: of whatever is iterated
        """

    def squared(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """D^2(phi, theta), (M,); can be differentiated by autograd.

        :param problem: M lower-level problems
        :param theta: (M, S, A)
        """

    def slope(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """The gradient that vanishes at the solution, (M, S, A).

        :param problem: M lower-level problems
        :param theta: (M, S, A)
        """

    def curvature_range(self, problem: LowerLevel, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest eigenvalue of the curvature, (M,) each.

        :param problem: M lower-level problems
        :param theta: the solution, (M, S, A)
        """

    def pullback(self, problem: LowerLevel, theta: Tensor, cotangent: Tensor) -> Pullback:
        """The transposed derivative of the solution, in closed form.

        :param problem: M lower-level problems
        :param theta: the solution, (M, S, A)
        :param cotangent: of theta', (M, S, A); sums to 0 over the actions
        """

    def derivative_in_lam(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`d theta' / d lambda`, (M, S, A).

        :param problem: M lower-level problems
        :param theta: the solution, (M, S, A)
        """


def solve_lower_level(
    distance: Distance,
    problem: LowerLevel,
    *,
    solver: Solver = "exact",
    max_iterations: int = 100,
) -> Adapted:
    """Adapt to each task by its lower level.

    :param distance: one of `DISTANCES`
    :param problem: M lower-level problems
    :param solver: `"exact"`, or `"sgd20"` for 20 gradient steps (`forward_kl` only), the shortcut
        of publicly available experiment scripts
    :param max_iterations: of the iterative exact solvers
    """
    if solver == "sgd20":
        theta = sgd20_logits(problem.logits, problem.action_values / problem.scale)
    else:
        theta = distance.solution(problem, max_iterations=max_iterations)
    low, high = distance.curvature_range(problem, theta)
    slope = distance.slope(problem, theta).abs().amax((-2, -1))
    gain, loss = surrogate_gain(problem, theta), problem.lam * distance.squared(problem, theta)
    # At phi itself, or within rounding of it, D^2 may come out as some eps instead of 0.
    rounding = 1e-12 * (loss.abs() + problem.lam + problem.action_values.abs().amax((-2, -1)))
    return Adapted(theta, slope / problem.lam, low, high, loss - gain <= rounding)


def surrogate_gain(problem: LowerLevel, theta: Tensor) -> Float[Tensor, " task"]:
    """`sum_s nu(s) <pi_theta(s) - pi_phi(s), Q(s)>`, (M,).

    :param problem: M lower-level problems
    :param theta: (M, S, A)
    """
    change = theta.softmax(-1) - problem.logits.softmax(-1)
    return (problem.occupancy * (change * problem.action_values).sum(-1)).sum(-1)


def kl_divergence(
    log_p: Float[Tensor, "*batch action"], log_q: Float[Tensor, "*batch action"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) over the last axis, with 0 log 0 = 0.

    :param log_p: log-probabilities, (..., A); may be -inf
    :param log_q: log-probabilities, (..., A); may be -inf where `log_p` is
    """
    p = log_p.exp()
    is_possible = log_p > -th.inf
    ratio = th.where(is_possible, log_p, 0.0) - th.where(is_possible, log_q, 0.0)
    return (p * ratio).sum(-1)


class ForwardKL:
    """Alg 1, D^2 = E_nu KL(pi_phi || pi_theta): `pi'(a) = lambda pi_phi(a) / (mu - Q(a))`."""

    name = "forward_kl"
    is_shift_invariant = True

    def solution(self, problem: LowerLevel, *, max_iterations: int) -> Tensor:
        """log pi' by one scalar root per state; it always converges, whatever `max_iterations`."""
        gap = problem.action_values.amax(-1, keepdim=True) - problem.action_values
        log_prior = log_softmax(problem.logits)
        log_gap = (gap / problem.scale).log()
        root = log_root(log_prior, log_gap)
        return log_softmax(log_prior - th.logaddexp(root, log_gap))

    def squared(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """E_nu KL(pi_phi || pi_theta)."""
        kl = kl_divergence(log_softmax(problem.logits), log_softmax(theta))
        return (problem.occupancy * kl).sum(-1)

    def slope(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`lambda (p - pi_phi) - p (Q - <p, Q>)`."""
        p = theta.softmax(-1)
        drift = problem.scale * (p - problem.logits.softmax(-1))
        return drift - centred(p, problem.action_values)

    def curvature_range(self, problem: LowerLevel, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Of M(s) = lambda diag(pi_phi / pi'^2)."""
        log_m = log_softmax(problem.logits) - 2.0 * log_softmax(theta)
        return _scaled_range(problem, log_m)

    def pullback(self, problem: LowerLevel, theta: Tensor, cotangent: Tensor) -> Pullback:
        """With `R = pi' / pi_phi` and `c = <R, g> / <R, pi'>`: `g + c (pi_phi - pi')` to phi and
        `R (g - c pi') / lambda` to Q. M is never formed, so small probabilities do no harm.
        """
        log_policy, log_prior = log_softmax(theta), log_softmax(problem.logits)
        log_ratio = log_policy - log_prior
        top = log_ratio.amax(-1, keepdim=True)
        relative = (log_ratio - top).exp()
        policy = log_policy.exp()
        c = (relative * cotangent).sum(-1, keepdim=True)
        c = c / (relative * policy).sum(-1, keepdim=True)
        to_q = log_ratio.exp() * (cotangent - c * policy) / problem.scale
        return Pullback(cotangent + c * (log_prior.exp() - policy), to_q, None)

    def derivative_in_lam(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`(1 - R / <R, pi'>) / lambda`."""
        log_policy = log_softmax(theta)
        log_ratio = log_policy - log_softmax(problem.logits)
        mean = (log_ratio + log_policy).logsumexp(-1, keepdim=True)
        return -th.expm1(log_ratio - mean) / problem.scale


class ReverseKL:
    """Alg 2, D^2 = E_nu KL(pi_theta || pi_phi): `theta' = phi + Q / lambda`."""

    name = "reverse_kl"
    is_shift_invariant = True

    def solution(self, problem: LowerLevel, *, max_iterations: int) -> Tensor:
        """log pi', in closed form."""
        return log_softmax(problem.logits + problem.action_values / problem.scale)

    def squared(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """E_nu KL(pi_theta || pi_phi)."""
        kl = kl_divergence(log_softmax(theta), log_softmax(problem.logits))
        return (problem.occupancy * kl).sum(-1)

    def slope(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`p (h - <p, h>)` with `h = lambda log(p / pi_phi) - Q`."""
        log_policy = log_softmax(theta)
        log_ratio = log_policy - log_softmax(problem.logits)
        return centred(log_policy.exp(), problem.scale * log_ratio - problem.action_values)

    def curvature_range(self, problem: LowerLevel, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Of M(s) = lambda diag(1 / pi')."""
        return _scaled_range(problem, -log_softmax(theta))

    def pullback(self, problem: LowerLevel, theta: Tensor, cotangent: Tensor) -> Pullback:
        """g to phi and g / lambda to Q."""
        return Pullback(cotangent, cotangent / problem.scale, None)

    def derivative_in_lam(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`-Q / lambda^2`."""
        return -problem.action_values / problem.scale**2


class ParameterDistance:
    """Alg 3, D^2 = ||theta - phi||^2: in each state a problem that is convex where
    `2 lambda > 3 nu(s) max |A|`, and may not be below that.
    """

    name = "l2"
    is_shift_invariant = False

    def solution(self, problem: LowerLevel, *, max_iterations: int) -> Tensor:
        """A local minimum by safeguarded Newton from phi."""
        theta = proximal_logits(self._flat(problem), max_iterations=max_iterations)
        return theta.reshape(problem.logits.shape)

    def squared(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """||theta - phi||^2."""
        return (theta - problem.logits).square().sum((-2, -1))

    def slope(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`2 lambda (theta - phi) - nu b` with `b = p (Q - <p, Q>)`."""
        gradient = self._flat(problem).gradient(theta.reshape(-1, theta.shape[-1]))
        return gradient.reshape(theta.shape)

    def curvature_range(self, problem: LowerLevel, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Of the Hessian, which consists of one block per state."""
        eigenvalues = th.linalg.eigvalsh(self._hessian(problem, theta))
        return eigenvalues[..., 0].amin(-1), eigenvalues[..., -1].amax(-1)

    def pullback(self, problem: LowerLevel, theta: Tensor, cotangent: Tensor) -> Pullback:
        """With `u = H^-1 g`: `2 lambda u` to phi, `nu p (u - <p, u>)` to Q, `<u, b>` to nu."""
        u = th.linalg.solve(self._hessian(problem, theta), cotangent)
        p = theta.softmax(-1)
        return Pullback(
            2.0 * problem.scale * u,
            problem.occupancy[..., None] * centred(p, u),
            (u * centred(p, problem.action_values)).sum(-1),
        )

    def derivative_in_lam(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        """`-2 H^-1 (theta - phi)`."""
        return -2.0 * th.linalg.solve(self._hessian(problem, theta), theta - problem.logits)

    def _hessian(self, problem: LowerLevel, theta: Tensor) -> Tensor:
        n_actions = theta.shape[-1]
        blocks = self._flat(problem).hessian(theta.reshape(-1, n_actions))
        return blocks.reshape(*theta.shape, n_actions)

    def _flat(self, problem: LowerLevel) -> ProximalProblems:
        m, s, a = problem.logits.shape
        # A constant per state changes nothing; without it, differences lose less to rounding.
        q = problem.action_values - problem.action_values.amax(-1, keepdim=True)
        return ProximalProblems(
            problem.logits.reshape(-1, a),
            q.reshape(-1, a),
            problem.occupancy.reshape(-1),
            problem.lam[:, None].expand(m, s).reshape(-1),
        )


DISTANCES: dict[str, Distance] = {
    distance.name: distance for distance in (ForwardKL(), ReverseKL(), ParameterDistance())
}
"""Alg 1, 2 and 3, in this order."""


def distance_of(algorithm: Any) -> Distance:
    """The distance of an algorithm.

    :param algorithm: 1, 2, 3, or `"forward_kl"`, `"reverse_kl"`, `"l2"`
    """
    names = list(DISTANCES)
    if isinstance(algorithm, str) and algorithm in DISTANCES:
        return DISTANCES[algorithm]
    is_number = isinstance(algorithm, int | np.integer) and not isinstance(algorithm, bool)
    if is_number and 1 <= algorithm <= len(names):
        return DISTANCES[names[algorithm - 1]]
    raise ValueError(f"algorithm={algorithm!r} is unknown: choose 1, 2 or 3, or one of {names}")


def _scaled_range(problem: LowerLevel, log_m: Tensor) -> tuple[Tensor, Tensor]:
    return (
        problem.lam * log_m.amin((-2, -1)).exp(),
        problem.lam * log_m.amax((-2, -1)).exp(),
    )
