"""Tabular tasks for the tests of this folder: random MDPs and frozen lakes."""

import numpy as np
import torch as th

from metarl_agents.bilevel.arguments import stacked_tasks
from metarl_agents.bilevel.exact import TabularTasks
from metarl_envs.tabular.frozen_lake.family import FrozenLakeFamily
from metarl_envs.tabular.frozen_lake.variants import (
    FrozenLakeHolesFamily,
    FrozenLakeRewardFamily,
)
from metarl_envs.tabular.mdp import FiniteMDP


def random_mdps(n, *, discount=0.8, n_states=5, n_actions=3, seed=0):
    """Stochastic transitions to few states; rewards such that values are of order 1."""
    rng = np.random.default_rng(seed)
    return [
        FiniteMDP(
            rng.dirichlet(np.full(n_states, 0.3), size=(n_states, n_actions)),
            5.0 * (1.0 - discount) * rng.normal(size=(n_states, n_actions)),
            rng.dirichlet(np.ones(n_states)),
            discount,
        )
        for _ in range(n)
    ]


def _lake_mdps(family: FrozenLakeFamily, n: int, seed: int) -> list[FiniteMDP]:
    rng = np.random.default_rng(seed)
    mdps = family.finite_mdps([family.task_distribution.sample(rng) for _ in range(n)])
    return [mdps[i] for i in range(n)]


def high_variance_lakes(n, seed=1):
    return _lake_mdps(FrozenLakeHolesFamily(preset="bomrl2024"), n, seed)


def low_variance_lakes(n, seed=1):
    return _lake_mdps(FrozenLakeRewardFamily(preset="bomrl2024"), n, seed)


def slippery_lakes(n, seed=1):
    family = FrozenLakeHolesFamily(preset="bomrl2024", is_slippery=True)
    return _lake_mdps(family, n, seed)


SETTINGS = {
    "high variance": lambda n: high_variance_lakes(n),
    "low variance": lambda n: low_variance_lakes(n),
    "slippery": lambda n: slippery_lakes(n),
    "random, discount 0.8": lambda n: random_mdps(n),
    "random, discount 0.99": lambda n: random_mdps(n, discount=0.99),
}


def tasks_of(setting: str, n: int) -> TabularTasks:
    return stacked_tasks(SETTINGS[setting](n))


def random_logits(tasks: TabularTasks, *, scale=0.5, seed=7) -> th.Tensor:
    shape = tasks.rewards.shape[1:]
    return scale * th.as_tensor(np.random.default_rng(seed).normal(size=shape))


def finite_differences(tasks, objective, logits, *, h=1e-3):
    """Gradients of per-task objectives in all logits, (M, S, A), by differences of order 8.

    Every shifted policy is a task of its own, so that one call evaluates all of them. The error of
    the rule is of order h^8, and that of rounding about 1e-16 |objective| / h.
    """
    m, s, a = tasks.rewards.shape
    units = th.eye(s * a, dtype=th.float64).reshape(s * a, s, a)
    repeated = tasks.subset(th.arange(m).repeat_interleave(s * a))
    total = th.zeros(m * s * a, dtype=th.float64)
    for k, weight in ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280)):
        up, down = ((logits + sign * k * h * units).repeat(m, 1, 1) for sign in (1, -1))
        total += weight * (objective(repeated, up) - objective(repeated, down)) / h
    return total.reshape(m, s, a)


def relative_error(found, expected) -> float:
    return float((found - expected).norm() / expected.norm())
