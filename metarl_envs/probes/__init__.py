"""Tiny families whose best return is known, for testing agents in seconds.

| class | task | best return | best policy |
|---|---|---|---|
| :class:`WhichArm` | which of A arms pays | 1 | pull that arm |
| :class:`GaussianBandit` | mean reward of each arm | the largest mean | pull that arm |
| :class:`Chain` | left or right | 1 | always go that way |
| :class:`SignFlip` | the sign of a reward | n_stages | the action ``sign`` |
| :class:`LinearQuadratic` | goal and gain of a system | Riccati recursion | linear feedback |

Every class has a vector form (``WhichArmVector``, ...), ``optimal_return(task)`` and
``optimal_action(task, observation)``. None is registered: make them by their classes. All numbers
are choices of this package.
"""

from metarl_envs.probes.bandits import (
    GaussianBandit,
    GaussianBanditFamily,
    GaussianBanditTask,
    GaussianBanditVector,
    WhichArm,
    WhichArmFamily,
    WhichArmTask,
    WhichArmVector,
)
from metarl_envs.probes.chain import Chain, ChainFamily, ChainTask, ChainVector
from metarl_envs.probes.continuous import (
    LinearQuadratic,
    LinearQuadraticFamily,
    LinearQuadraticTask,
    LinearQuadraticVector,
    SignFlip,
    SignFlipFamily,
    SignFlipTask,
    SignFlipVector,
)
from metarl_envs.probes.finite import FiniteProbe

__all__ = [
    "Chain",
    "ChainFamily",
    "ChainTask",
    "ChainVector",
    "FiniteProbe",
    "GaussianBandit",
    "GaussianBanditFamily",
    "GaussianBanditTask",
    "GaussianBanditVector",
    "LinearQuadratic",
    "LinearQuadraticFamily",
    "LinearQuadraticTask",
    "LinearQuadraticVector",
    "SignFlip",
    "SignFlipFamily",
    "SignFlipTask",
    "SignFlipVector",
    "WhichArm",
    "WhichArmFamily",
    "WhichArmTask",
    "WhichArmVector",
]
