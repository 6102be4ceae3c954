"""Ant: run in a direction, at a speed, or to a place."""

from metarl_envs.locomotion.ant.env import (
    AntDir2DEnv,
    AntDir2DVectorEnv,
    AntDirEnv,
    AntDirVectorEnv,
    AntGoalEnv,
    AntGoalVectorEnv,
    AntVelEnv,
    AntVelVectorEnv,
)
from metarl_envs.locomotion.ant.families import (
    AntDir2DFamily,
    AntDirFamily,
    AntGoalFamily,
    AntVelFamily,
)

__all__ = [
    "AntDir2DEnv",
    "AntDir2DFamily",
    "AntDir2DVectorEnv",
    "AntDirEnv",
    "AntDirFamily",
    "AntDirVectorEnv",
    "AntGoalEnv",
    "AntGoalFamily",
    "AntGoalVectorEnv",
    "AntVelEnv",
    "AntVelFamily",
    "AntVelVectorEnv",
]
