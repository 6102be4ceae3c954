"""The studies of BO-MRL: which runs each of them has."""

from collections.abc import Callable, Iterable, Mapping

from zoo.studies.bo_mrl_locomotion import LOCOMOTION
from zoo.studies.bo_mrl_methods import METHODS, SIZE, VARIANCES, Options, bo_mrl, published
from zoo.studies.bo_mrl_network_convergence import network_convergence_run
from zoo.studies.bo_mrl_question_groups import QUESTIONS
from zoo.studies.bo_mrl_tabular import PLAYS as TABULAR_PLAYS
from zoo.studies.study import Context, Row, Run, Study

PLAYS: Mapping[str, Callable[[Run, Context], list[Row] | None]] = {
    **TABULAR_PLAYS,
    "network convergence": network_convergence_run,
}
"""By the ``kind`` of a run's config."""
_QUICK_METHODS = ("BO-MRL, Alg 2", "MAML, exact (E-MAML)", "multi-task, Alg 2", "uniform, Alg 2")


def quick(options: Options) -> Study:
    """Alg 2 against MAML, multi-task and uniform policies, 20 training tasks, ten seeds."""
    variances = ("high variance", "low variance")
    runs = _runs(variances, _QUICK_METHODS, 20, options, seeds=10, iterations=150)
    return Study("bo_mrl_quick", play, (*runs, *_variances(variances, options, seeds=10)))


def frozen_lake(options: Options) -> Study:
    """Alg 1 to 3 against all comparators, 20 training tasks, twenty seeds."""
    runs = _runs(VARIANCES, METHODS, 20, options, seeds=20, iterations=150)
    variances = _variances(VARIANCES, options, seeds=20)
    return Study("bo_mrl_frozen_lake", play, (*runs, *variances))


def frozen_lake_400(options: Options) -> Study:
    """The same with 400 training tasks and 400 iterations, ten seeds."""
    runs = _runs(VARIANCES, METHODS, 400, options, seeds=10, iterations=400)
    variances = _variances(VARIANCES, options, seeds=10)
    return Study("bo_mrl_frozen_lake_400", play, (*runs, *variances))


def converging(options: Options) -> Study:
    """Plain ascent on all training tasks, tables and networks: squared norm of the gradient."""
    runs = []
    for algorithm, lam in ((1, 0.5), (2, 0.5), (3, 0.1)):
        config = {
            **VARIANCES["low variance"],
            **SIZE,
            **bo_mrl(algorithm),
            "kind": "convergence",
            "n_train": 20,
            "grid": (lam,),
            "learning_rate": 1.0,
        }
        budget = {"n_iterations": options.n_iterations or 3000}
        name = f"BO-MRL, Alg {algorithm}"
        runs += [Run(name, seed, config, budget) for seed in range(options.n_seeds or 3)]
    return Study("bo_mrl_convergence", play, (*runs, *_network_convergence(options)))


GROUPS: Mapping[str, Callable[[Options], Study]] = {
    "quick": quick,
    "frozen_lake": frozen_lake,
    "frozen_lake_400": frozen_lake_400,
    "convergence": converging,
    **QUESTIONS,
    **LOCOMOTION,
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
                **SIZE,
                **METHODS[name],
                "published": published(variance, name),
                "kind": "tabular",
                "n_train": n_train,
            },
            budget,
        )
        for variance in variances
        for name in names
        for seed in range(options.n_seeds or seeds)
    ]


def _network_convergence(options: Options) -> list[Run]:
    """Fewer tasks than with tables, as lower levels are solved by iterations. Where the distance is
    a divergence, eta makes them regular; with `l2` lambda alone does."""
    settings = (
        (1, {"lam": 0.5, "eta": 0.01, "learning_rate": 1.0}, 1000),
        (2, {"lam": 0.5, "eta": 0.01, "learning_rate": 1.0}, 1000),
        (3, {"lam": 0.2, "eta": 0.0, "learning_rate": 0.3}, 3000),
    )
    size = {**SIZE, "kind": "network convergence", "n_train": 5, "n_hidden": 8}
    return [
        Run(
            f"network, Alg {algorithm}",
            seed,
            {**VARIANCES["low variance"], **size, "algorithm": algorithm, **levels},
            {"n_iterations": options.n_iterations or n_iterations},
        )
        for algorithm, levels, n_iterations in settings
        for seed in range(options.n_seeds or 3)
    ]


def _variances(variances: Iterable[str], options: Options, *, seeds: int) -> list[Run]:
    """One run for each family and seed, whose test tasks are those of the other runs."""
    config = {**SIZE, "kind": "variance", "algorithm": 2, "n_train": 20}
    budget = {"n_iterations": options.n_iterations or 100}
    return [
        Run(f"{variance}: task variance", seed, {**VARIANCES[variance], **config}, budget)
        for variance in variances
        for seed in range(options.n_seeds or seeds)
    ]
