"""The models of tasks that an environment knows, as the exact modes need them.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch as th
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.bilevel.arguments import stacked_tasks
from metarl_agents.bilevel.exact import TabularTasks
from metarl_agents.common.evaluation.transparency import opaque_wrapper
from metarl_agents.common.policies.networks import TabularNetwork
from metarl_envs.tabular.mdp import FiniteMDP

_REMEDY = "use mode='sampled', which learns from episodes alone"


def check_knows_models(venv: VecEnv) -> None:
    """`ValueError` unless the env can be asked for the finite MDP of a task.

    :param venv: the env
    """
    if not venv.has_attr("finite_mdp"):
        raise ValueError(
            f"the env has no finite_mdp(task), from which exact modes learn: {_REMEDY}"
        )
    wrapper = opaque_wrapper(venv, "finite_mdp")
    if wrapper is not None:
        raise ValueError(
            f"{wrapper} lies between the agent and the env, whose finite_mdp(task) is about its "
            f"own observations, actions and rewards: {_REMEDY}, or train without the wrapper"
        )


def task_models(
    venv: VecEnv,
    tasks: Sequence[Any],
    *,
    gamma: float,
    table: TabularNetwork,
    device: th.device | str,
) -> TabularTasks:
    """The models of M tasks with the agent's discount, and without an end.

    :param venv: the env
    :param tasks: M tasks
    :param gamma: discount
    :param table: the policy, whose states and actions the models must have
    :param device: where the tensors go
    """
    if venv.has_attr("finite_mdps"):
        mdps = venv.env_method("finite_mdps", tasks, indices=[0])[0]
        return discounted_models(mdps, gamma=gamma, table=table, device=device)
    found = [venv.env_method("finite_mdp", task, indices=[0])[0] for task in tasks]
    return discounted_models(found, gamma=gamma, table=table, device=device)


def discounted_models(
    mdps: FiniteMDP | Sequence[FiniteMDP],
    *,
    gamma: float,
    table: TabularNetwork,
    device: th.device | str,
) -> TabularTasks:
    """Finite MDPs with the agent's discount, and without an end.

    :param mdps: one for each task, or one batch of them
    :param gamma: discount
    :param table: the policy, whose states and actions the models must have
    :param device: where the tensors go
    """
    parts = [mdps] if isinstance(mdps, FiniteMDP) else list(mdps)
    endless = [_endless(mdp, gamma, table) for mdp in parts]
    return stacked_tasks(endless[0] if isinstance(mdps, FiniteMDP) else endless, device=device)


def _endless(mdp: Any, gamma: float, table: TabularNetwork) -> FiniteMDP:
    if not isinstance(mdp, FiniteMDP):
        raise TypeError(f"the model of a task is a {type(mdp).__name__}, but must be a FiniteMDP")
    shape = mdp.n_states, mdp.n_actions
    if shape != (table.n_states, table.n_actions):
        raise ValueError(
            f"the model of a task has (S, A) = {shape}, but the policy has "
            f"{(table.n_states, table.n_actions)}: its states must be the observations, so that "
            f"{_REMEDY}"
        )
    return replace(mdp, discount=gamma, horizon=None)
