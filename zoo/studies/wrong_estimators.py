"""Estimators of the meta-gradient with mistakes that are easy to make, as a user would write them.

Anything with the method `meta_loss` can be certified: these show what a certificate finds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from metarl_agents.common.inner_loop import InnerLR, adapted_params
from metarl_agents.common.losses import Reduction, episode_log_probs
from metarl_agents.common.policies import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.gradient.estimators import Coefficient, OuterLoss


@dataclass(frozen=True)
class WrongScore:
    """A score term that is wrong in one way.

    :param inner_loss: `"dice"` counts the effect of sampling twice, `"loglik"` does not
    :param first_only: of several inner batches, only the first is credited
    :param chained: whether the policies of later batches count as functions of the initial
        parameters, as they should
    :param own_return_as_baseline: whether the return of the first batch, the very one that is
        credited, is subtracted: the objective becomes the gain from adaptation
    """

    inner_loss: str = "loglik"
    first_only: bool = False
    chained: bool = True
    own_return_as_baseline: bool = False

    def meta_loss(
        self,
        network: PolicyNetwork,
        params: Params,
        inner: Sequence[WeightedEpisodes],
        outer_loss: OuterLoss,
        coefficient: Coefficient,
        *,
        inner_lr: InnerLR,
        reduction: Reduction,
    ) -> Tensor:
        """See `metarl_agents.gradient.estimators.meta_loss`.

        :param network: the policy
        :param params: theta
        :param inner: the inner batches
        :param outer_loss: of the adapted parameters
        :param coefficient: credit of the inner batches
        :param inner_lr: alpha
        :param reduction: of the inner losses
        """
        chain = adapted_params(
            network,
            params,
            inner,
            loss=self.inner_loss,
            inner_lr=inner_lr,
            reduction=reduction,
        )
        credit = coefficient(chain[-1]) if callable(coefficient) else coefficient
        if self.own_return_as_baseline:
            credit = credit - inner[0].returns.mean(-1)
        loss = outer_loss(chain[-1])
        for policy, episodes in list(zip(chain[:-1], inner, strict=True))[: self._n_credited]:
            sampler = policy if self.chained else _shifted(params, policy)
            log_probs = episode_log_probs(network, sampler, episodes)
            loss = loss - credit.detach() * log_probs.sum((-2, -1))
        return loss

    @property
    def _n_credited(self) -> int | None:
        return 1 if self.first_only else None


def _shifted(params: Params, later: Params) -> Params:
    """Later parameters as if they were the first ones plus a constant."""
    return {name: value + (later[name] - value).detach() for name, value in params.items()}
