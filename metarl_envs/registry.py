"""One row per environment id: what it is, where it lives, and its registration with Gymnasium."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class FamilyRow:
    """A registered family of tasks."""

    id: str
    entry_point: str
    """of the single environment, a string, so that `spec.to_json()` works"""
    vector_entry_point: str
    """of the vector environment"""
    description: str
    """one line"""
    kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """constructor arguments of this id"""


def _row(id: str, name: str, description: str, **kwargs: Any) -> FamilyRow:
    entry_points = f"metarl_envs.{name}Env", f"metarl_envs.{name}VectorEnv"
    return FamilyRow(id, *entry_points, description, MappingProxyType(kwargs))


_ROWS = (
    _row(
        "metarl/Recommendation-v0",
        "tabular.recommendation:Recommendation",
        "Recommend 5 of 10 products one after the other; tasks are segments of customers",
        n_products=10,
        n_recommendations=5,
    ),
    _row(
        "metarl/RecommendationSmall-v0",
        "tabular.recommendation:Recommendation",
        "The same with 3 of 6 products: solved in milliseconds",
        n_products=6,
        n_recommendations=3,
    ),
    _row(
        "metarl/RecommendationGateway-v0",
        "tabular.recommendation:Recommendation",
        "4 of 8 products, of which one opens the door to others: immediate likes mislead",
        n_products=8,
        n_recommendations=4,
        population="gateway",
        bias_std=0.3,
        affinity_std=0.3,
    ),
    _row(
        "metarl/RecommendationOsband-v0",
        "tabular.recommendation:Recommendation",
        "5 of 10 products with strong affinities (c = 2) and no product liked better as such",
        n_products=10,
        n_recommendations=5,
        affinity_spread=2.0,
        bias_std=0.0,
    ),
    _row(
        "metarl/InverseBellman-v0",
        "tabular.inverse_bellman:InverseBellman",
        "Finite MDPs whose optimal Q-function is linear with exactly Gaussian parameters",
    ),
)

FAMILIES: Mapping[str, FamilyRow] = MappingProxyType({row.id: row for row in _ROWS})


def register_families() -> None:
    """Registers every id with Gymnasium; ids that are registered already stay as they are."""
    for row in FAMILIES.values():
        if row.id not in gym.registry:
            gym.register(
                row.id,
                entry_point=row.entry_point,
                vector_entry_point=row.vector_entry_point,
                kwargs=dict(row.kwargs),
            )
