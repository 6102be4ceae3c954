"""Agents that choose how to step: a trust region, clipped epochs, or one plain gradient step."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl_agents.common.argument_checks import check_choice, check_number
from metarl_agents.common.fisher import meta_fisher_product
from metarl_agents.common.losses import Reduction, mean_kl
from metarl_agents.common.meta_gradient import task_map
from metarl_agents.common.policies import Params
from metarl_agents.common.solvers import TrustRegionStep, trust_region_step
from metarl_agents.common.step_sizes import policy_part
from metarl_agents.gradient.estimators import score_surrogate
from metarl_agents.gradient.gradient_meta import GradientMeta
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch
from metarl_agents.gradient.outer_losses import outer_loss

OUTER_STEPS = ("trpo", "ppo", "vpg")
LOSS_OF_STEP = {"trpo": "ratio", "ppo": "clip", "vpg": "loglik"}


class SurrogateMeta(GradientMeta):
    """A meta-gradient through inner steps, followed by one of three outer steps.

    Arguments not listed here: :class:`.GradientMeta`.

    :param outer: "trpo", a natural-gradient step within a trust region around the adapted policies
        (Schulman et al. 2015); "ppo", clipped epochs of Adam (Schulman et al. 2017); "vpg", one
        step of Adam
    :param max_kl: delta, the mean divergence of adapted policies that a "trpo" step may cause
        (0.01: Finn, Abbeel, Levine 2017, their code)
    :param n_cg_iterations: of conjugate gradients (10: the same)
    :param cg_damping: added to the curvature (1e-5: the same)
    :param max_backtracks: how often a "trpo" step is shortened before it is given up (15: the same)
    :param backtrack_ratio: factor that shortens it (0.8: the same)
    :param hvp_fraction: share of the episodes that curvature products look at; adaptation, and
        whether a step is taken, are always judged on all of them
    :param n_epochs: steps of "ppo" on the same episodes (5: Rothfuss et al. 2019)
    :param clip_range: epsilon of "ppo" (0.3: the same)
    """

    _outer_steps: ClassVar[tuple[str, ...]] = OUTER_STEPS

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        outer: str = "trpo",
        max_kl: float = 0.01,
        n_cg_iterations: int = 10,
        cg_damping: float = 1e-5,
        max_backtracks: int = 15,
        backtrack_ratio: float = 0.8,
        hvp_fraction: float = 1.0,
        n_epochs: int = 5,
        clip_range: float = 0.3,
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
        self.outer, self.max_kl, self.n_cg_iterations = outer, max_kl, n_cg_iterations
        self.cg_damping, self.max_backtracks = cg_damping, max_backtracks
        self.backtrack_ratio, self.hvp_fraction = backtrack_ratio, hvp_fraction
        self.n_epochs, self.clip_range = n_epochs, clip_range
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
        check_choice("outer", self.outer, self._outer_steps)
        check_number("max_kl", self.max_kl, above=0.0)
        check_number("n_cg_iterations", self.n_cg_iterations, at_least=1, whole=True)
        check_number("cg_damping", self.cg_damping, at_least=0.0)
        check_number("max_backtracks", self.max_backtracks, at_least=0, whole=True)
        check_number("backtrack_ratio", self.backtrack_ratio, above=0.0, at_most=1.0)
        check_number("hvp_fraction", self.hvp_fraction, above=0.0, at_most=1.0)
        check_number("n_epochs", self.n_epochs, at_least=1, whole=True)
        check_number("clip_range", self.clip_range, above=0.0)

    def _update(self, data: MetaEpisodes) -> dict[str, float]:
        batch = self._task_batch(data)
        if self.outer == "trpo":
            return self._trust_region_update(batch, np.random.default_rng(data.seed))
        n_epochs = self.n_epochs if self.outer == "ppo" else 1
        return self._descend(self._task_loss, batch, n_epochs)

    def _task_loss(self, params: Params, task: TaskBatch) -> Tensor:
        loss = outer_loss(
            LOSS_OF_STEP[self.outer],
            self.network,
            task.outer,
            reduction=self.loss_reduction,
            clip_range=self.clip_range,
        )
        return self._adaptation_loss(params, task, loss)

    def _trust_region_update(self, batch: TaskBatch, rng: np.random.Generator) -> dict[str, float]:
        found = self._meta_gradient(self._task_loss, batch)
        if found is None:
            return {}
        step = self._trust_region_step(policy_part(found.gradient), batch, rng)
        learned = [name for name in found.gradient if name not in step.params]
        self._learned.set_outer({**self._learned.outer(), **step.params})
        if learned:
            # The trust region is one of policies; step sizes have no place in it.
            self._learned.descend(found.gradient, self._learning_rate(), only=learned)
        return {
            "loss": float(found.losses.mean()),
            "grad_norm": found.norm,
            "loss_after": step.loss,
            "kl": step.kl,
            "step_fraction": step.step_fraction,
        }

    def _trust_region_step(
        self, gradient: Params, batch: TaskBatch, rng: np.random.Generator
    ) -> TrustRegionStep:
        theta = self._theta()
        product = meta_fisher_product(
            self.network,
            theta,
            batch.inner,
            batch.outer,
            loss=self.estimator.inner_loss,
            reduction=self.loss_reduction,
            inner_lr=self.learned_step_sizes(),
            subsample=self.hvp_fraction,
            rng=rng,
            n_workers=self.n_workers,
        )
        return trust_region_step(
            theta,
            gradient,
            product,
            lambda params: self._surrogate_and_kl(params, batch),
            max_kl=self.max_kl,
            n_cg_iterations=self.n_cg_iterations,
            damping=self.cg_damping,
            max_backtracks=self.max_backtracks,
            backtrack_ratio=self.backtrack_ratio,
        )

    def _surrogate_and_kl(self, theta: Params, batch: TaskBatch) -> tuple[Tensor, Tensor]:
        """Means over all tasks and states: the surrogate that is improved, and the divergence."""
        inner_lr, estimator = self.learned_step_sizes(), self.estimator

        def of_task(task: TaskBatch) -> Tensor:
            chain = self._chain(theta, task.inner, inner_lr=inner_lr)
            outer = task.outer
            loss = outer_loss("ratio", self.network, outer, reduction=self.loss_reduction)(
                chain[-1]
            )
            if estimator.score_term != "none":
                loss = loss - estimator.weight_of_score(task.inner) * score_surrogate(
                    self.network,
                    chain[:-1],
                    task.inner,
                    task.coefficients,
                    inner_lr=inner_lr,
                    reduction=self.loss_reduction,
                )
            now = self.network.dist_params(chain[-1], outer.observations)
            kl = mean_kl(
                self.network.distribution, outer.dist_params, now, outer.mask, outer.action_masks
            )
            return th.stack([loss, kl])

        with th.no_grad():
            loss, kl = th.stack(task_map(of_task, batch, n_workers=self.n_workers)).mean(0)
        return loss, kl
