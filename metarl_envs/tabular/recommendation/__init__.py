"""Sequential recommendation to segments of customers."""

from metarl_envs.tabular.recommendation.env import RecommendationEnv, RecommendationVectorEnv
from metarl_envs.tabular.recommendation.family import RecommendationFamily
from metarl_envs.tabular.recommendation.tasks import RecommendationTask, RecommendationTasks

__all__ = [
    "RecommendationEnv",
    "RecommendationFamily",
    "RecommendationTask",
    "RecommendationTasks",
    "RecommendationVectorEnv",
]
