"""The rewards of the locomotion families: pure, elementwise over the batch.

Shapes: B environments, U actuators.
"""

import numpy as np

from metarl_envs.core import FloatArray


def control_cost(actions: FloatArray, weight: float) -> FloatArray:
    """`weight ||a||^2`, (B,), in the precision of the actions, as Gymnasium adds it up.

    :param actions: (B, U)
    :param weight: of the squared norm
    """
    # Actions in another order of memory would be added up in another order, too.
    squares = np.square(np.ascontiguousarray(actions))
    return np.asarray(weight * squares.sum(axis=-1))


def contact_cost(forces: FloatArray, weight: float, limit: float) -> FloatArray:
    """`weight ||clip(f, -limit, limit)||^2`, (B,), as Gymnasium adds it up.

    :param forces: contact forces on all bodies, the world's included, (B, bodies, 6)
    :param weight: of the squared norm
    :param limit: within which forces are clipped
    """
    squares = np.square(np.clip(forces, -limit, limit)).reshape(len(forces), -1)
    return np.asarray(weight * squares.sum(axis=-1))


def speed_reward(velocity: FloatArray, target: FloatArray) -> FloatArray:
    """`-|v - v*|`, (B,) (Finn, Abbeel and Levine, 2017, https://arxiv.org/abs/1703.03400).

    :param velocity: along x, (B,), m/s
    :param target: v*, (B,), m/s
    """
    return -np.abs(velocity - target)


def direction_reward(velocity: FloatArray, direction: FloatArray) -> FloatArray:
    """`v . d`, (B,), added up in order of the coordinates.

    :param velocity: (B, 2), m/s
    :param direction: unit vectors d, (B, 2)
    """
    along_x, along_y = velocity[:, 0] * direction[:, 0], velocity[:, 1] * direction[:, 1]
    return np.asarray(along_x + along_y)


def goal_reward(position: FloatArray, goal: FloatArray) -> FloatArray:
    """`-||x - g||_1`, (B,) (Finn, Abbeel and Levine, 2017).

    :param position: (B, 2), m
    :param goal: (B, 2), m
    """
    distance = np.abs(position - goal)
    return np.asarray(-(distance[:, 0] + distance[:, 1]))
