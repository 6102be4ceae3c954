"""The four frozen lake families: what differs between their tasks.

Shapes: M tasks, S tiles.
"""

import numpy as np

from metarl_envs.core import FloatArray, Task
from metarl_envs.distributions import FiniteTasks, UniformTasks
from metarl_envs.tabular.frozen_lake import maps
from metarl_envs.tabular.frozen_lake.family import FrozenLakeFamily, Tiles
from metarl_envs.tabular.frozen_lake.maps import Desc
from metarl_envs.tabular.frozen_lake.settings import check_map, checked_range
from metarl_envs.tabular.frozen_lake.tasks import (
    HolesTask,
    LakeGoalTask,
    MapTasks,
    MarksTask,
    SlipTask,
)


class FrozenLakeHolesFamily(FrozenLakeFamily):
    """Maps that differ in their holes; see `FrozenLakeHolesEnv`."""

    task_class = HolesTask
    task_distribution: MapTasks

    def __init__(
        self,
        *,
        size: int = 4,
        p: float = 0.8,
        preset: str = "gymnasium",
        is_slippery: bool = False,
        success_rate: float = 1.0 / 3.0,
        hole_reward: float | None = None,
        absorbing: bool | None = None,
        discount: float | None = None,
        horizon: int | None = None,
    ) -> None:
        check_map(size, p)
        super().__init__(
            size=size,
            preset=preset,
            is_slippery=is_slippery,
            success_rate=success_rate,
            hole_reward=hole_reward,
            absorbing=absorbing,
            discount=discount,
            horizon=horizon,
        )
        self.p = p
        self.task_distribution = MapTasks(HolesTask, self.size, float(p))

    def are_tasks(self, arrays: FloatArray) -> bool:
        """Whether all are of this family, (M, n)."""
        return self.task_distribution.are_maps(arrays)

    def tiles(self, arrays: FloatArray) -> Tiles:
        """The holes of each task."""
        return _flagged_tiles(arrays, maps.HOLE)

    def task_from_desc(self, desc: Desc) -> Task:
        """The task of a map of `S`, `F`, `H` and `G`; `ValueError` for one without a path from the
        top left `S` to the bottom right `G`.
        """
        flags = _flags_from_desc(desc, self.size, "H")
        return self.task_distribution.from_array(flags)


class FrozenLakeRewardFamily(FrozenLakeFamily):
    """A lake without holes whose tiles differ in what they cost; see `FrozenLakeRewardEnv`."""

    task_class = MarksTask
    task_distribution: MapTasks

    def __init__(
        self,
        *,
        size: int = 4,
        p: float = 0.8,
        penalty: float = 0.1,
        preset: str = "gymnasium",
        is_slippery: bool = False,
        success_rate: float = 1.0 / 3.0,
        absorbing: bool | None = None,
        discount: float | None = None,
        horizon: int | None = None,
    ) -> None:
        check_map(size, p)
        super().__init__(
            size=size,
            preset=preset,
            is_slippery=is_slippery,
            success_rate=success_rate,
            penalty=penalty,
            absorbing=absorbing,
            discount=discount,
            horizon=horizon,
        )
        self.p = p
        self.task_distribution = MapTasks(MarksTask, self.size, float(p))

    def are_tasks(self, arrays: FloatArray) -> bool:
        """Whether all are of this family, (M, n)."""
        return self.task_distribution.are_maps(arrays)

    def tiles(self, arrays: FloatArray) -> Tiles:
        """The tiles of each task that cost."""
        return _flagged_tiles(arrays, maps.COSTLY)

    def task_from_desc(self, desc: Desc) -> Task:
        """The task of a map of `S`, `F`, `C` (costs) and `G`; `ValueError` for one in which every
        path from the top left `S` to the bottom right `G` costs.
        """
        flags = _flags_from_desc(desc, self.size, "C")
        return self.task_distribution.from_array(flags)


