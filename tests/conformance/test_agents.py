"""The contract of agents, over every row of the table of algorithms."""

import gymnasium as gym
import pytest

from metarl_agents import ALGORITHMS, BOMRL, TabularBOMRL
from metarl_agents.common.checkpoint import constructor_parameters
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.testing import META_ALGORITHM_CHECKS, check_meta_algorithm
from metarl_agents.gradient.gradient_meta import GradientMeta
from metarl_envs.probes import LinearQuadratic

ENV = "metarl/RecommendationSmall-v0"
GRADIENT = [name for name, algorithm in ALGORITHMS.items() if issubclass(algorithm, GradientMeta)]
# A full contract takes half a minute: each agent by default meets one kind of action in full.
CONTINUOUS_BY_DEFAULT = ("maml", "promp", "sgmrl")


def short_regulator() -> gym.Env:
    """Continuous actions and tasks, three steps."""
    return LinearQuadratic(n_stages=3)


def small_arguments(algorithm: type[MetaAlgorithm], *, probe: bool = False) -> dict:
    """Short tasks, and no more exploration than it takes to leave it while a check runs."""
    parameters = constructor_parameters(algorithm)
    if issubclass(algorithm, GradientMeta):
        # Six tasks can be shared out over one, two and three sub-environments.
        arguments = {"meta_batch_size": 6, "n_episodes_per_task": 2}
        arguments["policy_kwargs"] = {"net_arch": [8]}
        if "n_epochs" in parameters:
            arguments["n_epochs"] = 2
        if "n_cg_iterations" in parameters:
            arguments["n_cg_iterations"] = 3
        return {**arguments, "n_episodes_per_task": 10, "inner_lr": 0.5} if probe else arguments
    arguments = {"n_episodes_per_task": 3}
    if "n_exploration_tasks" in parameters:
        arguments["n_exploration_tasks"] = 1
    if "prior_mean" in parameters:
        mean, covariance = gym.make(ENV).unwrapped.q_prior(n_tasks=50)
        given = {"prior_mean": mean, "prior_covariance": covariance}
        arguments.update({"prior_mean": 0.3, "prior_covariance": 0.3} if probe else given)
    return arguments


@pytest.mark.parametrize(
    "name", [name for name in ALGORITHMS if name not in (*GRADIENT, "tabular_bomrl", "bomrl")]
)
def test_agent_keeps_the_contract(name):
    algorithm = ALGORITHMS[name]
    ran = check_meta_algorithm(
        algorithm,
        env=ENV,
        kwargs=small_arguments(algorithm),
        probe_kwargs=small_arguments(algorithm, probe=True),
    )
    assert ran == tuple(META_ALGORITHM_CHECKS)


@pytest.mark.parametrize(
    ("name", "env"),
    [
        pytest.param(name, env, marks=[] if is_default == (env is not ENV) else [pytest.mark.slow])
        for name in GRADIENT
        for is_default in [name in CONTINUOUS_BY_DEFAULT]
        for env in (ENV, short_regulator)
    ],
)
def test_gradient_agent_keeps_the_contract(name, env):
    algorithm = ALGORITHMS[name]
    ran = check_meta_algorithm(
        algorithm,
        env=env,
        kwargs=small_arguments(algorithm),
        probe_kwargs=small_arguments(algorithm, probe=True),
        n_adapt_episodes=20,
    )
    assert ran == tuple(META_ALGORITHM_CHECKS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lam": 1.0},
        pytest.param(
            {"mode": "sampled", "algorithm": 1, "lam_relative": True, "n_tasks": 9},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["exact", "sampled"],
)
def test_tabular_bilevel_agent_keeps_the_contract(arguments):
    small = {"meta_batch_size": 6, "n_episodes_per_task": 2}
    ran = check_meta_algorithm(
        TabularBOMRL,
        env="metarl/RandomMDP-v0",
        kwargs={**small, **arguments},
        # Probes know no model of their tasks.
        probe_kwargs={**small, "mode": "sampled", "lam": 0.05, "n_episodes_per_task": 5},
    )
    assert ran == tuple(META_ALGORITHM_CHECKS)


@pytest.mark.parametrize("env", [short_regulator, pytest.param(ENV, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:the hypergradient", "ignore:adaptation moves", "ignore:lam is")
def test_network_bilevel_agent_keeps_the_contract(env):
    small = {"meta_batch_size": 6, "policy_kwargs": {"net_arch": [8]}, "n_lower_steps": 3}
    small |= {"polish_steps": 1, "n_implicit_iterations": 2, "n_cg_iterations": 2}
    ran = check_meta_algorithm(
        BOMRL,
        env=env,
        kwargs={**small, "n_episodes_per_task": 2},
        probe_kwargs={**small, "n_episodes_per_task": 10, "n_lower_steps": 20, "lam": 0.1},
        n_adapt_episodes=20,
    )
    assert ran == tuple(META_ALGORITHM_CHECKS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_name_in_the_table_is_the_name_of_the_class(name):
    assert name.replace("_", "") == ALGORITHMS[name].__name__.lower()
    assert next(iter(ALGORITHMS[name].policy_aliases), None), "an agent needs a policy name"
