"""The arithmetic of the Bellman equation for some tasks at a time, dense or by successors.

Shapes: M all tasks, C the tasks of a chunk, S states, A actions, K successors.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp.finite import FiniteMDP
from metarl_envs.tabular.mdp.model import MDP, IntArray, Successors, unrepeated

# Measured with 16 and 64 states: smaller chunks lose more to calls than they gain from the cache.
_SPARSE_ENTRIES = 2**18
# Bounds the memory of the linear systems of a chunk, at 32 MiB.
_SYSTEM_ENTRIES = 2**22
# The transitions of a chunk stay in the cache while they are used again and again.
_DENSE_ENTRIES = 2**18


class Backup(ABC):
    """One-step look-ahead in the tasks of a chunk.

    :param rewards: expected rewards, (C, S, A)
    :param discount: gamma
    """

    # Sweeps of value iteration that cost about as much as one linear solve of policy iteration.
    n_sweeps: int

    def __init__(self, rewards: FloatArray, discount: float) -> None:
        self.rewards = rewards
        self.discount = discount

    @abstractmethod
    def action_values(self, values: FloatArray) -> FloatArray:
        """`r(s, a) + gamma sum_s' P(s' | s, a) V(s')`, (C, S, A), of values (C, S)."""

    @abstractmethod
    def push(self, visits: FloatArray) -> FloatArray:
        """`gamma sum_sa d(s, a) P(s' | s, a)`, (C, S), of visits (C, S, A)."""

    @abstractmethod
    def system_of_policy(self, policy: FloatArray) -> FloatArray:
        """`I - gamma P_pi`, (C, S, S), of action probabilities (C, S, A)."""

    @abstractmethod
    def system_of_actions(self, tasks: IntArray, actions: IntArray) -> FloatArray:
        """`I - gamma P_pi`, (N, S, S), of N of the tasks and one action in each state, (N, S)."""


def backups(
    mdp: MDP, batch: tuple[int, ...], discount: float | None = None
) -> Iterator[tuple[slice, Backup]]:
    """The tasks in chunks: which of the M tasks, and the look-ahead in them.

    :param mdp: the MDP(s)
    :param batch: axes of the M tasks, to which the batch axes of the MDP broadcast
    :param discount: in place of that of the MDP
    """
    discount = float(mdp.discount if discount is None else discount)
    rewards, n_tasks = PerTask(mdp.rewards, batch, 2), math.prod(batch)
    s, a = mdp.n_states, mdp.n_actions
    if mdp.successors is None:
        assert isinstance(mdp, FiniteMDP)
        transitions = PerTask(mdp.transitions, batch, 3)
        for tasks in chunks(n_tasks, _DENSE_ENTRIES // (s * a * s)):
            yield tasks, DenseBackup(transitions[tasks], rewards[tasks], discount)
        return
    next_states, probabilities = (PerTask(array, batch, 3) for array in mdp.successors)
    k = mdp.successors.next_states.shape[-1]
    for tasks in chunks(n_tasks, min(_SPARSE_ENTRIES // (s * a * k), _SYSTEM_ENTRIES // s**2)):
        part = Successors(next_states[tasks], probabilities[tasks])
        yield tasks, SparseBackup(part, rewards[tasks], discount)


def chunks(n_tasks: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` tasks, and of at least one."""
    size = max(1, size)
    for start in range(0, n_tasks, size):
        yield slice(start, min(start + size, n_tasks))


class PerTask:
    """An array with batch axes as one array over M tasks; an entry that tasks share is stored once.

    :param array: (..., *core)
    :param batch: axes of the M tasks, to which those of the array broadcast
    :param n_core: the number of axes in `core`
    """

    def __init__(self, array: NDArray[Any], batch: tuple[int, ...], n_core: int) -> None:
        own = unrepeated(array, array.ndim - n_core)
        split = own.ndim - n_core
        own_batch, core = own.shape[:split], own.shape[split:]
        self._own = own.reshape(-1, *core)
        numbers = np.arange(len(self._own)).reshape(own_batch)
        self._owners = np.broadcast_to(numbers, batch).reshape(-1)
        self._is_plain = own_batch == batch

    def __getitem__(self, tasks: slice) -> NDArray[Any]:
        if self._is_plain:
            return self._own[tasks]
        owners = self._owners[tasks]
        if len(self._own) == 1:
            return np.broadcast_to(self._own[0], (len(owners), *self._own.shape[1:]))
        return self._own[owners]