class FrozenLakeSlipFamily(FrozenLakeFamily):
    """One of Gymnasium's maps, more or less slippery; see `FrozenLakeSlipEnv`."""

    task_class = SlipTask

    def __init__(
        self,
        *,
        map_name: str = "4x4",
        slip_range: tuple[float, float] = (0.0, 2.0 / 3.0),
        preset: str = "gymnasium",
        hole_reward: float | None = None,
        absorbing: bool | None = None,
        discount: float | None = None,
        horizon: int | None = None,
    ) -> None:
        self._holes = maps.holes_of_map(map_name)
        low, high = checked_range(slip_range)
        super().__init__(
            size=round(len(self._holes) ** 0.5),
            preset=preset,
            is_slippery=True,
            success_rate=1.0,
            hole_reward=hole_reward,
            absorbing=absorbing,
            discount=discount,
            horizon=horizon,
        )
        self.map_name, self.slip_range = map_name, slip_range
        self.task_distribution = UniformTasks(SlipTask.from_array, low, high)

    def are_tasks(self, arrays: FloatArray) -> bool:
        """Whether all are of this family, (M, n)."""
        low, high = self.slip_range
        return bool(np.all((arrays >= low) & (arrays <= high)))

    def tiles(self, arrays: FloatArray) -> Tiles:
        """The same for every task."""
        tiles = np.zeros((len(arrays), self.n_states), dtype=np.uint8)
        tiles[:, self._holes] = maps.HOLE
        tiles[:, -1] = maps.GOAL
        return tiles

    def success_rates(self, arrays: FloatArray) -> FloatArray:
        """One minus each task's slip probability."""
        return np.subtract(1.0, arrays[:, 0])


class FrozenLakeGoalFamily(FrozenLakeFamily):
    """One of Gymnasium's maps, with the goal anywhere; see `FrozenLakeGoalEnv`."""

    task_class = LakeGoalTask

    def __init__(
        self,
        *,
        map_name: str = "4x4",
        preset: str = "gymnasium",
        is_slippery: bool = False,
        success_rate: float = 1.0 / 3.0,
        hole_reward: float | None = None,
        absorbing: bool | None = None,
        discount: float | None = None,
        horizon: int | None = None,
    ) -> None:
        self._holes = maps.holes_of_map(map_name)
        super().__init__(
            size=round(len(self._holes) ** 0.5),
            preset=preset,
            is_slippery=is_slippery,
            success_rate=success_rate,
            hole_reward=hole_reward,
            absorbing=absorbing,
            discount=discount,
            horizon=horizon,
        )
        self.map_name = map_name
        tiles = np.flatnonzero(maps.reachable(self._holes[None], self.size)[0])
        self._goals = tiles[tiles != maps.START]
        self.task_distribution = FiniteTasks([LakeGoalTask(goal) for goal in self._goals.tolist()])

    def are_tasks(self, arrays: FloatArray) -> bool:
        """Whether all are of this family, (M, n)."""
        return bool(np.isin(arrays, self._goals).all())

    def tiles(self, arrays: FloatArray) -> Tiles:
        """The map's holes and each task's goal."""
        tiles = np.zeros((len(arrays), self.n_states), dtype=np.uint8)
        tiles[:, self._holes] = maps.HOLE
        tiles[np.arange(len(arrays)), arrays[:, 0].astype(np.int64)] = maps.GOAL
        return tiles

    def task_from_desc(self, desc: Desc) -> Task:
        """The task of this family's map with its one `G` somewhere; `ValueError` for any other."""
        rows = maps.checked_rows(desc, self.size)
        goals = np.flatnonzero(maps.letters(rows) == "G")
        if len(goals) == 1 and goals[0] in self._goals:
            task = self.task_distribution.from_array(goals.astype(np.float64))
            if self.desc(task) == rows:
                return task
        raise ValueError(
            f"desc={desc!r} must be the map {self.map_name} with one G in place of one F"
        )


def _flagged_tiles(arrays: FloatArray, kind: int) -> Tiles:
    """Tiles of a kind where the flags are 1, with the goal in the last corner, (M, S)."""
    tiles = np.multiply(arrays, kind).astype(np.uint8)
    tiles[:, -1] = maps.GOAL
    return tiles


def _flags_from_desc(desc: Desc, size: int, letter: str) -> FloatArray:
    """Which tiles have a letter, (S,), where all others are frozen but for start and goal."""
    letters = maps.letters(maps.checked_rows(desc, size))
    ends = letters[maps.START] == maps.START_LETTER and letters[-1] == "G"
    if not ends or not np.isin(letters[1:-1], ["F", letter]).all():
        raise ValueError(
            f"desc={desc!r} must begin with S, end with G and have F or {letter} in between"
        )
    return (letters == letter).astype(np.float64)
