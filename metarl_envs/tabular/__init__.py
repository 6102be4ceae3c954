"""Finite MDPs: their exact solution, and families of them stepped in batches."""

from metarl_envs.tabular.env import TabularEnv
from metarl_envs.tabular.family import TabularFamily
from metarl_envs.tabular.mdp import (
    FiniteMDP,
    action_values,
    occupancy,
    optimal_values,
    policy_values,
)
from metarl_envs.tabular.vector import TabularVectorEnv

__all__ = [
    "FiniteMDP",
    "TabularEnv",
    "TabularFamily",
    "TabularVectorEnv",
    "action_values",
    "occupancy",
    "optimal_values",
    "policy_values",
]
