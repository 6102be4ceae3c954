"""What all agents that learn where a policy network starts from share: acting, adapting, files."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PolicyPredictor
from torch import Tensor

from metarl_agents.common.baselines import weighted_episodes
from metarl_agents.common.checkpoint.named_callables import named_callable
from metarl_agents.common.collect import collect_task_episodes, envs_per_task
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.meta_algorithm.seeds import child_generator, derived_generator, draw_seed
from metarl_agents.common.meta_parameters import Groups, MetaParameters, flat_names, grouped
from metarl_agents.common.network_arguments import check_network_arguments, checked_policy
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
from metarl_agents.common.step_baselines import make_baseline


class NetworkMeta(MetaAlgorithm):
    """A policy network that adapts to a task by other parameters; subclasses say by which.

    Subclasses define :meth:`_adapted_params`, `collect` and `train`. They store their own arguments
    and then call this constructor, which checks them all.

    :param policy: "MlpPolicy", or "TabularPolicy" (a table of logits) for Discrete or MultiDiscrete
        observations and Discrete actions
    :param env: id, env, vector env or VecEnv of a family that draws tasks
    :param meta_batch_size: M, tasks per meta-iteration
    :param n_episodes_per_task: E, episodes per task and adaptation
    :param learning_rate: of Adam; a number, or "lin_1e-3" for one that falls to 0
    :param gamma: discount
    :param gae_lambda: lambda of generalised advantages (Schulman et al. 2016)
    :param baseline: "linear", "time", "value" or "none"; see :func:`.make_baseline`
    :param bootstrap_truncated: whether the value of the last observation continues episodes that a
        time limit cut
    :param policy_kwargs: ``net_arch``, ``activation_fn`` and ``log_std_init``
    :param n_workers: threads that share the tasks; results do not depend on it
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
        meta_batch_size: int,
        n_episodes_per_task: int,
        learning_rate: float | str,
        gamma: float,
        gae_lambda: float,
        baseline: str,
        bootstrap_truncated: bool,
        policy_kwargs: Mapping[str, Any] | None,
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
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.baseline, self.bootstrap_truncated = baseline, bootstrap_truncated
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

    @abstractmethod
    def _adapted_params(
        self,
        policies: Sequence[FunctionalPolicy],
        batches: Sequence[EpisodeBatch],
        *,
        is_training: bool,
    ) -> list[Params]:
        """Parameters after one adaptation in each of M tasks, without a graph; all finite.

        A task's result has the same bits whatever the other tasks are.

        :param policies: of M tasks
        :param batches: M batches without task axis and needless padding, on the agent's device
        :param is_training: whether a meta-iteration asks, and not a user
        """

    def _check_arguments(self) -> None:
        check_network_arguments(self)

    def _initial_step_sizes(self, theta: Params) -> Params:
        """Step sizes of an inner loop that are learned, as :class:`.MetaParameters` takes them."""
        return {}

    def _initial_extras(self) -> Groups:
        """Learned tensors beyond those of every agent, by group and name, before any update."""
        return {}

    @property
    def _separates_episodes(self) -> bool:
        """Whether an episode's advantages must not depend on the other episodes of its batch."""
        return False

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
        step_sizes = self._initial_step_sizes(self.policy.params())
        self._learned = MetaParameters(self.policy, self._baseline, step_sizes)
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
        """The policy after one adaptation to `episodes`, which draws nothing itself.

        :param policy: from `initial_policy` or an earlier `adapt`; not changed
        :param episodes: of one task, that `policy` played
        :param rng: of the new policy's actions
        """
        own = own_policy(policy, self.network)
        check_one_task(episodes)
        return self._adapted_policies([own], [episodes], [rng])[0]

    def adapt_tasks(
        self, policies: TaskPolicies, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> FunctionalPolicies:
        """The policies of M tasks after one adaptation each: the same bits as one by one.

        :param policies: of M tasks
        :param episodes: with leading task axis M
        :param rngs: M generators, one per task
        """
        own = [own_policy(policies[i], self.network) for i in range(policies.n_tasks)]
        return FunctionalPolicy.stack(self._adapted_policies(own, list(episodes.tasks()), rngs))

    @property
    def _episodes_per_adaptation(self) -> int:
        return self.n_episodes_per_task

    def _adapted_policies(
        self,
        policies: Sequence[FunctionalPolicy],
        batches: Sequence[EpisodeBatch],
        rngs: Sequence[np.random.Generator],
        *,
        is_training: bool = False,
    ) -> list[FunctionalPolicy]:
        """The policies after one adaptation in every task.

        :param policies: of M tasks
        :param batches: M batches, without task axis
        :param rngs: M generators, of the new policies' actions
        :param is_training: whether a meta-iteration asks, and not a user
        """
        # Without padding that other tasks call for, sums have the same order as alone.
        own = [batch.trimmed().to(self.device, self._dtype) for batch in batches]
        after = self._adapted_params(policies, own, is_training=is_training)
        return [
            self._policy(params, child_generator(rng), policy.n_updates + 1)
            for policy, params, rng in zip(policies, after, rngs, strict=True)
        ]

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

    # For meta-training.

    def _played(
        self,
        policies: FunctionalPolicies,
        n_episodes: int,
        *,
        tasks: Sequence[Any],
        seed: int,
        callback: BaseCallback,
    ) -> EpisodeBatch | None:
        """Episodes of M tasks on the agent's device; None where the callback asked to stop.

        :param policies: of the M tasks
        :param n_episodes: per task
        :param tasks: M tasks
        :param seed: of the resets
        :param callback: of `learn`
        """
        assert self.env is not None
        episodes = collect_task_episodes(
            self.env,
            policies,
            n_episodes,
            tasks=tasks,
            seed=seed,
            on_step=self._step_hook(callback),
            dtype=self._dtype,
        )
        return None if episodes is None else episodes.to(self.device)

    def _weighted(
        self, episodes: EpisodeBatch, *, normalize: Literal["task"] | None
    ) -> WeightedEpisodes:
        return weighted_episodes(
            self.network,
            episodes,
            self._baseline,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            normalize=normalize,
            bootstrap_truncated=self.bootstrap_truncated,
        )

    def _skip_update(self, remedy: str) -> None:
        """Counts an update that is left out since its gradient is not finite; warns of the first.

        :param remedy: what to change if there are many
        """
        if self._n_skipped_updates == 0:
            warnings.warn(
                "a meta-gradient was not finite: this update is skipped, and further ones are "
                f"counted in train/skipped_updates; {remedy} if there are many",
                stacklevel=3,
            )
        self._n_skipped_updates += 1

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
