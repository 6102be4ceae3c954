"""Adaptation by exact policy-gradient steps, the comparator of BO-MRL: MAML without sampling.

The step is `theta' = theta + alpha grad J(theta)`, the expectation of the inner step of MAML (Finn,
Abbeel & Levine 2017, https://arxiv.org/abs/1703.03400) over infinitely many episodes. With
exact expectations the credit that E-MAML (Stadie et al. 2018, https://arxiv.org/abs/1803.01118)
gives to the episodes before adaptation is part of the derivative of that step: its meta-gradient is
that of exact MAML, and the naive one lacks it.

Shapes: M tasks, S states, A actions.
"""

from typing import Literal, NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.exact import (
    Evaluation,
    TabularTasks,
    action_values_vjp,
    centred,
    evaluate,
    occupancy_vjp,
    return_gradient,
)

UnrollMode = Literal["exact", "naive", "first_order"]
UNROLL_MODES: tuple[UnrollMode, ...] = ("exact", "naive", "first_order")


class TaskGradients(NamedTuple):
    """What M tasks say about a meta-policy.

    :param gradients: of each task's objective in the logits, (M, S, A)
    :param returns: the objective, the return after adaptation, (M,)
    """

    gradients: Float[Tensor, "task state action"]
    returns: Float[Tensor, " task"]


def multi_task_gradients(
    tasks: TabularTasks, logits: Float[Tensor, "*task state action"]
) -> TaskGradients:
    """Of the return without adaptation: pre-training on all tasks at once.

    :param tasks: M tasks
    :param logits: (S, A) or (M, S, A)
    """
    at = evaluate(tasks, logits.softmax(-1))
    return TaskGradients(return_gradient(tasks, at), at.returns)


def gradient_steps(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    inner_lr: float | Float[Tensor, " task"],
    *,
    n_steps: int,
) -> list[Float[Tensor, "task state action"]]:
    """Logits after 0, 1, ..., k steps along the exact gradient, k + 1 tensors (M, S, A).

    :param tasks: M tasks
    :param logits: (S, A) or (M, S, A)
    :param inner_lr: alpha, on the gradient of the return; one number or (M,)
    :param n_steps: k
    """
    steps, alpha = [logits.expand_as(tasks.rewards)], _step_size(tasks, inner_lr)
    for _ in range(n_steps):
        at = evaluate(tasks, steps[-1].softmax(-1))
        steps.append(steps[-1] + alpha * return_gradient(tasks, at))
    return steps


def maml_gradients(
    tasks: TabularTasks,
    logits: Float[Tensor, "*task state action"],
    inner_lr: float | Float[Tensor, " task"],
    *,
    n_steps: int = 1,
    mode: UnrollMode = "exact",
) -> TaskGradients:
    """Of the return after k gradient steps, differentiated through them.

    The step is `alpha nu pi (Q - V) / (1 - gamma)`. `"exact"` differentiates all of it (by exact
    Hessian products, which is E-MAML, too), `"naive"` takes nu and the advantages for constants and
    differentiates pi, `"first_order"` takes the derivative of the step for 0.

    :param tasks: M tasks
    :param logits: (S, A) or (M, S, A)
    :param inner_lr: alpha, on the gradient of the return; one number or (M,)
    :param n_steps: k
    :param mode: how to differentiate
    """
    theta, alpha = logits.expand_as(tasks.rewards), _step_size(tasks, inner_lr)
    passed: list[Evaluation] = []
    for _ in range(n_steps):
        passed.append(evaluate(tasks, theta.softmax(-1)))
        theta = theta + alpha * return_gradient(tasks, passed[-1])
    after = evaluate(tasks, theta.softmax(-1))
    gradient = return_gradient(tasks, after)
    for at in reversed(passed):
        if mode == "exact":
            gradient = gradient + alpha * hessian_product(tasks, at, gradient)
        elif mode == "naive":
            gradient = gradient + alpha * _naive_product(tasks, at, gradient)
    return TaskGradients(gradient, after.returns)


def hessian_product(
    tasks: TabularTasks, at: Evaluation, vector: Float[Tensor, "task state action"]
) -> Float[Tensor, "task state action"]:
    """The Hessian of the return in the logits, times a vector, (M, S, A).

    The derivative of `nu pi (Q - <pi, Q>) / (1 - gamma)` through pi, Q and nu in turn. Our
    derivation.

    :param tasks: M tasks
    :param at: the policy, evaluated
    :param vector: (M, S, A)
    """
    pi, scale = at.policy, _scale(tasks, at)
    slope = pi * at.advantages
    shifted = vector - (pi * vector).sum(-1, keepdim=True)
    along = (slope * vector).sum(-1, keepdim=True)
    through_pi = scale * (pi * shifted * at.advantages - pi * along)
    through_q = action_values_vjp(tasks, at, scale * centred(pi, vector))
    per_visit = along[..., 0] / (1.0 - tasks.discount)[:, None]
    return through_pi + through_q + occupancy_vjp(tasks, at, per_visit)


def _naive_product(tasks: TabularTasks, at: Evaluation, vector: Tensor) -> Tensor:
    """The same with constant nu and A."""
    return _scale(tasks, at) * centred(at.policy, at.advantages * vector)


def _scale(tasks: TabularTasks, at: Evaluation) -> Tensor:
    return (at.occupancy / (1.0 - tasks.discount)[:, None])[..., None]


def _step_size(tasks: TabularTasks, inner_lr: float | Tensor) -> Tensor:
    like = tasks.discount
    return th.as_tensor(inner_lr, dtype=like.dtype, device=like.device).expand_as(like)[
        :, None, None
    ]
