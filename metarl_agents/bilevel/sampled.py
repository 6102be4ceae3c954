"""BO-MRL in tabular tasks from sampled episodes instead of the model.

Shapes: M tasks, E episodes, T steps, S states, A actions.
"""

from typing import NamedTuple

import numpy as np
import torch as th
from jaxtyping import Float, Int
from torch import Tensor

from metarl_agents.bilevel.exact import TabularTasks, centred
from metarl_agents.bilevel.lower_level import Adapted, Distance, LowerLevel


class Rollouts(NamedTuple):
    """Episodes of one policy per task, all of T steps.

    :param states: the last one is where the last action led, (M, E, T + 1), int64
    :param actions: (M, E, T), int64
    :param rewards: (M, E, T)
    """

    states: Int[Tensor, "task episode visit"]
    actions: Int[Tensor, "task episode step"]
    rewards: Float[Tensor, "task episode step"]


class SampledEvaluation(NamedTuple):
    """What episodes say about their policy.

    :param policy: action probabilities, (M, S, A)
    :param action_values: estimate of Q, (M, S, A)
    :param occupancy: share of visits, those at step t weighted by gamma^t, (M, S)
    :param counts: how often each pair was played, (M, S, A)
    """

    policy: Float[Tensor, "task state action"]
    action_values: Float[Tensor, "task state action"]
    occupancy: Float[Tensor, "task state"]
    counts: Float[Tensor, "task state action"]

    @property
    def advantages(self) -> Float[Tensor, "task state action"]:
        """`Q - <pi, Q>`, (M, S, A)."""
        return self.action_values - (self.policy * self.action_values).sum(-1, keepdim=True)

    @property
    def coverage(self) -> Float[Tensor, " task"]:
        """The share of pairs that were played, (M,)."""
        return (self.counts > 0).to(self.policy.dtype).mean((-2, -1))


class SampledHypergradients(NamedTuple):
    """Estimated gradients of M tasks.

    :param gradients: (M, S, A)
    :param skipped_mass: the part of the cotangent of Q, in absolute values, on pairs that were
        never played and so could not be followed, (M,)
    :param coverage: the share of pairs that were played, (M,)
    """

    gradients: Float[Tensor, "task state action"]
    skipped_mass: Float[Tensor, " task"]
    coverage: Float[Tensor, " task"]


def sampled_rollouts(
    tasks: TabularTasks,
    policy: Float[Tensor, "task state action"],
    *,
    n_episodes: int,
    n_steps: int,
    generator: th.Generator,
) -> Rollouts:
    """Episodes of a policy in every task; rewards are the expected ones of each pair.

    :param tasks: M tasks
    :param policy: action probabilities, (M, S, A)
    :param n_episodes: E
    :param n_steps: T
    :param generator: of the draws, on the device of the tasks
    """
    rows = th.arange(tasks.n_tasks, device=policy.device)[:, None]
    first = tasks.initial[:, None].expand(-1, n_episodes, -1)
    states, actions = [_drawn(first, generator)], []
    for _ in range(n_steps):
        actions.append(_drawn(policy[rows, states[-1]], generator))
        states.append(_drawn(tasks.transitions[rows, states[-1], actions[-1]], generator))
    played, chosen = th.stack(states, -1), th.stack(actions, -1)
    return Rollouts(played, chosen, tasks.rewards[rows[..., None], played[..., :-1], chosen])


def _drawn(probabilities: Tensor, generator: th.Generator) -> Tensor:
    """One index per distribution over the last axis."""
    cumulative = probabilities.cumsum(-1)
    shape, kind = cumulative[..., :1].shape, cumulative.dtype
    draws = th.rand(shape, generator=generator, dtype=kind, device=cumulative.device)
    indices = th.searchsorted(cumulative, draws * cumulative[..., -1:], right=True)
    return indices[..., 0].clamp(max=probabilities.shape[-1] - 1)


