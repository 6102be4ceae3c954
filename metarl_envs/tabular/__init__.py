"""Finite Markov decision processes: their exact solution, and families of them."""

from metarl_envs.tabular.mdp import (
    FiniteMDP,
    action_values,
    occupancy,
    optimal_values,
    policy_values,
)

__all__ = [
    "FiniteMDP",
    "action_values",
    "occupancy",
    "optimal_values",
    "policy_values",
]
