"""One form for all learners: policies of M tasks at once, adapted at once, each task with
generators of its own.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.evaluation.streams import scoped_global_rng
from metarl_agents.common.policies import PolicyList, PolicyPredictor, TaskPolicies, stack_policies


class ScopedPolicy:
    """A policy whose draws from global generators come from a generator of its own.

    :param policy: any policy
    :param rng: where its randomness comes from
    """

    def __init__(self, policy: PolicyPredictor, rng: np.random.Generator) -> None:
        self.policy = policy
        self.rng = rng

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any | None]:
        """As SB3's `predict`; the global generators are left as they were."""
        with scoped_global_rng(int(self.rng.integers(2**31))):
            return self.policy.predict(observation, state, episode_start, deterministic)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "policy":
            raise AttributeError(name)
        return getattr(self.policy, name)


class LoopedLearner:
    """A learner that adapts one policy to one task, asked task by task.

    :param learner: has `initial_policy` and `adapt`
    :param acting_rngs: one per task, for policies that sample from global generators
    """

    def __init__(self, learner: Any, acting_rngs: Sequence[np.random.Generator]) -> None:
        self.learner = learner
        self.acting_rngs = acting_rngs

    def initial_policies(self, rngs: Sequence[np.random.Generator]) -> TaskPolicies:
        """The un-adapted policy of every task.

        :param rngs: one per task
        """
        make = self.learner.initial_policy
        takes_rng = "rng" in inspect.signature(make).parameters
        return self._stacked([make(rng=rng) if takes_rng else make() for rng in rngs])

    def adapt_tasks(
        self, policies: TaskPolicies, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> TaskPolicies:
        """Every task's policy adapted to its own episodes.

        :param policies: of M tasks
        :param episodes: theirs, with a leading task axis
        :param rngs: one per task
        """
        alone = [_unscoped(policies[task]) for task in range(policies.n_tasks)]
        return self._stacked(
            [
                self.learner.adapt(policy, batch, rng=rng)
                for policy, batch, rng in zip(alone, episodes.tasks(), rngs, strict=True)
            ]
        )

    def _stacked(self, policies: list[PolicyPredictor]) -> TaskPolicies:
        if hasattr(type(policies[0]), "stack"):
            return stack_policies(policies)
        return PolicyList(
            [
                ScopedPolicy(policy, rng)
                for policy, rng in zip(policies, self.acting_rngs, strict=True)
            ]
        )


def batched_learner(learner: Any, acting_rngs: Sequence[np.random.Generator]) -> Any:
    """The learner itself if it adapts many tasks at once, else one that loops over them.

    :param learner: has `initial_policies` and `adapt_tasks`, or `initial_policy` and `adapt`
    :param acting_rngs: one per task, for policies that sample from global generators
    """
    if hasattr(learner, "initial_policies") and hasattr(learner, "adapt_tasks"):
        return learner
    if hasattr(learner, "initial_policy") and hasattr(learner, "adapt"):
        return LoopedLearner(learner, acting_rngs)
    raise TypeError(
        f"learner={learner!r} cannot adapt: it has no initial_policy() and adapt(); "
        "wrap an SB3 model as Frozen(model), FineTuned(model) or FromScratch(DQN, "
        "policy='MlpPolicy')"
    )


def learner_name(learner: Any) -> str:
    """Its `name` if it has one, else its class.

    :param learner: any learner
    """
    name = getattr(learner, "name", None)
    return name if isinstance(name, str) else type(learner).__name__


def _unscoped(policy: PolicyPredictor) -> PolicyPredictor:
    return policy.policy if isinstance(policy, ScopedPolicy) else policy
