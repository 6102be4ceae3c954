"""What all point families share: a point in the plane that moves by bounded steps towards a goal.

Shapes: B environments, M tasks, H steps.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from metarl_envs.batched.checking import (
    check_counts,
    check_deviations,
    check_magnitudes,
    checked_numbers,
)
from metarl_envs.batched.family import Array, Family, Params, View
from metarl_envs.core import BoolArray, FloatArray, IntArray, Task
from metarl_envs.distributions import task_arrays
from metarl_envs.navigation.rendering import Scene, scene_image, scene_text

SMALLEST_LENGTH = 1e-12
"""Of what is not 0, so that no quotient of two lengths overflows."""

REACH_TOLERANCE = 1e-9
"""Added to radii that pay: eight steps of 0.1 leave 0.2 of a way of 1, up to the rounding of the
steps, and shall count as within 0.2."""

_FARTHEST_START = 1e12


def check_positive(**numbers: Any) -> None:
    """`ValueError` for the first argument that is no number from `SMALLEST_LENGTH` to
    `LARGEST_MAGNITUDE`.
    """
    check_magnitudes(**numbers)
    for name, value in numbers.items():
        if value < SMALLEST_LENGTH:
            raise ValueError(
                f"{name}={value!r} must be above 0, and at least {SMALLEST_LENGTH:g}: choose "
                "larger units"
            )


def check_lengths(**numbers: Any) -> None:
    """The same, with 0 allowed."""
    check_deviations(**numbers)
    check_positive(**{name: value for name, value in numbers.items() if value != 0})


def with_preset(
    presets: Mapping[str, Mapping[str, Any]],
    preset: str | None,
    defaults: Mapping[str, Any],
    **arguments: Any,
) -> dict[str, Any]:
    """The arguments; where they are `None` those of the preset, and else the defaults.

    :param presets: the arguments that each preset sets
    :param preset: its name, or `None`; `ValueError` where there is none of that name
    :param defaults: every argument
    :param arguments: what the user handed in; what is not `None` wins
    """
    if preset is not None and not (isinstance(preset, str) and preset in presets):
        raise ValueError(f"preset={preset!r} must be None or one of {tuple(presets)}")
    filled = {**defaults, **(presets[preset] if preset is not None else {})}
    return {name: filled[name] if value is None else value for name, value in arguments.items()}


class PointFamily(Family):
    """A point that an action moves by `max_step * action`, each coordinate of its own.

    :param horizon: H
    :param max_step: what an action of 1 stands for
    :param start_low: lower bounds of the start, (2,)
    :param start_high: upper bounds of the start, (2,); where they are the lower ones the start is
        fixed
    """

    def __init__(
        self,
        *,
        horizon: int,
        max_step: float,
        start_low: ArrayLike = (0.0, 0.0),
        start_high: ArrayLike = (0.0, 0.0),
    ) -> None:
        check_counts(horizon=horizon)
        check_positive(max_step=max_step)
        self.horizon, self.max_step = horizon, max_step
        self.start_low = np.array(start_low, dtype=np.float64)
        self.start_high = np.array(start_high, dtype=np.float64)
        self.has_random_start = bool(np.any(self.start_low < self.start_high))
        self.n_reset_uniforms = 2 if self.has_random_start else 0
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def compile(self, arrays: FloatArray) -> Params:
        """Goals, (B, 2)."""
        return {"goal": arrays.copy()}

    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """Positions, (B, 2)."""
        if not self.has_random_start:
            return np.tile(self.start_low, (len(uniforms), 1))
        return self.start_low + (self.start_high - self.start_low) * uniforms

    def observe(self, states: Array, stages: IntArray) -> Array:
        """Positions, (B, 2)."""
        return states.astype(np.float32)

    def moved(self, params: Params, states: Array, actions: Array) -> FloatArray:
        """Positions after a move, (B, 2)."""
        following = actions.astype(np.float64)
        following *= self.max_step
        following += states
        return following

    def optimal_action(self, task: Task, observation: Array) -> Array:
        """Straight to the goal in each coordinate, as far as one step goes, (2,).

        :param task: the task
        :param observation: the position, (2,)
        """
        position = checked_numbers("observation", observation, (2,))
        return self.optimal_actions([task], position[None])[0]

    def optimal_actions(self, tasks: Sequence[Task], observations: Array) -> Array:
        """The same for M tasks, (M, 2).

        :param tasks: M tasks
        :param observations: positions, (M, 2)
        """
        params = self.compile(task_arrays(self.task_distribution, tasks))
        positions = checked_numbers("observations", observations, (len(params["goal"]), 2))
        return self._straight(params, positions).astype(np.float32)

    def render_ansi(self, view: View) -> str:
        """The plane as characters, the first axis to the right, the second one up."""
        return scene_text(view, self.scene(view.params))

    def render_rgb(self, view: View) -> Any:
        """The plane with the goal, the start and the path, the first axis to the right, the second
        one up.
        """
        return scene_image(view, self.scene(view.params))

    @abstractmethod
    def scene(self, params: Mapping[str, Array]) -> Scene:
        """What a picture shows besides the path.

        :param params: of one task, without the batch's axis
        """

    def _straight(self, params: Params, states: Array) -> FloatArray:
        actions = (self._aim(params) - states) / self.max_step
        return np.clip(actions, -1.0, 1.0)

    def _aim(self, params: Params) -> FloatArray:
        return np.asarray(params["goal"], dtype=np.float64)


class DistanceFamily(PointFamily):
    """A reward that depends on the distance from the goal after the move, and never increases with
    it.

    The optimum for an agent that knows the task: a step changes each coordinate by what it likes
    within its bounds, whatever the other one does. So going straight to the goal in each coordinate
    makes both coordinates' distances, hence the distance and by it the reward, the best that any
    policy can have, at every step at once. Where getting near ends the episode, no policy gets
    there earlier, and the rewards, none of which is positive then, are fewest.
    """

    done_radius: float = 0.0
    """How near the goal the episode terminates; 0 for never."""

    @abstractmethod
    def rewards(self, distances: FloatArray) -> FloatArray:
        """Rewards (...) at distances (...) from the goal; never increasing."""

    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Moves, and pays for the distance from the goal after that."""
        following = self.moved(params, states, actions)
        offsets = following - params["goal"]
        offsets *= offsets
        distances = np.sqrt(offsets[:, 0] + offsets[:, 1])
        if self.done_radius > 0:
            terminated = distances <= self.done_radius
        else:
            terminated = np.zeros(len(states), dtype=np.bool_)
        return following, self.rewards(distances), terminated

    def optimal_returns_from(self, tasks: Sequence[Task], starts: ArrayLike) -> FloatArray:
        """Best return of an episode from each given start, (M,).

        It is what going straight to the goal earns: exact, and rounded as the environment rounds.

        :param tasks: M tasks
        :param starts: positions, (M, 2) or one for all, (2,)
        """
        params = self.compile(task_arrays(self.task_distribution, tasks))
        n = len(params["goal"])
        array = checked_numbers("starts", starts, (2,), (n, 2))
        if np.any(np.abs(array) > _FARTHEST_START):
            raise ValueError(
                f"starts={starts!r} must lie within {_FARTHEST_START:g} of 0: give nearer ones"
            )
        states = np.broadcast_to(array, (n, 2))
        total, running = np.zeros(n), np.ones(n, dtype=np.bool_)
        for stage in range(self.horizon):
            stages = np.full(n, stage)
            actions = self._straight(params, states)
            states, rewards, terminated = self.step(params, states, stages, actions, np.empty(0))
            total[running] += rewards[running]
            running &= ~terminated
        return total

    def optimal_return_from(self, task: Task, start: ArrayLike) -> float:
        """The same for one task and start, (2,)."""
        return float(self.optimal_returns_from([task], start)[0])

    def optimal_returns(self, tasks: Sequence[Task]) -> FloatArray:
        """Expected return of an agent that knows the task, (M,): exact, over starts as well."""
        return self.optimal_returns_from(tasks, self.start_low)

    def optimal_return(self, task: Task) -> float:
        """Expected return of an agent that knows the task."""
        return float(self.optimal_returns([task])[0])
