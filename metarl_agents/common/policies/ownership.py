"""Checks of what users hand to `adapt`: a policy of the agent's own, episodes of one task."""

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies.functional import FunctionalPolicy
from metarl_agents.common.policies.networks import PolicyNetwork


def own_policy(policy: object, network: PolicyNetwork) -> FunctionalPolicy:
    """The policy, if an agent with this network made it; raises if not.

    :param policy: what the user gave
    :param network: of the agent
    """
    if not isinstance(policy, FunctionalPolicy):
        raise TypeError(
            f"policy is a {type(policy).__name__}: pass one from initial_policy() or adapt()"
        )
    if policy.network != network:
        raise ValueError(
            "policy has another network than this agent: pass one from its own initial_policy() or "
            "adapt()"
        )
    return policy


def check_one_task(episodes: EpisodeBatch) -> None:
    """`ValueError` where episodes are those of many tasks.

    :param episodes: what the user gave to `adapt`
    """
    if episodes.has_task_axis:
        raise ValueError(
            "episodes has a task axis: adapt() takes those of one task, episodes.task(i); "
            "adapt_tasks() takes those of many"
        )
