"""One run of BO-MRL, or of what it is compared with, in exactly solved frozen lakes.

A run trains a meta-policy with every value of a grid, takes what does best on validation tasks, and
scores that on test tasks, which nothing else looks at: with the values of adaptation that were
published, with the same value for training and adaptation, and with a value of its own for each.
Everything is exact: no episode is played.

Shapes: M tasks, G values of the grid, S states, A actions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.bilevel.adaptation import adaptation_steps
from metarl_agents.bilevel.bound_formulas import bound_assumptions, task_bounds
from metarl_agents.bilevel.bounds import compare
from metarl_agents.bilevel.comparators import comparator_of, task_variance
from metarl_agents.bilevel.exact import TabularTasks, evaluate, optimal_action_values
from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.meta_training import (
    GradientsOf,
    bo_mrl_gradients,
    mean_gradients,
    meta_trained,
)
from metarl_agents.bilevel.policy_gradient import (
    TaskGradients,
    UnrollMode,
    gradient_steps,
    maml_gradients,
    multi_task_gradients,
)
from metarl_agents.bilevel.settings import HypergradientSettings, Mode
from zoo.studies.bo_mrl_tasks import lakes_of
from zoo.studies.study import Context, Row, Run

PUBLISHED, ONE_VALUE, OWN_VALUES = "published values", "one value", "own values"
PROTOCOLS = (PUBLISHED, ONE_VALUE, OWN_VALUES)
"""How values are chosen; the first one is what published claims are about."""
N_STEPS = 4
"""Adaptations at test time, as in published curves."""
VARIANCE_RATE = 0.2
"""Of Adam for the task variance: 100 steps come as low as 400 steps of 0.05."""
_SMALLEST = 1e-4
_ROUNDING = 1e-9


class Chosen(NamedTuple):
    """What did best on the validation tasks."""

    logits: Tensor
    trained_with: float
    adapted_with: float
    on_edge: bool
    """whether one of the two is the first or the last of those to choose from"""


def tabular_run(run: Run, context: Context) -> list[Row] | None:
    """
    Train with a grid, choose on validation tasks, score on test tasks.

    ``config``: ``env``, ``env_kwargs``, ``n_train``, ``n_validation``, ``n_test``, ``method``
    (``bo_mrl``, ``first_order``, ``maml``, ``multi_task`` or ``uniform``), ``algorithm`` (of the
    lower level), ``mode`` (of ``maml``), ``grid`` (of lambda, or of the step size),
    ``adapt_grid``, ``published`` (those values of both that go with published settings),
    ``meta_batch_size``, ``learning_rate``. ``budget``: ``n_iterations``.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    logits = trained(config, lakes.train, run.budget["n_iterations"], run.seed)
    if context.is_over():
        return None
    rows: list[Row] = []
    for protocol, chosen in best_on(config, lakes.validation, logits).items():
        found = scored(config, lakes.test, chosen, protocol)
        if config["method"] == "bo_mrl" and protocol == PUBLISHED:
            found += bounded(config, lakes.test, chosen)
        common = {
            "chosen": f"{chosen.trained_with:g}",
            "chosen_adapt": f"{chosen.adapted_with:g}",
            "on_edge": int(chosen.on_edge),
        }
        rows += [{**row, **common} for row in found]
    return rows


def trained(config: Mapping[str, Any], tasks: TabularTasks, n_iterations: int, seed: int) -> Tensor:
    """
    Meta-policies for every value of the grid, (G, S, A).

    :param config: of a run
    :param tasks: to train on
    :param n_iterations: of meta-training
    :param seed: of the mini-batches
    """
    if config["method"] == "uniform":
        return tasks.rewards.new_zeros(1, *tasks.rewards.shape[1:])
    return meta_trained(
        tasks,
        gradients_of(config),
        n_settings=len(config["grid"]),
        n_iterations=n_iterations,
        meta_batch_size=config["meta_batch_size"],
        learning_rate=config["learning_rate"],
        rng=np.random.default_rng(seed),
    ).logits


