"""Certificates: the exact bias and variance of a meta-gradient estimator on small tabular tasks.

Everything that can be sampled is enumerated, as one leading axis, through the surrogates, the inner
loop and the estimator that training uses; only the value of an adapted policy is computed exactly,
so what is certified is how an estimator differentiates through adaptation.

Shapes: C batches of a chunk, K inner steps, N episodes of a batch, L trajectories of a task, H
stages, S states, A actions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import torch as th
from numpy.typing import ArrayLike
from torch import Tensor

from metarl_agents.common.losses import Reduction
from metarl_agents.gradient.enumeration import n_multisets, n_trajectories
from metarl_agents.gradient.estimators import ESTIMATORS, EstimatesMetaGradient, MetaEstimator
from metarl_agents.gradient.tabular_adaptation import (
    AdaptationSettings,
    AdvantageBaseline,
    MetaLoss,
    TabularAdaptation,
)
from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp import FiniteMDP


@dataclass(frozen=True, eq=False)
class GradientCertificate:
    """How an estimator of the meta-gradient relates to the truth, exactly.

    :param objective: J_N, the expected return after K steps on N sampled episodes each, mean over
        tasks
    :param exact: the gradient of J_N, (S, A)
    :param exact_infinite: the gradient of J_inf, the return after K exact steps, (S, A)
    :param expected: expectation of the estimate, (S, A)
    :param covariance: of the estimate from one batch per inner step and task, (S A, S A)
    :param n_batches: how many different inner batches (or chains of K) were enumerated
    """

    objective: float
    exact: FloatArray
    exact_infinite: FloatArray
    expected: FloatArray
    covariance: FloatArray
    n_batches: int

    @property
    def relative_bias(self) -> float:
        """``||expected - exact|| / ||exact||``."""
        return _ratio(np.linalg.norm(self.expected - self.exact), self.exact)

    @property
    def relative_bias_infinite(self) -> float:
        """The same against the gradient of J_inf."""
        return _ratio(np.linalg.norm(self.expected - self.exact_infinite), self.exact_infinite)

    @property
    def variance(self) -> FloatArray:
        """Of each component of the estimate, (S, A)."""
        return np.diagonal(self.covariance).reshape(self.exact.shape)

    @property
    def relative_std(self) -> float:
        """``sqrt(total variance) / ||exact||``: the noise of one estimate."""
        return _ratio(np.sqrt(np.trace(self.covariance)), self.exact)

    def __str__(self) -> str:
        rows = [
            ("J_N", f"{self.objective:.8g}"),
            ("gradient of J_N", _text(self.exact)),
            ("gradient of J_inf", _text(self.exact_infinite)),
            ("expected estimate", _text(self.expected)),
            ("relative bias", f"{self.relative_bias:.3g} to J_N"),
            ("", f"{self.relative_bias_infinite:.3g} to J_inf"),
            ("relative std", f"{self.relative_std:.3g}"),
            ("batches", f"{self.n_batches:,}"),
        ]
        return "\n".join(f"{name:<18} {value}" for name, value in rows)


def certify_meta_gradient(
    estimator: str | EstimatesMetaGradient,
    mdps: Sequence[FiniteMDP],
    logits: ArrayLike,
    *,
    n_episodes: int,
    n_inner_steps: int = 1,
    inner_lr: float,
    reduction: Reduction = "sum",
    baseline: AdvantageBaseline = "none",
    score_baseline: float | Sequence[float] = 0.0,
    control_variate: ArrayLike | None = None,
    max_batches: int = 1_000_000,
) -> GradientCertificate:
    """Bias and variance of a meta-gradient estimator against the exact gradient of tabular tasks.

    The inner step is ``theta + alpha (1/N) sum_n sum_t w_t grad log pi_theta(a_t | s_t)`` with
    ``w_t = gamma^t (reward-to-go - b_t)``, so that without a baseline (or with the value) its
    expectation is the gradient of the expected return. The weights count as constants, also where
    they depend on the whole batch.

    :param estimator: a name (`"maml"`, `"fomaml"`, `"lvc"`, `"dice"`, `"loaded_dice"`, `"emaml"`,
        `"sgmrl"`), a `MetaEstimator`, or anything that has its method `meta_loss`, such as an agent
    :param mdps: the tasks, with the same S and A and each with a horizon; their mean is certified
    :param logits: of the softmax policy that is adapted (theta), (S, A)
    :param n_episodes: of each inner batch (N)
    :param n_inner_steps: K; each step samples anew from the policy so far
    :param inner_lr: step size of the inner steps (alpha)
    :param reduction: of the inner surrogates: `"sum"` over time as above, or `"mean"` over all
        steps, which makes the steps smaller by 1/H
    :param baseline: b_t of the inner weights: `"none"`; `"batch"`, the mean reward-to-go of the
        batch at step t; `"value"`, the exact value of the state under the policy that acts
    :param score_baseline: what is subtracted from the return in the score term, one number or one
        per task
    :param control_variate: direction v of the linear control variate, (S, A); see
        `score_surrogate`
    :param max_batches: refuse to enumerate more than this
    """
    theta = _checked_logits(logits)
    tasks = _checked_tasks(mdps, theta)
    _check_numbers(n_episodes, n_inner_steps, inner_lr, baseline)
    n_batches = _check_size(tasks, n_episodes, n_inner_steps, max_batches)
    loss = _meta_loss(estimator, control_variate, theta, baseline)
    settings = AdaptationSettings(n_episodes, n_inner_steps, float(inner_lr), reduction, baseline)
    scores = _per_task(score_baseline, len(tasks))
    with th.enable_grad():
        results = [
            _moments(TabularAdaptation(mdp, theta, settings), loss, float(score))
            for mdp, score in zip(tasks, scores, strict=True)
        ]
    mean = _Moments._make(th.stack(field).mean(0) for field in zip(*results, strict=True))
    return GradientCertificate(
        objective=float(mean.objective),
        exact=mean.exact.numpy(),
        exact_infinite=mean.exact_infinite.numpy(),
        expected=mean.expected.numpy(),
        # Tasks are sampled independently of each other.
        covariance=mean.covariance.numpy() / len(tasks),
        n_batches=n_batches,
    )


class _Moments(NamedTuple):
    """Of one task: J_N (), three gradients (S, A), covariance (S A, S A)."""

    objective: Tensor
    exact: Tensor
    exact_infinite: Tensor
    expected: Tensor
    covariance: Tensor


def _moments(adaptation: TabularAdaptation, meta_loss: MetaLoss, score_baseline: float) -> _Moments:
    logits = adaptation.logits
    objective, second = logits.new_zeros(()), logits.new_zeros(logits.numel(), logits.numel())
    exact, expected = th.zeros_like(logits), th.zeros_like(logits)
    for chains in adaptation.all_chains():
        value, gradient, probabilities = adaptation.expected_value(chains)
        estimates = adaptation.estimates(chains, meta_loss, score_baseline)
        objective, exact = objective + value, exact + gradient
        expected = expected + th.einsum("c,csa->sa", probabilities, estimates)
        rows = estimates.flatten(1)
        second = second + th.einsum("c,ci,cj->ij", probabilities, rows, rows)
    mean = expected.flatten()
    covariance = second - th.outer(mean, mean)
    return _Moments(objective, exact, adaptation.exact_infinite(), expected, covariance)


def _meta_loss(
    estimator: str | EstimatesMetaGradient,
    control_variate: ArrayLike | None,
    logits: Tensor,
    baseline: AdvantageBaseline,
) -> MetaLoss:
    if isinstance(estimator, str):
        if estimator not in ESTIMATORS:
            raise ValueError(
                f"estimator={estimator!r} is not known: choose from {', '.join(ESTIMATORS)}, or "
                "give an object with a method meta_loss"
            )
        estimator = ESTIMATORS[estimator]
    if isinstance(estimator, type) or not callable(getattr(estimator, "meta_loss", None)):
        raise TypeError(
            f"estimator={estimator!r} is no object with a method meta_loss: give a name, a "
            "MetaEstimator, or an agent that differentiates through adaptation"
        )
    table = getattr(estimator, "estimator", estimator)  # an agent's choice
    is_dice = isinstance(table, MetaEstimator) and table.inner_loss == "dice"
    if is_dice and baseline != "none":
        raise ValueError(
            f"baseline={baseline!r} is not seen by inner_loss='dice', whose inner step would then "
            "be another one: use MetaEstimator('dice_baseline') or 'loaded_dice'"
        )
    if control_variate is None:
        return estimator.meta_loss
    if not isinstance(estimator, MetaEstimator):
        raise TypeError(
            f"control_variate is given with estimator={estimator!r}, which has its own: it goes "
            "with a name or a MetaEstimator"
        )
    direction = th.tensor(np.asarray(control_variate, dtype=np.float64))
    if direction.shape != logits.shape:
        raise ValueError(
            f"control_variate has shape {tuple(direction.shape)}, but must have that of logits, "
            f"{tuple(logits.shape)}"
        )
    return partial(estimator.meta_loss, control_variate={"logits": direction})


def _checked_logits(logits: Any) -> Tensor:
    if isinstance(logits, Tensor):
        logits = logits.detach().cpu()
    try:
        theta = th.tensor(np.asarray(logits, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(f"logits must be numbers of shape (S, A): {error}") from error
    if not th.isfinite(theta).all():
        raise ValueError("logits must be finite: an action that is never played is not sampled")
    return theta


def _checked_tasks(mdps: Sequence[FiniteMDP], logits: Tensor) -> list[FiniteMDP]:
    if isinstance(mdps, FiniteMDP):
        raise TypeError("mdps is one FiniteMDP: give a sequence of them, such as [mdp]")
    tasks = list(mdps)
    if not tasks:
        raise ValueError("mdps is empty: give at least one FiniteMDP")
    for mdp in tasks:
        if not isinstance(mdp, FiniteMDP):
            raise TypeError(f"mdps holds a {type(mdp).__name__}: give FiniteMDPs only")
        if mdp.batch_shape:
            raise ValueError(
                f"mdps holds a batch of shape {mdp.batch_shape}: give its single tasks, "
                "[batch[i] for i in range(n)]"
            )
        if mdp.horizon is None:
            raise ValueError(
                "mdps holds one with horizon=None: only episodes of finite length can be "
                "enumerated; give FiniteMDP(..., horizon=H)"
            )
        if tuple(logits.shape) != (mdp.n_states, mdp.n_actions):
            raise ValueError(
                f"logits has shape {tuple(logits.shape)}, but an MDP has "
                f"{mdp.n_states} states and {mdp.n_actions} actions: give (S, A)"
            )
    return tasks


def _check_numbers(n_episodes: Any, n_inner_steps: Any, inner_lr: Any, baseline: Any) -> None:
    for name, number in (("n_episodes", n_episodes), ("n_inner_steps", n_inner_steps)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{name}={number!r} must be an integer of at least 1")
    is_number = isinstance(inner_lr, int | float | np.integer | np.floating)
    if not is_number or isinstance(inner_lr, bool) or not 0 <= inner_lr < math.inf:
        raise ValueError(f"inner_lr={inner_lr!r} must be a finite number of at least 0")
    if baseline not in get_args(AdvantageBaseline):
        raise ValueError(
            f"baseline={baseline!r} is not known: choose from "
            f"{', '.join(get_args(AdvantageBaseline))}"
        )


def _per_task(score_baseline: float | Sequence[float], n_tasks: int) -> FloatArray:
    numbers = np.asarray(score_baseline, dtype=np.float64)
    if numbers.shape not in ((), (n_tasks,)) or not np.isfinite(numbers).all():
        raise ValueError(
            f"score_baseline={score_baseline!r} must be one finite number, or {n_tasks} of them, "
            "one per task"
        )
    return np.broadcast_to(numbers, (n_tasks,))


def _check_size(
    tasks: Sequence[FiniteMDP], n_episodes: int, n_inner_steps: int, max_batches: int
) -> int:
    kinds = [n_trajectories(mdp) for mdp in tasks]
    n_batches = sum(n_multisets(count, n_episodes) ** n_inner_steps for count in kinds)
    if n_batches > max_batches:
        raise ValueError(
            f"n_episodes={n_episodes} and n_inner_steps={n_inner_steps} make {_count(n_batches)} "
            f"inner batches out of up to {_count(max(kinds))} trajectories, more than "
            f"max_batches={max_batches:,}: reduce n_episodes, n_inner_steps, the horizon, or the "
            "numbers of tasks, states or actions, or raise max_batches"
        )
    return n_batches


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**12 else f"10^{int(math.log10(number))}"


def _ratio(norm: Any, reference: FloatArray) -> float:
    scale = float(np.linalg.norm(reference))
    if scale == 0.0:
        return 0.0 if norm == 0.0 else float("inf")
    return float(norm) / scale


def _text(gradient: FloatArray) -> str:
    return np.array2string(gradient, precision=6, suppress_small=True).replace("\n", "")
