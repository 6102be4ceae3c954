"""The T-maze: a cue at one end of a corridor tells where to turn at the other.

Shapes: B environments, M tasks, L the corridor's length, H steps, N positions, A = 4 actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import check_choice, check_counts, check_magnitudes
from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task, TupleTask
from metarl_envs.distributions import FiniteTasks, task_arrays
from metarl_envs.tabular.mdp import FiniteMDP

if TYPE_CHECKING:
    from metarl_envs.tabular.gridworld.rendering import Scene

Variant = Literal["active", "passive"]

ACTIONS = ("right", "up", "left", "down")
_MOVES = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])

# What is shown of the cue, part of the state: the agent was not at the oracle yet, it is there no
# more, or it is there for the first time and sees that the goal is up, or down.
_UNSEEN, _HIDDEN, _SHOWN_UP, _SHOWN_DOWN = range(4)
_N_CUES = 4


@dataclass(frozen=True)
class TMazeTask(TupleTask):
    """Which arm of the T is the right one."""

    side: int
    """1 (up) or -1 (down)"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "TMazeTask":
        """The inverse of `to_array`."""
        return cls(int(array[0]))


class TMazeFamily(Family):
    """A corridor with a cue at one end and a choice at the other; see `TMazeEnv`.

    A state is `position + N * cue`: positions are the corridor from the oracle to the junction, the
    upper and the lower arm; the cue is what is shown of it.
    """

    def __init__(
        self,
        *,
        corridor_length: int = 10,
        variant: Variant = "active",
        goal_reward: float = 1.0,
        penalty: float | None = None,
    ) -> None:
        check_counts(corridor_length=corridor_length)
        check_choice("variant", variant, Variant)
        self.corridor_length, self.variant = corridor_length, variant
        self.goal_reward, self.penalty = goal_reward, penalty
        self.step_penalty = -1.0 / corridor_length if penalty is None else penalty
        check_magnitudes(goal_reward=goal_reward, penalty=self.step_penalty)
        if goal_reward < 0 or self.step_penalty > 0:
            raise ValueError(
                f"goal_reward={goal_reward!r} must not be negative, and penalty={penalty!r} must "
                "not be positive"
            )
        self.oracle_length = 1 if variant == "active" else 0
        """cells from the oracle to the start"""
        self.horizon = corridor_length + 2 * self.oracle_length + 1
        self.junction = self.oracle_length + corridor_length
        self.n_positions = self.junction + 3
        self.task_distribution = FiniteTasks([TMazeTask(-1), TMazeTask(1)])
        self.observation_space = gym.spaces.MultiDiscrete([2, 3])
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self._x = np.append(np.arange(self.junction + 1), [self.junction] * 2)
        self._y = np.append(np.zeros(self.junction + 1, dtype=np.int64), [1, -1])
        self._x_of_state, self._y_of_state = np.tile(self._x, _N_CUES), np.tile(self._y, _N_CUES)
        self._following = self._transition_table().ravel()
        self._observations = self._observation_table()

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """The side of the goal, 1 or -1, (B,)."""
        return {"side": arrays[:, 0].astype(np.int64)}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """The start, (B,); in the passive variant it is the oracle, with the cue."""
        if self.variant == "active":
            return np.full(len(uniforms), self.oracle_length)
        return self.n_positions * np.where(params["side"] > 0, _SHOWN_UP, _SHOWN_DOWN)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """A move; the penalty where the agent is late, or in the last step the goal's reward."""
        sides = params["side"]
        rows = (states * len(ACTIONS) + actions) * 2 + (sides > 0)
        following = self._following.take(rows)
        is_late = self._x_of_state.take(following) < stages + (1 - self.oracle_length)
        is_right = self._y_of_state.take(following) == sides
        terminated = stages + 1 >= self.horizon
        penalties = np.where(is_late, self.step_penalty, 0.0)
        rewards = np.where(terminated, is_right * self.goal_reward, penalties)
        return following, rewards, terminated

    def observe(self, states: Array, stages: IntArray) -> Array:
        """Whether the corridor ends here, and the cue or the arm, (B, 2)."""
        return self._observations.take(states, axis=0)

    # Exact values

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Return of an agent that knows the side, (M,): `goal_reward`, without any penalty."""
        return np.full(len(task_arrays(self.task_distribution, tasks)), float(self.goal_reward))

    def optimal_return(self, task: Task) -> float:
        """Return of an agent that knows the side."""
        return float(self.optimal_returns([task])[0])

    def best_adaptive_return(self) -> float:
        """Expected return of the best agent that does not know the side at first: `goal_reward`.

        The episode is just long enough to look at the oracle first, which costs no penalty.
        """
        return float(self.goal_reward)

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The tasks as one batch of finite MDPs; state `stage * N + position`.

        The cue is left out: to who knows the task it changes nothing. There are H N states, about
        L^2, and the kernel is dense: for long corridors it does not fit into memory.
        """
        arrays = task_arrays(self.task_distribution, tasks)
        shape = len(arrays), self.horizon, self.n_positions, len(ACTIONS)
        task, stage, position, action = (index.ravel() for index in np.indices(shape))
        states = position + self.n_positions * _HIDDEN
        params = self.compile(arrays[task])
        following, rewards, _ = self.step(params, states, stage, action, np.empty((0, 0)))
        # The last stage leads back to the first: the horizon ends the episode before that.
        next_stage = (stage + 1) % self.horizon
        n_states = self.horizon * self.n_positions
        transitions = np.zeros((stage.size, n_states))
        columns = next_stage * self.n_positions + following % self.n_positions
        transitions[np.arange(stage.size), columns] = 1.0
        initial = np.zeros(n_states)
        initial[self.oracle_length] = 1.0
        core = len(arrays), n_states, len(ACTIONS)
        return FiniteMDP(
            transitions.reshape(*core, n_states),
            rewards.reshape(core),
            initial,
            horizon=self.horizon,
        )

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """One task as a finite MDP; states as in `finite_mdps`."""
        return self.finite_mdps([task])[0]

    def render_ansi(self, view: View) -> str:
        """The maze as lines of text."""
        from metarl_envs.tabular.gridworld.rendering import grid_text

        return grid_text(view, self._scene(view))

    def render_rgb(self, view: View) -> Any:
        """The maze from above."""
        from metarl_envs.tabular.gridworld.rendering import grid_image

        return grid_image(view, self._scene(view))

    def _transition_table(self) -> IntArray:
        """Next states, (4 N, A, 2): the last axis for a goal that is down, or up."""
        positions = {(x, y): p for p, (x, y) in enumerate(self._cells())}
        moved = np.array(
            [
                [positions.get((x + dx, y + dy), positions[x, y]) for dx, dy in _MOVES.tolist()]
                for x, y in self._cells()
            ]
        )
        cues = np.full((_N_CUES, *moved.shape, 2), _HIDDEN)
        # Only the first visit to the oracle shows the cue.
        cues[_UNSEEN] = np.where(moved[..., None] == 0, np.array([_SHOWN_DOWN, _SHOWN_UP]), _UNSEEN)
        table = moved[..., None] + self.n_positions * cues
        return table.reshape(-1, len(ACTIONS), 2).astype(np.int64)

    def _observation_table(self) -> IntArray:
        """(4 N, 2); the second number is 0 for nothing, 1 for up, 2 for down."""
        table = np.zeros((_N_CUES, self.n_positions, 2), dtype=np.int64)
        table[:, self.junction :, 0] = 1
        table[:, self.junction + 1 :, 1] = 1, 2
        table[_SHOWN_UP, 0, 1], table[_SHOWN_DOWN, 0, 1] = 1, 2
        return table.reshape(-1, 2)

    def _cells(self) -> list[tuple[int, int]]:
        """(x, y) of every position."""
        return list(zip(self._x.tolist(), self._y.tolist(), strict=True))

    def _scene(self, view: View) -> "Scene":
        from metarl_envs.tabular.gridworld.rendering import Scene

        cells = [(x, y + 1) for x, y in self._cells()]
        floor = np.zeros((self.junction + 1, 3), dtype=np.bool_)
        floor[tuple(np.transpose(cells))] = True
        marks = {"cue": cells[0]}
        if "side" in view.params:
            marks["goal"] = (self.junction, 1 + int(view.params["side"]))
        agent = None if view.state is None else cells[int(view.state) % self.n_positions]
        return Scene(floor, self.horizon, ACTIONS, marks, agent, trail=frozenset())


