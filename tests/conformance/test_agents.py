"""The contract of agents, over every row of the table of algorithms."""

import gymnasium as gym
import pytest

from metarl_agents import ALGORITHMS
from metarl_agents.common.checkpoint import constructor_parameters
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.testing import META_ALGORITHM_CHECKS, check_meta_algorithm

ENV = "metarl/RecommendationSmall-v0"


def small_arguments(algorithm: type[MetaAlgorithm], *, probe: bool = False) -> dict:
    """Short tasks, and no more exploration than it takes to leave it while a check runs."""
    arguments = {"n_episodes_per_task": 3}
    parameters = constructor_parameters(algorithm)
    if "n_exploration_tasks" in parameters:
        arguments["n_exploration_tasks"] = 1
    if "prior_mean" in parameters:
        mean, covariance = gym.make(ENV).unwrapped.q_prior(n_tasks=50)
        given = {"prior_mean": mean, "prior_covariance": covariance}
        arguments.update({"prior_mean": 0.3, "prior_covariance": 0.3} if probe else given)
    return arguments


@pytest.mark.parametrize("name", ALGORITHMS)
def test_agent_keeps_the_contract(name):
    algorithm = ALGORITHMS[name]
    ran = check_meta_algorithm(
        algorithm,
        env=ENV,
        kwargs=small_arguments(algorithm),
        probe_kwargs=small_arguments(algorithm, probe=True),
    )
    assert ran == tuple(META_ALGORITHM_CHECKS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_name_in_the_table_is_the_name_of_the_class(name):
    assert name.replace("_", "") == ALGORITHMS[name].__name__.lower()
    assert next(iter(ALGORITHMS[name].policy_aliases), None), "an agent needs a policy name"
