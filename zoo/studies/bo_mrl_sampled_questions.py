"""One run of a study of BO-MRL in which policies adapt to episodes instead of models.

Meta-policies are trained exactly; only adaptation is sampled, as at test time it has to be. What
was reached is then evaluated exactly.

Shapes: M tasks, E episodes, T steps, V values of lambda, S states, A actions.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch as th
from torch import Tensor

from metarl_agents.bilevel.comparators import nearest_optimal
from metarl_agents.bilevel.exact import TabularTasks, evaluate, optimal_action_values
from metarl_agents.bilevel.lower_level import distance_of, solve_lower_level
from metarl_agents.bilevel.sampled import (
    Rollouts,
    SampledEvaluation,
    sampled_evaluation,
    sampled_problem,
    sampled_rollouts,
)
from zoo.studies.bo_mrl_questions import (
    chosen,
    gaps_of,
    meta_policies,
    number,
    optimal_returns,
    variance_of,
)
from zoo.studies.bo_mrl_tabular import N_STEPS
from zoo.studies.bo_mrl_tasks import lakes_of
from zoo.studies.study import Context, Row, Run

N_TIME_STEPS = 49
"""Of an episode, as in publicly available experiment scripts."""
_ALGORITHM = 2
_TIE = 1e-9


class Protocol(NamedTuple):
    """How a number of episodes is spent."""

    n_solves: int
    """of the lower level, one after the other"""
    n_batches: int
    """1: all episodes are of the meta-policy; else as many as solves: each batch is of the policy
    so far"""


PROTOCOLS: Mapping[str, Protocol] = {
    "one batch, 1 solve": Protocol(1, 1),
    "one batch, 4 solves": Protocol(4, 1),
    "4 batches, 4 solves": Protocol(4, 4),
}
"""With one batch and several solves, Q of the policy so far comes from the same episodes: expected
SARSA takes the expectation over the policy that it is asked about, whoever played."""


def sparse_run(run: Run, context: Context) -> list[Row] | None:
    """
    What is missing to the optimum with exact and with sampled Q, and what the episodes missed.

    ``config``: as in ``bo_mrl_tabular.tabular_run``, and ``n_episodes``, the numbers of episodes of
    an adaptation. With sampled Q lambda is chosen on validation tasks for each of them, after one
    adaptation.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    phi, value, on_edge = chosen(config, lakes.validation, meta_policies(config, lakes, run))
    gaps = gaps_of(config, lakes.test, phi, value, N_STEPS)
    best = optimal_returns(lakes.test).numpy()
    rows: list[Row] = [
        {
            "kind": "sparse",
            "rewards": config["rewards"],
            "n_episodes": "exact",
            "step": step,
            "lam": f"{value:g}",
            "on_edge": int(on_edge),
            "missing": number(float((gap / best).mean())),
        }
        for step, gap in enumerate(gaps)
    ]
    generator = th.Generator().manual_seed(run.seed)
    for n_episodes in config["n_episodes"]:
        if context.is_over():
            return None
        lam = _chosen_lam(config, lakes.validation, phi, Protocol(1, 1), n_episodes, generator)
        rows += _sampled_steps(config, lakes.test, phi, lam, n_episodes, generator)
    return rows


def _sampled_steps(
    config: Mapping[str, Any],
    tasks: TabularTasks,
    phi: Tensor,
    lam: float,
    n_episodes: int,
    generator: th.Generator,
) -> Iterator[Row]:
    best, logits = optimal_returns(tasks), phi.expand_as(tasks.rewards)
    for step in range(1, _last(config) + 1):
        rollouts = played(tasks, logits, n_episodes, generator)
        seen = seen_by(tasks, logits, rollouts)
        missed = missed_mass(tasks, logits, seen)
        logits = solved(logits, seen, lam)
        gap = best - evaluate(tasks, logits.softmax(-1)).returns
        yield {
            "kind": "sparse",
            "rewards": config["rewards"],
            "n_episodes": n_episodes,
            "step": step,
            "lam": f"{lam:g}",
            "missing": number((gap / best).mean()),
            "coverage": number(seen.coverage.mean()),
            "missed": number(missed.mean()),
        }


def _last(config: Mapping[str, Any]) -> int:
    return int(config["n_sampled_steps"])


def data_run(run: Run, context: Context) -> list[Row] | None:
    """
    The gap after as many episodes, collected at once or in between, lambda chosen for each.

    ``config``: as in ``bo_mrl_tabular.tabular_run``, and ``n_episodes``, totals, each a multiple of
    the batches of every one of the ``PROTOCOLS``, and ``n_variance_steps``.

    :param run: the run
    :param context: its surroundings
    """
    config, lakes = run.config, lakes_of(run.config, run.seed)
    phi, _, _ = chosen(config, lakes.validation, meta_policies(config, lakes, run))
    best = optimal_returns(lakes.test)
    before = (best - evaluate(lakes.test, phi.softmax(-1)).returns).mean()
    variance = variance_of(lakes.test, config["n_variance_steps"])
    generator = th.Generator().manual_seed(run.seed)
    rows: list[Row] = []
    for n_episodes in config["n_episodes"]:
        for name, protocol in PROTOCOLS.items():
            if context.is_over():
                return None
            lam = _chosen_lam(config, lakes.validation, phi, protocol, n_episodes, generator)
            lams = phi.new_tensor([lam])
            logits = adapted_to_episodes(lakes.test, phi, lams, protocol, n_episodes, generator)
            gap = best - evaluate(lakes.test, logits[0].softmax(-1)).returns
            rows.append(
                {
                    "kind": "data",
                    "level": config["level"],
                    "protocol": name,
                    "n_episodes": n_episodes,
                    "lam": f"{lam:g}",
                    "before": number(before),
                    "test": number(gap.mean()),
                    "variance": number(variance),
                }
            )
    return rows


