"""Trials within a vector environment: several episodes of one task as a single one.

Shapes: B sub-environments, K episodes per trial, D numbers of an observation with transitions.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatten

from metarl_envs.batched.checking import check_choice, check_counts
from metarl_envs.batched.family import Array, Family
from metarl_envs.core import BoolArray, FloatArray, IntArray
from metarl_envs.wrappers.observing import check_reward_scale, transition_box
from metarl_envs.wrappers.trial import ResetMode


class Trials:
    """Where B trials are, and what their observations and infos add to those of episodes.

    The same as `ObserveTransition(Trial(env))` around each of B single environments, bit for bit.

    :param family: the family of the episodes
    :param n_envs: B
    :param n_episodes: K
    :param reset_mode: see `metarl_envs.Trial`
    :param observe_transitions: whether observations carry the previous action, reward and done flag
    :param reward_scale: of that reward
    """

    def __init__(
        self,
        family: Family,
        n_envs: int,
        n_episodes: int,
        *,
        reset_mode: ResetMode,
        observe_transitions: bool,
        reward_scale: float,
    ) -> None:
        check_counts(episodes_per_trial=n_episodes)
        check_choice("reset_mode", reset_mode, ResetMode)
        check_reward_scale(reward_scale)
        self.n_episodes, self.reset_mode = n_episodes, reset_mode
        self.observe_transitions, self.reward_scale = observe_transitions, reward_scale
        self.inner_space, self.action_space = family.observation_space, family.action_space
        self.observation_space: gym.Space[Any] = family.observation_space
        self.observation_layout: dict[str, slice] = {}
        if observe_transitions:
            self.observation_space, self.observation_layout = transition_box(
                self.inner_space, self.action_space
            )
        self._index = np.zeros(n_envs, dtype=np.int64)
        # What the last step did.
        self._is_new = np.ones(n_envs, dtype=np.bool_)
        self._has_ended = np.zeros(n_envs, dtype=np.bool_)
        self._actions: Array = np.zeros((n_envs, *(self.action_space.shape or ())))
        self._rewards = np.zeros(n_envs)
        self._summary: dict[str, Array] = {}
        self._rows = np.empty(0, dtype=np.int64)
        self._finals: Array = np.empty(0)
        self._starts: Array = np.empty(0)

    @property
    def continuing(self) -> IntArray:
        """The sub-environments whose episode ended in the last step, but not their trial."""
        return self._rows

    def begin(self, rows: IntArray) -> None:
        """Begins new trials."""
        self._index[rows] = 0
        self._is_new[rows] = True
        self._has_ended[rows] = False

    def begin_step(self, actions: Array) -> None:
        """Forgets the last step.

        :param actions: of the step that begins, (B, *action_shape)
        """
        self._is_new[:] = False
        self._actions = actions
        self._rows = self._rows[:0]

    def end_episodes(
        self,
        rewards: FloatArray,
        terminated: BoolArray,
        truncated: BoolArray,
        returns: FloatArray,
        lengths: IntArray,
    ) -> BoolArray:
        """Counts the episodes that ended, and says which trials did, (B,).

        :param rewards: of the step, (B,)
        :param terminated: of the episodes, (B,)
        :param truncated: of the episodes, (B,)
        :param returns: of the episodes, (B,)
        :param lengths: of the episodes, (B,)
        """
        self._rewards = rewards
        self._has_ended = terminated | truncated
        if not self._has_ended.any():
            return np.zeros_like(terminated)
        self._summary = {
            "k": self._index.copy(),
            "r": returns.copy(),
            "l": lengths.copy(),
            "terminated": terminated.copy(),
            "truncated": truncated.copy(),
        }
        self._index += self._has_ended
        over = self._has_ended & (self._index >= self.n_episodes)
        self._rows = np.flatnonzero(self._has_ended & ~over)
        return over

    def keep(self, finals: Array, starts: Array) -> None:
        """Last observations of the episodes that ended, and first ones of those that follow.

        :param finals: of the sub-environments `continuing`
        :param starts: of the same
        """
        self._finals, self._starts = finals, starts

    def shown(self, observations: Array) -> Array:
        """What the agent sees, (B, D), or (B, *obs_shape) without transitions.

        :param observations: of the running episodes, (B, *obs_shape), fresh
        """
        if self.reset_mode == "wasted_step" and self._rows.size:
            rows = ~self._is_new[self._rows]
            observations[self._rows[rows]] = self._finals[rows]
        if not self.observe_transitions:
            return observations
        layout = self.observation_layout
        shape = len(observations), layout["done"].stop
        shown = np.zeros(shape, dtype=self.observation_space.dtype)
        if not self._is_new.all():
            _write(shown, layout["action"].start, self.action_space, self._actions)
            shown[:, layout["reward"].start] = self.reward_scale * self._rewards
            shown[:, layout["done"].start] = self._has_ended
            shown[self._is_new] = 0
        _write(shown, 0, self.inner_space, observations)
        return shown

    def infos(self, present: BoolArray) -> dict[str, Any]:
        """What `Trial` adds to infos, with Gymnasium's masks.

        :param present: which sub-environments the infos are of, (B,)
        """
        ended = self._has_ended & present
        infos: dict[str, Any] = {"episode_done": ended, "_episode_done": present}
        if not ended.any():
            return infos
        inner: dict[str, Any] = {}
        for name, values in self._summary.items():
            inner |= {name: np.where(ended, values, np.zeros((), values.dtype)), f"_{name}": ended}
        infos |= {"inner_episode": inner, "_inner_episode": ended.copy()}
        is_true_start = self.reset_mode == "true_start"
        name = "inner_final_obs" if is_true_start else "start_obs"
        is_shown = present[self._rows]
        rows = self._rows[is_shown]
        if rows.size:
            values = (self._finals if is_true_start else self._starts)[is_shown]
            kept = np.zeros((len(present), *values.shape[1:]), values.dtype)
            mask = np.zeros_like(present)
            kept[rows], mask[rows] = values, True
            infos |= {name: kept, f"_{name}": mask}
        return infos


def _write(out: Array, start: int, space: gym.Space[Any], values: Array) -> None:
    """Flattens a batch of values into columns of `out`, zeros so far, as Gymnasium's `flatten`.

    :param out: (B, D)
    :param start: the first column
    :param space: of one value
    :param values: (B, *shape)
    """
    n, width = out.shape
    if isinstance(space, gym.spaces.Discrete):
        columns = np.arange(start - int(space.start), n * width, width)[:n] + values
        out.reshape(-1)[columns] = 1
    elif isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        ends = np.cumsum(space.nvec)
        offsets = start + ends - space.nvec - space.start
        out.reshape(-1)[np.arange(0, n * width, width)[:, None] + offsets + values] = 1
    elif isinstance(space, gym.spaces.Box):
        flat = values.reshape(n, -1)
        out[:, start : start + flat.shape[1]] = flat
    else:
        rows = np.array([flatten(space, value) for value in values])
        out[:, start : start + rows.shape[1]] = rows
