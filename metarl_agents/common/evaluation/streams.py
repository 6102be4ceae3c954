"""Random streams of an evaluation: one per (seed, task, step, purpose), so that nothing shifts
anything else.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch as th

from metarl_envs.core import task_id


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes are independent."""

    ADAPTATION_EPISODES = 0
    SCORED_EPISODES = 1
    INITIAL_POLICY = 2
    ADAPTATION = 3
    ACTING = 4


class TaskStreams(NamedTuple):
    """The streams of one task of an evaluation.

    They belong to the task itself, not to its place in the list: a task's result is the same
    whichever tasks are evaluated with it, and whichever learner is evaluated, the env makes the
    same noise.

    :param seed: seed of the evaluation
    :param task_id: stable number of the task
    :param occurrence: how many equal tasks come before it in the list
    """

    seed: int
    task_id: int
    occurrence: int

    def sequence(self, step: int, purpose: Purpose) -> np.random.SeedSequence:
        """The seed sequence after `step` adaptations.

        :param step: number of adaptations made
        :param purpose: what it is for
        """
        # Two words for the id, always: SeedSequence joins the words of long integers.
        words = (self.task_id >> 32, self.task_id & 0xFFFFFFFF)
        return np.random.SeedSequence(
            self.seed, spawn_key=(*words, self.occurrence, step, int(purpose))
        )

    def rng(self, step: int, purpose: Purpose) -> np.random.Generator:
        """A generator of its own.

        :param step: number of adaptations made
        :param purpose: what it is for
        """
        return np.random.default_rng(self.sequence(step, purpose))

    def integer(self, step: int, purpose: Purpose) -> int:
        """A seed in [0, 2^31), which every env and library accepts.

        :param step: number of adaptations made
        :param purpose: what it is for
        """
        return int(self.sequence(step, purpose).generate_state(1, np.uint32)[0] >> 1)


def task_streams(tasks: Sequence[Any], seed: int) -> list[TaskStreams]:
    """The streams of every task.

    :param tasks: the tasks of an evaluation
    :param seed: its seed
    """
    seen: Counter[int] = Counter()
    streams = []
    for identifier in map(task_id, tasks):
        streams.append(TaskStreams(seed, identifier, seen[identifier]))
        seen[identifier] += 1
    return streams


@contextmanager
def scoped_global_rng(seed: int | None = None) -> Iterator[None]:
    """Restores the global generators of `random`, NumPy and torch at the end.

    Agents of Stable-Baselines3 draw from the global generators; an evaluation in the middle of
    training must not move them.

    :param seed: seed in [0, 2^31); None leaves the generators as they are
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = th.default_generator.get_state()
    cuda_states = th.cuda.get_rng_state_all() if th.cuda.is_initialized() else None
    try:
        if seed is not None:
            _seed_globally(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        th.default_generator.set_state(torch_state)
        if cuda_states is not None:
            th.cuda.set_rng_state_all(cuda_states)


def _seed_globally(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    # `th.manual_seed` does the same, 200 times slower: it looks for every backend there is.
    th.default_generator.manual_seed(seed)
    if th.cuda.is_initialized():
        th.cuda.manual_seed_all(seed)
