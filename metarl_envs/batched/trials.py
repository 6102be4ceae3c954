"""Trials within a vector environment: several episodes of one task as a single one.

Shapes: B sub-environments, K episodes per trial, D numbers of an observation with transitions.
"""

from collections.abc import Callable
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
        self.observe_transitions, self.reward_scale = observe_transitions, float(reward_scale)
        self.inner_space, self.action_space = family.observation_space, family.action_space
        self.observation_space: gym.Space[Any] = family.observation_space
        self.observation_layout: dict[str, slice] = {}
        if observe_transitions:
            self.observation_space, self.observation_layout = transition_box(
                self.inner_space, self.action_space
            )
            self._n_numbers = self.observation_layout["done"].stop
        self._index = np.zeros(n_envs, dtype=np.int64)
        # What the last step did.
        self._is_new = np.ones(n_envs, dtype=np.bool_)
        self._n_new = n_envs
        self._has_ended = np.zeros(n_envs, dtype=np.bool_)
        self._actions: Array = np.zeros((n_envs, *(self.action_space.shape or ())))
        self._rewards = np.zeros(n_envs)
        self._summary: dict[str, Array] = {}
        self._rows = np.empty(0, dtype=np.int64)
        self._n_over = 0
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
        self._n_new = int(np.count_nonzero(self._is_new)) if self._n_new else len(rows)
        self._has_ended[rows] = False
        self._n_over = 0

    def forget(self, rows: IntArray) -> None:
        """Forgets what the last step ended in sub-environments that are reset now."""
        self._rows = np.setdiff1d(self._rows, rows, assume_unique=True)

    def begin_step(self, actions: Array) -> None:
        """Forgets the last step.

        :param actions: of the step that begins, (B, *action_shape)
        """
        # Copies: the caller may use its own arrays again before a partial reset shows them.
        self._actions = actions.copy()
        if self._n_new:
            self._is_new[:], self._n_new = False, 0
        self._rows = self._rows[:0]

    def end_episodes(
        self,
        ended: IntArray,
        has_ended: BoolArray,
        rewards: FloatArray,
        terminated: BoolArray,
        truncated: BoolArray,
        returns: FloatArray,
        lengths: IntArray,
    ) -> IntArray:
        """Counts the episodes that ended; the sub-environments whose trial did.

        :param ended: whose episode ended
        :param has_ended: the same as flags, (B,)
        :param rewards: of the step, (B,)
        :param terminated: of the episodes, (B,)
        :param truncated: of the episodes, (B,)
        :param returns: of the episodes, (B,)
        :param lengths: of the episodes, (B,)
        """
        self._rewards, self._has_ended = rewards.copy(), has_ended
        self._n_over = 0
        if not ended.size:
            return ended
        index = self._index.copy()
        self._summary = {
            "k": index,
            "r": returns.copy(),
            "l": lengths.copy(),
            "terminated": terminated,
            "truncated": truncated,
        }
        counts = index[ended] + 1
        self._index[ended] = counts
        is_over = counts >= self.n_episodes
        self._rows, over = ended[~is_over], ended[is_over]
        self._n_over = len(over)
        return over

    def keep(self, finals: Array, observe: Callable[[], Array]) -> None:
        """Keeps last observations of the episodes that ended in trials that go on, and first ones
        of the episodes that follow.

        :param finals: observations before these began, (B, *obs_shape)
        :param observe: gives the ones now, (B, *obs_shape)
        """
        self._finals = finals.copy() if self.reset_mode == "wasted_step" else finals
        if self.reset_mode == "wasted_step":
            self._starts = observe()

    def shown(self, observations: Array) -> Array:
        """What the agent sees, (B, D), or (B, *obs_shape) without transitions.

        :param observations: of the running episodes, (B, *obs_shape), fresh
        """
        if self.reset_mode == "wasted_step" and self._rows.size:
            observations[self._rows] = self._finals[self._rows]
        if not self.observe_transitions:
            return observations
        if self._n_new == len(observations):
            shown = np.zeros((len(observations), self._n_numbers), self.observation_space.dtype)
        else:
            shown = self._with_tail(self._actions, self._rewards, self._has_ended)
            if self._n_new:
                shown[self._is_new] = 0
        _write(shown, 0, self.inner_space, observations)
        return shown

    def shown_last(self, observations: Array, rows: IntArray) -> Array:
        """What the agent sees of trials that are over, (rows, D) or (rows, *obs_shape).

        :param observations: their last ones, (rows, *obs_shape)
        :param rows: which sub-environments
        """
        if not self.observe_transitions:
            return observations
        tail = self._actions[rows], self._rewards[rows], self._has_ended[rows]
        shown = self._with_tail(*tail)
        _write(shown, 0, self.inner_space, observations)
        return shown

    def _with_tail(self, actions: Array, rewards: FloatArray, has_ended: BoolArray) -> Array:
        """Actions, rewards and done flags, after columns of zeros for the observations."""
        layout = self.observation_layout
        shown = np.zeros((len(rewards), self._n_numbers), self.observation_space.dtype)
        _write(shown, layout["action"].start, self.action_space, actions)
        shown[:, layout["reward"].start] = self.reward_scale * rewards
        shown[:, layout["done"].start] = has_ended
        return shown

    def infos(self, present: BoolArray, mask: BoolArray | None = None) -> dict[str, Any]:
        """What `Trial` adds to infos, with Gymnasium's masks.

        :param present: which sub-environments the infos are of, (B,)
        :param mask: the same where these are some that are over or were reset; `None` for all
        """
        ended = self._has_ended.copy() if mask is None else self._has_ended & mask
        infos: dict[str, Any] = {"episode_done": ended, "_episode_done": present}
        if not (self._rows.size + self._n_over if mask is None else ended.any()):
            return infos
        # As everywhere in Gymnasium's infos, the masks say which entries mean something.
        inner = self._summary | {f"_{name}": ended for name in self._summary}
        infos |= {"inner_episode": inner, "_inner_episode": ended}
        if mask is not None or not self._rows.size:
            return infos
        goes_on = ended
        if self._n_over:
            goes_on = np.zeros_like(ended)
            goes_on[self._rows] = True
        is_true_start = self.reset_mode == "true_start"
        name = "inner_final_obs" if is_true_start else "start_obs"
        return infos | {name: self._finals if is_true_start else self._starts, f"_{name}": goes_on}


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
