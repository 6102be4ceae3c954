"""The inverse Bellman family: dynamics, features and exact values.

Shapes: B environments, M tasks, H stages, S states, A actions, d features.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.batched.checking import (
    Structure,
    Target,
    check_choice,
    check_counts,
    check_deviations,
    check_observations,
    check_prior_options,
    check_seed,
    check_stage,
    checked_policies,
)
from metarl_envs.batched.family import Array, Family, Params, View, sequential_dot
from metarl_envs.batched.normals import normals
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.distributions import prior_tasks, task_arrays
from metarl_envs.tabular.inverse_bellman import tasks as parts
from metarl_envs.tabular.mdp import FiniteMDP
from metarl_envs.tabular.projection import misspecified, prior_moments, projector


class InverseBellmanFamily(Family):
    """Random finite MDPs, defined backwards from their optimal Q-functions; see
    `InverseBellmanEnv`.
    """

    n_reset_uniforms = 1
    n_step_uniforms = 2
    n_feature_blocks = 1
    has_action_masks = True

    def __init__(
        self,
        *,
        n_states: int = 6,
        n_actions: int = 3,
        n_stages: int = 4,
        n_features: int = 4,
        reward_std: float = 0.5,
        kernel: parts.Kernel = "stochastic",
        population_seed: int = 0,
        prior_mean: ArrayLike | None = None,
        prior_covariance: ArrayLike | None = None,
        task_std: float = 0.35,
    ) -> None:
        check_counts(
            n_states=n_states, n_actions=n_actions, n_stages=n_stages, n_features=n_features
        )
        check_deviations(reward_std=reward_std, task_std=task_std)
        check_choice("kernel", kernel, parts.Kernel)
        check_seed(population_seed=population_seed)
        self.n_states, self.n_actions, self.n_stages, self.n_features = (
            n_states,
            n_actions,
            n_stages,
            n_features,
        )
        self.reward_std = reward_std
        self.horizon = n_stages
        self.transitions = parts.draw_transitions(
            kernel, (n_stages, n_states, n_actions), population_seed
        )
        self.feature_table = parts.draw_features(
            (n_stages, n_states, n_actions, n_features), population_seed
        )
        self.prior_mean = parts.prior_mean(prior_mean, (n_stages, n_features), population_seed)
        self.prior_covariance = parts.prior_covariance(
            prior_covariance, (n_stages, n_features, n_features), task_std, population_seed
        )
        self._cumulative = np.cumsum(self.transitions, axis=-1)
        self.task_distribution = parts.gaussian_tasks(self.prior_mean, self.prior_covariance)
        self.observation_space = gym.spaces.MultiDiscrete([n_stages + 1, n_states])
        self.action_space = gym.spaces.Discrete(n_actions)

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """Mean rewards (B, H, S, A): `r_h(s, a) = q_h(s, a) - sum_s' P_h(s' | s, a) max_a'
        q_{h+1}(s', a')`.
        """
        q = self._action_values(arrays)
        values = q.max(axis=-1)
        following = np.zeros_like(values)
        following[:, :-1] = values[:, 1:]
        return {
            "rewards": q - sequential_dot(self.transitions[None], following[:, :, None, None, :])
        }

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """A uniform state, (B,)."""
        return np.minimum((uniforms[:, 0] * self.n_states).astype(np.int64), self.n_states - 1)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Mean reward plus Gaussian noise, and a draw from the kernel."""
        rows = np.arange(len(states))
        noise = normals(uniforms[:, 1])
        rewards = params["rewards"][rows, stages, states, actions] + self.reward_std * noise
        cumulative = self._cumulative[stages, states, actions]
        following = np.minimum((uniforms[:, :1] >= cumulative).sum(axis=-1), self.n_states - 1)
        return following, rewards, stages + 1 >= self.n_stages

    def observe(self, states: Array, stages: IntArray) -> Array:
        """(stage, state), (B, 2)."""
        return np.stack([stages, states], axis=-1).astype(np.int64)

    # What agents may ask

    def features(self, stage: int, observations: Array) -> FloatArray:
        """The features of every action, (..., A, d).

        :param stage: from 0
        :param observations: (..., 2), integers, possibly stored as floats
        """
        check_stage(stage, self.n_stages)
        return self.feature_table[stage][self._checked(observations)[..., 1].astype(np.int64)]

    def action_masks(self, observations: Array) -> BoolArray:
        """All actions, (..., A)."""
        return super().action_masks(self._checked(observations))

    def stages(self, observations: Array) -> IntArray:
        """The stage of each observation, (...)."""
        return self._checked(observations)[..., 0].astype(np.int64)

    # Exact values

    def stage_observations(self, stage: int) -> Array:
        """All states at a stage, (S, 2)."""
        check_stage(stage, self.n_stages)
        return self.observe(np.arange(self.n_states), np.full(self.n_states, stage))

    def optimal_action_values(self, tasks: Sequence[Task]) -> FloatArray:
        """`Q*`, (M, H, S, A)."""
        return self._action_values(task_arrays(self.task_distribution, tasks))

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of the best policy, (M,)."""
        return self.optimal_action_values(tasks)[:, 0].max(axis=-1).mean(axis=-1)

    def optimal_return(self, task: Task) -> float:
        """Expected return of the best policy of one task."""
        return float(self.optimal_returns([task])[0])

    def policy_returns(self, tasks: Sequence[Task], probabilities: Sequence[Array]) -> FloatArray:
        """Expected return of one policy per task, (M,).

        :param tasks: M tasks
        :param probabilities: for each stage (M, S, A) or (S, A), rows as in `stage_observations`
        """
        policies = checked_policies(
            probabilities, len(tasks), [self.n_states] * self.n_stages, self.n_actions
        )
        rewards = self._mean_rewards(tasks)
        values = np.zeros((len(tasks), self.n_states))
        for stage in reversed(range(self.n_stages)):
            q = rewards[:, stage] + np.einsum("sax,mx->msa", self.transitions[stage], values)
            values = np.einsum("msa,msa->ms", policies[stage], q)
        return values.mean(axis=-1)

    def myopic_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of the policy that is greedy on the mean immediate reward, (M,)."""
        greedy = np.eye(self.n_actions)[np.argmax(self._mean_rewards(tasks), axis=-1)]
        return self.policy_returns(tasks, [greedy[:, stage] for stage in range(self.n_stages)])

    def q_prior(
        self,
        *,
        n_tasks: int = 600,
        seed: int = 0,
        target: Target = "optimal",
        structure: Structure = "block",
        misfit: bool = False,
        ridge: float = 1e-4,
        covariance_scale: float = 1.0,
        mean_shift: float = 0.0,
    ) -> tuple[FloatArray, FloatArray]:
        """Mean (H, d) and covariance (H, d, d) of the Q-function's parameters: for
        `target="optimal"` exactly the truth.

        :param n_tasks: of the Monte Carlo for `target="myopic"`
        :param seed: of that
        :param target: "myopic" projects the mean immediate rewards on the features instead, all
            state-action pairs weighing the same
        :param structure: "block" or "full"; there is one block, so they agree
        :param misfit: adds the mean squared residual of the projection to the variances (0 for
            "optimal")
        :param ridge: of the projection
        :param covariance_scale: multiplies the covariance, to misspecify the prior
        :param mean_shift: added to the mean in units of standard deviations, to misspecify the
            prior
        """
        check_prior_options(
            n_tasks=n_tasks,
            seed=seed,
            target=target,
            structure=structure,
            ridge=ridge,
            covariance_scale=covariance_scale,
            mean_shift=mean_shift,
        )
        if target == "optimal":
            return misspecified(
                self.prior_mean.copy(), self.prior_covariance.copy(), covariance_scale, mean_shift
            )
        rewards = self._mean_rewards(prior_tasks(self.task_distribution, n_tasks, seed))
        parameters, residuals = self._project(rewards.reshape(n_tasks, self.n_stages, -1), ridge)
        return prior_moments(
            parameters,
            residuals if misfit else np.zeros_like(residuals),
            covariance_scale=covariance_scale,
            mean_shift=mean_shift,
        )

    def finite_mdp(self, task: Task) -> FiniteMDP:
        """One task as a finite-horizon MDP; see `finite_mdps`."""
        return self.finite_mdps([task])[0]

    def finite_mdps(self, tasks: Sequence[Task]) -> FiniteMDP:
        """The tasks as one batch of finite-horizon MDPs with a state for each pair (stage, state):
        index `stage * S + state`.
        """
        s, layers = self.n_states, self.n_stages
        transitions = np.zeros((layers, s, self.n_actions, layers, s))
        for stage in range(layers):
            # The last layer leads back to the first: the horizon ends the episode before that.
            transitions[stage, :, :, (stage + 1) % layers] = self.transitions[stage]
        initial = np.zeros((layers, s))
        initial[0] = 1.0 / s
        n = layers * s
        return FiniteMDP(
            transitions.reshape(n, self.n_actions, n),
            self._mean_rewards(tasks).reshape(-1, n, self.n_actions),
            initial.reshape(n),
            horizon=layers,
        )

    def render_ansi(self, view: View) -> str:
        """The stage, the state and the last step."""
        from metarl_envs.tabular.inverse_bellman.rendering import chain_text

        return chain_text(view, self.n_states, self.n_stages)

    def render_rgb(self, view: View) -> Any:
        """A grid of stages and states with the current one marked."""
        from metarl_envs.tabular.inverse_bellman.rendering import chain_image

        return chain_image(view, self.n_states, self.n_stages)

    def _checked(self, observations: Array) -> Array:
        observations = np.asarray(observations)
        if observations.ndim == 0 or observations.shape[-1] != 2:
            raise ValueError(
                f"observations have shape {observations.shape}, but must have shape (..., 2)"
            )
        check_observations(observations, 0, np.array([self.n_stages, self.n_states - 1]))
        return observations

    def _action_values(self, arrays: FloatArray) -> FloatArray:
        """`Q*`, (M, H, S, A)."""
        parameters = arrays.reshape(len(arrays), self.n_stages, 1, 1, self.n_features)
        return sequential_dot(self.feature_table[None], parameters)

    def _mean_rewards(self, tasks: Sequence[Task]) -> FloatArray:
        """Mean rewards, (M, H, S, A), of tasks that the user handed in."""
        return self.compile(task_arrays(self.task_distribution, tasks))["rewards"]

    def _project(self, values: FloatArray, ridge: float) -> tuple[FloatArray, FloatArray]:
        """Parameters (M, H, d) and mean squared residuals (H,) of values (M, H, S A)."""
        parameters = np.zeros((len(values), self.n_stages, self.n_features))
        residuals = np.zeros(self.n_stages)
        for stage in range(self.n_stages):
            table = self.feature_table[stage].reshape(-1, self.n_features)
            parameters[:, stage] = values[:, stage] @ projector(table, ridge).T
            residuals[stage] = np.mean((values[:, stage] - parameters[:, stage] @ table.T) ** 2)
        return parameters, residuals
