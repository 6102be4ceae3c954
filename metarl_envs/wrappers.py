"""Gymnasium wrappers for task environments: what a task, a trial and an observation are.

The order for learners that infer the task from experience is
``ObserveTransition(ResampleTask(Trial(TimeLimit(env))))``, which :func:`belief_mdp` applies. Every
wrapper forwards ``task_distribution``, ``sample_tasks``, ``set_task`` and ``get_task``, survives
``pickle`` and records its arguments, so that ``env.spec.to_json()`` works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatten, flatten_space
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from metarl_envs.core import Task, TaskDistribution

AnyEnv: TypeAlias = gym.Env[Any, Any]
StepResult: TypeAlias = tuple[Any, float, bool, bool, dict[str, Any]]
ResetMode: TypeAlias = Literal["true_start", "wasted_step"]
TaskOrder: TypeAlias = Literal["random", "cycle"]

_RESAMPLE_STREAM = 0x7A5C  # spawn key: no other generator is spawned from a reset seed by this key


class TaskWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Forwards the task interface, which Gymnasium's own wrappers hide."""

    @property
    def task_distribution(self) -> TaskDistribution:
        """Distribution that the env's tasks come from."""
        return self.env.get_wrapper_attr("task_distribution")

    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train") -> list[Task]:
        """Tasks drawn by the env's own ``sample_tasks``.

        :param n: how many
        :param seed: seed of the draw; ``None`` consumes the env's own task generator
        :param split: ``"train"`` or ``"test"``: disjoint streams
        """
        chosen = {} if split == "train" else {"split": split}
        return self.env.get_wrapper_attr("sample_tasks")(n, seed=seed, **chosen)

    def set_task(self, task: Task | None) -> None:
        """Pin ``task`` from the next reset on; ``None`` unpins."""
        self.env.get_wrapper_attr("set_task")(task)

    def get_task(self) -> Task:
        """Task of the running episode."""
        return self.env.get_wrapper_attr("get_task")()


