"""The single environment of a family: a batch of one.

Shapes: B batch of environments, A actions.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from metarl_envs.batched.family import Array, Family, View
from metarl_envs.batched.hosting import hand_on_family, made_family
from metarl_envs.batched.requests import check_trial_options, checked_options
from metarl_envs.core import BoolArray, FloatArray, Split, Task, TaskDistribution, task_id
from metarl_envs.distributions import TaskMode, TaskStream, check_task
from metarl_envs.wrappers.base import TaskWrapper
from metarl_envs.wrappers.belief import belief_mdp
from metarl_envs.wrappers.trial import ResetMode


class ActionChecks:
    """What an environment demands of the actions that users hand in.

    Whatever can be known before is prepared, as actions come at every step.

    :param space: the action space of one environment
    :param batch_shape: () for a single environment, (B,) for a vector one
    """

    def __init__(self, space: gym.Space[Any], batch_shape: tuple[int, ...]) -> None:
        self._space, self._batch_shape = space, batch_shape
        self._shape = (*batch_shape, *(space.shape or ()))
        # Of actions with nothing left to convert, None where that is not tried.
        self._dtype: np.dtype[Any] | None = None
        self._low, self._high = 0.0, 0.0
        if isinstance(space, gym.spaces.Discrete) and space.start == 0:
            self._dtype, self._high = np.dtype(np.int64), int(space.n) - 1
        elif isinstance(space, gym.spaces.Box) and space.low.size:
            low, high = space.low.flat[0], space.high.flat[0]
            is_uniform = (space.low == low).all() and (space.high == high).all()
            if is_uniform and np.isfinite(low) and np.isfinite(high):
                self._dtype, self._low, self._high = space.dtype, low.item(), high.item()

    def checked(self, actions: Any) -> Array:
        """`actions` as an array (*batch_shape, *action_shape), the given one where it is of the
        space's dtype; `ValueError` where one lies outside the space.

        :param actions: what the user handed in
        """
        array = np.asarray(actions)
        if array.shape == self._shape and array.dtype == self._dtype and self._are_inside(array):
            return array
        return self._converted(array, actions)

    def _are_inside(self, array: Array) -> bool:
        """Whether all lie within bounds that are the same for all."""
        if array.dtype.kind == "i" and self._low == 0:
            # As unsigned numbers the negative ones are large: one comparison does for both bounds.
            array = array.view(np.uint64)
            return bool(array.item(array.argmax()) <= self._high)
        # NaN, where there is one, is what both find, and it fails both comparisons. They take a
        # fraction of the time of `min` and `max`.
        least, largest = array.item(array.argmin()), array.item(array.argmax())
        return bool(self._low <= least and largest <= self._high)

    def _converted(self, array: Array, actions: Any) -> Array:
        space = self._space
        if array.shape != self._shape:
            raise ValueError(
                f"action={actions!r} has shape {array.shape}, but {space} with batch "
                f"{self._batch_shape} needs {self._shape}"
            )
        if isinstance(space, gym.spaces.Discrete):
            low, high = int(space.start), int(space.start + space.n) - 1
            if array.dtype.kind not in "iu" or np.any(array < low) or np.any(array > high):
                raise ValueError(
                    f"action={actions!r} is outside {space}: give integers from {low} to {high}"
                )
            return array.astype(np.int64)
        if isinstance(space, gym.spaces.Box):
            # NaN fails both comparisons; an infinite action fails where the bounds are finite.
            if array.dtype.kind not in "iuf" or not np.all(
                (array >= space.low) & (array <= space.high) & np.isfinite(array)
            ):
                raise ValueError(
                    f"action={actions!r} is outside {space}: give finite numbers within its bounds"
                )
            return array.astype(space.dtype)
        raise TypeError(f"action_space={space} is not supported: use Discrete or Box")


def stream_seed(np_random_seed: int, generator: np.random.Generator) -> int:
    """The seed of the task stream that belongs to gymnasium's `np_random_seed`.

    :param np_random_seed: -1 where the user replaced the generator
    :param generator: the one that the seed is drawn from then
    """
    return np_random_seed if np_random_seed >= 0 else int(generator.integers(2**63))


def json_spec(spec: EnvSpec | None) -> EnvSpec | None:
    """A spec whose arguments are lists instead of arrays, so that `spec.to_json()` works."""
    if spec is None:
        return None
    return replace(spec, kwargs={name: _without_arrays(item) for name, item in spec.kwargs.items()})


def _without_arrays(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(_without_arrays(item) for item in value)
    return value


def warn_no_render_mode(env_id: str) -> None:
    """Gymnasium's warning for `render()` without a render mode."""
    gym.logger.warn(
        "You are calling render method without specifying any render mode. You can specify the "
        f'render_mode at initialization, e.g. gym.make("{env_id}", render_mode="rgb_array")'
    )


