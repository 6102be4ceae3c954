"""The bandit families: dynamics and exact values.

Shapes: B environments, M tasks, A arms.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import check_counts, check_deviations, check_magnitudes
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.batched.normals import normals
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task, TupleTask
from metarl_envs.distributions import UniformTasks, task_arrays
from metarl_envs.tabular.bandit.bayes_optimal import BayesOptimalPolicy, bayes_optimal_policy
from metarl_envs.tabular.mdp import FiniteMDP


@dataclass(frozen=True)
class BernoulliBanditTask(TupleTask):
    """The probability that each arm pays 1."""

    success_probabilities: tuple[float, ...]
    """(A,)"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "BernoulliBanditTask":
        """The inverse of `to_array`, from (A,) numbers."""
        return cls(tuple(array.tolist()))


@dataclass(frozen=True)
class GaussianBanditTask(TupleTask):
    """The mean reward of each arm."""

    means: tuple[float, ...]
    """(A,)"""

    @classmethod
    def from_array(cls, array: FloatArray) -> "GaussianBanditTask":
        """The inverse of `to_array`, from (A,) numbers."""
        return cls(tuple(array.tolist()))


class BanditFamily(Family):
    """Bandits whose tasks are the arms' mean rewards; a subclass draws the rewards.

    :param n_arms: A
    :param n_pulls: after which an episode terminates
    """

    n_step_uniforms = 1

    def __init__(self, n_arms: int, n_pulls: int) -> None:
        check_counts(n_arms=n_arms, n_pulls=n_pulls)
        self.n_arms = n_arms
        self.horizon = self.n_pulls = n_pulls
        self.observation_space = gym.spaces.Discrete(1)
        self.action_space = gym.spaces.Discrete(n_arms)

    @abstractmethod
    def draw_rewards(self, means: FloatArray, uniforms: FloatArray) -> FloatArray:
        """Rewards of pulls, (B,).

        :param means: of the arms that were pulled, (B,)
        :param uniforms: (B,)
        """

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """The arms' means, (B, A)."""
        return {"means": arrays.copy()}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """The only state, (B,) zeros."""
        return np.zeros(len(uniforms), dtype=np.int64)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """A reward of the arm that was pulled."""
        arms = np.arange(0, len(states) * self.n_arms, self.n_arms) + actions
        rewards = self.draw_rewards(params["means"].ravel().take(arms), uniforms[:, 0])
        return states.copy(), rewards, stages + 1 >= self.n_pulls

    def observe(self, states: Array, stages: IntArray) -> Array:
        """Nothing to see, (B,) zeros."""
        return np.zeros(len(states), dtype=np.int64)

    # Exact values

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """`n_pulls` times the largest mean, for an agent that knows the task, (M,)."""
        return self.n_pulls * task_arrays(self.task_distribution, tasks).max(axis=-1)

    def optimal_return(self, task: Task) -> float:
        """The same for one task."""
        return float(self.optimal_returns([task])[0])

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The tasks as one batch of MDPs with a single state and mean rewards."""
        means = task_arrays(self.task_distribution, tasks)[:, None, :]
        transitions = np.ones((1, self.n_arms, 1))
        return FiniteMDP(transitions, means, np.ones(1), horizon=self.n_pulls)

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """One task as an MDP with a single state and mean rewards."""
        return self.finite_mdps([task])[0]

    # Pictures

    def render_ansi(self, view: View) -> str:
        """The arms' means with the last pull marked."""
        from metarl_envs.tabular.bandit.rendering import arms_text

        return arms_text(view, self.n_pulls)

    def render_rgb(self, view: View) -> Any:
        """A bar for each arm's mean, the arm that was pulled last in colour."""
        from metarl_envs.tabular.bandit.rendering import arms_image

        return arms_image(view, self.n_pulls)


class BernoulliBanditFamily(BanditFamily):
    """Arms that pay 1 with probabilities uniform on [0, 1]; see `BernoulliBanditEnv`."""

    def __init__(self, *, n_arms: int = 5, n_pulls: int = 10) -> None:
        super().__init__(n_arms, n_pulls)
        self.task_distribution = UniformTasks(
            BernoulliBanditTask.from_array, np.zeros(n_arms), np.ones(n_arms)
        )

    def draw_rewards(self, means: FloatArray, uniforms: FloatArray) -> FloatArray:
        """1 with the probability of the arm, otherwise 0."""
        return (uniforms < means).astype(np.float64)

    def bayes_optimal_value(self) -> float:
        """The largest expected return, over tasks, of an agent that does not know the task."""
        return self.bayes_optimal_policy().value

    def bayes_optimal_policy(self) -> BayesOptimalPolicy:
        """The policy that attains it."""
        return bayes_optimal_policy(self.n_pulls, self.n_arms)


class GaussianBanditFamily(BanditFamily):
    """Arms with means uniform on [0, 1] and Gaussian noise; see `GaussianBanditEnv`."""

    def __init__(self, *, n_arms: int = 5, n_pulls: int = 500, reward_std: float = 0.3) -> None:
        super().__init__(n_arms, n_pulls)
        check_deviations(reward_std=reward_std)
        check_magnitudes(reward_std=reward_std)
        self.reward_std = reward_std
        self.task_distribution = UniformTasks(
            GaussianBanditTask.from_array, np.zeros(n_arms), np.ones(n_arms)
        )

    def draw_rewards(self, means: FloatArray, uniforms: FloatArray) -> FloatArray:
        """The mean plus Gaussian noise."""
        return np.asarray(means + self.reward_std * normals(uniforms))
