"""Exact regret: the optimal return minus the policy's, both from the family's own dynamic
programming, never from samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.common.evaluation.intervals import Floats
from metarl_agents.common.evaluation.transparency import opaque_wrapper


class ExactValues:
    """The exact values that an env can compute, asked through a `VecEnv`.

    See `metarl_envs.core.ExactEnv`. Behind a wrapper that changes observations, actions or rewards
    they are values of another problem than the one that is played, and count as unknown.

    :param venv: the env
    """

    def __init__(self, venv: VecEnv) -> None:
        self.venv = venv
        self.opaque_wrapper: str | None = None
        self.knows_optimum = self._can_ask("optimal_returns")
        self.knows_policies = self.knows_optimum and all(
            map(self._can_ask, ("policy_returns", "stage_observations", "n_stages"))
        )
        self._observations: list[np.ndarray] | None = None

    def require(self, learner: str) -> None:
        """`ValueError` where the env cannot tell exact returns of policies.

        :param learner: for the message
        """
        if self.knows_policies:
            return
        reason = "the env needs optimal_returns(), policy_returns() and stage_observations() "
        reason += "(metarl_envs.core.ExactEnv); use exact_regret=None"
        if self.opaque_wrapper is not None:
            reason = (
                f"{self.opaque_wrapper} lies between the learner and the env, whose exact returns "
                "are about its own observations, actions and rewards; use exact_regret=None, or "
                "evaluate without it (a wrapper that changes none of them may say so by a class "
                "attribute transparent = True)"
            )
        raise ValueError(f"exact_regret=True is impossible for {learner!r} here: {reason}")

    def optimal_returns(self, tasks: Sequence[Any]) -> Floats | None:
        """The optimal expected return of each task, (M,), or None where the env does not know it.

        :param tasks: M tasks
        """
        return np.asarray(self._call("optimal_returns", tasks)) if self.knows_optimum else None

    def policy_returns(
        self, tasks: Sequence[Any], policies: Any, deterministic: bool
    ) -> Floats | None:
        """The expected return of each task's policy, (M,), or None where it cannot be known.

        :param tasks: M tasks
        :param policies: the policies of these tasks
        :param deterministic: whether they take their most likely actions
        """
        if not self.knows_policies or not hasattr(policies, "action_probabilities"):
            return None
        probabilities = [
            policies.action_probabilities(observations, stage=stage, deterministic=deterministic)
            for stage, observations in enumerate(self._stage_observations())
        ]
        return np.asarray(self._call("policy_returns", tasks, probabilities))

    def _can_ask(self, method: str) -> bool:
        if not self.venv.has_attr(method):
            return False
        opaque = opaque_wrapper(self.venv, method)
        self.opaque_wrapper = self.opaque_wrapper or opaque
        return opaque is None

    def _stage_observations(self) -> list[np.ndarray]:
        if self._observations is None:
            n_stages = int(self.venv.get_attr("n_stages", indices=[0])[0])
            self._observations = [
                self._call("stage_observations", stage) for stage in range(n_stages)
            ]
        return self._observations

    def _call(self, method: str, *arguments: Any) -> Any:
        return self.venv.env_method(method, *arguments, indices=[0])[0]
