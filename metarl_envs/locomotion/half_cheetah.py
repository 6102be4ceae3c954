"""HalfCheetah: run at a speed, forward or backward, or with a changed mass.

Shapes: B environments.
"""

from typing import Any

import numpy as np

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv, Params
from metarl_envs.batched.checking import check_deviations, check_magnitudes
from metarl_envs.batched.family import Array
from metarl_envs.core import FloatArray
from metarl_envs.distributions import FiniteTasks, UniformTasks
from metarl_envs.locomotion.bodies import HALF_CHEETAH
from metarl_envs.locomotion.checking import checked_range
from metarl_envs.locomotion.family import LocomotionFamily, Moved
from metarl_envs.locomotion.presets import with_preset
from metarl_envs.locomotion.rewards import control_cost, direction_reward, speed_reward
from metarl_envs.locomotion.tasks import DirectionTask, MassTask, VelocityTask

_MODEL = "model."
_LARGEST_EXPONENT = 10
_DEFAULTS = {"horizon": 200, "ctrl_cost_weight": 0.05}
_PRESETS: dict[str, dict[str, Any]] = {
    "finn2017": {"horizon": 200},
    "promp2019": {"horizon": 100},
    "pearl2019": {"horizon": 200},
    "bomrl2024": {"horizon": 200},
}


class _CheetahFamily(LocomotionFamily):
    """What the HalfCheetah families share: it never falls, and control costs."""

    n_position = 1

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        reset_noise_scale: float,
        n_threads: int,
    ) -> None:
        check_deviations(ctrl_cost_weight=settings["ctrl_cost_weight"])
        check_magnitudes(ctrl_cost_weight=settings["ctrl_cost_weight"])
        self.ctrl_cost_weight = settings["ctrl_cost_weight"]
        super().__init__(
            HALF_CHEETAH,
            horizon=settings["horizon"],
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
        )


class HalfCheetahVelFamily(_CheetahFamily):
    """Run at a speed; see `HalfCheetahVelEnv`."""

    n_train_tasks, n_test_tasks = 100, 30

    def __init__(
        self,
        *,
        preset: str | None = None,
        task_range: tuple[float, float] | None = None,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        reset_noise_scale: float = HALF_CHEETAH.reset_noise,
        n_threads: int = 1,
    ) -> None:
        narrow = {"task_range": (0.0, 2.0)}
        presets = _PRESETS | {name: _PRESETS[name] | narrow for name in ("finn2017", "bomrl2024")}
        settings = with_preset(
            preset,
            presets,
            _DEFAULTS | {"task_range": (0.0, 3.0)},
            {"task_range": task_range, "horizon": horizon, "ctrl_cost_weight": ctrl_cost_weight},
        )
        super().__init__(settings, reset_noise_scale=reset_noise_scale, n_threads=n_threads)
        self.preset = preset
        self.task_range = checked_range("task_range", settings["task_range"])
        self.task_distribution = UniformTasks(VelocityTask.from_array, *self.task_range)

    def compile(self, arrays: FloatArray) -> Params:
        """Target speeds, (B,), m/s."""
        return {"velocity": arrays[:, 0].copy()}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`-|v - v*|` less the control cost, (B,)."""
        cost = control_cost(moved.actions, self.ctrl_cost_weight)
        return speed_reward(moved.velocity[:, 0], params["velocity"]) - cost


class HalfCheetahDirFamily(_CheetahFamily):
    """Run forward or backward; see `HalfCheetahDirEnv`."""

    n_train_tasks, n_test_tasks = 2, 2

    def __init__(
        self,
        *,
        preset: str | None = None,
        horizon: int | None = None,
        ctrl_cost_weight: float | None = None,
        reset_noise_scale: float = HALF_CHEETAH.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {"horizon": horizon, "ctrl_cost_weight": ctrl_cost_weight}
        settings = with_preset(preset, _PRESETS, _DEFAULTS, given)
        super().__init__(settings, reset_noise_scale=reset_noise_scale, n_threads=n_threads)
        self.preset = preset
        self.task_distribution = FiniteTasks([DirectionTask(-1), DirectionTask(1)])

    def compile(self, arrays: FloatArray) -> Params:
        """Directions, (B, 2)."""
        return {"direction": np.stack([arrays[:, 0], np.zeros(len(arrays))], axis=-1)}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`d v` less the control cost, (B,)."""
        cost = control_cost(moved.actions, self.ctrl_cost_weight)
        return direction_reward(moved.velocity, params["direction"]) - cost


