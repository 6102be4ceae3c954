"""Formulas of the bounds on the gap between adapted and optimal policies.

They are our derivations of bounds of the type that Xu & Zhu 2024, https://arxiv.org/abs/2410.09728,
prove: a constant times the distance between the meta-policy and the optimum of a task. They are not
theorems of that paper. Each is given with the truth of every assumption that it needs.

The gap is `J(pi*) - J(pi')`, pi' the adapted policy. With `D*^2` and `D'^2` the squared distances
of pi_phi to the comparator and to pi', `L(pi) = J(pi_phi) + sum nu <pi, A> / (1 - gamma)` and
`e(pi) = J(pi) - L(pi)`:

- B0, an identity: the optimality conditions of the lower level inserted into
  `L(pi*) - L(pi') + e(pi*) - e(pi')`.
- B1 = `(lambda + k*) D*^2 / (1 - gamma)`, for k_one <= lambda, where the smallest constants are
  `k* = (1 - gamma) max(e(pi*), 0) / D*^2` and `k_one = (1 - gamma) max(-e(pi'), 0) / D'^2`.
- B2 = `((lambda + k) D*^2 + (k - lambda) D'^2) / (1 - gamma)` with the worst case k (`k_worst`).
- B3, the same with k* and k_one in the place of the two k.
- B4 = `lambda (1 + gamma) / (1 - gamma) D*^2`, for k* <= gamma lambda and k_one <= lambda. Its mean
  over tasks, `B_paper`, has the size of the bounds in published figures.
- B5 = `(1 - 1/C) gap(pi_phi) + sum nu* [statewise progress] / ((1 - gamma) C)`,
  `C = max nu* / nu'`; progress is `lambda (KL(pi* || pi_phi) - KL(pi* || pi'))` for `reverse_kl`,
  and `<pi* - pi', Q>` for the others.
- B6 = `(lambda sum nu* KL(pi* || pi_phi) + sum nu* (V* - V)) / ((1 - gamma) (n + 1))`, after n
  steps with data of their own (`reverse_kl` only): mirror descent, as in Xiao 2022,
  https://arxiv.org/abs/2201.07443.

Shapes: M tasks, S states, A actions.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.comparators import Comparator, performance_error, reachable_states
from metarl_agents.bilevel.exact import Evaluation, TabularTasks, optimal_action_values
from metarl_agents.bilevel.lower_level import Adapted, Distance, LowerLevel, kl_divergence

_SOLVED = "the lower level is no worse at the solution than at the comparator"
_ROUNDING = 1e-10


class Comparison(NamedTuple):
    """All that the bounds are made of.

    :param tasks: M tasks
    :param distance: D
    :param problem: the lower level
    :param before: pi_phi, evaluated
    :param adapted: its solution
    :param after: pi', evaluated
    :param comparator: pi*, or what stands for it
    :param after_steps: the policy after n steps, evaluated
    :param n_steps: n
    """

    tasks: TabularTasks
    distance: Distance
    problem: LowerLevel
    before: Evaluation
    adapted: Adapted
    after: Evaluation
    comparator: Comparator
    after_steps: Evaluation
    n_steps: int


def task_bounds(c: Comparison) -> dict[str, Float[Tensor, " task"]]:
    """Gaps, bounds and the constants in them, (M,) each; names as in `bounds`.

    :param c: what they are made of
    """
    lam, own, rest = c.problem.lam, c.comparator.own_gap, 1.0 - c.tasks.discount
    near, far = _distances(c)
    error = performance_error(c.tasks, c.before, c.comparator.at)
    error_after = performance_error(c.tasks, c.before, c.after)
    rise, fall = rest * error.clamp(min=0.0), rest * (-error_after).clamp(min=0.0)
    k_star, k_one, k = _ratio(rise, far), _ratio(fall, near), worst_case_constant(c)
    best = c.comparator.at.returns + own
    return {
        "optimal_return": best,
        "gap_before": best - c.before.returns,
        "gap": best - c.after.returns,
        "gap_after_steps": best - c.after_steps.returns,
        "improvement": c.after.returns - c.before.returns,
        "improvement_is_guaranteed": _is_improvement_guaranteed(c),
        "own_gap": own,
        "distance": far,
        "k_star": k_star,
        "k_one": k_one,
        "k_worst": k,
        "B0": own + _identity(c) / rest + error - error_after,
        "B1": own + (lam * far + rise) / rest,
        "B2": own + ((lam + k) * far + (k - lam) * near) / rest,
        "B3": own + (lam * far + rise + fall - lam * near) / rest,
        "B4": own + lam * (1.0 + c.tasks.discount) / rest * far,
        "B5": own + _one_step_bound(c),
        "B6": own + _many_step_bound(c),
    }


def bound_assumptions(c: Comparison) -> dict[str, dict[str, Tensor]]:
    """What each bound needs, in words, and in which tasks that is true, (M,).

    :param c: what they are made of
    """
    lam, rest = c.problem.lam, 1.0 - c.tasks.discount
    near, far = _distances(c)
    rise = rest * performance_error(c.tasks, c.before, c.comparator.at)
    fall = -rest * performance_error(c.tasks, c.before, c.after)
    at_comparator = lam * far - _surrogate_gain(c, c.comparator.at)
    at_solution = lam * near - _surrogate_gain(c, c.after)
    solved = {_SOLVED: at_solution <= at_comparator + _ROUNDING * (1.0 + at_comparator.abs())}
    slack = _ROUNDING * (1.0 + c.before.returns.abs())
    small_one = {"k_one <= lam": fall <= lam * near + slack}
    small_star = {"k* <= gamma lam": rise <= c.tasks.discount * lam * far + slack}
    everywhere = th.ones_like(solved[_SOLVED])
    is_reverse = everywhere & (c.distance.name == "reverse_kl")
    return {
        "B0": {"the lower level is stationary": c.adapted.residual <= _ROUNDING**0.5},
        "B1": solved | small_one,
        "B2": solved,
        "B3": solved,
        "B4": solved | small_star | small_one,
        "B5": {"no state gets worse in the surrogate": _is_improvement_guaranteed(c)},
        "B6": {"the algorithm is reverse_kl": is_reverse},
    }


def worst_case_constant(c: Comparison) -> Float[Tensor, " task"]:
    """A k known a priori, with `|e(pi)| <= k D^2(phi, pi) / (1 - gamma)` for all pi, (M,).

    `2 gamma A_max / ((1 - gamma) sqrt(nu_min))` for the KL distances, by Pinsker's inequality, with
    nu_min the least occupancy of a state that can be reached; `gamma A_max / (2 (1 - gamma))` for
    `l2`, as KL <= ||theta - phi||^2 / 4 in every state. A lambda of at least k makes the lower
    level a lower bound of the return. Our derivation.

    :param c: of which the tasks and pi_phi matter
    """
    largest = c.before.advantages.abs().amax((-2, -1))
    k = c.tasks.discount * largest / (1.0 - c.tasks.discount)
    if c.distance.name == "l2":
        return k / 2.0
    occupancy = th.where(reachable_states(c.tasks), c.before.occupancy, th.inf)
    return 2.0 * k / occupancy.amin(-1).sqrt()


def _distances(c: Comparison) -> tuple[Tensor, Tensor]:
    """D'^2 and D*^2."""
    near = c.distance.squared(c.problem, c.adapted.logits)
    return near, c.distance.squared(c.problem, c.comparator.logits)


