"""Probes with continuous actions: a sign to find, and a linear-quadratic regulator.

Shapes: B environments, M tasks, H stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import check_counts, check_deviations
from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.family import Array, Family, Params
from metarl_envs.batched.normals import normals
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task, TupleTask
from metarl_envs.distributions import FiniteTasks, UniformTasks, check_tasks


@dataclass(frozen=True)
class SignFlipTask(TupleTask):
    """The sign of the reward: -1 or +1."""

    sign: int


class SignFlipFamily(Family):
    """The reward is the action or its negative; see :class:`SignFlip`."""

    n_step_uniforms = 1

    def __init__(self, *, n_stages: int = 1, noise_std: float = 0.0) -> None:
        check_counts(n_stages=n_stages)
        check_deviations(noise_std=noise_std)
        self.horizon = self.n_stages = n_stages
        self.noise_std = noise_std
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_distribution = FiniteTasks([SignFlipTask(-1), SignFlipTask(1)])

    def compile(self, arrays: FloatArray) -> Params:
        """Signs, (B,)."""
        return {"sign": arrays[:, 0].copy()}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """Nothing to keep, (B,) zeros."""
        return np.zeros(len(uniforms), dtype=np.int8)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """``sign * action`` plus noise."""
        rewards = params["sign"] * actions[:, 0].astype(np.float64)
        rewards = rewards + self.noise_std * normals(uniforms[:, 0])
        return states.copy(), rewards, stages + 1 >= self.n_stages

    def observe(self, states: Array, stages: IntArray) -> Array:
        """Fraction of the episode that has passed, (B, 1)."""
        return (stages[:, None] / self.n_stages).astype(np.float32)

    def optimal_action(self, task: Task, observation: Array) -> Array:
        """The sign, (1,), whatever is observed."""
        return task.to_array().astype(np.float32)

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """``n_stages`` for every task, (M,)."""
        return np.full(len(check_tasks(self.task_distribution, tasks)), float(self.n_stages))

    def optimal_return(self, task: Task) -> float:
        """``n_stages``."""
        return float(self.optimal_returns([task])[0])


class SignFlip(FamilyEnv):
    """The reward is ``sign * action``: the best return is ``n_stages``, by the action ``sign``.

    The best policy for both tasks at once is any that is 0 on average, with return 0: all that can
    be gained is gained by adaptation.

    * observation: ``Box(0, 1, (1,))``, the fraction of the episode that has passed
    * action: ``Box(-1, 1, (1,))``
    * episode: terminates after ``n_stages`` steps
    * task: ``SignFlipTask(sign)``, -1 or +1 with equal probability

    Arguments: ``n_stages`` (1) and ``noise_std``, the standard deviation of the Gaussian noise on
    rewards (0); ``task_mode`` and ``render_mode`` as in ``FamilyEnv``.
    """

    family_class = SignFlipFamily
    family: SignFlipFamily

    def optimal_action(self, task: Task, observation: Array) -> Array:
        """The sign, (1,), whatever is observed."""
        return self.family.optimal_action(task, observation)


class SignFlipVector(FamilyVectorEnv):
    """``num_envs`` of :class:`SignFlip` at once."""

    family_class = SignFlipFamily
    family: SignFlipFamily


@dataclass(frozen=True)
class LinearQuadraticTask(TupleTask):
    """Where to go, and how strongly actions push."""

    goal: float
    gain: float

    @classmethod
    def from_array(cls, array: FloatArray) -> LinearQuadraticTask:
        """Inverse of ``to_array``, (2,)."""
        return cls(*array.tolist())


class LinearQuadraticFamily(Family):
    """A noisy linear system with a quadratic cost; see :class:`LinearQuadratic`."""

    n_reset_uniforms = 1
    n_step_uniforms = 1
    control_limit = 5.0
    """What an action of 1 stands for."""

    def __init__(
        self,
        *,
        n_stages: int = 10,
        control_cost: float = 0.1,
        noise_std: float = 0.1,
        start_std: float = 0.1,
    ) -> None:
        check_counts(n_stages=n_stages)
        check_deviations(control_cost=control_cost, noise_std=noise_std, start_std=start_std)
        self.horizon = self.n_stages = n_stages
        self.control_cost, self.noise_std, self.start_std = control_cost, noise_std, start_std
        high = np.array([np.inf, 1.0], dtype=np.float32)
        low = np.array([-np.inf, 0.0], dtype=np.float32)
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_distribution = UniformTasks(
            LinearQuadraticTask.from_array, [-1.0, 0.5], [1.0, 1.5]
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Goals and gains, (B,) each."""
        return {"goal": arrays[:, 0].copy(), "gain": arrays[:, 1].copy()}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """``x_0 ~ N(0, start_std^2)``, (B,)."""
        return self.start_std * normals(uniforms[:, 0])

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """``x' = x + gain u + noise``, at the cost ``(x' - goal)^2 + control_cost u^2``."""
        u = self.control_limit * actions[:, 0].astype(np.float64)
        following = states + params["gain"] * u + self.noise_std * normals(uniforms[:, 0])
        error = following - params["goal"]
        rewards = -(error * error) - self.control_cost * (u * u)
        return following, rewards, stages + 1 >= self.n_stages

    def observe(self, states: Array, stages: IntArray) -> Array:
        """Position and fraction of the episode that has passed, (B, 2)."""
        return np.stack([states, stages / self.n_stages], axis=-1).astype(np.float32)

    def riccati(self, task: Task) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Feedback gains, and the curvatures and constants of the values, (H,) each.

        With e = x - goal, b = gain, c = control_cost, s = noise_std, the value of stage t is
        ``-(p_t e^2 + q_t)``, ``p_H = q_H = 0``, and with ``m = 1 + p_{t+1}``
        ``u_t = -k_t e``, ``k_t = m b / (m b^2 + c)``, ``p_t = m c / (m b^2 + c)``,
        ``q_t = m s^2 + q_{t+1}`` (the discrete-time Riccati recursion in one dimension).
        """
        _, b = task.to_array()
        k, p, q = np.zeros((3, self.n_stages + 1))
        for stage in reversed(range(self.n_stages)):
            m = 1.0 + p[stage + 1]
            k[stage] = m * b / (m * b * b + self.control_cost)
            p[stage] = m * self.control_cost / (m * b * b + self.control_cost)
            q[stage] = m * self.noise_std**2 + q[stage + 1]
        return k[:-1], p[:-1], q[:-1]

    def optimal_action(self, task: Task, observation: Array) -> Array:
        """Linear feedback on the distance from the goal, (1,); not clipped to the space.

        :param task: the task
        :param observation: (2,)
        """
        stage = round(float(observation[1]) * self.n_stages)
        error = float(observation[0]) - task.to_array()[0]
        control = -self.riccati(task)[0][stage] * error
        return np.array([control / self.control_limit], dtype=np.float32)

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of linear feedback, ``-(p_0 (goal^2 + start_std^2) + q_0)``, (M,)."""
        tasks = check_tasks(self.task_distribution, tasks)
        return np.array([self._optimal_return(task) for task in tasks], dtype=np.float64)

    def optimal_return(self, task: Task) -> float:
        """Expected return of linear feedback in one task."""
        return float(self.optimal_returns([task])[0])

    def _optimal_return(self, task: Task) -> float:
        _, p, q = self.riccati(task)
        goal = task.to_array()[0]
        return float(-(p[0] * (goal**2 + self.start_std**2) + q[0]))


