"""Thompson sampling under a prior that is known beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th

from metarl_agents.bayesian.argument_checks import checked_covariance, checked_mean
from metarl_agents.bayesian.linear_gaussian import GaussianPrior, square_root
from metarl_agents.bayesian.stage_features import FeatureFunction
from metarl_agents.bayesian.thompson_meta import ThompsonMeta


class KnownPriorMeta(ThompsonMeta):
    """Begin every task with the prior that the constructor is given.

    :param prior_mean: mean of the task parameters, (H, d), or a number for all
    :param prior_covariance: their covariance, (H, d, d), or a variance for all

    Other arguments: :class:`ThompsonMeta`.
    """

    def __init__(
        self,
        policy: str,
        env: Any,
        *,
        prior_mean: np.ndarray | float,
        prior_covariance: np.ndarray | float,
        n_episodes_per_task: int = 50,
        n_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        n_replicates: int = 1,
        sigma2: float | Sequence[float] | str = 0.25,
        initial_sigma2: float = 1.0,
        covariance: str = "block",
        clip_values: bool = False,
        features: FeatureFunction | None = None,
        n_stages: int | None = None,
        track_regret: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        self.prior_mean, self.prior_covariance = prior_mean, prior_covariance
        super().__init__(
            policy,
            env,
            n_episodes_per_task=n_episodes_per_task,
            n_envs=n_envs,
            env_kwargs=env_kwargs,
            n_replicates=n_replicates,
            sigma2=sigma2,
            initial_sigma2=initial_sigma2,
            covariance=covariance,
            clip_values=clip_values,
            features=features,
            n_stages=n_stages,
            track_regret=track_regret,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _check_shapes(self) -> None:
        super()._check_shapes()
        self._starting_prior()

    @property
    def is_exploring(self) -> bool:
        """Never: every task begins with the given prior."""
        return False

    def _starting_prior(self) -> GaussianPrior:
        shape = self.stage_features.shape
        mean = checked_mean("prior_mean", self.prior_mean, shape)
        covariance = checked_covariance("prior_covariance", self.prior_covariance, shape)
        factor = square_root(th.as_tensor(covariance, device=self.device))
        lead = (self.n_replicates, -1, -1, -1)
        return GaussianPrior(
            th.as_tensor(mean, device=self.device).expand(*lead), factor.expand(*lead, -1)
        )
