"""What one meta-iteration hands from collecting to learning.

Shapes: M tasks, E episodes, T steps, K inner steps, d numbers that describe a task.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.returns import WeightedEpisodes


class MetaEpisodes(NamedTuple):
    """The episodes of M tasks before, between and after K inner steps.

    :param phases: K + 1 batches with leading axis M, in the order they were played
    :param descriptors: (M, d), the tasks as numbers; None where they have none
    :param seed: of what is random in the update
    """

    phases: tuple[EpisodeBatch, ...]
    descriptors: Tensor | None
    seed: int


class TaskBatch(NamedTuple):
    """What losses need of the tasks: a tree of tensors with leading axis M.

    :param inner: the K batches that inner steps are taken on
    :param outer: the episodes after adaptation
    :param coefficients: (M,), credit of the inner batches; zero where nothing is credited
    """

    inner: tuple[WeightedEpisodes, ...]
    outer: WeightedEpisodes
    coefficients: Tensor


def descriptors_of(tasks: Sequence[Any]) -> Tensor | None:
    """The tasks as rows of numbers, (M, d) float64; None where they cannot tell.

    :param tasks: M tasks
    """
    if not all(hasattr(task, "to_array") for task in tasks):
        return None
    return th.as_tensor(np.stack([np.ravel(task.to_array()) for task in tasks]), dtype=th.float64)
