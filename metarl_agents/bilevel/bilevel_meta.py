"""What a tabular agent that adapts by a lower level does besides learning: acting and adapting.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PolicyPredictor
from torch import Tensor

from metarl_agents.bilevel.adaptation import adaptation_steps
from metarl_agents.bilevel.agent_arguments import settings_of
from metarl_agents.bilevel.episode_gradients import LambdaOf, adapted_to_episodes
from metarl_agents.bilevel.episode_rollouts import SamplingSettings
from metarl_agents.bilevel.exact import evaluate
from metarl_agents.bilevel.lower_level import Distance, Solver, distance_of
from metarl_agents.bilevel.meta_logits import MetaLogits
from metarl_agents.bilevel.task_models import check_knows_models, discounted_models
from metarl_agents.common.argument_checks import check_number
from metarl_agents.common.collect import envs_per_task
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.meta_algorithm.seeds import child_generator, derived_generator, draw_seed
from metarl_agents.common.policies import (
    FunctionalPolicies,
    FunctionalPolicy,
    TabularPolicy,
    TaskPolicies,
)
from metarl_agents.common.policies.networks import TabularNetwork
from metarl_agents.common.policies.ownership import check_one_task, own_policy
from metarl_envs.tabular.mdp import FiniteMDP


class TabularBilevelMeta(MetaAlgorithm):
    """A table of logits that adapts by the lower level at it; subclasses say how it learns.

    They store the arguments that `check_tabular_arguments` looks at before they call this
    constructor, whose own arguments are those of `MetaAlgorithm`.
    """

    policy_aliases: ClassVar[dict[str, Any]] = {"TabularPolicy": TabularPolicy}
    _counter_names: ClassVar[tuple[str, ...]] = (*MetaAlgorithm._counter_names, "_task_seed")
    policy: TabularPolicy
    algorithm: int | str
    lam: float
    adapt_lam: float | None
    lam_relative: bool
    mode: str
    solver: Solver
    max_iterations: int
    meta_batch_size: int
    n_episodes_per_task: int
    optimizer: str
    gamma: float
    q_step_size: float
    initial_q: float
    require_start: bool
    _acting_rng: np.random.Generator
    _task_seed: int = 0

    # What is learned.

    def _setup_model(self) -> None:
        if not hasattr(self, "observation_space"):
            return
        if not isinstance(vars(self).get("policy"), BasePolicy):
            self._make_learned()
        if self.env is None:
            return
        if self.mode == "sampled":
            envs_per_task(self.env.num_envs, self.meta_batch_size, self.n_episodes_per_task)
            return
        check_knows_models(self.env)
        if self.meta_batch_size % self.env.num_envs:
            raise ValueError(
                f"n_envs={self.env.num_envs} must divide meta_batch_size={self.meta_batch_size}: "
                f"mode={self.mode!r} plays one episode in each task"
            )

    def _make_learned(self) -> None:
        if not issubclass(self.policy_class, TabularPolicy):
            raise TypeError(
                f"policy={self.policy_class.__name__} is no table of logits: use 'TabularPolicy'"
            )
        self._task_seed = draw_seed(self._rng)
        rng = np.random.default_rng(draw_seed(self._rng))
        self.policy = self.policy_class(self.observation_space, self.action_space, rng=rng).to(
            self.device
        )
        self._meta = MetaLogits(self.policy.logits, self.optimizer)

    def _learned(self) -> MetaLogits:
        if not hasattr(self, "_meta"):
            raise ValueError("the agent has no policy yet: give it an env, set_env(env)")
        return self._meta

    def _learned_state(self) -> dict[str, Tensor]:
        return self._meta.state() if hasattr(self, "_meta") else {}

    def _restore_learned_state(self, state: dict[str, Tensor]) -> None:
        if hasattr(self, "_meta") or state:
            self._learned().restore(state)

    @property
    def network(self) -> TabularNetwork:
        """The table of the policy, without logits."""
        network = self.policy.network
        assert isinstance(network, TabularNetwork)
        return network

    @property
    def _distance(self) -> Distance:
        return distance_of(self.algorithm)

    @property
    def _sampling(self) -> SamplingSettings:
        return SamplingSettings(self.gamma, self.q_step_size, self.initial_q, self.require_start)

    # Acting and adapting.

    def initial_policy(self, *, rng: np.random.Generator | None = None) -> FunctionalPolicy:
        """The meta-policy.

        :param rng: of its actions; None for a generator derived from the agent's seed
        """
        logits = self._learned().logits
        if rng is None:
            rng = derived_generator(self.seed, 0)
        return self._policy(logits, child_generator(rng))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The action of the meta-policy; `adapt_to` returns a policy that adapted.

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
        """The solution of the lower level at `policy`, from `episodes`; it draws nothing itself.

        :param policy: from `initial_policy` or an earlier `adapt`; not changed
        :param episodes: of one task, that `policy` played
        :param rng: of the new policy's actions
        """
        own = own_policy(policy, self.network)
        check_one_task(episodes)
        logits = own.params["logits"][None]
        after = self._adapted(logits, EpisodeBatch.stack([episodes]), self._lambda_now)
        return self._policy(after[0], child_generator(rng), own.n_updates + 1)

    def adapt_tasks(
        self, policies: TaskPolicies, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> FunctionalPolicies:
        """The policies of M tasks after one adaptation each.

        :param policies: of M tasks
        :param episodes: with leading task axis M
        :param rngs: M generators, one per task
        """
        own = [own_policy(policies[i], self.network) for i in range(policies.n_tasks)]
        logits = th.stack([policy.params["logits"] for policy in own])
        after = self._adapted(logits, episodes, self._lambda_now)
        return self._stacked(after, rngs, own[0].n_updates + 1)

    def adapt_to_models(
        self,
        mdps: Sequence[FiniteMDP] | FiniteMDP,
        *,
        n_steps: int = 1,
        rng: np.random.Generator | None = None,
    ) -> FunctionalPolicies:
        """The policies after k steps of adaptation in tasks whose models are known, exactly.

        :param mdps: one for each of M tasks, or one batch of them
        :param n_steps: k
        :param rng: of the new policies' actions; None for one derived from the agent's seed
        """
        check_number("n_steps", n_steps, at_least=0, whole=True)
        logits = self._learned().logits
        parts = [mdps] if isinstance(mdps, FiniteMDP) and not mdps.batch_shape else mdps
        tasks = discounted_models(parts, gamma=self.gamma, table=self.network, device=self.device)
        first = evaluate(tasks, logits.softmax(-1))
        steps = adaptation_steps(
            tasks,
            logits,
            self._distance,
            self._lambda_now(first.action_values),
            n_steps=n_steps,
            settings=settings_of(self),
        )
        rng = derived_generator(self.seed, 1) if rng is None else rng
        return self._stacked(steps[-1], rng.spawn(tasks.n_tasks), n_steps)

    @property
    def _episodes_per_adaptation(self) -> int:
        return self.n_episodes_per_task

    def _lambda_now(self, action_values: Tensor) -> float | Tensor:
        """Lambda of an adaptation; of an agent that has no unit yet, relative to each task's Q."""
        lam = self.lam if self.adapt_lam is None else self.adapt_lam
        if not self.lam_relative:
            return lam
        unit = float(self._meta.lam_unit)
        if unit > 0.0:
            return lam * unit
        spans = (action_values.amax(-1) - action_values.amin(-1)).mean(-1)
        # Where all actions look the same, any lambda leaves the policy as it is.
        return lam * th.where(spans > 0.0, spans, 1.0)

    def _adapted(self, logits: Tensor, episodes: EpisodeBatch, lambda_of: LambdaOf) -> Tensor:
        """Logits after one adaptation to the episodes of each task, (M, S, A)."""
        return adapted_to_episodes(
            logits.to(self.device),
            episodes.to(self.device, th.float64),
            lambda_of,
            table=self.network,
            distance=self._distance,
            sampling=self._sampling,
            settings=settings_of(self),
        )

    def _stacked(
        self, logits: Tensor, rngs: Sequence[np.random.Generator], n_updates: int
    ) -> FunctionalPolicies:
        return FunctionalPolicy.stack(
            [
                self._policy(row, child_generator(rng), n_updates)
                for row, rng in zip(logits, rngs, strict=True)
            ]
        )

    def _policy(
        self, logits: Tensor, rng: np.random.Generator, n_updates: int = 0
    ) -> FunctionalPolicy:
        return FunctionalPolicy(
            self.network,
            {"logits": logits},
            action_space=self.action_space,
            rng=rng,
            n_updates=n_updates,
        )
