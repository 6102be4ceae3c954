"""A walk of which only one end pays.

Shapes: M tasks, H stages, S = 2 H + 1 positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metarl_envs.batched.checking import check_counts
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.core import FloatArray, IntArray, TupleTask
from metarl_envs.distributions import FiniteTasks
from metarl_envs.probes.finite import FiniteProbe, FiniteProbeEnv

_MOVES = (-1, 1)


@dataclass(frozen=True)
class ChainTask(TupleTask):
    """The end that pays: -1 (left) or +1 (right)."""

    direction: int


class ChainFamily(FiniteProbe):
    """A walk from the middle of a chain, one end of which pays; see :class:`Chain`."""

    def __init__(self, *, n_stages: int = 3, noise_std: float = 0.0) -> None:
        check_counts(n_stages=n_stages)
        steps = range(1, n_stages + 1)
        self.positions = np.array([0, *(sign * step for step in steps for sign in (1, -1))])
        super().__init__(_walk(self.positions), n_stages, noise_std)
        self.task_distribution = FiniteTasks([ChainTask(-1), ChainTask(1)])

    def mean_rewards(self, arrays: FloatArray) -> FloatArray:
        """1 for the last of H steps to the end that pays, (M, H, S, 2)."""
        ends = self.n_stages * arrays[:, 0]
        rewards = np.zeros((len(arrays), self.n_stages, self.n_states, self.n_actions))
        reached = self.positions[:, None] + np.array(_MOVES)
        rewards[:, -1] = reached == ends[:, None, None]
        return rewards


def _walk(positions: IntArray) -> FloatArray:
    """Kernel of going left and right, (S, 2, S); the ends hold."""
    limit = positions.max()
    reached = np.clip(positions[:, None] + np.array(_MOVES), -limit, limit)
    return np.asarray(reached[:, :, None] == positions, dtype=np.float64)


class Chain(FiniteProbeEnv):
    """A walk of H steps that pays 1 at one end: the best return is 1, by always going that way.

    Only the very last step shows a reward, and only to those who never turned, so exploration must
    be consistent over an episode. An agent greedy on immediate rewards learns nothing.

    * observation: ``MultiDiscrete([H + 1, 2 H + 1])``, (stage, state); the states number the
      positions 0, 1, -1, 2, -2, ...
    * action: ``Discrete(2)``, 0 is left and 1 is right
    * episode: terminates after H steps
    * task: ``ChainTask(direction)``, left or right with equal probability

    Arguments: ``n_stages`` (H, 3) and ``noise_std``, the standard deviation of the Gaussian noise
    on rewards (0); ``task_mode`` and ``render_mode`` as in ``FamilyEnv``.
    """

    family_class = ChainFamily
    family: ChainFamily


class ChainVector(FamilyVectorEnv):
    """``num_envs`` of :class:`Chain` at once."""

    family_class = ChainFamily
    family: ChainFamily
