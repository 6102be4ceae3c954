"""A saved agent at work: it serves the customers of one more segment and says what it expects."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from metarl_agents import MTSRL
from metarl_agents.bayesian.linear_gaussian import posterior
from metarl_agents.bayesian.linear_q_policy import LinearQPolicy
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.meta_algorithm.seeds import draw_seed
from metarl_agents.common.policies import stack_policies
from metarl_agents.common.vec_env import as_vec_env


class Expectation(NamedTuple):
    """What a policy's posterior says about the actions of one state.

    :param means: expected return from here, (A,)
    :param deviations: standard deviations of that belief, (A,)
    """

    means: np.ndarray
    deviations: np.ndarray


def expectation(policy: LinearQPolicy, observation: np.ndarray, stage: int) -> Expectation:
    """
    Mean and standard deviation of every action's value under the policy's posterior.

    ``Var phi'theta = |root' phi|^2`` with the factored posterior covariance ``root root'``.

    :param policy: of one task
    :param observation: a state
    :param stage: its stage
    """
    belief = policy.belief
    given = posterior(belief.effective_prior(), belief.statistics, belief.sigma2)
    root = given.root[0, stage].cpu().numpy()
    features = policy.features(stage, observation[None])[0]
    means = (features * policy.mean_parameters[0, stage]).sum(-1)
    spread = np.einsum(
        "am,amk->ak", features, np.broadcast_to(root, (len(features), *root.shape[1:]))
    )
    return Expectation(means, np.sqrt((spread**2).sum(-1)))


def serve_customers(
    path: Path, env: Any, *, n_customers: int, seed: int, console: Console, n_more: int = 47
) -> None:
    """
    Load a saved MTSRL agent and let it serve a segment that it has never met, in words.

    :param path: the file
    :param env: a recommendation env
    :param n_customers: customers who are served step by step
    :param seed: of the segment and its customers
    :param console: where to print
    :param n_more: customers who are served without a word afterwards
    """
    venv = as_vec_env(env)
    agent = MTSRL.load(path, env=venv)
    task = env.sample_tasks(1, seed=seed + 2, split="test")[0]
    venv.env_method("set_task", task)
    best = float(env.optimal_return(task))
    console.print(
        f"One more segment, served by the agent loaded from {path}.\n"
        f"The best policy would earn {best:.2f} likes per customer there.",
        soft_wrap=True,
    )
    rng = np.random.default_rng(seed)
    policy = agent.initial_policy(rng=rng)
    earned = []
    for customer in range(1, n_customers + n_more + 1):
        batch = collect_episodes(venv, stack_policies([policy]), 1, seed=draw_seed(rng)).task(0)
        if customer <= n_customers:
            _tell(customer, policy, batch, console)
        policy = agent.adapt(policy, batch, rng=rng)
        earned.append(batch.returns.item())
        if customer in (n_customers, n_customers + n_more):
            _tell_belief(customer, policy, np.asarray(venv.reset())[0], console)
    late = np.mean(earned[-n_more // 2 :])
    console.print(f"The last {n_more - n_more // 2} customers liked {late:.2f} products each.")


def _tell(customer: int, policy: LinearQPolicy, batch: Any, console: Console) -> None:
    console.print(f"  customer {customer}")
    for stage in range(int(batch.lengths.item())):
        observation = batch.observations[0, stage].numpy()
        action = int(batch.actions[0, stage, 0])
        liked = bool(batch.rewards[0, stage] > 0)
        expected = expectation(policy, observation, stage)
        console.print(
            f"    product {action}: expects {expected.means[action]:.2f} +- "
            f"{expected.deviations[action]:.2f} likes from here on ... "
            + ("[green]liked[/green], reward 1" if liked else "[red]not liked[/red], reward 0")
        )
    console.print(f"    the customer liked {batch.returns.item():.0f} of {stage + 1}")


def _tell_belief(
    n_seen: int, policy: LinearQPolicy, observation: np.ndarray, console: Console
) -> None:
    expected = expectation(policy, observation, 0)
    order = np.argsort(-expected.means)
    names = " or ".join(
        f"product {a} ({expected.means[a]:.2f} +- {expected.deviations[a]:.2f})" for a in order[:3]
    )
    console.print(f"  after {n_seen} customers it would open with {names}", soft_wrap=True)
