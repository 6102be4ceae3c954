"""Finite Markov decision processes and their exact solution, batched over tasks, in float64.

Shapes: `...` any leading batch axes (tasks), S states, A actions, H stages, K successors. With
`horizon=None` everything is stationary; with a horizon, values, policies and occupancies have a
stage axis H right before S.
"""

from metarl_envs.tabular.mdp.finite import FiniteMDP
from metarl_envs.tabular.mdp.model import MDP
from metarl_envs.tabular.mdp.solving import (
    action_values,
    occupancy,
    optimal_values,
    policy_values,
)

__all__ = [
    "MDP",
    "FiniteMDP",
    "action_values",
    "occupancy",
    "optimal_values",
    "policy_values",
]
