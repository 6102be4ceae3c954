"""Writes agents to files and makes them anew from files."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch as th
from stable_baselines3.common.utils import get_system_info
from torch import Tensor

from metarl_agents.common.checkpoint import (
    NEVER_SAVED,
    Checkpoint,
    constructor_arguments,
    constructor_parameters,
    load_checkpoint,
    save_checkpoint,
)
from metarl_agents.common.meta_algorithm.training import Snapshot, restore_snapshot, take_snapshot
from metarl_agents.common.vec_env import AnyEnv

if TYPE_CHECKING:
    from metarl_agents.common.meta_algorithm.algorithm import MetaAlgorithm

Agent = TypeVar("Agent", bound="MetaAlgorithm")

SPACES = ("observation_space", "action_space")
RECORDS = ("episode_infos", "successes")
EPISODE_INFO = {"r", "l"}


def save_agent(agent: "MetaAlgorithm", path: str | Path) -> None:
    """Writes an agent; in the middle of a collect, as it was at its start.

    :param agent: the agent
    :param path: where to
    """
    snapshot = agent._snapshot or take_snapshot(agent)
    arguments = constructor_arguments(agent)
    save_checkpoint(
        path,
        class_name=type(agent).__name__,
        arguments=arguments.saved,
        unsaved=arguments.unsaved,
        spaces={name: getattr(agent, name) for name in SPACES},
        tensors=agent._learned_state(),
        generators=snapshot.generators,
        counters=snapshot.counters,
        records={
            "episode_infos": [
                _plain(info) for info in snapshot.episode_infos if info.keys() >= EPISODE_INFO
            ],
            "successes": [float(success) for success in snapshot.successes],
        },
    )


def load_agent(
    cls: type[Agent],
    path: str | Path,
    env: AnyEnv | str | None,
    *,
    device: th.device | str,
    print_versions: bool,
    overrides: Mapping[str, Any],
) -> Agent:
    """A new agent of class `cls` from a file.

    :param cls: the class that saved it
    :param path: the file
    :param env: env to go on in, or None
    :param device: where tensors live
    :param print_versions: whether to print the versions here and those that wrote the file
    :param overrides: constructor arguments to replace those in the file
    """
    checkpoint = load_checkpoint(path, cls.__name__)
    if print_versions:
        _print_versions(checkpoint)
    with _failures_named(path, cls):
        arguments = _arguments(cls, path, checkpoint, env, overrides)
        agent = cls(env=env, device=device, **arguments)
        _restore(agent, checkpoint, keep_seed="seed" in overrides)
        if not overrides:
            # Other arguments may need other names; the agent has checked those.
            _check_names(path, set(checkpoint.tensors), set(agent._learned_state()))
    return agent


def set_learned_state(
    agent: "MetaAlgorithm", source: str | Path | Mapping[str, Any], exact_match: bool
) -> None:
    """Gives an agent what another one learned; after an error it is as it was before.

    :param agent: who takes it over
    :param source: file, or what `get_parameters` returned
    :param exact_match: whether the source must have all names, or may leave some as they are
    """
    state, former = _state_in(agent, source), cloned(agent._learned_state())
    try:
        # A fresh agent has fewer names than a trained one: only the agent knows what belongs to it.
        agent._restore_learned_state(state if exact_match else {**former, **state})
        if exact_match:
            _check_names("load_path_or_dict", set(state), set(agent._learned_state()))
    except Exception as error:
        agent._restore_learned_state(former)
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"load_path_or_dict does not fit {type(agent).__name__}: {_sentence(error)}; with "
            "exact_match=False, what is missing stays as it is"
        ) from error


def cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory with those given.

    :param tensors: by name
    """
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _state_in(agent: "MetaAlgorithm", source: Any) -> dict[str, Tensor]:
    """The tensors in what `set_parameters` was given, copied and finite."""
    if not isinstance(source, Mapping):
        if not isinstance(source, (str, Path)):
            raise TypeError(
                f"load_path_or_dict is a {type(source).__name__}: give a path, or what "
                "get_parameters() returns"
            )
        state: Any = load_checkpoint(source, type(agent).__name__).tensors
    elif set(source) != {"learned_state"}:
        raise ValueError(
            f"load_path_or_dict has the keys {list(source)}, not the one key 'learned_state' that "
            "get_parameters() gives it"
        )
    else:
        state = source["learned_state"]
    _check_tensors(state)
    return cloned(state)