def _chosen_lam(
    config: Mapping[str, Any],
    tasks: TabularTasks,
    phi: Tensor,
    protocol: Protocol,
    n_episodes: int,
    generator: th.Generator,
) -> float:
    """What leaves the smallest gap in validation tasks; all values start from the same episodes."""
    grid = th.tensor(config["sampled_grid"], dtype=phi.dtype)
    logits = adapted_to_episodes(tasks, phi, grid, protocol, n_episodes, generator)
    repeated = tasks.subset(th.arange(tasks.n_tasks).repeat(len(grid)))
    returns = evaluate(repeated, logits.flatten(0, 1).softmax(-1)).returns
    return float(grid[returns.unflatten(0, logits.shape[:2]).mean(-1).argmax()])


def adapted_to_episodes(
    tasks: TabularTasks,
    phi: Tensor,
    lams: Tensor,
    protocol: Protocol,
    n_episodes: int,
    generator: th.Generator,
) -> Tensor:
    """
    Logits after adaptation to episodes with every lambda, (V, M, S, A).

    :param tasks: M tasks
    :param phi: the meta-policy, (S, A)
    :param lams: (V,)
    :param protocol: how episodes are spent
    :param n_episodes: in sum
    :param generator: of the episodes
    """
    if n_episodes % protocol.n_batches:
        raise ValueError(
            f"n_episodes={n_episodes} must be a multiple of {protocol.n_batches}, the batches that "
            "they are split into"
        )
    shape, per_batch = (len(lams), tasks.n_tasks), n_episodes // protocol.n_batches
    order, lam = th.arange(tasks.n_tasks).repeat(len(lams)), lams.repeat_interleave(tasks.n_tasks)
    repeated, start = tasks.subset(order), phi.expand_as(tasks.rewards)
    first = played(tasks, start, per_batch, generator)
    seen = seen_by(tasks, start, first)
    logits = solved(start[order], _repeated(seen, order), lam)
    rollouts = Rollouts(*(tensor[order] for tensor in first))
    for _ in range(1, protocol.n_solves):
        if protocol.n_batches > 1:
            rollouts = played(repeated, logits, per_batch, generator)
        logits = solved(logits, seen_by(repeated, logits, rollouts), lam)
    return logits.unflatten(0, shape)


def _repeated(seen: SampledEvaluation, order: Tensor) -> SampledEvaluation:
    return SampledEvaluation(*(tensor[order] for tensor in seen))


def played(
    tasks: TabularTasks, logits: Tensor, n_episodes: int, generator: th.Generator
) -> Rollouts:
    """
    Episodes of T steps.

    :param tasks: M tasks
    :param logits: of the policies, (M, S, A)
    :param n_episodes: E
    :param generator: of the draws
    """
    return sampled_rollouts(
        tasks,
        logits.softmax(-1),
        n_episodes=n_episodes,
        n_steps=N_TIME_STEPS,
        generator=generator,
    )


def seen_by(tasks: TabularTasks, logits: Tensor, rollouts: Rollouts) -> SampledEvaluation:
    """
    Q of policies from episodes, which others may have played.

    :param tasks: M tasks
    :param logits: of the policies, (M, S, A)
    :param rollouts: the episodes
    """
    return sampled_evaluation(rollouts, logits.softmax(-1), tasks.discount)


def solved(logits: Tensor, seen: SampledEvaluation, lam: Tensor | float) -> Tensor:
    """
    Logits after Alg 2, whose solution does not depend on who visits what, (M, S, A).

    :param logits: of the policies so far, (M, S, A)
    :param seen: their Q
    :param lam: lambda, one number or (M,)
    """
    problem = sampled_problem(logits, seen, lam)
    return solve_lower_level(distance_of(_ALGORITHM), problem).logits


def missed_mass(tasks: TabularTasks, logits: Tensor, seen: SampledEvaluation) -> Tensor:
    """
    Of the (discounted) time that the best policy spends where actions matter, the part in pairs
    that no episode played, (M,).

    :param tasks: M tasks
    :param logits: of the policies that played, to which the best policy is the nearest, (M, S, A)
    :param seen: what the episodes say
    """
    q = optimal_action_values(tasks)
    best = evaluate(tasks, nearest_optimal(q, logits).exp())
    matters = q.amax(-1) - q.amin(-1) > _TIE
    mass = (best.occupancy * matters)[..., None] * best.policy
    return th.where(seen.counts == 0, mass, 0.0).sum((-2, -1)) / mass.sum((-2, -1))


SAMPLED_PLAYS: Mapping[str, Callable[[Run, Context], list[Row] | None]] = {
    "sparse": sparse_run,
    "data": data_run,
}
"""By the ``kind`` of a run's config."""