def sampled_evaluation(
    rollouts: Rollouts,
    policy: Float[Tensor, "task state action"],
    discount: Float[Tensor, " task"],
    *,
    step_size: float = 0.3,
    initial: float | Float[Tensor, "*task state action"] = 0.0,
    require_start: bool = False,
) -> SampledEvaluation:
    """Q by expected SARSA (van Seijen, van Hasselt, Whiteson & Wiering 2009), nu by counting.

    Steps are taken in the order in which they were played, episode by episode. The step size and
    the start at 0 are those of publicly available experiment scripts.

    :param rollouts: episodes of the policy
    :param policy: action probabilities, (M, S, A)
    :param discount: gamma, (M,)
    :param step_size: of each update
    :param initial: Q before the first update, one number or one for each pair; pairs that are never
        played keep it, so a large one is optimistic about them and a small one pessimistic
    :param require_start: `ValueError` where an action was never played in a state that episodes
        start in
    """
    counts = _counts(rollouts, policy)
    if require_start:
        _check_start(rollouts, counts)
    q = _expected_sarsa(rollouts, policy, discount, step_size, initial)
    weights = discount[:, None] ** th.arange(rollouts.actions.shape[-1], device=policy.device)
    visits = th.zeros_like(policy[..., 0])
    per_visit = weights[:, None].expand(rollouts.actions.shape)
    visits.scatter_add_(1, rollouts.states[..., :-1].flatten(1), per_visit.flatten(1))
    return SampledEvaluation(policy, q, visits / visits.sum(-1, keepdim=True), counts)


def _counts(rollouts: Rollouts, policy: Tensor) -> Tensor:
    n_actions = policy.shape[-1]
    pairs = (rollouts.states[..., :-1] * n_actions + rollouts.actions).flatten(1)
    counts = th.zeros_like(policy).flatten(1)
    return counts.scatter_add_(1, pairs, th.ones_like(pairs, dtype=policy.dtype)).view_as(policy)


def _check_start(rollouts: Rollouts, counts: Tensor) -> None:
    for state in rollouts.states[..., 0].unique().tolist():
        starts_here = (rollouts.states[..., 0] == state).any(-1)
        never = starts_here[:, None] & (counts[:, state] == 0)
        if bool(never.any()):
            task, action = th.nonzero(never)[0].tolist()
            raise ValueError(
                f"in task {task} no episode played action {action} in state {state}, where "
                "episodes start, so adaptation would rest on its initial value: collect more "
                "episodes, or start from a less deterministic policy"
            )


def _expected_sarsa(
    rollouts: Rollouts, policy: Tensor, discount: Tensor, step_size: float, initial: float | Tensor
) -> Tensor:
    states, actions, rewards = (tensor.cpu().numpy() for tensor in rollouts)
    pi, gamma = policy.cpu().numpy(), discount.cpu().numpy()
    q = th.as_tensor(initial, dtype=policy.dtype).expand(policy.shape).cpu().numpy().copy()
    rows = np.arange(len(pi))
    # Each update needs the one before: a loop over steps, but all tasks at once.
    for episode, step in np.ndindex(actions.shape[1:]):
        state, following = states[:, episode, step], states[:, episode, step + 1]
        action = actions[:, episode, step]
        expected = (pi[rows, following] * q[rows, following]).sum(-1)
        target = rewards[:, episode, step] + gamma * expected
        q[rows, state, action] += step_size * (target - q[rows, state, action])
    return th.as_tensor(q, device=policy.device)


def sampled_problem(
    logits: Float[Tensor, "*task state action"],
    seen: SampledEvaluation,
    lam: float | Float[Tensor, " task"],
) -> LowerLevel:
    """The lower level with Q and nu from episodes of pi_phi.

    :param logits: phi, (S, A) or (M, S, A)
    :param seen: what the episodes say
    :param lam: lambda, one number or (M,)
    """
    logits = logits.expand_as(seen.policy)
    weights = th.as_tensor(lam, dtype=logits.dtype, device=logits.device).expand(len(logits))
    return LowerLevel(logits, seen.action_values, seen.occupancy, weights)


def sampled_hypergradients(
    problem: LowerLevel,
    adapted: Adapted,
    rollouts: Rollouts,
    seen: SampledEvaluation,
    seen_after: SampledEvaluation,
    *,
    distance: Distance,
    discount: Float[Tensor, " task"],
) -> SampledHypergradients:
    """The closed-form hypergradient with every expectation taken over episodes. Our derivation.

    :param problem: the lower level, from `seen`
    :param adapted: its solution
    :param rollouts: episodes of pi_phi
    :param seen: what they say
    :param seen_after: what episodes of pi' say
    :param distance: D
    :param discount: gamma, (M,)
    """
    scale = seen_after.occupancy / (1.0 - discount)[:, None]
    upper = scale[..., None] * centred(seen_after.policy, seen_after.action_values)
    pullback = distance.pullback(problem, adapted.logits, upper)
    through_q, skipped = sampled_action_values_vjp(
        rollouts, seen, seen.advantages, discount, pullback.action_values
    )
    gradients = pullback.logits + through_q
    if pullback.occupancy is not None:
        gradients = gradients + sampled_occupancy_vjp(
            rollouts, seen.policy, discount, pullback.occupancy
        )
    return SampledHypergradients(gradients, skipped, seen.coverage)


