"""The recommendation family: dynamics, features and exact values.

Shapes: B environments, M tasks, P products (the actions), J stages, S_h states with at most h shown
products, d features.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import (
    Structure,
    Target,
    check_choice,
    check_counts,
    check_observations,
    check_prior_options,
    check_seed,
    check_stage,
    checked_policies,
)
from metarl_envs.batched.family import Array, Family, Params, View, sequential_dot
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.distributions import prior_tasks, task_arrays
from metarl_envs.tabular.projection import prior_moments, project_actions
from metarl_envs.tabular.recommendation import planning
from metarl_envs.tabular.recommendation.features import (
    FeaturesName,
    StateFeatures,
    in_action_blocks,
)
from metarl_envs.tabular.recommendation.tasks import (
    PopulationName,
    RecommendationTasks,
    TaskNoise,
    draw_population,
)

Repeat = Literal["mask", "noop"]


class RecommendationFamily(Family):
    """Customers who are recommended J of P products; see `RecommendationEnv` for the family and its
    arguments.
    """

    n_step_uniforms = 1
    has_action_masks = True

    def __init__(
        self,
        *,
        n_products: int = 10,
        n_recommendations: int = 5,
        population: PopulationName = "random",
        population_seed: int = 0,
        affinity_spread: float | None = None,
        bias_spread: float = 0.0,
        bias_std: float = 0.5,
        affinity_std: float = 0.5,
        interaction_std: float = 0.0,
        task_noise: TaskNoise = "gaussian",
        degrees_of_freedom: float = 3.0,
        n_clusters: int = 2,
        cluster_spread: float = 1.0,
        features: FeaturesName = "linear",
        n_projections: int = 3,
        repeat: Repeat = "mask",
    ) -> None:
        check_counts(n_products=n_products, n_recommendations=n_recommendations)
        if n_recommendations > n_products:
            raise ValueError(
                f"n_recommendations={n_recommendations} must be at most n_products={n_products}"
            )
        check_choice("repeat", repeat, Repeat)
        check_seed(population_seed=population_seed)
        self._masked = repeat == "mask"
        self.n_products, self.n_recommendations, self.repeat = n_products, n_recommendations, repeat
        self.population = draw_population(
            population,
            n_products,
            population_seed,
            bias_spread=bias_spread,
            affinity_spread=affinity_spread,
            interaction_std=interaction_std,
            n_clusters=n_clusters,
            cluster_spread=cluster_spread,
        )
        self.task_distribution: RecommendationTasks = RecommendationTasks(
            self.population,
            bias_std=bias_std,
            affinity_std=affinity_std,
            task_noise=task_noise,
            degrees_of_freedom=degrees_of_freedom,
        )
        self.state_features = StateFeatures(
            features, n_products, n_recommendations, n_projections, population_seed
        )
        self.observation_space = gym.spaces.MultiDiscrete([3] * n_products)
        self.action_space = gym.spaces.Discrete(n_products)
        self.horizon = self.n_stages = n_recommendations
        self.n_feature_blocks = n_products
        self.n_features = n_products * self.state_features.size

    # Dynamics

    def compile(self, arrays: FloatArray) -> Params:
        """Biases (B, P) and affinities (B, P, P)."""
        p = self.n_products
        return {"bias": arrays[:, :p].copy(), "affinity": arrays[:, p:].reshape(-1, p, p).copy()}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """Nothing was shown, (B, P) zeros."""
        return np.zeros((len(uniforms), self.n_products), dtype=np.int8)

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Shows product `actions[b]`: liked or not, unless it was shown before."""
        rows = np.arange(len(states))
        logits = params["bias"][rows, actions] + sequential_dot(
            params["affinity"][rows, actions], states
        )
        if self.population.interactions is not None:
            logits = logits + _interaction_logits(self.population.interactions[actions], states)
        is_new = states[rows, actions] == 0
        is_liked = uniforms[:, 0] < planning.sigmoid(logits)
        states = states.copy()
        states[rows, actions] = np.where(is_new, np.where(is_liked, 1, -1), states[rows, actions])
        rewards = (is_new & is_liked).astype(np.float64)
        return states, rewards, stages + 1 >= self.n_recommendations

    def observe(self, states: Array, stages: IntArray) -> Array:
        """`x + 1`, (B, P)."""
        return states.astype(np.int64) + 1

    # What agents may ask

    def features(self, stage: int, observations: Array) -> FloatArray:
        """`e_a (x) f(x)` of every product a, (..., P, d).

        :param stage: from 0; the features are the same at every stage
        :param observations: (..., P), integers, possibly stored as floats
        """
        check_stage(stage, self.n_stages)
        return in_action_blocks(self.state_features(self._x(observations)), self.n_products)

    def action_masks(self, observations: Array) -> BoolArray:
        """The products not shown yet, (..., P); all products with `repeat="noop"`."""
        x = self._x(observations)
        return np.ones(x.shape, dtype=np.bool_) if self.repeat == "noop" else x == 0

    def stages(self, observations: Array) -> IntArray:
        """The number of shown products, (...): the stage, as long as no product is shown twice."""
        if self.repeat == "noop":
            raise ValueError(
                'with repeat="noop" an observation does not tell its stage: '
                'read info["stage"] or count steps'
            )
        return np.count_nonzero(self._x(observations), axis=-1)

    # Exact values

    @cached_property
    def _table(self) -> planning.StateTable:
        return planning.state_table(self.n_products, self.n_stages)

    def stage_observations(self, stage: int) -> Array:
        """All states with at most `stage` shown products, (S_stage, P): no-op repeats reach those
        with fewer.
        """
        check_stage(stage, self.n_stages)
        return self._table.x[: self._table.n_states[stage]].astype(np.int64) + 1

    def optimal_action_values(self, tasks: Sequence[Task]) -> list[FloatArray]:
        """`Q*_h` of the rows of `stage_observations(h)` for h = 0..J-1, (M, S_h, P) each.

        Values of shown products are those of a no-op; with `repeat="mask"` the optimum never uses
        them.
        """
        arrays = task_arrays(self.task_distribution, tasks)
        choose = planning.choose_best(self._table, self._masked)
        parts = [
            dict(planning.backward(self._table, likes, choose))
            for _, likes in self._like_probabilities(arrays)
        ]
        return [np.concatenate([part[stage] for part in parts]) for stage in range(self.n_stages)]

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected number of likes under the best policy, (M,)."""
        choose = planning.choose_best(self._table, self._masked)
        return self._start_values(tasks, lambda where, likes: choose)

    def optimal_return(self, task: Task) -> float:
        """Expected number of likes under the best policy of one task."""
        return float(self.optimal_returns([task])[0])

    def myopic_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected number of likes when always the product most likely to be liked is shown, (M,).

        It is the upper limit of every bandit.
        """
        return self._start_values(
            tasks, lambda where, likes: planning.choose_likeliest(self._table, likes, self._masked)
        )

    def policy_returns(self, tasks: Sequence[Task], probabilities: Sequence[Array]) -> FloatArray:
        """Expected number of likes of one policy per task, (M,).

        :param tasks: M tasks
        :param probabilities: for each stage (M, S_h, P) or (S_h, P), rows as in
            `stage_observations`; mass on shown products is evaluated as what `step` does then, a
            no-op
        """
        n_states = self._table.n_states
        policies = checked_policies(probabilities, len(tasks), n_states, self.n_products)
        return self._start_values(
            tasks,
            lambda where, likes: planning.choose_randomly([policy[where] for policy in policies]),
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
        covariance_scale: float = 1.0,
        mean_shift: float = 0.0,
    ) -> tuple[FloatArray, FloatArray]:
        """Mean (J, d) and covariance (J, d, d) over segments of the parameters that fit Q best.

        Monte Carlo: tasks of a stream of their own are solved exactly; per stage and product Q* is
        projected on the features by least squares, all states with exactly that many shown products
        weighing the same (those in which the product is allowed).

        :param n_tasks: how many tasks
        :param seed: of the stream
        :param target: "optimal" projects Q*, "myopic" the expected immediate reward (the prior of a
            bandit)
        :param structure: "block" sets the covariances between different products to zero, "full"
            keeps them
        :param misfit: adds the mean squared residual of the projection to the variances of each
            stage
        :param ridge: added to the Gram matrices
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
        tasks = prior_tasks(self.task_distribution, n_tasks, seed)
        arrays = task_arrays(self.task_distribution, tasks)
        projected = [
            self._project(likes, target, ridge) for _, likes in self._like_probabilities(arrays)
        ]
        thetas = np.concatenate([theta for theta, _ in projected])
        residuals = np.concatenate([squares for _, squares in projected]).mean(axis=0)
        return prior_moments(
            thetas,
            residuals if misfit else np.zeros_like(residuals),
            n_blocks=self.n_feature_blocks if structure == "block" else 1,
            covariance_scale=covariance_scale,
            mean_shift=mean_shift,
        )

    def render_ansi(self, view: View) -> str:
        """The products in their states, and the last recommendation."""
        from metarl_envs.tabular.recommendation.rendering import shelf_text

        return shelf_text(view, self.n_recommendations)

    def render_rgb(self, view: View) -> Any:
        """One tile per product."""
        from metarl_envs.tabular.recommendation.rendering import shelf_image

        return shelf_image(view, self.n_recommendations)

    def _project(
        self, likes: FloatArray, target: Target, ridge: float
    ) -> tuple[FloatArray, FloatArray]:
        """Parameters (M, J, d) and mean squared residuals (M, J), from likes (M, S, P)."""
        n_tasks = len(likes)
        thetas = np.zeros((n_tasks, self.n_stages, self.n_features))
        residuals = np.zeros((n_tasks, self.n_stages))
        choose = planning.choose_best(self._table, self._masked)
        for stage, action_values in planning.backward(self._table, likes, choose):
            layer = self._table.layer(stage)
            values = likes[:, layer] if target == "myopic" else action_values[:, layer]
            x = self._table.x[layer]
            allowed = self.action_masks(x + 1)
            features = self.state_features(x.astype(np.float64))
            coefficients, residuals[:, stage] = project_actions(values, features, allowed, ridge)
            thetas[:, stage] = coefficients.reshape(n_tasks, -1)
        return thetas, residuals

    def _start_values(
        self, tasks: Sequence[Task], policy: Callable[[slice, FloatArray], planning.Choose]
    ) -> FloatArray:
        """Values of the start state, (M,); `policy` is told which tasks, and what they like."""
        arrays = task_arrays(self.task_distribution, tasks)
        values = np.zeros(len(arrays))
        for where, likes in self._like_probabilities(arrays):
            values[where] = planning.start_values(self._table, likes, policy(where, likes))
        return values

    def _like_probabilities(self, arrays: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        """In chunks of tasks, which they are and with what probabilities each product is liked."""
        for where in planning.chunks(len(arrays), self._table):
            params = self.compile(arrays[where])
            yield (
                where,
                planning.like_probabilities(
                    self._table.x, params["bias"], params["affinity"], self.population.interactions
                ),
            )

    def _x(self, observations: Array) -> FloatArray:
        observations = np.asarray(observations)
        if observations.ndim == 0 or observations.shape[-1] != self.n_products:
            raise ValueError(
                f"observations have shape {observations.shape}, but must have shape "
                f"(..., {self.n_products})"
            )
        check_observations(observations, 0, 2)
        return observations.astype(np.float64) - 1.0


def _interaction_logits(interactions: FloatArray, states: Array) -> FloatArray:
    """`sum_{n < m} interactions[b, n, m] x_n x_m`, (B,), in a fixed order."""
    n, m = np.triu_indices(states.shape[-1], k=1)
    return sequential_dot(interactions[:, n, m], states[:, n] * states[:, m])
