"""Whether a hypergradient can be trusted, and numbers that tell in which regime adaptation is.

Shapes: M tasks, S states, A actions.
"""

import warnings

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bilevel.exact import Evaluation
from metarl_agents.bilevel.implicit import LinearSolve
from metarl_agents.bilevel.lower_level import Adapted, LowerLevel, kl_divergence
from metarl_agents.bilevel.probabilities import log_softmax
from metarl_agents.bilevel.settings import HypergradientSettings

LARGEST_SPAN = 30.0
"""Of Q in a state, over lambda: beyond, Alg 2 gives some action e^-30 of the probability."""

LEAST_KL = 1e-3
"""In nats: an adaptation that moves the policy less than this hardly adapts."""


def checked_solution(
    problem: LowerLevel,
    before: Evaluation,
    adapted: Adapted,
    solve: LinearSolve | None,
    settings: HypergradientSettings,
) -> Bool[Tensor, " task"]:
    """Which tasks have a valid hypergradient, (M,); raises or warns for the others."""
    is_solved = adapted.residual <= settings.tolerance
    is_minimum = (adapted.min_eigenvalue > 0.0) & adapted.decreased
    if solve is not None:
        is_minimum = is_minimum & solve.is_definite.all(-1)
        is_solved = is_solved & (solve.residual <= settings.tolerance).all(-1)
    for is_fine, reason in (
        (is_solved, _unsolved(adapted, settings)),
        (is_minimum, _curved(problem, before, adapted)),
    ):
        if not bool(is_fine.all()):
            where = th.nonzero(~is_fine)[:, 0].tolist()
            text = f"the hypergradient is not valid in {len(where)} tasks, such as {where[0]}: "
            if settings.strict:
                raise ValueError(text + reason)
            warnings.warn(text + reason, stacklevel=4)
    return is_solved & is_minimum


def _unsolved(adapted: Adapted, settings: HypergradientSettings) -> str:
    return (
        f"the lower level has a residual of {float(adapted.residual.max()):.3g}, more than "
        f"tolerance={settings.tolerance}. Use solver='exact', a larger max_iterations, or "
        "mode='first_order', which needs no solution; or accept it with strict=False"
    )


def _curved(problem: LowerLevel, before: Evaluation, adapted: Adapted) -> str:
    largest = (before.occupancy.amax(-1) * before.advantages.abs().amax((-2, -1))).max()
    return (
        f"lam={float(problem.lam.min()):.4g} is too small for the lower level to be convex there "
        f"(smallest eigenvalue {float(adapted.min_eigenvalue.min()):.3g}). A lam above 1.5 max nu "
        f"max |A| = {1.5 * float(largest):.4g} always is enough"
    )


def adaptation_diagnostics(
    problem: LowerLevel, before: Evaluation, adapted: Adapted, after: Evaluation
) -> dict[str, Float[Tensor, " task"]]:
    """Numbers about one adaptation, (M,) each.

    `relative_lam` is lambda over the mean over states of the span of Q, which rescaling the rewards
    leaves alone; `largest_span` is the largest span over lambda; `mean_kl` that of pi' from pi_phi,
    and `effective_sample_size` the share of samples that importance weights pi' / pi_phi leave,
    both over nu of pi_phi; `unvisited_mass` the part of the adapted policy's occupancy where that
    of pi_phi is 0; `hessian_cond` of the curvature whose range the solver reports.

    :param problem: the lower level
    :param before: pi_phi, evaluated
    :param adapted: its solution
    :param after: pi', evaluated
    """
    log_policy, log_prior = adapted.log_policy, log_softmax(problem.logits)
    kl = kl_divergence(log_policy, log_prior)
    second_moment = (2.0 * log_policy - log_prior).logsumexp(-1).exp()
    is_unvisited = before.occupancy == 0.0
    return {
        "return_before": before.returns,
        "return_after": after.returns,
        "residual": adapted.residual,
        "min_eigenvalue": adapted.min_eigenvalue,
        "max_eigenvalue": adapted.max_eigenvalue,
        "hessian_cond": adapted.max_eigenvalue / adapted.min_eigenvalue,
        "min_log_probability": log_policy.amin((-2, -1)),
        "mean_kl": (problem.occupancy * kl).sum(-1),
        "effective_sample_size": 1.0 / (problem.occupancy * second_moment).sum(-1),
        "unvisited_mass": (after.occupancy * is_unvisited).sum(-1),
        "relative_lam": relative_lam(problem.lam, problem.action_values),
        "largest_span": _spans(problem.action_values).amax(-1) / problem.lam,
    }


def relative_lam(
    lam: Float[Tensor, " task"] | float, action_values: Float[Tensor, "task state action"]
) -> Float[Tensor, " task"]:
    """`lambda / mean_s (max_a Q - min_a Q)`, (M,): lambda in units of what actions decide.

    :param lam: lambda, one number or (M,)
    :param action_values: Q, (M, S, A)
    """
    return lam / _spans(action_values).mean(-1)


def absolute_lam(relative: float, action_values: Float[Tensor, "task state action"]) -> float:
    """The lambda that is `relative` times the span of Q, mean over states and tasks.

    Take Q of a policy that does not change, such as the first meta-policy: the hypergradient holds
    lambda fixed.

    :param relative: what `relative_lam` is to be
    :param action_values: Q, (M, S, A)
    """
    return relative * float(_spans(action_values).mean())


def warn_of_regime(diagnostics: dict[str, Float[Tensor, " task"]]) -> None:
    """Warn of a lambda so small that adaptation is greedy, or so large that it does nothing.

    :param diagnostics: of an adaptation
    """
    size = float(diagnostics["effective_sample_size"].min())
    span = float(diagnostics["largest_span"].max())
    if span > LARGEST_SPAN:
        warnings.warn(
            f"lam is small: Q spans {span:.3g} lam in some state, more than {LARGEST_SPAN:.0f}, so "
            f"errors of Q count as often (effective sample size {size:.2g} of 1). Use a larger lam",
            stacklevel=3,
        )
    kl = float(diagnostics["mean_kl"].mean())
    if kl < LEAST_KL:
        warnings.warn(
            f"lam is large: adaptation moves the policy by {kl:.2g} nats on average, less than "
            f"{LEAST_KL}. Use a smaller lam",
            stacklevel=3,
        )


def _spans(action_values: Tensor) -> Tensor:
    return action_values.amax(-1) - action_values.amin(-1)
