"""Frozen lakes that differ in their holes, their costs, their slipperiness or their goal."""

from metarl_envs.tabular.frozen_lake.env import (
    FrozenLakeGoalEnv,
    FrozenLakeGoalVectorEnv,
    FrozenLakeHolesEnv,
    FrozenLakeHolesVectorEnv,
    FrozenLakeRewardEnv,
    FrozenLakeRewardVectorEnv,
    FrozenLakeSlipEnv,
    FrozenLakeSlipVectorEnv,
)
from metarl_envs.tabular.frozen_lake.family import FrozenLakeFamily
from metarl_envs.tabular.frozen_lake.settings import PRESETS, Setting
from metarl_envs.tabular.frozen_lake.tasks import (
    HolesTask,
    LakeGoalTask,
    MapTasks,
    MarksTask,
    SlipTask,
)
from metarl_envs.tabular.frozen_lake.variants import (
    FrozenLakeGoalFamily,
    FrozenLakeHolesFamily,
    FrozenLakeRewardFamily,
    FrozenLakeSlipFamily,
)

__all__ = [
    "PRESETS",
    "FrozenLakeFamily",
    "FrozenLakeGoalEnv",
    "FrozenLakeGoalFamily",
    "FrozenLakeGoalVectorEnv",
    "FrozenLakeHolesEnv",
    "FrozenLakeHolesFamily",
    "FrozenLakeHolesVectorEnv",
    "FrozenLakeRewardEnv",
    "FrozenLakeRewardFamily",
    "FrozenLakeRewardVectorEnv",
    "FrozenLakeSlipEnv",
    "FrozenLakeSlipFamily",
    "FrozenLakeSlipVectorEnv",
    "HolesTask",
    "LakeGoalTask",
    "MapTasks",
    "MarksTask",
    "Setting",
    "SlipTask",
]
