"""What probes with finitely many states and actions share: dynamics, features, exact values.

Shapes: B environments, M tasks, H stages, S states, S_h states reachable at stage h, A actions,
d = A S features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import (
    Structure,
    Target,
    check_counts,
    check_deviations,
    check_observations,
    check_prior_options,
    check_stage,
    checked_policies,
)
from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.family import Array, Family, Params
from metarl_envs.batched.normals import normals
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.distributions import FiniteTasks, prior_tasks, task_arrays


class FiniteProbe(Family):
    """A finite-horizon family whose tasks differ in their mean rewards; one-hot features.

    :param transitions: P(s' | s, a), the same for all tasks and stages, (S, A, S)
    :param n_stages: steps of an episode (H); it then terminates
    :param noise_std: standard deviation of the Gaussian noise on rewards
    """

    n_step_uniforms = 2

    def __init__(self, transitions: FloatArray, n_stages: int, noise_std: float) -> None:
        check_counts(n_stages=n_stages)
        check_deviations(noise_std=noise_std)
        self.transitions = transitions
        self._cumulative = np.cumsum(transitions, axis=-1)
        self.n_states, self.n_actions = transitions.shape[:2]
        self.horizon = self.n_stages = n_stages
        self.has_action_masks = True
        self.noise_std = noise_std
        self.n_feature_blocks = self.n_actions
        self.n_features = self.n_actions * self.n_states
        self.observation_space = gym.spaces.MultiDiscrete([n_stages + 1, self.n_states])
        self.action_space = gym.spaces.Discrete(self.n_actions)

    @abstractmethod
    def mean_rewards(self, arrays: FloatArray) -> FloatArray:
        """Expected rewards, (M, H, S, A), of tasks with these arrays, (M, n)."""

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """Mean rewards, (B, H, S, A)."""
        return {"rewards": self.mean_rewards(arrays)}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """State 0, (B,)."""
        return np.zeros(len(uniforms), dtype=np.int64)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Mean reward plus noise, and a draw from the kernel."""
        rewards = params["rewards"][np.arange(len(states)), stages, states, actions]
        noise = normals(uniforms[:, 1])
        following = (uniforms[:, :1] >= self._cumulative[states, actions]).sum(axis=-1)
        following = np.minimum(following, self.n_states - 1)
        return following, rewards + self.noise_std * noise, stages + 1 >= self.n_stages

    def observe(self, states: Array, stages: IntArray) -> Array:
        """(stage, state), (B, 2)."""
        return np.stack([stages, states], axis=-1).astype(np.int64)

    # What agents may ask

    def features(self, stage: int, observations: Array) -> FloatArray:
        """One-hot features of every action, ``e_a (x) e_s``, (..., A, d).

        :param stage: from 0; the features are the same at every stage
        :param observations: (..., 2), integers, possibly stored as floats
        """
        check_stage(stage, self.n_stages)
        states = self._checked(observations)[..., 1].astype(np.int64)
        table = np.einsum("ab,sn->sabn", np.eye(self.n_actions), np.eye(self.n_states))
        return table.reshape(self.n_states, self.n_actions, self.n_features)[states]

    def stages(self, observations: Array) -> IntArray:
        """Stage of each observation, (...)."""
        return self._checked(observations)[..., 0].astype(np.int64)

    def action_masks(self, observations: Array) -> BoolArray:
        """All actions, (..., A)."""
        return super().action_masks(self._checked(observations))

    def _checked(self, observations: Array) -> Array:
        observations = np.asarray(observations)
        if observations.ndim == 0 or observations.shape[-1] != 2:
            raise ValueError(
                f"observations have shape {observations.shape}, but must have shape (..., 2)"
            )
        check_observations(observations, 0, np.array([self.n_stages, self.n_states - 1]))
        return observations

    # Exact values

    @cached_property
    def _reachable(self) -> list[IntArray]:
        """States that some policy reaches at each stage."""
        reached = [np.array([0])]
        for _ in range(1, self.n_stages):
            reached.append(np.flatnonzero(self.transitions[reached[-1]].sum(axis=(0, 1)) > 0))
        return reached

    def stage_observations(self, stage: int) -> Array:
        """Every observation that some policy can reach at ``stage``, (S_h, 2)."""
        check_stage(stage, self.n_stages)
        states = self._reachable[stage]
        return self.observe(states, np.full(len(states), stage))

    def optimal_action_values(self, tasks: Sequence[Task]) -> FloatArray:
        """Values of the actions under the best policy, (M, H, S, A)."""
        rewards = self.mean_rewards(task_arrays(self.task_distribution, tasks))
        values, q = np.zeros((len(tasks), self.n_states)), np.zeros_like(rewards)
        for stage in reversed(range(self.n_stages)):
            q[:, stage] = rewards[:, stage] + np.einsum("sax,mx->msa", self.transitions, values)
            values = q[:, stage].max(axis=-1)
        return q

    def optimal_action(self, task: Task, observation: Array) -> int:
        """A best action in a state of one task.

        :param task: the task
        :param observation: (2,)
        """
        stage, state = (int(number) for number in observation)
        check_stage(stage, self.n_stages)
        return int(np.argmax(self.optimal_action_values([task])[0, stage, state]))

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of the best policy, (M,)."""
        return self.optimal_action_values(tasks)[:, 0, 0].max(axis=-1)

    def optimal_return(self, task: Task) -> float:
        """Expected return of the best policy of one task."""
        return float(self.optimal_returns([task])[0])

    def policy_returns(self, tasks: Sequence[Task], probabilities: Sequence[Array]) -> FloatArray:
        """Expected return of one policy per task, (M,).

        :param tasks: M tasks
        :param probabilities: for each stage (M, S_h, A) or (S_h, A), rows as in
            ``stage_observations``
        """
        n_reachable = [len(states) for states in self._reachable]
        policies = checked_policies(probabilities, len(tasks), n_reachable, self.n_actions)
        rewards = self.mean_rewards(task_arrays(self.task_distribution, tasks))
        values = np.zeros((len(tasks), self.n_states))
        for stage in reversed(range(self.n_stages)):
            states = self._reachable[stage]
            q = rewards[:, stage] + np.einsum("sax,mx->msa", self.transitions, values)
            values = np.zeros_like(values)
            values[:, states] = np.einsum("msa,msa->ms", policies[stage], q[:, states])
        return values[:, 0]

    def myopic_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of the policy that is greedy on the mean reward, (M,)."""
        greedy = np.eye(self.n_actions)[
            np.argmax(self.mean_rewards(task_arrays(self.task_distribution, tasks)), axis=-1)
        ]
        return self.policy_returns(
            tasks, [greedy[:, stage][:, states] for stage, states in enumerate(self._reachable)]
        )

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
        """Mean (H, d) and covariance (H, d, d) of the action values over the tasks.

        One-hot features fit them exactly, so ``misfit`` and ``ridge`` change nothing. Exact where
        the family has finitely many tasks, else by Monte Carlo.

        :param n_tasks: tasks of the Monte Carlo
        :param seed: its seed
        :param target: ``"optimal"`` action values, or ``"myopic"``: mean rewards
        :param structure: ``"block"`` sets covariances between different actions to zero
        :param misfit: without effect
        :param ridge: without effect
        """
        check_prior_options(
            n_tasks=n_tasks, seed=seed, target=target, structure=structure, ridge=ridge
        )
        tasks, weights = self._weighted_tasks(n_tasks, seed)
        if target == "optimal":
            values = self.optimal_action_values(tasks)
        else:
            values = self.mean_rewards(task_arrays(self.task_distribution, tasks))
        # (M, H, S, A) to (M, H, A S): one contiguous block per action.
        parameters = values.swapaxes(2, 3).reshape(len(tasks), self.n_stages, -1)
        mean = np.einsum("k,khd->hd", weights, parameters)
        centred = parameters - mean
        covariance = np.einsum("k,khd,khe->hde", weights, centred, centred)
        if structure == "block":
            block = np.repeat(np.arange(self.n_actions), self.n_states)
            covariance = covariance * (block[:, None] == block)
        return mean, covariance

    def _weighted_tasks(self, n_tasks: int, seed: int) -> tuple[Sequence[Task], FloatArray]:
        distribution = self.task_distribution
        if isinstance(distribution, FiniteTasks):
            return distribution.tasks, distribution.probabilities
        return prior_tasks(distribution, n_tasks, seed), np.full(n_tasks, 1.0 / n_tasks)


class FiniteProbeEnv(FamilyEnv):
    """A single env of a finite probe."""

    family: FiniteProbe

    def optimal_action(self, task: Task, observation: Array) -> int:
        """A best action in a state of one task; see the family."""
        return self.family.optimal_action(task, observation)
