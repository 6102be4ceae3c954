"""The grid of VariBAD with a hidden goal.

Shapes: B environments, M tasks, K episodes, H steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl_envs.batched.checking import check_counts, check_magnitudes
from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.family import Array, Params, View
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task, TupleTask
from metarl_envs.distributions import task_arrays
from metarl_envs.tabular.gridworld.exploration import MAX_NODES, GoalSearch, SearchPlan
from metarl_envs.tabular.gridworld.family import GridFamily
from metarl_envs.tabular.gridworld.placement import PlacementTasks


@dataclass(frozen=True)
class GridGoalTask(TupleTask):
    """Where the goal is."""

    goal: tuple[int, int]
    """(x, y)"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "GridGoalTask":
        """The inverse of `to_array`."""
        return cls((int(array[0]), int(array[1])))


class GridGoalFamily(GridFamily):
    """A grid with a hidden goal that pays at every step; see `GridGoalEnv`."""

    def __init__(
        self,
        *,
        size: int = 5,
        horizon: int = 15,
        goal_reward: float = 1.0,
        step_reward: float = -0.1,
    ) -> None:
        check_counts(size=size, horizon=horizon)
        check_magnitudes(goal_reward=goal_reward, step_reward=step_reward)
        if size < 3:
            raise ValueError(f"size={size!r} must be at least 3: the start corner holds no goal")
        if goal_reward <= step_reward:
            raise ValueError(f"goal_reward={goal_reward!r} must exceed step_reward={step_reward!r}")
        super().__init__(size, horizon, (0, 0), n_phases=1)
        self.goal_reward, self.step_reward = goal_reward, step_reward
        is_corner = (self.grid.coordinates < 2).all(axis=1)
        self.goals = self.grid.coordinates[~is_corner]
        self.task_distribution = PlacementTasks(GridGoalTask.from_array, [self.goals])

    def compile(self, arrays: FloatArray) -> Params:
        """The cell of the goal, (B,)."""
        return {"goal": self.grid.cells(arrays)}

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """A move, and the reward of the cell that it leads to."""
        following = self.moved(states, actions)
        rewards = np.where(following == params["goal"], self.goal_reward, self.step_reward)
        return following, rewards, np.zeros(len(following), dtype=np.bool_)

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Return of an agent that knows the goal at distance d, (M,): `step_reward` for the first
        d - 1 steps and `goal_reward` for all others.
        """
        goals = self.grid.cells(task_arrays(self.task_distribution, tasks))
        n_paid = np.maximum(self.horizon - self.grid.distances(self.start_cells[0])[goals] + 1, 0)
        return n_paid * self.goal_reward + (self.horizon - n_paid) * self.step_reward

    def best_adaptive_plan(self, n_episodes: int, *, max_nodes: int = MAX_NODES) -> SearchPlan:
        """How to look for a uniformly drawn goal over a trial of K episodes, and what it pays.

        The reward tells whether the goal is here, so an adaptive strategy is a walk over cells,
        followed until it meets the goal, and the shortest way to the goal from then on. The walk is
        an exact optimum (see `GoalSearch`).

        :param n_episodes: K, all in one task; each begins in the start corner
        :param max_nodes: after which the search gives up with a `ValueError`; the default ones take
            about a second on a 10 x 10 grid
        """
        goals = self.grid.cells(self.goals).tolist()
        search = GoalSearch(self.grid, int(self.start_cells[0]), goals, self.horizon, n_episodes)
        return search.plan(self.goal_reward, self.step_reward, max_nodes)

    def best_adaptive_returns(self, n_episodes: int, *, max_nodes: int = MAX_NODES) -> FloatArray:
        """Expected return of each episode of a trial, (K,), of the strategy whose sum over the
        trial is the largest, over a uniformly drawn goal that is unknown at first.

        With the default arguments 4.0 for the first and 11.07 for every other one: 14 goals can be
        met at steps 2 to 15, one at each, and the 7 others then lie on a shortest way to the
        opposite corner, where the second episode meets each as early as if it were known.

        :param n_episodes: K
        :param max_nodes: as in `best_adaptive_plan`
        """
        return np.array(self.best_adaptive_plan(n_episodes, max_nodes=max_nodes).returns)

    def marks(self, view: View) -> dict[str, tuple[int, int]]:
        """The goal."""
        goal = self.place(view, "goal")
        return {} if goal is None else {"goal": goal}


class GridGoalEnv(FamilyEnv):
    """Find a hidden goal on a 5 x 5 grid and stay there.

    ## Description
    The grid world of VariBAD (Zintgraf et al., 2020, https://arxiv.org/abs/1910.08348; their code's
    `GridNavi`), called GridNavi there. Only the reward tells where the goal is, and it does so as
    soon as the agent steps on it.

    ## Action Space
    `Discrete(5)`: stay, up (y + 1), right (x + 1), down, left. A move against the border leads
    nowhere.

    ## Observation Space
    `MultiDiscrete([size, size])`: the agent's cell (x, y). The goal is not observed.

    ## Rewards
    `goal_reward` (1) for every step that ends on the goal, `step_reward` (-0.1) for any other.

    ## Starting State
    Cell (0, 0).

    ## Episode End
    The episode is truncated after `horizon` steps (15 as published); it never terminates.

    ## Arguments
    * `size`: cells along a side, at least 3. Sizes other than 5 are this package's own.
    * `horizon`: steps of an episode.
    * `goal_reward`, `step_reward`: as published 1 and -0.1; `goal_reward` must be the larger.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `GridGoalTask(goal)`, uniform over the cells outside the 2 x 2 corner around the
    start: 21 tasks. `optimal_return`, in closed form, is that of an agent who knows the goal at
    distance d, `(H - d + 1) goal_reward + (d - 1) step_reward`; its mean over the goals is 11.07.
    `family.best_adaptive_returns(n_episodes)` are the best that a strategy can expect that does not
    know it, in each episode of a trial: 4.0, then 11.07 in every further one, so 37.2 in four.
    """

    family_class = GridGoalFamily
    family: GridGoalFamily


class GridGoalVectorEnv(FamilyVectorEnv):
    """`num_envs` grids at once, each with its own goal; see `GridGoalEnv` and `FamilyVectorEnv` for
    the arguments.
    """

    family_class = GridGoalFamily
    family: GridGoalFamily
