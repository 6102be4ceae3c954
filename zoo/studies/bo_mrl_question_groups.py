"""The studies of the open questions about BO-MRL: which runs each of them has."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.studies.bo_mrl_conditioning import conditioning_run
from zoo.studies.bo_mrl_methods import PRESET, SIZE, VARIANCES, Config, Options, bo_mrl, maml
from zoo.studies.bo_mrl_questions import EXACT_PLAYS
from zoo.studies.bo_mrl_sampled_questions import SAMPLED_PLAYS
from zoo.studies.study import Context, Row, Run, Study

QUESTION_PLAYS: Mapping[str, Callable[[Run, Context], list[Row] | None]] = {
    **EXACT_PLAYS,
    "conditioning": conditioning_run,
    **SAMPLED_PLAYS,
}
"""By the ``kind`` of a run's config."""

_BOTH = ("high variance", "low variance")
_HOLES, _COSTS = "metarl/FrozenLakeHoles-v0", "metarl/FrozenLakeReward-v0"
_FAMILIES: Mapping[str, Config] = {
    "FrozenLakeHoles": VARIANCES["high variance"],
    "FrozenLakeReward": VARIANCES["low variance"],
    "RandomMDP": {"env": "metarl/RandomMDP-v0", "env_kwargs": {}, "discount": 0.8},
}
_RELATIVE = tuple(2.0**exponent for exponent in range(3, -8, -1))
_LAMS = (2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
_SWEPT = (8.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
_L2_SWEPT = (0.1, 0.05, 0.03, 0.02, 0.01, 0.007, 0.005, 0.003, 0.002, 0.001, 3e-4, 1e-4, 3e-5)
_BUDGETS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Nats of mean KL that adaptation may move a policy."""
_CONDITIONED = (4.0, 1.0, 0.3, 0.1, 0.03)
_L2_CONDITIONED = (0.3, 0.1, 0.03, 0.01, 0.003)
_N_EPISODES = (20, 40, 80, 160, 320)
_SMALL: Config = {**SIZE, "n_validation": 100, "n_test": 100}
_MEASURED: Config = {**_SMALL, "n_variance_steps": 100}


def n_tasks(options: Options) -> Study:
    """How many training tasks: gap on them and on held-out ones, 5 to 400 tasks."""
    runs = {
        f"{variance}: {n} tasks": {**VARIANCES[variance], **SIZE, **_alg2(), "n_train": n}
        for variance in _BOTH
        for n in (5, 20, 100, 400)
    }
    return _study("n_tasks", "tasks", runs, options, seeds=20, iterations=300)


def lam(options: Options) -> Study:
    """Which lambda: training by adaptation, in three families, and whether a rule carries over."""
    grid = bo_mrl(2, lams=_RELATIVE)
    runs = {name: {**family, **_SMALL, **grid} for name, family in _FAMILIES.items()}
    return _study("lam", "lam", runs, options, seeds=20)


def metric(options: Options) -> Study:
    """Which distance: gap of Alg 1 to 3 by how far adaptation moves the policy."""
    runs = {
        f"{variance}: Alg {algorithm}": {
            **VARIANCES[variance],
            **_SMALL,
            **bo_mrl(algorithm, lams=_L2_SWEPT if algorithm == 3 else _SWEPT),
            "budgets": _BUDGETS,
        }
        for variance in _BOTH
        for algorithm in (1, 2, 3)
    }
    return _study("metric", "metric", runs, options, seeds=10)


def sparse(options: Options) -> Study:
    """Sparse and delayed rewards: 1 for reaching the goal and nothing else, exact and sampled Q."""
    dense = VARIANCES["high variance"]
    once = {"preset": "gymnasium", "discount": 0.8, "horizon": 49, "p": 0.8}
    lams = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002)
    steps = tuple(10.0 * 2.0**exponent for exponent in range(13))
    sampled = {"n_episodes": (20, 100, 500), "sampled_grid": lams, "n_sampled_steps": 2}
    methods: Mapping[str, Config] = {
        "BO-MRL, Alg 2": {**bo_mrl(2, lams=lams), **sampled},
        "uniform, Alg 2": {**bo_mrl(2, lams=lams), **sampled, "method": "uniform"},
        "MAML, exact": {**maml("exact", steps), "n_episodes": ()},
    }
    runs = {
        f"{rewards}: {name}": {**family, **_SMALL, **method, "rewards": rewards}
        for rewards, family in (("dense", dense), ("sparse", {"env": _HOLES, "env_kwargs": once}))
        for name, method in methods.items()
    }
    return _study("sparse", "sparse", runs, options, seeds=10)


def data(options: Options) -> Study:
    """Episodes at once or in between: equal numbers of them, at three levels of task variance."""
    runs = {
        f"holes, p {p:g}": {
            **_holes(p),
            **_MEASURED,
            **_alg2(),
            "n_validation": 50,
            "level": p,
            "n_episodes": _N_EPISODES,
            "sampled_grid": (1.0, 0.5, 0.2, 0.1, 0.05),
        }
        for p in (0.9, 0.8, 0.6)
    }
    return _study("data", "data", runs, options, seeds=8)


def conditioning(options: Options) -> Study:
    """How well conditioned the lower level is, by lambda and distance."""
    runs = {
        f"{variance}: Alg {algorithm}": {
            **VARIANCES[variance],
            **_SMALL,
            **bo_mrl(algorithm, lams=_L2_CONDITIONED if algorithm == 3 else _CONDITIONED),
        }
        for variance in _BOTH
        for algorithm in (1, 2, 3)
    }
    return _study("conditioning", "conditioning", runs, options, seeds=10)


def heterogeneity(options: Options) -> Study:
    """How much tasks differ: gap and bounds by the variance of the tasks."""
    series = {f"holes, p {p:g}": {**_holes(p), "level": p} for p in (0.5, 0.6, 0.7, 0.8, 0.9)}
    costs = {"env": _COSTS, "env_kwargs": {**PRESET, "penalty": 1.0}}
    for share in (0.0, 0.25, 0.5, 0.75, 0.9):
        series[f"costs, {share:.0%} shared"] = {**costs, "level": share, "shared": share}
    runs = {name: {**family, **_MEASURED, **_alg2()} for name, family in series.items()}
    return _study("heterogeneity", "heterogeneity", runs, options, seeds=20)


QUESTIONS: Mapping[str, Callable[[Options], Study]] = {
    "n_tasks": n_tasks,
    "lam": lam,
    "metric": metric,
    "sparse": sparse,
    "data": data,
    "conditioning": conditioning,
    "heterogeneity": heterogeneity,
}
"""Every study of a question by the name that the command line uses."""


def play_question(run: Run, context: Context) -> list[Row] | None:
    """
    Play a run of any of these studies.

    :param run: the run
    :param context: its surroundings
    """
    return QUESTION_PLAYS[run.config["kind"]](run, context)


def _study(
    group: str,
    kind: str,
    runs: Mapping[str, Mapping[str, Any]],
    options: Options,
    *,
    seeds: int,
    iterations: int = 150,
) -> Study:
    budget = {"n_iterations": options.n_iterations or iterations}
    common: Config = {"n_train": 20, "kind": kind}
    planned = (
        Run(name, seed, {**common, **config}, budget)
        for name, config in runs.items()
        for seed in _seeds(options, seeds)
    )
    return Study(f"bo_mrl_{group}", play_question, tuple(planned))


def _seeds(options: Options, usual: int) -> Iterable[int]:
    return range(options.n_seeds or usual)


def _alg2() -> Config:
    return bo_mrl(2, lams=_LAMS)


def _holes(p: float) -> Config:
    return {"env": _HOLES, "env_kwargs": {**PRESET, "p": p}}
