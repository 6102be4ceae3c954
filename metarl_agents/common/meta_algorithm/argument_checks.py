"""What the base constructor accepts, and errors that say what it must be."""

import os
from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

from metarl_agents.common.checkpoint import check_arguments


class CheckedArguments(ABCMeta):
    """Checks an agent's constructor arguments once its whole constructor has run."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        agent = super().__call__(*args, **kwargs)
        check_arguments(agent)
        return agent


def check_policy(policy: Any, aliases: Mapping[str, Any], owner: str) -> None:
    """`TypeError` unless `policy` is a name or a class that acts.

    :param policy: what the user said, or what a file holds
    :param aliases: policy classes by name
    :param owner: class name of the agent
    """
    is_class = isinstance(policy, type) and callable(getattr(policy, "predict", None))
    if not isinstance(policy, str) and not is_class:
        raise TypeError(
            f"policy={policy!r} is no policy of {owner}: use a name of its policy_aliases, one of "
            f"{sorted(aliases)}, or a class with predict()"
        )


def check_reports(stats_window_size: Any, tensorboard_log: Any, verbose: Any) -> None:
    """`ValueError` or `TypeError` where an argument about logs and notices makes no sense.

    :param stats_window_size: episodes that the logged means are taken over
    :param tensorboard_log: folder, or None
    :param verbose: 0, 1 or 2
    """
    if type(stats_window_size) is not int or stats_window_size < 1:
        raise ValueError(f"stats_window_size={stats_window_size!r} must be a positive integer")
    if tensorboard_log is not None and not isinstance(tensorboard_log, (str, os.PathLike)):
        raise TypeError(
            f"tensorboard_log={tensorboard_log!r} must be the path of a folder, or None"
        )
    if not isinstance(verbose, int) or verbose not in (0, 1, 2):
        raise ValueError(f"verbose={verbose!r} must be 0, 1 or 2")
