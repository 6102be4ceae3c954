"""What all agents that learn an initialisation of inner steps share: phases of episodes, steps."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl_agents.common.collect import sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.inner_loop import InnerLR, adapted_params
from metarl_agents.common.losses import Reduction
from metarl_agents.common.meta_algorithm.seeds import child_generator, draw_seed
from metarl_agents.common.meta_gradient import MetaGradient, meta_gradient
from metarl_agents.common.network_meta import NetworkMeta
from metarl_agents.common.policies import FunctionalPolicy, Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.step_baselines import learn_from
from metarl_agents.common.step_sizes import (
    initial_log_step_sizes,
    policy_part,
    scaled,
    step_sizes,
)
from metarl_agents.common.task_chunks import run_on_threads
from metarl_agents.gradient.argument_checks import check_gradient_arguments
from metarl_agents.gradient.estimators import Coefficient, MetaEstimator, OuterLoss
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch, descriptors_of

TaskLoss = Callable[[Params, TaskBatch], Tensor | tuple[Tensor, dict[str, Tensor]]]


class GradientMeta(NetworkMeta):
    """Learns an initialisation from which few policy-gradient steps solve a new task.

    One meta-iteration: draw ``meta_batch_size`` tasks; play ``n_episodes_per_task`` episodes in
    each; take an inner step in each; play again; and so on for K = ``n_inner_steps`` steps. The
    episodes after the last step say how good the initialisation was: subclasses differ in how they
    differentiate that through the inner steps and in the step they take (:meth:`_update`).

    ``adapt`` takes one inner step on exactly the episodes it is given, whatever their number.

    :param policy: "MlpPolicy", or "TabularPolicy" (a table of logits) for Discrete or MultiDiscrete
        observations and Discrete actions
    :param env: id, env, vector env or VecEnv of a family that draws tasks
    :param meta_batch_size: M, tasks per meta-iteration (40: Finn, Abbeel, Levine 2017, locomotion)
    :param n_episodes_per_task: E, episodes per task and phase (20: the same)
    :param n_inner_steps: K, inner steps that are differentiated through (1: the same)
    :param inner_lr: alpha, the step size (0.1: the same), of the mean over all steps of a batch
    :param learn_inner_lr: "tensor" or "element" learns step sizes, one per parameter tensor or per
        element, within [1e-4, 1]; None keeps ``inner_lr``
    :param adapt_lr_decay: factor on the step size from the second ``adapt`` on; Finn, Abbeel,
        Levine (2017) halve it, 0.5
    :param learning_rate: of Adam; a number, or "lin_1e-3" for one that falls to 0
    :param max_grad_norm: largest norm of a gradient that Adam is given, to which longer ones are
        shortened; None for no limit. A policy that became precise has rare gradients of ten times
        the usual length, one of which may end its training
    :param gamma: discount
    :param gae_lambda: lambda of generalised advantages (Schulman et al. 2016)
    :param normalize_advantage: whether advantages get mean 0 and deviation 1 in every batch of a
        task
    :param baseline: "linear" and "time" are fitted to every batch of every task (features of
        observation and time, or of time alone; Duan et al. 2016), "value" is a network that all
        tasks share, fitted to the meta-iterations before, "none" is zero
    :param bootstrap_truncated: whether the value of the last observation continues episodes that a
        time limit cut
    :param loss_reduction: "mean" over the steps of a batch, as the published codes, or "sum" over
        time and mean over episodes, the gradient of the return itself (then ``inner_lr`` means
        another thing)
    :param policy_kwargs: ``net_arch`` ([64, 64]), ``activation_fn`` ("tanh" or "relu") and
        ``log_std_init`` (0.0)
    :param n_workers: threads that share the tasks while learning; results do not depend on it
    :param n_envs: sub-environments to make of an id: M k plays all tasks at once with k
        sub-environments each (k divides E), M / r in r rounds
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
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
        self.n_inner_steps, self.inner_lr = n_inner_steps, inner_lr
        self.learn_inner_lr, self.adapt_lr_decay = learn_inner_lr, adapt_lr_decay
        self.max_grad_norm = max_grad_norm
        self.normalize_advantage, self.loss_reduction = normalize_advantage, loss_reduction
        super().__init__(
            policy,
            env,
            meta_batch_size=meta_batch_size,
            n_episodes_per_task=n_episodes_per_task,
            learning_rate=learning_rate,
            gamma=gamma,
            gae_lambda=gae_lambda,
            baseline=baseline,
            bootstrap_truncated=bootstrap_truncated,
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

    # What an algorithm defines.

    @property
    @abstractmethod
    def estimator(self) -> MetaEstimator:
        """How this agent differentiates through its inner steps."""

    @abstractmethod
    def _update(self, data: MetaEpisodes) -> dict[str, float]:
        """Changes what is learned; returns what to log.

        :param data: of one meta-iteration
        """

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_gradient_arguments(self)

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
        """(C,), a loss whose gradient is this agent's estimate; see :func:`.meta_loss`.

        :param network: the policy
        :param params: theta
        :param inner: the K batches that were sampled
        :param outer_loss: of the adapted parameters
        :param coefficient: credit of the inner batches
        :param inner_lr: alpha
        :param reduction: of the inner losses
        """
        return self.estimator.meta_loss(
            network,
            params,
            inner,
            outer_loss,
            coefficient,
            inner_lr=inner_lr,
            reduction=reduction,
        )

    def _adaptation_loss(self, params: Params, task: TaskBatch, outer_loss: OuterLoss) -> Tensor:
        """`meta_loss` of what meta-gradients are taken of, and of the episodes of C tasks."""
        return self.meta_loss(
            self.network,
            policy_part(params),
            task.inner,
            outer_loss,
            task.coefficients,
            inner_lr=step_sizes(params, self.inner_lr),
            reduction=self.loss_reduction,
        )

    # Inner steps.

    def _initial_step_sizes(self, theta: Params) -> Params:
        return initial_log_step_sizes(theta, self.inner_lr, self.learn_inner_lr)

    def learned_step_sizes(self) -> float | dict[str, Tensor]:
        """The step sizes of the inner loop: by parameter where they are learned, else one."""
        return step_sizes(self._groups["step_sizes"], self.inner_lr)

    def _adapted_params(
        self,
        policies: Sequence[FunctionalPolicy],
        batches: Sequence[EpisodeBatch],
        *,
        is_training: bool,
    ) -> list[Params]:
        """Parameters after one inner step in every task, task by task."""
        is_first = is_training or not policies[0].n_updates
        inner_lr = scaled(self.learned_step_sizes(), 1.0 if is_first else self.adapt_lr_decay)

        def stepped(task: int) -> Params:
            inner = [self._inner_weights(batches[task])]
            return self._chain(policies[task].params, inner, inner_lr=inner_lr)[-1]

        after = run_on_threads(stepped, range(len(batches)), n_workers=self.n_workers)
        if not all(tensor.isfinite().all() for params in after for tensor in params.values()):
            raise ValueError(
                f"an inner step with inner_lr={self.inner_lr} gives parameters that are not "
                "finite: lower inner_lr, or look for rewards or observations that are not finite"
            )
        return after

    def _chain(
        self,
        theta: Params,
        inner: Sequence[WeightedEpisodes],
        *,
        inner_lr: InnerLR,
        loss: str | None = None,
        create_graph: bool = False,
    ) -> list[Params]:
        """Parameters after 0, ..., K inner steps, of the estimator's surrogate or of another."""
        return adapted_params(
            self.network,
            theta,
            inner,
            loss=loss or self.estimator.inner_loss,
            reduction=self.loss_reduction,
            inner_lr=inner_lr,
            create_graph=create_graph,
        )

    # Meta-training.

    def collect(self, callback: BaseCallback) -> MetaEpisodes | None:
        """Plays K + 1 phases in new tasks; None where a callback asked to stop.

        :param callback: of `learn`
        """
        assert self.env is not None
        rng = np.random.default_rng(self._begin_collect())
        tasks = sample_tasks(self.env, self.meta_batch_size, seed=draw_seed(rng))
        policies = self._first_policies(len(tasks), child_generator(rng))
        phases: list[EpisodeBatch] = []
        for step in range(self.n_inner_steps + 1):
            if step:
                own = [policies[i] for i in range(len(tasks))]
                batches, rngs = list(phases[-1].tasks()), [rng] * len(tasks)
                after = self._adapted_policies(own, batches, rngs, is_training=True)
                policies = FunctionalPolicy.stack(after)
            episodes = self._played(
                policies,
                self.n_episodes_per_task,
                tasks=tasks,
                seed=draw_seed(rng),
                callback=callback,
            )
            if episodes is None:
                return None
            phases.append(episodes)
        return MetaEpisodes(tuple(phases), descriptors_of(tasks), draw_seed(rng))

    def train(self, data: MetaEpisodes) -> dict[str, float]:
        """One meta-update.

        :param data: what `collect` returned
        """
        logs = {
            "pre_update_return": float(data.phases[0].returns.mean()),
            "post_update_return": float(data.phases[-1].returns.mean()),
            **self._update(data),
        }
        logs |= learn_from(self._baseline, data.phases, gamma=self.gamma, seed=data.seed)
        return {**logs, "skipped_updates": float(self._n_skipped_updates)}

    def _task_batch(self, data: MetaEpisodes) -> TaskBatch:
        """What losses need of the episodes; no credit of the inner batches.

        :param data: of one meta-iteration
        """
        outer = self._normalized(data.phases[-1])
        return TaskBatch(self._inner_batches(data), outer, th.zeros_like(outer.returns[:, 0]))

    def _inner_batches(self, data: MetaEpisodes) -> tuple[WeightedEpisodes, ...]:
        return tuple(self._inner_weights(episodes) for episodes in data.phases[:-1])

    def _inner_weights(self, episodes: EpisodeBatch) -> WeightedEpisodes:
        return self._normalized(episodes)

    def _normalized(self, episodes: EpisodeBatch) -> WeightedEpisodes:
        """Weights that are normalised in every task, if the agent does so."""
        return self._weighted(episodes, normalize="task" if self.normalize_advantage else None)

    def _descend(
        self, task_loss: TaskLoss, batch: TaskBatch, n_epochs: int = 1
    ) -> dict[str, float]:
        """Adam steps down the mean loss of the tasks; what to log.

        :param task_loss: of parameters and the data of C tasks
        :param batch: of M tasks
        :param n_epochs: steps on the same episodes
        """
        logs: dict[str, float] = {}
        for epoch in range(n_epochs):
            found = self._meta_gradient(task_loss, batch)
            if found is None:
                break
            if epoch == 0:
                logs = {
                    "loss": float(found.losses.mean()),
                    "grad_norm": found.norm,
                }
            gradient = found.clipped(self.max_grad_norm)
            self._learned.descend(gradient, self._learning_rate())
        return logs

    def _meta_gradient(self, task_loss: TaskLoss, batch: TaskBatch) -> MetaGradient | None:
        """The gradient of the mean loss; None, counted and warned of, where it is not finite."""
        found = meta_gradient(task_loss, self._learned.outer(), batch, n_workers=self.n_workers)
        if found.is_finite:
            return found
        self._skip_update("lower inner_lr or learning_rate")
        return None
