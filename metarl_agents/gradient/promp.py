"""Proximal meta-policy search.

Rothfuss, Lee, Clavera, Asfour, Abbeel (2019), "ProMP: proximal meta-policy search",
https://arxiv.org/abs/1810.06784.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl_agents.common.argument_checks import check_flag, check_number
from metarl_agents.common.inner_loop import InnerSteps, inner_steps
from metarl_agents.common.losses import Reduction, mean_kl
from metarl_agents.common.meta_gradient import task_map
from metarl_agents.common.meta_parameters import Groups
from metarl_agents.common.policies import Params
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.step_sizes import policy_part, step_sizes
from metarl_agents.gradient.adaptive_kl import followed_coefficients
from metarl_agents.gradient.estimators import ESTIMATORS, MetaEstimator
from metarl_agents.gradient.gradient_meta import GradientMeta
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch
from metarl_agents.gradient.outer_losses import outer_loss


class ProMP(GradientMeta):
    """Low-variance curvature inside, several clipped epochs outside, sampling policies kept close.

    Rothfuss et al. (2019), algorithm 1. The inner loss - mean_t A_t pi / pi_old has, unlike MAML's,
    derivatives that credit the sampling before adaptation with the alignment of its gradient with
    the gradient after it (their equation 10, low-variance curvature: without the cross terms of
    DiCE). Several Adam steps are taken on

        mean - min(r A', clip(r, 1 - eps, 1 + eps) A') + eta mean_k KL(pi_k,old || pi_k)

    with r = pi_theta'(theta) / pi_theta'_old after adaptation and the divergence at the policies
    that sampled the inner batches. At each epoch the inner steps are taken again on the stored
    episodes, with the denominators pi_old that sampled them. Other arguments:
    :class:`.GradientMeta`.

    :param n_epochs: Adam steps per meta-iteration (5: the paper); 1 is a plain policy gradient with
        low-variance curvature
    :param clip_range: epsilon (0.3: the paper)
    :param kl_coef: eta (5e-4: the paper)
    :param adaptive_kl: whether eta follows the divergence, by factors of two, one eta per inner
        step
    :param kl_target: the divergence that it then holds (0.01: the authors' code)
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        n_epochs: int = 5,
        clip_range: float = 0.3,
        kl_coef: float = 5e-4,
        adaptive_kl: bool = False,
        kl_target: float = 0.01,
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
        self.n_epochs, self.clip_range, self.kl_coef = n_epochs, clip_range, kl_coef
        self.adaptive_kl, self.kl_target = adaptive_kl, kl_target
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
        check_number("n_epochs", self.n_epochs, at_least=1, whole=True)
        check_number("clip_range", self.clip_range, above=0.0)
        check_number("kl_coef", self.kl_coef, at_least=0.0)
        check_flag("adaptive_kl", self.adaptive_kl)
        check_number("kl_target", self.kl_target, above=0.0)

    @property
    def estimator(self) -> MetaEstimator:
        """Low-variance curvature."""
        return ESTIMATORS["lvc"]

    def _initial_extras(self) -> Groups:
        coefficients = th.full((self.n_inner_steps,), self.kl_coef, device=self.device)
        return {"kl": {"coefficients": coefficients}}

    def _update(self, data: MetaEpisodes) -> dict[str, float]:
        batch = self._task_batch(data)
        logs = self._descend(self._task_loss, batch, self.n_epochs)
        kl = self._divergences(batch)
        if self.adaptive_kl and logs:
            coefficients = followed_coefficients(self._coefficients(), kl, self.kl_target)
            self._groups["kl"] = {"coefficients": coefficients}
        return {**logs, "kl": float(kl.mean()), "kl_coef": float(self._coefficients().mean())}

    def _coefficients(self) -> Tensor:
        """eta of every inner step, (K,): what was learned, or else the argument as it is now."""
        learned = self._groups["kl"]["coefficients"]
        return learned if self.adaptive_kl else th.full_like(learned, self.kl_coef)

    def _task_loss(self, params: Params, task: TaskBatch) -> Tensor:
        steps = self._steps_again(params, task.inner, create_graph=True)
        surrogate = outer_loss(
            "clip",
            self.network,
            task.outer,
            reduction=self.loss_reduction,
            clip_range=self.clip_range,
        )(steps.params[-1])
        weights = self._coefficients().to(surrogate.dtype)
        return surrogate + (weights * self._inner_kl(steps.dist_params, task)).mean(-1)

    def _steps_again(
        self, params: Params, inner: Sequence[WeightedEpisodes], *, create_graph: bool = False
    ) -> InnerSteps:
        """Inner steps on stored episodes, whose denominators are those that sampled them."""
        return inner_steps(
            self.network,
            policy_part(params),
            inner,
            loss="ratio",
            reduction=self.loss_reduction,
            inner_lr=step_sizes(params, self.inner_lr),
            create_graph=create_graph,
        )

    def _inner_kl(self, dist_params: Sequence[Tensor], task: TaskBatch) -> Tensor:
        """Divergences (..., K) from the policies that sampled the inner batches."""
        divergences = [
            mean_kl(
                self.network.distribution,
                episodes.dist_params,
                numbers,
                episodes.mask,
                episodes.action_masks,
            )
            for numbers, episodes in zip(dist_params, task.inner, strict=True)
        ]
        return th.stack(divergences, dim=-1)

    def _divergences(self, batch: TaskBatch) -> Tensor:
        """Mean divergences (K,) from the sampling policies, after the update."""
        params = self._learned.outer()

        def of_task(task: TaskBatch) -> Tensor:
            *before, last = task.inner
            steps = self._steps_again(params, before)
            at_last = self.network.dist_params(steps.params[-1], last.observations)
            return self._inner_kl([*steps.dist_params, at_last], task)

        with th.no_grad():
            return th.stack(task_map(of_task, batch, n_workers=self.n_workers)).mean(0)
