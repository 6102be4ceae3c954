"""Families of tasks whose dynamics are batched NumPy: one class makes a single and a vector
environment.
"""

from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.family import Array, Family, Params, View, sequential_dot
from metarl_envs.batched.vector import FamilyVectorEnv

__all__ = [
    "Array",
    "Family",
    "FamilyEnv",
    "FamilyVectorEnv",
    "Params",
    "View",
    "sequential_dot",
]
