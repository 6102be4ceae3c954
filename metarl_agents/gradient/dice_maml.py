"""MAML whose inner step has unbiased derivatives of every order.

Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing, Whiteson (2018), "DiCE: the infinitely
differentiable Monte Carlo estimator", https://arxiv.org/abs/1802.05098.
"""

from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl_agents.common.argument_checks import check_choice
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.losses import Reduction
from metarl_agents.common.policies import Params
from metarl_agents.common.returns import WeightedEpisodes, deviation
from metarl_agents.gradient.estimators import MetaEstimator
from metarl_agents.gradient.gradient_meta import GradientMeta
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch
from metarl_agents.gradient.outer_losses import outer_loss
from metarl_agents.gradient.score_terms import divided

INNER_LOSSES = ("dice", "dice_baseline", "loaded_dice")


class DiCEMAML(GradientMeta):
    """Aims at the return after a step on the expected gradient, with a bias that falls as 1/N.

    Foerster et al. (2018): the inner loss - sum_t box(sum_{k <= t} log pi_k) gamma^t r_t carries,
    through all its derivatives, how the policy influenced what was sampled. Loaded DiCE (Farquhar,
    Whiteson, Foerster 2019, https://arxiv.org/abs/1909.10549) uses advantages, with less variance.
    The outer step is one Adam step on - mean A' log pi. (With trust regions the ProMP authors
    report that DiCE did not learn.) Other arguments: :class:`.GradientMeta`.

    :param inner_loss: "loaded_dice", "dice", or "dice_baseline" with the baseline term of Foerster
        et al. (2018), equation 9
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        inner_loss: str = "loaded_dice",
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
        self.inner_loss = inner_loss
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
        check_choice("inner_loss", self.inner_loss, INNER_LOSSES)

    @property
    def estimator(self) -> MetaEstimator:
        """The chosen surrogate."""
        return MetaEstimator(self.inner_loss)

    def _inner_weights(self, episodes: EpisodeBatch) -> WeightedEpisodes:
        if self.inner_loss == "loaded_dice" or not self.normalize_advantage:
            return super()._inner_weights(episodes)
        # Rewards have no advantages' scale of their own; with theirs, inner_lr means the same.
        raw = self._weighted(episodes, normalize=None)
        return divided(raw, deviation(raw.advantages, raw.mask, axes=(-2, -1)))

    def _update(self, data: MetaEpisodes) -> dict[str, float]:
        return self._descend(self._task_loss, self._task_batch(data))

    def _task_loss(self, params: Params, task: TaskBatch) -> Tensor:
        loss = outer_loss("loglik", self.network, task.outer, reduction=self.loss_reduction)
        return self._adaptation_loss(params, task, loss)
