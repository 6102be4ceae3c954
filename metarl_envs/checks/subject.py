"""What the checks look at: fresh copies of the env under test, and rollouts of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from numpy.typing import NDArray

from metarl_envs.core import Task, TaskDistribution

AnyEnv: TypeAlias = gym.Env[Any, Any]
N_TASKS = 64
"""Draws that tell a continuous family from a finite one."""


class TaskEnvError(AssertionError):
    """An env breaks a law: the message names the check, what was seen and what is asked for."""


class NotApplicableError(Exception):
    """A check has nothing to look at here: the env lacks the optional part that it is about."""


def require(condition: Any, message: str) -> None:
    """Raise :class:`TaskEnvError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise TaskEnvError(message)


class Subject:
    """An env under test: makes fresh copies of it and remembers to close them.

    :param env: an id, an env made by ``gymnasium.make`` (its ``spec`` makes the copies), or a
        callable without required arguments, such as a class
    :param seed: seed of everything that the checks draw
    """

    def __init__(self, env: Any, seed: int = 0) -> None:
        self.seed = seed
        self.source = env
        self._made: list[Any] = []
        if isinstance(env, gym.Env):
            if env.spec is None:
                raise ValueError(
                    f"env={env} has no spec, so no fresh copies of it can be made; "
                    "pass a callable that makes one, such as its class"
                )
            self.source = copy.deepcopy(env.spec)
        elif not (isinstance(env, str) or callable(env)):
            raise TypeError(f"env={env!r} must be an id, an env or a callable that makes one")

    def make(self, **arguments: Any) -> AnyEnv:
        """Make a fresh copy, with some constructor arguments replaced."""
        env = self._create(arguments)
        self._made.append(env)
        if not isinstance(env, gym.Env):
            raise TypeError(f"{self.source!r} made a {type(env).__name__}, not a gymnasium.Env")
        return env

    def close(self) -> None:
        """Close every copy that was made."""
        while self._made:
            self._made.pop().close()

    @cached_property
    def is_continuous(self) -> bool:
        """Whether draws from the task distribution never repeat."""
        return draws_never_repeat(attribute(self.make(), "task_distribution"), self.seed)

    def distinct_tasks(self, n: int) -> list[Task]:
        """At most ``n`` different tasks of the family, and at least two."""
        tasks: list[Task] = []
        for task in attribute(self.make(), "sample_tasks")(N_TASKS, seed=self.seed + 1):
            if all(not same_task(task, other) for other in tasks):
                tasks.append(task)
        if len(tasks) < 2:
            raise NotApplicableError("the family has a single task")
        return tasks[:n]

    def _create(self, arguments: dict[str, Any]) -> Any:
        if isinstance(self.source, str | gym.envs.registration.EnvSpec):
            return gym.make(self.source, **arguments)
        if accepts(self.source, arguments):
            return self.source(**arguments)
        env = self.source()
        if env.spec is None:
            raise NotApplicableError(f"{self.source!r} takes no {', '.join(arguments)}")
        return gym.make(env.spec, **arguments)


def accepts(function: Callable[..., Any], names: Iterable[str]) -> bool:
    """Whether ``function`` takes every one of these keyword arguments."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return True
    return all(name in parameters for name in names)


def attribute(env: Any, name: str) -> Any:
    """Attribute ``name`` of the env, wherever in its stack of wrappers it is."""
    return env.get_wrapper_attr(name) if hasattr(env, "get_wrapper_attr") else getattr(env, name)


def has_wrapper(env: AnyEnv, name: str) -> bool:
    """Whether a wrapper of this class name is in the stack."""
    while isinstance(env, gym.Wrapper):
        if name in {cls.__name__ for cls in type(env).__mro__}:
            return True
        env = env.env
    return False


def numpy_global_state() -> str:
    """State of NumPy's global generator, comparable."""
    return repr([np.asarray(part).tolist() for part in np.random.get_state(legacy=True)])


def array_of(task: Task) -> NDArray[Any]:
    """Task as an array."""
    return np.asarray(task.to_array())


def same_task(first: Task, second: Task) -> bool:
    """Whether two tasks are one, by class and array (their own ``==`` may be broken)."""
    return type(first) is type(second) and np.array_equal(array_of(first), array_of(second))


def count_distinct(tasks: Iterable[Task]) -> int:
    """Number of different tasks."""
    return len({array_of(task).tobytes() for task in tasks})


def draws_never_repeat(distribution: TaskDistribution, seed: int) -> bool:
    """Whether all of some draws differ, and are no integers: of many maps, say, few repeat, but
    some do.

    :param distribution: where tasks come from
    :param seed: of the draws
    """
    rng = np.random.default_rng(seed)
    tasks = [distribution.sample(rng) for _ in range(N_TASKS)]
    arrays = np.array([array_of(task) for task in tasks])
    are_integers = bool(np.all(arrays == np.round(arrays)))
    return not are_integers and count_distinct(tasks) == N_TASKS


def is_same(first: Any, second: Any) -> bool:
    """Whether two observations, infos, ... are equal bit for bit, in type too."""
    return data_equivalence(first, second, exact=True)


class Step(NamedTuple):
    """One row of a rollout; the first row is the reset, with reward 0."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether the episode ends here."""
        return bool(self.terminated or self.truncated)


class Player:
    """Plays random actions that ``info["action_mask"]`` allows, the same ones for the same seed.

    :param env: the env
    :param seed: seed of the actions
    """

    def __init__(self, env: AnyEnv, seed: int) -> None:
        self.env = env
        self.space = copy.deepcopy(env.action_space)
        self.space.seed(seed)
        self.last = Step(None, 0.0, False, True, {})

    def reset(self, *, seed: int | None = None, task: Task | None = None) -> Step:
        """Begin an episode, on ``task`` where one is given."""
        options = None if task is None else {"task": task}
        observation, info = self.env.reset(seed=seed, options=options)
        self.last = Step(copy.deepcopy(observation), 0.0, False, False, copy.copy(info))
        return self.last

    def step(self) -> Step:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(self.action())
        self.last = Step(
            copy.deepcopy(observation), float(reward), terminated, truncated, copy.copy(info)
        )
        return self.last

    def play(self, n_steps: int) -> list[Step]:
        """At most ``n_steps`` steps, up to the end of the episode."""
        rows: list[Step] = []
        while len(rows) < n_steps and not self.last.done:
            rows.append(self.step())
        return rows

    def action(self) -> Any:
        """The next action."""
        return random_action(self.space, self.last.info.get("action_mask"))


class OptimalPlayer(Player):
    """Plays the ``optimal_action`` of a task, within the action space, whatever task the env has.

    :param env: an env with ``optimal_action(task, observation)``
    :param seed: without effect
    :param known: the task
    """

    def __init__(self, env: AnyEnv, seed: int, known: Task) -> None:
        super().__init__(env, seed)
        self.known = known
        self.choose = attribute(env, "optimal_action")

    def action(self) -> Any:
        """The optimal action for what was observed last."""
        action = self.choose(self.known, self.last.observation)
        if isinstance(self.space, gym.spaces.Box):
            return np.clip(action, self.space.low, self.space.high).astype(self.space.dtype)
        return action


def random_action(space: gym.Space[Any], mask: Any) -> Any:
    """A random action, among those that ``mask`` allows where there is one."""
    if mask is None or not isinstance(space, gym.spaces.Discrete):
        return space.sample()
    return space.sample(mask=np.asarray(mask, dtype=np.int8))


def rollout(
    env: AnyEnv, *, seed: int | None = None, task: Task | None = None, n_steps: int = 50
) -> list[Step]:
    """An episode of random actions (at most ``n_steps``), its reset first."""
    player = Player(env, 0 if seed is None else seed)
    first = player.reset(seed=seed, task=task)
    return [first, *player.play(n_steps)]


def require_same(first: list[Step], second: list[Step], message: str) -> None:
    """Raise with the first difference of two rollouts."""
    require(len(first) == len(second), f"{message}: {len(first)} steps against {len(second)}")
    for index, rows in enumerate(zip(first, second, strict=True)):
        for name, left, right in zip(Step._fields, *rows, strict=True):
            if not is_same(left, right):
                require(False, f"{message}: {name} {left} against {right} at step {index}")
