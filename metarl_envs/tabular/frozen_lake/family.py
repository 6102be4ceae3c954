"""The frozen lake families: dynamics and exact values.

Shapes: B environments, M tasks, S tiles, A = 4 actions, K next states of an action.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl_envs.batched.checking import (
    check_counts,
    check_flags,
    check_magnitudes,
    checked_numbers,
)
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.tabular.frozen_lake import maps
from metarl_envs.tabular.frozen_lake.planning import optimal_start_values
from metarl_envs.tabular.frozen_lake.settings import check_probabilities, setting_of
from metarl_envs.tabular.frozen_lake.tasks import checked_task_arrays
from metarl_envs.tabular.mdp import FiniteMDP, optimal_values, policy_values
from metarl_envs.tabular.successors import SparseMDP

Tiles = NDArray[np.uint8]


class FrozenLakeFamily(Family):
    """What all frozen lakes share; a subclass says which tiles and success rates a task has.

    :param size: rows and columns
    :param preset: one of `PRESETS`
    :param is_slippery: whether moves may go in perpendicular directions
    :param success_rate: probability of the intended direction, where it is slippery
    :param penalty: what a tile that costs takes away
    :param hole_reward: of entering a hole; like the rest, `None` for that of the preset
    :param absorbing: whether holes and goals keep the agent instead of ending the episode
    :param discount: of the values that are called discounted, and of the MDPs handed out
    :param horizon: steps of an episode
    """

    n_actions = 4
    task_class: type[Task]

    def __init__(
        self,
        *,
        size: int,
        preset: str,
        is_slippery: bool,
        success_rate: float,
        penalty: float = 0.0,
        hole_reward: float | None = None,
        absorbing: bool | None = None,
        discount: float | None = None,
        horizon: int | None = None,
    ) -> None:
        setting = setting_of(
            preset,
            hole_reward=hole_reward,
            absorbing=absorbing,
            discount=discount,
            horizon=horizon,
        )
        check_flags(is_slippery=is_slippery, absorbing=setting.absorbing)
        check_probabilities(success_rate=success_rate, discount=setting.discount)
        check_magnitudes(hole_reward=setting.hole_reward, penalty=penalty)
        n_steps = setting.horizon or (100 if size <= 4 else 200)
        check_counts(horizon=n_steps)
        self.preset, self.horizon, self.size = preset, int(n_steps), int(size)
        self.absorbing, self.discount = setting.absorbing, float(setting.discount)
        self.is_slippery, self.success_rate = is_slippery, success_rate
        self.hole_reward, self.penalty = float(setting.hole_reward), float(penalty)
        self.n_states = self.size**2
        self.n_step_uniforms = int(is_slippery)
        self.observation_space = gym.spaces.Discrete(self.n_states)
        self.action_space = gym.spaces.Discrete(self.n_actions)
        self._moves = maps.moves(self.size)
        self._successors = self._moves[:, _directions(is_slippery)]
        self._flat_successors = self._successors.ravel()
        self._tile_rewards = np.array([0.0, -self.penalty, self.hole_reward, 1.0])
        self._row_starts = np.zeros(0, dtype=np.int64)

    @abstractmethod
    def are_tasks(self, arrays: FloatArray) -> bool:
        """Whether arrays (M, n) of numbers are all of tasks of this family."""

    @abstractmethod
    def tiles(self, arrays: FloatArray) -> Tiles:
        """FROZEN, COSTLY, HOLE or GOAL for each tile of tasks (M, n), (M, S), fresh."""

    def success_rates(self, arrays: FloatArray) -> FloatArray:
        """Probability of the intended direction in tasks (M, n), (M,)."""
        return np.full(len(arrays), self.success_rate if self.is_slippery else 1.0)

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """Tiles and the rewards of entering them, (B, S) each; where it is slippery the cumulative
        probabilities of turning right, and of that or going straight on, (B,) each.
        """
        tiles = self.tiles(arrays)
        params = {"tiles": tiles, "rewards": self._tile_rewards.take(tiles)}
        if not self.is_slippery:
            return params
        success_rates = self.success_rates(arrays)
        right_turn = (1.0 - success_rates) / 2.0
        return params | {"right_turn": right_turn, "no_left_turn": right_turn + success_rates}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """The top left tile, (B,)."""
        return np.full(len(uniforms), maps.START, dtype=np.int64)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Gymnasium's `FrozenLake`: one of three directions, a tile, and its reward."""
        row_starts = self._starts_of_rows(len(states))
        moves = states * self.n_actions + actions
        if self.is_slippery:
            draws = uniforms[:, 0]
            moves *= 3
            moves += draws >= params["right_turn"]
            moves += draws >= params["no_left_turn"]
        following = self._flat_successors.take(moves)
        tiles = params["tiles"].ravel()
        if self.absorbing:
            stuck = tiles.take(row_starts + states) >= maps.HOLE
            np.copyto(following, states, where=stuck)
        places = row_starts + following
        rewards = params["rewards"].ravel().take(places)
        if self.absorbing:
            return following, rewards, np.zeros(len(states), dtype=np.bool_)
        return following, rewards, tiles.take(places) >= maps.HOLE

    def observe(self, states: Array, stages: IntArray) -> Array:
        """The tile, (B,)."""
        return np.array(states, dtype=np.int64)

    # Exact values

    def sparse_mdps(self, tasks: Sequence[Task]) -> SparseMDP:
        """The tasks as one batch of MDPs whose states are the tiles, with K = 1 or, where it is
        slippery, 3; all arrays that the tasks have in common are shared.

        With `discount=1` they have the horizon, with a smaller one they are discounted and never
        end.

        :param tasks: M tasks
        """
        return self._sparse(self._arrays(tasks), self.discount)

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The same as `sparse_mdps` with dense transitions, (M, S, 4, S)."""
        return self.sparse_mdps(tasks).to_finite_mdp()

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """The MDP of one task, (S, 4, S)."""
        return self.finite_mdps([task])[0]

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """The best expected return of an episode, knowing the task, (M,): of `horizon` steps, not
        discounted, whatever `discount` is.

        :param tasks: M tasks
        """
        arrays = self._arrays(tasks)
        tiles = self.tiles(arrays)
        return optimal_start_values(
            self._moves,
            self._tile_rewards.take(tiles),
            tiles >= maps.HOLE,
            self.success_rates(arrays) if self.is_slippery else None,
            absorbing=self.absorbing,
            horizon=self.horizon,
            start=maps.START,
        )

    def optimal_return(self, task: Task) -> float:
        """The same for one task."""
        return float(self.optimal_returns([task])[0])

    def discounted_optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """The best expected discounted return from the start, knowing the task, (M,), of an episode
        without a horizon: the optimal values of `sparse_mdps`. With `discount=1`, which has none
        without a horizon, they are `optimal_returns`.

        :param tasks: M tasks
        """
        if self.discount == 1.0:
            return self.optimal_returns(tasks)
        return self._start_values(optimal_values, self._arrays(tasks), self.discount)

    def discounted_optimal_return(self, task: Task) -> float:
        """The same for one task."""
        return float(self.discounted_optimal_returns([task])[0])

    def stationary_policy_returns(self, tasks: Sequence[Task], policies: ArrayLike) -> FloatArray:
        """The expected return of an episode, as in `optimal_returns`, of a policy that looks at the
        tile alone, (M,).

        :param tasks: M tasks
        :param policies: action probabilities, one policy per task (M, S, 4) or one for all (S, 4)
        """
        return self._policy_returns(tasks, policies, 1.0)

    def discounted_policy_returns(self, tasks: Sequence[Task], policies: ArrayLike) -> FloatArray:
        """The same, discounted and without a horizon as in `discounted_optimal_returns`, (M,).

        :param tasks: M tasks
        :param policies: action probabilities, (M, S, 4) or (S, 4)
        """
        return self._policy_returns(tasks, policies, self.discount)

    # Maps as text

    def desc(self, task: Task) -> list[str]:
        """The map of a task as Gymnasium's `desc`; a tile that costs is `C`, ice to Gymnasium."""
        return maps.map_rows(self.tiles(self._arrays([task]))[0], self.size)

    def render_ansi(self, view: View) -> str:
        """The map with the agent in it."""
        from metarl_envs.tabular.frozen_lake.rendering import lake_text

        return lake_text(view, self.size, self.horizon)

    def render_rgb(self, view: View) -> Any:
        """A picture of the lake."""
        from metarl_envs.tabular.frozen_lake.rendering import lake_image

        return lake_image(view, self.size, self.horizon)

    def _starts_of_rows(self, n: int) -> IntArray:
        """Where each environment's table begins in the flat one, (n,)."""
        if len(self._row_starts) < n:
            self._row_starts = np.arange(n) * self.n_states
        return self._row_starts[:n]

    def _arrays(self, tasks: Sequence[Task]) -> FloatArray:
        return checked_task_arrays(self.task_distribution, tasks, self.task_class, self.are_tasks)

    def _policy_returns(
        self, tasks: Sequence[Task], policies: ArrayLike, discount: float
    ) -> FloatArray:
        arrays, core = self._arrays(tasks), (self.n_states, self.n_actions)
        checked = checked_numbers("policies", policies, core, (len(arrays), *core))
        if checked.ndim == 3 and discount == 1.0:
            checked = checked[:, None]
        return self._start_values(lambda mdps: policy_values(mdps, checked), arrays, discount)

    def _start_values(
        self, solve: Callable[[SparseMDP], FloatArray], arrays: FloatArray, discount: float
    ) -> FloatArray:
        """Values of the start at the first stage, (M,)."""
        if not len(arrays):
            return np.empty(0)
        values = solve(self._sparse(arrays, discount))
        return np.array(values[:, maps.START] if discount < 1.0 else values[:, 0, maps.START])

    def _sparse(self, arrays: FloatArray, discount: float) -> SparseMDP:
        tiles, weights = self.tiles(arrays), self._direction_weights(arrays)
        entered, ends = self._tile_rewards.take(tiles), tiles >= maps.HOLE
        expected = (entered[:, self._successors] * weights).sum(axis=-1)
        at_end = entered if self.absorbing else np.zeros_like(entered)
        rewards = np.where(ends[..., None], at_end[..., None], expected)
        shared = ends[0] if len(ends) and (ends == ends[0]).all() else ends
        next_states = np.where(
            shared[..., None, None],
            np.arange(self.n_states)[:, None, None],
            self._successors,
        )
        shape = (*weights.shape[:-3], *self._successors.shape)
        initial = np.eye(self.n_states)[maps.START]
        horizon = self.horizon if discount == 1.0 else None
        return SparseMDP(
            next_states,
            np.broadcast_to(weights, shape),
            rewards,
            initial,
            discount,
            horizon,
        )

    def _direction_weights(self, arrays: FloatArray) -> FloatArray:
        """Probabilities of the K directions, (M, 1, 1, K), or (1, 1, K) where all tasks agree."""
        if not self.is_slippery:
            return np.ones((1, 1, 1))
        straight = self.success_rates(arrays)
        aside = (1.0 - straight) / 2.0
        weights = np.stack([aside, straight, aside], axis=-1)[:, None, None, :]
        return weights[0] if len(weights) and (weights == weights[0]).all() else weights


def _directions(is_slippery: bool) -> IntArray:
    """The directions of each action, (4, K), in the order in which Gymnasium draws them."""
    straight = np.arange(4)[:, None]
    return (straight + np.array([-1, 0, 1])) % 4 if is_slippery else straight
