"""Bounds on the gap between adapted and optimal policies, computed exactly by dynamic programming.

What each bound says, and that it is our derivation, stands in `bound_formulas`.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from metarl_agents.bilevel.adaptation import adaptation_steps, lower_level_at
from metarl_agents.bilevel.arguments import checked_inputs
from metarl_agents.bilevel.bound_formulas import Comparison, bound_assumptions, task_bounds
from metarl_agents.bilevel.comparators import Comparator, comparator_of, task_variance
from metarl_agents.bilevel.exact import TabularTasks, evaluate
from metarl_agents.bilevel.lower_level import Distance, distance_of, solve_lower_level
from metarl_agents.common.argument_checks import check_number
from metarl_envs.tabular.mdp import FiniteMDP

BOUNDS = ("B0", "B1", "B2", "B3", "B4", "B5", "B6")
"""The identity, and the bounds."""


def bounds(
    mdps: Sequence[FiniteMDP] | FiniteMDP,
    logits: ArrayLike | Tensor,
    *,
    algorithm: int | str,
    lam: float,
    n_steps: int = 1,
    comparators: ArrayLike | None = None,
    smallest_probability: float = 1e-4,
    n_variance_steps: int = 400,
    device: th.device | str = "cpu",
) -> dict[str, Any]:
    """The gap after adaptation of each task, and its bounds B0 to B6, arrays (M,).

    Besides `"gap"` and the bounds, the dict has `"gap_before"`, `"gap_after_steps"` (what B6
    bounds), `"optimal_return"`, `"distance"` (D*^2), `"k_star"`, `"k_one"`, `"k_worst"`,
    `"improvement"` (of the return by adaptation) and `"improvement_is_guaranteed"`, `"own_gap"` of
    the comparator (it is part of every bound), `"assumption_ok"` (of B4), all (M,); and `"B_paper"`
    (mean of B4), `"var"` (task variance) and `"epsilon"` (of the softened comparator; 0 without),
    numbers. `"assumptions"` says for each bound which assumptions it needs and where they are true.

    :param mdps: discounted MDPs of the same S and A, or one batch of them
    :param logits: of the meta-policy (phi), (S, A)
    :param algorithm: 1, 2, 3, or `"forward_kl"`, `"reverse_kl"`, `"l2"`
    :param lam: weight of the distance (lambda), in units of the return
    :param n_steps: n of B6
    :param comparators: policies (M, S, A) in the place of optimal ones, such as the best of a class
        of functions; what they lose against the optimum is added to every bound
    :param smallest_probability: epsilon, to which the probabilities of the comparator are raised
        for `forward_kl` and `l2`
    :param n_variance_steps: gradient steps for the task variance
    :param device: where to compute
    """
    distance = distance_of(algorithm)
    check_number("n_steps", n_steps, at_least=1, whole=True)
    check_number("n_variance_steps", n_variance_steps, at_least=0, whole=True)
    check_number("smallest_probability", smallest_probability, above=0.0, at_most=0.5)
    tasks, phi = checked_inputs(mdps, logits, lam, device)
    policies = None if comparators is None else _checked_policies(comparators, tasks)
    comparator = comparator_of(
        tasks, distance, phi, policies=policies, smallest=smallest_probability
    )
    comparison = compare(tasks, distance, phi, lam, comparator=comparator, n_steps=n_steps)
    found = {name: value.cpu().numpy() for name, value in task_bounds(comparison).items()}
    assumptions = {
        bound: {text: truth.cpu().numpy() for text, truth in needed.items()}
        for bound, needed in bound_assumptions(comparison).items()
    }
    variance, _ = task_variance(
        tasks, distance, n_steps=n_variance_steps, smallest=smallest_probability
    )
    return found | {
        "B_paper": float(found["B4"].mean()),
        "var": variance,
        "epsilon": 0.0 if distance.name == "reverse_kl" else float(smallest_probability),
        "assumption_ok": np.logical_and.reduce(list(assumptions["B4"].values())),
        "assumptions": assumptions,
    }


def bounds_table(found: dict[str, Any]) -> str:
    """The bounds as text, means over tasks, with every assumption beside the bound that needs it.

    :param found: what `bounds` returns
    """
    rows = [f"{'gap':<8} {found['gap'].mean():10.4g}"]
    for name in BOUNDS:
        needed = [
            f"{text}: {'yes' if truth.all() else f'in {truth.mean():.0%} of tasks'}"
            for text, truth in found["assumptions"][name].items()
        ]
        rows.append(f"{name:<8} {found[name].mean():10.4g}  {'; '.join(needed) or 'no assumption'}")
    rows.append(f"{'k*':<8} {found['k_star'].max():10.4g}  largest")
    rows.append(f"{'k_one':<8} {found['k_one'].max():10.4g}  largest")
    rows.append(f"{'var':<8} {found['var']:10.4g}")
    if found["epsilon"]:
        rows.append(f"{'epsilon':<8} {found['epsilon']:10.4g}  smallest probability of comparators")
    return "\n".join(rows)


def compare(
    tasks: TabularTasks,
    distance: Distance,
    logits: Float[Tensor, "*task state action"],
    lam: float,
    *,
    comparator: Comparator,
    n_steps: int = 1,
) -> Comparison:
    """Adapt and evaluate everything that the bounds are made of.

    :param tasks: M tasks
    :param distance: D
    :param logits: phi, (S, A) or (M, S, A)
    :param lam: lambda
    :param comparator: pi*, or what stands for it
    :param n_steps: n of B6
    """
    before, problem = lower_level_at(tasks, logits, lam)
    adapted = solve_lower_level(distance, problem)
    after = evaluate(tasks, adapted.policy)
    steps = adaptation_steps(tasks, adapted.logits, distance, lam, n_steps=n_steps - 1)
    after_steps = evaluate(tasks, steps[-1].softmax(-1))
    return Comparison(
        tasks, distance, problem, before, adapted, after, comparator, after_steps, n_steps
    )


def _checked_policies(comparators: ArrayLike, tasks: TabularTasks) -> Tensor:
    array = np.asarray(comparators, dtype=np.float64)
    shape = tuple(tasks.rewards.shape)
    is_policy = array.shape == shape and np.all(array >= 0.0)
    if not (is_policy and np.allclose(array.sum(-1), 1.0, rtol=0.0, atol=1e-8)):
        raise ValueError(
            f"comparators of shape {array.shape} must be action probabilities (M, S, A) = {shape}: "
            "non-negative, summing to 1 over the last axis"
        )
    return th.as_tensor(array, device=tasks.rewards.device)
