"""Two tasks whose meta-gradients are known to eight digits, and a third for what must be general.

Two states, two actions, three stages; episodes start in state 0.
"""

import numpy as np

from metarl_envs.tabular.mdp import FiniteMDP


def _task(to_first: list[float], rewards: list[float]) -> FiniteMDP:
    """A task; numbers in the order (state 0, action 0), (0, 1), (1, 0), (1, 1)."""
    chance = np.array(to_first).reshape(2, 2)
    return FiniteMDP(
        np.stack([chance, 1 - chance], axis=-1),
        np.array(rewards).reshape(2, 2),
        np.array([1.0, 0.0]),
        discount=0.9,
        horizon=3,
    )


TASK_A = _task([0.8, 0.2, 0.4, 0.7], [1.0, -0.5, -1.2, 0.6])
TASK_B = _task([0.3, 0.6, 0.9, 0.1], [-0.7, 0.8, 1.1, -0.3])
BOTH = [TASK_A, TASK_B]
LOGITS = np.array([[0.3, -0.2], [-0.4, 0.1]])

VALUE_A = 0.8032976531
GRADIENT_A = np.array([[0.79777697, -0.79777697], [-0.31908616, 0.31908616]])
VALUE_B = 0.0030853020
GRADIENT_B = np.array([[-0.56796624, 0.56796624], [0.29948731, -0.29948731]])