class DenseBackup(Backup):
    """Look-ahead by matrix products.

    :param transitions: (C, S, A, S)
    """

    def __init__(self, transitions: FloatArray, rewards: FloatArray, discount: float) -> None:
        super().__init__(rewards, discount)
        self._transitions = transitions
        self.n_sweeps = 2

    def action_values(self, values: FloatArray) -> FloatArray:
        """One product of (S, A, S) with (S,) for each task."""
        q = np.matmul(self._transitions, values[:, None, :, None])[..., 0]
        q *= self.discount
        q += self.rewards
        return q

    def push(self, visits: FloatArray) -> FloatArray:
        """A sum over all transitions."""
        return self.discount * np.einsum("csa,csax->cx", visits, self._transitions)

    def system_of_policy(self, policy: FloatArray) -> FloatArray:
        """The kernel averaged over actions."""
        kernel = np.matmul(policy[:, :, None, :], self._transitions)[:, :, 0]
        return np.eye(kernel.shape[-1]) - self.discount * kernel

    def system_of_actions(self, tasks: IntArray, actions: IntArray) -> FloatArray:
        """The rows of the kernel that the actions choose."""
        states = np.arange(actions.shape[-1])
        kernel = self._transitions[tasks[:, None], states, actions]
        return np.eye(len(states)) - self.discount * kernel


class SparseBackup(Backup):
    """Look-ahead by one sparse matrix over the tasks of the chunk.

    :param successors: arrays (C, S, A, K)
    """

    def __init__(self, successors: Successors, rewards: FloatArray, discount: float) -> None:
        super().__init__(_actions_first(rewards), discount)
        self._successors = successors
        self._matrix = _block_matrix(successors, discount)
        self.n_sweeps = 3 * rewards.shape[1] // 4

    def action_values(self, values: FloatArray) -> FloatArray:
        """One product of the matrix with the values of all tasks."""
        c, s, a = self.rewards.shape
        q = np.moveaxis((self._matrix @ values.reshape(-1)).reshape(a, c, s), 0, 2)
        q += self.rewards
        return q

    def push(self, visits: FloatArray) -> FloatArray:
        """One product with the transposed matrix."""
        c, s, _ = visits.shape
        flat = np.moveaxis(visits, 2, 0).reshape(-1)
        return np.asarray(self._matrix.T @ flat).reshape(c, s)

    def system_of_policy(self, policy: FloatArray) -> FloatArray:
        """The successors of all actions, weighted by the policy."""
        next_states, probabilities = self._successors
        shape = (*policy.shape[:2], -1)
        weights = policy[..., None] * probabilities
        return _system(next_states.reshape(shape), weights.reshape(shape), self.discount)

    def system_of_actions(self, tasks: IntArray, actions: IntArray) -> FloatArray:
        """The successors that the actions choose."""
        chosen = (tasks[:, None], np.arange(actions.shape[-1]), actions)
        next_states, probabilities = self._successors
        return _system(next_states[chosen], probabilities[chosen], self.discount)


def _actions_first(array: FloatArray) -> FloatArray:
    """(C, S, A), in memory (A, C, S): the maximum over actions then compares whole rows."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 2, 0)), 0, 2)


def _block_matrix(successors: Successors, discount: float) -> csr_array:
    """`gamma P` with rows (A, C, S) and columns (C, S)."""
    next_states, probabilities = successors
    c, s, a, k = next_states.shape
    columns, weights = np.empty((a, c, s, k), np.int32), np.empty((a, c, s, k))
    first = s * np.arange(c)[:, None]
    for action, i in np.ndindex(a, k):
        # One (A, K) at a time: numpy is slow along axes as short as these.
        columns[action, ..., i] = next_states[:, :, action, i] + first
        weights[action, ..., i] = probabilities[:, :, action, i] * discount
    starts = np.arange(0, weights.size + 1, k, dtype=np.int32)
    return csr_array((weights.reshape(-1), columns.reshape(-1), starts), shape=(a * c * s, c * s))


def _system(next_states: IntArray, probabilities: FloatArray, discount: float) -> FloatArray:
    """`I - gamma P`, (N, S, S), of lists (N, S, K)."""
    n, s, _ = next_states.shape
    system = np.zeros((n, s, s))
    rows = np.arange(n * s).reshape(n, s, 1) * s
    weights = discount * probabilities
    np.subtract.at(system.reshape(-1), (next_states + rows).reshape(-1), weights.reshape(-1))
    states = np.arange(s)
    system[:, states, states] += 1.0
    return system
