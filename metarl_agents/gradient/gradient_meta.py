"""What all agents that learn an initialisation share: phases of episodes, inner steps, files."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PolicyPredictor
from torch import Tensor

from metarl_agents.common.baselines import weighted_episodes
from metarl_agents.common.checkpoint.named_callables import named_callable
from metarl_agents.common.collect import envs_per_task
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.inner_loop import InnerLR, adapted_params
from metarl_agents.common.losses import Reduction
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.meta_algorithm.seeds import child_generator, derived_generator, draw_seed
from metarl_agents.common.meta_gradient import MetaGradient, meta_gradient
from metarl_agents.common.policies import (
    FunctionalPolicies,
    FunctionalPolicy,
    MlpPolicy,
    Params,
    PolicyNetwork,
    TabularPolicy,
    TaskPolicies,
)
from metarl_agents.common.policies.module import NetworkPolicy
from metarl_agents.common.policies.ownership import check_one_task, own_policy
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.gradient.argument_checks import check_gradient_arguments, checked_policy
from metarl_agents.gradient.estimators import Coefficient, MetaEstimator, OuterLoss
from metarl_agents.gradient.meta_episodes import MetaEpisodes, TaskBatch
from metarl_agents.gradient.meta_parameters import (
    Groups,
    MetaParameters,
    flat_names,
    grouped,
)
from metarl_agents.gradient.step_baselines import learn_from, make_baseline
from metarl_agents.gradient.step_sizes import policy_part, step_sizes
from metarl_agents.gradient.task_play import adapted_policies, play_tasks

TaskLoss = Callable[[Params, TaskBatch], Tensor | tuple[Tensor, dict[str, Tensor]]]


class GradientMeta(MetaAlgorithm):
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

    policy_aliases: ClassVar[dict[str, Any]] = {
        "MlpPolicy": MlpPolicy,
        "TabularPolicy": TabularPolicy,
    }
    _counter_names: ClassVar[tuple[str, ...]] = (
        *MetaAlgorithm._counter_names,
        "_n_skipped_updates",
    )
    policy: NetworkPolicy
    # SB3 declares both more narrowly.
    learning_rate: Any
    policy_kwargs: Any

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
        self.meta_batch_size, self.n_episodes_per_task = meta_batch_size, n_episodes_per_task
        self.n_inner_steps, self.inner_lr = n_inner_steps, inner_lr
        self.learn_inner_lr, self.adapt_lr_decay = learn_inner_lr, adapt_lr_decay
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.normalize_advantage, self.baseline = normalize_advantage, baseline
        self.bootstrap_truncated, self.loss_reduction = bootstrap_truncated, loss_reduction
        self.n_workers = n_workers
        self.learning_rate, self.policy_kwargs = learning_rate, policy_kwargs
        self._n_skipped_updates = 0
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
            _init_setup_model=False,
        )
        # SB3's constructor has its own idea of both.
        self.learning_rate, self.policy_kwargs = learning_rate, policy_kwargs
        self._acting_rng = np.random.default_rng(seed)
        if _init_setup_model:
            self._setup_model()

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

    def _initial_extras(self) -> Groups:
        """Learned tensors beyond those of every agent, by group and name, before any update."""
        return {}

    @property
    def _separates_episodes(self) -> bool:
        """Whether an episode's advantages must not depend on the other episodes of its batch."""
        return False

    def _check_arguments(self) -> None:
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

    # What is learned.

    def _setup_model(self) -> None:
        if not hasattr(self, "observation_space"):
            return
        if not isinstance(vars(self).get("policy"), BasePolicy):
            self._make_learned()
        if self.env is not None:
            envs_per_task(self.env.num_envs, self.meta_batch_size, self.n_episodes_per_task)

    def _make_learned(self) -> None:
        policy_class, kwargs = checked_policy(self.policy_class, self.policy_kwargs)
        rng = np.random.default_rng(draw_seed(self._rng))
        policy = policy_class(self.observation_space, self.action_space, rng=rng, **kwargs)
        self.policy = policy.to(self.device)
        self._baseline = make_baseline(
            self.baseline,
            self.observation_space,
            rng=rng,
            device=self.device,
            dtype=self._dtype,
            from_others=self._separates_episodes,
        )
        self._learned = MetaParameters(
            self.policy, self._baseline, self.inner_lr, self.learn_inner_lr
        )
        self._groups.update(self._initial_extras())

    @property
    def _groups(self) -> Groups:
        """Learned tensors besides theta, by group and name."""
        return self._learned.groups

    @property
    def network(self) -> PolicyNetwork:
        """The architecture of the policy, without parameters."""
        return self.policy.network

    @property
    def _dtype(self) -> th.dtype:
        return next(iter(self.policy.params().values())).dtype

    def _theta(self) -> Params:
        return self._learned.theta()

    def learned_step_sizes(self) -> float | dict[str, Tensor]:
        """The step sizes of the inner loop: by parameter where they are learned, else one."""
        return step_sizes(self._groups["step_sizes"], self.inner_lr)

    # Acting and adapting.

    def initial_policy(self, *, rng: np.random.Generator | None = None) -> FunctionalPolicy:
        """The policy with the learned initialisation.

        :param rng: of its actions; None for a generator derived from the agent's seed
        """
        if not hasattr(self, "_learned"):
            raise ValueError("the agent has no policy yet: give it an env, set_env(env)")
        if rng is None:
            rng = derived_generator(self.seed, 0)
        return self._policy(self._theta(), child_generator(rng))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The action of the initial, un-adapted policy; `adapt_to` returns a policy that adapted.

        Random actions come from a generator that has no part in training.

        :param observation: one observation or a batch of them
        :param state: not used
        :param episode_start: not used
        :param deterministic: whether to take the most likely action
        """
        policy = self.initial_policy(rng=self._acting_rng)
        return policy.predict(observation, state, episode_start, deterministic)

    def adapt(
        self, policy: PolicyPredictor, episodes: EpisodeBatch, *, rng: np.random.Generator
    ) -> FunctionalPolicy:
        """The policy after one inner step on `episodes`; the step itself draws nothing.

        :param policy: from `initial_policy` or an earlier `adapt`; not changed
        :param episodes: of one task
        :param rng: of the new policy's actions
        """
        own = own_policy(policy, self.network)
        check_one_task(episodes)
        return adapted_policies(self, [own], [episodes], [rng], decay=self._decay(own))[0]

    def adapt_tasks(
        self, policies: TaskPolicies, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> FunctionalPolicies:
        """The policies of M tasks after one inner step each: the same bits as one by one.

        :param policies: of M tasks
        :param episodes: with leading task axis M
        :param rngs: M generators, one per task
        """
        own = [own_policy(policies[i], self.network) for i in range(policies.n_tasks)]
        batches, decay = list(episodes.tasks()), self._decay(own[0])
        return FunctionalPolicy.stack(adapted_policies(self, own, batches, rngs, decay=decay))

    @property
    def _episodes_per_adaptation(self) -> int:
        return self.n_episodes_per_task

    def _decay(self, policy: FunctionalPolicy) -> float:
        return self.adapt_lr_decay if policy.n_updates else 1.0

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

    def _first_policies(self, n_tasks: int, rng: np.random.Generator) -> FunctionalPolicies:
        return FunctionalPolicies.shared(
            self.network, self._theta(), n_tasks, action_space=self.action_space, rng=rng
        )

    def _policy(
        self, params: Params, rng: np.random.Generator, n_updates: int = 0
    ) -> FunctionalPolicy:
        return FunctionalPolicy(
            self.network, params, action_space=self.action_space, rng=rng, n_updates=n_updates
        )

    # Meta-training.

    def collect(self, callback: BaseCallback) -> MetaEpisodes | None:
        """Plays K + 1 phases in new tasks; None where a callback asked to stop.

        :param callback: of `learn`
        """
        return play_tasks(self, callback)

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
        outer = self._weighted(data.phases[-1], normalize="task")
        return TaskBatch(self._inner_batches(data), outer, th.zeros_like(outer.returns[:, 0]))

    def _inner_batches(self, data: MetaEpisodes) -> tuple[WeightedEpisodes, ...]:
        return tuple(self._inner_weights(episodes) for episodes in data.phases[:-1])

    def _inner_weights(self, episodes: EpisodeBatch) -> WeightedEpisodes:
        return self._weighted(episodes, normalize="task")

    def _weighted(
        self, episodes: EpisodeBatch, *, normalize: Literal["task"] | None
    ) -> WeightedEpisodes:
        return weighted_episodes(
            self.network,
            episodes,
            self._baseline,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            normalize=normalize if self.normalize_advantage else None,
            bootstrap_truncated=self.bootstrap_truncated,
        )

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
            self._learned.descend(found.gradient, self._learning_rate())
        return logs

    def _meta_gradient(self, task_loss: TaskLoss, batch: TaskBatch) -> MetaGradient | None:
        """The gradient of the mean loss; None, counted and warned of, where it is not finite."""
        found = meta_gradient(task_loss, self._learned.outer(), batch, n_workers=self.n_workers)
        if found.is_finite:
            return found
        if self._n_skipped_updates == 0:
            warnings.warn(
                "a meta-gradient was not finite: this update is skipped, and further ones are "
                "counted in train/skipped_updates; lower inner_lr or learning_rate if there are "
                "many",
                stacklevel=2,
            )
        self._n_skipped_updates += 1
        return None

    def _learning_rate(self) -> float:
        if isinstance(self.learning_rate, str):
            return float(named_callable(self.learning_rate)(self._current_progress_remaining))
        return float(self.learning_rate)

    # Files.

    def _learned_state(self) -> dict[str, Tensor]:
        return flat_names(self._learned.all_groups()) if hasattr(self, "_learned") else {}

    def _restore_learned_state(self, state: dict[str, Tensor]) -> None:
        if hasattr(self, "_learned"):
            self._learned.set_groups(grouped(state, self._learned.all_groups()))
        elif state:
            raise ValueError("the agent has no policy yet: give it an env, set_env(env)")
