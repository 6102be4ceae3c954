"""Humanoid: run in a direction.

Shapes: B environments, N bodies of the model, with the world.
"""

from typing import Any

import numpy as np

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv, Params
from metarl_envs.batched.checking import check_deviations, check_flags, check_magnitudes
from metarl_envs.core import BoolArray, FloatArray
from metarl_envs.distributions import UniformTasks
from metarl_envs.locomotion.bodies import HUMANOID
from metarl_envs.locomotion.checking import warn_of_idle_threads
from metarl_envs.locomotion.family import Moved
from metarl_envs.locomotion.physics import Motion
from metarl_envs.locomotion.presets import with_preset
from metarl_envs.locomotion.rewards import contact_cost, control_cost, direction_reward
from metarl_envs.locomotion.tasks import HeadingTask
from metarl_envs.locomotion.upright import UprightFamily, is_inside

_DEFAULTS: dict[str, Any] = {
    "horizon": 200,
    "forward_reward_weight": 1.25,
    "ctrl_cost_weight": 0.1,
    "contact_cost_weight": 5e-7,
    "healthy_reward": 5.0,
}
_PRESETS: dict[str, dict[str, Any]] = {"promp2019": {}, "pearl2019": {}}
_MOST_CONTACT_COST = 10.0
_N_ROOT_DOFS = 6  # of the torso in the world, which nothing drives


