"""Bodies that are rewarded for standing, and whose episodes end when they fall.

Shapes: B environments.
"""

from abc import abstractmethod
from typing import Any

import numpy as np

from metarl_envs.batched.checking import check_deviations, check_flags, check_magnitudes
from metarl_envs.core import BoolArray, FloatArray
from metarl_envs.locomotion.family import Body, LocomotionFamily, Moved
from metarl_envs.locomotion.rewards import control_cost


class UprightFamily(LocomotionFamily):
    """What the families of bodies that can fall share.

    :param body: the body
    :param ctrl_cost_weight: of the squared norm of actions
    :param healthy_reward: per step at whose end the body is healthy
    :param terminate_when_unhealthy: whether an episode ends where the body is not
    :param arguments: of `LocomotionFamily`
    """

    def __init__(
        self,
        body: Body,
        *,
        ctrl_cost_weight: float,
        healthy_reward: float,
        terminate_when_unhealthy: bool,
        **arguments: Any,
    ) -> None:
        check_deviations(ctrl_cost_weight=ctrl_cost_weight)
        check_magnitudes(ctrl_cost_weight=ctrl_cost_weight, healthy_reward=healthy_reward)
        check_flags(terminate_when_unhealthy=terminate_when_unhealthy)
        self.ctrl_cost_weight, self.healthy_reward = ctrl_cost_weight, healthy_reward
        self.terminate_when_unhealthy = terminate_when_unhealthy
        super().__init__(body, **arguments)

    @abstractmethod
    def is_healthy(self, moved: Moved) -> BoolArray:
        """Whether the body has not fallen, (B,); false where a number is none."""

    def is_terminal(self, moved: Moved) -> BoolArray:
        """Whether the body has fallen and that matters, (B,)."""
        if not self.terminate_when_unhealthy:
            return np.zeros(len(moved.qpos), dtype=np.bool_)
        return ~self.is_healthy(moved)

    def upright_reward(self, progress: FloatArray, moved: Moved) -> FloatArray:
        """`progress + bonus - cost`, (B,), added up as Gymnasium does.

        :param progress: what the step earned towards the task, (B,)
        :param moved: the step
        """
        bonus = self.is_healthy(moved) * self.healthy_reward
        cost = control_cost(moved.actions, self.ctrl_cost_weight)
        return np.asarray(progress + bonus - cost)


def is_inside(values: FloatArray, low: float, high: float) -> BoolArray:
    """Whether `low < value < high`, elementwise."""
    return np.asarray((low < values) & (values < high))
