"""Credit of the sampling before adaptation: scales, and what returns are compared with.

The score term of a task multiplies its return after adaptation, less a baseline, with the
log-probabilities of the inner batches. A baseline that does not depend on those batches changes no
expectation: all of these come from other tasks or from earlier meta-iterations.

Shapes: M tasks, E episodes, T steps, d numbers that describe a task.
"""

import torch as th
from torch import Tensor

from metarl_agents.common.losses import Reduction
from metarl_agents.common.returns import WeightedEpisodes, deviation
from metarl_agents.gradient.estimators import leave_one_out_baseline, regression_baseline

COMPARISONS = ("leave_one_out", "regression", "ema", "none")


def check_comparison(name: str, meta_batch_size: int) -> None:
    """`ValueError` where there are no other tasks to compare with.

    :param name: of the baseline
    :param meta_batch_size: M
    """
    if name in ("leave_one_out", "regression") and meta_batch_size < 2:
        raise ValueError(
            f"score_baseline={name!r} compares with other tasks, but meta_batch_size="
            f"{meta_batch_size}: use more tasks, or score_baseline='none'"
        )


def compared_with(
    name: str,
    returns: Tensor,
    *,
    descriptors: Tensor | None = None,
    average: float | None = None,
) -> Tensor:
    """The baseline of every task's return, (M,).

    :param name: "leave_one_out", "regression" on the tasks' numbers and their squares, "ema" or
        "none"
    :param returns: (M,), mean returns after adaptation
    :param descriptors: (M, d), for "regression"
    :param average: of earlier meta-iterations, for "ema"; where there were none, "leave_one_out"
        stands in
    """
    if name == "none":
        return th.zeros_like(returns)
    if name == "ema" and average is not None:
        return th.full_like(returns, average)
    if name == "regression":
        if descriptors is None:
            raise ValueError(
                "score_baseline='regression' needs tasks with to_array(), which describes them by "
                "numbers: use score_baseline='leave_one_out'"
            )
        numbers = descriptors.to(returns.device)
        return regression_baseline(returns, th.cat([numbers, numbers.square()], dim=-1))
    if len(returns) < 2:
        return th.zeros_like(returns)
    return leave_one_out_baseline(returns)


def moved_average(average: float | None, returns: Tensor, decay: float = 0.9) -> float:
    """The running mean of returns, the baseline of the next meta-iteration.

    :param average: so far; None before the first meta-iteration
    :param returns: (M,), of the meta-iteration that ends
    :param decay: share of the old average that stays
    """
    mean = float(returns.mean())
    return mean if average is None else decay * average + (1.0 - decay) * mean


def divided(episodes: WeightedEpisodes, scale: Tensor) -> WeightedEpisodes:
    """Episodes whose advantages, and the rewards and baselines of DiCE, are divided by a scale.

    :param episodes: any leading axes
    :param scale: (), or one that broadcasts to (..., E, T)
    """
    return episodes._replace(
        advantages=episodes.advantages / scale,
        rewards=episodes.rewards / scale,
        baselines=episodes.baselines / scale,
    )


def with_one_scale(outer: WeightedEpisodes, normalize: bool) -> tuple[WeightedEpisodes, Tensor]:
    """Episodes after adaptation, advantages divided by one deviation for all tasks, and it, ().

    One for all, since one per task would weigh the tasks.

    :param outer: leading axis M, advantages as they are
    :param normalize: False leaves them, with scale 1
    """
    if not normalize:
        return outer, th.ones_like(outer.returns[0, 0])
    scale = deviation(outer.advantages, outer.mask)
    return divided(outer, scale), scale


def unit_of_credit(outer: WeightedEpisodes, scale: Tensor, reduction: Reduction) -> Tensor:
    """What one unit of return is worth in the outer loss of each task, (M,).

    1 / sigma, and 1 / mean length of an episode where the loss is a mean over steps.

    :param outer: leading axis M
    :param scale: sigma, ()
    :param reduction: of the outer loss
    """
    unit = th.ones_like(outer.returns[:, 0]) / scale
    if reduction == "sum":
        return unit
    return unit * outer.mask.shape[-2] / outer.mask.sum((-2, -1)).clamp_min(1.0)