def _surrogate_gain(c: Comparison, at: Evaluation) -> Tensor:
    return (c.before.occupancy * (at.policy * c.before.advantages).sum(-1)).sum(-1)


def _ratio(numerator: Tensor, squared: Tensor) -> Tensor:
    """0 for 0 / 0: where the distance is 0, so is the error."""
    return th.where(squared > _ROUNDING**2, numerator / squared, 0.0)


def _is_improvement_guaranteed(c: Comparison) -> Tensor:
    """Whether `<pi' - pi_phi, Q> >= 0` in every state: then the return cannot fall."""
    progress = (c.after.policy * c.before.advantages).sum(-1)
    scale = 1.0 + c.before.values.abs().amax(-1, keepdim=True)
    return (progress >= -_ROUNDING * scale).all(-1)


def _identity(c: Comparison) -> Tensor:
    """`sum nu <pi* - pi', Q>` by the optimality conditions of the lower level, (M,)."""
    return _IDENTITIES[c.distance.name](c)


def _forward_identity(c: Comparison) -> Tensor:
    """`lambda (1 - sum nu <pi*, pi_phi / pi'>)`, from `Q = mu - lambda pi_phi / pi'`."""
    log_ratio = c.problem.logits.log_softmax(-1) - c.adapted.log_policy
    share = (c.comparator.log_policy + log_ratio).exp().sum(-1)
    return c.problem.lam * (c.before.occupancy * (1.0 - share)).sum(-1)