def checked_render_mode(render_mode: str | None, modes: Sequence[str]) -> str | None:
    """`render_mode`, or `ValueError` where it is none of `modes`."""
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"render_mode={render_mode!r} must be None or one of {list(modes)}")
    return render_mode


class FamilyEnv(gym.Env[Any, Any]):
    """A single environment of a family.

    A subclass names its `family_class`, and its constructor takes the arguments of that class. With
    `episodes_per_trial=K` it makes `metarl_envs.belief_mdp(env, K)` of the environment: K episodes
    of one task are one, and observations carry the previous action, reward and done flag.

    :param family: the dynamics and the task distribution; by default, those of `family_class`
    :param task_mode: "resample" draws a new task at every reset, "fixed" keeps the first one
    :param render_mode: `None`, "ansi" or "rgb_array"
    :param episodes_per_trial: K
    :param reset_mode: of trials, see `metarl_envs.Trial`
    :param observe_transitions: whether observations of trials carry the previous transition
    :param reward_scale: of the reward in these observations
    :param family_arguments: of `family_class`
    """

    family_class: type[Family]
    family: Family
    task_distribution: TaskDistribution
    horizon: int

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}
    _spec: EnvSpec | None = None

    def __new__(
        cls,
        *positional: Any,
        episodes_per_trial: int | None = None,
        reset_mode: ResetMode = "true_start",
        observe_transitions: bool = True,
        reward_scale: float = 1.0,
        **arguments: Any,
    ) -> Any:
        """An environment, or the wrapped one whose episodes are trials."""
        check_trial_options(episodes_per_trial, reset_mode, observe_transitions, reward_scale)
        if episodes_per_trial is None:
            return super().__new__(cls)
        env = belief_mdp(
            cls(*positional, **arguments),
            episodes_per_trial,
            reset_mode=reset_mode,
            observe_transitions=observe_transitions,
            reward_scale=reward_scale,
        )
        layer: Any = env
        while isinstance(layer, TaskWrapper):
            layer.is_part_of_env = True
            layer = layer.env
        return env

    def __init__(
        self,
        *,
        family: Family | None = None,
        task_mode: TaskMode = "resample",
        render_mode: str | None = None,
        episodes_per_trial: None = None,
        reset_mode: ResetMode = "true_start",
        observe_transitions: bool = True,
        reward_scale: float = 1.0,
        **family_arguments: Any,
    ) -> None:
        family = made_family(self, family, family_arguments)
        hand_on_family(self, family)
        self.observation_space = family.observation_space
        self.action_space = family.action_space
        self._actions = ActionChecks(family.action_space, ())
        self.task_mode = task_mode
        self.metadata = {**type(self).metadata, "render_fps": family.render_fps}
        self.render_mode = checked_render_mode(render_mode, self.metadata["render_modes"])
        self._tasks = TaskStream(family.task_distribution, task_mode=task_mode)
        self._seeding_generator: np.random.Generator | None = None
        self._running = False
        self._was_reset = False
        self._last: tuple[Any, float, float] = (None, 0.0, 0.0)
        self._path: list[Array] = []

    @property
    def spec(self) -> EnvSpec | None:
        """The spec that made this environment."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = json_spec(spec)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, with a new task unless one is pinned or kept.

        :param seed: seeds the dynamics and, through a child generator, the tasks
        :param options: `{"task": task}` sets the task of this episode only
        """
        options = checked_options(options)
        if "tasks" in options:
            raise ValueError(
                'options={"tasks": ...} is for vector environments: '
                'give options={"task": task} to a single one'
            )
        chosen = options.get("task")
        if chosen is not None:
            check_task(self.task_distribution, chosen)
        super().reset(seed=seed)
        self._seed_tasks(restart=seed is not None)
        task = self._tasks.begin_episode(chosen)
        self._task_id = task_id(task)
        self._params = self.family.compile(np.asarray(task.to_array(), dtype=np.float64)[None])
        self._states = self.family.initial(
            self._params, self._uniforms(self.family.n_reset_uniforms)
        )
        self._stages = np.zeros(1, dtype=np.int64)
        self._running = self._was_reset = True
        self._last = (None, 0.0, 0.0)
        observation = self._observation()
        self._path = [observation]
        return observation, self._info() | {"task": task}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Plays one action; `ValueError` where it lies outside the action space."""
        if not self._running:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        # A copy: the caller may use its own array again before it is shown.
        checked = self._actions.checked(action).copy()
        self._states, rewards, terminated = self.family.step(
            self._params,
            self._states,
            self._stages,
            checked[None],
            self._uniforms(self.family.n_step_uniforms),
        )
        self._stages = self._stages + 1
        truncated = not terminated[0] and bool(self._stages[0] >= self.family.horizon)
        self._running = not (terminated[0] or truncated)
        reward = float(rewards[0])
        self._last = (checked[()], reward, self._last[2] + reward)
        observation = self._observation()
        if self.render_mode is not None:
            self._path.append(observation)
        return observation, reward, bool(terminated[0]), truncated, self._info()

    def sample_tasks(
        self, n: int, *, seed: int | None = None, split: Split = "train"
    ) -> list[Task]:
        """`n` tasks from the distribution.

        :param n: how many
        :param seed: of a stream of its own; without one, the env's own task generator goes on
        :param split: the streams of "train" and "test" are disjoint
        """
        self._seed_tasks()
        return self._tasks.sample(n, seed=seed, split=split)

    def set_task(self, task: Task | None) -> None:
        """Pins `task` from the next reset on, through every later one; `None` unpins."""
        self._tasks.pin(task)

    def get_task(self) -> Task:
        """The task of the running episode; before the first reset, the pinned one."""
        return self._tasks.get_task()

    @property
    def pinned_task(self) -> Task | None:
        """The task that `set_task` pinned, None where none is."""
        return self._tasks.pinned

    def action_masks(self, observations: Array | None = None) -> BoolArray:
        """Which actions are allowed, (..., A); without an argument in the current state, (A,).

        :param observations: (..., *obs_shape)
        """
        if observations is None:
            self._require_reset("action_masks")
            observations = self._observation()
        return self.family.action_masks(np.asarray(observations))

    def render(self) -> Any:
        """The current state as text ("ansi") or as an image (height, width, 3) ("rgb_array")."""
        if self.render_mode is None:
            warn_no_render_mode(self.spec.id if self.spec else type(self).__name__)
            return None
        self._require_reset("render")
        mask = self._info().get("action_mask")
        view = View(
            self._observation(),
            int(self._stages[0]),
            *self._last,
            None if mask is None else mask.astype(np.bool_),
            {name: param[0] for name, param in self._params.items()},
            np.array(self._path),
            self._states[0],
        )
        return (
            self.family.render_ansi(view)
            if self.render_mode == "ansi"
            else self.family.render_rgb(view)
        )

    def _require_reset(self, name: str) -> None:
        if not self._was_reset:
            raise gym.error.ResetNeeded(
                f"there is no current state yet: call reset() before {name}()"
            )

    def _seed_tasks(self, restart: bool = False) -> None:
        generator = self.np_random
        is_replaced = self.np_random_seed < 0 and generator is not self._seeding_generator
        if restart or is_replaced or not self._tasks.is_seeded:
            self._tasks.seed(stream_seed(self.np_random_seed, generator))
            self._seeding_generator = generator

    def _uniforms(self, n: int) -> FloatArray:
        return self.np_random.random((1, n))

    def _observation(self) -> Any:
        return self.family.observe(self._states, self._stages)[0]

    def _info(self) -> dict[str, Any]:
        infos = self.family.infos(self._states, self._stages)
        rows = {
            name: array[0].copy() if array.ndim > 1 else array[0].item()
            for name, array in infos.items()
        }
        return {"task_id": self._task_id, **rows}
