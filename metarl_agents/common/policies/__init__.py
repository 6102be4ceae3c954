"""Policies: what acts, one task or many at once, and the networks that gradients adapt."""

from metarl_agents.common.policies.acting import (
    ActingPolicies,
    PolicyList,
    PolicyPredictor,
    TaskPolicies,
    stack_policies,
)
from metarl_agents.common.policies.distributions import (
    ActionDistribution,
    Categorical,
    DiagonalGaussian,
)
from metarl_agents.common.policies.functional import FunctionalPolicies, FunctionalPolicy
from metarl_agents.common.policies.module import MlpPolicy, TabularPolicy
from metarl_agents.common.policies.networks import (
    MlpNetwork,
    Params,
    PolicyNetwork,
    TabularNetwork,
    make_network,
)

__all__ = [
    "ActingPolicies",
    "ActionDistribution",
    "Categorical",
    "DiagonalGaussian",
    "FunctionalPolicies",
    "FunctionalPolicy",
    "MlpNetwork",
    "MlpPolicy",
    "Params",
    "PolicyList",
    "PolicyNetwork",
    "PolicyPredictor",
    "TabularNetwork",
    "TabularPolicy",
    "TaskPolicies",
    "make_network",
    "stack_policies",
]