class LinearQuadratic(FamilyEnv):
    """A linear system to steer to a goal: the best policy is linear, by the Riccati recursion.

    ``x' = x + gain * u + noise`` and reward ``-(x' - goal)^2 - control_cost * u^2``, from a start
    near 0, with ``u = 5 * action``.

    * observation: ``Box((2,))``, x and the fraction of the episode that has passed
    * action: ``Box(-1, 1, (1,))``; with numbers like the default ones the best control leaves +-5
      with negligible probability, so the optimum without bounds is the optimum
    * episode: terminates after ``n_stages`` steps
    * task: ``LinearQuadraticTask(goal, gain)``, uniform in [-1, 1] and [0.5, 1.5]

    Arguments: ``n_stages`` (H, 10), ``control_cost`` (0.1), ``noise_std`` and ``start_std``, the
    standard deviations of the system noise and of the start (0.1 each); ``task_mode`` and
    ``render_mode`` as in ``FamilyEnv``.
    """

    family_class = LinearQuadraticFamily
    family: LinearQuadraticFamily

    def optimal_action(self, task: Task, observation: Array) -> Array:
        """Linear feedback on the distance from the goal, (1,); see the family."""
        return self.family.optimal_action(task, observation)


class LinearQuadraticVector(FamilyVectorEnv):
    """``num_envs`` of :class:`LinearQuadratic` at once."""

    family_class = LinearQuadraticFamily
    family: LinearQuadraticFamily
