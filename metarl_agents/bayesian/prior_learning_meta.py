"""Thompson sampling whose prior is learned from the tasks it has finished."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.bayesian.argument_checks import (
    check_positive,
    checked_covariance,
    checked_prior,
)
from metarl_agents.bayesian.beliefs import GateSwitch, TaskBelief
from metarl_agents.bayesian.hierarchical import (
    CovarianceEstimate,
    best_mean,
    expectation_maximisation,
    gls_information,
    gls_mean,
    isotropic_variance,
    unseen_directions,
)
from metarl_agents.bayesian.least_squares import (
    estimation_noise,
    least_squares,
    ols_covariance,
    ols_mean,
)
from metarl_agents.bayesian.linear_gaussian import GaussianPrior, Transitions, square_root
from metarl_agents.bayesian.logged_episodes import Logs, logged_transitions
from metarl_agents.bayesian.rlsvi import target_moments
from metarl_agents.bayesian.stage_features import FeatureFunction
from metarl_agents.bayesian.task_records import TaskRecords
from metarl_agents.bayesian.thompson_meta import ThompsonMeta
from metarl_agents.bayesian.widening import bootstrap_width, project_psd, schedule_width
from metarl_agents.common.argument_checks import check_choice
from metarl_agents.common.meta_algorithm.seeds import derived_generator

ESTIMATORS = ("ols", "gls", "em")
NOISE_CORRECTIONS = ("none", "homo", "sandwich", "homo+prop", "sandwich+prop")
WIDENINGS = ("none", "schedule", "bootstrap", "mean_uncertainty")
N_RESAMPLES = 200


class PriorLearningMeta(ThompsonMeta):
    """Learn the prior of the next task from the finished ones.

    The first ``n_exploration_tasks`` tasks are played under the prior-independent prior; from then
    on a task begins with the learned one. Arguments not listed here are those of
    :class:`ThompsonMeta`.

    :param prior_covariance: the known covariance of task parameters: (H, d, d) or a variance for
        all; None where it is not known
    :param estimator: "ols" averages gated least-squares estimates; "gls" weighs every direction of
        every task by its information and needs no gate; "em" maximises the marginal likelihood
    :param n_exploration_tasks: K0; tasks that are played at once count together
    :param warm_start: "tasks" explores in the first K0 tasks; "episodes" moreover begins every
        later task with the prior-independent prior, block by block until its own data pass the gate
    :param update: "continual" learns from all finished tasks, "freeze" from the first K0 only
    :param gate_threshold: lambda_e, the smallest eigenvalue of a Gram matrix that passes the gate
    :param hyper_precision: of the isotropic prior on the prior mean in "gls" and "em"; None takes
        ``prior_precision``
    :param noise_correction: how the noise of the estimates is taken off their covariance ("ols",
        and "gls" with a learned covariance): "none", "homo", "sandwich", either with "+prop"
    :param widening: what is added to the covariance: "none", "schedule" (see
        :func:`.schedule_width`), "bootstrap" (see :func:`.bootstrap_width`) or "mean_uncertainty"
        (the posterior covariance of the mean; "gls" and "em"); None stands for the algorithm's own
    :param widening_scale: c_w of the schedule
    :param n_em_iterations: of the isotropic fit, and of "em" which starts from it
    :param shrinkage: of the covariance to an isotropic one, in tasks ("em")
    """

    _learns_covariance = False
    _default_estimator = "gls"
    _default_widening = "none"

    def __init__(
        self,
        policy: str,
        env: Any,
        *,
        prior_covariance: np.ndarray | float | None = None,
        estimator: str | None = None,
        n_exploration_tasks: int = 5,
        warm_start: str = "tasks",
        update: str = "continual",
        gate_threshold: float = 1.0,
        hyper_precision: float | None = None,
        noise_correction: str = "sandwich+prop",
        widening: str | None = None,
        widening_scale: float = 0.05,
        n_em_iterations: int = 8,
        shrinkage: float = 5.0,
        n_episodes_per_task: int = 50,
        n_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        n_replicates: int = 1,
        sigma2: float | Sequence[float] | str = 0.25,
        initial_sigma2: float = 1.0,
        prior_precision: float = 1.0,
        covariance: str = "block",
        clip_values: bool = False,
        n_uniform_episodes: int = 0,
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
        self.prior_covariance, self.estimator = prior_covariance, estimator
        self.n_exploration_tasks = n_exploration_tasks
        self.warm_start, self.update = warm_start, update
        self.gate_threshold, self.hyper_precision = gate_threshold, hyper_precision
        self.noise_correction, self.widening = noise_correction, widening
        self.widening_scale, self.n_em_iterations = widening_scale, n_em_iterations
        self.shrinkage = shrinkage
        self._records = TaskRecords(n_replicates)
        super().__init__(
            policy,
            env,
            n_episodes_per_task=n_episodes_per_task,
            n_envs=n_envs,
            env_kwargs=env_kwargs,
            n_replicates=n_replicates,
            sigma2=sigma2,
            initial_sigma2=initial_sigma2,
            prior_precision=prior_precision,
            covariance=covariance,
            clip_values=clip_values,
            n_uniform_episodes=n_uniform_episodes,
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

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("estimator", self._estimator, ESTIMATORS)
        check_choice("noise_correction", self.noise_correction, NOISE_CORRECTIONS)
        check_choice("widening", self._widening, WIDENINGS)
        check_choice("warm_start", self.warm_start, ("tasks", "episodes"))
        check_choice("update", self.update, ("continual", "freeze"))
        check_positive("n_exploration_tasks", self.n_exploration_tasks, whole=True)
        check_positive("n_em_iterations", self.n_em_iterations, whole=True)
        check_positive("gate_threshold", self.gate_threshold)
        check_positive("widening_scale", self.widening_scale, zero=True)
        check_positive("shrinkage", self.shrinkage, zero=True)
        if self.hyper_precision is not None:
            check_positive("hyper_precision", self.hyper_precision)
        if self._widening == "mean_uncertainty" and self._estimator == "ols":
            raise ValueError(
                "widening='mean_uncertainty' needs estimator='gls' or 'em': a plain average of "
                "estimates has no posterior"
            )
        if not self._estimates_covariance and self._widening in ("schedule", "bootstrap"):
            raise ValueError(
                f"widening={self._widening!r} widens a learned covariance, and here it is known: "
                "pass widening='none', or use MTSRLPlus"
            )

    def _check_shapes(self) -> None:
        super()._check_shapes()
        if self.prior_covariance is not None:
            self._known_covariance()
        if self._records.names:
            self._check_record_shape(self._records)

    @property
    def _estimator(self) -> str:
        return self._default_estimator if self.estimator is None else self.estimator

    @property
    def _widening(self) -> str:
        return self._default_widening if self.widening is None else self.widening

    @property
    def _estimates_covariance(self) -> bool:
        return self._learns_covariance and self.prior_covariance is None

    @property
    def _hyper_precision(self) -> float:
        return self.prior_precision if self.hyper_precision is None else self.hyper_precision

    # The prior that the next task begins with.

    @property
    def is_exploring(self) -> bool:
        return self.n_tasks_seen < self.n_exploration_tasks

    def _starting_prior(self) -> GaussianPrior:
        if self.is_exploring:
            return self._independent_prior()
        return GaussianPrior(self._records["mean"], square_root(self._records["covariance"]))

    def _switch(self, replicates: Tensor) -> GateSwitch | None:
        if self.warm_start == "tasks" or self.is_exploring:
            return None
        independent = GaussianPrior(*(field[replicates] for field in self._independent_prior()))
        return GateSwitch(independent, self.gate_threshold, self._records["seen"][replicates])

    @property
    def _keeps_history(self) -> bool:
        return self._uses_estimates and self.noise_correction.startswith("sandwich")

    @property
    def _uses_estimates(self) -> bool:
        """Whether single least-squares estimates and their noise matter."""
        return self._estimator == "ols" or (self._estimator == "gls" and self._estimates_covariance)

    # Learning it.

    def _learn_prior(self, beliefs: Sequence[TaskBelief], *, logged: bool) -> dict[str, float]:
        if self.update == "freeze" and not self.is_exploring and not logged:
            return {}
        for belief in beliefs:
            self._record(belief)
        prior = getattr(self, f"_prior_by_{self._estimator}")()
        self._records["mean"], self._records["covariance"] = prior
        widths = th.diagonal(prior[1], dim1=-2, dim2=-1)
        return {"prior_variance": float(widths.mean()), **self._gate_report()}

    def fit_prior(self, episodes: Logs, *, n_passes: int = 2) -> Self:
        """Learn the prior from logged interactions, as if their tasks had just been finished.

        The logged tasks count as exploration tasks: an agent with enough of them meets its first
        new task with the learned prior.

        :param episodes: a CSV file (see :func:`.logged_episodes.read_episodes`), one batch per
            task, or one batch with a task axis
        :param n_passes: how often the logs are read; later passes value successors under the prior
            that the earlier ones learned
        :raises TypeError: if ``episodes`` is something else
        :raises ValueError: if the logs hold no task, or do not fit the env; the agent then stays as
            it was
        """
        self._require_features()
        check_positive("n_passes", n_passes, whole=True)
        logged = logged_transitions(self.stage_features, episodes, self.device)
        before = self._learned_state()
        try:
            for _ in range(n_passes):
                beliefs = [self._logged_belief(transitions) for transitions in logged]
                self._restore_learned_state(before)
                self._learn_from(beliefs, logged=True)
        except BaseException:
            self._restore_learned_state(before)
            raise
        return self

    def _logged_belief(self, transitions: Transitions) -> TaskBelief:
        """Return what a logged task teaches, repeated for every replicate."""
        lead = (self.n_replicates, *[-1] * 8)
        repeated = Transitions(*(field.expand(*lead[: field.ndim]) for field in transitions))
        belief = self._fresh_belief(range(self.n_replicates))
        return belief.updated(repeated, keep=self._keeps_history)

    def _record(self, belief: TaskBelief) -> None:
        """File what the estimators need of finished tasks, task axis after the replicates."""
        statistics, variance = belief.statistics, belief.sigma2
        mean = self.value_model.draw(belief, None)
        moments = target_moments(statistics, mean, bootstrap=self._bootstrap, clip=self.clip_values)
        self._records.add("seen", statistics.gram)
        if self._estimator == "gls" and self.prior_covariance is not None:
            covariance = self._known_covariance()
            information, evidence = gls_information(statistics.gram, moments, covariance, variance)
            self._records.add("information", information)
            self._records.add("evidence", evidence)
            return
        self._records.append("grams", statistics.gram)
        self._records.append("moments", moments)
        if self._uses_estimates:
            self._record_estimate(belief)

    def _record_estimate(self, belief: TaskBelief) -> None:
        fit = least_squares(belief.statistics, bootstrap=self._bootstrap)
        self._records.append("estimates", fit.parameters)
        if not self._estimates_covariance:
            return
        if self.noise_correction == "none":
            self._records.append("noise", th.zeros_like(fit.inverse_gram))
            return
        noise = estimation_noise(
            belief.statistics,
            belief.transitions() if belief.history else None,
            fit,
            sandwich=self.noise_correction.startswith("sandwich"),
            propagate=self.noise_correction.endswith("prop"),
            bootstrap=self._bootstrap,
        )
        self._records.append("noise", noise)

    def _prior_by_gls(self) -> tuple[Tensor, Tensor]:
        records = self._records
        if self.prior_covariance is not None:
            mean, uncertainty = gls_mean(
                records["information"], records["evidence"], self._hyper_precision
            )
            return mean, self._widened(self._known_covariance(), uncertainty)
        estimate = None
        if not self._estimates_covariance:
            covariance = self._isotropic_covariance()
        else:
            estimate = self._covariance_by_moments()
            covariance = self._where_gated(project_psd(estimate.covariance))
        mean, uncertainty = self._gls_mean(covariance)
        covariance = self._widened(covariance, uncertainty, estimate)
        return mean, covariance if estimate is None else self._where_gated(covariance)

    def _gls_mean(self, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the GLS mean of all finished tasks and its uncertainty."""
        return best_mean(
            self._records["grams"],
            self._records["moments"],
            covariance,
            self.target_variance().unsqueeze(1),
            self._hyper_precision,
        )

    def _isotropic_covariance(self) -> Tensor:
        """Return ``tau^2 I`` of the largest evidence per stage and block, (R, H, C, m, m)."""
        scale = isotropic_variance(
            self._records["grams"],
            self._records["moments"],
            1.0 / self.prior_precision,
            self.target_variance().unsqueeze(1),
            n_iterations=self.n_em_iterations,
            hyper_precision=self._hyper_precision,
        )
        eye = th.eye(self.stage_features.block_size, dtype=scale.dtype, device=scale.device)
        return scale[..., None, None] * eye

    def _prior_by_em(self) -> tuple[Tensor, Tensor]:
        if not self._estimates_covariance:
            # With the covariance fixed the maximum over the mean is the GLS mean.
            covariance = self._fixed_covariance()
            mean, uncertainty = self._gls_mean(covariance)
            return mean, self._widened(covariance, uncertainty)
        fit = expectation_maximisation(
            self._records["grams"],
            self._records["moments"],
            self._isotropic_covariance(),
            self.target_variance().unsqueeze(1),
            n_iterations=self.n_em_iterations,
            shrinkage=self.shrinkage,
            hyper_precision=self._hyper_precision,
        )
        return fit.mean, self._widened(fit.estimate.covariance, fit.mean_uncertainty, fit.estimate)

    def _prior_by_ols(self) -> tuple[Tensor, Tensor]:
        passed = self._records.passed(self.gate_threshold)
        mean = ols_mean(self._records["estimates"], passed)
        if self._estimates_covariance:
            estimate = self._covariance_by_moments()
            covariance = self._widened(project_psd(estimate.covariance), None, estimate)
        else:
            covariance = self._fixed_covariance()
        enough = (passed.sum(1) >= 2).unsqueeze(-1)
        return th.where(enough, mean, 0.0), self._where_gated(covariance)

    def _covariance_by_moments(self) -> CovarianceEstimate:
        records = self._records
        return ols_covariance(
            records["estimates"], records["noise"], self._records.passed(self.gate_threshold)
        )

    def _where_gated(self, covariance: Tensor) -> Tensor:
        """Return ``covariance`` where at least two tasks passed the gate, else the independent one.

        Directions that no task has seen keep the independent prior in any case: an average of
        estimates says nothing about them.
        """
        independent = self._independent_prior().covariance
        unseen = unseen_directions(self._records["seen"])
        completed = covariance + unseen @ (independent - covariance) @ unseen
        enough = (self._records.passed(self.gate_threshold).sum(1) >= 2)[..., None, None]
        return th.where(enough, completed, independent)

    def _gate_report(self) -> dict[str, float]:
        if not self._uses_estimates:
            return {}
        return {"gate_pass_rate": float(self._records.passed(self.gate_threshold).double().mean())}

    def _fixed_covariance(self) -> Tensor:
        """Return the covariance that is not learned, shape (R, H, C, m, m)."""
        if self.prior_covariance is None:
            return self._isotropic_covariance()
        known = self._known_covariance()
        return known.expand(self.n_replicates, *known.shape)

    def _known_covariance(self) -> Tensor:
        """Return the given covariance, shape (H, C, m, m)."""
        checked = checked_covariance(
            "prior_covariance", self.prior_covariance, self.stage_features.shape
        )
        return th.as_tensor(checked, device=self.device)

    def _widened(
        self,
        covariance: Tensor,
        uncertainty: Tensor | None,
        estimate: CovarianceEstimate | None = None,
    ) -> Tensor:
        covariance = covariance.expand(self.n_replicates, *covariance.shape[-4:])
        if self._widening == "mean_uncertainty":
            assert uncertainty is not None
            return covariance + uncertainty
        if self._widening == "none" or estimate is None:
            return covariance
        if self._widening == "schedule":
            width = schedule_width(estimate, self.widening_scale)
        else:
            width = bootstrap_width(estimate, self._resamples(estimate.weights.shape[1]))
        eye = th.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        return covariance + width[..., None, None] * eye

    def _resamples(self, n_tasks: int) -> Tensor:
        """Return multinomial counts for the bootstrap, the same whenever k tasks are finished."""
        rng = derived_generator(self.seed, n_tasks)
        counts = rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=N_RESAMPLES)
        return th.as_tensor(counts, dtype=th.float64, device=self.device)

    def _learned_state(self) -> dict[str, Tensor]:
        return {**super()._learned_state(), **self._records.state()}

    def _restore_learned_state(self, state: dict[str, Tensor]) -> None:
        records = TaskRecords.restored(self.n_replicates, state, self.device)
        if records.names and records.names != self._record_names:
            raise ValueError(
                f"what was learned holds {sorted(records.names)}, and estimator="
                f"{self._estimator!r} with these arguments needs {sorted(self._record_names)}: "
                "leave estimator and prior_covariance as they were saved"
            )
        if records.names:
            checked_prior(records["mean"], records["covariance"])
            if hasattr(self, "stage_features"):
                self._check_record_shape(records)
        super()._restore_learned_state(state)
        self._records = records

    @property
    def _record_names(self) -> set[str]:
        """What the estimator in use keeps of finished tasks."""
        names = {"seen", "mean", "covariance"}
        if self._estimator == "gls" and self.prior_covariance is not None:
            return names | {"information", "evidence"}
        names |= {"grams", "moments"}
        if self._uses_estimates:
            names |= {"estimates", "noise"} if self._estimates_covariance else {"estimates"}
        return names

    def _check_record_shape(self, records: TaskRecords) -> None:
        known = tuple(records["mean"].shape)
        expected = (self.n_replicates, *self.stage_features.shape)
        if known != expected:
            raise ValueError(
                f"the prior that was learned has shape (replicates, stages, blocks, features) = "
                f"{known}, the env needs {expected}: use an env with the same features, and pass "
                "env_kwargs= where the env had them"
            )
