"""Random finite MDPs, and reference learners for them."""

from metarl_envs.tabular.random_mdp.env import RandomMDPEnv, RandomMDPVectorEnv
from metarl_envs.tabular.random_mdp.family import RandomMDPFamily
from metarl_envs.tabular.random_mdp.learners import (
    Posterior,
    episode_returns,
    expected_model,
    sampled_model,
)
from metarl_envs.tabular.random_mdp.tasks import RandomMDPTask, RandomMDPTasks

__all__ = [
    "Posterior",
    "RandomMDPEnv",
    "RandomMDPFamily",
    "RandomMDPTask",
    "RandomMDPTasks",
    "RandomMDPVectorEnv",
    "episode_returns",
    "expected_model",
    "sampled_model",
]
