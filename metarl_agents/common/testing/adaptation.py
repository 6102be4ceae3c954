"""Checks that adapting is pure, repeatable and of use."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from metarl_agents.common.collect import collect_episodes, sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies import stack_policies
from metarl_agents.common.testing.subject import (
    NotApplicableError,
    StopAt,
    Subject,
    actions_of,
    global_random_state,
    require,
    require_same,
    state_of,
)

N_PROBE_TASKS = 24
N_SCORED_EPISODES = 4
N_REPETITIONS = 12
STANDARD_ERRORS = 3.0


def initial_policy_follows_its_generator(subject: Subject) -> None:
    """Same generator, same policy; asking changes nothing."""
    agent, before = subject.trained, state_of(subject.trained)
    observations = _seen(subject)
    default = actions_of(agent.initial_policy(), observations)
    for i in range(N_REPETITIONS):
        twice = [agent.initial_policy(rng=np.random.default_rng([1, i])) for _ in range(2)]
        first, second = (actions_of(policy, observations) for policy in twice)
        same = np.array_equal(first, second)
        require(same, "initial_policy(rng=...) differs for equal generators")
        again = actions_of(agent.initial_policy(), observations)
        require(np.array_equal(default, again), "initial_policy() differs from call to call")
    require_same(before, state_of(agent), "the agent before and after initial_policy()")


def adapt_is_pure(subject: Subject) -> None:
    """It changes neither the policy, nor the episodes, nor the agent, nor a global generator."""
    agent, before = subject.trained, state_of(subject.trained)
    policy = agent.initial_policy(rng=np.random.default_rng(1))
    episodes = _episodes(subject, policy)
    copy = EpisodeBatch._make(None if field is None else field.clone() for field in episodes)
    observations = _seen(subject)
    actions = actions_of(policy, observations)
    globals_before = global_random_state()
    for i in range(N_REPETITIONS):
        agent.adapt(policy, episodes, rng=np.random.default_rng([2, i]))
        # A change may show in no action by chance, but not every time.
        same = np.array_equal(actions, actions_of(policy, observations))
        require(same, "adapt changes the policy that it is given")
    require(globals_before == global_random_state(), "adapt draws from a global generator")
    require(
        all(_equal(ours, theirs) for ours, theirs in zip(copy, episodes, strict=True)),
        "adapt changes the episodes that it is given",
    )
    require_same(before, state_of(agent), "the agent before and after adapt()")


def adapt_follows_its_generator(subject: Subject) -> None:
    """Same policy, episodes and generator, same result, also several episodes on."""
    agent = subject.trained

    def adapted(i: int) -> Any:
        rng = np.random.default_rng([3, i])
        policy = agent.initial_policy(rng=rng)
        for _ in range(2):
            policy = agent.adapt(policy, _episodes(subject, policy), rng=rng)
        return policy

    observations = _seen(subject)
    for i in range(N_REPETITIONS):
        first, second = (actions_of(adapted(i), observations) for _ in range(2))
        require(np.array_equal(first, second), "adapt(rng=...) differs for equal generators")


def batched_adaptation_equals_single(subject: Subject) -> None:
    """`initial_policies` and `adapt_tasks` do for M tasks what the single verbs do for each."""
    agent, observations, n_tasks = subject.trained, _seen(subject), 6
    venv = subject.vec_env(n_tasks)
    policies = agent.initial_policies(_generators(n_tasks))
    singles = [agent.initial_policy(rng=rng) for rng in _generators(n_tasks)]
    episodes = collect_episodes(venv, policies, 1, seed=5)
    adapted = agent.adapt_tasks(policies, episodes, rngs=_generators(n_tasks))
    require(policies.n_tasks == adapted.n_tasks == n_tasks, "n_tasks is not the number of tasks")
    for i, rng in enumerate(_generators(n_tasks)):
        after = agent.adapt(singles[i], episodes.task(i), rng=rng)
        for what, batched, single in (
            ("initial_policies", policies[i], singles[i]),
            ("adapt_tasks", adapted[i], after),
        ):
            require(
                np.array_equal(actions_of(batched, observations), actions_of(single, observations)),
                f"{what} acts otherwise in task {i} than the policy for that task alone",
            )


def adapt_to_leaves_the_agent_untouched(subject: Subject) -> None:
    """Learned state, generators and counters are as before; the result follows the seed."""
    agent, before = subject.trained, state_of(subject.trained)
    observations, globals_before = _seen(subject), global_random_state()
    policies = [agent.adapt_to(subject.vec_env(), 3, seed=11) for _ in range(2)]
    require(globals_before == global_random_state(), "adapt_to draws from a global generator")
    first, second = (actions_of(policy, observations) for policy in policies)
    require(np.array_equal(first, second), "adapt_to(seed=...) differs from call to call")
    require_same(before, state_of(agent), "the agent before and after adapt_to()")


def adapt_to_keeps_the_task_of_the_env(subject: Subject) -> None:
    """A task that is pinned in the env stays pinned; a task that is handed over leaves no pin."""
    venv = subject.vec_env()
    if not venv.has_attr("set_task"):
        raise NotApplicableError("the env has no tasks")
    pinned, other = sample_tasks(venv, 2, seed=3)
    venv.env_method("set_task", pinned)
    venv.seed(0)
    venv.reset()
    subject.trained.adapt_to(venv, 2, task=other, seed=0)
    venv.reset()
    require(venv.env_method("get_task")[0] == pinned, "adapt_to(task=...) replaced the env's pin")
    venv.env_method("set_task", None)
    subject.trained.adapt_to(venv, 2, task=other, seed=0)
    venv.reset()
    require(venv.env_method("get_task")[0] != other, "adapt_to(task=...) leaves its task pinned")


def evaluating_in_between_changes_nothing(subject: Subject) -> None:
    """`predict` and `adapt_to` called by a callback in mid-collect leave training bit-equal."""

    def evaluate(agent: Any) -> bool:
        agent.predict(_seen(subject)[0])
        agent.adapt_to(subject.vec_env(), 2, seed=0)
        return True

    agent = subject.agent()
    agent.learn(subject.total_timesteps, callback=StopAt(2, evaluate))
    require_same(subject.reference, state_of(agent), "training with and without evaluation")


def adapting_beats_not_adapting(subject: Subject) -> None:
    """On held-out tasks of the probe, the adapted policies earn more than the initial ones."""
    agent = subject.agent(probe=True)
    if subject.configuration.probe_timesteps:
        agent.learn(subject.configuration.probe_timesteps)
    venv = subject.vec_env(N_PROBE_TASKS, probe=True)
    tasks = venv.env_method("sample_tasks", N_PROBE_TASKS, seed=7, split="test", indices=[0])[0]
    rngs = [np.random.default_rng([9, i]) for i in range(N_PROBE_TASKS)]
    initial = agent.initial_policies(rngs)
    single = subject.vec_env(probe=True)
    n_episodes = subject.configuration.n_adapt_episodes
    adapted = [
        agent.adapt_to(single, n_episodes, task=task, seed=i) for i, task in enumerate(tasks)
    ]
    gains = _scores(venv, stack_policies(adapted), tasks) - _scores(venv, initial, tasks)
    error = float(gains.std(ddof=1)) / N_PROBE_TASKS**0.5
    require(
        gains.mean() > STANDARD_ERRORS * error and gains.mean() > 0,
        f"adapting by {n_episodes} episodes earns {gains.mean():.4f} more than not adapting, with "
        f"standard error {error:.4f} over {N_PROBE_TASKS} tasks: that is not {STANDARD_ERRORS:g} "
        "standard errors",
    )


def _scores(venv: Any, policies: Any, tasks: list[Any]) -> np.ndarray:
    """(M,) mean returns."""
    batch = collect_episodes(venv, policies, N_SCORED_EPISODES, seed=13, tasks=tasks)
    return np.asarray(batch.returns.mean(dim=1))


def _episodes(subject: Subject, policy: Any) -> EpisodeBatch:
    return collect_episodes(subject.vec_env(), stack_policies([policy]), 2, seed=17).task(0)


def _seen(subject: Subject) -> np.ndarray:
    """(n, *obs_shape) observations that the env shows, since policies may know no others."""
    venv = subject.vec_env()
    venv.seed(19)
    venv.action_space.seed(19)
    rows = [np.array(venv.reset())]
    # Some envs with continuous actions have the method all the same, and nothing to tell by it.
    has_masks = isinstance(venv.action_space, spaces.Discrete) and venv.has_attr("action_masks")
    for _ in range(15):
        masks = venv.env_method("action_masks") if has_masks else [None]
        action = venv.action_space.sample(None if masks[0] is None else _mask(masks[0]))
        rows.append(np.array(venv.step(np.array([action]))[0]))
    return np.concatenate(rows)


def _mask(mask: Any) -> np.ndarray:
    return np.asarray(mask, dtype=np.int8)


def _generators(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([23, i]) for i in range(n)]


def _equal(first: th.Tensor | None, second: th.Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return th.equal(first, second)
