"""The frozen lakes that BO-MRL is timed on, and other ways to evaluate a policy in them.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from torch import Tensor

from metarl_agents import ALGORITHMS
from metarl_agents.bilevel.arguments import stacked_tasks
from metarl_agents.bilevel.exact import TabularTasks, evaluate
from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.lower_level import Distance
from metarl_envs.core import FloatArray

ENV_ID = "metarl/FrozenLakeHoles-v0"
ENV_KWARGS: dict[str, Any] = {"preset": "bomrl2024"}
"""4x4 maps, 16 states, of which holes and goal absorb."""
GAMMA = 0.8
LAMS = {1: 0.5, 2: 0.5, 3: 0.4}
"""Lambda of each algorithm, neither so small nor so large that the agent warns of it."""


class Evaluated(NamedTuple):
    """A policy in M tasks, evaluated."""

    values: FloatArray
    """V, (M, S)"""
    action_values: FloatArray
    """Q, (M, S, A)"""
    occupancy: FloatArray
    """nu, (M, S)"""
    returns: FloatArray
    """J, (M,)"""


class Lakes(NamedTuple):
    """M tasks as arrays; fields as those of `TabularTasks`."""

    transitions: FloatArray
    rewards: FloatArray
    initial: FloatArray
    discount: float


def lakes(n_tasks: int, device: str = "cpu") -> TabularTasks:
    """M frozen lakes of 4x4 tiles.

    :param n_tasks: M
    :param device: where the tensors are
    """
    env: Any = gym.make(ENV_ID, **ENV_KWARGS).unwrapped
    mdps = env.finite_mdps(env.sample_tasks(n_tasks, seed=0))
    return stacked_tasks(replace(mdps, discount=GAMMA, horizon=None), device=device)


def as_arrays(tasks: TabularTasks) -> Lakes:
    """The same tasks for NumPy.

    :param tasks: M tasks
    """
    arrays = [np.ascontiguousarray(tensor.cpu().numpy()) for tensor in tasks[:3]]
    return Lakes(arrays[0], arrays[1], arrays[2], GAMMA)


def meta_logits(tasks: TabularTasks) -> Tensor:
    """Phi, (S, A), some way from uniform.

    :param tasks: M tasks
    """
    numbers = np.random.default_rng(0).standard_normal(tuple(tasks.rewards.shape[1:]))
    return th.as_tensor(numbers, device=tasks.rewards.device)


def looped(given: Lakes, policy: FloatArray) -> Evaluated:
    """Evaluates one task after the other with `numpy.linalg.solve`.

    :param given: M tasks
    :param policy: action probabilities, (S, A)
    """
    transitions, rewards, initial, gamma = given
    values, action_values = np.empty_like(initial), np.empty_like(rewards)
    occupancy, returns = np.empty_like(initial), np.empty(len(initial))
    identity, weights = np.eye(len(policy)), policy[:, None, :]
    for task in range(len(initial)):
        kernel = transitions[task]
        system = identity - gamma * (weights @ kernel)[:, 0]
        v = np.linalg.solve(system, (policy * rewards[task]).sum(-1))
        values[task] = v
        action_values[task] = rewards[task] + gamma * (kernel @ v)
        occupancy[task] = np.linalg.solve(system.T, (1.0 - gamma) * initial[task])
        returns[task] = initial[task] @ v
    return Evaluated(values, action_values, occupancy, returns)


def stacked(given: Lakes, policy: FloatArray) -> Evaluated:
    """Evaluates all tasks at once with `numpy.linalg.solve`.

    :param given: M tasks
    :param policy: action probabilities, (S, A)
    """
    transitions, rewards, initial, gamma = given
    m, s, a = rewards.shape
    system = np.eye(s) - gamma * (policy[:, None, :] @ transitions)[:, :, 0]
    values = np.linalg.solve(system, (policy * rewards).sum(-1)[..., None])[..., 0]
    after = (transitions.reshape(m, s * a, s) @ values[..., None]).reshape(m, s, a)
    start = (1.0 - gamma) * initial
    occupancy = np.linalg.solve(system.swapaxes(1, 2), start[..., None])[..., 0]
    parts = values, rewards + gamma * after, occupancy, (initial * values).sum(-1)
    return Evaluated(*(np.asarray(part, dtype=np.float64) for part in parts))


def ours(tasks: TabularTasks, policy: Tensor) -> Evaluated:
    """Evaluates all tasks at once as agents do.

    :param tasks: M tasks
    :param policy: action probabilities, (S, A)
    """
    found = evaluate(tasks, policy)
    parts = found.values, found.action_values, found.occupancy, found.returns
    return Evaluated(*(part.cpu().numpy() for part in parts))


def one_by_one(
    tasks: Iterable[TabularTasks], logits: Tensor, distance: Distance, lam: float
) -> Tensor:
    """The mean hypergradient, (S, A), of one task after the other.

    :param tasks: M times one task
    :param logits: phi, (S, A)
    :param distance: D
    :param lam: lambda
    """
    found = [
        task_hypergradients(task, logits, distance=distance, lam=lam).gradients for task in tasks
    ]
    return th.cat(found).mean(0)


def check_agreement(found: Any, expected: Any, what: str, *, tolerance: float = 1e-9) -> None:
    """`RuntimeError` where contenders do not compute the same: then nothing is worth timing.

    :param found: arrays of one contender
    :param expected: arrays of another
    :param what: the name of the first
    :param tolerance: on the largest difference, relative to the largest number
    """
    for own, other in zip(found, expected, strict=True):
        error = np.abs(own - other).max() / np.abs(other).max()
        if not error <= tolerance:
            raise RuntimeError(f"{what} is off by {error:.2g} of the largest number: it is wrong")


def trained_agent(
    algorithm: int, n_tasks: int, *, device: str = "cpu", method: str = "closed_form"
) -> tuple[Any, Any]:
    """An agent after one meta-iteration with M tasks, and a callback for more of them.

    :param algorithm: 1, 2 or 3
    :param n_tasks: M, tasks of a meta-batch, one sub-environment each
    :param device: where it learns
    :param method: of its hypergradients
    """
    cls: Any = ALGORITHMS["tabular_bomrl"]
    agent = cls(
        "TabularPolicy",
        ENV_ID,
        env_kwargs=ENV_KWARGS,
        algorithm=algorithm,
        lam=LAMS[algorithm],
        method=method,
        gamma=GAMMA,
        n_envs=n_tasks,
        meta_batch_size=n_tasks,
        device=device,
        seed=0,
    )
    agent.learn(1)  # what is only done once is not timed
    _, callback = agent._setup_learn(2**40, None)
    return agent, callback
