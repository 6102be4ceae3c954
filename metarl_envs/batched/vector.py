"""The vector environment of tabular families: one batched NumPy step for all sub-environments.

Shapes: B sub-environments, A actions.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl_envs.batched.checking import check_counts
from metarl_envs.batched.env import (
    FamilyEnv,
    checked_actions,
    checked_render_mode,
    hand_on_family,
    json_spec,
    made_family,
    warn_no_render_mode,
)
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.batched.requests import checked_list, checked_mask, checked_seeds
from metarl_envs.batched.uniforms import UniformBuffers
from metarl_envs.core import BoolArray, FloatArray, IntArray, Split, Task, task_id
from metarl_envs.distributions import TaskMode, TaskStream, check_task, task_arrays

_BLOCK = 64


class FamilyVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """B environments of one tabular family, each with its own task, stepped together.

    Sub-environment i of `reset(seed=s)` is bit for bit the single environment of `reset(seed=s +
    i)`.

    A subclass names its `family_class`, and its constructor takes the arguments of that class.

    :param num_envs: B
    :param family: the dynamics and the task distribution; by default, those of `family_class`
    :param task_mode: "resample" draws a new task for every episode, "fixed" keeps each
        sub-environment's first one
    :param autoreset_mode: what happens to sub-environments whose episode ended; the default
        `SAME_STEP` returns the first observation of the next episode, and the last one of the old
        in `infos["final_obs"]`
    :param render_mode: `None`, "ansi" or "rgb_array"
    :param max_episode_steps: steps after which an episode is truncated, as `TimeLimit` does
    :param family_arguments: of `family_class`
    """

    family_class: type[Family]
    metadata: dict[str, Any] = FamilyEnv.metadata
    _spec: EnvSpec | None = None

    def __init__(
        self,
        num_envs: int = 1,
        *,
        family: Family | None = None,
        task_mode: TaskMode = "resample",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **family_arguments: Any,
    ) -> None:
        check_counts(num_envs=num_envs)
        if max_episode_steps is not None:
            check_counts(max_episode_steps=max_episode_steps)
        self.max_episode_steps = max_episode_steps
        family = made_family(self, family, family_arguments)
        hand_on_family(self, family)
        self.num_envs = int(num_envs)
        self.task_mode = task_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = checked_render_mode(render_mode, self.metadata["render_modes"])
        self.single_observation_space = family.observation_space
        self.single_action_space = family.action_space
        self.observation_space = batch_space(family.observation_space, self.num_envs)
        self.action_space = batch_space(family.action_space, self.num_envs)
        self._streams = [
            TaskStream(family.task_distribution, task_mode=task_mode) for _ in range(self.num_envs)
        ]
        block = max(_BLOCK, 4 * family.n_step_uniforms, family.n_reset_uniforms)
        self._uniforms = UniformBuffers(self.num_envs, block)
        self._np_random_seeds = [-1] * self.num_envs
        self._all = np.arange(self.num_envs)
        # The state of the episodes, over sub-environments.
        self._params: Params = {}
        self._states: Array = np.empty(0)
        self._stages = np.zeros(self.num_envs, dtype=np.int64)
        self._task_ids = np.zeros(self.num_envs, dtype=np.int64)
        self._done = np.zeros(self.num_envs, dtype=np.bool_)
        self._was_reset = np.zeros(self.num_envs, dtype=np.bool_)
        self._last_actions: Array = np.zeros(self.num_envs, dtype=np.int64)
        self._last_rewards = np.zeros(self.num_envs)
        self._returns = np.zeros(self.num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Begins an episode in every sub-environment, or in those of `options["reset_mask"]`.

        :param seed: `s` seeds sub-environment i with `s + i`; a list gives each its own; `None`
            lets the generators go on
        :param options: `{"tasks": [...]}` sets the task of each sub-environment for this episode
            only (`None`: as usual), `{"task": t}` one for all; `{"reset_mask": (B,) bool}` resets
            only some
        """
        options = options or {}
        mask = checked_mask(options.get("reset_mask"), self.num_envs)
        tasks = self._reset_tasks(options)
        seeds = checked_seeds(seed, self.num_envs)
        for i in np.flatnonzero(mask):
            if seeds[i] is not None or self._uniforms.generators[i] is None:
                self._seed_one(int(i), seeds[i])
        indices = np.flatnonzero(mask)
        self._begin_episodes(indices, [tasks[i] for i in indices])
        infos = self._infos()
        self._add_tasks(infos, indices)
        return self._observations(), infos

    def step(self, actions: Any) -> tuple[Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Plays one action per sub-environment.

        :param actions: (B,) or (B, *action_shape); `ValueError` where one lies outside the action
            space
        """
        if not self._was_reset.all():
            raise gym.error.ResetNeeded(
                "some sub-environments have no episode yet: call reset() before step()"
            )
        checked = checked_actions(self.single_action_space, actions, (self.num_envs,))
        ended = np.flatnonzero(self._done)
        if ended.size and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                f"the episodes of sub-environments {ended.tolist()} are over: "
                'call reset(options={"reset_mask": mask})'
            )
        rewards, terminated = self._advance(checked, ended)
        truncated = ~terminated & (self._stages >= self.family.horizon)
        if self.max_episode_steps is not None:
            # As in TimeLimit, the step that terminates at the limit is truncated, too.
            truncated |= self._stages >= self.max_episode_steps
        self._done = terminated | truncated
        infos = self._autoreset(ended)
        return self._observations(), rewards, terminated, truncated, infos

    def sample_tasks(
        self, n: int, *, seed: int | None = None, split: Split = "train"
    ) -> list[Task]:
        """`n` tasks from the distribution.

        :param n: how many
        :param seed: of a stream of its own; without one, the task generator of sub-environment 0
            goes on
        :param split: the streams of "train" and "test" are disjoint
        """
        if seed is None and not self._streams[0].is_seeded:
            self._seed_one(0, None)
        return self._streams[0].sample(n, seed=seed, split=split)

    def set_tasks(
        self, tasks: Sequence[Task | None], *, indices: Sequence[int] | None = None
    ) -> None:
        """Pins a task per sub-environment from its next reset on, auto-resets included; `None`
        unpins.

        :param tasks: one per sub-environment, or one per index
        :param indices: of which sub-environments; all of them where absent
        """
        where = list(range(self.num_envs)) if indices is None else [int(i) for i in indices]
        tasks = checked_list(tasks, "tasks")
        if len(tasks) != len(where):
            raise ValueError(
                f"{len(tasks)} tasks for {len(where)} sub-environments: "
                "give one task (or None) for each"
            )
        if not all(0 <= i < self.num_envs for i in where):
            raise ValueError(f"indices={where} must lie in [0, num_envs={self.num_envs})")
        self._check_tasks(tasks)
        for i, task in zip(where, tasks, strict=True):
            self._streams[i].pinned = task

    def get_tasks(self) -> list[Task]:
        """The tasks of the running episodes, one per sub-environment; before the first reset, the
        pinned ones.
        """
        return [stream.get_task() for stream in self._streams]

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each sub-environment's generator, as `SyncVectorEnv` gives it."""
        for i in self._all:
            if self._uniforms.generators[i] is None:
                self._seed_one(int(i), None)
        return tuple(self._np_random_seeds)

    @property
    def spec(self) -> EnvSpec | None:
        """The spec that made this environment."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = json_spec(spec)

    @property
    def pinned_tasks(self) -> list[Task | None]:
        """The tasks that `set_tasks` pinned, None for each sub-environment where none is."""
        return [stream.pinned for stream in self._streams]

    def action_masks(self, observations: Array | None = None) -> BoolArray:
        """Which actions are allowed, (..., A); without an argument in the current states, (B, A).

        :param observations: (..., *obs_shape)
        """
        if observations is None:
            self._require_reset("action_masks")
            observations = self._observations()
        return self.family.action_masks(np.asarray(observations))

    def render(self) -> tuple[Any, ...] | None:
        """One frame per sub-environment, as the single environment renders it."""
        if self.render_mode is None:
            warn_no_render_mode(self.spec.id if self.spec else type(self).__name__)
            return None
        self._require_reset("render")
        observations, masks = self._observations(), self._infos().get("action_mask")
        draw = self.family.render_ansi if self.render_mode == "ansi" else self.family.render_rgb
        return tuple(
            draw(
                View(
                    observations[i],
                    int(self._stages[i]),
                    None if self._stages[i] == 0 else self._last_actions[i],
                    float(self._last_rewards[i]),
                    float(self._returns[i]),
                    None if masks is None else masks[i].astype(np.bool_),
                )
            )
            for i in range(self.num_envs)
        )

    def _reset_tasks(self, options: dict[str, Any]) -> list[Task | None]:
        if "tasks" not in options:
            self._check_tasks([options.get("task")])
            return [options.get("task")] * self.num_envs
        tasks = checked_list(options["tasks"], 'options["tasks"]')
        self._check_tasks(tasks)
        if len(tasks) != self.num_envs:
            raise ValueError(
                f'options["tasks"] has {len(tasks)} entries: '
                f"give one task (or None) for each of {self.num_envs}"
            )
        return tasks

    def _check_tasks(self, tasks: Sequence[Task | None]) -> None:
        """Checks all before anything changes."""
        for task in tasks:
            if task is not None:
                check_task(self.task_distribution, task)

    def _seed_one(self, index: int, seed: int | None) -> None:
        generator, self._np_random_seeds[index] = seeding.np_random(seed)
        self._uniforms.seed(index, generator)
        self._streams[index].seed(self._np_random_seeds[index])

    def _begin_episodes(self, indices: IntArray, tasks: Sequence[Task | None]) -> None:
        if not indices.size:
            return
        self._begin_tasks(indices, tasks)
        params = {name: param[indices] for name, param in self._params.items()}
        states = self.family.initial(
            params, self._uniforms.take(indices, self.family.n_reset_uniforms)
        )
        if self._states.shape[1:] != states.shape[1:] or len(self._states) != self.num_envs:
            self._states = np.zeros((self.num_envs, *states.shape[1:]), states.dtype)
        self._states[indices] = states
        self._stages[indices] = 0
        self._done[indices] = False
        self._was_reset[indices] = True
        self._last_rewards[indices] = self._returns[indices] = 0.0

    def _begin_tasks(self, indices: IntArray, tasks: Sequence[Task | None]) -> None:
        """The tasks of new episodes; one that goes on, as a pinned one does, is not compiled
        again.
        """
        before = [self._streams[i].current for i in indices]
        begun = [
            self._streams[i].begin_episode(task) for i, task in zip(indices, tasks, strict=True)
        ]
        is_new = np.array([new is not old for new, old in zip(begun, before, strict=True)])
        if not is_new.any():
            return
        new = [task for task, flag in zip(begun, is_new, strict=True) if flag]
        params = self.family.compile(task_arrays(self.task_distribution, new))
        if not self._params:
            self._params = {
                name: np.zeros((self.num_envs, *p.shape[1:]), p.dtype) for name, p in params.items()
            }
        for name, param in params.items():
            self._params[name][indices[is_new]] = param
        self._task_ids[indices[is_new]] = [task_id(task) for task in new]

    def _advance(self, actions: Array, ended: IntArray) -> tuple[FloatArray, BoolArray]:
        """Steps the running sub-environments; those in `ended` (NEXT_STEP mode) begin anew
        instead.
        """
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        running = self._all if not ended.size else np.flatnonzero(~self._done)
        every = not ended.size
        params = (
            self._params
            if every
            else {name: param[running] for name, param in self._params.items()}
        )
        uniforms = self._uniforms.take(running, self.family.n_step_uniforms)
        states, rewards[running], terminated[running] = self.family.step(
            params, self._states[running], self._stages[running], actions[running], uniforms
        )
        if every:
            self._states = states
        else:
            self._states[running] = states
        self._stages[running] += 1
        self._last_actions, self._last_rewards = actions.copy(), rewards.copy()
        self._returns = self._returns + rewards
        self._begin_episodes(ended, [None] * len(ended))
        return rewards, terminated

    def _autoreset(self, ended: IntArray) -> dict[str, Any]:
        """The infos of a step; in SAME_STEP mode the episodes that ended now begin anew."""
        finished = np.flatnonzero(self._done)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP or not finished.size:
            infos = self._infos()
            self._add_tasks(infos, ended)
            return infos
        final_obs = np.full(self.num_envs, None, dtype=object)
        observations = self._observations()
        for i in finished:
            final_obs[i] = observations[i]
        final_info = self._infos(self._done)
        done = self._done.copy()
        self._begin_episodes(finished, [None] * len(finished))
        infos = self._infos()
        self._add_tasks(infos, finished)
        return infos | {
            "final_obs": final_obs,
            "_final_obs": done,
            "final_info": final_info,
            "_final_info": done.copy(),
        }

    def _observations(self) -> Array:
        return self.family.observe(self._states, self._stages)

    def _infos(self, mask: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        infos = {"task_id": self._task_ids.copy(), **self.family.infos(self._states, self._stages)}
        present = self._was_reset if mask is None else mask
        return infos | {f"_{name}": present.copy() for name in infos}

    def _add_tasks(self, infos: dict[str, Any], indices: IntArray) -> None:
        if not len(indices):
            return
        infos["task"], infos["_task"] = (
            np.full(self.num_envs, None, dtype=object),
            np.zeros(self.num_envs, np.bool_),
        )
        for i in indices:
            infos["task"][i] = self._streams[i].current
        infos["_task"][indices] = True

    def _require_reset(self, name: str) -> None:
        if not self._was_reset.all():
            raise gym.error.ResetNeeded(
                f"there are no current states yet: call reset() before {name}()"
            )
