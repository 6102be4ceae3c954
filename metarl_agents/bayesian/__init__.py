"""Agents that learn a prior over optimal Q-functions and explore new tasks by Thompson sampling."""

from metarl_agents.bayesian.bandits import LinTS, MetaLinTS, MetaMAB, OracleLinTS
from metarl_agents.bayesian.mtsrl import MTSRL, RLSVI, MetaOracle, MTSRLPlus

__all__ = [
    "MTSRL",
    "RLSVI",
    "LinTS",
    "MTSRLPlus",
    "MetaLinTS",
    "MetaMAB",
    "MetaOracle",
    "OracleLinTS",
]
