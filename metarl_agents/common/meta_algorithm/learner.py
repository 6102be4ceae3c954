"""What every meta-learner can do."""

from typing import Protocol

import numpy as np

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies import PolicyPredictor


class MetaLearner(Protocol):
    """Anything that starts from a policy and adapts it to a task: two pure verbs."""

    def initial_policy(self, *, rng: np.random.Generator | None = None) -> PolicyPredictor:
        """The policy before anything of the task is known.

        :param rng: source of its random draws, if it makes any; None for the agent's fixed choice
        """
        ...

    def adapt(
        self, policy: PolicyPredictor, episodes: EpisodeBatch, *, rng: np.random.Generator
    ) -> PolicyPredictor:
        """The policy after `episodes`; pure, and deterministic given `rng`.

        :param policy: what acted so far
        :param episodes: of one task, no task axis
        :param rng: source of all random draws
        """
        ...
