"""Trains the agent under test in another Python process."""

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl_agents.common.checkpoint.codec import decode, encode

if TYPE_CHECKING:
    from metarl_agents.common.testing.subject import Subject

TIMEOUT = 600


def file_of_another_process(subject: "Subject") -> Path:
    """The agent's file after the training without a stop in a fresh interpreter.

    :param subject: what is under test
    """
    from metarl_agents.common.testing.subject import NotApplicableError

    configuration = subject.configuration
    path = subject.folder / "other_process.zip"
    try:
        job = {
            "algorithm": _address(configuration.algorithm),
            "policy": encode(configuration.policy),
            "env": configuration.env
            if isinstance(configuration.env, str)
            else _address(configuration.env),
            "arguments": encode({"seed": subject.seed, **configuration.kwargs}),
            "total_timesteps": subject.total_timesteps,
            "path": str(path),
        }
    except (ValueError, TypeError, OSError) as error:
        raise NotApplicableError(f"another process cannot make this agent: {error}") from error
    _run(json.dumps(job))
    return path


def train(job: dict[str, Any]) -> None:
    """What the other process does.

    :param job: addresses and arguments, as JSON holds them
    """
    algorithm = _at(job["algorithm"])
    env = job["env"] if isinstance(job["env"], str) else _at(job["env"])()
    agent = algorithm(decode(job["policy"]), env, **decode(job["arguments"]))
    agent.learn(job["total_timesteps"])
    agent.save(job["path"])


def _address(item: Callable[..., Any]) -> list[str]:
    """Module, its file, and name inside it."""
    if "<" in item.__qualname__:
        raise ValueError(f"{item.__qualname__} is local to a function")
    return [item.__module__, inspect.getfile(item), item.__qualname__]


def _at(address: list[str]) -> Any:
    name, file, qualname = address
    try:
        found: Any = importlib.import_module(name)
    except ImportError:
        # A test module that was never meant to be imported by name.
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[name] = found
        spec.loader.exec_module(found)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _run(job: str) -> None:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "12345",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "metarl_agents.common.testing.process", job]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603  our own module, with our own arguments
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT
        )
    if done.returncode:
        from metarl_agents.common.testing.subject import MetaAlgorithmError

        raise MetaAlgorithmError(f"another process failed: {done.stderr[-2000:]}")


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
