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
    _row(
        "metarl/FrozenLakeHoles-v0",
        "tabular.frozen_lake:FrozenLakeHoles",
        "Gymnasium's 4x4 FrozenLake, not slippery, with a random map for each task",
    ),
    _row(
        "metarl/FrozenLakeReward-v0",
        "tabular.frozen_lake:FrozenLakeReward",
        "A 4x4 lake without holes on which other tiles cost in each task",
    ),
    _row(
        "metarl/FrozenLakeSlip-v0",
        "tabular.frozen_lake:FrozenLakeSlip",
        "Gymnasium's own 4x4 FrozenLake; tasks are how slippery it is",
    ),
    _row(
        "metarl/FrozenLakeGoal-v0",
        "tabular.frozen_lake:FrozenLakeGoal",
        "Gymnasium's own 4x4 FrozenLake, not slippery, with the goal anywhere",
    ),
    _row(
        "metarl/PointGoal-v0",
        "navigation:PointGoal",
        "A point in the plane finds a goal near the start, by its distance (MAML's navigation)",
    ),
    _row(
        "metarl/PointRobot-v0",
        "navigation:PointRobot",
        "The same with starts all over a square of goals and 20 steps (PEARL's point robot)",
    ),
    _row(
        "metarl/SparsePointGoal-v0",
        "navigation:SparsePointGoal",
        "The goal lies on a half circle and is felt nearby only (PEARL's sparse point robot)",
    ),
    _row(
        "metarl/PointCorner-v0",
        "navigation:PointCorner",
        "Which of four corners is the goal is felt in its own quadrant only (after ProMP)",
    ),
    _row(
        "metarl/PointWind-v0",
        "navigation:PointWind",
        "A known goal in an unknown wind: tasks differ in their dynamics",
    ),
    _row(
        "metarl/BernoulliBandit-v0",
        "tabular.bandit:BernoulliBandit",
        "5 arms with unknown success probabilities and a budget of 10 pulls",
    ),
    _row(
        "metarl/GaussianBandit-v0",
        "tabular.bandit:GaussianBandit",
        "5 arms with unknown mean rewards, Gaussian noise and a budget of 500 pulls",
    ),
    _row(
        "metarl/RandomMDP-v0",
        "tabular.random_mdp:RandomMDP",
        "10 states and 5 actions with random transitions and mean rewards; 10 steps",
    ),
    _row(
        "metarl/GridGoal-v0",
        "tabular.gridworld:GridGoal",
        "A hidden goal on a 5 x 5 grid that pays every step spent on it (after VariBAD)",
    ),
    _row(
        "metarl/DarkRoom-v0",
        "tabular.gridworld:DarkRoom",
        "An invisible goal in a 9 x 9 room (after Algorithm Distillation)",
    ),
    _row(
        "metarl/DarkKeyToDoor-v0",
        "tabular.gridworld:DarkKeyToDoor",
        "An invisible key in a 9 x 9 room, and the invisible door that it opens",
    ),
    _row(
        "metarl/TMaze-v0",
        "tabular.t_maze:TMaze",
        "Go and look at a cue, then turn to its side at the end of a corridor of length 10",
    ),
    _row(
        "metarl/HalfCheetahVel-v0",
        "locomotion.half_cheetah:HalfCheetahVel",
        "Gymnasium's HalfCheetah runs at a speed that only the rewards tell (MAML)",
    ),
    _row(
        "metarl/HalfCheetahDir-v0",
        "locomotion.half_cheetah:HalfCheetahDir",
        "Gymnasium's HalfCheetah runs forward or backward (MAML); two tasks",
    ),
    _row(
        "metarl/HalfCheetahMass-v0",
        "locomotion.half_cheetah:HalfCheetahMass",
        "Gymnasium's HalfCheetah runs forward, half to twice as heavy (RoML)",
    ),
    _row(
        "metarl/AntDir-v0",
        "locomotion.ant:AntDir",
        "Gymnasium's Ant runs forward or backward (MAML); two tasks",
    ),
    _row(
        "metarl/AntDir2D-v0",
        "locomotion.ant:AntDir2D",
        "Gymnasium's Ant runs in a direction of the plane (ProMP)",
    ),
    _row(
        "metarl/AntVel-v0",
        "locomotion.ant:AntVel",
        "Gymnasium's Ant runs at a speed that only the rewards tell (MAML)",
    ),
    _row(
        "metarl/AntGoal-v0",
        "locomotion.ant:AntGoal",
        "Gymnasium's Ant goes to a place at most 3 m away (PEARL)",
    ),
    _row(
        "metarl/SwimmerVel-v0",
        "locomotion.swimmer:SwimmerVel",
        "Gymnasium's Swimmer swims at a speed that only the rewards tell (after ProMP's code)",
    ),
    _row(
        "metarl/Walker2dVel-v0",
        "locomotion.walker2d:Walker2dVel",
        "Gymnasium's Walker2d walks at a speed that only the rewards tell (after ProMP's code)",
    ),
    _row(
        "metarl/Walker2dRandParams-v0",
        "locomotion.walker2d:Walker2dRandParams",
        "Gymnasium's Walker2d with random masses, inertias, frictions and dampings (ProMP, PEARL)",
    ),
    _row(
        "metarl/HopperRandParams-v0",
        "locomotion.hopper:HopperRandParams",
        "Gymnasium's Hopper with random masses, inertias, frictions and dampings (ProMP, PEARL)",
    ),
    _row(
        "metarl/HumanoidDir-v0",
        "locomotion.humanoid:HumanoidDir",
        "Gymnasium's Humanoid runs in a direction that only the rewards tell (PEARL)",
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
