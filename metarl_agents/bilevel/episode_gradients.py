"""Adaptation and hypergradients of many tasks from the episodes that an agent played in them.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Callable

import torch as th
from torch import Tensor

from metarl_agents.bilevel import episode_rollouts as played
from metarl_agents.bilevel.diagnostics import adaptation_diagnostics, checked_solution
from metarl_agents.bilevel.episode_rollouts import SamplingSettings
from metarl_agents.bilevel.lower_level import Distance, solve_lower_level
from metarl_agents.bilevel.sampled import SampledEvaluation, sampled_hypergradients
from metarl_agents.bilevel.settings import HypergradientSettings
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies.networks import TabularNetwork

LambdaOf = Callable[[Tensor], float | Tensor]
"""Q (M, S, A) -> lambda in units of returns, one number or (M,)."""


def adapted_to_episodes(
    logits: Tensor,
    episodes: EpisodeBatch,
    lambda_of: LambdaOf,
    *,
    table: TabularNetwork,
    distance: Distance,
    sampling: SamplingSettings,
    settings: HypergradientSettings,
) -> Tensor:
    """Logits after one adaptation in each task, (M, S, A).

    :param logits: of the policies that played, (M, S, A)
    :param episodes: with leading task axis M
    :param lambda_of: lambda
    :param table: maps observations to states
    :param distance: D
    :param sampling: how to estimate Q and nu
    :param settings: of the lower level
    """
    after = th.empty_like(logits)
    for tasks, batch in played.groups_by_length(episodes):
        seen = played.seen_in(batch, logits[tasks], table, sampling)
        lam = lambda_of(seen.evaluation.action_values[:, :-1])
        found = solve_lower_level(
            distance,
            played.problem_of(seen, logits[tasks], lam),
            solver=settings.solver,
            max_iterations=settings.max_iterations,
        )
        after[tasks] = found.logits[:, :-1]
    return after


def action_values_of(
    logits: Tensor, episodes: EpisodeBatch, *, table: TabularNetwork, sampling: SamplingSettings
) -> Tensor:
    """Q of the policies that played, (M, S, A).

    :param logits: of these policies, (M, S, A)
    :param episodes: with leading task axis M
    :param table: maps observations to states
    :param sampling: how to estimate
    """
    q = th.empty_like(logits)
    for tasks, batch in played.groups_by_length(episodes):
        seen = played.seen_in(batch, logits[tasks], table, sampling)
        q[tasks] = seen.evaluation.action_values[:, :-1]
    return q


def episode_hypergradients(
    logits: Tensor,
    before: EpisodeBatch,
    after: EpisodeBatch,
    lam: float,
    *,
    table: TabularNetwork,
    distance: Distance,
    sampling: SamplingSettings,
    settings: HypergradientSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hypergradients (M, S, A), and diagnostics (M,) by name, among them coverage and the mass that
    had to be skipped.

    :param logits: of the meta-policy, repeated, (M, S, A)
    :param before: episodes of the meta-policy, with leading task axis M
    :param after: episodes of the policies that adapted to `before`
    :param lam: lambda
    :param table: maps observations to states
    :param distance: D
    :param sampling: how to estimate
    :param settings: of the lower level
    """
    gradients = th.empty_like(logits)
    numbers: dict[str, Tensor] = {}
    for tasks, batch in played.groups_by_length(before):
        seen = played.seen_in(batch, logits[tasks], table, sampling)
        problem = played.problem_of(seen, logits[tasks], lam)
        adapted = solve_lower_level(
            distance, problem, solver=settings.solver, max_iterations=settings.max_iterations
        )
        adapted_logits = adapted.logits[:, :-1]
        reached = _evaluated(_chosen(after, tasks), adapted_logits, table, sampling)
        found = sampled_hypergradients(
            problem,
            adapted,
            seen.rollouts,
            seen.evaluation,
            reached.evaluation,
            distance=distance,
            discount=logits.new_full((len(tasks),), sampling.gamma),
        )
        gradients[tasks] = found.gradients[:, :-1]
        own_problem, own_adapted = played.without_end(problem, adapted)
        at = played.estimated(seen)
        checked_solution(own_problem, at, own_adapted, None, settings)
        part = adaptation_diagnostics(own_problem, at, own_adapted, played.estimated(reached))
        n_pairs = table.n_states * table.n_actions
        is_seen = (seen.evaluation.counts[:, :-1] > 0).to(logits.dtype)
        part |= {
            "coverage": is_seen.sum((-2, -1)) / n_pairs,
            "skipped_mass": found.skipped_mass,
        }
        for name, values in part.items():
            numbers.setdefault(name, logits.new_empty(len(logits)))[tasks] = values
    return gradients, numbers


def _chosen(episodes: EpisodeBatch, tasks: Tensor) -> EpisodeBatch:
    return EpisodeBatch._make(None if field is None else field[tasks] for field in episodes)


def _evaluated(
    episodes: EpisodeBatch, logits: Tensor, table: TabularNetwork, sampling: SamplingSettings
) -> played.Seen:
    """What episodes say of which only the evaluation is needed, whatever their lengths."""
    groups = list(played.groups_by_length(episodes))
    parts = [played.seen_in(batch, logits[tasks], table, sampling) for tasks, batch in groups]
    order = th.cat([tasks for tasks, _ in groups]).argsort()
    fields = zip(*(part.evaluation for part in parts), strict=True)
    joined = SampledEvaluation(*(th.cat(field)[order] for field in fields))
    returns = th.cat([part.returns for part in parts])[order]
    return played.Seen(parts[0].rollouts, joined, returns)
