"""Bandits with a budget of pulls, their Bayes-optimal values, and reference strategies."""

from metarl_envs.tabular.bandit.bayes_optimal import (
    BayesOptimalPolicy,
    bayes_optimal_policy,
    bayes_optimal_value,
)
from metarl_envs.tabular.bandit.env import (
    BernoulliBanditEnv,
    BernoulliBanditVectorEnv,
    GaussianBanditEnv,
    GaussianBanditVectorEnv,
)
from metarl_envs.tabular.bandit.family import (
    BanditFamily,
    BernoulliBanditFamily,
    BernoulliBanditTask,
    GaussianBanditFamily,
    GaussianBanditTask,
)
from metarl_envs.tabular.bandit.strategies import (
    Strategy,
    UpperConfidenceBound,
    greedy,
    random_arms,
    thompson_sampling,
    total_rewards,
)

__all__ = [
    "BanditFamily",
    "BayesOptimalPolicy",
    "BernoulliBanditEnv",
    "BernoulliBanditFamily",
    "BernoulliBanditTask",
    "BernoulliBanditVectorEnv",
    "GaussianBanditEnv",
    "GaussianBanditFamily",
    "GaussianBanditTask",
    "GaussianBanditVectorEnv",
    "Strategy",
    "UpperConfidenceBound",
    "bayes_optimal_policy",
    "bayes_optimal_value",
    "greedy",
    "random_arms",
    "thompson_sampling",
    "total_rewards",
]
