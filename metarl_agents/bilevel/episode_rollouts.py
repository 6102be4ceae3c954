"""Adaptation, and hypergradients, from the episodes that an agent played.

Episodes that terminate go on in a state of their own, which pays nothing and is left out of what is
returned. Tasks whose longest episodes differ are looked at apart, so that a task adapts as it would
alone.

Shapes: M tasks, E episodes, T steps, S states, A actions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch as th
from torch import Tensor

from metarl_agents.bilevel.exact import Evaluation
from metarl_agents.bilevel.lower_level import Adapted, LowerLevel
from metarl_agents.bilevel.sampled import (
    Rollouts,
    SampledEvaluation,
    sampled_evaluation,
    sampled_problem,
)
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies.networks import TabularNetwork


class SamplingSettings(NamedTuple):
    """How episodes are turned into values.

    :param gamma: discount
    :param step_size: of expected SARSA
    :param initial: Q of pairs before their first update
    :param require_start: refuse episodes that leave an action of a start state untried
    """

    gamma: float
    step_size: float = 0.3
    initial: float = 0.0
    require_start: bool = False


class Seen(NamedTuple):
    """What the episodes of one policy per task say, the end counted as a state.

    :param rollouts: states up to S, the end
    :param evaluation: of the policy in S + 1 states
    :param returns: discounted, mean over episodes, (M,)
    """

    rollouts: Rollouts
    evaluation: SampledEvaluation
    returns: Tensor


def groups_by_length(episodes: EpisodeBatch) -> Iterator[tuple[Tensor, EpisodeBatch]]:
    """Positions of the tasks whose longest episode is equally long, and their episodes, trimmed.

    :param episodes: with leading task axis M
    """
    longest = episodes.lengths.amax(-1)
    for n_steps in longest.unique().tolist():
        positions = (longest == n_steps).nonzero()[:, 0]
        yield positions, _shortened(episodes, positions, n_steps)


def _shortened(episodes: EpisodeBatch, positions: Tensor, n_steps: int) -> EpisodeBatch:
    per_episode = ("final_observations", "terminated")
    fields = {
        name: field[positions] if name in per_episode else field[positions, :, :n_steps]
        for name, field in episodes._asdict().items()
        if field is not None
    }
    return EpisodeBatch(**fields)


def seen_in(
    episodes: EpisodeBatch, logits: Tensor, table: TabularNetwork, settings: SamplingSettings
) -> Seen:
    """Q and nu of the policies that played.

    :param episodes: with leading task axis M, the longest of each task equally long
    :param logits: of these policies, (M, S, A)
    :param table: maps observations to states
    :param settings: how to estimate
    """
    rollouts = episode_rollouts(episodes, table)
    discount = logits.new_full((len(logits),), settings.gamma)
    initial = th.full_like(with_end(logits), settings.initial)
    initial[:, -1] = 0.0
    evaluation = sampled_evaluation(
        rollouts,
        with_end(logits).softmax(-1),
        discount,
        step_size=settings.step_size,
        initial=initial,
        require_start=settings.require_start,
    )
    steps = th.arange(episodes.mask.shape[-1], device=logits.device)
    returns = (rollouts.rewards * settings.gamma**steps).sum(-1).mean(-1)
    return Seen(rollouts, evaluation, returns)


def episode_rollouts(episodes: EpisodeBatch, table: TabularNetwork) -> Rollouts:
    """Episodes as states, actions and rewards; state S from where they terminated.

    :param episodes: with leading task axis M
    :param table: maps observations to states
    """
    _check_masks(episodes)
    n_steps, lengths = episodes.mask.shape[-1], episodes.lengths
    is_cut = (episodes.terminated == 0) & (lengths < n_steps)
    if bool(is_cut.any()):
        raise ValueError(
            f"some episodes were cut after {int(lengths[is_cut].min())} steps and others ran "
            f"{n_steps}: values beyond the cut are unknown, give all the same time limit"
        )
    end = table.n_states
    states = th.nn.functional.pad(table.states(episodes.observations), (0, 1), value=end)
    final = th.where(episodes.terminated > 0, end, table.states(episodes.final_observations))
    visits = th.arange(n_steps + 1, device=lengths.device)
    states = th.where(visits < lengths[..., None], states, end)
    states = th.where(visits == lengths[..., None], final[..., None], states)
    if not bool(((states >= 0) & (states <= end)).all()):
        raise ValueError(
            f"episodes hold observations outside the {end} states of the policy: they are of "
            "another env"
        )
    rewards = (episodes.rewards * episodes.mask).to(th.float64)
    return Rollouts(states, episodes.actions[..., 0].to(th.int64), rewards)


def _check_masks(episodes: EpisodeBatch) -> None:
    masks = episodes.action_masks
    if masks is not None and not bool((masks.all(-1) | (episodes.mask == 0)).all()):
        raise ValueError(
            "the env forbids actions by action_masks, which these lower levels know nothing of: "
            "use an env in which every action is allowed"
        )


def with_end(logits: Tensor) -> Tensor:
    """Logits of S + 1 states, (M, S + 1, A), uniform where episodes are over.

    :param logits: (M, S, A)
    """
    return th.nn.functional.pad(logits, (0, 0, 0, 1))


def problem_of(seen: Seen, logits: Tensor, lam: float | Tensor) -> LowerLevel:
    """The lower level that the episodes define, in S + 1 states.

    :param seen: what they say
    :param logits: of the policies that played, (M, S, A)
    :param lam: lambda, one number or (M,)
    """
    return sampled_problem(with_end(logits), seen.evaluation, lam)


def without_end(problem: LowerLevel, adapted: Adapted) -> tuple[LowerLevel, Adapted]:
    """The same problems and solutions in the S states of the task.

    :param problem: in S + 1 states
    :param adapted: its solution
    """
    return (
        LowerLevel(
            problem.logits[:, :-1],
            problem.action_values[:, :-1],
            problem.occupancy[:, :-1],
            problem.lam,
        ),
        adapted._replace(logits=adapted.logits[:, :-1]),
    )


def estimated(seen: Seen) -> Evaluation:
    """What diagnostics need of an evaluation, in S states; it has no factors to solve with.

    :param seen: what the episodes say
    """
    found = seen.evaluation
    policy, q = found.policy[:, :-1], found.action_values[:, :-1]
    return Evaluation(
        policy=policy,
        values=(policy * q).sum(-1),
        action_values=q,
        advantages=found.advantages[:, :-1],
        occupancy=found.occupancy[:, :-1],
        returns=seen.returns,
        factors=(q.new_zeros(0), q.new_zeros(0)),
    )
