"""Checks of saving and loading, and of files that must be refused."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from metarl_agents.common.checkpoint import constructor_arguments
from metarl_agents.common.checkpoint.archive import MANIFEST, MEMBERS, TENSORS, notice
from metarl_agents.common.testing.construction import _same
from metarl_agents.common.testing.subject import (
    State,
    Subject,
    actions_of,
    difference,
    require,
    require_raises,
    require_same,
    state_of,
)


def saved_agent_is_restored(subject: Subject) -> None:
    """Learned state, generators, counters, arguments and predictions come back."""
    agent = subject.trained
    loaded = subject.algorithm.load(subject.saved, env=subject.vec_env())
    require_same(state_of(agent), state_of(loaded), "the saved and the loaded agent")
    theirs = constructor_arguments(loaded).saved
    for name, value in constructor_arguments(agent).saved.items():
        require(_same(value, theirs[name]), f"argument {name}={value!r} became {theirs[name]!r}")
    observations = subject.observations()
    require(
        np.array_equal(actions_of(agent, observations), actions_of(loaded, observations)),
        "the loaded agent predicts other actions",
    )


def loaded_agent_saves_the_same_file(subject: Subject) -> None:
    """Saving, loading and saving again gives the same bytes."""
    again = subject.folder / "again.zip"
    subject.algorithm.load(subject.saved, env=subject.vec_env()).save(again)
    require(again.read_bytes() == subject.saved.read_bytes(), "the second file has other bytes")


def saving_changes_nothing(subject: Subject) -> None:
    """An agent that was saved is the agent that it was."""
    before = state_of(subject.trained)
    subject.trained.save(subject.folder / "unchanged")
    require(
        (subject.folder / "unchanged.zip").is_file(), "save(path) does not add .zip as SB3 does"
    )
    require_same(before, state_of(subject.trained), "the agent before and after save()")


def agent_loads_without_an_env(subject: Subject) -> None:
    """`load(path)` works and adapts to an env; `set_env` afterwards makes it complete."""
    loaded = subject.algorithm.load(subject.saved)
    require(loaded.get_env() is None, "load(path) without env has an env")
    observations = subject.observations()
    ours, theirs = (
        actions_of(agent.adapt_to(subject.vec_env(), 2, seed=3), observations)
        for agent in (subject.trained, subject.algorithm.load(subject.saved))
    )
    require(np.array_equal(ours, theirs), "loaded without an env, adapt_to(env) acts otherwise")
    loaded.set_env(subject.vec_env())
    require_same(subject.reference, state_of(loaded), "the saved agent and load() with set_env()")
    loaded.learn(1, reset_num_timesteps=False)


def parameters_carry_over(subject: Subject) -> None:
    """`set_parameters(get_parameters())` hands all that was learned to a fresh agent, as a copy."""
    agent, before = subject.agent(), state_of(subject.trained)
    parameters = subject.trained.get_parameters()
    agent.set_parameters(parameters)
    learned = before._replace(generators={}, counters={})
    require_same(learned, _learned(agent), "what was learned and what set_parameters() took over")
    observations = subject.observations()
    require(
        np.array_equal(actions_of(subject.trained, observations), actions_of(agent, observations)),
        "set_parameters() leaves an agent that predicts other actions",
    )
    for tensor in parameters["learned_state"].values():
        tensor.fill_(1)
    require_same(before, state_of(subject.trained), "the agent before and after get_parameters()")
    require_raises(
        lambda: agent.set_parameters({"learned_state": {"no such name": th.zeros(1)}}),
        ValueError,
        what="set_parameters() with an unknown name",
    )
    require(
        difference(learned, _learned(agent)) is None,
        "set_parameters() shares memory with what it was given, or changed something in vain",
    )


def _learned(agent: Any) -> State:
    return state_of(agent)._replace(generators={}, counters={})


def arguments_can_be_replaced_by_load(subject: Subject) -> None:
    """Keywords of `load` replace constructor arguments; unknown ones are refused."""
    env = subject.vec_env()
    loaded = subject.algorithm.load(subject.saved, env=env, stats_window_size=3)
    require(loaded.stats_window_size == 3, "load(path, stats_window_size=3) was ignored")
    require_raises(
        lambda: subject.algorithm.load(subject.saved, env=env, no_such_argument=1),
        ValueError,
        TypeError,
        what="load(path, no_such_argument=1)",
    )


def files_of_other_classes_are_refused(subject: Subject) -> None:
    """A subclass does not load its parent's file: what was learned may mean another thing to it."""
    other: Any = type("SomeOtherAgent", (subject.algorithm,), {})
    require_raises(
        lambda: other.load(subject.saved), ValueError, what="load of a file of another class"
    )


def damaged_files_are_refused(subject: Subject) -> None:
    """Truncated, altered and foreign files raise ValueError and leave the agent untouched."""
    agent = subject.agent()
    before = state_of(agent)
    for what, content in damaged_files(subject.saved):
        path = subject.folder / "damaged.zip"
        path.write_bytes(content)
        require_raises(lambda p=path: subject.algorithm.load(p), ValueError, what=what)  # type: ignore[misc]
        require_raises(lambda p=path: agent.set_parameters(p), ValueError, what=what)  # type: ignore[misc]
        require_same(before, state_of(agent), f"the agent before and after {what}")


def damaged_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Files that no agent may load, each with its name.

    :param path: of a good file
    """
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in MEMBERS}
    yield "an empty file", b""
    yield "a text file", b"not an agent"
    for keep in (1, 100, len(good) // 2, len(good) - 1):
        yield f"a file truncated to {keep} bytes", good[:keep]
    for position in np.linspace(0, len(good) - 1, 16, dtype=int).tolist():
        altered = bytearray(good)
        altered[position] ^= 0x10
        yield f"a file with byte {position} altered", bytes(altered)
    yield "a file with appended bytes", good + b"0"
    yield from _foreign_files(members)


def _foreign_files(members: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    stream = b"cos\nsystem\n(S'true'\ntR."
    yield "a file with a pickle member", _zipped({**members, "policy.pkl": stream})
    yield "a file with a pickle as tensors", _zipped({**members, TENSORS: stream})
    yield "a file with a path-traversing member", _zipped({**members, "../../evil": b"x"})
    yield "a file with an absolute member", _zipped({**members, "/etc/evil": b"x"})
    yield "a file without tensors", _zipped({MANIFEST: members[MANIFEST], "data": notice("X")})
    yield "a compressed file", _zipped(members, zipfile.ZIP_DEFLATED)
    yield "a file that unpacks to a thousand times its size", _bomb(members)
    yield "an SB3 file", _zipped({"data": b"{}", "_stable_baselines3_version": b"2.9.2"})
    yield "a file with another manifest", _zipped({**members, MANIFEST: json.dumps({}).encode()})


def _zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _bomb(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, members[MANIFEST])
        archive.writestr("data", members["data"])
        with archive.open(TENSORS, "w") as member:
            for _ in range(64):
                member.write(bytes(2**20))
    return buffer.getvalue()
