"""How an environment comes by its family: made, checked, its knowledge handed on."""

import inspect
from numbers import Integral
from typing import Any

import gymnasium as gym

from metarl_envs.batched.checking import check_counts
from metarl_envs.batched.family import Family

_ACTION_SPACES = gym.spaces.Discrete, gym.spaces.Box
_OBSERVATION_SPACES = (
    gym.spaces.Discrete,
    gym.spaces.MultiDiscrete,
    gym.spaces.MultiBinary,
    gym.spaces.Box,
)


def made_family(env: Any, family: Family | None, arguments: dict[str, Any]) -> Family:
    """`family`, or where it is absent the one that the environment's class names.

    :param env: an instance of a class with `family_class`
    :param family: what the user handed in
    :param arguments: of `family_class`
    """
    family_class = getattr(env, "family_class", None)
    if family is not None and arguments:
        raise TypeError(f"{sorted(arguments)} are arguments of a family, but family is given")
    if family is not None:
        return checked_family(family)
    if family_class is None:
        raise TypeError(f"{type(env).__name__} has no family_class: give family=")
    known = inspect.signature(family_class.__init__).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in known.values()):
        names = sorted(set(known) - {"self"})
        raise TypeError(f"{type(env).__name__} has no arguments {unknown}; it has {names}")
    return checked_family(family_class(**arguments))


def checked_family(family: Any) -> Family:
    """`family`, or an error that says what its constructor has left out or got wrong."""
    if not isinstance(family, Family):
        raise TypeError(f"family={family!r} must be a metarl_envs.batched.Family")
    name = type(family).__name__
    needed = ("observation_space", "action_space", "task_distribution", "horizon")
    missing = [each for each in needed if not hasattr(family, each)]
    if missing:
        raise TypeError(f"{name} lacks {missing}: set them in its constructor")
    for role, kinds in (("observation", _OBSERVATION_SPACES), ("action", _ACTION_SPACES)):
        space = getattr(family, f"{role}_space")
        if not isinstance(space, kinds):
            names = [kind.__name__ for kind in kinds]
            raise TypeError(f"{name}: {role}_space={space} must be one of {names}")
    check_counts(horizon=family.horizon)
    for count in ("n_reset_uniforms", "n_step_uniforms"):
        value = getattr(family, count)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise ValueError(f"{name}: {count}={value!r} must be a non-negative integer")
    shape = family.task_distribution.space.shape
    if shape is None or len(shape) != 1:
        raise ValueError(
            f"{name}: tasks' arrays have shape {shape}, but must be (task_dim,): flatten them in "
            "to_array()"
        )
    return family


def hand_on_family(env: Any, family: Family) -> None:
    """Gives an environment its family, the task distribution, the horizon, and all that the family
    has beyond `Family`: `optimal_return`, `features`, `finite_mdp`, sizes, ...

    They become attributes of the instance: so `hasattr(env, "features")` tells the truth, and
    `isinstance` with the protocols of core.py holds on every Python version (3.12 and later do not
    see what `__getattr__` returns).

    :param env: the environment
    :param family: checked
    """
    env.family = family
    env.task_distribution = family.task_distribution
    env.horizon = family.horizon
    known = {*dir(Family), *Family.__annotations__, *dir(type(env))}
    for name in dir(family):
        if not name.startswith("_") and name not in known and hasattr(family, name):
            setattr(env, name, getattr(family, name))
