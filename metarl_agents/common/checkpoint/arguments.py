"""Which arguments an agent's constructor has, and which of them its file holds."""

import inspect
from typing import Any, NamedTuple

from metarl_agents.common.checkpoint.codec import encode

NEVER_SAVED = frozenset(
    {"self", "env", "env_kwargs", "device", "tensorboard_log", "_init_setup_model"}
)
"""Env, device and folders belong to the machine, not to what was learned; of a file that names them
all the same, they are dropped, since no file may decide where a program writes."""


class ConstructorArguments(NamedTuple):
    """The arguments of an agent.

    :param saved: by name, as the file holds them
    :param unsaved: names of those that were given but cannot be stored
    """

    saved: dict[str, Any]
    unsaved: list[str]


def constructor_parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """All keyword parameters of a class's constructor; through `**kwargs`, its parents' too.

    :param cls: the class
    """
    parameters: dict[str, inspect.Parameter] = {}
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        own = inspect.signature(vars(parent)["__init__"]).parameters.values()
        for parameter in own:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                parameters.setdefault(parameter.name, parameter)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own):
            break
    parameters.pop("self", None)
    return parameters


def constructor_arguments(agent: Any) -> ConstructorArguments:
    """The arguments an agent has now, read from the attributes of the same names.

    :param agent: a `MetaAlgorithm`
    """
    saved, unsaved = {}, []
    for name, parameter in constructor_parameters(type(agent)).items():
        if name in NEVER_SAVED:
            continue
        value = _policy_name(agent) if name == "policy" else _stored(agent, name)
        if name not in agent._unsaved_arguments and not (
            name == "policy" and isinstance(value, type)
        ):
            saved[name] = value
        elif value is not parameter.default:
            unsaved.append(name)
    return ConstructorArguments(saved, unsaved)


def check_arguments(agent: Any) -> None:
    """Refuses an agent with a constructor argument that its file could not hold.

    :param agent: a `MetaAlgorithm`
    """
    for name, value in constructor_arguments(agent).saved.items():
        try:
            encode(value, {})
        except ValueError as error:
            raise ValueError(f"{type(agent).__name__}({name}=...): {error}") from error


def _stored(agent: Any, name: str) -> Any:
    try:
        return getattr(agent, name)
    except AttributeError:
        raise TypeError(
            f"{type(agent).__name__} has a constructor argument {name!r} but no attribute of that "
            f"name: store it unchanged (self.{name} = {name}), so that save and load can find it"
        ) from None


def _policy_name(agent: Any) -> Any:
    policy = agent._policy_argument
    names = [name for name, known in agent.policy_aliases.items() if known is policy]
    return names[0] if names else policy
