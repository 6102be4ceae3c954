"""The frozen lake families: dynamics and exact values.

Shapes: B environments, M tasks, S tiles, A = 4 actions, K next states of an action.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl_envs.batched.checking import check_counts, check_finite
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.tabular.frozen_lake import maps
from metarl_envs.tabular.frozen_lake.planning import optimal_start_values
from metarl_envs.tabular.frozen_lake.settings import (
    check_flags,
    check_probabilities,
    setting_of,
)
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
    :param given: the arguments that a preset fills in, `None` where it shall
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
        **given: Any,
    ) -> None:
        setting = setting_of(preset, given)
        check_flags(is_slippery=is_slippery, absorbing=setting.absorbing)
        check_probabilities(success_rate=success_rate, discount=setting.discount)
        check_finite(hole_reward=setting.hole_reward, penalty=penalty)
        horizon = setting.horizon or (100 if size <= 4 else 200)
        check_counts(horizon=horizon)
        self.preset, self.horizon, self.size = preset, int(horizon), int(size)
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

        Without a discount they have the horizon, with one they never end.

        :param tasks: M tasks
        """
        return self._sparse(self._arrays(tasks))

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The same with dense transitions, (M, S, 4, S)."""
        return self.sparse_mdps(tasks).to_finite_mdp()

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """The MDP of one task, (S, 4, S)."""
        mdp = self.finite_mdps([task])
        return FiniteMDP(
            mdp.transitions[0], mdp.rewards[0], mdp.initial[0], mdp.discount, mdp.horizon
        )

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """The best expected return from the start, knowing the task, (M,): of `horizon` steps, not
        discounted; with a `discount` below 1 the discounted one of an episode without a horizon.

        :param tasks: M tasks
        """
        arrays = self._arrays(tasks)
        if self.discount < 1.0:
            if not len(arrays):
                return np.empty(0)
            return np.array(optimal_values(self._sparse(arrays))[..., maps.START])
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

    def stationary_policy_returns(self, tasks: Sequence[Task], policies: ArrayLike) -> FloatArray:
        """The expected return, as in `optimal_returns`, of a policy that looks at the tile alone,
        (M,).

        :param tasks: M tasks
        :param policies: action probabilities, one policy per task (M, S, 4) or one for all (S, 4)
        """
        mdps = self.sparse_mdps(tasks)
        array = np.asarray(policies, dtype=np.float64)
        shape = self.n_states, self.n_actions
        if array.shape not in (shape, (len(tasks), *shape)):
            raise ValueError(
                f"policies has shape {array.shape}: give {shape} or {(len(tasks), *shape)}"
            )
        if array.ndim == 3 and mdps.horizon is not None:
            array = array[:, None]
        values = policy_values(mdps, array)
        return np.array(values[..., maps.START] if mdps.horizon is None else values[:, 0, 0])

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

    def _sparse(self, arrays: FloatArray) -> SparseMDP:
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
        horizon = self.horizon if self.discount == 1.0 else None
        return SparseMDP(
            next_states,
            np.broadcast_to(weights, shape),
            rewards,
            initial,
            self.discount,
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
