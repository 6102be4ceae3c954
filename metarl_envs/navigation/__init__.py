"""Points in the plane that look for goals, corners and winds: cheap continuous control with exact
optima.
"""

from metarl_envs.navigation.corner import PointCornerFamily
from metarl_envs.navigation.env import (
    PointCornerEnv,
    PointCornerVectorEnv,
    PointGoalEnv,
    PointGoalVectorEnv,
    PointRobotEnv,
    PointRobotVectorEnv,
    PointWindEnv,
    PointWindVectorEnv,
    SparsePointGoalEnv,
    SparsePointGoalVectorEnv,
)
from metarl_envs.navigation.families import (
    PointGoalFamily,
    PointRobotFamily,
    PointWindFamily,
    SparsePointGoalFamily,
)
from metarl_envs.navigation.tasks import AngleTask, GoalTask, WindTask

__all__ = [
    "AngleTask",
    "GoalTask",
    "PointCornerEnv",
    "PointCornerFamily",
    "PointCornerVectorEnv",
    "PointGoalEnv",
    "PointGoalFamily",
    "PointGoalVectorEnv",
    "PointRobotEnv",
    "PointRobotFamily",
    "PointRobotVectorEnv",
    "PointWindEnv",
    "PointWindFamily",
    "PointWindVectorEnv",
    "SparsePointGoalEnv",
    "SparsePointGoalFamily",
    "SparsePointGoalVectorEnv",
    "WindTask",
]
