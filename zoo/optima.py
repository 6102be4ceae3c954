"""What is known of the families' optima, and what random play earns.

Shapes: M tasks.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_envs import FAMILIES, FiniteTasks, Task, TaskDistribution
from metarl_envs.batched import Array, Family
from metarl_envs.core import FloatArray
from metarl_envs.distributions import task_arrays
from metarl_envs.tabular.gridworld.placement import PlacementTasks
from zoo.report import Grid

N_TASKS, N_EPISODES = 1000, 4
_Z_95 = 1.959963984540054
_MOST_LISTED = 10_000

# The largest expected return of one episode for an agent that is not told the task.
BEST_UNTOLD: Mapping[str, Callable[[Any], float]] = MappingProxyType(
    {
        "metarl/BernoulliBandit-v0": lambda family: family.bayes_optimal_value(),
        "metarl/GridGoal-v0": lambda family: family.best_adaptive_returns(1)[0],
        "metarl/TMaze-v0": lambda family: family.best_adaptive_return(),
    }
)


def solvable_ids() -> tuple[str, ...]:
    """
    The ids of families that know the best return of a task.
    """
    # Locomotion does not, and making its environments would load MuJoCo.
    return tuple(
        env_id for env_id, row in FAMILIES.items() if ".locomotion." not in row.entry_point
    )


def optima_grid(ids: Sequence[str] | None = None) -> Grid:
    """
    Mean returns of one episode: the best for who knows the task, the best for who does not where it
    is known, and random play.

    :param ids: the rows; all families that know, by default
    """
    ids = solvable_ids() if ids is None else ids
    columns = ("id", "steps", "tasks", "told the task", "not told", "random play")
    return Grid("Known optima", columns, tuple(_row(env_id) for env_id in ids))


def every_task(distribution: TaskDistribution) -> list[Task] | None:
    """
    All tasks of a small finite family whose tasks are equally likely; ``None`` for any other.

    :param distribution: the family's
    """
    if isinstance(distribution, FiniteTasks) and np.ptp(distribution.probabilities) == 0:
        return list(distribution.tasks)
    if isinstance(distribution, PlacementTasks) and distribution.n_tasks <= _MOST_LISTED:
        cells = itertools.product(*distribution.places)
        return [distribution.make_task(np.concatenate(places)) for places in cells]
    return None


def random_returns(
    family: Family, tasks: Sequence[Task], *, n_episodes: int, seed: int
) -> FloatArray:
    """
    Mean return in each task, (M,), of actions drawn uniformly among the allowed ones.

    :param family: whose tasks
    :param tasks: M tasks
    :param n_episodes: played in each
    :param seed: of the actions and the episodes
    """
    n, rng = len(tasks), np.random.default_rng(seed)
    params = family.compile(task_arrays(family.task_distribution, tasks))
    total = np.zeros(n)
    for _ in range(n_episodes):
        states = family.initial(params, rng.random((n, family.n_reset_uniforms)))
        running = np.ones(n, dtype=np.bool_)
        for stage in range(family.horizon):
            stages = np.full(n, stage)
            actions = _random_actions(family, family.observe(states, stages), rng)
            uniforms = rng.random((n, family.n_step_uniforms))
            states, rewards, terminated = family.step(params, states, stages, actions, uniforms)
            total[running] += rewards[running]
            running &= ~terminated
    return total / n_episodes


def _row(env_id: str) -> tuple[str, ...]:
    env: Any = gym.make(env_id).unwrapped
    known = every_task(env.task_distribution)
    drawn = env.sample_tasks(N_TASKS, seed=0, split="test")
    if known is None:
        n_tasks, told = f"{N_TASKS} drawn", _with_interval(env.optimal_returns(drawn))
    else:
        n_tasks, told = f"all {len(known)}", _number(float(env.optimal_returns(known).mean()))
    untold = BEST_UNTOLD.get(env_id)
    random = random_returns(env.family, drawn, n_episodes=N_EPISODES, seed=0)
    not_told = "" if untold is None else _number(untold(env.family))
    n_steps = str(env.family.horizon)
    return f"`{env_id}`", n_steps, n_tasks, told, not_told, _with_interval(random)


def _random_actions(family: Family, observations: Array, rng: np.random.Generator) -> Array:
    space = family.action_space
    if isinstance(space, gym.spaces.Box):
        shape = len(observations), *space.shape
        return rng.uniform(space.low, space.high, shape).astype(space.dtype)
    masks = family.action_masks(observations)
    return np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=-1)


def _with_interval(values: FloatArray) -> str:
    half_width = _Z_95 * values.std(ddof=1) / len(values) ** 0.5
    return f"{_number(float(values.mean()))} ± {half_width:.{_n_decimals(values.mean())}f}"


def _number(value: float) -> str:
    return f"{value:.{_n_decimals(value)}f}"


def _n_decimals(value: float) -> int:
    return 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
