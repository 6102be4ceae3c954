"""One run of a study of an open question about BO-MRL, solved exactly in tabular tasks.

Everything is trained on training tasks, chosen on validation tasks and scored on test tasks; no
task is in two of them. Gaps are to each task's own optimum.

Shapes: M tasks, G values of lambda, S states, A actions.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.bound_formulas import bound_assumptions, task_bounds
from metarl_agents.bilevel.bounds import compare
from metarl_agents.bilevel.comparators import comparator_of, task_variance
from metarl_agents.bilevel.diagnostics import absolute_lam, relative_lam
from metarl_agents.bilevel.exact import (
    TabularTasks,
    evaluate,
    optimal_action_values,
    return_gradient,
)
from metarl_agents.bilevel.hypergradient import Hypergradients, task_hypergradients
from metarl_agents.bilevel.lower_level import distance_of, kl_divergence, solve_lower_level
from zoo.studies.bo_mrl_tabular import VARIANCE_RATE, adapted, trained
from zoo.studies.bo_mrl_tasks import Lakes, lakes_of
from zoo.studies.study import Context, Row, Run

_N_STEPS = 2
_SMALLEST = 1e-4


def tasks_run(run: Run, context: Context) -> list[Row] | None:
    """
    The gap on training and on test tasks, with lambda chosen on validation tasks.

    ``config``: as in ``bo_mrl_tabular.tabular_run``, for BO-MRL.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    logits = meta_policies(config, lakes, run)
    if context.is_over():
        return None
    best, lam, on_edge = chosen(config, lakes.validation, logits)
    return [
        {
            "kind": "tasks",
            "n_train": config["n_train"],
            "step": step,
            "lam": f"{lam:g}",
            "on_edge": int(on_edge),
            "train": number(train.mean()),
            "test": number(test.mean()),
        }
        for step, (train, test) in enumerate(
            zip(
                gaps_of(config, lakes.train, best, lam, _N_STEPS),
                gaps_of(config, lakes.test, best, lam, _N_STEPS),
                strict=True,
            )
        )
    ]


def lam_run(run: Run, context: Context) -> list[Row] | None:
    """
    Gaps for every lambda of training with every lambda of adaptation, the condition number of the
    curvature, and how far the first-order gradient points where the exact one does.

    ``grid`` counts in spans: in what actions decide in Q of the uniform policy, mean over states
    and training tasks, which is the unit of ``TabularBOMRL(lam_relative=True)``.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    uniform = th.zeros_like(lakes.train.rewards[0])
    unit = absolute_lam(1.0, _action_values(lakes.train, uniform))
    grid = [relative * unit for relative in config["grid"]]
    absolute = {**config, "grid": grid, "adapt_grid": grid}
    logits = meta_policies(absolute, lakes, run)
    rows: list[Row] = []
    for relative, lam, phi in zip(config["grid"], grid, logits, strict=True):
        if context.is_over():
            return None
        rows.append(
            {
                "kind": "lam",
                "trained_with": f"{relative:g}",
                "unit": number(unit),
                **_regime(lakes.train, uniform, phi, lam),
            }
        )
        for other, adapt_lam in zip(config["grid"], grid, strict=True):
            found = (
                gaps_of(absolute, part, phi, adapt_lam, 1)[1].mean()
                for part in (lakes.validation, lakes.test)
            )
            names = ("trained_with", "adapted_with", "validation", "test")
            texts = (f"{relative:g}", f"{other:g}", *map(number, found))
            rows.append({"kind": "matrix", **dict(zip(names, texts, strict=True))})
    return rows


def _regime(tasks: TabularTasks, uniform: Tensor, phi: Tensor, lam: float) -> dict[str, str]:
    distance = distance_of(2)
    start = task_hypergradients(tasks, uniform, distance=distance, lam=lam)
    end = task_hypergradients(tasks, phi, distance=distance, lam=lam)
    numbers = {
        "log_condition": end.diagnostics["hessian_cond"].log10().median(),
        "cosine_at_start": _cosine(tasks, start),
        "cosine": _cosine(tasks, end),
        "relative_after": relative_lam(lam, end.before.action_values).mean(),
        "mean_kl": end.diagnostics["mean_kl"].mean(),
    }
    return {name: number(value) for name, value in numbers.items()}


def _cosine(tasks: TabularTasks, found: Hypergradients) -> Tensor:
    """Of the first-order gradients with the exact ones, mean over tasks: near the maximum of their
    mean that mean vanishes, and each task's own gradient does not."""
    shortcut = return_gradient(tasks, found.after).flatten(1)
    return th.cosine_similarity(shortcut, found.gradients.flatten(1)).mean()


class Move(NamedTuple):
    """What one adaptation does, means over tasks."""

    gap: float
    mean_kl: float


