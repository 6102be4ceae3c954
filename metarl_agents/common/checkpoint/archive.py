"""The container of a saved agent: an uncompressed zip that ends in the digest of all before."""

import hashlib
import io
import json
import math
import os
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Any

MANIFEST, TENSORS, NOTICE = "manifest.json", "tensors.safetensors", "data"
MEMBERS = (MANIFEST, TENSORS, NOTICE)
MAX_BYTES = 16 * 2**30
MAX_MANIFEST_BYTES = 256 * 2**20
_DIGEST_LENGTH = 64


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    """Writes the members to `path` in one step: there is the old file, or the new one, or none.

    :param path: where to; its folder is made if missing; an existing file keeps its permissions
    :param members: contents by name
    """
    # Behind a link, so that it stays one.
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise ValueError(f"path={str(path)!r} is a folder or device: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_archive_bytes(members))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_archive(path: Path) -> dict[str, bytes]:
    """The members of a file that `write_archive` wrote; `ValueError` for any other file.

    :param path: the file
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES} bytes: it is no saved agent")
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_names(path, archive)
            _check_digest(path, content)
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ValueError(
            f"{path} is not a readable zip file ({error}): it is truncated, damaged or no saved "
            "agent"
        ) from error


def notice(class_name: str) -> bytes:
    """A member for Stable-Baselines3's own `load`, which warns with the names it cannot read.

    :param class_name: of the agent
    """
    sentence = (
        f"This file was saved by metarl_agents: load it with metarl_agents.{class_name}.load, "
        "not with a class of Stable-Baselines3"
    )
    return json.dumps({sentence: {":serialized:": None}}).encode()


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal.

    :param content: what to digest
    """
    return hashlib.sha256(content).hexdigest()


def _archive_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            # A fixed date: the same agent gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0)), content)
        archive.comment = b"0" * _DIGEST_LENGTH
    # The comment ends the file, so the digest in it can cover every byte before.
    body = buffer.getvalue()[:-_DIGEST_LENGTH]
    return body + digest(body).encode()


def _check_names(path: Path, archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if "_stable_baselines3_version" in names:
        raise ValueError(
            f"{path} was saved by Stable-Baselines3: load it with the class that saved it, "
            "for example stable_baselines3.PPO.load"
        )
    if sorted(names) != sorted(MEMBERS):
        raise ValueError(
            f"{path} is no saved agent: its members are {names[:8]}, not {list(MEMBERS)}"
        )
    for info in infos:
        limit = MAX_MANIFEST_BYTES if info.filename != TENSORS else MAX_BYTES
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored or info.flag_bits & 0x1 or info.file_size > limit:
            raise ValueError(
                f"{path} is no saved agent: its member {info.filename} is compressed, encrypted or "
                f"too large ({info.file_size} bytes)"
            )


def _check_digest(path: Path, content: bytes) -> None:
    body, claimed = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if digest(body).encode() != claimed:
        raise ValueError(
            f"{path} was altered or truncated after it was saved: its SHA-256 does not match"
        )


def parse_json(content: bytes) -> Any:
    """Strict JSON: no duplicate keys, no NaN, no infinities.

    :param content: UTF-8 text
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("an object in the manifest has a key twice")
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise ValueError(f"the manifest contains {constant}, which is not JSON")

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"the manifest contains {text[:80]}, which no float can hold")
        return number

    return json.loads(content, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return 0o666 & ~_umask()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
