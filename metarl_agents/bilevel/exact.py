"""Exact evaluation of policies in discounted finite MDPs, batched over tasks, and its derivatives.

Shapes: M tasks, S states, A actions. Everything is float64, pure, and runs on the device of its
inputs; `evaluate` can be differentiated by autograd, and the products with its Jacobians that
training needs stand here in closed form.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

_MAX_POLICY_ITERATIONS = 1_000
# Relative to the values: a smaller gain may be rounding.
_LEAST_GAIN = 1e-12


class TabularTasks(NamedTuple):
    """M discounted MDPs with the same states and actions.

    :param transitions: P(s' | s, a), (M, S, A, S)
    :param rewards: expected rewards, (M, S, A)
    :param initial: distribution of the first state, (M, S)
    :param discount: gamma of each task, (M,)
    """

    transitions: Float[Tensor, "task state action state"]
    rewards: Float[Tensor, "task state action"]
    initial: Float[Tensor, "task state"]
    discount: Float[Tensor, " task"]

    @property
    def n_tasks(self) -> int:
        """M."""
        return len(self.discount)

    def subset(self, indices: Tensor | Sequence[int] | slice) -> "TabularTasks":
        """Some of the tasks, such as a mini-batch.

        :param indices: which of the M tasks
        """
        if not isinstance(indices, slice):
            indices = th.as_tensor(indices, device=self.discount.device)
        return TabularTasks(*(tensor[indices] for tensor in tuple(self)))


class Evaluation(NamedTuple):
    """A policy in each of M tasks, evaluated.

    :param policy: action probabilities, (M, S, A)
    :param values: V, (M, S)
    :param action_values: Q, (M, S, A)
    :param advantages: Q - V, (M, S, A)
    :param occupancy: nu, `(1 - gamma) sum_t gamma^t Pr(s_t = s)`, (M, S); each task sums to 1
    :param returns: expected discounted return J from the first state, (M,)
    :param factors: LU factors and pivots of `I - gamma P_pi`, (M, S, S) and (M, S)
    """

    policy: Float[Tensor, "task state action"]
    values: Float[Tensor, "task state"]
    action_values: Float[Tensor, "task state action"]
    advantages: Float[Tensor, "task state action"]
    occupancy: Float[Tensor, "task state"]
    returns: Float[Tensor, " task"]
    factors: tuple[Tensor, Tensor]


def evaluate(tasks: TabularTasks, policy: Float[Tensor, "*task state action"]) -> Evaluation:
    """Values, occupancy and return of a policy, from one factorisation of `I - gamma P_pi`.

    :param tasks: M tasks
    :param policy: action probabilities, one policy per task (M, S, A) or one for all (S, A)
    """
    policy = policy.expand_as(tasks.rewards)
    gamma = tasks.discount[:, None]
    factors, pivots = th.linalg.lu_factor(_system(tasks, policy))
    rewards = (policy * tasks.rewards).sum(-1)
    values = th.linalg.lu_solve(factors, pivots, rewards[..., None])[..., 0]
    q = tasks.rewards + gamma[..., None] * expected_next(tasks, values)
    start = ((1.0 - gamma) * tasks.initial)[..., None]
    occupancy = th.linalg.lu_solve(factors, pivots, start, adjoint=True)[..., 0]
    return Evaluation(
        policy=policy,
        values=values,
        action_values=q,
        advantages=_advantages(policy, q),
        occupancy=occupancy.clamp(min=0.0),  # rounding may make zeros negative
        returns=(tasks.initial * values).sum(-1),
        factors=(factors, pivots),
    )


def _advantages(policy: Tensor, q: Tensor) -> Tensor:
    """`Q - <pi, Q>`, (M, S, A); near a greedy policy that keeps digits which `Q - V` loses."""
    below = q - q.detach().amax(-1, keepdim=True)
    return below - (policy * below).sum(-1, keepdim=True)


def _system(tasks: TabularTasks, policy: Tensor) -> Tensor:
    """`I - gamma P_pi`, (M, S, S); action by action and in place, as fresh memory costs most."""
    weights = -tasks.discount[:, None, None] * policy
    system = weights[..., 0, None] * tasks.transitions[:, :, 0]
    for action in range(1, policy.shape[-1]):
        system.addcmul_(weights[..., action, None], tasks.transitions[:, :, action])
    system.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return system


def expected_next(
    tasks: TabularTasks, values: Float[Tensor, "task state"]
) -> Float[Tensor, "task state action"]:
    """`sum_s' P(s' | s, a) V(s')`, (M, S, A).

    :param tasks: M tasks
    :param values: (M, S)
    """
    m, s, a = tasks.rewards.shape
    # A row times the transpose takes a third of the time of the matrix times a column.
    return (values[:, None] @ tasks.transitions.reshape(m, s * a, s).mT).reshape(m, s, a)


def pushed(
    tasks: TabularTasks, weights: Float[Tensor, "task state action"]
) -> Float[Tensor, "task state"]:
    """`sum_sa w(s, a) P(s' | s, a)`, (M, S): the transpose of `expected_next`.

    :param tasks: M tasks
    :param weights: (M, S, A)
    """
    m, s, a = tasks.rewards.shape
    flat = weights.reshape(m, 1, s * a)
    return (flat @ tasks.transitions.reshape(m, s * a, s))[:, 0]


def return_gradient(tasks: TabularTasks, at: Evaluation) -> Float[Tensor, "task state action"]:
    """The gradient of the return in the logits of a softmax policy, (M, S, A).

    `dJ/dtheta(s, a) = nu(s) pi(a|s) A(s, a) / (1 - gamma)`, the policy gradient theorem (Sutton,
    McAllester, Singh & Mansour 2000).

    :param tasks: M tasks
    :param at: a policy evaluated in them
    """
    scale = at.occupancy / (1.0 - tasks.discount)[:, None]
    return scale[..., None] * at.policy * at.advantages


def action_values_vjp(
    tasks: TabularTasks, at: Evaluation, cotangent: Float[Tensor, "task state action"]
) -> Float[Tensor, "task state action"]:
    """`(dQ/dphi)^T c` for the logits phi of a softmax policy, (M, S, A).

    With `w = (I - gamma P_pi^T)^-1 gamma sum_sa P(. | s, a) c(s, a)` it is `w(s) pi(a|s) A(s, a)`:
    the policy gradient theorem with c in place of the first state and action. Our derivation.

    :param tasks: M tasks
    :param at: the policy with logits phi, evaluated in them
    :param cotangent: c, (M, S, A)
    """
    reached = tasks.discount[:, None] * pushed(tasks, cotangent)
    weights = th.linalg.lu_solve(*at.factors, reached[..., None], adjoint=True)
    return weights * at.policy * at.advantages


def occupancy_vjp(
    tasks: TabularTasks, at: Evaluation, cotangent: Float[Tensor, "task state"]
) -> Float[Tensor, "task state action"]:
    """`(dnu/dphi)^T c` for the logits phi of a softmax policy, (M, S, A).

    The policy gradient of an MDP whose reward is c(s): with `y = (I - gamma P_pi)^-1 c` and
    `k(s, a) = gamma nu(s) sum_s' P(s' | s, a) y(s')` it is `pi (k - <pi, k>)`. Our derivation.

    :param tasks: M tasks
    :param at: the policy with logits phi, evaluated in them
    :param cotangent: c, (M, S)
    """
    y = th.linalg.lu_solve(*at.factors, cotangent[..., None])[..., 0]
    k = (tasks.discount[:, None] * at.occupancy)[..., None] * expected_next(tasks, y)
    return centred(at.policy, k)


def centred(
    policy: Float[Tensor, "*batch action"], x: Float[Tensor, "*batch action"]
) -> Float[Tensor, "*batch action"]:
    """`pi (x - <pi, x>)`: the Jacobian of softmax, which is symmetric, times x; (..., A).

    :param policy: action probabilities, (..., A)
    :param x: (..., A)
    """
    return policy * (x - (policy * x).sum(-1, keepdim=True))


def optimal_action_values(tasks: TabularTasks) -> Float[Tensor, "task state action"]:
    """Q of the best policy of each task, (M, S, A), by policy iteration for all tasks at once.

    :param tasks: M tasks
    """
    q, n_actions = tasks.rewards, tasks.rewards.shape[-1]
    actions = q.argmax(-1)
    totals = th.full_like(tasks.discount, -th.inf)
    for _ in range(_MAX_POLICY_ITERATIONS):
        greedy = th.nn.functional.one_hot(actions, n_actions).to(q.dtype)
        at = evaluate(tasks, greedy)
        q = at.action_values
        scale = at.values.abs().amax(-1, keepdim=True).clamp(min=1.0)
        is_better = at.advantages.amax(-1) > _LEAST_GAIN * scale
        # Policies that differ by rounding only could take turns for ever, but none of them rises.
        rises = at.values.sum(-1) > totals
        totals = at.values.sum(-1)
        is_better = is_better & rises[:, None]
        if not bool(is_better.any()):
            return q
        actions = th.where(is_better, q.argmax(-1), actions)
    raise RuntimeError(
        f"policy iteration did not settle within {_MAX_POLICY_ITERATIONS} iterations: a discount "
        f"of {float(tasks.discount.max())} may be too close to 1 for float64"
    )