def gradients_of(config: Mapping[str, Any]) -> GradientsOf:
    """
    What a method ascends, with a value of the grid for each setting.

    :param config: of a run
    """
    grid, method = th.tensor(config["grid"], dtype=th.float64), config["method"]
    if method in ("bo_mrl", "first_order"):
        mode: Mode = "exact" if method == "bo_mrl" else "first_order"
        how = HypergradientSettings(mode=mode, strict=False)
        return bo_mrl_gradients(distance_of(config["algorithm"]), grid, how=how)
    if method == "multi_task":
        return lambda tasks, logits, _: multi_task_gradients(tasks, logits)
    mode_of_maml: UnrollMode = config["mode"]

    def gradients(tasks: TabularTasks, logits: Tensor, settings: Tensor) -> TaskGradients:
        return maml_gradients(tasks, logits, grid[settings], mode=mode_of_maml)

    return gradients


def adapted(
    config: Mapping[str, Any],
    tasks: TabularTasks,
    logits: Tensor,
    values: Tensor | float,
    n_steps: int,
) -> list[Tensor]:
    """
    Logits after 0 to k adaptations with data of their own, (M, S, A) each.

    :param config: of a run
    :param tasks: M tasks
    :param logits: (S, A) or (M, S, A)
    :param values: lambda or the step size, one number or (M,)
    :param n_steps: k
    """
    if config["method"] == "maml":
        return gradient_steps(tasks, logits, values, n_steps=n_steps)
    distance = distance_of(config["algorithm"])
    return adaptation_steps(tasks, logits, distance, values, n_steps=n_steps)


def best_on(config: Mapping[str, Any], tasks: TabularTasks, logits: Tensor) -> dict[str, Chosen]:
    """
    What has the largest return after one step, by protocol.

    Policies that were not trained to adapt have a value for adaptation only, in every protocol.

    :param config: of a run
    :param tasks: to choose on
    :param logits: of the meta-policies, (G, S, A)
    """
    grid: Sequence[float] = config["grid"]
    values: Sequence[float] = config["adapt_grid"]
    returns = np.array(
        [
            [_returns(tasks, adapted(config, tasks, row, value, 1)[-1]).mean() for value in values]
            for row in logits
        ]
    )
    found = {}
    for protocol in PROTOCOLS:
        may_be = _candidates(config, protocol)
        best = np.where(may_be, returns, -np.inf).argmax()
        i, j = (int(index) for index in np.unravel_index(best, returns.shape))
        is_edge = any(
            _on_edge(choices, k) for choices, k in zip(may_be.nonzero(), (i, j), strict=True)
        )
        found[protocol] = Chosen(logits[i], float(grid[i]), float(values[j]), is_edge)
    return found


def _candidates(config: Mapping[str, Any], protocol: str) -> np.ndarray:
    """Which pairs of values a protocol chooses from, (G, G of adaptation)."""
    grid, values = np.array(config["grid"]), np.array(config["adapt_grid"])
    if protocol == PUBLISHED:
        published = config["published"]
        return np.logical_and.outer(
            np.isin(grid, published["grid"]), np.isin(values, published["adapt_grid"])
        )
    is_tied = protocol == ONE_VALUE and config["method"] in ("bo_mrl", "first_order", "maml")
    return np.equal.outer(grid, values) if is_tied else np.ones((len(grid), len(values)), bool)


def _on_edge(choices: np.ndarray, index: int) -> bool:
    """Whether it is the first or the last of several that there were to choose from."""
    first, last = choices.min(), choices.max()
    return bool(first < last and index in (first, last))


def scored(
    config: Mapping[str, Any], tasks: TabularTasks, chosen: Chosen, protocol: str
) -> list[Row]:
    """
    Returns of every test task after 0 to 4 adaptations, and how much is missing to the optimum.

    :param config: of a run
    :param tasks: to score on
    :param chosen: what to score
    :param protocol: how it was chosen
    """
    best = (tasks.initial * optimal_action_values(tasks).amax(-1)).sum(-1).numpy()
    steps = adapted(config, tasks, chosen.logits, chosen.adapted_with, N_STEPS)
    rows: list[Row] = []
    for step, logits in enumerate(steps):
        returns = _returns(tasks, logits)
        for kind, values in (("adaptation", returns), ("gap", best - returns)):
            name = f"{kind}, {protocol}"
            rows.append({"kind": kind, "protocol": name, "step": step, **_values(values)})
    return rows


