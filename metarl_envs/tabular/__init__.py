"""Finite Markov decision processes: their exact solution, and families of them."""

from metarl_envs.tabular.mdp import (
    FiniteMDP,
    action_values,
    occupancy,
    optimal_values,
    policy_values,
)
from metarl_envs.tabular.successors import SparseMDP

__all__ = [
    "FiniteMDP",
    "SparseMDP",
    "action_values",
    "occupancy",
    "optimal_values",
    "policy_values",
]
