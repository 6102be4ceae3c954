"""Meta-training in tabular tasks: one loop for BO-MRL and all that it is compared with.

Shapes: M tasks, B tasks of a mini-batch, G settings trained side by side, S states, A actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th
from jaxtyping import Float, Int
from torch import Tensor

from metarl_agents.bilevel.exact import TabularTasks
from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.lower_level import Distance
from metarl_agents.bilevel.policy_gradient import TaskGradients
from metarl_agents.bilevel.settings import HypergradientSettings
from metarl_agents.common.adam import adam_step, initial_adam_state

GradientsOf = Callable[[TabularTasks, Tensor, Tensor], TaskGradients]
"""`(tasks, logits, settings) -> gradients`: of N tasks, logits (N, S, A), numbers of settings (N,).
"""


LENIENT = HypergradientSettings(strict=False)


class MetaTraining(NamedTuple):
    """What was learned with each of G settings.

    :param logits: (G, S, A)
    :param returns: mean return after adaptation on the mini-batch, by iteration, (n, G)
    :param squared_norms: of the gradient that was followed, by iteration, (n, G)
    """

    logits: Float[Tensor, "setting state action"]
    returns: Float[Tensor, "iteration setting"]
    squared_norms: Float[Tensor, "iteration setting"]


def meta_trained(
    tasks: TabularTasks,
    gradients_of: GradientsOf,
    *,
    n_settings: int,
    n_iterations: int,
    meta_batch_size: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> MetaTraining:
    """Ascend from the uniform policy with Adam, in every setting on the same mini-batches.

    :param tasks: M tasks, of which each iteration draws B without replacement
    :param gradients_of: what to ascend
    :param n_settings: G
    :param n_iterations: n
    :param meta_batch_size: B
    :param learning_rate: of Adam
    :param rng: of the mini-batches
    """
    params = {"logits": tasks.rewards.new_zeros(n_settings, *tasks.rewards.shape[1:])}
    state = initial_adam_state(params)
    settings = th.arange(n_settings, device=tasks.rewards.device)
    returns, norms = [], []
    for _ in range(n_iterations):
        picked = rng.permutation(tasks.n_tasks)[:meta_batch_size]
        gradient, value = mean_gradients(
            tasks.subset(picked.tolist()), params["logits"], gradients_of, settings
        )
        returns.append(value)
        norms.append(gradient.square().sum((-2, -1)))
        params, state = adam_step(params, {"logits": -gradient}, state, learning_rate)
    none = tasks.rewards.new_zeros(0, n_settings)
    return MetaTraining(
        params["logits"],
        th.stack(returns) if returns else none,
        th.stack(norms) if norms else none,
    )


def mean_gradients(
    tasks: TabularTasks,
    logits: Float[Tensor, "setting state action"],
    gradients_of: GradientsOf,
    settings: Int[Tensor, " setting"],
) -> tuple[Float[Tensor, "setting state action"], Float[Tensor, " setting"]]:
    """Gradients, and returns after adaptation, of G settings: means over all tasks given.

    :param tasks: B tasks
    :param logits: one meta-policy for each setting
    :param gradients_of: what to differentiate
    :param settings: their numbers
    """
    n, g = tasks.n_tasks, len(logits)
    repeated = tasks.subset(th.arange(n, device=logits.device).repeat(g))
    found = gradients_of(
        repeated, logits.repeat_interleave(n, dim=0), settings.repeat_interleave(n)
    )
    return found.gradients.unflatten(0, (g, n)).mean(1), found.returns.unflatten(0, (g, n)).mean(1)


def bo_mrl_gradients(
    distance: Distance,
    lams: Float[Tensor, " setting"],
    *,
    how: HypergradientSettings = LENIENT,
) -> GradientsOf:
    """Hypergradients with a lambda for each setting; those that are not valid count as 0.

    :param distance: D
    :param lams: lambda, (G,)
    :param how: how to compute them
    """

    def gradients(tasks: TabularTasks, logits: Tensor, settings: Tensor) -> TaskGradients:
        found = task_hypergradients(
            tasks, logits, distance=distance, lam=lams[settings], settings=how
        )
        valid = th.where(found.is_valid[:, None, None], found.gradients, 0.0)
        return TaskGradients(valid, found.after.returns)

    return gradients