def _reverse_identity(c: Comparison) -> Tensor:
    """`lambda (D*^2 - D'^2 - sum nu KL(pi* || pi'))`, the three-point identity."""
    near, far = _distances(c)
    kl = kl_divergence(c.comparator.log_policy, c.adapted.log_policy)
    return c.problem.lam * (far - near - (c.before.occupancy * kl).sum(-1))


def _parameter_identity(c: Comparison) -> Tensor:
    """`2 lambda sum <pi* / pi', theta' - phi>`, from `nu pi' (Q - <pi', Q>) = 2 lambda (theta' -
    phi)`.
    """
    ratio = (c.comparator.log_policy - c.adapted.log_policy).exp()
    moved = c.adapted.logits - c.problem.logits
    return 2.0 * c.problem.lam * (ratio * moved).sum((-2, -1))


_IDENTITIES = {
    "forward_kl": _forward_identity,
    "reverse_kl": _reverse_identity,
    "l2": _parameter_identity,
}


def _one_step_bound(c: Comparison) -> Tensor:
    """B5 against the comparator.

    `(1 - gamma) gap(pi_phi) = sum nu* <pi* - pi', Q> + sum nu* <pi' - pi_phi, Q>`, whose last term
    is at most C times the same sum over nu', which is (1 - gamma) times the improvement.
    """
    if c.distance.name == "reverse_kl":
        log_prior = c.problem.logits.log_softmax(-1)
        log_policy = c.comparator.log_policy
        apart = kl_divergence(log_policy, log_prior)
        progress = apart - kl_divergence(log_policy, c.adapted.log_policy)
        progress = c.problem.lam[:, None] * progress
    else:
        change = c.comparator.at.policy - c.after.policy
        progress = (change * c.before.advantages).sum(-1)
    visits = c.comparator.at.occupancy
    # Below that it is rounding, and weighs nothing.
    share = th.where(visits > 1e-14, c.after.occupancy / visits, th.inf).amin(-1).clamp(max=1.0)
    gap_before = c.comparator.at.returns - c.before.returns
    gained = (visits * progress).sum(-1) / (1.0 - c.tasks.discount)
    return (1.0 - share) * gap_before + share * gained


def _many_step_bound(c: Comparison) -> Tensor:
    """B6 against the comparator; NaN where it does not hold.

    The sum over k <= n of `(1 - gamma) gap(pi_k)` is at most `sum nu* [lambda KL(pi* || pi_phi) +
    V_(n+1) - V_0]`, and the gaps fall.
    """
    if c.distance.name != "reverse_kl":
        return th.full_like(c.problem.lam, th.nan)
    visits = c.comparator.at.occupancy
    apart = kl_divergence(c.comparator.log_policy, c.problem.logits.log_softmax(-1))
    best = optimal_action_values(c.tasks).amax(-1)
    total = visits * (c.problem.lam[:, None] * apart + best - c.before.values)
    return total.sum(-1) / ((1.0 - c.tasks.discount) * (c.n_steps + 1))
