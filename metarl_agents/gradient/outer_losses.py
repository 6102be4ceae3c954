"""What is minimised after adaptation: surrogates of the return of adapted parameters."""

from collections.abc import Callable

from torch import Tensor

from metarl_agents.common.losses import (
    Reduction,
    clipped_surrogate_loss,
    episode_log_probs,
    likelihood_ratio_loss,
    reinforce_loss,
)
from metarl_agents.common.policies import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes


def outer_loss(
    kind: str,
    network: PolicyNetwork,
    episodes: WeightedEpisodes,
    *,
    reduction: Reduction,
    clip_range: float = 0.0,
) -> Callable[[Params], Tensor]:
    """A function from adapted parameters to the losses of C tasks, (C,).

    :param kind: "loglik", - A log pi; "ratio", - A pi / pi_old; "clip", the ratio clipped as in PPO
    :param network: the policy
    :param episodes: after adaptation, (C, E, T)
    :param reduction: "mean" over steps, or "sum" over time and mean over episodes
    :param clip_range: epsilon of "clip"
    """

    def losses(params: Params) -> Tensor:
        log_probs = episode_log_probs(network, params, episodes)
        if kind == "loglik":
            return reinforce_loss(log_probs, episodes, reduction)
        if kind == "ratio":
            return likelihood_ratio_loss(log_probs, episodes.log_probs, episodes, reduction)
        return clipped_surrogate_loss(
            log_probs, episodes.log_probs, episodes, clip_range, reduction
        )

    return losses
