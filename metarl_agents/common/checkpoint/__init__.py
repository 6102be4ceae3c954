"""Saved agents: one file of JSON and tensors, verified before it is believed, never pickle."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from metarl_agents.common.checkpoint.archive import (
    MANIFEST,
    NOTICE,
    TENSORS,
    digest,
    notice,
    parse_json,
    read_archive,
    write_archive,
)
from metarl_agents.common.checkpoint.arguments import (
    NEVER_SAVED,
    ConstructorArguments,
    check_arguments,
    constructor_arguments,
    constructor_parameters,
)
from metarl_agents.common.checkpoint.codec import (
    Arrays,
    decode,
    decode_space,
    encode,
    encode_space,
    restored_generator,
)
from metarl_agents.common.checkpoint.named_callables import NAMED_CALLABLES, named_callable

__all__ = [
    "NAMED_CALLABLES",
    "NEVER_SAVED",
    "Checkpoint",
    "ConstructorArguments",
    "check_arguments",
    "checkpoint_path",
    "constructor_arguments",
    "constructor_parameters",
    "load_checkpoint",
    "named_callable",
    "restored_generator",
    "save_checkpoint",
]

FORMAT, FORMAT_VERSION = "metarl-baselines agent", 1
LEARNED, ARGUMENT = "learned/", "argument/"
LIBRARIES = ("metarl-baselines", "gymnasium", "numpy", "stable-baselines3", "torch")


class Checkpoint(NamedTuple):
    """What a file holds.

    :param class_name: of the agent
    :param arguments: of its constructor
    :param unsaved: names of arguments that were given but cannot be stored
    :param spaces: by name
    :param tensors: what was learned, on the CPU
    :param generators: states of NumPy generators by name
    :param counters: by name
    :param records: further values by name
    :param versions: of the libraries that wrote the file
    """

    class_name: str
    arguments: dict[str, Any]
    unsaved: list[str]
    spaces: dict[str, spaces.Space[Any]]
    tensors: dict[str, Tensor]
    generators: dict[str, dict[str, Any]]
    counters: dict[str, int]
    records: dict[str, Any]
    versions: dict[str, str]


def save_checkpoint(
    path: str | Path,
    *,
    class_name: str,
    arguments: Mapping[str, Any],
    spaces: Mapping[str, spaces.Space[Any]],
    tensors: Mapping[str, Tensor],
    generators: Mapping[str, Mapping[str, Any]],
    counters: Mapping[str, int],
    unsaved: list[str] | None = None,
    records: Mapping[str, Any] | None = None,
) -> None:
    """Writes an agent's file in one atomic step.

    :param path: where to; `.zip` is added where there is no suffix
    :param class_name: of the agent
    :param arguments: of its constructor
    :param spaces: by name
    :param tensors: what was learned
    :param generators: `generator.bit_generator.state` by name
    :param counters: integers by name
    :param unsaved: names of arguments that were given but cannot be stored
    :param records: further values that `encode` takes, by name
    """
    arrays: Arrays = {}
    encoded = {name: encode(value, arrays) for name, value in arguments.items()}
    learned = {f"{LEARNED}{name}": _packed(tensor) for name, tensor in tensors.items()}
    given = {f"{ARGUMENT}{name}": _tensor(array) for name, array in arrays.items()}
    packed = save_tensors({**learned, **given})
    members = {TENSORS: packed, NOTICE: notice(class_name)}
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class": class_name,
        "arguments": encoded,
        "unsaved": sorted(unsaved or []),
        "spaces": {name: encode_space(space) for name, space in spaces.items()},
        "generators": {name: dict(state) for name, state in generators.items()},
        "counters": {name: int(count) for name, count in counters.items()},
        "records": {name: encode(value) for name, value in (records or {}).items()},
        "versions": _versions(),
        "sha256": {name: digest(content) for name, content in members.items()},
    }
    content = json.dumps(manifest, indent=1, allow_nan=False).encode()
    write_archive(checkpoint_path(path), {MANIFEST: content, **members})


def load_checkpoint(path: str | Path, class_name: str | None = None) -> Checkpoint:
    """Reads and verifies an agent's file; `ValueError` says what is wrong with any other.

    :param path: the file, with or without its `.zip`
    :param class_name: class that must have saved it; None for any
    """
    file = _existing(path)
    members = read_archive(file)
    try:
        manifest = parse_json(members[MANIFEST])
        _check_manifest(manifest, members)
        if class_name is not None and manifest["class"] != class_name:
            raise ValueError(
                f"it was saved by {manifest['class']}: load it with {manifest['class']}.load, "
                f"not {class_name}.load"
            )
        return _checkpoint(manifest, load_tensors(members[TENSORS]))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(f"{file} cannot be loaded: {error}") from error
    except (OverflowError, RecursionError, SafetensorError, MemoryError) as error:
        raise ValueError(f"{file} cannot be loaded: it is damaged ({error})") from error


def checkpoint_path(path: str | Path) -> Path:
    """The path that `save` writes to: with `.zip` where there is no suffix, as SB3 does.

    :param path: what the user said
    """
    if not isinstance(path, (str, Path)):
        raise TypeError(
            f"path={path!r} is a {type(path).__name__}: agents are saved to and loaded from a path "
            "(str or pathlib.Path), not from file objects"
        )
    path = Path(path)
    if path.name in ("", ".."):
        raise ValueError(f"path={str(path)!r} is a folder: give the name of a file in it")
    return path.with_name(f"{path.name}.zip") if path.suffix == "" else path


def _existing(path: str | Path) -> Path:
    for candidate in (Path(path) if isinstance(path, str) else path, checkpoint_path(path)):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path}: there is no such file, nor {checkpoint_path(path)}")


def _packed(tensor: Tensor) -> Tensor:
    # safetensors refuses views that share memory; a copy never does.
    return tensor.detach().to("cpu", copy=True).contiguous()


def _tensor(array: np.ndarray) -> Tensor:
    # A copy in native byte order, since torch looks at no other and warns of read-only arrays.
    return th.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _check_manifest(manifest: Any, members: dict[str, bytes]) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"its manifest is not of the format {FORMAT!r}")
    _check_kinds(manifest)
    written = manifest["format_version"]
    if type(written) is not int or written != FORMAT_VERSION:
        raise ValueError(
            f"its format version is {written!r}, this library reads {FORMAT_VERSION}: install the "
            f"version that wrote it ({manifest.get('versions')})"
        )
    for name in (TENSORS, NOTICE):
        if manifest["sha256"][name] != digest(members[name]):
            raise ValueError(f"the SHA-256 of its member {name} does not match the manifest")


def _check_kinds(manifest: dict[str, Any]) -> None:
    for name in ("arguments", "spaces", "generators", "counters", "records", "versions", "sha256"):
        if not isinstance(manifest[name], dict):
            raise ValueError(f"its {name} are no object but {str(manifest[name])[:80]!r}")
    unsaved = manifest["unsaved"]
    if not isinstance(unsaved, list) or not all(isinstance(name, str) for name in unsaved):
        raise ValueError(f"its unsaved={str(unsaved)[:80]!r} is no list of names")
    for name in (manifest["class"], *manifest["versions"].values()):
        if not isinstance(name, str):
            raise ValueError(f"{str(name)[:80]!r} is no name of a class or version")


def _checkpoint(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    counters = manifest["counters"]
    if not all(type(count) is int and 0 <= count < 2**63 for count in counters.values()):
        raise ValueError(f"its counters {counters} must be non-negative integers")
    for state in manifest["generators"].values():
        restored_generator(state)
    arrays = {name: tensor.numpy() for name, tensor in _named(tensors, ARGUMENT).items()}
    return Checkpoint(
        class_name=manifest["class"],
        arguments={name: decode(value, arrays) for name, value in manifest["arguments"].items()},
        unsaved=list(manifest["unsaved"]),
        spaces={name: decode_space(value) for name, value in manifest["spaces"].items()},
        tensors=_named(tensors, LEARNED),
        generators=manifest["generators"],
        counters=counters,
        records={name: decode(value) for name, value in manifest["records"].items()},
        versions=dict(manifest["versions"]),
    )


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {name: t for name, t in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
