"""Tables of the studies of open questions about BO-MRL; gaps are means over seeds [95 %]."""

from collections.abc import Callable, Mapping

import numpy as np

from zoo.report import Grid
from zoo.studies.adaptation_report import Rows, names_of, rows_of
from zoo.studies.bo_mrl_lam_tables import lam_grids
from zoo.studies.seed_statistics import (
    by_seed,
    cell,
    difference,
    interval_of,
    levels_of,
    mean_cell,
)

ALGORITHMS = ("Alg 1", "Alg 2", "Alg 3")
ONE_BATCH, ONE_BATCH_AGAIN, FOUR_BATCHES = (
    "one batch, 1 solve",
    "one batch, 4 solves",
    "4 batches, 4 solves",
)


def families_of(rows: Rows) -> list[str]:
    """
    What stands before the colon in the names of runs, in order.

    :param rows: of the table
    """
    return list(dict.fromkeys(name.partition(": ")[0] for name in names_of(rows)))


def n_tasks_grids(rows: Rows) -> list[Grid]:
    """
    Gaps on training and test tasks, by the number of training tasks.

    :param rows: of the table
    """
    lines = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        train, test = (by_seed(own, part, step=1) for part in ("train", "test"))
        lines.append(
            (
                name,
                str(len(test)),
                f"{np.median(list(by_seed(own, 'lam', step=1).values())):g}",
                cell(interval_of(own, "train", step=1)),
                cell(interval_of(own, "test", step=1)),
                cell(difference(test, train)),
                cell(interval_of(own, "test", step=2)),
            )
        )
    columns: tuple[str, ...] = ("training tasks", "seeds", "lambda (median)", "gap on them, k = 1")
    columns = (*columns, "on test tasks", "difference", "on test tasks, k = 2")
    return [Grid("Number of training tasks, Alg 2", columns, tuple(lines))]


def metric_grids(rows: Rows) -> list[Grid]:
    """
    Gaps of the three distances, each with the lambdas of training and adaptation that are best on
    validation tasks among those whose adaptation stays within a mean KL there.

    :param rows: of the table
    """
    lines = []
    for family in families_of(rows):
        for budget in levels_of(rows, "budget"):
            found = {name: budget_gaps(rows, f"{family}: {name}", budget) for name in ALGORITHMS}
            cells = [_moved(rows, f"{family}: {name}", budget) for name in ALGORITHMS]
            cells += [
                mean_cell(shared_differences(found[other], found["Alg 2"]))
                for other in ("Alg 1", "Alg 3")
            ]
            lines.append((family, budget, *cells))
    columns: tuple[str, ...] = ("family", "mean KL at most", *ALGORITHMS)
    columns = (*columns, "Alg 1 minus Alg 2", "Alg 3 minus Alg 2")
    title = "Gap on test tasks after one step, and the mean KL of adaptation there"
    return [Grid(title, columns, tuple(lines))]


def budget_gaps(rows: Rows, name: str, budget: str) -> dict[int, float]:
    """
    Gaps on test tasks within a mean KL, by seed; without seeds in which no lambda stays within.

    :param rows: of the table
    :param name: of the run
    :param budget: nats
    """
    return by_seed(rows_of(rows, name), "test", budget=budget)


