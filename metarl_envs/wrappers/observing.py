"""What an observation shows: the last transition, or the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatdim, flatten, flatten_space
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from metarl_envs.core import Task
from metarl_envs.wrappers.base import AnyEnv, StepResult, TaskWrapper, require_task_env


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
        check_reward_scale(reward_scale)
        RecordConstructorArgs.__init__(self, reward_scale=reward_scale)
        super().__init__(env)
        self.reward_scale = float(reward_scale)
        self.observation_space, self.observation_layout = transition_box(
            env.observation_space, env.action_space
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode: the previous action, reward and done flag are zero."""
        observation, info = self.env.reset(seed=seed, options=options)
        none = np.zeros(flatdim(self.env.action_space))
        return self._append(observation, none, 0.0, False), info

    def step(self, action: Any) -> StepResult:
        """Step the env and append what led to the new observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done = bool(info.get("episode_done", terminated or truncated))
        if isinstance(self.env.action_space, gym.spaces.Discrete):
            # Unsigned ones become floats in Gymnasium's flatten, which are no index.
            action = np.asarray(action, dtype=self.env.action_space.dtype)
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
        require_task_env(env, "ObserveTask")
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


def transition_box(
    observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> tuple[gym.spaces.Box, dict[str, slice]]:
    """What :class:`ObserveTransition` shows, and where in it observation, action, reward and done
    are.

    :param observation_space: of the env inside
    :param action_space: of the env inside
    """
    inner = _flat_box(observation_space, "observation")
    action = _flat_box(action_space, "action")
    reward = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    done = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
    boxes = {"observation": inner, "action": action, "reward": reward, "done": done}
    space = _join(list(boxes.values()), _float_dtype(inner))
    return space, _layout({name: box.shape[0] for name, box in boxes.items()})


def check_reward_scale(reward_scale: float) -> None:
    """``ValueError`` where ``reward_scale`` is no positive finite number."""
    if not (isinstance(reward_scale, Real) and 0 < reward_scale < np.inf):
        raise ValueError(f"reward_scale={reward_scale!r} must be positive and finite")


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
        name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)
    }