def _check_tensors(state: Any) -> None:
    if not isinstance(state, Mapping):
        raise TypeError(
            f"load_path_or_dict['learned_state'] is a {type(state).__name__}: give a dict of "
            "tensors by name, as get_parameters() returns it"
        )
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(
                f"load_path_or_dict['learned_state'][{name!r}] is a {type(tensor).__name__}: give "
                "torch tensors by name, as get_parameters() returns them"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(
                f"load_path_or_dict['learned_state'][{name!r}] is not finite: the other agent's "
                "training diverged, or its state is damaged"
            )


def _check_names(what: str | Path, given: set[str], taken: set[str]) -> None:
    missing, unknown = sorted(taken - given), sorted(given - taken)
    if missing:
        raise ValueError(
            f"{what} lacks {missing} of what was learned: set_parameters(..., exact_match=False) "
            "keeps what is missing"
        )
    if unknown:
        raise ValueError(f"{what} holds {unknown}, which this agent does not learn")


@contextmanager
def _failures_named(path: str | Path, cls: type[Any]) -> Iterator[None]:
    """Turns whatever fails into a `ValueError` that names the file."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded as {cls.__name__}: {_sentence(error)}"
        ) from error


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _arguments(
    cls: type[Any],
    path: str | Path,
    checkpoint: Checkpoint,
    env: AnyEnv | str | None,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    parameters = constructor_parameters(cls)
    stored = {n: value for n, value in checkpoint.arguments.items() if n not in NEVER_SAVED}
    unknown = sorted((set(overrides) | set(stored)) - set(parameters))
    if unknown:
        raise ValueError(f"{cls.__name__} has no constructor arguments {unknown}")
    missing = sorted(set(checkpoint.unsaved) - set(overrides))
    if missing:
        raise ValueError(
            f"it was saved by an agent with its own {missing}, which no file can hold: pass them "
            f"again, {cls.__name__}.load(path, {missing[0]}=...)"
        )
    arguments = {**stored, **overrides}
    if env is not None and not isinstance(env, str) and "n_envs" not in overrides:
        # The env brings its own number, which may differ from the one before.
        arguments.pop("n_envs", None)
    if "_init_setup_model" in parameters:
        arguments["_init_setup_model"] = False
    return arguments


def _restore(agent: "MetaAlgorithm", checkpoint: Checkpoint, *, keep_seed: bool) -> None:
    spaces = checkpoint.spaces
    _require_names("spaces", spaces, SPACES)
    if agent.env is None:
        agent.observation_space = spaces["observation_space"]
        agent.action_space = spaces["action_space"]
    for name, space in spaces.items():
        if getattr(agent, name) != space:
            raise ValueError(
                f"the env's {name} {getattr(agent, name)} differs from {space}, in which the agent "
                "was trained: give an env of the same family and size"
            )
    _restore_counters(agent, checkpoint, keep_seed=keep_seed)
    agent._setup_model()
    agent._restore_learned_state(checkpoint.tensors)
    # `_setup_model` may have drawn random numbers.
    _restore_counters(agent, checkpoint, keep_seed=keep_seed)


def _restore_counters(agent: "MetaAlgorithm", checkpoint: Checkpoint, *, keep_seed: bool) -> None:
    now = take_snapshot(agent)
    records = checkpoint.records
    _require_names("counters", checkpoint.counters, now.counters)
    _require_names("generators", checkpoint.generators, now.generators)
    _require_names("records", records, RECORDS)
    agent._init_info_buffers()
    restore_snapshot(
        agent,
        Snapshot(
            checkpoint.counters,
            now.generators if keep_seed else checkpoint.generators,
            _checked_infos(records["episode_infos"]),
            _checked_numbers("successes", records["successes"]),
        ),
    )


def _plain(info: Mapping[str, Any]) -> dict[str, float]:
    # Without the time of day, which differs between two runs of the same agent.
    return {key: float(info[key]) for key in sorted(EPISODE_INFO)}


def _require_names(what: str, found: Mapping[str, Any], names: Iterable[str]) -> None:
    if set(found) != set(names):
        raise ValueError(f"its {what} are {sorted(found)}, but the agent has {sorted(names)}")


def _checked_infos(infos: Any) -> list[dict[str, float]]:
    if not isinstance(infos, list):
        raise ValueError(f"its episode_infos are no list but {str(infos)[:80]!r}")
    for info in infos:
        if not isinstance(info, dict) or set(info) != EPISODE_INFO:
            raise ValueError(f"its episode_infos hold {str(info)[:80]!r}, not 'r' and 'l'")
        _checked_numbers("episode_infos", list(info.values()))
    return infos


def _checked_numbers(what: str, numbers: Any) -> list[float]:
    if not isinstance(numbers, list) or not all(type(n) in (int, float) for n in numbers):
        raise ValueError(f"its {what} are no list of numbers but {str(numbers)[:80]!r}")
    return numbers


def _print_versions(checkpoint: Checkpoint) -> None:
    print("== CURRENT SYSTEM INFO ==")
    get_system_info()
    print("== SAVED AGENT'S LIBRARIES ==")
    for library, version in checkpoint.versions.items():
        print(f"- {library}: {version}")
