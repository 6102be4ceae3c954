"""Regret by exact policy evaluation, where an environment can."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv


class StagePolicies(Protocol):
    """Policies of M tasks that tell what they do in every observation of a stage."""

    def action_probabilities(
        self, observations: np.ndarray, stage: int | None = None, deterministic: bool = False
    ) -> np.ndarray:
        """Return shape (M, S, A)."""
        ...


class ExactRegret:
    """``V* - V^pi`` of the policies of M tasks, by backward induction instead of sampled returns.

    :param env: with the members of ``metarl_envs.core.ExactEnv``
    :param n_stages: H
    """

    def __init__(self, env: VecEnv, n_stages: int):
        self._env, self._n_stages = env, n_stages
        self._observations: list[np.ndarray] | None = None

    def __call__(self, policies: StagePolicies, tasks: Sequence[Any]) -> np.ndarray:
        """Return the regret of one episode in every task, shape (M,).

        :raises ValueError: if the env cannot evaluate policies
        """
        if self._observations is None:
            if not self._env.has_attr("policy_returns"):
                raise ValueError(
                    "track_regret=True needs an env with the members of metarl_envs.core.ExactEnv: "
                    "leave it False"
                )
            self._observations = [
                self._ask("stage_observations", stage) for stage in range(self._n_stages)
            ]
        probabilities = [
            policies.action_probabilities(observations, stage)
            for stage, observations in enumerate(self._observations)
        ]
        optimal = np.asarray(self._ask("optimal_returns", tasks))
        return optimal - np.asarray(self._ask("policy_returns", tasks, probabilities))

    def _ask(self, name: str, *arguments: Any) -> Any:
        return self._env.env_method(name, *arguments, indices=[0])[0]