class HumanoidDirFamily(UprightFamily):
    """Run in a direction; see `HumanoidDirEnv`."""

    n_position = 2
    n_train_tasks, n_test_tasks = 100, 30

    def __init__(
        self,
        *,
        preset: str | None = None,
        horizon: int | None = None,
        forward_reward_weight: float | None = None,
        ctrl_cost_weight: float | None = None,
        contact_cost_weight: float | None = None,
        healthy_reward: float | None = None,
        terminate_when_unhealthy: bool = True,
        include_cfrc_ext_in_observation: bool = False,
        reset_noise_scale: float = HUMANOID.reset_noise,
        n_threads: int = 1,
    ) -> None:
        given = {
            "horizon": horizon,
            "forward_reward_weight": forward_reward_weight,
            "ctrl_cost_weight": ctrl_cost_weight,
            "contact_cost_weight": contact_cost_weight,
            "healthy_reward": healthy_reward,
        }
        settings = with_preset(preset, _PRESETS, _DEFAULTS, given)
        self.preset = preset
        names = "forward_reward_weight", "contact_cost_weight"
        weights = {name: settings.pop(name) for name in names}
        check_deviations(**weights)
        check_magnitudes(**weights)
        check_flags(include_cfrc_ext_in_observation=include_cfrc_ext_in_observation)
        self.forward_reward_weight, self.contact_cost_weight = weights.values()
        self.include_cfrc_ext_in_observation = include_cfrc_ext_in_observation
        warn_of_idle_threads(n_threads, has_forces=include_cfrc_ext_in_observation)
        self.task_distribution = UniformTasks(HeadingTask.from_array, 0.0, 2 * np.pi)
        forces = ("cfrc_ext",) if include_cfrc_ext_in_observation else ()
        super().__init__(
            HUMANOID,
            **settings,
            terminate_when_unhealthy=terminate_when_unhealthy,
            reset_noise_scale=reset_noise_scale,
            n_threads=n_threads,
            derived=("xipos", "cinert", "cvel", "qfrc_actuator", *forces),
            is_exact=include_cfrc_ext_in_observation,
        )

    def compile(self, arrays: FloatArray) -> Params:
        """Directions, (B, 2)."""
        return {"direction": np.stack([np.cos(arrays[:, 0]), np.sin(arrays[:, 0])], axis=-1)}

    def sensed(self, motion: Motion) -> FloatArray:
        """Inertias and velocities of the bodies, torques, and perhaps contact forces, (B, k)."""
        derived = motion.derived
        parts = [
            derived["cinert"][:, 1:],
            derived["cvel"][:, 1:],
            derived["qfrc_actuator"][:, _N_ROOT_DOFS:],
        ]
        if self.include_cfrc_ext_in_observation:
            parts.append(derived["cfrc_ext"][:, 1:])
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def is_healthy(self, moved: Moved) -> BoolArray:
        """Height of the torso between 1 and 2, the bounds left out, (B,)."""
        return is_inside(moved.qpos[:, 2], 1.0, 2.0)

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`w v . d + bonus` less the costs of control and contacts, (B,)."""
        along = direction_reward(moved.velocity, params["direction"])
        bonus = self.is_healthy(moved) * self.healthy_reward
        # Gymnasium squares MuJoCo's own controls, which are float64.
        controls = moved.actions.astype(np.float64, order="C")
        costs = control_cost(controls, self.ctrl_cost_weight) + self._contact_cost(moved)
        return np.asarray(self.forward_reward_weight * along + bonus - costs)

    def _contact_cost(self, moved: Moved) -> FloatArray:
        if not self.include_cfrc_ext_in_observation:
            return np.zeros(len(moved.qpos))
        cost = contact_cost(moved.derived["cfrc_ext"], self.contact_cost_weight, np.inf)
        return np.asarray(np.minimum(cost, _MOST_CONTACT_COST))

    def _positions(self, states: FloatArray, derived: dict[str, FloatArray]) -> FloatArray:
        """Of the centre of mass, (B, 2), added up body by body as Gymnasium does."""
        masses, places = self.physics.model.body_mass, derived["xipos"]
        moments = masses[0] * places[:, 0, :2]
        for body in range(1, len(masses)):
            moments = moments + masses[body] * places[:, body, :2]
        return np.asarray(moments / masses.sum())


class HumanoidDirEnv(FamilyEnv):
    """Run in a direction that only the rewards tell.

    ## Description
    Gymnasium's Humanoid-v5 with the task family of PEARL (Rakelly et al., 2019,
    https://arxiv.org/abs/1903.08254, https://github.com/katerakelly/oyster). Simulated in batches
    by `mujoco.batch`, bit for bit as Gymnasium does one after the other.

    ## Action Space
    `Box(-0.4, 0.4, (17,), float32)`: torques, as Gymnasium's. Agents that expect actions in
    (-1, 1) want `gymnasium.wrappers.RescaleAction`.

    ## Observation Space
    `Box(-inf, inf, (270,), float64)`: joint positions without the place in the world (22),
    velocities (23), inertias (130) and velocities (78) of the bodies about the centre of mass, and
    torques (17), as Gymnasium's; the last three are those of one substep before, as there. With
    `include_cfrc_ext_in_observation=True` contact forces follow (78), and it is Gymnasium's own,
    348 numbers.

    ## Rewards
    `1.25 v . d - 0.1 ||a||^2 + 5`, where v is the velocity of the centre of mass over the step of
    0.015 s; the 5 is paid while the body is healthy, so not in the step that ends an episode. With
    contact forces there is also Gymnasium's cost of `min(5e-7 ||c||^2, 10)`, where c are these
    forces.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.01 on positions and velocities.

    ## Episode End
    Terminated where the height of the torso is outside (1, 2). Truncated after `horizon` steps.

    ## Arguments
    * `horizon`: H = 200; `forward_reward_weight`: 1.25; `ctrl_cost_weight`: 0.1; `healthy_reward`:
      5; all PEARL's. `terminate_when_unhealthy`: `False` lets episodes go on; `reset_noise_scale`:
      0.01.
    * `include_cfrc_ext_in_observation`: whether contact forces are observed and cost, as in PEARL
      and Gymnasium. Off, which is this package's choice, because only then can the physics run in
      batches on several threads; `contact_cost_weight`: 5e-7, which counts only with them.
    * `preset`: "promp2019" (Rothfuss et al., 2019, https://arxiv.org/abs/1810.06784, whose code has
      the same family) or "pearl2019", which are the default by name, contact forces aside; explicit
      arguments override them.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
      With contact forces there is one only, and a warning says so.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `HeadingTask(angle)`, uniform in (0, 2 pi); d is (cos angle, sin angle). PEARL trains
    on 100 tasks and tests on 30 (`n_train_tasks`, `n_test_tasks`); `sample_tasks(n, split="test")`
    draws from a stream of its own. The observation does not tell the task.
    """

    family_class = HumanoidDirFamily
    family: HumanoidDirFamily


class HumanoidDirVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `HumanoidDirEnv` and `FamilyVectorEnv`."""

    family_class = HumanoidDirFamily
    family: HumanoidDirFamily
