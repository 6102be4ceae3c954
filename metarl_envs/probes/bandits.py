"""Bandits: which arm pays, and arms with Gaussian means.

Shapes: M tasks, A arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.batched.checking import Structure, Target, check_counts, check_prior_options
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.core import FloatArray, TupleTask
from metarl_envs.distributions import FiniteTasks, GaussianTasks
from metarl_envs.probes.finite import FiniteProbe, FiniteProbeEnv


def _one_state(n_actions: int) -> FloatArray:
    """Kernel of a bandit: a single state, (1, A, 1)."""
    return np.ones((1, n_actions, 1))


@dataclass(frozen=True)
class WhichArmTask(TupleTask):
    """The arm that pays."""

    arm: int


class WhichArmFamily(FiniteProbe):
    """One of A arms pays 1, the others nothing; see :class:`WhichArm`."""

    def __init__(self, *, n_arms: int = 3, noise_std: float = 0.0) -> None:
        check_counts(n_arms=n_arms)
        super().__init__(_one_state(n_arms), 1, noise_std)
        self.task_distribution = FiniteTasks([WhichArmTask(arm) for arm in range(n_arms)])

    def mean_rewards(self, arrays: FloatArray) -> FloatArray:
        """1 for the arm that pays, (M, 1, 1, A)."""
        return np.eye(self.n_actions)[arrays[:, 0].astype(np.int64)][:, None, None, :]


class WhichArm(FiniteProbeEnv):
    """A bandit in which one arm pays: the best return is 1, by pulling that arm.

    An episode is one pull, so the other episodes of a task must teach which arm it is. Trying the
    arms in turn finds it within A - 1 episodes (without noise).

    * observation: ``MultiDiscrete([2, 1])``, (stage, state); action: ``Discrete(n_arms)``
    * episode: terminates after one step
    * task: ``WhichArmTask(arm)``, uniform over the arms

    Arguments: ``n_arms`` (A, 3) and ``noise_std``, the standard deviation of the Gaussian noise on
    rewards (0); ``task_mode`` and ``render_mode`` as in ``FamilyEnv``.
    """

    family_class = WhichArmFamily
    family: WhichArmFamily


class WhichArmVector(FamilyVectorEnv):
    """``num_envs`` of :class:`WhichArm` at once."""

    family_class = WhichArmFamily
    family: WhichArmFamily


@dataclass(frozen=True)
class GaussianBanditTask(TupleTask):
    """Mean reward of every arm."""

    means: tuple[float, ...]

    @classmethod
    def from_array(cls, array: FloatArray) -> GaussianBanditTask:
        """Inverse of ``to_array``, (A,)."""
        return cls(tuple(array.tolist()))


class GaussianBanditFamily(FiniteProbe):
    """Arms with independent Gaussian means, and Gaussian noise; see :class:`GaussianBandit`."""

    def __init__(
        self,
        *,
        n_arms: int = 3,
        prior_mean: ArrayLike = 0.0,
        prior_std: ArrayLike = 1.0,
        noise_std: float = 0.5,
    ) -> None:
        check_counts(n_arms=n_arms)
        super().__init__(_one_state(n_arms), 1, noise_std)
        self.prior_mean = _per_arm("prior_mean", prior_mean, n_arms)
        self.prior_std = _per_arm("prior_std", prior_std, n_arms)
        self.task_distribution = GaussianTasks(
            GaussianBanditTask.from_array, self.prior_mean, self.prior_std
        )

    def mean_rewards(self, arrays: FloatArray) -> FloatArray:
        """The arms' means, (M, 1, 1, A)."""
        return arrays.reshape(len(arrays), 1, 1, self.n_actions).copy()

    def q_prior(
        self,
        *,
        n_tasks: int = 600,
        seed: int = 0,
        target: Target = "optimal",
        structure: Structure = "block",
        misfit: bool = False,
        ridge: float = 1e-4,
    ) -> tuple[FloatArray, FloatArray]:
        """The true prior, exactly: mean (1, A) and covariance (1, A, A); no argument matters."""
        check_prior_options(
            n_tasks=n_tasks, seed=seed, target=target, structure=structure, ridge=ridge
        )
        return self.prior_mean[None].copy(), np.diag(self.prior_std**2)[None]


def _per_arm(name: str, value: ArrayLike, n_arms: int) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (n_arms,)) or not np.isfinite(array).all():
        raise ValueError(f"{name}={value!r} must be a finite number or {n_arms} of them")
    return np.broadcast_to(array, (n_arms,)).copy()


class GaussianBandit(FiniteProbeEnv):
    """A bandit with Gaussian means and noise: the best return is the largest mean.

    The setting in which Thompson sampling with the true prior is exactly Bayesian.

    * observation: ``MultiDiscrete([2, 1])``, (stage, state); action: ``Discrete(n_arms)``
    * episode: terminates after one step
    * task: ``GaussianBanditTask(means)``, independently Gaussian

    Arguments: ``n_arms`` (A, 3); ``prior_mean`` and ``prior_std`` of the arms' means, (A,) or one
    number (0 and 1); ``noise_std``, the standard deviation of the Gaussian noise on rewards (0.5);
    ``task_mode`` and ``render_mode`` as in ``FamilyEnv``.
    """

    family_class = GaussianBanditFamily
    family: GaussianBanditFamily


class GaussianBanditVector(FamilyVectorEnv):
    """``num_envs`` of :class:`GaussianBandit` at once."""

    family_class = GaussianBanditFamily
    family: GaussianBanditFamily
