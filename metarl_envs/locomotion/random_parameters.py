"""Bodies whose masses, inertias, frictions and dampings differ from task to task.

Shapes: B environments, n parameters of a body that are not zero.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from metarl_envs.batched import Params
from metarl_envs.batched.checking import check_finite
from metarl_envs.batched.family import Array
from metarl_envs.core import FloatArray, IntArray, TupleTask
from metarl_envs.distributions import UniformTasks
from metarl_envs.locomotion.family import Body, Moved
from metarl_envs.locomotion.presets import with_preset
from metarl_envs.locomotion.upright import UprightFamily

BASES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}
"""A parameter is multiplied by its field's base to the power of the task's number for it."""
_DEFAULTS = {"horizon": 200, "ctrl_cost_weight": 1e-3, "healthy_reward": 1.0}
_PRESETS: dict[str, dict[str, Any]] = {"promp2019": {}, "pearl2019": {}}
_MODEL = "model."
_LARGEST_LIMIT = 10.0  # factors up to 58: beyond, nobody has seen that simulations stay finite


@dataclass(frozen=True)
class ParametersTask(TupleTask):
    """Exponents of the factors on a body's parameters, in MuJoCo's order, without those parameters
    that are zero.
    """

    body_mass: tuple[float, ...]
    """base 1.5"""
    body_inertia: tuple[float, ...]
    """base 1.5, one for each principal moment"""
    geom_friction: tuple[float, ...]
    """base 1.5; sliding, torsional and rolling friction of each geom"""
    dof_damping: tuple[float, ...]
    """base 1.3"""

    @classmethod
    def from_array(cls, ends: tuple[int, ...], array: FloatArray) -> "ParametersTask":
        """The inverse of `to_array`, (n,).

        :param ends: where the first three fields end in it
        :param array: (n,)
        """
        return cls(*(tuple(part.tolist()) for part in np.split(array, ends)))


class RandomParametersFamily(UprightFamily):
    """Run forward with a body of unknown parameters.

    :param body: the body
    :param preset: a published setting by name
    :param log_scale_limit: exponents are uniform between its negative and it
    :param horizon: steps of an episode
    :param ctrl_cost_weight: of the squared norm of actions
    :param healthy_reward: per step at whose end the body is healthy
    :param arguments: of `UprightFamily`
    """

    n_position = 1
    n_train_tasks, n_test_tasks = 40, 10

    def __init__(
        self,
        body: Body,
        *,
        preset: str | None,
        log_scale_limit: float,
        horizon: int | None,
        ctrl_cost_weight: float | None,
        healthy_reward: float | None,
        **arguments: Any,
    ) -> None:
        given = {
            "horizon": horizon,
            "ctrl_cost_weight": ctrl_cost_weight,
            "healthy_reward": healthy_reward,
        }
        settings = with_preset(preset, _PRESETS, _DEFAULTS, given)
        check_finite(log_scale_limit=log_scale_limit)
        if not 0 < log_scale_limit <= _LARGEST_LIMIT:
            raise ValueError(
                f"log_scale_limit={log_scale_limit!r} must be above 0 and at most {_LARGEST_LIMIT}"
            )
        super().__init__(body, **settings, **arguments)
        self.preset, self.log_scale_limit = preset, log_scale_limit
        self._varied: dict[str, IntArray] = {
            name: np.flatnonzero(getattr(self.physics.model, name)) for name in BASES
        }
        sizes = [len(places) for places in self._varied.values()]
        make_task = partial(ParametersTask.from_array, tuple(np.cumsum(sizes)[:-1].tolist()))
        bounds = np.full(sum(sizes), float(log_scale_limit))
        self.task_distribution = UniformTasks(make_task, -bounds, bounds)

    def compile(self, arrays: FloatArray) -> Params:
        """The model's fields of each task, with all that follows from them, (B, ...)."""
        constants = self.physics.constants(self._scaled(arrays))
        return {_MODEL + name: values for name, values in constants.items()}

    def fields(self, params: Params) -> dict[str, Array]:
        """See `LocomotionFamily.fields`."""
        return {name.removeprefix(_MODEL): values for name, values in params.items()}

    def rewards(self, params: Params, moved: Moved) -> FloatArray:
        """`v + bonus` less the control cost, (B,)."""
        return self.upright_reward(moved.velocity[:, 0], moved)

    def _scaled(self, arrays: FloatArray) -> dict[str, Array]:
        fields, start = {}, 0
        for name, places in self._varied.items():
            usual = getattr(self.physics.model, name)
            values = np.tile(usual.ravel(), (len(arrays), 1))
            values[:, places] *= BASES[name] ** arrays[:, start : start + len(places)]
            fields[name] = values.reshape(len(arrays), *usual.shape)
            start += len(places)
        return fields
