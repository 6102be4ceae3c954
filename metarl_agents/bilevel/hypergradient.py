"""The hypergradient of BO-MRL in tabular tasks: how the return after adaptation depends on the
meta-policy, exactly.

Xu & Zhu 2024, "Meta-Reinforcement Learning with Universal Policy Adaptation",
https://arxiv.org/abs/2410.09728, differentiate through the solution of the lower level. The
formulas here and in `lower_level` are our derivation of such a gradient, tested against finite
differences; they are not quoted from the paper.

Shapes: M tasks, S states, A actions.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.arguments import checked_inputs
from metarl_agents.bilevel.diagnostics import (
    adaptation_diagnostics,
    checked_solution,
    warn_of_regime,
)
from metarl_agents.bilevel.exact import (
    Evaluation,
    TabularTasks,
    action_values_vjp,
    evaluate,
    occupancy_vjp,
    return_gradient,
)
from metarl_agents.bilevel.implicit import LinearSolve, implicit_hypergradient
from metarl_agents.bilevel.lower_level import (
    Adapted,
    Distance,
    LowerLevel,
    Pullback,
    Solver,
    distance_of,
    solve_lower_level,
)
from metarl_agents.bilevel.settings import (
    DEFAULT_SETTINGS,
    HypergradientSettings,
    Method,
    Mode,
    check_settings,
)
from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp import FiniteMDP


class Hypergradients(NamedTuple):
    """The gradients of M tasks, and all that was computed on the way.

    :param gradients: of each task's return after adaptation in the logits phi, (M, S, A)
    :param problem: the lower level
    :param before: pi_phi, evaluated
    :param adapted: the solution of the lower level
    :param after: pi', evaluated; its `returns` are the objective
    :param is_valid: whether the lower level was solved well enough, (M,); true in first order
    :param linear_solve: of the implicit method, else `None`
    """

    gradients: Float[Tensor, "task state action"]
    problem: LowerLevel
    before: Evaluation
    adapted: Adapted
    after: Evaluation
    is_valid: Bool[Tensor, " task"]
    linear_solve: LinearSolve | None = None

    @property
    def diagnostics(self) -> dict[str, Float[Tensor, " task"]]:
        """Numbers about the adaptation, (M,) each; see `adaptation_diagnostics`."""
        return adaptation_diagnostics(self.problem, self.before, self.adapted, self.after)


def hypergradient(
    mdps: Sequence[FiniteMDP] | FiniteMDP,
    logits: ArrayLike | Tensor,
    *,
    algorithm: int | str,
    lam: float,
    mode: Mode = "exact",
    method: Method = "closed_form",
    solver: Solver = "exact",
    max_iterations: int = 100,
    tolerance: float = 1e-8,
    strict: bool = True,
    device: th.device | str = "cpu",
) -> tuple[float, FloatArray]:
    """The return after adaptation, mean over tasks, and its gradient in the logits, (S, A).

    :param mdps: discounted MDPs of the same S and A, or one batch of them
    :param logits: of the meta-policy (phi), (S, A)
    :param algorithm: 1, 2, 3, or `"forward_kl"`, `"reverse_kl"`, `"l2"`
    :param lam: weight of the distance (lambda), in units of the return
    :param mode: `"exact"`, or `"first_order"`, which takes the derivative of the adaptation to be
        the identity
    :param method: `"closed_form"`, or `"implicit"` for the implicit function theorem with
        conjugate gradients; they agree
    :param solver: of the lower level: `"exact"`, or `"sgd20"` for 20 gradient steps (`forward_kl`
        only), which do not solve it
    :param max_iterations: of the lower level
    :param tolerance: largest residual at which the lower level counts as solved
    :param strict: raise where the lower level is not solved; otherwise warn
    :param device: where to compute
    """
    distance = distance_of(algorithm)
    settings = HypergradientSettings(mode, method, solver, max_iterations, tolerance, strict)
    check_settings(distance, settings)
    tasks, phi = checked_inputs(mdps, logits, lam, device)
    found = task_hypergradients(tasks, phi, distance=distance, lam=lam, settings=settings)
    warn_of_regime(found.diagnostics)
    return float(found.after.returns.mean()), found.gradients.mean(0).cpu().numpy()


def task_hypergradients(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    *,
    distance: Distance,
    lam: float | Float[Tensor, " task"],
    settings: HypergradientSettings = DEFAULT_SETTINGS,
) -> Hypergradients:
    """The hypergradient of every task, (M, S, A).

    :param tasks: M tasks
    :param logits: phi, (S, A), or (M, S, A) to let it differ
    :param distance: D
    :param lam: lambda, one number or (M,)
    :param settings: how to compute it
    """
    before, problem = lower_level_at(tasks, logits, lam)
    adapted = solve_lower_level(
        distance, problem, solver=settings.solver, max_iterations=settings.max_iterations
    )
    after = evaluate(tasks, adapted.policy)
    upper = return_gradient(tasks, after)
    if settings.mode == "first_order":
        is_valid = th.ones_like(adapted.decreased)
        return Hypergradients(upper, problem, before, adapted, after, is_valid)
    solve = None
    if settings.method == "closed_form":
        pullback = distance.pullback(problem, adapted.logits, upper)
        gradients = pulled_back(tasks, before, pullback)
    else:
        gradients, solve = implicit_hypergradient(tasks, distance, problem, adapted.logits, upper)
    is_valid = checked_solution(problem, before, adapted, solve, settings)
    return Hypergradients(gradients, problem, before, adapted, after, is_valid, solve)


def pulled_back(
    tasks: TabularTasks, before: Evaluation, pullback: Pullback
) -> Float[Tensor, "task state action"]:
    """The three parts of a hypergradient together, (M, S, A): through D^2, Q and nu.

    :param tasks: M tasks
    :param before: pi_phi, evaluated
    :param pullback: the cotangents of phi, Q and nu
    """
    gradient = pullback.logits + action_values_vjp(tasks, before, pullback.action_values)
    if pullback.occupancy is None:
        return gradient
    return gradient + occupancy_vjp(tasks, before, pullback.occupancy)


def first_order_cosine(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    *,
    distance: Distance,
    lam: float | Float[Tensor, " task"],
    least: float = 0.9,
) -> float:
    """Cosine of the first-order gradient with the exact one, both means over tasks; warns where it
    is below `least`: an audit to run now and then where the shortcut is used.

    :param tasks: M tasks
    :param logits: phi, (S, A) or (M, S, A)
    :param distance: D
    :param lam: lambda, one number or (M,)
    :param least: the smallest cosine that passes
    """
    found = task_hypergradients(tasks, logits, distance=distance, lam=lam)
    shortcut = return_gradient(tasks, found.after).mean(0).flatten()
    exact = found.gradients.mean(0).flatten()
    cosine = float(th.cosine_similarity(shortcut, exact, dim=0))
    if cosine < least:
        warnings.warn(
            f"the first-order gradient has a cosine of {cosine:.3f} with the exact one, less than "
            f"{least}: use mode='exact', or a larger lam",
            stacklevel=2,
        )
    return cosine
