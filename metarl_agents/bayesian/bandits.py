"""Comparators that ignore what an action does to the state: every stage is a bandit of its own.

Their ceiling is the policy that is greedy for immediate rewards; the distance to it shows what
looking ahead is worth in a family. Zhou, Chen, Chen (2025), https://arxiv.org/abs/2510.05446,
compare with bandit-only meta-learners; which ones exactly is our reading.
"""

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.bayesian.known_prior_meta import KnownPriorMeta
from metarl_agents.bayesian.prior_learning_meta import PriorLearningMeta
from metarl_agents.bayesian.stage_features import StageFeatures
from metarl_agents.bayesian.thompson_meta import ThompsonMeta


class LinTS(ThompsonMeta):
    """Linear Thompson sampling on immediate rewards, afresh in every task.

    Agrawal and Goyal (2013), with one regression per stage. Arguments: :class:`ThompsonMeta`.
    """

    _bootstrap = False


class MetaLinTS(PriorLearningMeta):
    """Linear Thompson sampling on immediate rewards with a learned prior.

    What MTSRL becomes when the value of the next state is dropped from its targets. Learns mean and
    covariance, or the mean alone where ``prior_covariance`` is given. Arguments:
    :class:`PriorLearningMeta`.
    """

    _bootstrap = False
    _learns_covariance = True
    _default_estimator = "em"


class OracleLinTS(KnownPriorMeta):
    """Linear Thompson sampling on immediate rewards that is handed the true prior of their
    parameters.

    It separates what learning the prior costs from what ignoring the state costs. Arguments:
    :class:`KnownPriorMeta`.
    """

    _bootstrap = False


class MetaMAB(PriorLearningMeta):
    """A Gaussian multi-armed bandit per stage with a learned prior over its arm means.

    In the manner of MetaTS (Kveton et al. 2021): one mean per (stage, action), no features at all.
    Arguments: :class:`PriorLearningMeta`.
    """

    _bootstrap = False
    _learns_covariance = True
    _default_estimator = "em"

    def _make_features(self, venv: VecEnv) -> StageFeatures:
        return arm_features(super()._make_features(venv))


def arm_features(features: StageFeatures) -> StageFeatures:
    """Return features that tell actions apart and nothing else, each action in a block of its
    own."""
    n_actions = features.n_actions
    n_axes = len(features.observation_space.shape or ())

    def one_hot(stage: int, observations: np.ndarray) -> np.ndarray:
        lead = observations.shape[: observations.ndim - n_axes]
        return np.broadcast_to(np.eye(n_actions), (*lead, n_actions, n_actions))

    return features.replaced(one_hot, n_features=n_actions, n_blocks=n_actions)