class ResampleTask(TaskWrapper):
    """Draws a new task every ``n_episodes`` resets, whatever the env's own ``task_mode``.

    A seeded reset starts a new block, and the tasks follow from its seed. ``set_task`` on this
    wrapper pins a task as ever; ``reset(options={"task": t})`` sets one for that episode and does
    not count.

    :param env: a task env
    :param n_episodes: resets that share one task
    :param tasks: draw from these (tasks, or their arrays) instead of the env's own distribution
    :param order: ``"random"`` draws uniformly from ``tasks``, ``"cycle"`` goes through them in turn
    """

    def __init__(
        self,
        env: AnyEnv,
        n_episodes: int = 1,
        *,
        tasks: Sequence[Task | Sequence[float]] | None = None,
        order: TaskOrder = "random",
    ) -> None:
        _require_task_env(env, "ResampleTask")
        _require_count(n_episodes, "n_episodes")
        _require_choice(order, "order", get_args(TaskOrder))
        listed = None if tasks is None else _as_tasks(env, tasks)
        arrays = None if listed is None else [task.to_array().tolist() for task in listed]
        RecordConstructorArgs.__init__(self, n_episodes=n_episodes, tasks=arrays, order=order)
        super().__init__(env)
        self.n_episodes = n_episodes
        self.tasks = listed
        self.order = order
        self._pinned = False
        self._start_stream(np.random.SeedSequence())

    def set_task(self, task: Task | None) -> None:
        """Pin ``task`` from the next reset on; ``None`` unpins, and a new block starts."""
        super().set_task(task)
        self._pinned = task is not None
        self._task = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, on a new task where a block of ``n_episodes`` begins."""
        if seed is not None:
            self._start_stream(np.random.SeedSequence(seed, spawn_key=(_RESAMPLE_STREAM,)))
        if self._pinned or (options is not None and options.get("task") is not None):
            return self.env.reset(seed=seed, options=options)
        if self._task is None or self._n_started >= self.n_episodes:
            self._task, self._n_started = self._draw(), 0
        self._n_started += 1
        return self.env.reset(seed=seed, options={**(options or {}), "task": self._task})

    def _start_stream(self, seed: np.random.SeedSequence) -> None:
        self._generator = np.random.default_rng(seed)
        self._task: Task | None = None
        self._n_started = 0
        self._n_drawn = 0

    def _draw(self) -> Task:
        if self.tasks is None:
            return self.sample_tasks(1, seed=int(self._generator.integers(2**53)))[0]
        self._n_drawn += 1
        if self.order == "cycle":
            return self.tasks[(self._n_drawn - 1) % len(self.tasks)]
        return self.tasks[int(self._generator.integers(len(self.tasks)))]


class Trial(TaskWrapper):
    """Makes ``n_episodes`` episodes of one task a single episode: the trial.

    An inner episode that ends is followed by an inner reset within the same step. With
    ``reset_mode="true_start"`` that step returns the true first observation of the new inner
    episode, so no action is ever taken blindly; the last observation of the old one is
    ``info["inner_final_obs"]``. With ``"wasted_step"`` it returns the last observation of the old
    episode, and the next action, which already acts on the new one, is chosen without seeing its
    start (``info["start_obs"]``), as in the reference code of VariBAD (Zintgraf et al., 2020,
    https://github.com/lmzintgraf/varibad, ``VariBadWrapper``).

    A trial ends as ``terminated``, since its budget is part of the problem, however its last
    episode ended: ``info["inner_episode"]`` keeps that apart. Put a ``TimeLimit`` inside, not
    outside. ``set_task`` during a trial takes effect at the next trial.

    ``info["episode_done"]`` says whether the step ended an inner episode, and then
    ``info["inner_episode"]`` holds its index ``k``, return ``r``, length ``l``, ``terminated`` and
    ``truncated``.

    :param env: a task env whose episodes end
    :param n_episodes: inner episodes per trial (K)
    :param reset_mode: ``"true_start"`` or ``"wasted_step"``
    """

    def __init__(
        self, env: AnyEnv, n_episodes: int, *, reset_mode: ResetMode = "true_start"
    ) -> None:
        _require_task_env(env, "Trial")
        _require_count(n_episodes, "n_episodes")
        _require_choice(reset_mode, "reset_mode", get_args(ResetMode))
        RecordConstructorArgs.__init__(self, n_episodes=n_episodes, reset_mode=reset_mode)
        super().__init__(env)
        self.n_episodes = n_episodes
        self.reset_mode = reset_mode
        self._task: Task | None = None
        self._start_episode(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a trial: the first of its inner episodes."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._task = self.get_task()
        self._start_episode(0)
        return observation, {**info, "episode_done": False}

    def step(self, action: Any) -> StepResult:
        """Step the inner env; begin its next episode where one ended."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        if not (terminated or truncated):
            return observation, float(reward), False, False, {**info, "episode_done": False}
        info = {**info, "episode_done": True, "inner_episode": self._summary(terminated, truncated)}
        self._start_episode(self._episode + 1)
        if self._episode >= self.n_episodes:
            return observation, float(reward), True, False, info
        observation, info = self._reset_inner(observation, info)
        return observation, float(reward), False, False, info

    def _start_episode(self, index: int) -> None:
        self._episode = index
        self._return = 0.0
        self._length = 0

    def _summary(self, terminated: bool, truncated: bool) -> dict[str, Any]:
        return {
            "k": self._episode,
            "r": self._return,
            "l": self._length,
            "terminated": bool(terminated),
            "truncated": bool(truncated),
        }

    def _reset_inner(self, final: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        start, start_info = self.env.reset(options={"task": self._task})
        # What describes the current state (masks, stage) is the new episode's; the task itself is
        # named at the reset of a trial only.
        info |= {key: value for key, value in start_info.items() if key != "task"}
        if self.reset_mode == "true_start":
            return start, info | {"inner_final_obs": final, "episode_done": True}
        return final, info | {"start_obs": start, "episode_done": True}


class ObserveTransition(TaskWrapper):
    """Appends the previous action, reward and done flag to the observation, as one flat Box.

    Discrete actions and observations become one-hot. All three are zero at a reset, as in RL²
    (Duan et al., 2016, https://arxiv.org/abs/1611.02779). The flag marks the end of an inner
    episode when a :class:`Trial` is inside. ``observation_layout`` names the slices:
    ``observation``, ``action``, ``reward``, ``done``.

    :param env: any env with flattenable spaces
    :param reward_scale: factor on the reward within the observation
    """

    def __init__(self, env: AnyEnv, *, reward_scale: float = 1.0) -> None:
        if not (np.isfinite(reward_scale) and reward_scale > 0):
            raise ValueError(f"reward_scale={reward_scale} must be positive and finite")
        RecordConstructorArgs.__init__(self, reward_scale=reward_scale)
        super().__init__(env)
        self.reward_scale = reward_scale
        inner = _flat_box(env.observation_space, "observation")
        action = _flat_box(env.action_space, "action")
        reward = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        done = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
        boxes = {"observation": inner, "action": action, "reward": reward, "done": done}
        self.observation_space = _join(list(boxes.values()), _float_dtype(inner))
        self.observation_layout = _layout({name: box.shape[0] for name, box in boxes.items()})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode: the previous action, reward and done flag are zero."""
        observation, info = self.env.reset(seed=seed, options=options)
        n_action = flatten_space(self.env.action_space).shape
        return self._append(observation, np.zeros(n_action), 0.0, False), info

    def step(self, action: Any) -> StepResult:
        """Step the env and append what led to the new observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done = bool(info.get("episode_done", terminated or truncated))
        taken = flatten(self.env.action_space, action)
        seen = self._append(observation, np.asarray(taken), float(reward), done)
        return seen, float(reward), terminated, truncated, info

    def _append(
        self, observation: Any, action: NDArray[Any], reward: float, done: bool
    ) -> NDArray[Any]:
        tail = [self.reward_scale * reward, float(done)]
        flat = np.asarray(flatten(self.env.observation_space, observation))
        return np.concatenate([flat, action, tail]).astype(self.observation_space.dtype)


class ObserveTask(TaskWrapper):
    """Shows the task to the agent: the only wrapper that may.

    Dict observations gain an entry; any other observation is flattened (discrete ones become
    one-hot) and the task's array appended. ``observation_layout`` names the slices
    ``observation`` and ``task``.

    :param env: a task env
    :param key: name of the task's entry in a Dict observation
    """

    def __init__(self, env: AnyEnv, *, key: str = "task") -> None:
        _require_task_env(env, "ObserveTask")
        RecordConstructorArgs.__init__(self, key=key)
        super().__init__(env)
        self.key = key
        self._shown: tuple[Task, NDArray[np.float64]] | None = None
        inner, task = env.observation_space, _task_box(self.task_distribution.space)
        if isinstance(inner, gym.spaces.Dict):
            if key in inner.spaces:
                raise ValueError(f"key={key!r} is an entry of the observation already; rename it")
            self.observation_space = gym.spaces.Dict({**inner.spaces, key: task})
            return
        box = _flat_box(inner, "observation")
        self.observation_space = _join([box, task], _float_dtype(box))
        self.observation_layout = _layout({"observation": box.shape[0], "task": task.shape[0]})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode and show its task."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._show(observation), info

    def step(self, action: Any) -> StepResult:
        """Step the env and show the task of the observation that is returned."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._show(observation), float(reward), terminated, truncated, info

    def _show(self, observation: Any) -> Any:
        task = self.get_task()
        if self._shown is None or self._shown[0] is not task:
            self._shown = (task, np.asarray(task.to_array(), dtype=np.float64))
        array = self._shown[1]
        if isinstance(self.observation_space, gym.spaces.Dict):
            return {**observation, self.key: array.copy()}
        flat = np.asarray(flatten(self.env.observation_space, observation))
        return np.concatenate([flat, array]).astype(self.observation_space.dtype)


def belief_mdp(
    env: str | AnyEnv,
    episodes_per_trial: int,
    *,
    max_episode_steps: int | None = None,
    reset_mode: ResetMode = "true_start",
    reward_scale: float = 1.0,
    env_kwargs: Mapping[str, Any] | None = None,
) -> AnyEnv:
    """The problem of acting well over K episodes in an unknown task, for agents with memory.

    Applies ``ObserveTransition(ResampleTask(Trial(TimeLimit(env))))``. An env in
    ``task_mode="fixed"`` keeps its first task, so ``ResampleTask`` is left out there.

    :param env: an id or a task env
    :param episodes_per_trial: inner episodes per trial (K)
    :param max_episode_steps: time limit of an inner episode, on top of any that the env has
    :param reset_mode: see :class:`Trial`
    :param reward_scale: see :class:`ObserveTransition`
    :param env_kwargs: arguments of ``gymnasium.make`` where ``env`` is an id
    """
    if isinstance(env, str):
        env = gym.make(env, **dict(env_kwargs or {}))
    elif env_kwargs:
        raise ValueError(f"env_kwargs={dict(env_kwargs)} need env to be an id, not {env}")
    if max_episode_steps is not None:
        env = gym.wrappers.TimeLimit(env, max_episode_steps)
    env = Trial(env, episodes_per_trial, reset_mode=reset_mode)
    fixed = env.has_wrapper_attr("task_mode") and env.get_wrapper_attr("task_mode") == "fixed"
    return ObserveTransition(env if fixed else ResampleTask(env), reward_scale=reward_scale)


def _require_task_env(env: AnyEnv, wrapper: str) -> None:
    needed = ("task_distribution", "sample_tasks", "set_task", "get_task")
    missing = [name for name in needed if not env.has_wrapper_attr(name)]
    if missing:
        raise TypeError(f"{wrapper} needs a task env (metarl_envs.TaskEnv); {env} lacks {missing}")


def _require_count(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive integer")


def _require_choice(value: str, name: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {choices}")


def _as_tasks(env: AnyEnv, tasks: Sequence[Task | Sequence[float]]) -> tuple[Task, ...]:
    if len(tasks) == 0:
        raise ValueError("tasks is empty; give at least one, or None for the env's own tasks")
    distribution: TaskDistribution = env.get_wrapper_attr("task_distribution")
    return tuple(
        distribution.from_array(np.asarray(task, dtype=np.float64))
        if isinstance(task, list | tuple | np.ndarray)
        else task
        for task in tasks
    )


def _flat_box(space: gym.Space[Any], name: str) -> gym.spaces.Box:
    flat = flatten_space(space) if space.is_np_flattenable else space
    if not isinstance(flat, gym.spaces.Box):
        raise TypeError(f"{name} space {space} cannot be flattened into a Box; wrap the env first")
    return flat


def _task_box(space: gym.Space[Any]) -> gym.spaces.Box:
    """Box that holds the flat array of every task in ``space``, as it is (nothing one-hot)."""
    if isinstance(space, gym.spaces.Box):
        return gym.spaces.Box(space.low.ravel(), space.high.ravel(), dtype=np.float64)
    shape = (int(np.prod(space.shape)),) if space.shape is not None else (1,)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float64)


def _float_dtype(box: gym.spaces.Box) -> type[np.floating[Any]]:
    return np.float64 if box.dtype == np.float64 else np.float32


def _join(boxes: Sequence[gym.spaces.Box], dtype: type[np.floating[Any]]) -> gym.spaces.Box:
    low = np.concatenate([box.low for box in boxes]).astype(dtype)
    high = np.concatenate([box.high for box in boxes]).astype(dtype)
    return gym.spaces.Box(low, high, dtype=dtype)


def _layout(sizes: Mapping[str, int]) -> dict[str, slice]:
    ends = np.cumsum(list(sizes.values())).tolist()
    return {
        name: slice(end - size, end)
        for (name, size), end in zip(sizes.items(), ends, strict=True)
    }
