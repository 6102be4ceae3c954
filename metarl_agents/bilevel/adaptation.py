"""Adaptation to tabular tasks: the lower level at a policy, and steps of it.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Sequence

import torch as th
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from metarl_agents.bilevel.arguments import checked_inputs
from metarl_agents.bilevel.exact import Evaluation, TabularTasks, evaluate
from metarl_agents.bilevel.lower_level import (
    Distance,
    LowerLevel,
    Solver,
    distance_of,
    solve_lower_level,
)
from metarl_agents.bilevel.settings import DEFAULT_SETTINGS, HypergradientSettings, check_settings
from metarl_agents.common.argument_checks import check_number
from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp import FiniteMDP


def adapted_policies(
    mdps: Sequence[FiniteMDP] | FiniteMDP,
    logits: ArrayLike | Tensor,
    *,
    algorithm: int | str,
    lam: float,
    n_steps: int = 1,
    solver: Solver = "exact",
    max_iterations: int = 100,
    device: th.device | str = "cpu",
) -> FloatArray:
    """Policies after k steps of adaptation, (n_tasks, S, A): each step evaluates the policy so far
    anew and puts it in the place of the meta-policy.

    :param mdps: discounted MDPs of the same S and A, or one batch of them
    :param logits: of the meta-policy (phi), (S, A)
    :param algorithm: 1, 2, 3, or `"forward_kl"`, `"reverse_kl"`, `"l2"`
    :param lam: weight of the distance (lambda), in units of the return
    :param n_steps: k; 0 for the meta-policy itself
    :param solver: of the lower level: `"exact"`, or `"sgd20"` (`forward_kl` only)
    :param max_iterations: of the lower level
    :param device: where to compute
    """
    distance = distance_of(algorithm)
    settings = HypergradientSettings(solver=solver, max_iterations=max_iterations)
    check_settings(distance, settings)
    check_number("n_steps", n_steps, at_least=0, whole=True)
    tasks, phi = checked_inputs(mdps, logits, lam, device)
    steps = adaptation_steps(tasks, phi, distance, lam, n_steps=n_steps, settings=settings)
    return steps[-1].softmax(-1).cpu().numpy()


def adaptation_steps(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    distance: Distance,
    lam: float | Float[Tensor, " task"],
    *,
    n_steps: int,
    settings: HypergradientSettings = DEFAULT_SETTINGS,
) -> list[Float[Tensor, "task state action"]]:
    """Logits after 0, 1, ..., k steps of adaptation, k + 1 tensors (M, S, A).

    :param tasks: M tasks
    :param logits: phi, (S, A) or (M, S, A)
    :param distance: D
    :param lam: lambda, one number or (M,)
    :param n_steps: k
    :param settings: of the lower level
    """
    steps = [logits.expand_as(tasks.rewards)]
    for _ in range(n_steps):
        _, problem = lower_level_at(tasks, steps[-1], lam)
        adapted = solve_lower_level(
            distance, problem, solver=settings.solver, max_iterations=settings.max_iterations
        )
        steps.append(adapted.logits)
    return steps


def lower_level_at(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    lam: float | Float[Tensor, " task"],
) -> tuple[Evaluation, LowerLevel]:
    """The meta-policy, evaluated, and the lower level that it defines.

    :param tasks: M tasks
    :param logits: phi, (S, A) or (M, S, A)
    :param lam: lambda, one number or (M,)
    """
    before = evaluate(tasks, logits.softmax(-1))
    logits = logits.expand_as(tasks.rewards)
    weights = th.as_tensor(lam, dtype=logits.dtype, device=logits.device).expand(tasks.n_tasks)
    return before, LowerLevel(logits, before.action_values, before.occupancy, weights)
