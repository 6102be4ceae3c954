"""Hopper: hop forward on a leg of unknown masses, inertias, frictions and dampings.

Shapes: B environments.
"""

import numpy as np

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv
from metarl_envs.core import BoolArray
from metarl_envs.locomotion.bodies import HOPPER
from metarl_envs.locomotion.family import Moved
from metarl_envs.locomotion.random_parameters import RandomParametersFamily
from metarl_envs.locomotion.upright import is_inside


class HopperRandParamsFamily(RandomParametersFamily):
    """Hop forward with an unknown body; see `HopperRandParamsEnv`."""

    def __init__(
        self,
        *,
        preset: str | None = None,
        log_scale_limit: float = 3.0,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool = True,
        reset_noise_scale: float = HOPPER.reset_noise,
        n_threads: int = 1,
    ) -> None:
        super().__init__(
            HOPPER,
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
        """Height above 0.7, angle within 0.2, all else within 100, (B,)."""
        is_upright = is_inside(moved.qpos[:, 1], 0.7, np.inf)
        is_upright &= is_inside(moved.qpos[:, 2], -0.2, 0.2)
        is_calm = is_inside(moved.qpos[:, 2:], -100.0, 100.0).all(axis=1)
        return np.asarray(is_upright & is_calm & is_inside(moved.qvel, -100.0, 100.0).all(axis=1))


class HopperRandParamsEnv(FamilyEnv):
    """Hop forward with a body whose parameters differ from task to task.

    ## Description
    Gymnasium's Hopper-v5 with random masses, inertias, frictions and dampings, as in ProMP
    (Rothfuss et al., 2019, https://arxiv.org/abs/1810.06784) and PEARL (Rakelly et al., 2019,
    https://arxiv.org/abs/1903.08254), who took them from
    https://github.com/dennisl88/rand_param_envs. Simulated in batches by `mujoco.batch`, bit for
    bit as MuJoCo simulates each model by itself.

    ## Action Space
    `Box(-1, 1, (3,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (11,), float64)`: joint positions without the place on the track, and velocities
    clipped to 10, as Gymnasium's.

    ## Rewards
    `v + 1 - 0.001 ||a||^2`, where v is the speed over the step of 0.008 s; the 1 is paid while the
    body is healthy, so not in the step that ends an episode.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.005 on positions and velocities.

    ## Episode End
    Terminated where the body is not healthy: height of 0.7 or less, angle of 0.2 or more to either
    side, or another number of the state of 100 or more. Truncated after `horizon` steps.

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
    each uniform in (-3, 3) and independent of the others. Every body's mass, each of its principal
    moments of inertia and each friction of a geom is multiplied by `1.5^u`, and the damping of each
    joint by `1.3^u`, always starting from Gymnasium's model; `mj_setConst` then derives what else
    follows. The principal moments vary one by one, as published, so that hardly any body could be
    built; MuJoCo minds as little as the publications did. Parameters of value zero (the world's
    mass, the damping of the root's joints) have no exponent here, unlike in the published code,
    where those do nothing: 34 numbers are left. In a plane 16 of them act: the masses, of each
    body's moments the one about the axis across the track, the sliding frictions, and the dampings.

    PEARL trains on 40 tasks and tests on 10 (`n_train_tasks`, `n_test_tasks`);
    `sample_tasks(n, split="test")` draws from a stream of its own. Tasks differ in their dynamics,
    and observations do not tell them.
    """

    family_class = HopperRandParamsFamily
    family: HopperRandParamsFamily


class HopperRandParamsVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `HopperRandParamsEnv` and `FamilyVectorEnv`."""

    family_class = HopperRandParamsFamily
    family: HopperRandParamsFamily
