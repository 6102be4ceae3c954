"""BO-MRL: agents that adapt by solving a regularised problem, and learn where to start from."""

from metarl_agents.bilevel.adaptation import adapted_policies
from metarl_agents.bilevel.bo_mrl import BOMRL
from metarl_agents.bilevel.bounds import bounds, bounds_table
from metarl_agents.bilevel.hypergradient import hypergradient
from metarl_agents.bilevel.tabular_bo_mrl import TabularBOMRL

__all__ = ["BOMRL", "TabularBOMRL", "adapted_policies", "bounds", "bounds_table", "hypergradient"]
