"""The tasks of a run of BO-MRL: to train on, to choose on and to score on; none is in two parts.

Small maps come again and again, so that two draws of them share many. Therefore a number computed
from the seed and the task, as good as random, says in which part a task may be; each part may have
a third of all, so that over seeds the parts do not differ.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium as gym
import torch as th

from metarl_agents.bilevel.arguments import stacked_tasks
from metarl_agents.bilevel.exact import TabularTasks

_PARTS = ("train", "validation", "test")
TASK_SEEDS: Mapping[str, int] = {"train": 0, "validation": 1_000_000, "test": 41_508_000}
"""To which the seed of a run is added."""
_SHARED_SEED, _N_SHARED = 3_000_000, 1000
_MOST_DRAWS = 2**14


class Lakes(NamedTuple):
    """Tasks of a run."""

    train: TabularTasks
    validation: TabularTasks
    test: TabularTasks


def lakes_of(config: Mapping[str, Any], seed: int) -> Lakes:
    """
    The tasks of a seed. More training tasks are the same ones and others.

    ``config``: ``env``, ``env_kwargs``, ``n_train``, ``n_validation``, ``n_test``, ``task_seeds``
    (by part, to which the seed is added); ``discount`` for families with a horizon, which then
    never end; ``shared``, the share of the family's mean rewards in those of a task.

    :param config: of a run
    :param seed: of the tasks
    """
    env: Any = gym.make(config["env"], **config["env_kwargs"]).unwrapped
    parts = part_tasks(env, config, seed)
    return Lakes(*(_models(env, config, tasks) for tasks in parts.values()))


def part_tasks(env: Any, config: Mapping[str, Any], seed: int) -> dict[str, list[Any]]:
    """
    The tasks of each part, of which none is in two.

    :param env: the family
    :param config: of a run
    :param seed: of the tasks
    """
    starts = {part: config["task_seeds"][part] + seed for part in _PARTS}
    salt = " ".join(map(str, starts.values()))
    return {
        part: _drawn(env, part, config[f"n_{part}"], start, salt) for part, start in starts.items()
    }


def _drawn(env: Any, part: str, n: int, start: int, salt: str) -> list[Any]:
    n_draws = 4 * n
    while n_draws <= max(_MOST_DRAWS, 64 * n):
        split = "test" if part == "test" else "train"
        drawn = env.sample_tasks(n_draws, seed=start, split=split)
        parts = {task: _part_of(task, salt) for task in set(drawn)}
        own = [task for task in drawn if parts[task] == part]
        if len(own) >= n:
            return own[:n]
        n_draws *= 4
    raise ValueError(
        f"n_{part}={n} tasks cannot be found: with these seeds, hardly any task of this family is "
        "in that part. Take a family with more tasks"
    )


def _part_of(task: Any, salt: str) -> str:
    digest = hashlib.blake2b(salt.encode() + task.to_array().tobytes(), digest_size=8)
    return _PARTS[int.from_bytes(digest.digest(), "big") % len(_PARTS)]


def _models(env: Any, config: Mapping[str, Any], tasks: Sequence[Any]) -> TabularTasks:
    models = stacked_tasks(_endless(env.family.finite_mdps(tasks), config))
    share = config.get("shared", 0.0)
    if share:
        population = env.sample_tasks(_N_SHARED, seed=_SHARED_SEED)
        mean = stacked_tasks(_endless(env.family.finite_mdps(population), config)).rewards.mean(0)
        models = models._replace(rewards=th.lerp(models.rewards, mean, share))
    return models


def _endless(mdps: Any, config: Mapping[str, Any]) -> Any:
    if "discount" not in config:
        return mdps
    return replace(mdps, discount=config["discount"], horizon=None)
