"""The family of random MDPs: dynamics and exact values.

Shapes: B environments, M tasks, S states, A actions, H stages.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import check_counts, check_deviations, check_magnitudes
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.batched.normals import normals
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.distributions import task_arrays
from metarl_envs.tabular.mdp import FiniteMDP, optimal_values
from metarl_envs.tabular.random_mdp.tasks import RandomMDPTasks


class RandomMDPFamily(Family):
    """Random transitions and mean rewards; see `RandomMDPEnv`."""

    n_step_uniforms = 2
    task_distribution: RandomMDPTasks

    def __init__(
        self,
        *,
        n_states: int = 10,
        n_actions: int = 5,
        n_stages: int = 10,
        reward_std: float = 1.0,
    ) -> None:
        check_counts(n_states=n_states, n_actions=n_actions, n_stages=n_stages)
        check_deviations(reward_std=reward_std)
        check_magnitudes(reward_std=reward_std)
        self.n_states, self.n_actions, self.n_stages = n_states, n_actions, n_stages
        self.reward_std = reward_std
        self.horizon = n_stages
        self.task_distribution = RandomMDPTasks(n_states, n_actions)
        self.observation_space = gym.spaces.Discrete(n_states)
        self.action_space = gym.spaces.Discrete(n_actions)

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """Cumulative transition probabilities (B, S, A, S) and mean rewards (B, S, A)."""
        transitions, means = self.task_distribution.split(arrays)
        cumulative = np.cumsum(transitions, axis=-1)
        # No uniform number may lie beyond the last possible state, whatever the rounding.
        cumulative[cumulative >= cumulative[..., -1:]] = 1.0
        return {"cumulative": cumulative, "means": means.copy()}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """State 0, (B,)."""
        return np.zeros(len(uniforms), dtype=np.int64)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """A draw from the kernel, and the mean reward plus Gaussian noise."""
        pairs = (np.arange(len(states)) * self.n_states + states) * self.n_actions + actions
        cumulative = params["cumulative"].reshape(-1, self.n_states).take(pairs, axis=0)
        following = (uniforms[:, :1] >= cumulative).sum(axis=-1)
        noise = self.reward_std * normals(uniforms[:, 1])
        rewards = params["means"].ravel().take(pairs) + noise
        return following, rewards, stages + 1 >= self.n_stages

    def observe(self, states: Array, stages: IntArray) -> Array:
        """The states, (B,)."""
        return states.copy()

    # Exact values

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """The value at the start of the best policy for each task, (M,)."""
        return optimal_values(self.finite_mdps(tasks))[:, 0, 0]

    def optimal_return(self, task: Task) -> float:
        """The same for one task."""
        return float(self.optimal_returns([task])[0])

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The tasks as one batch of MDPs with horizon H."""
        parts = self.task_distribution.split(task_arrays(self.task_distribution, tasks))
        return FiniteMDP(*parts, np.eye(self.n_states)[0], horizon=self.n_stages)

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """One task as an MDP with horizon H."""
        return self.finite_mdps([task])[0]

    # Pictures

    def render_ansi(self, view: View) -> str:
        """The states with the current one marked, and the mean rewards of the actions there."""
        from metarl_envs.tabular.random_mdp.rendering import ring_text

        return ring_text(view, self.n_stages)

    def render_rgb(self, view: View) -> Any:
        """A ring of states with the path taken, and the mean rewards of the actions here."""
        from metarl_envs.tabular.random_mdp.rendering import ring_image

        return ring_image(view, self.n_stages)
