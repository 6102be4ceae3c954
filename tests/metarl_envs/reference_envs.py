"""A small family that keeps every law, single and vector, written for the tests of the checks.

Three actions with values that are the task; a noisy position that ends the episode when it goes
too far; action 2 is forbidden at odd steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

from metarl_envs.core import Task, task_id
from metarl_envs.distributions import TaskStream, UniformTasks, check_task

N_ACTIONS, HORIZON = 3, 6


@dataclass(frozen=True)
class ValuesTask:
    """Values of the actions."""

    values: tuple[float, ...]

    def to_array(self) -> np.ndarray:
        return np.array(self.values)


def make_task(array: np.ndarray) -> ValuesTask:
    return ValuesTask(tuple(array.tolist()))


class ReferenceEnv(gym.Env):
    metadata = {"render_modes": []}
    n_stages = HORIZON
    n_features = N_ACTIONS

    def __init__(self, task_mode: str = "resample") -> None:
        self.observation_space = gym.spaces.Box(-5.0, 5.0, (2,), np.float64)
        self.action_space = gym.spaces.Discrete(N_ACTIONS)
        self.task_mode = task_mode
        self.task_distribution = self.make_distribution()
        self.tasks = TaskStream(self.task_distribution, task_mode=task_mode)
        self.step_index = 0

    def make_distribution(self) -> Any:
        return UniformTasks(make_task, np.full(N_ACTIONS, -1.0), 1.0)

    def seed_tasks(self, seed: int | None) -> None:
        if seed is not None or not self.tasks.is_seeded:
            self.tasks.seed(self.np_random_seed)

    def begin_episode(self, task: Task | None) -> Task:
        return self.tasks.begin_episode(task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seed_tasks(seed)
        task = (options or {}).get("task")
        task = self.begin_episode(None if task is None else self.checked_task(task))
        self.position = self.np_random.normal(scale=0.1)
        self.step_index = 0
        return self.observe(), {**self.info(), "task": task}

    def step(self, action: Any) -> Any:
        action = self.checked(action)
        self.position += self.np_random.normal(scale=0.1)
        self.step_index += 1
        reward = self.reward(action)
        return self.observe(), reward, bool(abs(self.position) > 0.25), False, self.info()

    def checked(self, action: Any) -> int:
        if not (np.ndim(action) == 0 and action in range(N_ACTIONS)):
            raise ValueError(f"action={action!r} must be one of 0, 1, 2")
        return int(action)

    def reward(self, action: int) -> float:
        return self.get_task().values[action]

    def observe(self) -> np.ndarray:
        return np.array([np.clip(self.position, -5, 5), float(self.step_index % 2)])

    def info(self) -> dict[str, Any]:
        mask = self.action_masks().astype(np.int8)
        return {"task_id": task_id(self.get_task()), "action_mask": mask}

    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train") -> Any:
        if not self.tasks.is_seeded:
            _ = self.np_random
            self.tasks.seed(self.np_random_seed)
        return self.tasks.sample(n, seed=seed, split=split)

    def set_task(self, task: Task | None) -> None:
        self.tasks.pin(None if task is None else self.checked_task(task))

    def checked_task(self, task: Any) -> Task:
        return check_task(self.task_distribution, task)

    def get_task(self) -> Task:
        return self.tasks.get_task()

    def action_masks(self, observations: np.ndarray | None = None) -> np.ndarray:
        odd = np.asarray(self.observe() if observations is None else observations)[..., 1] == 1
        return np.stack([np.ones_like(odd), np.ones_like(odd), ~odd], axis=-1)

    def features(self, stage: int, observations: np.ndarray) -> np.ndarray:
        leading = np.shape(observations)[:-1]
        return np.broadcast_to(np.eye(N_ACTIONS), (*leading, N_ACTIONS, N_ACTIONS)).copy()

    def optimal_return(self, task: Task) -> float:
        best, best_odd = max(task.values), max(task.values[:2])
        return sum(max(best_odd if step % 2 else best, 0.0) for step in range(HORIZON))

    def optimal_returns(self, tasks: Sequence[Task]) -> np.ndarray:
        return np.array([self.optimal_return(task) for task in tasks])


class ReferenceVectorEnv(gym.vector.VectorEnv):
    """Gymnasium's ``SyncVectorEnv`` with the task interface on top."""

    def __init__(
        self,
        num_envs: int = 1,
        task_mode: str = "resample",
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        make = partial(self.make_single, task_mode, max_episode_steps)
        self.envs = SyncVectorEnv([make] * num_envs, autoreset_mode=autoreset_mode)
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.envs.single_observation_space
        self.single_action_space = self.envs.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.task_distribution = self.singles[0].task_distribution

    @staticmethod
    def make_single(task_mode: str, max_episode_steps: int | None) -> gym.Env:
        env = ReferenceEnv(task_mode)
        return gym.wrappers.TimeLimit(env, max_episode_steps) if max_episode_steps else env

    @property
    def singles(self) -> list[ReferenceEnv]:
        return [env.unwrapped for env in self.envs.envs]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        options = dict(options or {})
        tasks = options.pop("tasks", None)
        if tasks is None:
            return self.envs.reset(seed=seed, options=options)
        self.check(tasks, range(self.num_envs))
        pins = [single.tasks.pinned for single in self.singles]
        self.pin(tasks, range(self.num_envs))
        result = self.envs.reset(seed=seed, options=options)
        self.pin(pins, range(self.num_envs))
        return result

    def step(self, actions: Any) -> Any:
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or not np.isin(actions, range(N_ACTIONS)).all():
            raise ValueError(f"actions={actions} must be (num_envs,) of 0, 1, 2")
        return self.envs.step(actions)

    def set_tasks(
        self, tasks: Sequence[Task | None], *, indices: Sequence[int] | None = None
    ) -> None:
        where = range(self.num_envs) if indices is None else indices
        self.check(tasks, where)
        self.pin(tasks, where)

    def check(self, tasks: Sequence[Task | None], where: Sequence[int]) -> None:
        if len(tasks) != len(where) or not set(where) <= set(range(self.num_envs)):
            raise ValueError(f"{len(tasks)} tasks for indices={list(where)}")
        for task in tasks:
            if task is not None:
                check_task(self.task_distribution, task)

    def pin(self, tasks: Sequence[Task | None], where: Sequence[int]) -> None:
        for index, task in zip(where, tasks, strict=True):
            self.singles[index].set_task(task)

    def get_tasks(self) -> list[Task]:
        return [single.get_task() for single in self.singles]

    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train") -> list[Task]:
        return self.singles[0].sample_tasks(n, seed=seed, split=split)


def without_new_tasks(step):
    """A step of a vector env without the tasks that autoresets drew: only `SyncVectorEnv` names
    them.
    """
    *rest, infos = step
    return (*rest, {name: infos[name] for name in infos if name not in ("task", "_task")})
