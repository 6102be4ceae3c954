"""Features of a state of the recommendation family, one block per product.

Shapes: P products (the actions), m features per block, d = P m.
"""

from typing import Literal

import numpy as np

from metarl_envs.batched.checking import check_choice, check_counts
from metarl_envs.core import FloatArray
from metarl_envs.tabular.recommendation.planning import count_states, state_codes, state_table
from metarl_envs.tabular.recommendation.tasks import PROJECTION_KEY, population_rng

FeaturesName = Literal["linear", "intercept", "sum", "projection", "tabular"]
_MAX_TABULAR = 1_000


class StateFeatures:
    """`f(x)`, (..., m), of states x in {-1, 0, +1}^P.

    :param name: "linear" [1, x]; "intercept" [1]; "sum" [1, sum of x]; "projection" [1, R x] with a
        random R; "tabular" one-hot, the control without any misfit, for few products
    :param n_products: P
    :param n_stages: J
    :param n_projections: rows of R
    :param seed: of R
    """

    def __init__(
        self, name: FeaturesName, n_products: int, n_stages: int, n_projections: int, seed: int
    ) -> None:
        check_choice("features", name, FeaturesName)
        check_counts(n_projections=n_projections)
        self.name = name
        self._matrix = self._linear_map(n_products, n_projections, seed)
        self._codes = np.empty(0, dtype=np.int64)
        self._rows = np.empty(0, dtype=np.int64)
        self.size = 1 + self._matrix.shape[0]
        if name == "tabular":
            self._enumerate(n_products, n_stages)

    def __call__(self, x: FloatArray) -> FloatArray:
        """The features (..., m) of states (..., P)."""
        if self.name == "tabular":
            return self._one_hot(x)
        features = np.ones((*x.shape[:-1], self.size))
        features[..., 1:] = x @ self._matrix.T
        return features

    def _linear_map(self, n_products: int, n_projections: int, seed: int) -> FloatArray:
        if self.name == "linear":
            return np.eye(n_products)
        if self.name == "sum":
            return np.ones((1, n_products))
        if self.name == "projection":
            draws = population_rng(seed, PROJECTION_KEY).standard_normal(
                (n_projections, n_products)
            )
            return draws / np.sqrt(n_products)
        return np.empty((0, n_products))

    def _enumerate(self, n_products: int, n_stages: int) -> None:
        self.size = count_states(n_products, n_stages)
        if self.size > _MAX_TABULAR:
            raise ValueError(
                f'features="tabular" would need {self.size} features per product for '
                f"n_products={n_products}: "
                "take at most 4 products, or other features"
            )
        codes = state_codes(state_table(n_products, n_stages).x)
        self._rows = np.argsort(codes)
        self._codes = codes[self._rows]

    def _one_hot(self, x: FloatArray) -> FloatArray:
        codes = state_codes(x.astype(np.int8))
        position = np.minimum(np.searchsorted(self._codes, codes), self.size - 1)
        features = np.zeros((*codes.shape, self.size))
        # States at the end of an episode have no row: their features are zero.
        known = (self._codes[position] == codes).astype(np.float64)
        np.put_along_axis(features, self._rows[position][..., None], known[..., None], axis=-1)
        return features


def in_action_blocks(features: FloatArray, n_actions: int) -> FloatArray:
    """`e_a (x) f` for every action a, (..., A, A m), of features f (..., m)."""
    m = features.shape[-1]
    blocks = np.zeros((*features.shape[:-1], n_actions, n_actions, m))
    diagonal = np.arange(n_actions)
    blocks[..., diagonal, diagonal, :] = features[..., None, :]
    return blocks.reshape(*features.shape[:-1], n_actions, n_actions * m)
