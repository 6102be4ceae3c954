"""Bandits: which arm pays, and arms with Gaussian means.

Shapes: M tasks, A arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray, Task, TupleTask
from metarl_envs.distributions import FiniteTasks, GaussianTasks, TaskMode
from metarl_envs.probes.finite import FiniteProbe, FiniteProbeEnv
from metarl_envs.tabular.checking import Structure, Target, check_counts, check_prior_options
from metarl_envs.tabular.vector import TabularVectorEnv


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

    def mean_rewards(self, tasks: Sequence[Task]) -> FloatArray:
        """1 for the arm that pays, (M, 1, 1, A)."""
        arms = np.array([task.to_array()[0] for task in tasks], dtype=np.int64)
        return np.eye(self.n_actions)[arms][:, None, None, :]


class WhichArmArguments(TypedDict, total=False):
    """Arguments of :class:`WhichArmFamily`."""

    n_arms: int
    noise_std: float


class WhichArm(FiniteProbeEnv):
    """A bandit in which one arm pays: the best return is 1, by pulling that arm.

    An episode is one pull, so the other episodes of a task must teach which arm it is. Trying the
    arms in turn finds it within A - 1 episodes (without noise).

    * observation: ``MultiDiscrete([2, 1])``, (stage, state); action: ``Discrete(n_arms)``
    * episode: terminates after one step
    * task: ``WhichArmTask(arm)``, uniform over the arms

    Arguments: ``n_arms`` (A, 3) and ``noise_std``, the standard deviation of the Gaussian noise on
    rewards (0); ``task_mode`` and ``render_mode`` as in ``TabularEnv``.
    """

    def __init__(
        self,
        *,
        task_mode: TaskMode = "resample",
        render_mode: str | None = None,
        **arguments: Unpack[WhichArmArguments],
    ) -> None:
        family = WhichArmFamily(**arguments)
        super().__init__(family, task_mode=task_mode, render_mode=render_mode)


class WhichArmVector(TabularVectorEnv):
    """``num_envs`` of :class:`WhichArm` at once."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        task_mode: TaskMode = "resample",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Unpack[WhichArmArguments],
    ) -> None:
        super().__init__(
            WhichArmFamily(**arguments),
            num_envs,
            task_mode=task_mode,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
        )


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

    def mean_rewards(self, tasks: Sequence[Task]) -> FloatArray:
        """The arms' means, (M, 1, 1, A)."""
        means = np.array([task.to_array() for task in tasks], dtype=np.float64)
        return means.reshape(len(tasks), 1, 1, self.n_actions)

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


class GaussianBanditArguments(TypedDict, total=False):
    """Arguments of :class:`GaussianBanditFamily`."""

    n_arms: int
    prior_mean: ArrayLike
    prior_std: ArrayLike
    noise_std: float


class GaussianBandit(FiniteProbeEnv):
    """A bandit with Gaussian means and noise: the best return is the largest mean.

    The setting in which Thompson sampling with the true prior is exactly Bayesian.

    * observation: ``MultiDiscrete([2, 1])``, (stage, state); action: ``Discrete(n_arms)``
    * episode: terminates after one step
    * task: ``GaussianBanditTask(means)``, independently Gaussian

    Arguments: ``n_arms`` (A, 3); ``prior_mean`` and ``prior_std`` of the arms' means, (A,) or one
    number (0 and 1); ``noise_std``, the standard deviation of the Gaussian noise on rewards (0.5);
    ``task_mode`` and ``render_mode`` as in ``TabularEnv``.
    """

    def __init__(
        self,
        *,
        task_mode: TaskMode = "resample",
        render_mode: str | None = None,
        **arguments: Unpack[GaussianBanditArguments],
    ) -> None:
        family = GaussianBanditFamily(**arguments)
        super().__init__(family, task_mode=task_mode, render_mode=render_mode)


class GaussianBanditVector(TabularVectorEnv):
    """``num_envs`` of :class:`GaussianBandit` at once."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        task_mode: TaskMode = "resample",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Unpack[GaussianBanditArguments],
    ) -> None:
        super().__init__(
            GaussianBanditFamily(**arguments),
            num_envs,
            task_mode=task_mode,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
        )
