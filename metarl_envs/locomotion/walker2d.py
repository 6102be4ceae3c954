"""Walker2d: walk at a speed, or forward with unknown masses, inertias, frictions and dampings.

Shapes: B environments.
"""

from typing import Any

import numpy as np

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv, Params
from metarl_envs.core import BoolArray, FloatArray
from metarl_envs.distributions import UniformTasks
from metarl_envs.locomotion.bodies import WALKER2D
from metarl_envs.locomotion.checking import checked_range
from metarl_envs.locomotion.family import Moved
from metarl_envs.locomotion.presets import with_preset
from metarl_envs.locomotion.random_parameters import RandomParametersFamily
from metarl_envs.locomotion.rewards import speed_reward
from metarl_envs.locomotion.tasks import VelocityTask
from metarl_envs.locomotion.upright import UprightFamily, is_inside

_DEFAULTS: dict[str, Any] = {
    "task_range": (0.0, 3.0),
    "horizon": 200,
    "ctrl_cost_weight": 1e-3,
    "healthy_reward": 1.0,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "promp2019": {"task_range": (0.0, 10.0), "healthy_reward": 15.0},
}


class Walker2dVelFamily(UprightFamily):
    """Walk at a speed; see `Walker2dVelEnv`."""

    n_position = 1
    n_train_tasks, n_test_tasks = 100, 30

    def __init__(
        self,
        *,
        preset: str | None = None,
        task_range: tuple[float, float] | None = None,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool = True,
        reset_noise_scale: float = WALKER2D.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {
            "task_range": task_range,
            "horizon": horizon,
            "ctrl_cost_weight": ctrl_cost_weight,
            "healthy_reward": healthy_reward,
        }
        settings = with_preset(preset, _PRESETS, _DEFAULTS, given)
        self.preset = preset
        self.task_range = checked_range("task_range", settings.pop("task_range"))
        self.task_distribution = UniformTasks(VelocityTask.from_array, *self.task_range)
        super().__init__(
            WALKER2D,
            **settings,
            terminate_when_unhealthy=terminate_when_unhealthy,
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Target speeds, (B,), m/s."""
        return {"velocity": arrays[:, 0].copy()}

    def is_healthy(self, moved: Moved) -> BoolArray:
        """Height and angle within Gymnasium's bounds, (B,)."""
        return walks_upright(moved)

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`-|v - v*| + bonus` less the control cost, (B,)."""
        progress = speed_reward(moved.velocity[:, 0], params["velocity"])
        return self.upright_reward(progress, moved)


class Walker2dRandParamsFamily(RandomParametersFamily):
    """Walk forward with an unknown body; see `Walker2dRandParamsEnv`."""

    def __init__(
        self,
        *,
        preset: str | None = None,
        log_scale_limit: float = 3.0,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool = True,
        reset_noise_scale: float = WALKER2D.reset_noise,
        n_threads: int = 1,
    ) -> None:
        super().__init__(
            WALKER2D,
            preset=preset,
            log_scale_limit=log_scale_limit,
            horizon=horizon,
            ctrl_cost_weight=ctrl_cost_weight,
            healthy_reward=healthy_reward,
            terminate_when_unhealthy=terminate_when_unhealthy,
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )

    def is_healthy(self, moved: Moved) -> BoolArray:
        """Height and angle within Gymnasium's bounds, (B,)."""
        return walks_upright(moved)


def walks_upright(moved: Moved) -> BoolArray:
    """Height between 0.8 and 2, and angle between -1 and 1, the bounds left out, (B,)."""
    is_high = is_inside(moved.qpos[:, 1], 0.8, 2.0)
    return np.asarray(is_high & is_inside(moved.qpos[:, 2], -1.0, 1.0))


class Walker2dVelEnv(FamilyEnv):
    """Walk at a speed that only the rewards tell.

    ## Description
    Gymnasium's Walker2d-v5 with target speeds, after an environment of the published code of ProMP
    (Rothfuss et al., 2019, https://arxiv.org/abs/1810.06784,
    https://github.com/jonasrothfuss/ProMP). Simulated in batches by `mujoco.batch`, bit for bit as
    Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: joint positions without the place on the track, and velocities
    clipped to 10, as Gymnasium's.

    ## Rewards
    `-|v - v*| + 1 - 0.001 ||a||^2`, where v is the speed over the step of 0.008 s; the 1 is paid
    while the body is healthy, so not in the step that ends an episode.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.005 on positions and velocities.

    ## Episode End
    Terminated where the height is outside (0.8, 2) or the angle outside (-1, 1). Truncated after
    `horizon` steps.

    ## Arguments
    * `task_range`: target speeds, m/s; (0, 3) is this package's choice, since ProMP's 10 are out of
      reach.
    * `horizon`: H = 200, this package's choice; `ctrl_cost_weight`: 0.001; `healthy_reward`: 1, as
      in Gymnasium; `terminate_when_unhealthy`: `False` lets episodes go on; `reset_noise_scale`:
      0.005.
    * `preset`: "promp2019" (speeds up to 10, and a bonus of 15, which ProMP paid in the last step
      of a fall, too; its steps took twice as long); explicit arguments override it.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `VelocityTask(velocity)`, uniform in `task_range`. There is no published split;
    `n_train_tasks` and `n_test_tasks` are those of PEARL's HalfCheetah, 100 and 30.
    `sample_tasks(n, split="test")` draws from a stream of its own. The observation does not tell
    the task.
    """

    family_class = Walker2dVelFamily
    family: Walker2dVelFamily


class Walker2dVelVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `Walker2dVelEnv` and `FamilyVectorEnv`."""

    family_class = Walker2dVelFamily
    family: Walker2dVelFamily


class Walker2dRandParamsEnv(FamilyEnv):
    """Walk forward with a body whose parameters differ from task to task.

    ## Description
    Gymnasium's Walker2d-v5 with random masses, inertias, frictions and dampings, as in ProMP
    (Rothfuss et al., 2019, https://arxiv.org/abs/1810.06784) and PEARL (Rakelly et al., 2019,
    https://arxiv.org/abs/1903.08254), who took them from
    https://github.com/dennisl88/rand_param_envs. Simulated in batches by `mujoco.batch`, bit for
    bit as MuJoCo simulates each model by itself.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: joint positions without the place on the track, and velocities
    clipped to 10, as Gymnasium's.

    ## Rewards
    `v + 1 - 0.001 ||a||^2`, where v is the speed over the step of 0.008 s; the 1 is paid while the
    body is healthy, so not in the step that ends an episode.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.005 on positions and velocities.

    ## Episode End
    Terminated where the height is outside (0.8, 2) or the angle outside (-1, 1). Truncated after
    `horizon` steps.

    ## Arguments
    * `log_scale_limit`: the exponents' limit, 3 in all publications; 10 at most.
    * `horizon`: H = 200, as PEARL's; `ctrl_cost_weight`: 0.001; `healthy_reward`: 1;
      `terminate_when_unhealthy`: `False` lets episodes go on; `reset_noise_scale`: 0.005.
    * `preset`: "promp2019" or "pearl2019", which are the defaults by name; explicit arguments
      override them.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `ParametersTask(body_mass, body_inertia, geom_friction, dof_damping)`: exponents u,
    each uniform in (-3, 3) and independent of the others; see `HopperRandParamsEnv`, which explains
    them. Here they are 58 numbers, of which 28 act. PEARL trains on 40 tasks and tests on 10
    (`n_train_tasks`, `n_test_tasks`).
    """

    family_class = Walker2dRandParamsFamily
    family: Walker2dRandParamsFamily


class Walker2dRandParamsVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `Walker2dRandParamsEnv` and `FamilyVectorEnv`."""

    family_class = Walker2dRandParamsFamily
    family: Walker2dRandParamsFamily