class HalfCheetahMassFamily(_CheetahFamily):
    """Run forward with an unknown mass; see `HalfCheetahMassEnv`."""

    n_train_tasks, n_test_tasks = 100, 30

    def __init__(
        self,
        *,
        task_range: tuple[float, float] = (-1.0, 1.0),
        horizon: int = 200,
        ctrl_cost_weight: float = 0.05,
        reset_noise_scale: float = HALF_CHEETAH.reset_noise,
        n_threads: int = 1,
    ) -> None:
        settings = {"horizon": horizon, "ctrl_cost_weight": ctrl_cost_weight}
        super().__init__(settings, reset_noise_scale=reset_noise_scale, n_threads=n_threads)
        self.task_range = checked_range("task_range", task_range)
        if max(map(abs, self.task_range)) > _LARGEST_EXPONENT:
            raise ValueError(
                f"task_range={task_range!r} must lie within [-{_LARGEST_EXPONENT}, "
                f"{_LARGEST_EXPONENT}]: these are exponents of 2"
            )
        self.task_distribution = UniformTasks(MassTask.from_array, *self.task_range)

    def compile(self, arrays: FloatArray) -> Params:
        """The model's fields of each task, with all that follows from them, (B, ...)."""
        factors, model = np.exp2(arrays), self.physics.model
        scaled = {
            "body_mass": factors * model.body_mass,
            "body_inertia": factors[:, :, None] * model.body_inertia,
        }
        constants = self.physics.constants(scaled)
        return {_MODEL + name: values for name, values in constants.items()}

    def fields(self, params: Params) -> dict[str, Array]:
        """See `LocomotionFamily.fields`."""
        return {name.removeprefix(_MODEL): values for name, values in params.items()}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`v` less the control cost, (B,)."""
        return moved.velocity[:, 0] - control_cost(moved.actions, self.ctrl_cost_weight)


class HalfCheetahVelEnv(FamilyEnv):
    """Run at a speed that only the rewards tell.

    ## Description
    Gymnasium's HalfCheetah-v5 with the task family of Finn, Abbeel and Levine (2017,
    https://arxiv.org/abs/1703.03400). Simulated in batches by `mujoco.batch`, bit for bit as
    Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: joint positions without the place on the track, and
    velocities, as Gymnasium's.

    ## Rewards
    `-|v - v*| - 0.05 ||a||^2`, where v is the speed over the step of 0.05 s.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `task_range`: target speeds, m/s; (0, 3) as in ProMP (Rothfuss et al., 2019,
      https://arxiv.org/abs/1810.06784) and PEARL (Rakelly et al., 2019,
      https://arxiv.org/abs/1903.08254).
    * `horizon`: H = 200; `ctrl_cost_weight`: 0.05, where Gymnasium's own default is 0.1;
      `reset_noise_scale`: 0.1.
    * `preset`: "finn2017" (speeds up to 2), "promp2019" (H = 100), "pearl2019", or "bomrl2024"
      (speeds up to 2, as in the public experiment scripts for Xu and Zhu, 2024,
      https://arxiv.org/abs/2410.09728); explicit arguments override it.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `VelocityTask(velocity)`, uniform in `task_range`. PEARL trains on 100 tasks and tests
    on 30 (`n_train_tasks`, `n_test_tasks`); `sample_tasks(n, split="test")` draws from a stream of
    its own. The observation does not tell the task.
    """

    family_class = HalfCheetahVelFamily
    family: HalfCheetahVelFamily


class HalfCheetahVelVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `HalfCheetahVelEnv` and `FamilyVectorEnv`."""

    family_class = HalfCheetahVelFamily
    family: HalfCheetahVelFamily


class HalfCheetahDirEnv(FamilyEnv):
    """Run forward or backward, which only the rewards tell.

    ## Description
    Gymnasium's HalfCheetah-v5 with the two tasks of Finn, Abbeel and Levine (2017,
    https://arxiv.org/abs/1703.03400). Simulated in batches by `mujoco.batch`, bit for bit as
    Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: joint positions without the place on the track, and
    velocities, as Gymnasium's.

    ## Rewards
    `d v - 0.05 ||a||^2`, where v is the speed over the step of 0.05 s, and d is 1 or -1.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `horizon`: H = 200; `ctrl_cost_weight`: 0.05, where Gymnasium's own default is 0.1;
      `reset_noise_scale`: 0.1.
    * `preset`: "finn2017", "pearl2019" (Rakelly et al., 2019, https://arxiv.org/abs/1903.08254) and
      "bomrl2024" (Xu and Zhu, 2024, https://arxiv.org/abs/2410.09728), which are the default by
      name, and "promp2019" (Rothfuss et al., 2019, https://arxiv.org/abs/1810.06784; H = 100);
      explicit arguments override it.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `DirectionTask(direction)`, 1 (forward) or -1 (backward) with equal probability. There
    are two only, so train = test, as in PEARL (`n_train_tasks` and `n_test_tasks` are 2). The
    observation does not tell the task.
    """

    family_class = HalfCheetahDirFamily
    family: HalfCheetahDirFamily


class HalfCheetahDirVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `HalfCheetahDirEnv` and `FamilyVectorEnv`."""

    family_class = HalfCheetahDirFamily
    family: HalfCheetahDirFamily


class HalfCheetahMassEnv(FamilyEnv):
    """Run forward with a body whose mass only its movements tell.

    ## Description
    Gymnasium's HalfCheetah-v5 with the masses of Greenberg et al. (2023, RoML,
    https://arxiv.org/abs/2301.11147, https://github.com/ido90/RobustMetaRL). Simulated in batches
    by `mujoco.batch`, bit for bit as MuJoCo steps one such model after the other.

    ## Action Space
    `Box(-1, 1, (6,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (17,), float64)`: joint positions without the place on the track, and
    velocities, as Gymnasium's.

    ## Rewards
    `v - 0.05 ||a||^2`, where v is the speed over the step of 0.05 s. RoML's code adds the height of
    the torso, which is left out here.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `task_range`: exponents of the factor on masses; (-1, 1) as in RoML's code, so half to twice
      the usual mass.
    * `horizon`: H = 200 as in RoML's code; `ctrl_cost_weight`: 0.05, where Gymnasium's own default
      is 0.1; `reset_noise_scale`: 0.1.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `MassTask(exponent)`, uniform in `task_range`: all masses of bodies are multiplied by
    `2 ** exponent`. So are their moments of inertia, as if the material were denser: this package's
    choice, where RoML's code leaves them as they are and makes the limbs thicker. MuJoCo's
    constants that follow from masses are derived anew. RoML's code draws fresh tasks for every
    trial; `n_train_tasks` and `n_test_tasks` are those of PEARL's HalfCheetahVel, 100 and 30.
    """

    family_class = HalfCheetahMassFamily
    family: HalfCheetahMassFamily


class HalfCheetahMassVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `HalfCheetahMassEnv` and `FamilyVectorEnv`."""

    family_class = HalfCheetahMassFamily
    family: HalfCheetahMassFamily
