"""The vector environment of a family: one batched NumPy step for all sub-environments.

Shapes: B sub-environments, A actions.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from metarl_envs.batched.checking import check_counts
from metarl_envs.batched.env import (
    ActionChecks,
    FamilyEnv,
    checked_render_mode,
    json_spec,
    warn_no_render_mode,
)
from metarl_envs.batched.family import Array, Family, Params
from metarl_envs.batched.hosting import hand_on_family, made_family
from metarl_envs.batched.requests import (
    check_optional_tasks,
    check_trial_options,
    checked_autoreset_mode,
    checked_indices,
    checked_list,
    checked_mask,
    checked_options,
    checked_seeds,
    checked_tasks,
)
from metarl_envs.batched.streams import TaskStreams
from metarl_envs.batched.trials import Trials
from metarl_envs.batched.uniforms import UniformBuffers
from metarl_envs.batched.views import ViewRecords
from metarl_envs.core import BoolArray, FloatArray, IntArray, Split, Task, TaskDistribution
from metarl_envs.distributions import TaskMode
from metarl_envs.wrappers.trial import ResetMode


class ParamRows(Mapping[str, Array]):
    """Rows of params, gathered when they are asked for: most families begin without."""

    def __init__(self, params: Params, rows: IntArray) -> None:
        self._params, self._rows = params, rows

    def __getitem__(self, name: str) -> Array:
        return self._params[name][self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)


class FamilyVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """B environments of one family, each with its own task, stepped together.

    Sub-environment i of `reset(seed=s)` is bit for bit the single environment of `reset(seed=s +
    i)`. A subclass names its `family_class`, and its constructor takes the arguments of that class.

    `infos` are arrays: `task_id` and what the family tells at every step, `task` (objects) at
    `reset` only; `get_tasks()` gives the tasks of episodes that began in a step.

    :param num_envs: B
    :param family: the dynamics and the task distribution; by default, those of `family_class`
    :param task_mode: "resample" draws a new task for every episode (or trial), "fixed" keeps each
        sub-environment's first one
    :param autoreset_mode: what happens to sub-environments whose episode (or trial) ended; the
        default `SAME_STEP` returns the first observation of the next one, and the last one of the
        old in `infos["final_obs"]`
    :param render_mode: `None`, "ansi" or "rgb_array"
    :param max_episode_steps: steps after which an episode is truncated, as `TimeLimit` does; not
        together with `episodes_per_trial`, whose trials it would cut
    :param episodes_per_trial: K episodes of one task make a trial, which is then what ends, as in
        `metarl_envs.belief_mdp`; `infos` hold `episode_done`, `inner_episode` and `inner_final_obs`
        as `Trial` gives them
    :param reset_mode: of trials, see `Trial`
    :param observe_transitions: whether observations of trials carry the previous action, reward and
        done flag, as `ObserveTransition` appends them
    :param reward_scale: of the reward in these observations
    :param family_arguments: of `family_class`
    """

    family_class: type[Family]
    family: Family
    task_distribution: TaskDistribution
    horizon: int
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
        episodes_per_trial: int | None = None,
        reset_mode: ResetMode = "true_start",
        observe_transitions: bool = True,
        reward_scale: float = 1.0,
        **family_arguments: Any,
    ) -> None:
        check_counts(num_envs=num_envs)
        check_trial_options(episodes_per_trial, reset_mode, observe_transitions, reward_scale)
        family = made_family(self, family, family_arguments)
        hand_on_family(self, family)
        self.num_envs = int(num_envs)
        self.task_mode = task_mode
        self.autoreset_mode = checked_autoreset_mode(autoreset_mode)
        own = {"render_fps": family.render_fps, "autoreset_mode": self.autoreset_mode}
        self.metadata = {**type(self).metadata, **own}
        self.render_mode = checked_render_mode(render_mode, self.metadata["render_modes"])
        self.max_episode_steps = max_episode_steps
        if max_episode_steps == -1:  # Gymnasium's way to say none
            max_episode_steps = self.max_episode_steps = None
        self._limit = _time_limit(max_episode_steps, episodes_per_trial, family.horizon)
        self.episodes_per_trial = episodes_per_trial
        self._trials: Trials | None = None
        self.single_observation_space = family.observation_space
        if episodes_per_trial is not None:
            self._trials = Trials(
                family,
                self.num_envs,
                episodes_per_trial,
                reset_mode=reset_mode,
                observe_transitions=observe_transitions,
                reward_scale=reward_scale,
            )
            self.single_observation_space = self._trials.observation_space
            self.observation_layout = self._trials.observation_layout
        self.single_action_space = family.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(family.action_space, self.num_envs)
        self._actions = ActionChecks(family.action_space, (self.num_envs,))
        self._tasks = TaskStreams(family.task_distribution, self.num_envs, task_mode=task_mode)
        n_most = max(family.n_step_uniforms, family.n_reset_uniforms)
        self._uniforms = UniformBuffers(self.num_envs, n_most, np.random.default_rng)
        self._np_random_seeds = [-1] * self.num_envs
        self._all = np.arange(self.num_envs)
        # The state of the episodes, over sub-environments.
        self._params: Params = {}
        self._states: Array = np.empty(0)
        self._stages = np.zeros(self.num_envs, dtype=np.int64)
        self._most_stages = 0  # or more than any of them
        self._done = np.zeros(self.num_envs, dtype=np.bool_)
        self._has_ended = False
        self._was_reset = np.zeros(self.num_envs, dtype=np.bool_)
        self._is_ready = False
        self._returns = np.zeros(self.num_envs)  # only trials ask for them
        self._records = None if render_mode is None else ViewRecords(self.num_envs)

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
        options = checked_options(options)
        mask = checked_mask(options.get("reset_mask"), self.num_envs)
        chosen = checked_tasks(self.task_distribution, options, self.num_envs)
        seeds = checked_seeds(seed, self.num_envs)
        rows = np.flatnonzero(mask)
        for i in rows.tolist():
            if seeds[i] is not None or not self._uniforms.is_seeded(i):
                self._seed_one(i, seeds[i])
        is_free = np.array([task is None for task in chosen[rows]])
        self._begin_tasks(rows[is_free], rows[~is_free], chosen)
        self._begin_episodes(rows)
        if self._trials is not None:
            self._trials.forget(rows)
        self._was_reset[rows] = True
        self._is_ready = bool(self._was_reset.all())
        self._has_ended = bool(self._done.any())
        infos = self._infos(None if mask.all() else mask)
        infos["task"], infos["_task"] = np.full(self.num_envs, None, dtype=object), mask.copy()
        for i in rows.tolist():
            infos["task"][i] = self._tasks.get_task(i)
        return self._shown(), infos

    def step(self, actions: Any) -> tuple[Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Plays one action per sub-environment.

        :param actions: (B,) or (B, *action_shape); `ValueError` where one lies outside the action
            space
        """
        if not self._is_ready:
            raise gym.error.ResetNeeded(
                "some sub-environments have no episode yet: call reset() before step()"
            )
        checked = self._actions.checked(actions)
        if self._has_ended and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                f"the episodes of sub-environments {np.flatnonzero(self._done).tolist()} are over: "
                'call reset(options={"reset_mask": mask})'
            )
        if self._trials is not None:
            self._trials.begin_step(checked)
        advance = self._advance_or_begin if self._has_ended else self._advance_all
        rewards, terminated, truncated = advance(checked)
        done = terminated | truncated
        ended = over = done.nonzero()[0]
        if self._trials is not None:
            self._trials.end_step(rewards, done)
            if ended.size:
                is_over = self._trials.end_episodes(
                    done, terminated, truncated, self._returns, self._stages
                )
                over = is_over.nonzero()[0]
                terminated, truncated = is_over, np.zeros(self.num_envs, dtype=np.bool_)
                done = is_over.copy()
        self._done, self._has_ended = done, over.size > 0
        observations, infos = self._follow(ended, over)
        return observations, rewards, terminated, truncated, infos

    def sample_tasks(
        self, n: int, *, seed: int | None = None, split: Split = "train"
    ) -> list[Task]:
        """`n` tasks from the distribution.

        :param n: how many
        :param seed: of a stream of its own; without one, the task generator of sub-environment 0
            goes on
        :param split: the streams of "train" and "test" are disjoint
        """
        if seed is None and not self._uniforms.is_seeded(0):
            self._seed_one(0, None)
        return self._tasks.sample(n, seed=seed, split=split)

    def set_tasks(
        self, tasks: Sequence[Task | None], *, indices: Sequence[int] | None = None
    ) -> None:
        """Pins a task per sub-environment from its next reset on, auto-resets included; `None`
        unpins.

        :param tasks: one per sub-environment, or one per index
        :param indices: of which sub-environments; all of them where absent
        """
        tasks = checked_list(tasks, "tasks")
        where = checked_indices(indices, len(tasks), self.num_envs)
        check_optional_tasks(self.task_distribution, tasks)
        for i, task in zip(where, tasks, strict=True):
            self._tasks.pin(i, task)

    def get_tasks(self) -> list[Task]:
        """The tasks of the running episodes, one per sub-environment; before the first reset, the
        pinned ones.
        """
        return self._tasks.get_tasks()

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each sub-environment's generator, as `SyncVectorEnv` gives it."""
        for i in range(self.num_envs):
            if not self._uniforms.is_seeded(i):
                self._seed_one(i, None)
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
        return self._tasks.pinned

    def action_masks(self, observations: Array | None = None) -> BoolArray:
        """Which actions are allowed, (..., A); without an argument in the current states, (B, A).

        :param observations: (..., *obs_shape), the family's own, without previous transitions
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
        draw = self.family.render_ansi if self.render_mode == "ansi" else self.family.render_rgb
        assert self._records is not None
        shown = (
            self._observations(),
            self._stages,
            self._infos().get("action_mask"),
            self._params,
            self._states,
        )
        return tuple(draw(self._records.view(i, *shown)) for i in range(self.num_envs))

    # Tasks

    def _seed_one(self, index: int, seed: int | None) -> None:
        generator, self._np_random_seeds[index] = seeding.np_random(seed)
        self._uniforms.seed(index, generator)
        self._tasks.seed(index, self._np_random_seeds[index])

    def _begin_tasks(
        self, drawn: IntArray, given: IntArray | None = None, chosen: Array | None = None
    ) -> None:
        """Gives new episodes their tasks, and compiles those that were not there before."""
        rows = self._tasks.begin(drawn)
        if given is not None and chosen is not None and given.size:
            rows = np.concatenate([rows, self._tasks.begin_chosen(given, chosen[given].tolist())])
        if not rows.size:
            return
        params = self.family.compile(self._tasks.arrays[rows])
        if not self._params:
            self._params = {
                name: np.zeros((self.num_envs, *p.shape[1:]), p.dtype) for name, p in params.items()
            }
        for name, param in params.items():
            self._params[name][rows] = param

    # Episodes

    def _begin_episodes(self, rows: IntArray) -> None:
        """First states, in the tasks that `_begin_tasks` gave."""
        self._begin_states(rows)
        self._done[rows] = False
        if self._trials is not None:
            self._trials.begin(rows)

    def _begin_states(self, rows: IntArray) -> None:
        uniforms = self._uniforms.take(rows, self.family.n_reset_uniforms)
        states = self.family.initial(self._params_of(rows), uniforms)
        if self._states.shape[1:] != states.shape[1:] or len(self._states) != self.num_envs:
            self._states = np.zeros((self.num_envs, *states.shape[1:]), states.dtype)
        self._states[rows] = states
        self._stages[rows] = 0
        if self._trials is not None:
            self._returns[rows] = 0.0
        if self._records is not None:
            self._records.begin(rows, self._observations())

    def _params_of(self, rows: IntArray) -> Params:
        return self._params if len(rows) == self.num_envs else ParamRows(self._params, rows)

    def _advance_all(self, actions: Array) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Steps every sub-environment; rewards, terminated and truncated, of inner episodes."""
        uniforms = self._uniforms.take_all(self.family.n_step_uniforms)
        self._states, rewards, terminated = self.family.step(
            self._params, self._states, self._stages, actions, uniforms
        )
        rewards = np.asarray(rewards, dtype=np.float64)
        self._stages = self._stages + 1
        if self._trials is not None:
            self._returns += rewards
        if self._records is not None:
            self._records.step(self._all, actions, rewards, self._observations())
        return rewards, terminated, self._truncated(terminated)

    def _advance_or_begin(self, actions: Array) -> tuple[FloatArray, BoolArray, BoolArray]:
        """In NEXT_STEP mode: steps the running sub-environments; the others begin anew instead."""
        ended, running = np.flatnonzero(self._done), np.flatnonzero(~self._done)
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        if running.size:
            uniforms = self._uniforms.take(running, self.family.n_step_uniforms)
            self._states[running], rewards[running], terminated[running] = self.family.step(
                self._params_of(running),
                self._states[running],
                self._stages[running],
                actions[running],
                uniforms,
            )
        self._stages[running] += 1
        self._returns += rewards
        truncated = self._truncated(terminated)
        if self._records is not None:
            self._records.step(running, actions, rewards, self._observations())
        self._begin_tasks(ended)
        self._begin_episodes(ended)
        truncated[ended] = False
        return rewards, terminated, truncated

    def _truncated(self, terminated: BoolArray) -> BoolArray:
        self._most_stages += 1
        if self._most_stages < self._limit:
            return np.zeros(self.num_envs, dtype=np.bool_)
        self._most_stages = int(self._stages.max())
        truncated = self._stages >= self._limit
        if self.max_episode_steps is None or self.family.horizon < self.max_episode_steps:
            return truncated & ~terminated
        # As in TimeLimit, the step that terminates at the limit is truncated, too.
        return truncated

    def _follow(self, ended: IntArray, over: IntArray) -> tuple[Array, dict[str, Any]]:
        """Begins what follows at once on the episodes that ended; observations and infos.

        :param ended: the sub-environments whose episode ended
        :param over: those of them whose trial ended, too; all of them where there are no trials
        """
        if ended.size and self.autoreset_mode is not AutoresetMode.SAME_STEP:
            ended, over = (self._trials.continuing if self._trials else over[:0]), over[:0]
        if not ended.size:
            return self._shown(), self._infos()
        finals = self._observations()
        final = self._final(finals, over) if over.size else {}
        self._begin_tasks(over)
        self._begin_states(ended)
        if self._trials is not None:
            self._trials.begin(over)
            self._trials.keep(finals, self._observations)
        infos = self._infos()
        infos.update(final)
        return self._shown(), infos

    def _final(self, observations: Array, rows: IntArray) -> dict[str, Any]:
        """What SAME_STEP mode keeps of episodes, or trials, that are over."""
        done, self._has_ended = self._done, False
        self._done = np.zeros(self.num_envs, dtype=np.bool_)
        last = observations[rows]
        if self._trials is not None:
            last = self._trials.shown_last(last, rows)
        final_obs, final_info = _as_objects(last, rows, self.num_envs), self._infos(done)
        return {
            "final_obs": final_obs,
            "_final_obs": done,
            "final_info": final_info,
            "_final_info": done.copy(),
        }

    # What is shown

    def _observations(self) -> Array:
        return self.family.observe(self._states, self._stages)

    def _shown(self) -> Array:
        if self._trials is None:
            return self._observations()
        return self._trials.shown(self._observations())

    def _infos(self, mask: BoolArray | None = None) -> dict[str, Any]:
        infos = {"task_id": self._tasks.ids.copy(), **self.family.infos(self._states, self._stages)}
        present = (self._was_reset if mask is None else mask).copy()
        for name in tuple(infos):
            infos["_" + name] = present
        if self._trials is not None:
            infos.update(self._trials.infos(present, mask))
        return infos

    def _require_reset(self, name: str) -> None:
        if not self._is_ready:
            raise gym.error.ResetNeeded(
                f"there are no current states yet: call reset() before {name}()"
            )


def _time_limit(max_episode_steps: Any, episodes_per_trial: Any, horizon: int) -> int:
    """Steps after which an episode is truncated."""
    if max_episode_steps is None:
        return horizon
    check_counts(max_episode_steps=max_episode_steps)
    if episodes_per_trial is not None:
        raise ValueError(
            f"max_episode_steps={max_episode_steps} would cut trials of {episodes_per_trial=}: "
            "give the family's own horizon instead"
        )
    return min(int(max_episode_steps), horizon)


def _as_objects(values: Array, rows: IntArray, n: int) -> Array:
    """n objects, of which `rows` are the values and the others `None`."""
    objects = np.empty(n, dtype=object)
    if values.ndim == 1:
        objects[rows] = list(values)  # scalars of NumPy, as `SyncVectorEnv` has them
        return objects
    for i, value in zip(rows.tolist(), values, strict=True):
        objects[i] = value
    return objects
