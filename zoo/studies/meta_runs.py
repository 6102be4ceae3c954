"""Runs that train our agents side by side: methods of their own arguments, one size for all."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from zoo.studies.study import Run

Config = Mapping[str, Any]


class Method(NamedTuple):
    """An algorithm with arguments of its own."""

    algo: str
    arguments: Config


def meta_runs(
    methods: Mapping[str, Method],
    env: str,
    size: Config,
    budget: Config,
    *,
    n_seeds: int,
    n_tasks: int,
    curves: Config,
    env_kwargs: Config | None = None,
) -> list[Run]:
    """
    A run of every method and seed, for `zoo.studies.training.meta_train`.

    :param methods: by the name of their runs
    :param env: id of the family
    :param size: arguments that all methods share; a method's own ones count more
    :param budget: of every run
    :param n_seeds: seeds 0, 1, ...
    :param n_tasks: held-out tasks to adapt to
    :param curves: arguments of ``evaluate_adaptation`` by the name of the protocol
    :param env_kwargs: arguments of the family
    """
    return [
        Run(
            name,
            seed,
            {
                "kind": "meta",
                "algo": method.algo,
                "env": env,
                "env_kwargs": dict(env_kwargs or {}),
                "arguments": {**size, **method.arguments},
                "n_tasks": n_tasks,
                "protocols": dict(curves),
            },
            dict(budget),
        )
        for name, method in methods.items()
        for seed in range(n_seeds)
    ]


def seed_by_seed(runs: Iterable[Run]) -> tuple[Run, ...]:
    """
    What is compared gets its first seed before anything gets its second.

    :param runs: of a study
    """
    return tuple(sorted(runs, key=lambda run: run.seed))
