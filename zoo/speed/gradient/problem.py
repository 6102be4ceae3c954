"""The meta-batch that meta-gradients and products with the curvature are timed on.

Shapes: M tasks, C tasks of a chunk, E episodes, T steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.inner_loop import adapted_params
from metarl_agents.common.losses import episode_log_probs, likelihood_ratio_loss, mean_kl
from metarl_agents.common.meta_gradient import meta_gradient
from metarl_agents.common.policies import Params, PolicyNetwork, make_network
from metarl_agents.common.returns import WeightedEpisodes

N_TASKS, N_EPISODES, N_STEPS = 40, 20, 200
INNER_LR = 0.1

Batches = tuple[WeightedEpisodes, WeightedEpisodes]


class Problem(NamedTuple):
    """A meta-batch of the paper's size that nobody had to play."""

    network: PolicyNetwork
    params: Params
    data: Batches
    """inner and outer episodes, fields (M, E, T, ...)"""


def problem(device: str = "cpu", n_tasks: int = N_TASKS, n_steps: int = N_STEPS) -> Problem:
    """M tasks of E episodes: observations of 17 numbers, 6 actuators, two tanh layers of 64.

    :param device: where its tensors are
    :param n_tasks: M
    :param n_steps: T
    """
    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,))
    action_space = gym.spaces.Box(-1.0, 1.0, (6,))
    network = make_network("MlpPolicy", observation_space, action_space)
    rng = np.random.default_rng(0)
    params = network.initial_params(rng, device=device, dtype=th.float32)
    data = tuple(
        _episodes(network, params, rng, (n_tasks, N_EPISODES, n_steps), device) for _ in range(2)
    )
    return Problem(network, params, data)  # type: ignore[arg-type]


def task_loss(network: PolicyNetwork, params: Params, data: Batches) -> Tensor:
    """(C,), the surrogate of the return after one step that is differentiated through.

    :param network: the policy
    :param params: theta
    :param data: inner and outer episodes of C tasks
    """
    inner, outer = data
    adapted = adapted_params(network, params, [inner], inner_lr=INNER_LR)[-1]
    log_probs = episode_log_probs(network, adapted, outer)
    return likelihood_ratio_loss(log_probs, None, outer)


def differentiated(given: Problem, **arguments: Any) -> Callable[[], None]:
    """A run that takes the meta-gradient.

    :param given: the meta-batch
    :param arguments: of `meta_gradient`
    """
    loss = partial(task_loss, given.network)
    return lambda: dropped(meta_gradient(loss, given.params, given.data, **arguments))


def kept_backprop(given: Problem) -> Callable[[Params], Params]:
    """Products by backward passes through the gradient of the divergence, built once, per task.

    :param given: the meta-batch
    """
    inner, outer = given.data
    network, theta = given.network, given.params
    variables = {name: value.detach().requires_grad_() for name, value in theta.items()}
    gradients = []
    for task in range(len(inner.mask)):
        own_inner, own_outer = (_of_task(batch, task) for batch in (inner, outer))
        adapted = adapted_params(network, variables, [own_inner], inner_lr=INNER_LR)[-1]
        new = network.dist_params(adapted, own_outer.observations)
        divergence = mean_kl(network.distribution, new.detach(), new, own_outer.mask)
        gradients.append(th.autograd.grad(divergence, list(variables.values()), create_graph=True))

    def product(vector: Params) -> Params:
        total = {name: th.zeros_like(value) for name, value in theta.items()}
        for gradient in gradients:
            images = th.autograd.grad(
                gradient, list(variables.values()), list(vector.values()), retain_graph=True
            )
            for name, image in zip(total, images, strict=True):
                total[name] += image / len(gradients)
        return total

    return product


def multiplied(product: Callable[[Params], Params], vector: Params) -> None:
    """Takes one product and lets it go.

    :param product: with the curvature
    :param vector: what it is taken with
    """
    product(vector)


def dropped(result: Any) -> None:
    """Lets a result go: a run returns nothing.

    :param result: of anything
    """
    del result


def _episodes(
    network: PolicyNetwork,
    params: Params,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    device: str,
) -> WeightedEpisodes:
    def normal(*last: int) -> Tensor:
        numbers = rng.standard_normal((*shape, *last), dtype=np.float32)
        return th.as_tensor(numbers, device=device)

    observations, actions = normal(17), normal(6)
    with th.no_grad():
        dist_params = network.dist_params(params, observations)
        log_probs = network.distribution.log_prob(dist_params, actions)
    rewards, zeros = normal(), th.zeros(shape, device=device)
    return WeightedEpisodes(
        observations=observations,
        actions=actions,
        mask=th.ones(shape, device=device),
        dist_params=dist_params,
        log_probs=log_probs,
        advantages=normal(),
        rewards=rewards,
        baselines=zeros,
        returns=rewards.sum(-1),
    )


def _of_task(batch: WeightedEpisodes, task: int) -> WeightedEpisodes:
    return WeightedEpisodes._make(None if field is None else field[task] for field in batch)
