"""Sorts the steps of a vector env into padded episodes."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl_agents.common.episodes import EpisodeBatch


def flat_rows(values: Any, n_rows: int) -> np.ndarray:
    """Each row of `values` as a vector, (n_rows, size).

    :param values: (n_rows, ...)
    :param n_rows: number of rows
    """
    return np.asarray(values).reshape(n_rows, -1)


class EpisodeRecorder:
    """Files each step under the sub-environment and episode that it belongs to.

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
        self.episode = np.zeros(self.n_envs, dtype=np.int64)
        self.time = np.zeros(self.n_envs, dtype=np.int64)
        self.where: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.steps: dict[str, list[np.ndarray]] = {}
        self.final_observations: np.ndarray | None = None
        self.terminated = np.zeros((self.n_envs, n_episodes))

    @property
    def running(self) -> np.ndarray:
        """(B,) bool, True where episodes are still missing."""
        return self.episode < self.n_episodes

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
        rows = np.flatnonzero(self.running)
        self.where.append((rows, self.episode[rows], self.time[rows]))
        fields = {
            "observations": flat_rows(observations, self.n_envs),
            "actions": flat_rows(actions, self.n_envs),
            # As most VecEnvs and all of SB3's buffers have them, so that results agree over all.
            "rewards": np.asarray(rewards, dtype=np.float32),
            "dist_params": dist_params,
        }
        if masks is not None:
            fields["action_masks"] = masks
        for name, values in fields.items():
            self.steps.setdefault(name, []).append(values[rows].copy())
        self.time[rows] += 1
        for row in np.flatnonzero(dones & self.running).tolist():
            self._finish(row, infos[row], np.asarray(next_observations)[row])

    def batch(self) -> EpisodeBatch:
        """All recorded episodes with the task axis M = B in front."""
        rows, episodes, times = (np.concatenate(column) for column in zip(*self.where, strict=True))
        shape = (self.n_envs, self.n_episodes, int(times.max()) + 1)
        dtype = self.dtype

        def padded(name: str, kind: th.dtype) -> Tensor:
            values = np.concatenate(self.steps[name])
            out = np.zeros(shape + values.shape[1:], dtype=values.dtype)
            out[rows, episodes, times] = values
            return th.as_tensor(out).to(kind)

        mask = np.zeros(shape)
        mask[rows, episodes, times] = 1.0
        return EpisodeBatch(
            observations=padded("observations", dtype),
            actions=padded("actions", dtype if self.continuous else th.int64),
            rewards=padded("rewards", dtype),
            mask=th.as_tensor(mask).to(dtype),
            dist_params=padded("dist_params", dtype),
            final_observations=th.as_tensor(self.final_observations).to(dtype),
            terminated=th.as_tensor(self.terminated).to(dtype),
            action_masks=padded("action_masks", th.bool) if self.with_masks else None,
        )

    def _finish(self, row: int, info: dict[str, Any], next_observation: np.ndarray) -> None:
        last = np.asarray(info.get("terminal_observation", next_observation)).reshape(-1)
        if self.final_observations is None:
            self.final_observations = np.zeros(
                (self.n_envs, self.n_episodes, last.size), dtype=np.float64
            )
        self.final_observations[row, self.episode[row]] = last
        self.terminated[row, self.episode[row]] = not info.get("TimeLimit.truncated", False)
        self.episode[row] += 1
        self.time[row] = 0
