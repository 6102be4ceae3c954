"""Finite MDPs whose optimal Q-function is linear, with exactly Gaussian parameters."""

from metarl_envs.tabular.inverse_bellman.env import InverseBellmanEnv, InverseBellmanVectorEnv
from metarl_envs.tabular.inverse_bellman.family import InverseBellmanFamily
from metarl_envs.tabular.inverse_bellman.tasks import InverseBellmanTask

__all__ = [
    "InverseBellmanEnv",
    "InverseBellmanFamily",
    "InverseBellmanTask",
    "InverseBellmanVectorEnv",
]
