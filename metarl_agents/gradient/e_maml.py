"""MAML that credits exploration before adaptation with the return after it.

Stadie, Yang, Houthooft, Chen, Duan, Wu, Abbeel, Sutskever (2018), "Some considerations on learning
to explore via meta-reinforcement learning", https://arxiv.org/abs/1803.01118.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy

from metarl_agents.common.argument_checks import check_choice, check_number
from metarl_agents.common.losses import Reduction
from metarl_agents.gradient.estimators import MetaEstimator, ScoreTerm
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch
from metarl_agents.gradient.score_terms import (
    check_comparison,
    compared_with,
    unit_of_credit,
    with_one_scale,
)
from metarl_agents.gradient.surrogate_meta import SurrogateMeta


class EMAML(SurrogateMeta):
    """MAML plus a score term: sampling D gets credit for what the inner step on D led to.

    Stadie et al. (2018), section 3: besides the derivative through the inner step, the gradient has
    the term (1/N) sum_n R' grad log pi_theta(tau_n) over the N episodes before adaptation, where R'
    is the mean return after it. With the sum over n instead it would be the gradient of the return
    after a step on N sampled episodes: ``score_scale="sum"``, which is what :class:`.SGMRL` uses.

    Differs from the paper: R' is compared with the mean over the other tasks, which changes no
    expectation and much of the variance (``score_baseline="none"`` for the paper's), and advantages
    after adaptation are divided by one deviation for the whole meta-batch, R' too, so that both
    parts keep their proportion. The outer step may not be "ppo", since the score term holds only
    where the episodes came from. Other arguments: :class:`.SurrogateMeta`.

    :param score_scale: "mean", 1/N (the paper), or "sum"
    :param score_weight: factor on the score term (1: the paper); 0 is MAML
    :param score_baseline: "leave_one_out" or "none"
    """

    _outer_steps: ClassVar[tuple[str, ...]] = ("trpo", "vpg")

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        score_scale: str = "mean",
        score_weight: float = 1.0,
        score_baseline: str = "leave_one_out",
        outer: str = "trpo",
        max_kl: float = 0.01,
        n_cg_iterations: int = 10,
        cg_damping: float = 1e-5,
        max_backtracks: int = 15,
        backtrack_ratio: float = 0.8,
        hvp_fraction: float = 1.0,
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
        self.score_scale, self.score_weight = score_scale, score_weight
        self.score_baseline = score_baseline
        super().__init__(
            policy,
            env,
            outer=outer,
            max_kl=max_kl,
            n_cg_iterations=n_cg_iterations,
            cg_damping=cg_damping,
            max_backtracks=max_backtracks,
            backtrack_ratio=backtrack_ratio,
            hvp_fraction=hvp_fraction,
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
        check_choice("score_scale", self.score_scale, ("mean", "sum"))
        check_number("score_weight", self.score_weight, at_least=0.0)
        check_choice("score_baseline", self.score_baseline, ("leave_one_out", "none"))
        check_comparison(self.score_baseline, self.meta_batch_size)

    @property
    def estimator(self) -> MetaEstimator:
        """The plain surrogate and the score term."""
        term: ScoreTerm = "emaml" if self.score_scale == "mean" else "sgmrl"
        return MetaEstimator("loglik", term, self.score_weight)

    def _task_batch(self, data: MetaEpisodes) -> TaskBatch:
        outer, scale = with_one_scale(
            self._weighted(data.phases[-1], normalize=None), self.normalize_advantage
        )
        returns = outer.returns.mean(-1)
        unit = unit_of_credit(outer, scale, self.loss_reduction)
        credit = unit * (returns - compared_with(self.score_baseline, returns))
        return TaskBatch(self._inner_batches(data), outer, credit)
