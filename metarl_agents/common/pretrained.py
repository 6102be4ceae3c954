"""Trained agents by name: an index that says what each file is, and their way into memory.

A folder of trained agents holds files that `save` wrote and `index.json`, which names for each of
them the class, the env, the SHA-256 of the file, how it was trained and what it scored.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch as th

from metarl_agents.common.checkpoint import load_checkpoint
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.vec_env import AnyEnv

INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class TrainedAgent:
    """What the index says of one file.

    :param name: algorithm and env without its namespace, such as `promp/HalfCheetahDir-v0`
    :param file: its name within the folder
    :param sha256: of the file
    :param class_name: of the agent
    :param env_id: of the env that it was trained in
    :param env_kwargs: arguments of that env
    :param training: how it was trained
    :param scores: what it scored on held-out tasks
    :param versions: of the libraries that trained it
    """

    name: str
    file: str
    sha256: str
    class_name: str
    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def trained_agents_folder() -> Path | None:
    """The folder that comes with the installed `zoo`; None where that is not installed.

    It is found without being imported: agents do not depend on it.
    """
    spec = find_spec("zoo")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "trained_agents"
        if (folder / INDEX).is_file():
            return folder
    return None


def trained_agents(folder: str | Path | None = None) -> dict[str, TrainedAgent]:
    """The agents in a folder, by name.

    :param folder: one with an index; by default that of the installed `zoo`, if there is one
    """
    place = trained_agents_folder() if folder is None else Path(folder)
    if place is None:
        return {}
    path = place / INDEX
    if not path.is_file():
        raise ValueError(f"folder={str(folder)!r} has no {INDEX}: it holds no trained agents")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{path} is no index of format {FORMAT}")
    entries = index.get("agents")
    if not isinstance(entries, dict):
        raise ValueError(f"{path} has no object `agents`")
    return {name: _entry(name, value, path) for name, value in entries.items()}


def write_index(folder: Path, agents: Mapping[str, TrainedAgent]) -> None:
    """Writes the index of a folder.

    :param folder: where the agents' files are
    :param agents: by name
    """
    entries = {name: asdict(agent) for name, agent in sorted(agents.items())}
    for entry in entries.values():
        del entry["name"]
    text = json.dumps({"format": FORMAT, "agents": entries}, indent=1)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    :param path: the file
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_trained(
    classes: Sequence[type[MetaAlgorithm]],
    name_or_path: str | Path,
    env: AnyEnv | str | None = None,
    device: th.device | str = "auto",
    *,
    folder: str | Path | None = None,
) -> MetaAlgorithm:
    """An agent by its name in a folder of trained agents, or from a file whatever its class.

    :param classes: those that the file may be of
    :param name_or_path: see `metarl_agents.load_pretrained`
    :param env: of the agent, or None
    :param device: where tensors live
    :param folder: of trained agents, looked at before that of the installed `zoo`
    """
    is_path = isinstance(name_or_path, Path) or str(name_or_path).endswith(".zip")
    path, promised = Path(name_or_path), None
    if not is_path:
        path, promised = _verified(str(name_or_path), folder)
    by_name = {cls.__name__: cls for cls in classes}
    class_name = load_checkpoint(path).class_name
    if promised not in (None, class_name):
        raise ValueError(f"{path} holds a {class_name}, where its index promises a {promised}")
    if class_name not in by_name:
        raise ValueError(
            f"{path} holds a {class_name}, none of {', '.join(sorted(by_name))}: call "
            f"{class_name}.load"
        )
    return by_name[class_name].load(path, env, device=device)


def _verified(name: str, folder: str | Path | None) -> tuple[Path, str]:
    """The file of that name, whose digest is that of the index, and the class it should hold."""
    places = [place for place in (folder, trained_agents_folder()) if place is not None]
    known: list[str] = []
    for place in places:
        agents = trained_agents(place)
        known += agents
        if name in agents:
            path = Path(place) / agents[name].file
            if not path.is_file():
                raise ValueError(f"{path} is missing, which {Path(place) / INDEX} speaks of")
            if sha256_of(path) != agents[name].sha256:
                raise ValueError(f"{path} is not the file that {Path(place) / INDEX} describes")
            return path, agents[name].class_name
    found = ", ".join(sorted(set(known))) or "there are none here: give the path of a .zip file"
    raise ValueError(f"name_or_path={name!r} is no trained agent; known: {found}")


def _entry(name: str, value: Any, path: Path) -> TrainedAgent:
    names = {entry.name for entry in fields(TrainedAgent)} - {"name"}
    if not isinstance(value, dict) or set(value) != names:
        raise ValueError(f"{path}: the entry of {name!r} must have exactly {sorted(names)}")
    # A file name, not a path: nothing outside the folder is opened.
    file = value["file"]
    if not isinstance(file, str) or file in ("", "..") or Path(file).name != file:
        raise ValueError(f"{path}: file={value['file']!r} of {name!r} must be a plain file name")
    for key in ("sha256", "class_name", "env_id"):
        if not isinstance(value[key], str):
            raise ValueError(f"{path}: {key}={value[key]!r} of {name!r} must be text")
    for key in ("env_kwargs", "training", "scores", "versions"):
        if not isinstance(value[key], dict):
            raise ValueError(f"{path}: {key}={value[key]!r} of {name!r} must be an object")
    return TrainedAgent(name=name, **value)
