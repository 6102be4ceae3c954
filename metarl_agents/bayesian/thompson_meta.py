"""What all Thompson-sampling meta-agents share: one task after another, one posterior draw per
episode."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback, PolicyPredictor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl_agents.bayesian.argument_checks import check_positive
from metarl_agents.bayesian.beliefs import GateSwitch, TaskBelief, ValueModel
from metarl_agents.bayesian.exact_regret import ExactRegret
from metarl_agents.bayesian.linear_gaussian import (
    GaussianPrior,
    empty_statistics,
    isotropic_prior,
)
from metarl_agents.bayesian.linear_q_policy import (
    LinearQPolicies,
    LinearQPolicy,
)
from metarl_agents.bayesian.stage_features import FeatureFunction, StageFeatures, features_of
from metarl_agents.bayesian.stage_transitions import stage_transitions
from metarl_agents.bayesian.target_variance import (
    estimated_variance,
    given_variance,
    residual_sums,
)
from metarl_agents.bayesian.task_play import FinishedTasks, play_tasks
from metarl_agents.common.argument_checks import check_choice
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.meta_algorithm.seeds import derived_generator
from metarl_agents.common.policies import TaskPolicies


class ThompsonMeta(MetaAlgorithm):
    """Thompson sampling with Gaussian priors over stage-wise linear Q-functions, task after task.

    Before every episode a Q-function is drawn from the posterior of the current task (Osband, Van
    Roy, Wen 2016) and the episode is played greedily for it. Subclasses differ in the prior that a
    task begins with: see :meth:`_learn_prior`.

    :param policy: "LinearQPolicy"
    :param env: id, env, vector env or VecEnv of a family with the members of ``LinearQEnv``
    :param n_episodes_per_task: N, episodes played in a task before the next task comes
    :param n_envs: tasks played at once under the current prior, where ``env`` is an id
    :param env_kwargs: arguments of the env, where ``env`` is an id
    :param n_replicates: independent repetitions of the whole experiment that run at once, each
        with its own tasks and its own prior; must divide the number of sub-environments
    :param sigma2: variance of the regression targets: a number, one number per stage, or
        "estimate" for the pooled residual variance of the finished tasks
    :param initial_sigma2: used in the first tasks, with ``sigma2="estimate"``
    :param prior_precision: lambda of the prior-independent prior ``N(0, I / lambda)``
    :param covariance: "block" keeps one covariance per block of features where the env declares
        blocks, "full" one per stage
    :param clip_values: clip sampled values to [0, stages left] (Agrawal, Chen, Jiang 2021)
    :param n_uniform_episodes: episodes that act uniformly, at the start of a task that begins with
        the prior-independent prior
    :param features: replaces the env's ``features``; not saved, hand it to ``load`` again
    :param n_stages: replaces the env's ``n_stages``
    :param track_regret: compute the exact regret of every episode's policy, where the env can
    """

    policy_aliases: ClassVar[dict[str, Any]] = {"LinearQPolicy": LinearQPolicy}
    _unsaved_arguments: ClassVar[frozenset[str]] = frozenset({"features"})
    _bootstrap = True  # False: regress on immediate rewards only

    def __init__(
        self,
        policy: str,
        env: Any,
        *,
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
        self.n_episodes_per_task, self.n_replicates = n_episodes_per_task, n_replicates
        self.sigma2, self.initial_sigma2 = sigma2, initial_sigma2
        self.prior_precision, self.covariance = prior_precision, covariance
        self.clip_values, self.n_uniform_episodes = clip_values, n_uniform_episodes
        self.features, self.n_stages = features, n_stages
        self.track_regret = track_regret
        self.n_tasks_seen = 0
        self._regrets: list[np.ndarray] = []
        self._check_arguments()
        super().__init__(
            policy,
            env,
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
        check_positive("n_episodes_per_task", self.n_episodes_per_task, whole=True)
        check_positive("n_replicates", self.n_replicates, whole=True)
        check_positive("prior_precision", self.prior_precision)
        check_positive("initial_sigma2", self.initial_sigma2)
        check_choice("covariance", self.covariance, ("block", "full"))
        if isinstance(self.sigma2, str):
            check_choice("sigma2", self.sigma2, ("estimate",))
        elif isinstance(self.sigma2, bool):
            raise TypeError(f"sigma2={self.sigma2!r} must be a number")
        check_positive("n_uniform_episodes", self.n_uniform_episodes, whole=True, zero=True)
        if self.n_uniform_episodes > self.n_episodes_per_task:
            raise ValueError(
                f"n_uniform_episodes={self.n_uniform_episodes} is more than "
                f"n_episodes_per_task={self.n_episodes_per_task}: leave episodes to learn in"
            )
        if self.n_stages is not None:
            check_positive("n_stages", self.n_stages, whole=True)
        if not isinstance(self.clip_values, bool):
            raise TypeError(f"clip_values={self.clip_values!r} must be True or False")

    def _setup_model(self) -> None:
        if self.env is None:
            return
        if self.env.num_envs % self.n_replicates:
            raise ValueError(
                f"n_replicates={self.n_replicates} must divide the number of sub-environments, "
                f"{self.env.num_envs}"
            )
        self._use_features(self.env)
        self.exact_regret = ExactRegret(self.env, self.stage_features.n_stages)

    def _prepare_for(self, venv: VecEnv) -> None:
        """Take the features from an env to adapt to, where the agent has no env of its own."""
        if not hasattr(self, "stage_features"):
            self._use_features(venv)

    def _use_features(self, venv: VecEnv) -> None:
        before = vars(self).get("stage_features")
        self.stage_features = self._make_features(venv)
        try:
            if not hasattr(self, "_residuals"):
                shape = (2, self.n_replicates, self.stage_features.n_stages)
                self._residuals = th.zeros(shape, dtype=th.float64, device=self.device)
            self._check_shapes()
        except ValueError:
            del self.stage_features
            if before is not None:
                self.stage_features = before
            raise

    def _check_shapes(self) -> None:
        """Raise ``ValueError`` where an argument does not fit the env's stages and features."""
        self._check_residual_shape(self._residuals)
        self.target_variance()

    def _check_residual_shape(self, residuals: Tensor) -> None:
        if residuals.shape[1] != self.n_replicates:
            raise ValueError(
                f"n_replicates={self.n_replicates}, but the state is of {residuals.shape[1]} "
                "replicates: leave n_replicates as it was saved"
            )
        if hasattr(self, "stage_features") and residuals.shape[2] != self.stage_features.n_stages:
            raise ValueError(
                f"the agent learned in an env with {residuals.shape[2]} stages, this one has "
                f"{self.stage_features.n_stages}: use an env of the same family and arguments"
            )

    def _make_features(self, venv: VecEnv) -> StageFeatures:
        return features_of(venv, self.features, n_stages=self.n_stages, covariance=self.covariance)

    @property
    def _n_concurrent(self) -> int:
        """Tasks of one replicate that are played at once."""
        assert self.env is not None
        return self.env.num_envs // self.n_replicates

    # Priors: one leading axis for replicates, (R, H, C, m).

    def _independent_prior(self) -> GaussianPrior:
        shape = (self.n_replicates, *self.stage_features.shape)
        return isotropic_prior(shape, self.prior_precision, self.device)

    def _starting_prior(self) -> GaussianPrior:
        """Return the prior that the next task begins with, leading axis R."""
        return self._independent_prior()

    def _switch(self, replicates: Tensor) -> GateSwitch | None:
        """Return how a task leaves the independent prior while it runs; None: it begins with its
        prior."""
        return None

    @property
    def is_exploring(self) -> bool:
        """Whether the next task begins with the prior-independent prior."""
        return True

    @property
    def _keeps_history(self) -> bool:
        """Whether the prior estimator needs single transitions, not only sums."""
        return False

    def _learn_prior(self, beliefs: Sequence[TaskBelief], *, logged: bool) -> dict[str, float]:
        """Learn from finished tasks; return what to log.

        :param beliefs: each with leading axis R B, replicates outermost
        :param logged: whether they come from a log
        """
        return {}

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (H, d) and covariance (H, d, d) that the next task begins with.

        With ``n_replicates`` above 1 both have a leading axis R.
        """
        self._require_features()
        prior = self._starting_prior()
        mean, covariance = prior.mean.flatten(-2).cpu().numpy(), prior.dense_covariance()
        return (mean, covariance) if self.n_replicates > 1 else (mean[0], covariance[0])

    # One task: beliefs and policies.

    def target_variance(self) -> Tensor:
        """Return the variance of the regression targets in use, shape (R, H)."""
        if isinstance(self.sigma2, str):
            return estimated_variance(self._residuals, self.initial_sigma2)
        given = given_variance(self.sigma2, self.stage_features.n_stages)
        return given.to(self.device).expand(self.n_replicates, -1)

    def _fresh_belief(self, replicates: Sequence[int]) -> TaskBelief:
        """Return what is known about new tasks, one in each of the given replicates."""
        of = th.as_tensor(list(replicates), device=self.device)
        features = self.stage_features
        return TaskBelief(
            prior=GaussianPrior(*(field[of] for field in self._starting_prior())),
            statistics=empty_statistics(
                (len(of),),
                features.n_stages,
                features.n_actions,
                features.n_blocks,
                features.block_size,
                self.device,
            ),
            sigma2=self.target_variance()[of],
            switch=self._switch(of),
        )

    @property
    def value_model(self) -> ValueModel:
        """How this agent draws Q-functions."""
        return ValueModel(bootstrap=self._bootstrap, clip=self.clip_values)

    def initial_policy(self, *, rng: np.random.Generator | None = None) -> LinearQPolicy:
        """Return the policy of a new task before any data: greedy for one draw from the prior.

        :param rng: of the draw; None uses a generator derived from the agent's seed
        """
        self._require_features()
        if rng is None:
            rng = derived_generator(self.seed, 0)
        belief = self._fresh_belief([0])
        return LinearQPolicy.drawn(self.stage_features, self.value_model, belief, [rng])

    def initial_policies(self, rngs: Sequence[np.random.Generator]) -> LinearQPolicies:
        """Return one initial policy per generator, for as many new tasks (replicates in turn)."""
        self._require_features()
        belief = self._fresh_belief([i % self.n_replicates for i in range(len(rngs))])
        return LinearQPolicies.drawn(self.stage_features, self.value_model, belief, rngs)

    def adapt(
        self, policy: PolicyPredictor, episodes: EpisodeBatch, *, rng: np.random.Generator
    ) -> LinearQPolicy:
        """Return the policy after more episodes of its task: a new draw from the updated posterior.

        :param policy: from :meth:`initial_policy` or an earlier ``adapt``; not changed
        :param episodes: of one task
        :param rng: of the draw
        """
        own = self._own(policy)
        stacked = EpisodeBatch.stack([episodes])
        return self._after(own, stacked, [rng])[0]

    def adapt_tasks(
        self,
        policies: TaskPolicies,
        episodes: EpisodeBatch,
        *,
        rngs: Sequence[np.random.Generator],
    ) -> LinearQPolicies:
        """Return the policies of M tasks after more episodes of each (leading axis M)."""
        return self._after(self._own(policies), episodes, rngs)

    def _after(
        self,
        policies: LinearQPolicies,
        episodes: EpisodeBatch,
        rngs: Sequence[np.random.Generator],
    ) -> LinearQPolicies:
        transitions = stage_transitions(policies.features, episodes, self.device)
        belief = policies.belief.updated(transitions, keep=self._keeps_history)
        return LinearQPolicies.drawn(policies.features, policies.model, belief, rngs)

    @staticmethod
    def _own(policy: object) -> LinearQPolicies:
        if not isinstance(policy, LinearQPolicies):
            raise TypeError(
                f"policy is a {type(policy).__name__}: pass one from initial_policy() or adapt()"
            )
        return policy

    def _require_features(self) -> None:
        if not hasattr(self, "stage_features"):
            raise ValueError(
                "env=None: the agent needs an env to know the features, call "
                f"{type(self).__name__}.load(path, env=...) or set_env(env)"
            )

    # Meta-training.

    def collect(self, callback: BaseCallback) -> FinishedTasks | None:
        """Play one task per sub-environment for N episodes; None when a callback asked to stop."""
        return play_tasks(self, callback)

    def first_policies(self, rngs: Sequence[np.random.Generator]) -> LinearQPolicies:
        """Return the initial policies of all sub-environments, replicates outermost."""
        replicates = np.repeat(np.arange(self.n_replicates), self._n_concurrent).tolist()
        belief = self._fresh_belief(replicates)
        return LinearQPolicies.drawn(self.stage_features, self.value_model, belief, rngs)

    def train(self, data: FinishedTasks) -> dict[str, float]:
        """Learn the prior from finished tasks; one meta-update."""
        logs = {"task_return": float(data.returns.sum(1).mean())}
        if data.regret is not None:
            self._regrets.append(data.regret.reshape(self.n_replicates, -1, data.regret.shape[1]))
            logs["task_regret"] = float(data.regret.sum(1).mean())
        logs.update(self._learn_from([data.belief]))
        logs["n_tasks"] = float(self.n_tasks_seen)
        return logs

    def _learn_from(
        self, beliefs: Sequence[TaskBelief], *, logged: bool = False
    ) -> dict[str, float]:
        """Learn from finished tasks, several rounds of them where they were logged."""
        for belief in beliefs:
            if isinstance(self.sigma2, str):
                self._residuals = self._residuals + residual_sums(
                    belief, self._residuals, bootstrap=self._bootstrap, clip=self.clip_values
                )
        logs = self._learn_prior(beliefs, logged=logged)
        for belief in beliefs:
            self.n_tasks_seen += len(belief.sigma2) // self.n_replicates
        return logs

    @property
    def regret_history(self) -> np.ndarray:
        """Exact regret of every episode of every finished task, shape (R, K, E), with
        ``track_regret``.
        """
        if not self._regrets:
            return np.zeros((self.n_replicates, 0, self.n_episodes_per_task))
        return np.concatenate(self._regrets, axis=1)

    def learn_tasks(
        self,
        n_tasks: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        checkpoint_path: str | Path | None = None,
        checkpoint_interval: int = 1,
    ) -> Self:
        """Learn until ``n_tasks`` more tasks are finished, as :meth:`learn` does for time steps.

        :param n_tasks: rounded up to what is played at once
        """
        check_positive("n_tasks", n_tasks, whole=True)
        self._require_features()
        assert self.env is not None
        target = self.n_tasks_seen + n_tasks
        n_rounds = -(-n_tasks // self._n_concurrent)
        n_steps = self.n_episodes_per_task * self.stage_features.n_stages * self.env.num_envs
        return self._learn(
            n_rounds * n_steps,
            callback,
            log_interval,
            tb_log_name,
            reset_num_timesteps,
            progress_bar,
            checkpoint_path=checkpoint_path,
            checkpoint_interval=checkpoint_interval,
            finished=lambda: self.n_tasks_seen >= target,
        )

    def _learned_state(self) -> dict[str, Tensor]:
        state = {"n_tasks_seen": th.tensor(self.n_tasks_seen)}
        if hasattr(self, "_residuals"):
            state["residuals"] = self._residuals
        if self._regrets:
            state["regret_history"] = th.as_tensor(self.regret_history)
        return state

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Replace the env by one with the same stages and features; see SB3's ``set_env``.

        :raises ValueError: if it has others; the agent then stays in its env
        """
        before = self.env
        try:
            super().set_env(env, force_reset)
        except ValueError:
            self.env = before
            if before is not None:
                self._setup_model()
            raise

    def _restore_learned_state(self, state: dict[str, Tensor]) -> None:
        for name, tensor in state.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{name} of what was learned is not finite: the state is damaged")
        residuals, regret = state.get("residuals"), state.get("regret_history")
        if residuals is not None:
            self._check_residual_shape(residuals)
            self._residuals = residuals.to(self.device)
        self.n_tasks_seen = int(state["n_tasks_seen"])
        self._regrets = [] if regret is None else [regret.cpu().numpy()]
