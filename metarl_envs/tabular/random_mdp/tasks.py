"""Random MDPs as tasks, and their distribution.

Shapes: M tasks, S states, A actions, n = S A S + S A numbers of a task.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from metarl_envs.batched.normals import SMALLEST_UNIFORM, normals
from metarl_envs.core import FloatArray, IntArray, TupleTask
from metarl_envs.distributions import checked_array

_ROW_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class RandomMDPTask(TupleTask):
    """A finite MDP."""

    transitions: tuple[tuple[tuple[float, ...], ...], ...]
    """P(s' | s, a), (S, A, S)"""
    mean_rewards: tuple[tuple[float, ...], ...]
    """(S, A)"""


class RandomMDPTasks:
    """Kernels with independent rows, uniform on the simplex, and independent mean rewards N(1, 1).

    :param n_states: S
    :param n_actions: A
    """

    def __init__(self, n_states: int, n_actions: int) -> None:
        self.n_states, self.n_actions = n_states, n_actions
        n_rewards = n_states * n_actions
        self._n_probabilities = n_rewards * n_states
        self.n_uniforms = self._n_probabilities + n_rewards
        low, high = np.full(self.n_uniforms, -np.inf), np.full(self.n_uniforms, np.inf)
        low[: self._n_probabilities], high[: self._n_probabilities] = 0.0, 1.0
        self.space: gym.Space[np.ndarray] = gym.spaces.Box(low, high, dtype=np.float64)

    def sample(self, rng: np.random.Generator) -> RandomMDPTask:
        """One task, from n uniform numbers of `rng`."""
        rows = self.arrays_from_uniforms(lambda i: rng.random((len(i), self.n_uniforms)), 1)
        return self.from_row(rows[0])

    def arrays_from_uniforms(self, draw: Callable[[IntArray], FloatArray], n: int) -> FloatArray:
        """The arrays of `n` tasks, (n, task_dim).

        :param draw: gives `n_uniforms` numbers of each of the tasks whose indices it is handed
        :param n: how many tasks
        """
        uniforms = draw(np.arange(n))
        # Exponential numbers, normalised, are uniform on the simplex.
        positive = np.maximum(uniforms[:, : self._n_probabilities], SMALLEST_UNIFORM)
        exponentials = -np.log(positive)
        rows = exponentials.reshape(n, -1, self.n_states)
        rows /= rows.sum(axis=-1, keepdims=True)
        means = 1.0 + normals(uniforms[:, self._n_probabilities :])
        return np.concatenate([rows.reshape(n, -1), means], axis=1)

    def from_array(self, array: np.ndarray) -> RandomMDPTask:
        """The task with this array, (n,); `ValueError` where a row of the kernel does not sum to
        1.
        """
        row = checked_array(self.space, array)
        sums = row[: self._n_probabilities].reshape(-1, self.n_states).sum(axis=-1)
        if np.any(np.abs(sums - 1.0) > _ROW_SUM_TOLERANCE):
            raise ValueError(
                f"task has transition probabilities that sum to {sums.min():.12g} to "
                f"{sums.max():.12g} over next states: normalise them to 1 within "
                f"{_ROW_SUM_TOLERANCE:g}"
            )
        return self.from_row(row)

    def from_row(self, row: FloatArray) -> RandomMDPTask:
        """The task with this array, (n,), which is not checked."""
        transitions, means = self.split(row)
        return RandomMDPTask(
            tuple(tuple(map(tuple, actions)) for actions in transitions.tolist()),
            tuple(map(tuple, means.tolist())),
        )

    def split(self, arrays: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Transitions (..., S, A, S) and mean rewards (..., S, A) of arrays (..., n)."""
        shape = (*arrays.shape[:-1], self.n_states, self.n_actions)
        transitions = arrays[..., : self._n_probabilities].reshape(*shape, self.n_states)
        return transitions, arrays[..., self._n_probabilities :].reshape(shape)
