"""Estimators of the meta-gradient: how to differentiate through steps on sampled episodes.

Two objectives are meant by "the return after adaptation". With U(theta, D) the result of the inner
steps on episodes D, and V the expected return of a policy in one task,

    J_inf(theta) = E_task V(theta + alpha grad V(theta))                infinitely many episodes
    J_N(theta)   = E_task E_{D ~ theta} V(U(theta, D))                  N episodes per inner step

    grad J_N = E[ (dU/dtheta)' grad V(U) + V(U) sum_{tau in D} grad log p_theta(tau) ].

An estimator chooses the surrogate whose gradient the inner step takes, which decides about
dU/dtheta, and whether to add the second part, the score term, which credits the sampling of D with
what came of it. `lvc`, `dice` and `loaded_dice` put the effect of sampling into dU/dtheta (they aim
at J_inf), the score term is exact for J_N; together they would count it twice.

Shapes: C tasks of a chunk (or no such axis), E episodes, T steps, M tasks, d numbers that
describe a task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch as th
from torch import Tensor

from metarl_agents.common.inner_loop import InnerLR, adapted_params, learning_rates, step_size
from metarl_agents.common.losses import INNER_LOSSES, Reduction, episode_log_probs, total_log_prob
from metarl_agents.common.policies.networks import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes

ScoreTerm = Literal["none", "emaml", "sgmrl"]
OuterLoss = Callable[[Params], Tensor]
Coefficient = Callable[[Params], Tensor] | Tensor

_SCORE_TERMS = ("none", "emaml", "sgmrl")


class EstimatesMetaGradient(Protocol):
    """What differentiates through adaptation: a `MetaEstimator`, an agent, or a class of yours."""

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
        """(C,), a loss whose gradient in `params` is the estimate; see the function `meta_loss`."""


@dataclass(frozen=True)
class MetaEstimator:
    """A way to differentiate through inner steps on sampled episodes.

    :param inner_loss: surrogate of the inner step: `"loglik"` (MAML), `"none"` (no derivative of
        the step: first-order MAML), `"lvc"`, `"dice"`, `"dice_baseline"`, `"loaded_dice"`
    :param score_term: credit of the inner batches with the return after adaptation: `"none"`;
        `"emaml"`, averaged over the N episodes of a batch (Stadie et al., 2018), which is too
        little by the factor N; `"sgmrl"`, summed (Fallah et al., 2021), exact for J_N
    :param score_weight: times the score term; 0 is MAML, 1 the published method
    """

    inner_loss: str = "loglik"
    score_term: ScoreTerm = "none"
    score_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.inner_loss not in INNER_LOSSES:
            raise ValueError(
                f"inner_loss={self.inner_loss!r} is not known: choose from "
                f"{', '.join(INNER_LOSSES)}"
            )
        if self.score_term not in _SCORE_TERMS:
            raise ValueError(
                f"score_term={self.score_term!r} is not known: choose from "
                f"{', '.join(_SCORE_TERMS)}"
            )
        if not 0.0 <= self.score_weight < float("inf"):
            raise ValueError(
                f"score_weight={self.score_weight!r} must be a finite number of at least 0"
            )
        if self.score_term == "none":
            return
        if self.inner_loss == "none":
            raise ValueError(
                f"score_term={self.score_term!r} with inner_loss='none' leaves out the derivative "
                "of the inner step, which the score term is added to: use inner_loss='loglik'"
            )
        if self.inner_loss != "loglik":
            raise ValueError(
                f"score_term={self.score_term!r} with inner_loss={self.inner_loss!r} counts the "
                "effect of sampling twice, since that surrogate has it in the derivative of the "
                "inner step: use inner_loss='loglik', or score_term='none'"
            )

    def weight_of_score(self, inner: Sequence[WeightedEpisodes]) -> float:
        """What multiplies the sum over the episodes of a batch: `score_weight`, 1/N of it or 0.

        :param inner: the K batches of N episodes each
        """
        if self.score_term == "none":
            return 0.0
        n_episodes = inner[0].mask.shape[-2]
        return self.score_weight / (n_episodes if self.score_term == "emaml" else 1)

    def meta_loss(
        self,
        network: PolicyNetwork,
        params: Params,
        inner: Sequence[WeightedEpisodes],
        outer_loss: OuterLoss,
        coefficient: Coefficient,
        *,
        inner_lr: InnerLR | Sequence[InnerLR],
        reduction: Reduction = "mean",
        control_variate: Params | None = None,
    ) -> Tensor:
        """(C,), a loss whose gradient in `params` is the estimate; see the function `meta_loss`."""
        return meta_loss(
            self,
            network,
            params,
            inner,
            outer_loss,
            coefficient,
            inner_lr=inner_lr,
            reduction=reduction,
            control_variate=control_variate,
        )


ESTIMATORS = {
    "maml": MetaEstimator(),
    "fomaml": MetaEstimator("none"),
    "lvc": MetaEstimator("lvc"),
    "dice": MetaEstimator("dice"),
    "loaded_dice": MetaEstimator("loaded_dice"),
    "emaml": MetaEstimator(score_term="emaml"),
    "sgmrl": MetaEstimator(score_term="sgmrl"),
}
"""The published estimators by name."""


def meta_loss(
    estimator: MetaEstimator,
    network: PolicyNetwork,
    params: Params,
    inner: Sequence[WeightedEpisodes],
    outer_loss: OuterLoss,
    coefficient: Coefficient,
    *,
    inner_lr: InnerLR | Sequence[InnerLR],
    reduction: Reduction = "mean",
    control_variate: Params | None = None,
) -> Tensor:
    """(C,), a loss whose gradient in `params` is the estimate of minus the meta-gradient.

        outer_loss(theta_K) - w sg(coefficient) sum_k sum_{tau in D_k} log pi_{theta_k(theta)}(tau)

    (Fallah et al., 2021, https://arxiv.org/abs/2002.05135), with w the weight of the score term,
    times 1/N for `"emaml"`. All K batches are credited, and the log-probabilities of batch k depend
    on theta through theta_k as well: without either the estimate is biased for K > 1.

    :param estimator: which estimator
    :param network: the policy
    :param params: theta, each tensor with a leading axis C or none
    :param inner: the K batches, batch k sampled from theta_k; fields (C, E, ...) or (E, ...)
    :param outer_loss: of the adapted parameters theta_K, (C,): minus a surrogate of the return
    :param coefficient: of the score, (C,), or a function of theta_K: the return that `outer_loss`
        stands for, on the same scale, minus a baseline that must not
        depend on the inner batches of its own task
    :param inner_lr: step size(s) of the inner steps (alpha), as in `adapted_params`
    :param reduction: of the inner surrogates
    :param control_variate: v, a direction chosen before the inner batches were sampled (such as
        the last meta-gradient); see `score_surrogate`
    """
    if control_variate is not None and estimator.score_term == "none":
        raise ValueError(
            "control_variate is given but score_term='none' has no score term whose variance it "
            "could reduce: leave it out, or use score_term='sgmrl'"
        )
    chain = adapted_params(
        network,
        params,
        inner,
        loss=estimator.inner_loss,
        reduction=reduction,
        inner_lr=inner_lr,
    )
    loss = outer_loss(chain[-1])
    if estimator.score_term == "none":
        return loss
    credit = coefficient(chain[-1]) if callable(coefficient) else coefficient
    return loss - estimator.weight_of_score(inner) * score_surrogate(
        network,
        chain[:-1],
        inner,
        credit.detach(),
        inner_lr=inner_lr,
        reduction=reduction,
        control_variate=control_variate,
    )


def score_surrogate(
    network: PolicyNetwork,
    chain: Sequence[Params],
    inner: Sequence[WeightedEpisodes],
    coefficient: Tensor,
    *,
    inner_lr: InnerLR | Sequence[InnerLR],
    reduction: Reduction,
    control_variate: Params | None = None,
) -> Tensor:
    """(C,), whose gradient credits the sampling of the inner batches with `coefficient`.

    With S_k = sum_n s_{k,n} the log-probability of batch k and its episodes: sum_k coefficient S_k.
    A fixed direction v foretells what part of the coefficient is due to which episode: the inner
    step moves the objective by <v, alpha g> = sum_n c_{k,n} to first order, so

        sum_k [ (coefficient - sum_{j <= k} sum_n c_{j,n}) S_k + sum_n c_{k,n} s_{k,n} ]

    has the same expected gradient (an episode's c does not depend on the other episodes of its
    batch, whose scores have mean zero) and a variance that falls with N, where without v it grows.
    This takes advantages of an episode that do not depend on the others of its batch, or only by a
    baseline of the stage: those fitted to the observations of the batch leave a bias O(1/N), as do
    lengths that vary for `reduction="mean"`. The baseline in the coefficient should then estimate
    E[return - <v, alpha g>].

    :param network: the policy
    :param chain: theta_0, ..., theta_{K-1}, as differentiable functions of theta
    :param inner: the K batches
    :param coefficient: (C,), without a graph
    :param inner_lr: alpha
    :param reduction: of the inner surrogates
    :param control_variate: v; None for the plain score
    """
    rates = learning_rates(inner_lr, len(inner))
    total = th.zeros_like(coefficient)
    for params, episodes, rate in zip(chain, inner, rates, strict=True):
        log_probs = episode_log_probs(network, params, episodes)
        if control_variate is not None:
            gains = predicted_gains(
                network, params, episodes, control_variate, inner_lr=rate, reduction=reduction
            )
            coefficient = coefficient - gains.sum(-1)
            total = total + (gains * log_probs.sum(-1)).sum(-1)
        total = total + coefficient * total_log_prob(log_probs, episodes.mask)
    return total


def predicted_gains(
    network: PolicyNetwork,
    params: Params,
    episodes: WeightedEpisodes,
    direction: Params,
    *,
    inner_lr: InnerLR,
    reduction: Reduction,
) -> Tensor:
    """(C, E), without a graph: how far each episode moves the inner step along a direction.

        c_n = <v, alpha (1/N) sum_t A_t grad log pi(a_t | s_t)>,   sum_n c_n = <v, theta_1 - theta>

    for plain policy-gradient steps (1/N becomes 1 / number of steps for `reduction="mean"`).

    :param network: the policy
    :param params: theta_k
    :param episodes: the batch of the step, advantages (C, E, T)
    :param direction: v, tensors like those of `params`, with or without their leading axis
    :param inner_lr: alpha
    :param reduction: of the inner surrogate
    """
    fixed = {name: value.detach().requires_grad_() for name, value in params.items()}
    with th.enable_grad():
        surrogates = (episode_log_probs(network, fixed, episodes) * episodes.advantages).sum(-1)
        # The product with the direction, by a backward pass through the backward pass of weights of
        # the episodes: forward mode would keep its nesting level in a global that threads share.
        weights = th.ones_like(surrogates, requires_grad=True)
        gradients = th.autograd.grad(
            surrogates, list(fixed.values()), weights, create_graph=True, materialize_grads=True
        )
        products = [
            (gradient * _scaled(direction[name].detach().expand_as(gradient), inner_lr, name)).sum()
            for name, gradient in zip(fixed, gradients, strict=True)
        ]
        (gains,) = th.autograd.grad(th.stack(products).sum(), weights, materialize_grads=True)
    if reduction == "sum":
        return gains / gains.shape[-1]
    return gains / episodes.mask.sum((-2, -1)).clamp(min=1)[..., None]


def _scaled(direction: Tensor, inner_lr: InnerLR, name: str) -> Tensor:
    if isinstance(inner_lr, Mapping):
        return direction * step_size(inner_lr[name].detach(), direction)
    return direction * inner_lr


def leave_one_out_baseline(values: Tensor) -> Tensor:
    """(M,), for each task the mean of the other tasks' values.

    :param values: (M,), such as the mean returns after adaptation
    """
    if len(values) < 2:
        raise ValueError(
            f"a leave-one-out baseline needs at least 2 tasks, got {len(values)}: use a larger "
            "meta_batch_size, or score_baseline='ema'"
        )
    return (values.sum() - values) / (len(values) - 1)


def regression_baseline(values: Tensor, descriptors: Tensor, ridge: float = 1e-3) -> Tensor:
    """(M,), for each task the prediction of a ridge regression that was fitted to the other tasks.

    With the hat matrix H of all tasks, the prediction without task i is
    y_i - (y_i - (H y)_i) / (1 - H_ii) (Allen, 1974), so one fit is enough.

    :param values: (M,), y
    :param descriptors: (M, d), numbers that describe the tasks; a constant is added, and each
        column standardised over the tasks
    :param ridge: penalty on the slopes, relative to M; the constant is left alone
    """
    if len(values) < 2:
        raise ValueError(
            f"a regression over the other tasks needs at least 2 tasks, got {len(values)}: use a "
            "larger meta_batch_size, or score_baseline='ema'"
        )
    y, x = values.double(), descriptors.double()
    x = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-8)
    x = th.cat([th.ones_like(y)[:, None], x], dim=-1)
    penalty = th.full((x.shape[-1],), ridge * len(y), dtype=x.dtype, device=x.device)
    penalty[0] = 0.0
    hat = x @ th.linalg.solve(x.mT @ x + th.diag(penalty), x.mT)
    left_out = (1 - hat.diagonal()).clamp(min=1e-8)
    return (y - (y - hat @ y) / left_out).to(values.dtype)
