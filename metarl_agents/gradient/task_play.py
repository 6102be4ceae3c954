"""Play the tasks of a meta-iteration: phases of episodes, and an inner step between two.

Shapes: M tasks, K inner steps.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl_agents.common.collect import collect_task_episodes, sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.inner_loop import InnerLR
from metarl_agents.common.meta_algorithm.seeds import child_generator, draw_seed
from metarl_agents.common.playing import StepHook
from metarl_agents.common.policies import FunctionalPolicies, FunctionalPolicy, Params
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.task_chunks import run_on_threads
from metarl_agents.gradient.meta_episodes import MetaEpisodes, descriptors_of, trimmed
from metarl_agents.gradient.step_sizes import scaled


class TaskPlayer(Protocol):
    """What of an agent playing its tasks needs; see :class:`.GradientMeta`."""

    env: VecEnv | None
    device: th.device
    meta_batch_size: int
    n_episodes_per_task: int
    n_inner_steps: int
    inner_lr: float
    n_workers: int

    @property
    def _dtype(self) -> th.dtype: ...

    def _first_policies(self, n_tasks: int, rng: np.random.Generator) -> FunctionalPolicies: ...

    def _policy(
        self, params: Params, rng: np.random.Generator, n_updates: int = 0
    ) -> FunctionalPolicy: ...

    def _inner_weights(self, episodes: EpisodeBatch) -> WeightedEpisodes: ...

    def _chain(
        self, theta: Params, inner: Sequence[WeightedEpisodes], *, inner_lr: InnerLR
    ) -> list[Params]: ...

    def learned_step_sizes(self) -> float | dict[str, Tensor]: ...

    def _begin_collect(self) -> int: ...

    def _step_hook(self, callback: BaseCallback) -> StepHook: ...


def play_tasks(agent: TaskPlayer, callback: BaseCallback) -> MetaEpisodes | None:
    """Plays K + 1 phases in new tasks; None where the callback asked to stop.

    :param agent: whose policies play
    :param callback: of `learn`
    """
    assert agent.env is not None
    rng = np.random.default_rng(agent._begin_collect())
    tasks = sample_tasks(agent.env, agent.meta_batch_size, seed=draw_seed(rng))
    policies = agent._first_policies(len(tasks), child_generator(rng))
    phases: list[EpisodeBatch] = []
    for step in range(agent.n_inner_steps + 1):
        if step:
            own = [policies[i] for i in range(len(tasks))]
            batches = list(phases[-1].tasks())
            after = adapted_policies(agent, own, batches, [rng] * len(tasks), decay=1.0)
            policies = FunctionalPolicy.stack(after)
        episodes = collect_task_episodes(
            agent.env,
            policies,
            agent.n_episodes_per_task,
            tasks=tasks,
            seed=draw_seed(rng),
            on_step=agent._step_hook(callback),
            dtype=agent._dtype,
        )
        if episodes is None:
            return None
        phases.append(episodes.to(agent.device))
    return MetaEpisodes(tuple(phases), descriptors_of(tasks), draw_seed(rng))


def adapted_policies(
    agent: TaskPlayer,
    policies: Sequence[FunctionalPolicy],
    batches: Sequence[EpisodeBatch],
    rngs: Sequence[np.random.Generator],
    *,
    decay: float,
) -> list[FunctionalPolicy]:
    """The policies after one inner step in every task, task by task, without a graph.

    :param agent: whose inner step it is
    :param policies: of M tasks
    :param batches: M batches, without task axis
    :param rngs: M generators, of the new policies' actions
    :param decay: factor on the step size
    """
    inner_lr = scaled(agent.learned_step_sizes(), decay)

    def stepped(task: int) -> Params:
        # Without padding that other tasks call for, sums have the same order as alone.
        batch = trimmed(batches[task]).to(agent.device, agent._dtype)
        inner = [agent._inner_weights(batch)]
        return agent._chain(policies[task].params, inner, inner_lr=inner_lr)[-1]

    after = run_on_threads(stepped, range(len(batches)), n_workers=agent.n_workers)
    if not all(tensor.isfinite().all() for params in after for tensor in params.values()):
        raise ValueError(
            f"an inner step with inner_lr={agent.inner_lr} gives parameters that are not finite: "
            "lower inner_lr, or look for rewards or observations that are not finite"
        )
    return [
        agent._policy(params, child_generator(rng), policy.n_updates + 1)
        for policy, params, rng in zip(policies, after, rngs, strict=True)
    ]
