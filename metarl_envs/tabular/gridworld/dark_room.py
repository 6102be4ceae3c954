"""A dark room with an invisible goal.

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


@dataclass(frozen=True)
class DarkRoomTask(TupleTask):
    """Where the goal is."""

    goal: tuple[int, int]
    """(x, y)"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "DarkRoomTask":
        """The inverse of `to_array`."""
        return cls((int(array[0]), int(array[1])))


class DarkRoomFamily(GridFamily):
    """A dark room with an invisible goal; see `DarkRoomEnv`."""

    def __init__(
        self,
        *,
        size: int = 9,
        horizon: int = 20,
        start: Start = None,
        reward_once: bool = False,
    ) -> None:
        check_flags(reward_once=reward_once)
        super().__init__(size, horizon, start, n_phases=2 if reward_once else 1)
        self.reward_once = reward_once
        places = [self.grid.coordinates]
        self.task_distribution = PlacementTasks(DarkRoomTask.from_array, places)

    def compile(self, arrays: FloatArray) -> Params:
        """The state in which the goal pays, (B,)."""
        return {"goal": self.grid.cells(arrays) * self.n_phases}

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """A move, and 1 where it leads to the goal; with `reward_once` also the phase after it."""
        moved = self.moved(states, actions)
        is_paid = moved == params["goal"]
        following = moved + is_paid if self.reward_once else moved
        return following, is_paid.astype(np.float64), np.zeros(len(moved), dtype=np.bool_)

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of an agent that knows the goal, (M,): at distance d `H - max(d, 1) + 1`,
        and 0 where the goal is too far; with `reward_once` 1 or 0.

        On the start (d = 0) the goal pays from the first step on, as at distance 1.
        """
        goals = self.grid.cells(task_arrays(self.task_distribution, tasks))
        steps = np.maximum(self.grid.distances(self.start_cells), 1)
        n_paid = np.maximum(self.horizon - steps + 1, 0)
        returns = np.minimum(n_paid, 1 if self.reward_once else self.horizon).mean(axis=0)
        return np.asarray(returns[goals], dtype=np.float64)

    def marks(self, view: View) -> dict[str, tuple[int, int]]:
        """The goal."""
        goal = self.place(view, "goal")
        return {} if goal is None else {"goal": goal}


class DarkRoomEnv(FamilyEnv):
    """Find an invisible goal in a dark room and stay there.

    ## Description
    The Dark Room of Algorithm Distillation (Laskin et al., 2022, https://arxiv.org/abs/2210.14215).
    The agent sees its own cell only, and must infer the goal from the reward.

    ## Action Space
    `Discrete(5)`: stay, up (y + 1), right (x + 1), down, left. A move against the border leads
    nowhere.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's cell (x, y).

    ## Rewards
    1 for every step that ends on the goal, otherwise 0. Staying there counts, as in the code of the
    Decision-Pretrained Transformer. With `reward_once` only the first such step of an episode pays.

    ## Starting State
    `start`, by default the centre, cell `(size // 2, size // 2)`.

    ## Episode End
    The episode is truncated after `horizon` steps; it never terminates.

    ## Arguments
    * `size`, `horizon`: 9 and 20 as in Algorithm Distillation.
    * `start`: (x, y), `None` for the centre, as there, or "random" for any cell.
    * `reward_once`: whether the goal pays only once per episode. With `size=17` this is, as far as
      this package knows, their harder variant of the room.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    The room of the Decision-Pretrained Transformer (Lee et al., 2023,
    https://arxiv.org/abs/2306.14892) is `size=10, horizon=100, start=(0, 0)`.

    ## Task family
    A task is `DarkRoomTask(goal)`, uniform over all cells, the start among them. `optimal_return`,
    in closed form, is that of an agent who knows the goal at distance d: `horizon - max(d, 1) + 1`,
    on average over starts.
    """

    family_class = DarkRoomFamily
    family: DarkRoomFamily


class DarkRoomVectorEnv(FamilyVectorEnv):
    """`num_envs` rooms at once, each with its own goal; see `DarkRoomEnv` and `FamilyVectorEnv` for
    the arguments.
    """

    family_class = DarkRoomFamily
    family: DarkRoomFamily