def sampled_action_values_vjp(
    rollouts: Rollouts,
    seen: SampledEvaluation,
    advantages: Float[Tensor, "task state action"],
    discount: Float[Tensor, " task"],
    cotangent: Float[Tensor, "task state action"],
) -> tuple[Float[Tensor, "task state action"], Float[Tensor, " task"]]:
    """`(dQ/dphi)^T c` from episodes of pi_phi, (M, S, A), and the mass that was skipped, (M,).

    A step of weight `w_t = c / (nu pi)` starts a policy gradient of what comes after it:
    `e_t = gamma (e_(t-1) + gamma^(t-1) w_(t-1))` gathers those so far, and `e_t A_t grad log pi` is
    averaged. Pairs that were never played have no weight: their share of |c| is reported.

    :param rollouts: episodes of pi_phi
    :param seen: what they say
    :param advantages: of pi_phi, (M, S, A)
    :param discount: gamma, (M,)
    :param cotangent: c, (M, S, A)
    """
    is_seen = seen.counts > 0
    chance = seen.occupancy[..., None] * seen.policy
    weights = th.where(is_seen, cotangent / th.where(is_seen, chance, 1.0), 0.0)
    decay = discount[:, None] ** th.arange(rollouts.actions.shape[-1], device=weights.device)
    per_step = _at(weights, rollouts)
    traces = decay[:, None] * (per_step.cumsum(-1) - per_step)
    size = cotangent.abs()
    total = size.sum((-2, -1)).clamp(min=th.finfo(size.dtype).tiny)
    skipped = th.where(is_seen, 0.0, size).sum((-2, -1)) / total
    scores = traces * _at(advantages, rollouts)
    return _mean_score(rollouts, seen.policy, scores, decay), skipped


def sampled_occupancy_vjp(
    rollouts: Rollouts,
    policy: Float[Tensor, "task state action"],
    discount: Float[Tensor, " task"],
    cotangent: Float[Tensor, "task state"],
) -> Float[Tensor, "task state action"]:
    """`(dnu/dphi)^T c` from episodes of pi_phi, (M, S, A): a policy gradient with reward c(s).

    :param rollouts: episodes of pi_phi
    :param policy: its action probabilities, (M, S, A)
    :param discount: gamma, (M,)
    :param cotangent: c, (M, S)
    """
    n_steps = rollouts.actions.shape[-1]
    decay = discount[:, None] ** th.arange(n_steps, device=policy.device)
    # A constant in c changes nothing, and the mean leaves less noise.
    c = cotangent - cotangent.mean(-1, keepdim=True)
    states = rollouts.states[..., :-1]
    rewards = decay[:, None] * c.gather(1, states.flatten(1)).view_as(states)
    later = rewards.flip(-1).cumsum(-1).flip(-1) - rewards
    return _mean_score(rollouts, policy, later, decay)


def _at(table: Tensor, rollouts: Rollouts) -> Tensor:
    """Entries of (M, S, A) at the pairs that were played, (M, E, T)."""
    rows = th.arange(len(table), device=table.device)[:, None, None]
    return table[rows, rollouts.states[..., :-1], rollouts.actions]


def _mean_score(rollouts: Rollouts, policy: Tensor, weights: Tensor, decay: Tensor) -> Tensor:
    """Mean over episodes of `sum_t x_t grad log pi(a_t | s_t) / sum_t gamma^t`, (M, S, A)."""
    n_actions = policy.shape[-1]
    pairs = (rollouts.states[..., :-1] * n_actions + rollouts.actions).flatten(1)
    sums = th.zeros_like(policy).flatten(1).scatter_add_(1, pairs, weights.flatten(1))
    sums = sums.view_as(policy)
    norm = decay.sum(-1) * rollouts.actions.shape[1]
    return (sums - policy * sums.sum(-1, keepdim=True)) / norm[:, None, None]
