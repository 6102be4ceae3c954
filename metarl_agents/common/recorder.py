"""Sorts the steps of a vector env into padded episodes.

Shapes: B sub-environments, E episodes, T steps.
"""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl_agents.common.episodes import EpisodeBatch

FIRST_CAPACITY = 128


def flat_rows(values: Any, n_rows: int) -> np.ndarray:
    """Each row of `values` as a vector, (n_rows, size).

    :param values: (n_rows, ...)
    :param n_rows: number of rows
    """
    return np.asarray(values).reshape(n_rows, -1)


class EpisodeRecorder:
    """Files each step under the sub-environment and episode that it belongs to.

    While episodes run, steps are only copied into buffers, all sub-environments in one go; they are
    sorted at the end.

    :param venv: the env that is stepped
    :param n_episodes: E, after which a sub-environment is ready
    :param dtype: of the floating-point fields
    """

    def __init__(self, venv: VecEnv, n_episodes: int, dtype: th.dtype) -> None:
        self.n_envs, self.n_episodes, self.dtype = venv.num_envs, n_episodes, dtype
        self.continuous = isinstance(venv.action_space, spaces.Box)
        self.with_masks = isinstance(venv.action_space, spaces.Discrete) and venv.has_attr(
            "action_masks"
        )
        self.n_steps = 0
        self.running = np.ones(self.n_envs, dtype=bool)
        """(B,), True where episodes are still missing."""
        self.n_finished = np.zeros(self.n_envs, dtype=np.int64)
        # The step after the last one of each episode.
        self.ends = np.zeros((self.n_envs, n_episodes), dtype=np.int64)
        self.terminated = np.zeros((self.n_envs, n_episodes))
        self.final_observations: np.ndarray | None = None
        self._buffers: dict[str, np.ndarray] = {}

    def add(
        self,
        observations: Any,
        actions: np.ndarray,
        rewards: np.ndarray,
        dist_params: np.ndarray,
        masks: np.ndarray | None,
        next_observations: Any,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Records one step of all sub-environments."""
        self._put("observations", flat_rows(observations, self.n_envs))
        self._put("actions", flat_rows(actions, self.n_envs))
        # As most VecEnvs and all of SB3's buffers have them, so that results agree over all.
        self._put("rewards", np.asarray(rewards, dtype=np.float32))
        self._put("dist_params", dist_params)
        if masks is not None:
            self._put("action_masks", masks)
        self.n_steps += 1
        for row in np.flatnonzero(dones & self.running).tolist():
            self._finish(row, infos[row], np.asarray(next_observations)[row])

    def batch(self) -> EpisodeBatch:
        """All recorded episodes with the task axis M = B in front."""
        starts = np.pad(self.ends[:, :-1], ((0, 0), (1, 0)))
        lengths = self.ends - starts
        mask = np.arange(int(lengths.max())) < lengths[..., None]
        steps = {name: self._sorted(name, starts, mask) for name in self._buffers}
        return EpisodeBatch(
            observations=steps["observations"],
            actions=steps["actions"],
            rewards=steps["rewards"],
            mask=th.as_tensor(mask).to(self.dtype),
            dist_params=steps["dist_params"],
            final_observations=th.as_tensor(self.final_observations).to(self.dtype),
            terminated=th.as_tensor(self.terminated).to(self.dtype),
            action_masks=steps.get("action_masks"),
        )

    def _put(self, name: str, values: np.ndarray) -> None:
        buffer = self._buffers.get(name)
        if buffer is None or self.n_steps == len(buffer):
            buffer = self._buffers[name] = self._grown(name, buffer, values)
        buffer[self.n_steps] = values

    def _grown(self, name: str, buffer: np.ndarray | None, values: np.ndarray) -> np.ndarray:
        if buffer is None:
            return np.empty((FIRST_CAPACITY, *values.shape), dtype=self._stored_dtype(name))
        grown = np.empty((2 * len(buffer), *values.shape), dtype=buffer.dtype)
        grown[: len(buffer)] = buffer
        return grown

    def _stored_dtype(self, name: str) -> type[np.generic]:
        if name == "action_masks":
            return np.bool_
        if name == "actions" and not self.continuous:
            return np.int64
        return np.float32 if self.dtype is th.float32 else np.float64

    def _sorted(self, name: str, starts: np.ndarray, mask: np.ndarray) -> Tensor:
        """The buffer's steps as (B, E, T, ...), zero where the mask is False.

        :param starts: (B, E), first steps of the episodes
        :param mask: (B, E, T) bool
        """
        buffer = self._buffers[name]
        if mask.all():
            by_env = buffer[: self.n_episodes * mask.shape[-1]].swapaxes(0, 1)
            out = by_env.reshape(*mask.shape, *buffer.shape[2:])
        else:
            rows, episodes, times = np.nonzero(mask)
            out = np.zeros((*mask.shape, *buffer.shape[2:]), dtype=buffer.dtype)
            out[rows, episodes, times] = buffer[starts[rows, episodes] + times, rows]
        is_float = np.issubdtype(out.dtype, np.floating)
        return th.as_tensor(np.ascontiguousarray(out)).to(self.dtype if is_float else None)

    def _finish(self, row: int, info: dict[str, Any], next_observation: np.ndarray) -> None:
        last = np.asarray(info.get("terminal_observation", next_observation)).reshape(-1)
        if self.final_observations is None:
            self.final_observations = np.zeros(
                (self.n_envs, self.n_episodes, last.size), dtype=np.float64
            )
        episode = self.n_finished[row]
        self.final_observations[row, episode] = last
        self.terminated[row, episode] = not info.get("TimeLimit.truncated", False)
        self.ends[row, episode] = self.n_steps
        self.n_finished[row] += 1
        self.running[row] = self.n_finished[row] < self.n_episodes
