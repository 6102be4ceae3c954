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

_SUMMARY_MASKS = "_k", "_r", "_l", "_terminated", "_truncated"


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
        self._goes_on = np.zeros(n_envs, dtype=np.bool_)  # whose episode ended, but not their trial
        self._n_on, self._n_over = 0, 0
        self._finals: Array = np.empty(0)
        self._starts: Array = np.empty(0)

    @property
    def continuing(self) -> IntArray:
        """The sub-environments whose episode ended in the last step, but not their trial."""
        return self._goes_on.nonzero()[0] if self._n_on else np.empty(0, dtype=np.int64)

    def begin(self, rows: IntArray) -> None:
        """Begins new trials."""
        self._index[rows] = 0
        self._has_ended[rows] = False
        self._n_over = 0
        if self.observe_transitions:
            self._is_new[rows] = True
            self._n_new = int(np.count_nonzero(self._is_new)) if self._n_new else len(rows)

    def forget(self, rows: IntArray) -> None:
        """Forgets what the last step ended in sub-environments that are reset now."""
        if self._n_on:
            self._goes_on[rows] = False
            self._n_on = int(np.count_nonzero(self._goes_on))

    def begin_step(self, actions: Array) -> None:
        """Forgets the last step.

        :param actions: of the step that begins, (B, *action_shape)
        """
        self._n_on = 0
        if self.observe_transitions:
            # Copies: the caller may use its own arrays again before a partial reset shows them.
            self._actions = actions.copy()
            if self._n_new:
                self._is_new[:], self._n_new = False, 0

    def end_step(self, rewards: FloatArray, has_ended: BoolArray) -> None:
        """Notes what a step did.

        :param rewards: of the step, (B,)
        :param has_ended: whose episode ended, (B,)
        """
        self._has_ended, self._n_over = has_ended, 0
        if self.observe_transitions:
            self._rewards = rewards.copy()

    def end_episodes(
        self,
        has_ended: BoolArray,
        terminated: BoolArray,
        truncated: BoolArray,
        returns: FloatArray,
        lengths: IntArray,
    ) -> BoolArray:
        """Counts the episodes that ended; whether the trial ended, too, fresh flags, (B,).

        :param has_ended: whose episode ended, (B,); some did
        :param terminated: of the episodes, (B,)
        :param truncated: of the episodes, (B,)
        :param returns: of the episodes, (B,)
        :param lengths: of the episodes, (B,)
        """
        index = self._index
        self._summary = {
            "k": index,
            "r": returns.copy(),
            "l": lengths.copy(),
            "terminated": terminated,
            "truncated": truncated,
        }
        # Flags of all sub-environments cost less than picking those that ended out of them.
        is_over = has_ended & (index >= self.n_episodes - 1)
        self._index = index + has_ended.view(np.int8)  # fresh: the one before is told
        self._goes_on = has_ended ^ is_over
        self._n_on = int(np.count_nonzero(self._goes_on))
        self._n_over = int(np.count_nonzero(is_over))
        return is_over

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
        if self.reset_mode == "wasted_step" and self._n_on:
            observations[self._goes_on] = self._finals[self._goes_on]
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
        if not (self._n_on + self._n_over if mask is None else np.count_nonzero(ended)):
            return infos
        # As everywhere in Gymnasium's infos, the masks say which entries mean something.
        infos["inner_episode"] = self._summary | dict.fromkeys(_SUMMARY_MASKS, ended)
        infos["_inner_episode"] = ended
        if mask is not None or not self._n_on:
            return infos
        goes_on = self._goes_on.copy() if self._n_over else ended
        is_true_start = self.reset_mode == "true_start"
        name = "inner_final_obs" if is_true_start else "start_obs"
        infos[name], infos["_" + name] = self._finals if is_true_start else self._starts, goes_on
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
