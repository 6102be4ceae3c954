"""The family of a point that looks for one of four corners.

Shapes: B environments, M tasks, H steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from metarl_envs.batched.checking import check_choice
from metarl_envs.batched.family import Array, Params
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.distributions import FiniteTasks, check_tasks
from metarl_envs.navigation.point import PointFamily, check_lengths, check_positive
from metarl_envs.navigation.rendering import Scene
from metarl_envs.navigation.tasks import GoalTask

CornerReward = Literal["potential", "progress"]

# At 2 only the corner itself would pay, which float32 actions may miss.
_MOST_SPARSE = 1.9


class PointCornerFamily(PointFamily):
    """One of four corners, felt in its own quadrant only; see `PointCornerEnv`.

    The optimum for an agent that knows the task: with the potential `phi(x) = |g| - |x - g|` in the
    part of the plane that pays and 0 elsewhere, rewards `phi(x') - phi(x)` add up to `phi(x_H) -
    phi(x_0)`. No start pays, so the return is `phi(x_H) <= |g|`, with equality for everybody who is
    at the goal in the end.
    """

    def __init__(
        self,
        *,
        reward: CornerReward = "potential",
        corner: float = 2.0,
        sparse_radius: float = 0.5,
        start_range: float = 0.2,
        horizon: int = 100,
        max_step: float = 0.2,
    ) -> None:
        check_choice("reward", reward, CornerReward)
        check_positive(corner=corner)
        check_lengths(sparse_radius=sparse_radius, start_range=start_range)
        super().__init__(
            horizon=horizon,
            max_step=max_step,
            start_low=(-start_range, -start_range),
            start_high=(start_range, start_range),
        )
        self.reward, self.corner = reward, corner
        self.sparse_radius, self.start_range = sparse_radius, start_range
        self._check_sizes()
        self.goals = corner * np.array([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
        self.task_distribution = FiniteTasks([GoalTask.from_array(goal) for goal in self.goals])

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Moves, and pays for progress in the goal's quadrant."""
        following = self.moved(params, states, actions)
        goals = params["goal"]
        before, after = _distances(states, goals), _distances(following, goals)
        pays = self._pays(following, goals)
        if self.reward == "progress":
            rewards = np.where(pays, before - after, 0.0)
        else:
            whole = self.corner * np.sqrt(2.0)
            rewards = np.where(pays, whole - after, 0.0)
            rewards -= np.where(self._pays(states, goals), whole - before, 0.0)
        return following, rewards, np.zeros(len(states), dtype=np.bool_)

    # With the published reward nobody knows the optimum, and then there must be no such member.

    @property
    def optimal_returns(self) -> Callable[[Sequence[Task]], FloatArray]:
        """Return of an agent that knows the task, (M,): the distance between centre and corner."""
        self._require_known_optimum()
        return self._optimal_returns

    @property
    def optimal_return(self) -> Callable[[Task], float]:
        """Return of an agent that knows the task: the distance between centre and corner."""
        self._require_known_optimum()
        return self._optimal_return

    def scene(self, params: Mapping[str, Array]) -> Scene:
        """The goal, the other corners, and the diamond in the middle that pays nothing."""
        r = self.sparse_radius
        return Scene(
            half_width=1.25 * self.corner,
            horizon=self.horizon,
            goal=params.get("goal"),
            places=self.goals,
            outline=np.array([[r, 0.0], [0.0, r], [-r, 0.0], [0.0, -r], [r, 0.0]]),
        )

    def _check_sizes(self) -> None:
        if 2 * self.start_range >= self.sparse_radius:
            raise ValueError(
                f"start_range={self.start_range!r} must be below half of "
                f"sparse_radius={self.sparse_radius!r}: no start may pay"
            )
        if self.sparse_radius > _MOST_SPARSE * self.corner:
            raise ValueError(
                f"sparse_radius={self.sparse_radius!r} must be at most {_MOST_SPARSE} times corner="
                f"{self.corner!r}: the corners, and what is near, have to pay"
            )
        if self.horizon * self.max_step < self.corner + self.start_range:
            raise ValueError(
                f"horizon={self.horizon!r} steps of max_step={self.max_step!r} do not reach "
                f"corner={self.corner!r} from every start: give more"
            )

    def _pays(self, positions: Array, goals: Array) -> BoolArray:
        """Whether the goal is a nearest corner, and the position not in the middle, (B,)."""
        sides = positions * goals
        middle = np.abs(positions[:, 0]) + np.abs(positions[:, 1]) < self.sparse_radius
        return np.asarray((sides[:, 0] >= 0) & (sides[:, 1] >= 0) & ~middle)

    def _require_known_optimum(self) -> None:
        if self.reward != "potential":
            raise AttributeError(
                f"reward={self.reward!r} has no known optimum: it pays for going in and out again"
            )

    def _optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        tasks = check_tasks(self.task_distribution, tasks)
        return np.full(len(tasks), self.corner * np.sqrt(2.0))

    def _optimal_return(self, task: Task) -> float:
        return float(self._optimal_returns([task])[0])


def _distances(positions: Array, goals: Array) -> FloatArray:
    offsets = positions - goals
    offsets *= offsets
    return np.asarray(np.sqrt(offsets[:, 0] + offsets[:, 1]))
