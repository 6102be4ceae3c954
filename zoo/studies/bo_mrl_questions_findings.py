"""What the studies of open questions about BO-MRL show: one sentence each, made of their rows."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

from metarl_agents.common.evaluation.intervals import Interval
from zoo.studies.adaptation_report import Rows, names_of, rows_of
from zoo.studies.bo_mrl_lam_tables import rule_gaps, rule_of
from zoo.studies.bo_mrl_questions_tables import (
    FOUR_BATCHES,
    ONE_BATCH,
    ONE_BATCH_AGAIN,
    budget_gaps,
    families_of,
    spent,
)
from zoo.studies.seed_statistics import (
    by_seed,
    cell,
    change_text,
    difference,
    interval_of,
    levels_of,
    mean_interval,
    sign_of,
)

_GOOD_COSINE = 0.9


def n_tasks_finding(rows: Rows) -> str:
    """
    How the gap depends on the number of training tasks.

    :param rows: of the table
    """
    parts = []
    for family in families_of(rows):
        counts = sorted(
            int(n)
            for n in levels_of(
                [row for row in rows if row["run"].startswith(f"{family}: ")], "n_train"
            )
        )

        def gaps(n: int, part: str = "test", family: str = family) -> dict[int, float]:
            return by_seed(rows_of(rows, f"{family}: {n} tasks"), part, step=1)

        first, before, last = counts[0], counts[-2], counts[-1]
        whole = change_text(difference(gaps(last), gaps(first)))
        end = change_text(difference(gaps(last), gaps(before)))
        rest = cell(difference(gaps(last), gaps(last, "train")))
        parts.append(
            f"{family}: from {first} to {last} training tasks the gap on test tasks {whole}, and "
            f"from {before} to {last} it {end}; test minus training gap is then {rest}"
        )
    return ". ".join(parts) + "."


def lam_finding(rows: Rows) -> str:
    """
    Which relative lambda to take, whether that holds in a family which it was not taken from, and
    where the first-order gradient will do.

    :param rows: of the table
    """
    names = names_of(rows)
    best = rule_of(rows, names, is_one_value=False)
    single = rule_of(rows, names, is_one_value=True)
    checks = []
    for name in names:
        rule = rule_of(rows, [other for other in names if other != name], is_one_value=False)
        own = rule_of(rows, [name], is_one_value=False)
        there, here = (mean_interval([*rule_gaps(rows, name, r).values()]) for r in (rule, own))
        checks.append(f"{name} {there.estimate:.3g} instead of {here.estimate:.3g}")
    return (
        f"Over the families, training with a relative lambda of {best.trained_with} and adapting "
        f"with {best.adapted_with} is best on validation tasks ({single.trained_with} where one "
        "value serves for both); a pair taken from the other families leaves these gaps on test "
        f"tasks in place of those of the family's own pair: {', '.join(checks)}. The first-order "
        f"gradient of the uniform policy has a cosine of at least {_GOOD_COSINE} with the exact "
        f"one {_good_cosines(rows)}."
    )


def _good_cosines(rows: Rows) -> str:
    parts = []
    for name in names_of(rows):
        own = [row for row in rows_of(rows, name) if row["kind"] == "lam"]
        values = sorted(map(float, levels_of(own, "trained_with")), reverse=True)
        good = [
            value
            for value in values
            if interval_of(own, "cosine_at_start", trained_with=f"{value:g}").estimate
            >= _GOOD_COSINE
        ]
        parts.append(f"down to {good[-1]:g} in {name}" if good else f"nowhere in {name}")
    return ", ".join(parts)


def metric_finding(rows: Rows) -> str:
    """
    How often each other distance leaves less gap than Alg 2 within the same mean KL.

    :param rows: of the table
    """
    parts = []
    for other in ("Alg 1", "Alg 3"):
        signs = []
        for family in families_of(rows):
            for budget in levels_of(rows, "budget"):
                theirs = budget_gaps(rows, f"{family}: {other}", budget)
                ours = budget_gaps(rows, f"{family}: Alg 2", budget)
                if theirs.keys() & ours.keys():
                    signs.append(sign_of(difference(theirs, ours)))
        parts.append(
            f"{other} leaves a larger gap than Alg 2 in {signs.count(1)}, a smaller one in "
            f"{signs.count(-1)} and no clearly different one in {signs.count(0)} of {len(signs)} "
            "comparisons"
        )
    return "Within the same mean KL, " + ", and ".join(parts) + "."


def sparse_finding(rows: Rows) -> str:
    """
    What sparse rewards cost with exact Q, and what sampling adds.

    :param rows: of the table
    """
    parts = []
    for rewards in families_of(rows):
        own = rows_of(rows, f"{rewards}: BO-MRL, Alg 2")
        lam = np.median(list(by_seed(own, "lam", n_episodes="exact", step=1).values()))
        exact = cell(interval_of(own, "missing", n_episodes="exact", step=1))
        sampled = [
            f"{n} episodes {cell(interval_of(own, 'missing', n_episodes=n, step=1))} (missed "
            f"{interval_of(own, 'missed', n_episodes=n, step=1).estimate:.2g} of the best policy)"
            for n in levels_of(own, "n_episodes")
            if n != "exact"
        ]
        parts.append(
            f"with {rewards} rewards {exact} at lambda {lam:g} with exact Q, and with "
            + ", ".join(sampled)
        )
    return "One step of BO-MRL leaves this share of the optimum: " + "; ".join(parts) + "."


def data_finding(rows: Rows) -> str:
    """
    Whether collecting in between is worth it, and how that depends on the variance of the tasks.

    :param rows: of the table
    """
    parts = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        counts = levels_of(own, "n_episodes")
        tallies = []
        for other in (ONE_BATCH, ONE_BATCH_AGAIN):
            signs = [
                sign_of(difference(spent(own, other, n), spent(own, FOUR_BATCHES, n)))
                for n in counts
            ]
            tallies.append(f"{signs.count(1)} (more: {signs.count(-1)})")
        parts.append(f"{name}: {' and '.join(tallies)} of {len(counts)}")
    return (
        "Four batches leave less gap than one batch with one solve, and with four solves, at so "
        f"many numbers of episodes: {'; '.join(parts)}. With the most episodes, four solves of one "
        f"batch leave more by {_last_differences(rows)}."
    )


def _last_differences(rows: Rows) -> str:
    parts = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        last = levels_of(own, "n_episodes")[-1]
        gaps = (spent(own, protocol, last) for protocol in (ONE_BATCH_AGAIN, FOUR_BATCHES))
        parts.append(f"{cell(difference(*gaps))} ({name})")
    return ", ".join(parts)


def conditioning_finding(rows: Rows) -> str:
    """
    How condition numbers depend on lambda, and whether implicit differentiation suffers.

    :param rows: of the table
    """
    parts = []
    for name in names_of(rows):
        own = rows_of(rows, name)
        lams = sorted(map(float, levels_of(own, "lam")), reverse=True)
        ends = [
            interval_of(own, "log_condition_logits", at="trained", lam=f"{lam:g}").estimate
            for lam in (lams[0], lams[-1])
        ]
        valid = interval_of(own, "definite", at="trained", lam=f"{lams[-1]:g}").estimate
        parts.append(
            f"{name} 10^{ends[0]:.1f} at {lams[0]:g} and 10^{ends[1]:.1f} at {lams[-1]:g} (valid "
            f"in {valid:.0%})"
        )
    errors = [float(row["log_error"]) for row in rows if row.get("log_error", "") != ""]
    return (
        "Condition numbers of the Hessian in the logits at trained policies, by lambda: "
        f"{', '.join(parts)}; solved state by state, scaled by the diagonal, implicit gradients "
        f"agree with the closed form all the same, in the median task up to 10^{max(errors):.0f}."
    )


def heterogeneity_finding(rows: Rows) -> str:
    """
    Whether the gap, and its certified bound, follow the variance of the tasks.

    :param rows: of the table
    """
    parts = []
    for series in dict.fromkeys(name.partition(", ")[0] for name in names_of(rows)):
        own = [row for row in rows if row["run"].startswith(f"{series}, ")]
        texts = (
            f"{what} {cell(rank_correlation(own, column))}"
            for what, column in (("the gap", "test"), ("B5", "B5"))
        )
        parts.append(f"{series}: {', '.join(texts)}")
    holds = np.mean([float(row["B5_holds"]) for row in rows])
    return (
        "Rank correlation with the variance of the tasks over the levels of a seed, mean of seeds: "
        f"{'; '.join(parts)}; B5 holds in {holds:.1%} of test tasks."
    )


def rank_correlation(rows: Rows, column: str) -> Interval:
    """
    Spearman's correlation of a column with the variance over the levels, mean over seeds.

    :param rows: of one series
    :param column: its name
    """
    seeds = sorted({int(row["seed"]) for row in rows})
    found: list[float] = []
    for seed in seeds:
        own = [row for row in rows if int(row["seed"]) == seed]
        pair = ([float(row[name]) for row in own] for name in ("variance", column))
        found.append(float(stats.spearmanr(*pair).statistic))
    return mean_interval(found)


FINDINGS: Mapping[str, Callable[[Rows], str]] = {
    "n_tasks": n_tasks_finding,
    "lam": lam_finding,
    "metric": metric_finding,
    "sparse": sparse_finding,
    "data": data_finding,
    "conditioning": conditioning_finding,
    "heterogeneity": heterogeneity_finding,
}
"""By group."""