class TMazeEnv(FamilyEnv):
    """Look at a cue, remember it along a corridor, and turn to the right side at its end.

    ## Description
    The T-maze of Ni et al. (2023, https://arxiv.org/abs/2307.03864; details as in their code,
    `TMazeClassicActive` and `TMazeClassicPassive`), after Bakker (2001). From left to right: the
    oracle, a corridor of length L and a junction with an arm above and one below; in one of the
    arms is the goal. In the active variant the start is one cell to the right of the oracle, so the
    agent has to go and look first; in the passive variant it starts at the oracle.

    ## Action Space
    `Discrete(4)`: right, up, left, down. A move against a wall leads nowhere.

    ## Observation Space
    `MultiDiscrete([2, 3])`: whether the corridor ends here (1 at the junction and in the arms), and
    0, 1 (up) or 2 (down): there, the arm that the agent is in; at the oracle, on the first visit of
    the episode only, the side of the goal; 0 anywhere else. The cells of the corridor look alike.
    The source has the same numbers with -1 for down, as a vector of floats.

    ## Rewards
    In the last step `goal_reward` (1) if the agent is in the right arm, otherwise 0. In every other
    step t (from 1), `penalty` (-1 / L) if the agent's cell, counted from the oracle, lies before
    `t - 1` (active) or `t` (passive): if it is later than with the best way through the maze.

    ## Starting State
    The start, at rest.

    ## Episode End
    The episode terminates after `L + 3` steps (active) or `L + 1` (passive): the budget is part of
    the problem. It is never truncated.

    ## Arguments
    * `corridor_length`: L; 10 is the default of their code.
    * `variant`: "active", or "passive". In the passive variant **the first observation shows the
      task by design**, so it breaks the rule that the other families keep.
    * `goal_reward`: at least 0.
    * `penalty`: at most 0; `None` for -1 / L, which their experiment configurations pass.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array"; pictures show where the agent and the goal are,
      which the observation does not.

    ## Task family
    A task is `TMazeTask(side)`, 1 (up) or -1 (down), equally likely. `optimal_return` is
    `goal_reward` in both, and so is `family.best_adaptive_return()`, what the best agent expects
    that has to look at the cue; one that does not look, or forgets, expects half of it.
    """

    family_class = TMazeFamily
    family: TMazeFamily


class TMazeVectorEnv(FamilyVectorEnv):
    """`num_envs` mazes at once, each with its own goal; see `TMazeEnv` and `FamilyVectorEnv` for
    the arguments.
    """

    family_class = TMazeFamily
    family: TMazeFamily
