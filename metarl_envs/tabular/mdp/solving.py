"""Values, policies' values and occupancies of finite MDPs, exact and batched over tasks.

Shapes: M all tasks, C the tasks of a chunk, S states, A actions, H stages.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarl_envs.core import FloatArray
from metarl_envs.tabular.mdp.backups import Backup, PerTask, backups
from metarl_envs.tabular.mdp.model import MDP
from metarl_envs.tabular.mdp.policies import check_policy, check_values

_MAX_POLICY_ITERATIONS = 1_000
# Relative to the values: a smaller gain may be rounding.
_LEAST_GAIN = 1e-12


def optimal_values(mdp: MDP) -> FloatArray:
    """Values of the best policy: (..., S) without a horizon, (..., H, S) with one (stage 0 first).

    Finite horizon: backward induction. Discounted: policy iteration with linear solves, to a
    Bellman residual of at most 1e-10 (relative to the values where they exceed 1) for discounts up
    to 0.99999; beyond, rounding in the linear solves may exceed it.

    :param mdp: the MDP(s)
    """
    _require_solvable(mdp)
    core = (mdp.n_states,) if mdp.horizon is None else (mdp.horizon, mdp.n_states)
    values = np.empty((math.prod(mdp.batch_shape), *core))
    for tasks, backup in backups(mdp, mdp.batch_shape):
        if mdp.horizon is None:
            values[tasks] = _policy_iteration(backup)
            continue
        for stage, best in _backward(backup, mdp.horizon, lambda stage, q: q.max(axis=-1)):
            values[tasks, stage] = best
    return values.reshape(*mdp.batch_shape, *core)


def policy_values(mdp: MDP, policy: ArrayLike) -> FloatArray:
    """Values of a policy: (..., S) without a horizon, (..., H, S) with one.

    :param mdp: the MDP(s)
    :param policy: action probabilities. (S, A) is stationary and shared by all tasks. Without a
        horizon (..., S, A) has the batch axes of the MDP, or more. With one, the number of axes
        tells: as many as `mdp.rewards` has, (..., S, A), is stationary; more, (..., H, S, A) or
        (..., 1, S, A), is staged. So (H, S, A) is staged for a single MDP and refused for a batch
        of tasks: (1, H, S, A) is the staged policy that they share
    """
    _require_solvable(mdp)
    checked = check_policy(mdp, policy)
    n_core = 2 if mdp.horizon is None else 3
    batch, core = checked.shape[:-n_core], checked.shape[-n_core:-1]
    per_task = PerTask(checked, batch, n_core)
    values = np.empty((math.prod(batch), *core))
    for tasks, backup in backups(mdp, batch):
        values[tasks] = _values_of_policy(backup, per_task[tasks])
    return values.reshape(*batch, *core)


def action_values(mdp: MDP, values: ArrayLike) -> FloatArray:
    """One Bellman backup: `Q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) V(s')`.

    :param mdp: the MDP(s)
    :param values: (..., S); with a horizon (..., H, S), where stage h looks ahead to h + 1 and the
        last one to nothing
    :return: (..., S, A), with a horizon (..., H, S, A)
    """
    checked = check_values(mdp, values)
    n_core = 1 if mdp.horizon is None else 2
    batch, core = checked.shape[:-n_core], checked.shape[-n_core:]
    per_task = PerTask(checked, batch, n_core)
    q = np.empty((math.prod(batch), *core, mdp.n_actions))
    for tasks, backup in backups(mdp, batch):
        following = per_task[tasks]
        if mdp.horizon is None:
            q[tasks] = backup.action_values(following)
            continue
        for stage in range(mdp.horizon - 1):
            q[tasks, stage] = backup.action_values(following[:, stage + 1])
        q[tasks, -1] = backup.rewards
    return q.reshape(*batch, *core, mdp.n_actions)


def occupancy(mdp: MDP, policy: ArrayLike) -> FloatArray:
    """How often a policy, started from `mdp.initial`, visits each state-action pair.

    Finite horizon: the probability of (s, a) at each stage, (..., H, S, A), each stage summing to 1
    (not discounted), so the return is `sum_h gamma^h <occupancy_h, rewards>`. Discounted: `(1 -
    gamma) sum_t gamma^t Pr(s_t = s, a_t = a)`, (..., S, A), summing to 1, so the return is
    `<occupancy, rewards> / (1 - gamma)`. Sum over the last axis for states.

    :param mdp: the MDP(s)
    :param policy: as in `policy_values`
    """
    _require_solvable(mdp)
    checked = check_policy(mdp, policy)
    n_core = 2 if mdp.horizon is None else 3
    batch, core = checked.shape[:-n_core], checked.shape[-n_core:]
    policies, initial = PerTask(checked, batch, n_core), PerTask(mdp.initial, batch, 1)
    visits = np.empty((math.prod(batch), *core))
    for tasks, backup in backups(mdp, batch, None if mdp.horizon is None else 1.0):
        visit = _discounted_visits if mdp.horizon is None else _staged_visits
        visits[tasks] = visit(backup, policies[tasks], initial[tasks])
    return visits.reshape(*batch, *core)


def _require_solvable(mdp: MDP) -> None:
    if mdp.horizon is None and mdp.discount >= 1.0:
        raise ValueError(
            "horizon=None with discount=1.0 has no finite values: give a horizon, "
            "or a discount below 1"
        )


def _policy_iteration(backup: Backup) -> FloatArray:
    """Optimal values, (C, S), without a horizon."""
    n_tasks, n_states, _ = backup.rewards.shape
    values = np.zeros((n_tasks, n_states))
    for _ in range(backup.n_sweeps):
        values = backup.action_values(values).max(axis=-1)
    actions = backup.action_values(values).argmax(axis=-1)
    unsettled, totals = np.arange(n_tasks), np.full(n_tasks, -np.inf)
    for _ in range(_MAX_POLICY_ITERATIONS):
        values[unsettled] = _values_of_actions(backup, unsettled, actions[unsettled])
        q = backup.action_values(values)
        is_better = _is_better(q, actions, values)
        # Policies that differ by rounding only could take turns for ever, but none of them rises.
        last, totals = totals, values.sum(axis=-1)
        unsettled = np.flatnonzero(is_better.any(axis=-1) & (totals > last))
        if not unsettled.size:
            return values
        actions = np.where(is_better, q.argmax(axis=-1), actions)
    raise RuntimeError(
        f"policy iteration did not settle within {_MAX_POLICY_ITERATIONS} iterations: "
        f"discount={backup.discount} may be too close to 1 for float64"
    )


def _is_better(q: FloatArray, actions: NDArray[np.intp], values: FloatArray) -> NDArray[np.bool_]:
    """Where some action is better than the present one beyond rounding, (C, S)."""
    gain = q.max(axis=-1) - np.take_along_axis(q, actions[..., None], axis=-1)[..., 0]
    return gain > _LEAST_GAIN * np.maximum(1.0, np.abs(values).max(axis=-1, keepdims=True))


def _values_of_actions(
    backup: Backup, tasks: NDArray[np.intp], actions: NDArray[np.intp]
) -> FloatArray:
    """Values, (N, S), of N of the tasks under one action in each state, (N, S)."""
    system = backup.system_of_actions(tasks, actions)
    rewards = backup.rewards[tasks[:, None], np.arange(actions.shape[-1]), actions]
    return np.asarray(np.linalg.solve(system, rewards[..., None])[..., 0])


def _values_of_policy(backup: Backup, policy: FloatArray) -> FloatArray:
    """Values of a policy: (C, S) for (C, S, A), and (C, H, S) for (C, H, S, A)."""
    if policy.ndim == 3:
        rewards = np.einsum("csa,csa->cs", policy, backup.rewards)
        system = backup.system_of_policy(policy)
        return np.linalg.solve(system, rewards[..., None])[..., 0]
    values = np.empty(policy.shape[:-1])
    horizon = policy.shape[1]

    def expect(stage: int, q: FloatArray) -> FloatArray:
        return np.einsum("csa,csa->cs", policy[:, stage], q)

    for stage, expected in _backward(backup, horizon, expect):
        values[:, stage] = expected
    return values


def _backward(
    backup: Backup, horizon: int, choose: Callable[[int, FloatArray], FloatArray]
) -> Iterator[tuple[int, FloatArray]]:
    """Each stage, last first, with its values (C, S): what `choose` makes of its action values."""
    values = choose(horizon - 1, backup.rewards)
    yield horizon - 1, values
    for stage in reversed(range(horizon - 1)):
        values = choose(stage, backup.action_values(values))
        yield stage, values


def _discounted_visits(backup: Backup, policy: FloatArray, initial: FloatArray) -> FloatArray:
    """(C, S, A)."""
    system = np.swapaxes(backup.system_of_policy(policy), -1, -2)
    states = np.linalg.solve(system, (1.0 - backup.discount) * initial[..., None])
    return states * policy


def _staged_visits(backup: Backup, policy: FloatArray, initial: FloatArray) -> FloatArray:
    """(C, H, S, A), with a look-ahead that does not discount."""
    visits = np.empty(policy.shape)
    states = initial
    for stage in range(policy.shape[1]):
        visits[:, stage] = states[..., None] * policy[:, stage]
        states = backup.push(visits[:, stage])
    return visits
