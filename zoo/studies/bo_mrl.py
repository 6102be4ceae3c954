"""The studies of BO-MRL: which runs each of them has."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from zoo.studies.bo_mrl_tabular import PLAYS
from zoo.studies.study import Context, Row, Run, Study

Config = Mapping[str, Any]


class Options(NamedTuple):
    """What the command line may change; None leaves each study its own."""

    n_seeds: int | None = None
    n_iterations: int | None = None


_PRESET = {"preset": "bomrl2024"}
VARIANCES: Mapping[str, Config] = {
    "high variance": {"env": "metarl/FrozenLakeHoles-v0", "env_kwargs": {**_PRESET, "p": 0.8}},
    "high variance, p 0.95": {
        "env": "metarl/FrozenLakeHoles-v0",
        "env_kwargs": {**_PRESET, "p": 0.95},
    },
    "low variance": {"env": "metarl/FrozenLakeReward-v0", "env_kwargs": {**_PRESET}},
}
"""Task families. What their published maps were drawn with is not known: 0.8 is Gymnasium's, and
near 0.95 returns without adaptation are of the published size."""
_LAMS = (4.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
# Lower levels of logits count in squared logits: much smaller ones do the same.
_L2_LAMS = (0.1, 0.03, 0.02, 0.01, 0.005, 0.003, 0.001, 0.0003)
# On the gradient of the return: 1, 4, 10, 20 are 5, 20, 50, 100 without its factor 1 / (1 - gamma).
_STEP_SIZES = (0.3, 1.0, 4.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0)


def _bo_mrl(algorithm: int, method: str = "bo_mrl") -> Config:
    lams = _L2_LAMS if algorithm == 3 else _LAMS
    return {"method": method, "algorithm": algorithm, "grid": lams, "adapt_grid": lams}


def _maml(mode: str, step_sizes: tuple[float, ...] = _STEP_SIZES) -> Config:
    grids = {"grid": step_sizes, "adapt_grid": step_sizes}
    return {"method": "maml", "mode": mode, "algorithm": 2, **grids}


_SINGLE: Config = {"algorithm": 2, "grid": (0.0,), "adapt_grid": _LAMS}
METHODS: Mapping[str, Config] = {
    "BO-MRL, Alg 1": _bo_mrl(1),
    "BO-MRL, Alg 2": _bo_mrl(2),
    "BO-MRL, Alg 3": _bo_mrl(3),
    "first-order, Alg 2": _bo_mrl(2, "first_order"),
    "MAML, exact (E-MAML)": _maml("exact"),
    "MAML, exact, small steps": _maml("exact", (1.0, 4.0, 10.0, 20.0)),
    "MAML, naive": _maml("naive"),
    "multi-task, Alg 2": {"method": "multi_task", **_SINGLE},
    "uniform, Alg 2": {"method": "uniform", **_SINGLE},
}
"""With exact expectations E-MAML's gradient is that of exact MAML; the last two adapt by Alg 2.

Small steps are up to twice the one of publicly available scripts, 10; with exact gradients MAML can
take hundreds, which makes policies all but greedy where they come often."""
_OURS, _THEIRS = "BO-MRL, Alg 2", ("MAML, exact (E-MAML)", "MAML, exact, small steps")
_SIZE: Config = {
    "n_validation": 300,
    "n_test": 300,
    "meta_batch_size": 5,
    "learning_rate": 0.03,
}
"""Mini-batch and step size of Adam are those of publicly available experiment scripts."""


def quick(options: Options) -> Study:
    """Alg 2 against MAML, multi-task and uniform policies, 20 training tasks, five seeds."""
    names = (_OURS, *_THEIRS, "multi-task, Alg 2", "uniform, Alg 2")
    variances = ("high variance", "low variance")
    runs = [*_runs(variances, names, 20, options, seeds=5, iterations=150)]
    return Study("bo_mrl_quick", play, (*runs, *_variances(variances, options)))


def frozen_lake(options: Options) -> Study:
    """Alg 1 to 3 against all comparators, 20 training tasks, twenty seeds."""
    runs = _runs(VARIANCES, METHODS, 20, options, seeds=20, iterations=150)
    return Study("bo_mrl_frozen_lake", play, (*runs, *_variances(VARIANCES, options)))


def frozen_lake_400(options: Options) -> Study:
    """The same with 400 training tasks and 400 iterations, ten seeds."""
    runs = _runs(VARIANCES, METHODS, 400, options, seeds=10, iterations=400)
    return Study("bo_mrl_frozen_lake_400", play, (*runs, *_variances(VARIANCES, options)))


def converging(options: Options) -> Study:
    """Plain ascent on all of 20 training tasks: the squared norm of the gradient."""
    runs = []
    for algorithm, lam in ((1, 0.5), (2, 0.5), (3, 0.1)):
        config = {
            **VARIANCES["low variance"],
            **_SIZE,
            **_bo_mrl(algorithm),
            "kind": "convergence",
            "n_train": 20,
            "grid": (lam,),
            "learning_rate": 1.0,
        }
        budget = {"n_iterations": options.n_iterations or 3000}
        name = f"BO-MRL, Alg {algorithm}"
        runs += [Run(name, seed, config, budget) for seed in range(options.n_seeds or 3)]
    return Study("bo_mrl_convergence", play, tuple(runs))


GROUPS: Mapping[str, Callable[[Options], Study]] = {
    "quick": quick,
    "frozen_lake": frozen_lake,
    "frozen_lake_400": frozen_lake_400,
    "convergence": converging,
}
"""Every study by the name that the command line uses."""


def play(run: Run, context: Context) -> list[Row] | None:
    """
    Play a run of any of these studies.

    :param run: the run
    :param context: its surroundings
    """
    return PLAYS[run.config["kind"]](run, context)


def _runs(
    variances: Iterable[str],
    names: Iterable[str],
    n_train: int,
    options: Options,
    *,
    seeds: int,
    iterations: int,
) -> list[Run]:
    budget = {"n_iterations": options.n_iterations or iterations}
    names = tuple(names)
    return [
        Run(
            f"{variance}: {name}",
            seed,
            {
                **VARIANCES[variance],
                **_SIZE,
                **METHODS[name],
                "kind": "tabular",
                "n_train": n_train,
            },
            budget,
        )
        for variance in variances
        for name in names
        for seed in range(options.n_seeds or seeds)
    ]


def _variances(variances: Iterable[str], options: Options) -> list[Run]:
    """One run for each family; its test tasks are those of all seeds."""
    budget = {"n_iterations": 400 if options.n_iterations is None else options.n_iterations}
    return [
        Run(
            f"{variance}: task variance",
            0,
            {
                **VARIANCES[variance],
                **_SIZE,
                "kind": "variance",
                "algorithm": 2,
                "n_train": 20,
            },
            budget,
        )
        for variance in variances
    ]
