"""What grids with hidden things share: moves, observations, and their finite MDPs.

Shapes: B environments, M tasks, N cells along a side, P phases, S = N^2 P states, A = 5 actions.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import check_counts
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.core import FloatArray, IntArray, Task
from metarl_envs.distributions import task_arrays
from metarl_envs.tabular.gridworld.grid import ACTIONS, Grid, Start, checked_start_cells
from metarl_envs.tabular.mdp import FiniteMDP

if TYPE_CHECKING:
    from metarl_envs.tabular.gridworld.rendering import Scene


class GridFamily(Family):
    """A grid on which the agent sees only where it is.

    A state is `cell * n_phases + phase`: the phase counts what has been reached so far and stays
    hidden. A subclass writes `compile`, `step`, `optimal_returns` and `marks`.

    :param size: cells along a side, N
    :param horizon: steps of an episode
    :param start: (x, y), `None` for the centre, or "random" for any cell
    :param n_phases: P
    """

    def __init__(self, size: int, horizon: int, start: Start, n_phases: int) -> None:
        check_counts(size=size, horizon=horizon)
        self.size, self.horizon, self.start = size, horizon, start
        self.grid = Grid(size)
        self.n_phases = n_phases
        self.n_states = self.grid.n_cells * n_phases
        self.start_cells = checked_start_cells(start, self.grid)
        self.n_reset_uniforms = int(len(self.start_cells) > 1)
        self.observation_space = gym.spaces.MultiDiscrete([size, size])
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        neighbours = np.repeat(self.grid.neighbours, n_phases, axis=0) * n_phases
        phases = np.tile(np.arange(n_phases), self.grid.n_cells)
        self._moves = (neighbours + phases[:, None]).ravel()
        self._coordinates = np.repeat(self.grid.coordinates, n_phases, axis=0)

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """The start, or a random one, with nothing reached yet, (B,)."""
        if not self.n_reset_uniforms:
            return np.full(len(uniforms), self.start_cells[0] * self.n_phases)
        drawn = (uniforms[:, 0] * len(self.start_cells)).astype(np.int64)
        return self.start_cells.take(drawn) * self.n_phases

    def moved(self, states: Array, actions: Array) -> IntArray:
        """States after the moves, each in its old phase, (B,)."""
        return self._moves.take(states * len(ACTIONS) + actions)

    def observe(self, states: Array, stages: IntArray) -> Array:
        """The agent's cell (x, y), (B, 2)."""
        return self._coordinates.take(states, axis=0)

    @abstractmethod
    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of an agent that knows the task, (M,)."""

    def optimal_return(self, task: Task) -> float:
        """Expected return of an agent that knows the task."""
        return float(self.optimal_returns([task])[0])

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The tasks as one batch of finite MDPs; state `(x * N + y) * P + phase`.

        Where an episode terminates, the state that it ends in is one that pays nothing any more.
        """
        arrays = task_arrays(self.task_distribution, tasks)
        shape = len(arrays), self.n_states, len(ACTIONS)
        task, state, action = (index.ravel() for index in np.indices(shape))
        following, rewards, _ = self.step(
            self.compile(arrays[task]), state, np.zeros_like(state), action, np.empty((0, 0))
        )
        transitions = np.zeros((state.size, self.n_states))
        transitions[np.arange(state.size), following] = 1.0
        initial = np.zeros(self.n_states)
        initial[self.start_cells * self.n_phases] = 1.0 / len(self.start_cells)
        return FiniteMDP(
            transitions.reshape(*shape, self.n_states),
            rewards.reshape(shape),
            initial,
            horizon=self.horizon,
        )

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """One task as a finite MDP; states as in `finite_mdps`."""
        return self.finite_mdps([task])[0]

    @abstractmethod
    def marks(self, view: View) -> dict[str, tuple[int, int]]:
        """Names and cells (x, y) of the hidden things, for a picture."""

    def render_ansi(self, view: View) -> str:
        """The grid as lines of text."""
        from metarl_envs.tabular.gridworld.rendering import grid_text

        return grid_text(view, self._scene(view))

    def render_rgb(self, view: View) -> Any:
        """The grid with the agent, its way and the hidden things."""
        from metarl_envs.tabular.gridworld.rendering import grid_image

        return grid_image(view, self._scene(view))

    def place(self, view: View, name: str) -> tuple[int, int] | None:
        """The cell (x, y) that `compile` put under a name as a state, where the view has it."""
        if name not in view.params:
            return None
        x, y = self._coordinates[int(view.params[name])].tolist()
        return x, y

    def _scene(self, view: View) -> "Scene":
        from metarl_envs.tabular.gridworld.rendering import Scene

        (agent,) = _cells([view.observation])
        floor = np.ones((self.size, self.size), dtype=np.bool_)
        trail = frozenset(_cells(view.path))
        return Scene(floor, self.horizon, ACTIONS, self.marks(view), agent, trail)


def _cells(observations: Iterable[Array]) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in observations]