def shared_differences(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """
    The first minus the second, for the seeds that both have.

    :param first: by seed
    :param second: by seed
    """
    return {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}


def _moved(rows: Rows, name: str, budget: str) -> str:
    gaps = budget_gaps(rows, name, budget)
    if not gaps:
        return ""
    mean_kl = interval_of(rows_of(rows, name), "test_kl", budget=budget).estimate
    return f"{mean_cell(gaps)} at {mean_kl:.2g}"


def sparse_grids(rows: Rows) -> list[Grid]:
    """
    The share of the optimum that is missing, with exact and with sampled Q.

    :param rows: of the table
    """
    lines = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        for n_episodes in levels_of(own, "n_episodes"):
            here = [row for row in own if str(row["n_episodes"]) == n_episodes]
            steps = [cell(interval_of(here, "missing", step=step)) for step in _steps(here)]
            first = [mean_cell(by_seed(here, c, step=1)) for c in ("coverage", "missed")]
            lam = np.median(list(by_seed(here, "lam", step=1).values()))
            lines.append((name, n_episodes, f"{lam:g}", *(steps + [""] * 2)[:2], *first))
    columns: tuple[str, ...] = (
        "rewards: method",
        "episodes per step",
        "lambda or step size (median)",
    )
    columns = (*columns, "missing, k = 1", "k = 2", "pairs played", "missed of the best policy")
    title = "Share of the optimum that is missing on test tasks; dense pays -1 in holes and again"
    return [Grid(title, columns, tuple(lines))]


def _steps(rows: Rows) -> list[int]:
    return [step for step in (1, 2) if any(int(row["step"]) == step for row in rows)]


def data_grids(rows: Rows) -> list[Grid]:
    """
    Gaps after equal numbers of episodes, by how they are spent.

    :param rows: of the table
    """
    lines = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        variance = cell(interval_of(_first_of_each_seed(own), "variance"))
        for n in levels_of(own, "n_episodes"):
            found = {p: spent(own, p, n) for p in (ONE_BATCH, ONE_BATCH_AGAIN, FOUR_BATCHES)}
            cells = [mean_cell(gaps) for gaps in found.values()]
            cells += [
                cell(difference(found[other], found[FOUR_BATCHES]))
                for other in (ONE_BATCH, ONE_BATCH_AGAIN)
            ]
            lines.append((name, variance, n, *cells))
    columns: tuple[str, ...] = (
        "tasks",
        "Var, reverse KL",
        "episodes",
        ONE_BATCH,
        ONE_BATCH_AGAIN,
        FOUR_BATCHES,
    )
    columns = (*columns, "1 solve minus 4 batches", "4 solves minus 4 batches")
    title = "Gap on test tasks after equal numbers of episodes, Alg 2 with sampled Q"
    return [Grid(title, columns, tuple(lines))]


def spent(rows: Rows, protocol: str, n_episodes: str) -> dict[int, float]:
    """
    Gaps on test tasks, by seed.

    :param rows: of a run
    :param protocol: how episodes are spent
    :param n_episodes: how many
    """
    return by_seed(rows, "test", protocol=protocol, n_episodes=n_episodes)


def _first_of_each_seed(rows: Rows) -> Rows:
    return list({int(row["seed"]): row for row in reversed(rows)}.values())


def conditioning_grids(rows: Rows) -> list[Grid]:
    """
    Condition numbers by lambda and distance, and the error of implicit differentiation.

    :param rows: of the table
    """
    lines = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        for at in levels_of(own, "at"):
            for lam in levels_of(own, "lam"):
                names = ("log_condition_policy", "log_condition_logits", "log_condition_state")
                cells = (
                    mean_cell(by_seed(own, column, at=at, lam=lam))
                    for column in (*names, "definite", "log_error")
                )
                lines.append((name, at, lam, *cells))
    columns: tuple[str, ...] = (
        "tasks: distance",
        "at",
        "lambda",
        "M(s)",
        "H in the logits",
        "one state of H",
    )
    columns = (*columns, "valid in", "error of the implicit gradient")
    title = (
        "log10 of condition numbers (of H up to 15.7, what float64 resolves), medians of training "
        "tasks; log10 of the relative difference from the closed form"
    )
    return [Grid(title, columns, tuple(lines))]


def heterogeneity_grids(rows: Rows) -> list[Grid]:
    """
    Variance of the tasks, gap and bounds.

    :param rows: of the table
    """
    lines = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        names = ("variance", "test", "B5", "B3", "B4", "B4_assumed")
        cells = (cell(interval_of(own, column)) for column in names)
        lam = np.median(list(by_seed(own, "lam").values()))
        lines.append((name, str(len(own)), f"{lam:g}", *cells))
    columns: tuple[str, ...] = (
        "tasks",
        "seeds",
        "lambda (median)",
        "Var, reverse KL",
        "gap, k = 1",
        "B5",
        "B3",
    )
    columns = (*columns, "B_paper", "its assumption is true in")
    title = "Variance of the tasks, and gap and bounds (our derivations) on test tasks, Alg 2"
    return [Grid(title, columns, tuple(lines))]


TABLES: Mapping[str, Callable[[Rows], list[Grid]]] = {
    "n_tasks": n_tasks_grids,
    "lam": lam_grids,
    "metric": metric_grids,
    "sparse": sparse_grids,
    "data": data_grids,
    "conditioning": conditioning_grids,
    "heterogeneity": heterogeneity_grids,
}
"""By group."""
