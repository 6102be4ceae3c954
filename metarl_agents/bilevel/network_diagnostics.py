"""Whether hypergradients of networks can be trusted, and in which regime adaptation is."""

import math
import warnings
from collections.abc import Sequence

from metarl_agents.bilevel.diagnostics import LARGEST_SPAN, LEAST_KL
from metarl_agents.bilevel.network_tasks import TaskHypergradient

WORST = {
    "residual": max,
    "stopped_early": max,
    "effective_sample_size": min,
    "largest_value": max,
    "implicit_residual": max,
    "min_eigenvalue": min,
    "max_eigenvalue": max,
    "hessian_cond": max,
}
"""Diagnostics of which the worst task is logged; of the others, the mean."""


def check_validity(
    found: Sequence[TaskHypergradient], *, tolerance: float, strict: bool, warn: bool
) -> None:
    """`ValueError`, or a warning, where the implicit function theorem does not hold in some tasks.

    :param found: of M tasks
    :param tolerance: largest residual at which a lower level counts as solved
    :param strict: whether to raise
    :param warn: whether to warn otherwise
    """
    invalid = [task for task, one in enumerate(found) if not one.is_valid]
    if not invalid or not (strict or warn):
        return
    first = found[invalid[0]]
    text = (
        f"the hypergradient is not exact in {len(invalid)} of {len(found)} tasks, such as task "
        f"{invalid[0]}: {_reason(first, tolerance)}"
    )
    if strict:
        raise ValueError(text)
    warnings.warn(
        f"{text}. It is used all the same (strict=False); train/invalid_tasks counts on",
        stacklevel=3,
    )


def _reason(found: TaskHypergradient, tolerance: float) -> str:
    numbers = found.numbers
    if not found.is_definite:
        return (
            f"its Hessian has a direction of curvature {numbers['min_eigenvalue']:.3g}, where the "
            "lower level has no strict minimum: raise eta or lam"
        )
    if numbers["stopped_early"]:
        return (
            f"the lower level was stopped at a distance of {numbers['distance']:.3g}, short of its "
            "minimum: raise lam or max_distance"
        )
    return (
        f"the lower level has a residual of {numbers['residual']:.3g}, more than tolerance="
        f"{tolerance}: raise polish_steps or n_lower_steps"
    )


def warn_of_network_regime(found: Sequence[TaskHypergradient]) -> None:
    """Warn of a lambda so small that few samples decide, or so large that adaptation does nothing.

    :param found: of M tasks
    """
    kl = sum(one.numbers["mean_kl"] for one in found) / len(found)
    if kl < LEAST_KL:
        warnings.warn(
            f"adaptation moves the policy by {kl:.2g} nats on average, less than {LEAST_KL}: use a "
            "smaller lam, more n_lower_steps or a larger lower_lr",
            stacklevel=3,
        )
    largest = max(one.numbers["largest_value"] for one in found)
    if largest > LARGEST_SPAN:
        size = min(one.numbers["effective_sample_size"] for one in found)
        warnings.warn(
            f"lam is small: some |Qhat| is {largest:.3g} lam, more than {LARGEST_SPAN:.0f}, so a "
            f"few samples decide (effective sample size {size:.2g} of 1). Use a larger lam",
            stacklevel=3,
        )


def logged_numbers(found: Sequence[TaskHypergradient]) -> dict[str, float]:
    """The diagnostics of M tasks as numbers to log: the mean, or the worst task.

    :param found: of M tasks
    """
    logs = {"invalid_tasks": sum(not one.is_valid for one in found) / len(found)}
    for name in found[0].numbers:
        values = [one.numbers[name] for one in found]
        worst = WORST.get(name)
        logs[name] = math.fsum(values) / len(values) if worst is None else worst(values)
    return logs
