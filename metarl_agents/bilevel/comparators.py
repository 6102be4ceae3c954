"""What adapted policies are compared with: optimal policies, and how far tasks lie from each other.

Shapes: M tasks, S states, A actions.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.exact import (
    Evaluation,
    TabularTasks,
    evaluate,
    optimal_action_values,
)
from metarl_agents.bilevel.lower_level import Distance, LowerLevel

# Relative to the values: actions that differ by less are tied.
_TIE = 1e-9


class Comparator(NamedTuple):
    """A policy for each task to be compared with.

    :param logits: its place in the space of theta, (M, S, A); -inf where it never plays
    :param log_policy: (M, S, A)
    :param at: the policy, evaluated
    :param own_gap: what it loses against the optimum itself, (M,)
    """

    logits: Float[Tensor, "task state action"]
    log_policy: Float[Tensor, "task state action"]
    at: Evaluation
    own_gap: Float[Tensor, " task"]


def nearest_optimal(
    optimal_q: Float[Tensor, "task state action"], logits: Float[Tensor, "*task state action"]
) -> Float[Tensor, "task state action"]:
    """log-probabilities of the optimal policy nearest to a softmax policy, (M, S, A), -inf where an
    action is not optimal.

    Among the policies that play optimal actions only, `pi_phi` restricted to these actions
    minimises both KL divergences in every state; where optimal actions are tied, a fixed choice
    among them would overstate the distance.

    :param optimal_q: Q of the optimal policy, (M, S, A)
    :param logits: phi, (S, A) or (M, S, A)
    """
    best = optimal_q.amax(-1, keepdim=True)
    scale = best.abs().amax(-2, keepdim=True).clamp(min=1.0)
    is_optimal = optimal_q >= best - _TIE * scale
    return th.where(is_optimal, logits, -th.inf).log_softmax(-1)


def softened(
    log_policy: Float[Tensor, "*batch action"], smallest: float
) -> Float[Tensor, "*batch action"]:
    """log of a policy whose probabilities are raised to `smallest`, then scaled, (..., A).

    :param log_policy: (..., A), may be -inf
    :param smallest: epsilon
    """
    return log_policy.exp().clamp(min=smallest).log().log_softmax(-1)


def placed_logits(
    distance: Distance,
    logits: Float[Tensor, "*task state action"],
    log_policy: Float[Tensor, "task state action"],
) -> Float[Tensor, "task state action"]:
    """theta of a policy, (M, S, A): with the constant per state that makes D smallest.

    :param distance: D
    :param logits: phi, (S, A) or (M, S, A)
    :param log_policy: (M, S, A); finite unless D is a KL distance
    """
    if distance.is_shift_invariant:
        return log_policy
    return log_policy + (logits - log_policy).mean(-1, keepdim=True)


def comparator_of(
    tasks: TabularTasks,
    distance: Distance,
    logits: Float[Tensor, "*task state action"],
    *,
    policies: Float[Tensor, "task state action"] | None,
    smallest: float,
) -> Comparator:
    """The optimal policy nearest to pi_phi, or policies that the user gave, for each task.

    For `forward_kl` and `l2`, to which a policy with zeros is infinitely far, it is softened.

    :param tasks: M tasks
    :param distance: D
    :param logits: phi, (S, A) or (M, S, A)
    :param policies: in place of optimal ones, (M, S, A), such as the best of a class
    :param smallest: epsilon, the smallest probability of a softened policy
    """
    optimal_q = optimal_action_values(tasks)
    best_returns = (tasks.initial * optimal_q.amax(-1)).sum(-1)
    log_policy = nearest_optimal(optimal_q, logits) if policies is None else policies.log()
    if distance.name != "reverse_kl":
        log_policy = softened(log_policy, smallest)
    at = evaluate(tasks, log_policy.exp())
    placed = placed_logits(distance, logits, log_policy)
    return Comparator(placed, log_policy, at, best_returns - at.returns)


def task_variance(
    tasks: TabularTasks,
    distance: Distance,
    *,
    n_steps: int = 400,
    learning_rate: float = 0.05,
    smallest: float = 1e-4,
) -> tuple[float, Float[Tensor, "state action"]]:
    """`Var_i = min over phi of the mean over tasks of D^2(pi_phi, pi*)`, and its minimiser (S, A).

    Adam (Kingma & Ba 2015) from a uniform policy, with nu of pi_phi differentiated and pi* the
    optimal policy nearest to pi_phi; the smallest value met, so an upper bound of the minimum. What
    a task variance is to mean is our reading of Xu & Zhu 2024.

    :param tasks: M tasks
    :param distance: D
    :param n_steps: of Adam; 0 for the uniform policy itself
    :param learning_rate: of Adam
    :param smallest: epsilon, as in `comparator_of`
    """
    optimal_q = optimal_action_values(tasks)
    phi = th.zeros_like(optimal_q[0]).requires_grad_()
    optimiser = th.optim.Adam([phi], lr=learning_rate)
    best, best_phi = th.inf, phi.detach().clone()
    for _ in range(n_steps + 1):
        with th.enable_grad():
            _, problem = lower_level_at(tasks, phi, 1.0)
            value = _distance_to_optimum(distance, problem, optimal_q, smallest).mean()
        if float(value.detach()) < best:
            best, best_phi = float(value.detach()), phi.detach().clone()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return best, best_phi


def _distance_to_optimum(
    distance: Distance, problem: LowerLevel, optimal_q: Tensor, smallest: float
) -> Tensor:
    # D is stationary in the nearest policy, which therefore counts as a constant.
    log_policy = nearest_optimal(optimal_q, problem.logits.detach())
    if distance.name != "reverse_kl":
        log_policy = softened(log_policy, smallest)
    theta = placed_logits(distance, problem.logits.detach(), log_policy)
    return distance.squared(problem, theta)


def reachable_states(tasks: TabularTasks) -> Bool[Tensor, "task state"]:
    """Where some policy may come, (M, S), without the rounding of an occupancy.

    :param tasks: M tasks
    """
    reached = (tasks.initial > 0).to(tasks.rewards.dtype)
    for _ in range(reached.shape[-1]):
        following = tasks.transitions.transpose(1, 2)  # (M, A, S, S)
        step = (reached[:, None, None] @ (following > 0).to(reached.dtype)).sum((1, 2))
        grown = ((reached + step) > 0).to(reached.dtype)
        if bool((grown == reached).all()):
            break
        reached = grown
    return reached > 0


def performance_error(
    tasks: TabularTasks, before: Evaluation, at: Evaluation
) -> Float[Tensor, " task"]:
    """`e(pi) = J(pi) - L(pi)` with `L(pi) = J(pi_phi) + sum nu <pi, A> / (1 - gamma)`, (M,).

    L is the return that the data of pi_phi promise (Kakade & Langford 2002).

    :param tasks: M tasks
    :param before: pi_phi, evaluated
    :param at: pi, evaluated
    """
    promised = (before.occupancy * (at.policy * before.advantages).sum(-1)).sum(-1)
    return at.returns - before.returns - promised / (1.0 - tasks.discount)
