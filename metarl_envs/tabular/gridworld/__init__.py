"""Open grids with a hidden goal, or a hidden key and door."""

from metarl_envs.tabular.gridworld.dark_key_to_door import (
    DarkKeyToDoorEnv,
    DarkKeyToDoorFamily,
    DarkKeyToDoorTask,
    DarkKeyToDoorVectorEnv,
)
from metarl_envs.tabular.gridworld.dark_room import (
    DarkRoomEnv,
    DarkRoomFamily,
    DarkRoomTask,
    DarkRoomVectorEnv,
)
from metarl_envs.tabular.gridworld.grid_goal import (
    GridGoalEnv,
    GridGoalFamily,
    GridGoalTask,
    GridGoalVectorEnv,
)

__all__ = [
    "DarkKeyToDoorEnv",
    "DarkKeyToDoorFamily",
    "DarkKeyToDoorTask",
    "DarkKeyToDoorVectorEnv",
    "DarkRoomEnv",
    "DarkRoomFamily",
    "DarkRoomTask",
    "DarkRoomVectorEnv",
    "GridGoalEnv",
    "GridGoalFamily",
    "GridGoalTask",
    "GridGoalVectorEnv",
]
