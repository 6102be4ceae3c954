"""Families of tasks as stateless batched dynamics: what a new family has to write.

Shapes: B batch of environments, A actions, n task_dim, r uniforms per reset, u uniforms per step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl_envs.core import BoolArray, FloatArray, IntArray, TaskDistribution

Params = Mapping[str, NDArray[Any]]
Array = NDArray[Any]


class View(NamedTuple):
    """What a renderer may show of one environment."""

    observation: Array
    """(*obs_shape)"""
    stage: int
    action: Any
    """the last action, or `None` right after a reset"""
    reward: float
    """the last reward"""
    episode_return: float
    action_mask: BoolArray | None
    """(A,), where the family has one"""
    params: Mapping[str, Array] = MappingProxyType({})
    """what `Family.compile` made of the task, without the leading axis B"""
    path: Array = np.empty(0)
    """the observations of the episode so far, from the first one on, (t + 1, *obs_shape)"""
    state: Any = None
    """the family's own state, which may hold more than the observation"""


class Family(ABC):
    """Dynamics of a family of tasks, batched over environments and without state of its own.

    A subclass writes `compile`, `initial`, `step` and `observe`, and sets the attributes below in
    its constructor; `FamilyEnv` and `FamilyVectorEnv` make a single and a vector environment of it.

    Every method is a pure function of its arguments, element by element: environment b of a batch
    computes the same bits as a batch of one. Hence no matrix products over the batch (BLAS rounds
    them differently for each size): use `sequential_dot`. All randomness comes in as uniform
    numbers in [0, 1), a fixed number of them per reset and per step.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    task_distribution: TaskDistribution
    horizon: int
    """Steps after which an episode that did not terminate is truncated."""
    n_reset_uniforms: int = 0
    n_step_uniforms: int = 0
    has_action_masks: bool = False
    """Whether some action is forbidden somewhere: then infos carry `action_mask`."""
    render_fps: int = 2
    """Pictures per second in a film that shows every step."""

    @abstractmethod
    def compile(self, arrays: FloatArray) -> Params:
        """What the dynamics need to know of B tasks: fresh arrays with leading axis B.

        :param arrays: the tasks' own arrays, `Task.to_array()` of each, (B, n)
        """

    @abstractmethod
    def initial(self, params: Params, uniforms: FloatArray) -> Array:
        """First states, leading axis B.

        :param params: of B tasks
        :param uniforms: (B, r)
        """

    @abstractmethod
    def step(
        self, params: Params, states: Array, stages: IntArray, actions: Array, uniforms: FloatArray
    ) -> tuple[Array, FloatArray, BoolArray]:
        """Next states (fresh arrays), rewards (B,) and whether each episode terminated (B,).

        :param params: of B tasks
        :param states: leading axis B, not to be changed
        :param stages: (B,), from 0
        :param actions: (B,) or (B, *action_shape), checked, not to be changed or kept
        :param uniforms: (B, u)
        """

    @abstractmethod
    def observe(self, states: Array, stages: IntArray) -> Array:
        """Observations (B, *obs_shape), fresh and of the observation space's dtype."""

    def action_masks(self, observations: Array) -> BoolArray:
        """Which actions are allowed, (..., A), in observations (..., *obs_shape); all of them
        unless overridden.
        """
        if not isinstance(self.action_space, gym.spaces.Discrete):
            raise TypeError(
                f"action_space={self.action_space} has no action masks: they are for Discrete"
            )
        batch_shape = np.shape(observations)[
            : np.ndim(observations) - len(self.observation_space.shape or ())
        ]
        return np.ones((*batch_shape, int(self.action_space.n)), dtype=np.bool_)

    def infos(self, states: Array, stages: IntArray) -> dict[str, Array]:
        """Arrays with leading axis B for `info`: the stage, and the action mask where the family
        has one.
        """
        infos: dict[str, Array] = {"stage": stages.copy()}
        if self.has_action_masks:
            infos["action_mask"] = self.action_masks(self.observe(states, stages)).astype(np.int8)
        return infos

    def render_ansi(self, view: View) -> str:
        """The view as text."""
        from metarl_envs.batched.rendering import describe

        return describe(type(self).__name__, view)

    def render_rgb(self, view: View) -> NDArray[np.uint8]:
        """The view as an image, (height, width, 3)."""
        from metarl_envs.batched.rendering import text_image

        return text_image(self.render_ansi(view))


def sequential_dot(left: Array, right: Array) -> FloatArray:
    """`sum_j left[..., j] * right[..., j]`, added in order of j, so the bits do not depend on the
    batch.

    :param left: (..., n), broadcast against
    :param right: (..., n)
    """
    total = left[..., 0] * right[..., 0]
    for j in range(1, left.shape[-1]):
        total = total + left[..., j] * right[..., j]
    return np.asarray(total, dtype=np.float64)
