"""The command line: ``python -m zoo train|evaluate|compare|enjoy|watch|envs|agents|demo``."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from zoo.allocator import keep_freed_memory
from zoo.config import (
    AgentsConfig,
    CompareConfig,
    DemoConfig,
    EnjoyConfig,
    EnvsConfig,
    EvaluateConfig,
    TrainConfig,
    WatchConfig,
)

Command = (
    Annotated[TrainConfig, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[EvaluateConfig, tyro.conf.subcommand("evaluate", prefix_name=False)]
    | Annotated[CompareConfig, tyro.conf.subcommand("compare", prefix_name=False)]
    | Annotated[EnjoyConfig, tyro.conf.subcommand("enjoy", prefix_name=False)]
    | Annotated[WatchConfig, tyro.conf.subcommand("watch", prefix_name=False)]
    | Annotated[EnvsConfig, tyro.conf.subcommand("envs", prefix_name=False)]
    | Annotated[AgentsConfig, tyro.conf.subcommand("agents", prefix_name=False)]
    | Annotated[DemoConfig, tyro.conf.subcommand("demo", prefix_name=False)]
)

# Modules are named, not imported: `--help` must not wait for torch.
RUNNERS = {
    TrainConfig: "zoo.commands:train",
    EvaluateConfig: "zoo.commands:evaluate",
    CompareConfig: "zoo.commands:compare",
    EnjoyConfig: "zoo.commands:enjoy",
    WatchConfig: "zoo.watch:watch",
    EnvsConfig: "zoo.commands:envs",
    AgentsConfig: "zoo.commands:agents",
    DemoConfig: "zoo.demo:run_demo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command; returns the exit status.

    :param argv: the command line without the program's name (default: ``sys.argv[1:]``)
    """
    command = tyro.cli(
        Command,
        prog="metarl",
        description="Meta-reinforcement learning: train, adapt, evaluate, compare.",
        args=argv,
    )
    keep_freed_memory()
    module, function = RUNNERS[type(command)].split(":")
    try:
        getattr(importlib.import_module(module), function)(command)
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("METARL_DEBUG"):
            raise
        print(f"error: {error}\n(METARL_DEBUG=1 shows where)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0
