"""Which lambda: tables of that study of BO-MRL, and rules that are to hold across families."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zoo.report import Grid
from zoo.studies.adaptation_report import Rows, names_of, rows_of
from zoo.studies.seed_statistics import (
    by_seed,
    cell,
    difference,
    interval_of,
    levels_of,
    mean_cell,
)


class Rule(NamedTuple):
    """A pair of relative lambdas."""

    trained_with: str
    adapted_with: str


def lam_grids(rows: Rows) -> list[Grid]:
    """
    Gaps by lambda of training and of adaptation, the regime of each, and rules across families.

    :param rows: of the table
    """
    return [*(_matrix(rows, name) for name in names_of(rows)), _regimes(rows), _rules(rows)]


def _matrix(rows: Rows, name: str) -> Grid:
    own = rows_of(rows, name)
    values = levels_of(own, "adapted_with")
    lines = tuple(
        (
            trained,
            *(
                cell(interval_of(own, "test", trained_with=trained, adapted_with=value))
                for value in values
            ),
        )
        for trained in values
    )
    title = f"{name}: gap on test tasks after one step, by relative lambda of adaptation"
    return Grid(title, ("trained with", *values), lines)


def _regimes(rows: Rows) -> Grid:
    lines = []
    for name in names_of(rows):
        own = [row for row in rows_of(rows, name) if row["kind"] == "lam"]
        for trained in levels_of(own, "trained_with"):
            names = ("unit", "mean_kl", "log_condition", "cosine_at_start", "cosine")
            cells = (cell(interval_of(own, column, trained_with=trained)) for column in names)
            lines.append((name, trained, *cells))
    columns: tuple[str, ...] = (
        "family",
        "relative lambda",
        "its unit",
        "mean KL",
        "log10 condition number of M(s)",
    )
    columns = (*columns, "cosine with the first-order gradient, uniform", "trained")
    return Grid("What lambda does, Alg 2, on training tasks", columns, tuple(lines))


def _rules(rows: Rows) -> Grid:
    lines = []
    for name in names_of(rows):
        others = [other for other in names_of(rows) if other != name]
        for is_one_value in (True, False):
            rule = rule_of(rows, others, is_one_value=is_one_value)
            own = rule_of(rows, [name], is_one_value=is_one_value)
            there, here = (rule_gaps(rows, name, pair) for pair in (rule, own))
            lines.append(
                (
                    name,
                    "one value" if is_one_value else "own values",
                    " / ".join(rule),
                    mean_cell(there),
                    " / ".join(own),
                    mean_cell(here),
                    cell(difference(there, here)),
                )
            )
    columns: tuple[str, ...] = (
        "family",
        "rule",
        "from the other families: trained / adapted",
        "gap on test tasks",
    )
    columns = (*columns, "from its own", "gap on test tasks", "difference")
    title = "A relative lambda found on validation tasks of other families, k = 1"
    return Grid(title, columns, tuple(lines))


def rule_of(rows: Rows, names: Sequence[str], *, is_one_value: bool) -> Rule:
    """
    The relative lambdas that lose least on validation tasks against the best pair of each family,
    in its spans of Q (the unit of lambda), mean over families.

    :param rows: of the table
    :param names: families
    :param is_one_value: whether training and adaptation share it
    """
    scores: dict[Rule, float] = {}
    for name in names:
        gaps = _validation_gaps(rows, name)
        pairs = {pair: gap for pair, gap in gaps.items() if len({*pair}) == 1 or not is_one_value}
        least, unit = min(pairs.values()), _unit(rows, name)
        for pair, gap in pairs.items():
            scores[pair] = scores.get(pair, 0.0) + (gap - least) / unit
    return min(scores, key=lambda pair: scores[pair])


def _unit(rows: Rows, name: str) -> float:
    units = [float(row["unit"]) for row in rows_of(rows, name) if row["kind"] == "lam"]
    return float(np.mean(units))


def _validation_gaps(rows: Rows, name: str) -> dict[Rule, float]:
    """Means over seeds."""
    found: dict[Rule, list[float]] = {}
    for row in rows_of(rows, name):
        if row["kind"] == "matrix":
            pair = Rule(str(row["trained_with"]), str(row["adapted_with"]))
            found.setdefault(pair, []).append(float(row["validation"]))
    return {pair: float(np.mean(values)) for pair, values in found.items()}


def rule_gaps(rows: Rows, name: str, rule: Rule) -> dict[int, float]:
    """
    Gaps on test tasks with a rule, by seed.

    :param rows: of the table
    :param name: of the family
    :param rule: the rule
    """
    return by_seed(rows_of(rows, name), "test", **rule._asdict())