def metric_run(run: Run, context: Context) -> list[Row] | None:
    """
    For every lambda of one distance: how far adaptation moves the policy, and the gap it leaves.
    And for every one of the ``budgets``, mean KLs: the gap of the lambdas of training and of
    adaptation that leave the smallest one on validation tasks among those that stay within it.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    with invalid_ones_counted():
        logits = meta_policies(config, lakes, run)
    rows: list[Row] = []
    for lam, phi in zip(config["grid"], logits, strict=True):
        names = {"kind": "metric", "algorithm": config["algorithm"], "lam": f"{lam:g}"}
        rows.append({**names, **_texts(move_of(config, lakes.test, phi, lam))})
    pairs: dict[tuple[int, float], Move] = {}
    for index, phi in enumerate(logits):
        if context.is_over():
            return None
        for lam in config["adapt_grid"]:
            pairs[index, lam] = move_of(config, lakes.validation, phi, lam)
    for budget in config["budgets"]:
        within = {pair: move for pair, move in pairs.items() if move.mean_kl <= budget}
        if within:
            index, lam = min(within, key=lambda pair: within[pair].gap)
            found = {
                "kind": "budget",
                "algorithm": config["algorithm"],
                "budget": f"{budget:g}",
                "trained_with": f"{config['grid'][index]:g}",
                "adapted_with": f"{lam:g}",
            }
            rows.append({**found, **_texts(move_of(config, lakes.test, logits[index], lam))})
    return rows


def move_of(config: Mapping[str, Any], tasks: TabularTasks, phi: Tensor, lam: float) -> Move:
    """
    What one adaptation does.

    :param config: of the run
    :param tasks: M tasks
    :param phi: the meta-policy, (S, A)
    :param lam: lambda
    """
    _, problem = lower_level_at(tasks, phi, lam)
    after = solve_lower_level(distance_of(config["algorithm"]), problem)
    kl = kl_divergence(after.log_policy, problem.logits.log_softmax(-1))
    gap = optimal_returns(tasks) - evaluate(tasks, after.policy).returns
    return Move(float(gap.mean()), float((problem.occupancy * kl).sum(-1).mean()))


def _texts(move: Move) -> dict[str, str]:
    return {"test": number(move.gap), "test_kl": number(move.mean_kl)}


def heterogeneity_run(run: Run, context: Context) -> list[Row] | None:
    """
    The variance of the test tasks, and the gap and its bounds on them.

    ``config``: as in ``bo_mrl_tabular.tabular_run``, and ``n_variance_steps``.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    logits = meta_policies(config, lakes, run)
    if context.is_over():
        return None
    phi, lam, on_edge = chosen(config, lakes.validation, logits)
    distance = distance_of(config["algorithm"])
    comparator = comparator_of(lakes.test, distance, phi, policies=None, smallest=_SMALLEST)
    found = compare(lakes.test, distance, phi, lam, comparator=comparator)
    bounds, assumptions = task_bounds(found), bound_assumptions(found)
    assumed = th.stack(list(assumptions["B4"].values())).all(0)
    gap = bounds["gap"]
    return [
        {
            "kind": "heterogeneity",
            "level": config["level"],
            "lam": f"{lam:g}",
            "on_edge": int(on_edge),
            "variance": number(variance_of(lakes.test, config["n_variance_steps"])),
            "test": number(gap.mean()),
            **{name: number(bounds[name].mean()) for name in ("B3", "B4", "B5")},
            "B4_assumed": number(assumed.double().mean()),
            "B5_holds": number((gap <= bounds["B5"] + 1e-9).double().mean()),
        }
    ]


def meta_policies(config: Mapping[str, Any], lakes: Lakes, run: Run) -> Tensor:
    """
    Meta-policies for every value of the grid, (G, S, A), trained on the training tasks; the same
    one where no value counts in training.

    :param config: of the run
    :param lakes: its tasks
    :param run: the run
    """
    logits = trained(config, lakes.train, run.budget["n_iterations"], run.seed)
    return logits.expand(len(config["grid"]), *logits.shape[1:])


def chosen(
    config: Mapping[str, Any], tasks: TabularTasks, logits: Tensor
) -> tuple[Tensor, float, bool]:
    """
    The meta-policy (S, A) with the smallest gap after one step, the value that it was trained and
    adapts with, and whether that is the first or the last one of its grid.

    :param config: of the run
    :param tasks: to choose on
    :param logits: of the meta-policies, (G, S, A)
    """
    grid = config["grid"]
    gaps = [
        gaps_of(config, tasks, phi, value, 1)[1].mean()
        for phi, value in zip(logits, grid, strict=True)
    ]
    best = int(np.argmin(gaps))
    return logits[best], float(grid[best]), best in (0, len(grid) - 1)


def gaps_of(
    config: Mapping[str, Any], tasks: TabularTasks, logits: Tensor, value: float, n_steps: int
) -> list[np.ndarray]:
    """
    What every task lacks to its optimum after 0 to k adaptations, k + 1 arrays (M,).

    :param config: of the run
    :param tasks: M tasks
    :param logits: of the meta-policy, (S, A)
    :param value: lambda or the step size
    :param n_steps: k
    """
    best = optimal_returns(tasks)
    steps = adapted(config, tasks, logits, value, n_steps)
    return [(best - evaluate(tasks, step.softmax(-1)).returns).numpy() for step in steps]


def optimal_returns(tasks: TabularTasks) -> Tensor:
    """
    The return of the best policy of each task, (M,).

    :param tasks: M tasks
    """
    return (tasks.initial * optimal_action_values(tasks).amax(-1)).sum(-1)


def variance_of(tasks: TabularTasks, n_steps: int) -> float:
    """
    Their variance in reverse KL: how near to all optima one policy can be.

    :param tasks: M tasks
    :param n_steps: of Adam
    """
    value, _ = task_variance(tasks, distance_of(2), n_steps=n_steps, learning_rate=VARIANCE_RATE)
    return value


def number(value: float | Tensor) -> str:
    """
    A number as it stands in tables.

    :param value: the number
    """
    return f"{float(value):.6g}"


def _action_values(tasks: TabularTasks, logits: Tensor) -> Tensor:
    return lower_level_at(tasks, logits, 1.0)[0].action_values


@contextmanager
def invalid_ones_counted() -> Iterator[None]:
    """Where rows tell in how many tasks a hypergradient is valid, nobody needs to be warned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the hypergradient is not valid")
        yield


EXACT_PLAYS: Mapping[str, Callable[[Run, Context], list[Row] | None]] = {
    "tasks": tasks_run,
    "lam": lam_run,
    "metric": metric_run,
    "heterogeneity": heterogeneity_run,
}
"""By the ``kind`` of a run's config."""
