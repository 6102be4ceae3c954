"""A batched gymnasium environment as an SB3 `VecEnv`: thousands of tasks step in one call."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from metarl_agents.common.vec_env.infos import info_dicts, lazy_info_dicts

RENDER_MODE = "rgb_array"


def autoreset_mode(vector_env: VectorEnv[Any, Any, Any]) -> AutoresetMode | None:
    """When the vector env resets a finished sub-environment; None where it does not say.

    :param vector_env: a gymnasium vector env
    """
    mode = (vector_env.metadata or {}).get("autoreset_mode")
    return None if mode is None else AutoresetMode(mode)


class TaskVecEnv(VecEnv):
    """A gymnasium `VectorEnv` with autoreset SAME_STEP as an SB3 `VecEnv`.

    `env_method("set_task", task, indices=i)`, `("get_task")` and `("action_masks")` are translated
    to the batched methods of `TaskVectorEnv`; any other method is called once and its result
    repeated. Over a `SyncVectorEnv` they are those of the single sub-environments. Infos of
    episodes that autoresets began may lack `task`: `env_method("get_task")` gives it.

    :param vector_env: the env to adapt
    :param monitor: whether infos carry `episode` statistics, as SB3's `Monitor` writes them
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any], *, monitor: bool = True) -> None:
        mode = autoreset_mode(vector_env)
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"the vector env resets in mode {mode}, but collectors need SAME_STEP: "
                "make it with autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
            )
        self.vector_env = vector_env
        self.monitor = monitor
        self._start_time = time.time()
        self._actions = np.zeros(0)
        super().__init__(
            vector_env.num_envs,
            vector_env.single_observation_space,
            vector_env.single_action_space,
        )
        self._clear_statistics()

    @property
    def spec(self) -> Any:
        """The registration of the env, None where it has none."""
        return self.vector_env.spec

    @property
    def takes_task_options(self) -> bool:
        """Whether `set_options` can give each sub-environment its own task."""
        return self._sub_envs() is None or self.num_envs == 1

    def reset(self) -> VecEnvObs:
        """Resets all sub-environments with the seeds and options set before, and forgets these."""
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        reset: Callable[..., Any] = self.vector_env.reset
        observations, infos = reset(seed=seeds, options=self._vector_options())
        self.reset_infos = info_dicts(infos, self.num_envs)
        self._clear_statistics()
        self._reset_seeds()
        self._reset_options()
        return _copied(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Takes the actions that `step_wait` plays.

        :param actions: (B, *action_shape)
        """
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Plays the actions; finished sub-environments already show their next episode."""
        step = self.vector_env.step(self._actions)
        observations, rewards, terminated, truncated, vector_infos = step
        dones = np.logical_or(terminated, truncated)
        vector_infos = {**vector_infos, "TimeLimit.truncated": truncated & ~terminated}
        ended = np.flatnonzero(dones).tolist()
        infos = (info_dicts if ended else lazy_info_dicts)(vector_infos, self.num_envs)
        for i in ended:
            infos[i] = self._ended(i, infos[i])
        if self.monitor:
            self._add_statistics(rewards, dones, infos)
        return _copied(observations), np.asarray(rewards, dtype=np.float32), dones, infos

    def close(self) -> None:
        """Closes the vector env."""
        self.vector_env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One frame per sub-environment, None for each where the env draws no images."""
        frames = self.vector_env.render() if self.render_mode == RENDER_MODE else None
        if frames is None:
            return [None] * self.num_envs
        return [np.asarray(frame) for frame in frames]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of each sub-environment; one that belongs to the whole batch is repeated.

        :param attr_name: name of the attribute or method
        :param indices: which sub-environments; None for all
        """
        rows = self._rows(indices)
        envs = self._sub_envs()
        if envs is not None:
            return [envs[i].get_wrapper_attr(attr_name) for i in rows]
        if attr_name in ("set_task", "get_task", "action_masks") and self._translates(attr_name):
            return [partial(self._call_one, attr_name, i) for i in rows]
        if attr_name == "pinned_task":
            pinned = self._pinned_tasks()
            return [pinned[i] for i in rows]
        return [_attribute(self.vector_env, attr_name)] * len(rows)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the env (tasks are set by `env_method("set_task", task)`).

        :param attr_name: name of the attribute
        :param value: the same for all `indices`
        :param indices: which sub-environments; None for all
        """
        if attr_name == "task":
            raise ValueError('set tasks with env_method("set_task", task, indices=i), not set_attr')
        rows, envs = self._rows(indices), self._sub_envs()
        if envs is not None:
            for i in rows:
                envs[i].set_wrapper_attr(attr_name, value)
        elif rows == list(range(self.num_envs)):
            setattr(self.vector_env.unwrapped, attr_name, value)
        else:
            raise ValueError(
                f"indices={rows}: a batched env has one {attr_name} for all {self.num_envs} "
                "sub-environments; leave indices out"
            )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """The results of a method, one per sub-environment.

        :param method_name: name of the method
        :param method_args: its arguments
        :param indices: which sub-environments; None for all
        :param method_kwargs: its keyword arguments
        """
        rows, envs = self._rows(indices), self._sub_envs()
        if envs is not None:
            methods = [envs[i].get_wrapper_attr(method_name) for i in rows]
            return [method(*method_args, **method_kwargs) for method in methods]
        if self._translates(method_name):
            return self._call_batched(method_name, rows, *method_args, **method_kwargs)
        result = _attribute(self.vector_env, method_name)(*method_args, **method_kwargs)
        return [result] * len(rows)

    def set_tasks(self, tasks: Sequence[Any]) -> None:
        """Pins one task (or None) per sub-environment, in one call where the env has one.

        :param tasks: one per sub-environment
        """
        if self._sub_envs() is None and self._translates("set_task"):
            _attribute(self.vector_env, "set_tasks")(list(tasks))
            return
        for i, task in enumerate(tasks):
            self.env_method("set_task", task, indices=[i])

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether the sub-environments have a wrapper; `Monitor` where `monitor` does its work.

        :param wrapper_class: the wrapper looked for
        :param indices: which sub-environments; None for all
        """
        rows = self._rows(indices)
        if issubclass(Monitor, wrapper_class) and self.monitor:
            return [True] * len(rows)
        envs = self._sub_envs()
        if envs is None:
            return [False] * len(rows)
        return [_is_wrapped(envs[i], wrapper_class) for i in rows]

    def _rows(self, indices: VecEnvIndices) -> list[int]:
        if isinstance(indices, np.integer):
            indices = int(indices)
        rows = [int(i) for i in self._get_indices(indices)]
        if any(not -self.num_envs <= i < self.num_envs for i in rows):
            raise IndexError(f"indices={rows} must lie in [0, num_envs={self.num_envs})")
        return [i % self.num_envs for i in rows]

    def _pinned_tasks(self) -> Sequence[Any]:
        try:
            pinned: Sequence[Any] = _attribute(self.vector_env, "pinned_tasks")
        except AttributeError:
            # The env does not tell, or has no tasks.
            return [None] * self.num_envs
        return pinned

    def _sub_envs(self) -> Sequence[gym.Env[Any, Any]] | None:
        return getattr(self.vector_env.unwrapped, "envs", None)

    def _translates(self, name: str) -> bool:
        batched = {"set_task": "set_tasks", "get_task": "get_tasks", "action_masks": "action_masks"}
        return name in batched and hasattr(self.vector_env.unwrapped, batched[name])

    def _call_one(self, name: str, row: int, *args: Any, **kwargs: Any) -> Any:
        return self.env_method(name, *args, indices=[row], **kwargs)[0]

    def _call_batched(self, name: str, rows: list[int], *args: Any, **kwargs: Any) -> list[Any]:
        env: Any = self.vector_env
        if name == "set_task":
            _attribute(env, "set_tasks")(list(args) * len(rows), indices=rows)
            return [None] * len(rows)
        if name == "get_task":
            tasks = _attribute(env, "get_tasks")()
            return [tasks[i] for i in rows]
        masks = _attribute(env, "action_masks")(*args, **kwargs)
        return [masks] * len(rows) if args or kwargs else [masks[i] for i in rows]

    def _vector_options(self) -> dict[str, Any] | None:
        if not any(self._options):
            return None
        shared = [_without(options, "task") for options in self._options]
        if any(other != shared[0] for other in shared[1:]):
            raise ValueError(
                "reset options other than `task` must be the same for all sub-environments of a "
                f"batched env, got {shared}"
            )
        tasks = [options.get("task") for options in self._options]
        if all(task is None for task in tasks):
            return shared[0]
        if self._sub_envs() is None:
            return {**shared[0], "tasks": tasks}
        if self.num_envs == 1:
            return self._options[0]
        raise ValueError(
            "a SyncVectorEnv passes one set of reset options to all sub-environments: pin tasks by "
            "env_method('set_task', task, indices=i), or use Stable-Baselines3's DummyVecEnv"
        )

    def _ended(self, i: int, info: dict[str, Any]) -> dict[str, Any]:
        """The info of the step that ended an episode; what tells of the next one is put aside."""
        self.reset_infos[i] = _without(
            info, "TimeLimit.truncated", "final_obs", "final_info", "episode"
        )
        return {
            # Gymnasium's RecordEpisodeStatistics writes beside what the new episode tells.
            **({"episode": info["episode"]} if "episode" in info else {}),
            **info.get("final_info", {}),
            "TimeLimit.truncated": info["TimeLimit.truncated"],
            "terminal_observation": info["final_obs"],
        }

    def _clear_statistics(self) -> None:
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)

    def _add_statistics(
        self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        self._returns += rewards
        self._lengths += 1
        elapsed = round(time.time() - self._start_time, 6)
        for i in np.flatnonzero(dones).tolist():
            statistics = {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i])}
            infos[i]["episode"] = {**statistics, "t": elapsed}
        self._returns[dones] = 0.0
        self._lengths[dones] = 0


def _attribute(env: Any, name: str) -> Any:
    """The attribute of the outermost wrapper that has it."""
    while not hasattr(env, name) and isinstance(env, VectorWrapper):
        env = env.env
    return getattr(env, name)


def _is_wrapped(env: Any, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in names}


def _copied(observations: Any) -> Any:
    """SB3's buffers keep what they are given, and vector envs may write over theirs."""
    if isinstance(observations, Mapping):
        return {key: np.array(value) for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(np.array(value) for value in observations)
    return np.array(observations)