def bounded(config: Mapping[str, Any], tasks: TabularTasks, chosen: Chosen) -> list[Row]:
    """
    The bounds on the gap of every test task, and in how many of them each holds.

    :param config: of a run
    :param tasks: to look at
    :param chosen: the meta-policy, and lambda of the adaptation
    """
    distance, lam = distance_of(config["algorithm"]), chosen.adapted_with
    smallest = _SMALLEST
    comparator = comparator_of(tasks, distance, chosen.logits, policies=None, smallest=smallest)
    rows: list[Row] = []
    for n_steps in range(1, N_STEPS + 1):
        found = compare(tasks, distance, chosen.logits, lam, comparator=comparator, n_steps=n_steps)
        numbers = task_bounds(found)
        names = ("B3", "B4", "B5", "B6") if n_steps == 1 else ("B6",)
        assumptions = bound_assumptions(found)
        for name in names:
            gap = numbers["gap_after_steps" if name == "B6" else "gap"]
            if bool(numbers[name].isnan().all()):
                continue  # B6 is for reverse_kl only
            truths = [truth.numpy() for truth in assumptions[name].values()]
            assumed = np.logical_and.reduce(truths) if truths else np.ones(len(gap), dtype=bool)
            holds = (gap <= numbers[name] + _ROUNDING).numpy()
            rows.append(
                {
                    "kind": "bound",
                    "protocol": name,
                    "step": n_steps,
                    **_values(numbers[name].numpy()),
                    "holds": f"{holds.mean():.4f}",
                    "assumed": f"{assumed.mean():.4f}",
                }
            )
    return rows


def variance_run(run: Run, context: Context) -> list[Row] | None:
    """
    The variance of the test tasks: how near to all optima one policy can be.

    ``config``: as in ``tabular_run``, of which the tasks and ``algorithm`` are used. ``budget``:
    ``n_iterations``.

    :param run: the run
    :param context: its surroundings
    """
    lakes = lakes_of(run.config, run.seed)
    distance = distance_of(run.config["algorithm"])
    value, _ = task_variance(
        lakes.test, distance, n_steps=run.budget["n_iterations"], learning_rate=VARIANCE_RATE
    )
    return [{"kind": "variance", "protocol": distance.name, "step": 0, "return": f"{value:.6f}"}]


def convergence_run(run: Run, context: Context) -> list[Row] | None:
    """
    The squared norm of the exact gradient of the objective over all training tasks, along plain
    gradient ascent on all of them.

    ``config``: as in ``tabular_run``, with a ``grid`` of one value. ``budget``: ``n_iterations``.

    :param run: the run
    :param context: its surroundings
    """
    config, tasks = run.config, lakes_of(run.config, run.seed).train
    follow, only = gradients_of(config), th.zeros(1, dtype=th.int64)
    logits = tasks.rewards.new_zeros(1, *tasks.rewards.shape[1:])
    rows: list[Row] = []
    for iteration in range(run.budget["n_iterations"] + 1):
        if context.is_over():
            return None
        gradient, value = mean_gradients(tasks, logits, follow, only)
        rows.append(
            {
                "kind": "convergence",
                "step": iteration,
                "return": f"{float(value[0]):.8f}",
                "squared_norm": f"{float(gradient.square().sum()):.6e}",
            }
        )
        logits = logits + config["learning_rate"] * gradient
    return rows


def _returns(tasks: TabularTasks, logits: Tensor) -> np.ndarray:
    return np.asarray(evaluate(tasks, logits.softmax(-1)).returns.numpy())


def _values(values: np.ndarray) -> dict[str, str]:
    """Mean and minimum over the tasks."""
    return {"return": f"{values.mean():.8f}", "smallest": f"{values.min():.6g}"}


PLAYS: Mapping[str, Callable[[Run, Context], list[Row] | None]] = {
    "tabular": tabular_run,
    "variance": variance_run,
    "convergence": convergence_run,
}
"""By the ``kind`` of a run's config."""
