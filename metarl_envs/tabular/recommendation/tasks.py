"""What differs between customer segments: the tasks of the recommendation family and their
distribution.

Shapes: P products, C clusters, n = P + P^2 numbers per task.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from metarl_envs.batched.checking import (
    check_choice,
    check_counts,
    check_deviations,
    check_finite,
)
from metarl_envs.core import FloatArray, TupleTask
from metarl_envs.distributions import checked_array

PopulationName = Literal["random", "gateway"]
TaskNoise = Literal["gaussian", "student_t", "clusters"]

# Spawn keys of the population seed: what one option draws leaves the others as they are.
_BIAS_KEY, _AFFINITY_KEY, _INTERACTION_KEY, _CLUSTER_KEY, PROJECTION_KEY = range(5)


@dataclass(frozen=True)
class RecommendationTask(TupleTask):
    """A customer segment: product a is liked with probability `sigmoid(bias[a] + sum_n
    affinity[a][n] x[n])`.
    """

    bias: tuple[float, ...]
    """(P,), log-odds that a product is liked when nothing else was shown"""
    affinity: tuple[tuple[float, ...], ...]
    """(P, P), row a: by how much a liked (minus: disliked) product n raises the log-odds of product
    a
    """

    @classmethod
    def from_array(cls, array: FloatArray) -> "RecommendationTask":
        """The inverse of `to_array`, from (P + P^2,) numbers."""
        n_products = (isqrt(1 + 4 * array.size) - 1) // 2
        rows = array[n_products:].reshape(n_products, n_products).tolist()
        return cls(tuple(array[:n_products].tolist()), tuple(map(tuple, rows)))


class Population(NamedTuple):
    """What all segments share."""

    bias: FloatArray
    """(P,), mean over segments"""
    affinity: FloatArray
    """(P, P), mean over segments"""
    interactions: FloatArray | None
    """(P, P, P), [a, n, m] with n < m multiplies x_n x_m in the log-odds of product a"""
    cluster_offsets: FloatArray
    """(C, P + P^2), added to the means"""


def population_rng(seed: int, key: int) -> np.random.Generator:
    """One of the independent generators of a population seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))


def gateway_means(n_products: int) -> tuple[FloatArray, FloatArray]:
    """Bias (P,) and affinity (P, P) with one product that opens the door to four others.

    Product 0 is disliked a little, products 1 to 4 are disliked unless product 0 was liked, the
    others are liked a little.
    """
    bias, affinity = np.full(n_products, 0.2), np.zeros((n_products, n_products))
    bias[0], bias[1:5] = -0.4, -2.0
    affinity[1:5, 0] = 4.0
    return bias, affinity


def draw_population(
    name: PopulationName,
    n_products: int,
    seed: int,
    *,
    bias_spread: float,
    affinity_spread: float | None,
    interaction_std: float,
    n_clusters: int,
    cluster_spread: float,
) -> Population:
    """What all segments share, a function of the seed.

    :param name: "random" starts from zero means, "gateway" from `gateway_means`
    :param n_products: P
    :param seed: of the draws below
    :param bias_spread: standard deviation, over products, of the mean bias
    :param affinity_spread: standard deviation, over pairs of products, of the mean affinity; where
        absent 1, for "gateway" 0
    :param interaction_std: standard deviation of the pairwise interactions
    :param n_clusters: C
    :param cluster_spread: standard deviation of the cluster offsets
    """
    check_choice("population", name, PopulationName)
    check_counts(n_clusters=n_clusters)
    if affinity_spread is None:
        affinity_spread = 0.0 if name == "gateway" else 1.0
    check_deviations(
        bias_spread=bias_spread,
        affinity_spread=affinity_spread,
        interaction_std=interaction_std,
        cluster_spread=cluster_spread,
    )
    shape = (n_products, n_products)
    bias, affinity = (
        gateway_means(n_products) if name == "gateway" else (np.zeros(n_products), np.zeros(shape))
    )
    bias = bias + bias_spread * population_rng(seed, _BIAS_KEY).standard_normal(n_products)
    affinity = affinity + affinity_spread * population_rng(seed, _AFFINITY_KEY).standard_normal(
        shape
    )
    interactions = None
    if interaction_std > 0:
        draws = population_rng(seed, _INTERACTION_KEY).standard_normal((n_products, *shape))
        interactions = interaction_std * np.triu(draws, k=1)
    n = n_products + n_products**2
    offsets = cluster_spread * population_rng(seed, _CLUSTER_KEY).standard_normal((n_clusters, n))
    return Population(bias, affinity, interactions, offsets)


class RecommendationTasks:
    """Segments around a population: `mean + std * noise`, all numbers independent.

    :param population: the means
    :param bias_std: standard deviation of a segment's bias
    :param affinity_std: standard deviation of a segment's affinities
    :param task_noise: "gaussian"; "student_t" (heavier tails, same standard deviation); "clusters"
        (Gaussian around one of the cluster offsets, drawn with equal probabilities)
    :param degrees_of_freedom: of the Student-t distribution, more than 2
    """

    def __init__(
        self,
        population: Population,
        *,
        bias_std: float,
        affinity_std: float,
        task_noise: TaskNoise = "gaussian",
        degrees_of_freedom: float = 3.0,
    ) -> None:
        check_choice("task_noise", task_noise, TaskNoise)
        check_deviations(bias_std=bias_std, affinity_std=affinity_std)
        check_finite(degrees_of_freedom=degrees_of_freedom)
        if not degrees_of_freedom > 2:
            raise ValueError(
                f"degrees_of_freedom={degrees_of_freedom!r} must exceed 2, or there is no "
                "standard deviation"
            )
        n_products = population.bias.size
        self.mean = np.concatenate([population.bias, population.affinity.ravel()])
        self.std = np.concatenate(
            [np.full(n_products, bias_std), np.full(n_products**2, affinity_std)]
        )
        self.cluster_offsets = population.cluster_offsets
        self.task_noise = task_noise
        self.degrees_of_freedom = degrees_of_freedom
        self.space: gym.Space[Any] = gym.spaces.Box(
            -np.inf, np.inf, self.mean.shape, dtype=np.float64
        )

    def sample(self, rng: np.random.Generator) -> RecommendationTask:
        """One segment."""
        n = self.mean.size
        if self.task_noise == "student_t":
            scale = np.sqrt((self.degrees_of_freedom - 2) / self.degrees_of_freedom)
            return RecommendationTask.from_array(
                self.mean + self.std * (scale * rng.standard_t(self.degrees_of_freedom, n))
            )
        offset = 0.0
        if self.task_noise == "clusters":
            offset = self.cluster_offsets[rng.integers(len(self.cluster_offsets))]
        return RecommendationTask.from_array(self.mean + offset + self.std * rng.standard_normal(n))

    def from_array(self, array: np.ndarray) -> RecommendationTask:
        """The segment with this array, (P + P^2,)."""
        return RecommendationTask.from_array(checked_array(self.space, array))
