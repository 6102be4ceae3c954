"""The base of all meta-learning agents: SB3's contract for training, acting and files."""

from metarl_agents.common.meta_algorithm.algorithm import MetaAlgorithm
from metarl_agents.common.meta_algorithm.learner import MetaLearner

__all__ = ["MetaAlgorithm", "MetaLearner"]
