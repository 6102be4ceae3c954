"""Swimmer: swim at a speed.

Shapes: B environments.
"""

from typing import Any

import numpy as np

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv, Params
from metarl_envs.batched.checking import check_deviations, check_magnitudes
from metarl_envs.core import FloatArray
from metarl_envs.distributions import UniformTasks
from metarl_envs.locomotion.bodies import SWIMMER
from metarl_envs.locomotion.checking import checked_range
from metarl_envs.locomotion.family import LocomotionFamily, Moved
from metarl_envs.locomotion.presets import with_preset
from metarl_envs.locomotion.rewards import control_cost, speed_reward
from metarl_envs.locomotion.tasks import VelocityTask

_DEFAULTS: dict[str, Any] = {
    "task_range": (0.1, 0.2),
    "horizon": 200,
    "ctrl_cost_weight": 1e-4,
    "speed_weight": 1.0,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "finn2017": {"speed_weight": 1.5, "ctrl_cost_weight": 5e-3},
    "promp2019": {},
}


class SwimmerVelFamily(LocomotionFamily):
    """Swim at a speed; see `SwimmerVelEnv`."""

    n_position = 2
    n_train_tasks, n_test_tasks = 100, 30

    def __init__(
        self,
        *,
        preset: str | None = None,
        task_range: tuple[float, float] | None = None,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        speed_weight: float | None = None,
        reset_noise_scale: float = SWIMMER.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {
            "task_range": task_range,
            "horizon": horizon,
            "ctrl_cost_weight": ctrl_cost_weight,
            "speed_weight": speed_weight,
        }
        settings = with_preset(preset, _PRESETS, _DEFAULTS, given)
        self.preset = preset
        weights = {name: settings[name] for name in ("ctrl_cost_weight", "speed_weight")}
        check_deviations(**weights)
        check_magnitudes(**weights)
        self.ctrl_cost_weight, self.speed_weight = weights.values()
        self.task_range = checked_range("task_range", settings["task_range"])
        self.task_distribution = UniformTasks(VelocityTask.from_array, *self.task_range)
        super().__init__(
            SWIMMER,
            horizon=settings["horizon"],
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Target speeds, (B,), m/s."""
        return {"velocity": arrays[:, 0].copy()}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`-w |v - v*|` less the control cost, (B,)."""
        progress = self.speed_weight * speed_reward(moved.velocity[:, 0], params["velocity"])
        return np.asarray(progress - control_cost(moved.actions, self.ctrl_cost_weight))


class SwimmerVelEnv(FamilyEnv):
    """Swim at a speed that only the rewards tell.

    ## Description
    Gymnasium's Swimmer-v5 with target speeds, after an environment of the published code of ProMP
    (Rothfuss et al., 2019, https://arxiv.org/abs/1810.06784,
    https://github.com/jonasrothfuss/ProMP). Simulated in batches by `mujoco.batch`, bit for bit as
    Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (8,), float64)`: angles and velocities without the place in the water, as
    Gymnasium's.

    ## Rewards
    `-|v - v*| - 0.0001 ||a||^2`, where v is the speed along x over the step of 0.04 s. ProMP's code
    has the first sign the other way round, which pays for missing the speed; that is not
    reproduced.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions and velocities.

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `task_range`: target speeds, m/s; (0.1, 0.2) as in ProMP's code.
    * `horizon`: H = 200, this package's choice; `ctrl_cost_weight`: 0.0001, as Gymnasium's;
      `speed_weight`: of `|v - v*|`, 1; `reset_noise_scale`: 0.1.
    * `preset`: "finn2017", an environment in the code of Finn, Abbeel and Levine (2017,
      https://arxiv.org/abs/1703.03400, https://github.com/cbfinn/maml_rl) with `speed_weight` 1.5
      and `ctrl_cost_weight` 0.005, or "promp2019", which is the default by name; explicit arguments
      override them.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `VelocityTask(velocity)`, uniform in `task_range`. There is no published split;
    `n_train_tasks` and `n_test_tasks` are those of PEARL's HalfCheetah, 100 and 30.
    `sample_tasks(n, split="test")` draws from a stream of its own. The observation does not tell
    the task.
    """

    family_class = SwimmerVelFamily
    family: SwimmerVelFamily


class SwimmerVelVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `SwimmerVelEnv` and `FamilyVectorEnv`."""

    family_class = SwimmerVelFamily
    family: SwimmerVelFamily
