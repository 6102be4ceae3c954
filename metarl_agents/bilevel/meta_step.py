"""An ascent step on the meta-parameters that never lowers the measured objective."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class AscentStep(NamedTuple):
    """What a backtracking step did.

    :param logits: the new ones; the very same tensor where no step helped
    :param objective: at these logits
    :param n_backtracks: how often the step was shortened
    :param accepted: whether the logits moved
    """

    logits: Float[Tensor, "state action"]
    objective: float
    n_backtracks: int
    accepted: bool


def backtracked_step(
    logits: Float[Tensor, "state action"],
    step: Float[Tensor, "state action"],
    objective: Callable[[Float[Tensor, "state action"]], float],
    *,
    objective_before: float,
    ratio: float = 0.5,
    max_backtracks: int = 10,
) -> AscentStep:
    """Shorten a step until the return after adaptation does not fall.

    :param logits: phi, (S, A)
    :param step: what an optimiser would add, (S, A)
    :param objective: logits -> mean return after adaptation
    :param objective_before: at `logits`
    :param ratio: factor that shortens the step
    :param max_backtracks: how often to shorten it before it is rejected
    """
    for n_backtracks in range(max_backtracks + 1):
        candidate = logits + ratio**n_backtracks * step
        value = objective(candidate)
        if value >= objective_before:
            return AscentStep(candidate, value, n_backtracks, True)
    return AscentStep(logits, objective_before, max_backtracks, False)
