"""A dark room with an invisible key and the invisible door that it opens.

Shapes: B environments, M tasks, H steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl_envs.batched.checking import check_flags
from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.family import Array, Params, View
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task, TupleTask
from metarl_envs.distributions import task_arrays
from metarl_envs.tabular.gridworld.family import GridFamily
from metarl_envs.tabular.gridworld.grid import Start
from metarl_envs.tabular.gridworld.placement import PlacementTasks

N_PHASES = 3  # without the key, with it, door open


@dataclass(frozen=True)
class DarkKeyToDoorTask(TupleTask):
    """Where the key and the door are, possibly on the same cell."""

    key: tuple[int, int]
    """(x, y)"""
    door: tuple[int, int]
    """(x, y)"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "DarkKeyToDoorTask":
        """The inverse of `to_array`."""
        key_x, key_y, door_x, door_y = (int(number) for number in array)
        return cls((key_x, key_y), (door_x, door_y))


class DarkKeyToDoorFamily(GridFamily):
    """A dark room with an invisible key and door; see `DarkKeyToDoorEnv`."""

    def __init__(
        self,
        *,
        size: int = 9,
        horizon: int = 50,
        start: Start = "random",
        ends_at_door: bool = False,
    ) -> None:
        check_flags(ends_at_door=ends_at_door)
        super().__init__(size, horizon, start, N_PHASES)
        self.ends_at_door = ends_at_door
        places = [self.grid.coordinates] * 2
        self.task_distribution = PlacementTasks(DarkKeyToDoorTask.from_array, places)

    def compile(self, arrays: FloatArray) -> Params:
        """The states in which the key and the door pay, (B,) each."""
        return {
            "key": self.grid.cells(arrays[:, :2]) * N_PHASES,
            "door": self.grid.cells(arrays[:, 2:]) * N_PHASES + 1,
        }

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """A move; then the key is picked up, then the door opened, each for a reward of 1."""
        moved = self.moved(states, actions)
        finds_key = moved == params["key"]
        with_key = moved + finds_key
        opens = with_key == params["door"]
        rewards = np.add(finds_key, opens, dtype=np.float64)
        terminated = opens if self.ends_at_door else np.zeros(len(moved), dtype=np.bool_)
        return with_key + opens, rewards, terminated

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of an agent that knows key and door, (M,): the share of starts from which
        the key can be reached in time, plus that of those from which the door can be after it.

        A key on the start is picked up at the end of the first step, as one at distance 1.
        """
        arrays = task_arrays(self.task_distribution, tasks)
        keys = self.grid.cells(arrays[:, :2])
        to_door = np.abs(arrays[:, :2] - arrays[:, 2:]).sum(axis=-1).astype(np.int64)
        in_time = self._shares_in_time()
        n_left = np.minimum(self.horizon, in_time.shape[1] - 1)
        left_for_key = np.clip(self.horizon - to_door, 0, n_left)
        return in_time[keys, n_left] + in_time[keys, left_for_key]

    def _shares_in_time(self) -> FloatArray:
        """The share of starts from which each cell can be reached within n steps, at least one,
        (N^2, 2 N): n from 0 to 2 N - 1, which is enough for all.
        """
        n_most = 2 * self.size
        shares = np.zeros((self.grid.n_cells, n_most))
        for start in self.start_cells.tolist():
            steps = np.maximum(self.grid.distances(start), 1)
            shares[np.arange(self.grid.n_cells), steps] += 1.0
        return np.cumsum(shares, axis=1) / len(self.start_cells)

    def marks(self, view: View) -> dict[str, tuple[int, int]]:
        """The key, until it is picked up, and the door."""
        left = ("key", "door") if view.episode_return < 1 else ("door",)
        places = {name: self.place(view, name) for name in left}
        return {name: cell for name, cell in places.items() if cell is not None}


class DarkKeyToDoorEnv(FamilyEnv):
    """Find an invisible key in a dark room, then the invisible door that it opens.

    ## Description
    The Dark Key-to-Door of Algorithm Distillation (Laskin et al., 2022,
    https://arxiv.org/abs/2210.14215).

    ## Action Space
    `Discrete(5)`: stay, up (y + 1), right (x + 1), down, left. A move against the border leads
    nowhere.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's cell (x, y). Neither is it observed whether the agent
    has the key; it can remember the reward.

    ## Rewards
    1 once for the first step that ends on the key, and 1 once for the first step after that, or the
    same one, that ends on the door; otherwise 0. So a cell with both pays 2 at once (this package's
    reading).

    ## Starting State
    A cell drawn uniformly, or `start`, without the key.

    ## Episode End
    The episode is truncated after `horizon` steps. It terminates only with `ends_at_door`, when the
    door opens.

    ## Arguments
    * `size`, `horizon`: 9 and 50 as published.
    * `start`: "random" for any cell (default), to this package's knowledge as in Algorithm
      Distillation; a cell (x, y); or `None` for the centre.
    * `ends_at_door`: whether the open door ends the episode; `False`, as far as this package knows,
      in Algorithm Distillation.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `DarkKeyToDoorTask(key, door)`, each uniform over all cells and independent: 81^2 =
    6561 tasks. `optimal_return`, exact and over starts, is that of an agent who knows both: 2 in
    every task with the default arguments.
    """

    family_class = DarkKeyToDoorFamily
    family: DarkKeyToDoorFamily


class DarkKeyToDoorVectorEnv(FamilyVectorEnv):
    """`num_envs` rooms at once, each with its own key and door; see `DarkKeyToDoorEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = DarkKeyToDoorFamily
    family: DarkKeyToDoorFamily
