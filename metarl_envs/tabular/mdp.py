"""Finite Markov decision processes and their exact solution, batched over tasks, in float64.

Shapes: `...` any leading batch axes (tasks), S states, A actions, H stages. With `horizon=None`
everything is stationary; with a horizon, values, policies and occupancies have a stage axis H right
before S.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.core import FloatArray

_PROBABILITY_TOLERANCE = 1e-8
_MAX_POLICY_ITERATIONS = 1_000


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """A finite MDP, or a batch of them; the arrays are read-only float64 with the same leading
    batch axes.

    :param transitions: P(s' | s, a), (..., S, A, S)
    :param rewards: expected rewards, (..., S, A)
    :param initial: distribution of the first state, (..., S)
    :param discount: gamma, in [0, 1]
    :param horizon: H, the number of steps of an episode; `None`: it never ends, and `discount` must
        be below 1 to solve it
    """

    transitions: FloatArray
    rewards: FloatArray
    initial: FloatArray
    discount: float = 1.0
    horizon: int | None = None

    def __post_init__(self) -> None:
        transitions, rewards, initial = _checked_shapes(
            self.transitions, self.rewards, self.initial
        )
        _check_distribution("transitions", transitions)
        _check_distribution("initial", initial)
        if not np.all(np.isfinite(rewards)):
            raise ValueError("rewards must be finite")
        if not isinstance(self.discount, Real):
            raise TypeError(f"discount={self.discount!r} must be one number in [0, 1]")
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount={self.discount!r} must lie in [0, 1]")
        if self.horizon is not None and (
            isinstance(self.horizon, bool)
            or not isinstance(self.horizon, Integral)
            or self.horizon < 1
        ):
            raise ValueError(f"horizon={self.horizon!r} must be None or an integer of at least 1")
        for name, array in (
            ("transitions", transitions),
            ("rewards", rewards),
            ("initial", initial),
        ):
            object.__setattr__(self, name, array)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Unpickled arrays are writeable.
        self.__dict__.update(state)
        for name in ("transitions", "rewards", "initial"):
            getattr(self, name).flags.writeable = False

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes; () for a single MDP."""
        return self.initial.shape[:-1]

    @property
    def n_states(self) -> int:
        """S."""
        return self.rewards.shape[-2]

    @property
    def n_actions(self) -> int:
        """A."""
        return self.rewards.shape[-1]


def optimal_values(mdp: FiniteMDP) -> FloatArray:
    """Values of the best policy: (..., S) without a horizon, (..., H, S) with one (stage 0 first).

    Finite horizon: backward induction. Discounted: policy iteration with linear solves, to a
    Bellman residual of at most 1e-10 (relative to the values where they exceed 1).
    """
    _require_solvable(mdp)
    if mdp.horizon is None:
        return _policy_iteration(mdp)
    return _backward(mdp, lambda stage, action_values: action_values.max(axis=-1))


def policy_values(mdp: FiniteMDP, policy: ArrayLike) -> FloatArray:
    """Values of a policy: (..., S) without a horizon, (..., H, S) with one.

    :param mdp: the MDP(s)
    :param policy: action probabilities. (S, A) is stationary and shared by all tasks. Without a
        horizon (..., S, A) has the batch axes of the MDP, or more. With one, the number of axes
        tells: as many as `mdp.rewards` has, (..., S, A), is stationary; more, (..., H, S, A) or
        (..., 1, S, A), is staged. So (H, S, A) is staged for a single MDP and refused for a batch
        of tasks: (1, H, S, A) is the staged policy that they share
    """
    _require_solvable(mdp)
    checked = _checked_policy(mdp, policy)
    if mdp.horizon is None:
        return _solve_policy(mdp, checked)
    return _backward(
        mdp, lambda stage, q: np.einsum("...sa,...sa->...s", checked[..., stage, :, :], q)
    )


def action_values(mdp: FiniteMDP, values: ArrayLike) -> FloatArray:
    """One Bellman backup: `Q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) V(s')`.

    :param mdp: the MDP(s)
    :param values: (..., S); with a horizon (..., H, S), where stage h looks ahead to h + 1 and the
        last one to nothing
    :return: (..., S, A), with a horizon (..., H, S, A)
    """
    array = _checked_values(mdp, values)
    if mdp.horizon is None:
        return mdp.rewards + mdp.discount * _expect_next(mdp, array)
    following = np.concatenate([array[..., 1:, :], np.zeros_like(array[..., :1, :])], axis=-2)
    stages = [
        mdp.rewards + mdp.discount * _expect_next(mdp, following[..., h, :])
        for h in range(mdp.horizon)
    ]
    return np.stack(stages, axis=-3)


def occupancy(mdp: FiniteMDP, policy: ArrayLike) -> FloatArray:
    """How often a policy, started from `mdp.initial`, visits each state-action pair.

    Finite horizon: the probability of (s, a) at each stage, (..., H, S, A), each stage summing to 1
    (not discounted), so the return is `sum_h gamma^h <occupancy_h, rewards>`. Discounted: `(1 -
    gamma) sum_t gamma^t Pr(s_t = s, a_t = a)`, (..., S, A), summing to 1, so the return is
    `<occupancy, rewards> / (1 - gamma)`. Sum over the last axis for states.

    :param mdp: the MDP(s)
    :param policy: as in `policy_values`
    """
    _require_solvable(mdp)
    checked = _checked_policy(mdp, policy)
    if mdp.horizon is None:
        kernel, _ = _under_policy(mdp, checked)
        system = np.eye(mdp.n_states) - mdp.discount * np.swapaxes(kernel, -1, -2)
        states = np.linalg.solve(system, (1.0 - mdp.discount) * mdp.initial[..., None])[..., 0]
        return states[..., None] * checked
    visits, states = [], np.broadcast_to(mdp.initial, (*checked.shape[:-3], mdp.n_states))
    for stage in range(mdp.horizon):
        visits.append(states[..., None] * checked[..., stage, :, :])
        states = np.einsum("...sa,...sax->...x", visits[-1], mdp.transitions)
    return np.stack(visits, axis=-3)


def _checked_shapes(
    transitions: ArrayLike, rewards: ArrayLike, initial: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    p, r, rho = (np.array(array, dtype=np.float64) for array in (transitions, rewards, initial))
    if p.ndim < 3 or r.ndim < 2 or rho.ndim < 1:
        raise ValueError(
            f"transitions {p.shape}, rewards {r.shape} and initial {rho.shape} must have shapes "
            "(..., S, A, S), (..., S, A) and (..., S)"
        )
    s, a = r.shape[-2:]
    if p.shape[-3:] != (s, a, s) or rho.shape[-1] != s or not s or not a:
        raise ValueError(
            f"transitions {p.shape}, rewards {r.shape} and initial {rho.shape} disagree: they must "
            "be (..., S, A, S), (..., S, A) and (..., S)"
        )
    try:
        batch = np.broadcast_shapes(p.shape[:-3], r.shape[:-2], rho.shape[:-1])
    except ValueError as error:
        raise ValueError(
            f"the batch axes of {p.shape}, {r.shape} and {rho.shape} do not broadcast"
        ) from error
    full = [
        np.broadcast_to(x, (*batch, *x.shape[x.ndim - core :]))
        for x, core in ((p, 3), (r, 2), (rho, 1))
    ]
    return full[0], full[1], full[2]


def _check_distribution(name: str, array: FloatArray) -> None:
    if not (
        np.all(array >= 0) and np.all(np.abs(array.sum(axis=-1) - 1.0) <= _PROBABILITY_TOLERANCE)
    ):
        raise ValueError(
            f"{name} must be finite, non-negative and sum to 1 (to {_PROBABILITY_TOLERANCE:g}) "
            "over the last axis: normalise it in float64"
        )


def _require_solvable(mdp: FiniteMDP) -> None:
    if mdp.horizon is None and mdp.discount >= 1.0:
        raise ValueError(
            "horizon=None with discount=1.0 has no finite values: give a horizon, "
            "or a discount below 1"
        )


def _checked_policy(mdp: FiniteMDP, policy: ArrayLike) -> FloatArray:
    """The policy with the batch axes of the MDP, (..., S, A) or with a horizon (..., H, S, A)."""
    array = np.asarray(policy, dtype=np.float64)
    core: tuple[int, ...] = (mdp.n_states, mdp.n_actions)
    if array.shape[-2:] != core:
        raise ValueError(f"policy has shape {array.shape}, but must end in (S, A) = {core}")
    _check_distribution("policy", array)
    shape = array.shape
    if mdp.horizon is not None:
        if not _is_staged(mdp, array.shape[:-2]):
            array = array[..., None, :, :]
        core = (mdp.horizon, *core)
        if array.shape[-3] not in (1, mdp.horizon):
            raise ValueError(
                f"policy has shape {shape}, but must end in (H, S, A) = {core}, or in "
                "(1, S, A) to be the same at every stage"
            )
    batch = _joint_batch(mdp, "policy", shape, array.shape[: -len(core)])
    return np.broadcast_to(array, (*batch, *core))


def _is_staged(mdp: FiniteMDP, leading: tuple[int, ...]) -> bool:
    """Whether the last leading axis of a policy is the stage: it has more of them than the MDP."""
    n_axes = len(mdp.batch_shape)
    if len(leading) > n_axes:
        return True
    if leading and leading[-1] == mdp.horizon and set(leading) != {1}:
        shape = (*leading, mdp.n_states, mdp.n_actions)
        raise ValueError(
            f"policy of shape {shape} is ambiguous for MDPs with batch axes {mdp.batch_shape} and "
            f"horizon {mdp.horizon}: write policy[None] (1,H,S,A) for a staged policy shared by "
            "all tasks, or (M,1,S,A), policy[:, None], for one stationary policy per task"
        )
    return False


def _joint_batch(
    mdp: FiniteMDP, name: str, shape: tuple[int, ...], leading: tuple[int, ...]
) -> tuple[int, ...]:
    """Batch axes of the MDP and the leading axes of an array, together."""
    try:
        return np.broadcast_shapes(mdp.batch_shape, leading)
    except ValueError as error:
        raise ValueError(
            f"{name} of shape {shape} does not fit MDPs with batch axes {mdp.batch_shape} "
            f"(rewards {mdp.rewards.shape}): give one per MDP, or axes of length 1"
        ) from error


def _checked_values(mdp: FiniteMDP, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    core = (mdp.n_states,) if mdp.horizon is None else (mdp.horizon, mdp.n_states)
    if array.shape[-len(core) :] != core:
        letters = "(S,)" if mdp.horizon is None else "(H, S)"
        raise ValueError(f"values has shape {array.shape}, but must end in {letters} = {core}")
    _joint_batch(mdp, "values", array.shape, array.shape[: -len(core)])
    return array


def _expect_next(mdp: FiniteMDP, values: FloatArray) -> FloatArray:
    """`sum_s' P(s' | s, a) V(s')`, (..., S, A)."""
    return np.asarray(np.matmul(mdp.transitions, values[..., None, :, None])[..., 0])


def _under_policy(mdp: FiniteMDP, policy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """State kernel (..., S, S) and expected rewards (..., S) of a stationary policy."""
    kernel = np.einsum("...sa,...sax->...sx", policy, mdp.transitions)
    return kernel, np.einsum("...sa,...sa->...s", policy, mdp.rewards)


def _solve_policy(mdp: FiniteMDP, policy: FloatArray) -> FloatArray:
    kernel, rewards = _under_policy(mdp, policy)
    system = np.eye(mdp.n_states) - mdp.discount * kernel
    values = np.linalg.solve(system, rewards[..., None])
    # One step of iterative refinement keeps the residual at rounding level for discounts near 1.
    values = values + np.linalg.solve(system, rewards[..., None] - system @ values)
    return np.asarray(values[..., 0])


def _policy_iteration(mdp: FiniteMDP) -> FloatArray:
    actions = np.argmax(mdp.rewards, axis=-1)
    for _ in range(_MAX_POLICY_ITERATIONS):
        values = _solve_policy(mdp, np.eye(mdp.n_actions)[actions])
        q = action_values(mdp, values)
        # Only a gain beyond rounding counts, or equally good actions would alternate for ever.
        gain = q.max(axis=-1) - np.take_along_axis(q, actions[..., None], axis=-1)[..., 0]
        better = gain > 1e-12 * np.maximum(1.0, np.abs(values).max(axis=-1, keepdims=True))
        if not better.any():
            return values
        actions = np.where(better, np.argmax(q, axis=-1), actions)
    raise RuntimeError(
        f"policy iteration did not settle within {_MAX_POLICY_ITERATIONS} iterations"
    )


def _backward(mdp: FiniteMDP, choose: Callable[[int, FloatArray], FloatArray]) -> FloatArray:
    assert mdp.horizon is not None
    values = np.zeros(mdp.n_states)
    stages = []
    for stage in reversed(range(mdp.horizon)):
        values = choose(stage, mdp.rewards + mdp.discount * _expect_next(mdp, values))
        stages.append(values)
    return np.stack(stages[::-1], axis=-2)
