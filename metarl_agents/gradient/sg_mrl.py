"""Stochastic-gradient meta-reinforcement learning.

Fallah, Georgiev, Mokhtari, Ozdaglar (2021), "On the convergence theory of debiased model-agnostic
meta-reinforcement learning", https://arxiv.org/abs/2002.05135.
"""

from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl_agents.common.argument_checks import check_choice, check_flag, check_number
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.losses import Reduction
from metarl_agents.common.meta_gradient import meta_gradient, task_map
from metarl_agents.common.meta_parameters import Groups
from metarl_agents.common.policies import Params
from metarl_agents.common.returns import WeightedEpisodes, deviation
from metarl_agents.common.step_sizes import policy_part, step_sizes
from metarl_agents.gradient.estimators import ESTIMATORS, MetaEstimator, OuterLoss
from metarl_agents.gradient.gradient_meta import GradientMeta
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch
from metarl_agents.gradient.outer_losses import outer_loss
from metarl_agents.gradient.score_terms import (
    COMPARISONS,
    check_comparison,
    compared_with,
    divided,
    moved_average,
    unit_of_credit,
    with_one_scale,
)


class SGMRL(GradientMeta):
    """MAML without its bias: the gradient of the return after steps on N sampled episodes.

    Fallah et al. (2021), equation 9. Sampling the K inner batches is credited with the return after
    adaptation by the score term G' sum_k sum_n grad log pi_theta_k(tau_k,n), a sum over episodes
    and steps, with gradients through theta_k(theta). One step of Adam per meta-iteration on the
    plain policy gradient, as in the authors' experiments.

    The score term has a variance that grows with N. Any baseline of G' that does not depend on the
    task's own inner episodes keeps it unbiased; ``control_variate`` removes most of the rest;
    ``score_weight`` below 1 trades bias for variance and often learns fastest.

    Differs from the authors' code: the coefficient is a return, not a mean of normalised advantages
    (which is zero), it has the scale of the outer loss (1 / episode length for means over steps,
    one deviation for the whole meta-batch), and all K inner batches are credited. Other arguments:
    :class:`.GradientMeta`.

    :param score_weight: factor on the score term (1: the paper); 0 is MAML with one Adam step
    :param score_baseline: what returns are compared with: "leave_one_out", the mean of the other
        tasks; "regression", what a regression on the other tasks' numbers predicts; "ema", a
        running mean of earlier meta-iterations; "none" (the paper)
    :param control_variate: whether the last meta-iteration's outer gradient foretells what part of
        G' is due to which inner episode. For that an inner episode's advantages may not depend on
        the others of its batch: "linear" and "time" baselines are fitted to the other episodes, and
        advantages are divided by the deviation of the meta-iteration before
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        score_weight: float = 1.0,
        score_baseline: str = "leave_one_out",
        control_variate: bool = False,
        meta_batch_size: int = 40,
        n_episodes_per_task: int = 20,
        n_inner_steps: int = 1,
        inner_lr: float = 0.1,
        learn_inner_lr: str | None = None,
        adapt_lr_decay: float = 1.0,
        learning_rate: float | str = 1e-3,
        max_grad_norm: float | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        normalize_advantage: bool = True,
        baseline: str = "linear",
        bootstrap_truncated: bool = False,
        loss_reduction: Reduction = "mean",
        policy_kwargs: Mapping[str, Any] | None = None,
        n_workers: int = 1,
        n_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        self.score_weight, self.score_baseline = score_weight, score_baseline
        self.control_variate = control_variate
        super().__init__(
            policy,
            env,
            meta_batch_size=meta_batch_size,
            n_episodes_per_task=n_episodes_per_task,
            n_inner_steps=n_inner_steps,
            inner_lr=inner_lr,
            learn_inner_lr=learn_inner_lr,
            adapt_lr_decay=adapt_lr_decay,
            learning_rate=learning_rate,
            max_grad_norm=max_grad_norm,
            gamma=gamma,
            gae_lambda=gae_lambda,
            normalize_advantage=normalize_advantage,
            baseline=baseline,
            bootstrap_truncated=bootstrap_truncated,
            loss_reduction=loss_reduction,
            policy_kwargs=policy_kwargs,
            n_workers=n_workers,
            n_envs=n_envs,
            env_kwargs=env_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_number("score_weight", self.score_weight, at_least=0.0)
        check_choice("score_baseline", self.score_baseline, COMPARISONS)
        check_comparison(self.score_baseline, self.meta_batch_size)
        check_flag("control_variate", self.control_variate)

    @property
    def _separates_episodes(self) -> bool:
        return self.control_variate

    @property
    def estimator(self) -> MetaEstimator:
        """The plain surrogate and the whole score term."""
        return MetaEstimator("loglik", "sgmrl", self.score_weight)

    def _initial_extras(self) -> Groups:
        zeros = {name: th.zeros_like(tensor) for name, tensor in self._theta().items()}
        return {
            "score": {"average": th.zeros(2, dtype=th.float64, device=self.device)},
            "control_variate": zeros if self.control_variate else {},
            "advantage": {"scale": th.zeros((), dtype=th.float64, device=self.device)},
        }

    def _inner_weights(self, episodes: EpisodeBatch) -> WeightedEpisodes:
        scale = self._groups["advantage"]["scale"]
        if not (self.control_variate and self.normalize_advantage and float(scale) > 0):
            return super()._inner_weights(episodes)
        return divided(self._weighted(episodes, normalize=None), scale.to(self._dtype))

    def _update(self, data: MetaEpisodes) -> dict[str, float]:
        raw = self._weighted(data.phases[-1], normalize=None)
        outer, scale = with_one_scale(raw, self.normalize_advantage)
        batch = TaskBatch(self._inner_batches(data), outer, th.zeros_like(outer.returns[:, 0]))
        unit = unit_of_credit(outer, scale, self.loss_reduction)
        compared = outer.returns.mean(-1) - self._foretold(batch) / unit
        value, is_known = self._groups["score"]["average"].tolist()
        average = value if is_known else None
        baseline = compared_with(
            self.score_baseline, compared, descriptors=data.descriptors, average=average
        )
        batch = batch._replace(coefficients=unit * (outer.returns.mean(-1) - baseline))
        direction = self._direction(batch)
        logs = self._descend(self._task_loss, batch)
        if not logs:
            return {}  # skipped: what was not finite is not to be remembered either
        average = moved_average(average, compared)
        self._groups["score"] = {
            "average": th.tensor([average, 1.0], dtype=th.float64, device=self.device)
        }
        if self.control_variate:
            self._groups["control_variate"] = direction
            before = self._weighted(data.phases[0], normalize=None)
            spread = deviation(before.advantages, before.mask)
            self._groups["advantage"] = {"scale": spread.to(th.float64)}
        return {**logs, "score_coefficient": float(batch.coefficients.abs().mean())}

    def _task_loss(self, params: Params, task: TaskBatch) -> Tensor:
        direction = self._groups["control_variate"]
        if not direction:
            return self._adaptation_loss(params, task, self._outer_loss(task))
        return self.estimator.meta_loss(
            self.network,
            policy_part(params),
            task.inner,
            self._outer_loss(task),
            task.coefficients,
            inner_lr=step_sizes(params, self.inner_lr),
            reduction=self.loss_reduction,
            control_variate=direction,
        )

    def _outer_loss(self, task: TaskBatch) -> OuterLoss:
        return outer_loss("loglik", self.network, task.outer, reduction=self.loss_reduction)

    def _foretold(self, batch: TaskBatch) -> Tensor:
        """<v, theta_K - theta> of every task, (M,): what the direction foretells of its credit."""
        direction, theta = self._groups["control_variate"], self._theta()
        if not direction:
            return th.zeros_like(batch.coefficients)
        inner_lr = self.learned_step_sizes()

        def of_task(task: TaskBatch) -> Tensor:
            after = self._chain(theta, task.inner, inner_lr=inner_lr)[-1]
            return th.stack(
                [(v * (after[name] - theta[name])).sum() for name, v in direction.items()]
            ).sum()

        return th.stack(task_map(of_task, batch, n_workers=self.n_workers))

    def _direction(self, batch: TaskBatch) -> Params:
        """The mean gradient of what is credited, with respect to the adapted parameters."""
        if not self.control_variate:
            return {}

        def first_order(params: Params, task: TaskBatch) -> Tensor:
            return ESTIMATORS["fomaml"].meta_loss(
                self.network,
                params,
                task.inner,
                self._outer_loss(task),
                task.coefficients,
                inner_lr=self.learned_step_sizes(),
                reduction=self.loss_reduction,
            )

        found = meta_gradient(first_order, self._theta(), batch, n_workers=self.n_workers)
        # The first-order meta-gradient is the gradient after adaptation, of a loss.
        return {name: -tensor for name, tensor in found.gradient.items()}
