"""Writes agents to files and makes them anew from files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch as th
from stable_baselines3.common.utils import get_system_info

from metarl_agents.common.checkpoint import (
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
        spaces={name: getattr(agent, name) for name in ("observation_space", "action_space")},
        tensors=agent._learned_state(),
        generators=snapshot.generators,
        counters=snapshot.counters,
        records={
            "episode_infos": [_plain(info) for info in snapshot.episode_infos],
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
    arguments = _arguments(cls, path, checkpoint, env, overrides)
    agent = cls(env=env, device=device, **arguments)
    try:
        _restore(agent, checkpoint, keep_seed="seed" in overrides)
    except (KeyError, TypeError, RuntimeError, IndexError) as error:
        raise ValueError(f"{path} does not fit {cls.__name__}: {error}") from error
    return agent


def set_learned_state(
    agent: "MetaAlgorithm", source: str | Path | Mapping[str, Any], exact_match: bool
) -> None:
    """Gives an agent what another one learned; after an error it is as it was before.

    :param agent: who takes it over
    :param source: file, or what `get_parameters` returned
    :param exact_match: whether the source must have all names, or may leave some as they are
    """
    if isinstance(source, Mapping):
        if set(source) != {"learned_state"}:
            raise ValueError(f"expected the one key 'learned_state', got {sorted(source)}")
        state = dict(source["learned_state"])
    else:
        state = load_checkpoint(source, type(agent).__name__).tensors
    former = {name: tensor.detach().clone() for name, tensor in agent._learned_state().items()}
    if exact_match and set(state) != set(former):
        raise ValueError(
            f"the names {sorted(state)} differ from the agent's {sorted(former)}: "
            "pass exact_match=False to keep what is missing"
        )
    try:
        agent._restore_learned_state({**former, **state})
    except Exception:
        agent._restore_learned_state(former)
        raise


def _arguments(
    cls: type[Any],
    path: str | Path,
    checkpoint: Checkpoint,
    env: AnyEnv | str | None,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    parameters = constructor_parameters(cls)
    unknown = sorted((set(overrides) | set(checkpoint.arguments)) - set(parameters))
    if unknown:
        raise ValueError(f"{cls.__name__} has no constructor arguments {unknown}")
    missing = sorted(set(checkpoint.unsaved) - set(overrides))
    if missing:
        raise ValueError(
            f"{path} was saved by an agent with its own {missing}, which no file can hold: pass "
            f"them again, {cls.__name__}.load(path, {missing[0]}=...)"
        )
    arguments = {**checkpoint.arguments, **overrides}
    if env is not None and not isinstance(env, str) and "n_envs" not in overrides:
        # The env brings its own number, which may differ from the one before.
        arguments.pop("n_envs", None)
    if "_init_setup_model" in parameters:
        arguments["_init_setup_model"] = False
    return arguments


def _restore(agent: "MetaAlgorithm", checkpoint: Checkpoint, *, keep_seed: bool) -> None:
    spaces = checkpoint.spaces
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
    counters = {name: checkpoint.counters[name] for name in agent._counter_names}
    generators = {name: checkpoint.generators[name] for name in now.generators}
    agent._init_info_buffers()
    records = checkpoint.records
    restore_snapshot(
        agent,
        Snapshot(
            counters,
            now.generators if keep_seed else generators,
            records["episode_infos"],
            records["successes"],
        ),
    )


def _plain(info: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(info[key]) for key in ("r", "l", "t") if key in info}


def _print_versions(checkpoint: Checkpoint) -> None:
    print("== CURRENT SYSTEM INFO ==")
    get_system_info()
    print("== SAVED AGENT'S LIBRARIES ==")
    for library, version in checkpoint.versions.items():
        print(f"- {library}: {version}")
