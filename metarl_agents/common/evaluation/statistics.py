"""Summaries shared by the result of one evaluation and the aggregate of several seeds.

Shapes: R seeds, M tasks, K adaptations, E scored episodes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from metarl_agents.common.evaluation.intervals import (
    Curve,
    Floats,
    Interval,
    StatisticName,
    bootstrap_curve,
    bootstrap_interval,
    named_statistic,
)

if TYPE_CHECKING:
    from metarl_agents.common.evaluation.result import AdaptationResult

Metric = Literal[
    "final_return",
    "zero_shot_return",
    "mean_return",
    "total_regret",
    "final_regret",
    "zero_shot_regret",
]
Quantity = Literal["return", "regret"]


class ScoreStatistics(ABC):
    """Interquartile means, curves and paired comparisons of scores (R, M).

    Metrics, one number per task and seed: `final_return`, `zero_shot_return` and `mean_return`
    (after the last adaptation, before the first, over all of them) average undiscounted episode
    returns; `total_regret` sums the exact expected regret of every adaptation episode as it was
    played (sampled, also where extra deterministic ones are scored), `final_regret` and
    `zero_shot_regret` are those of one episode of the last and of the un-adapted policy.
    """

    @property
    @abstractmethod
    def runs(self) -> Sequence["AdaptationResult"]:
        """The evaluations that are summarised, one per seed, all on the same tasks."""

    def scores(self, metric: Metric = "final_return") -> Floats:
        """One number per seed and task, (R, M).

        :param metric: see the class
        """
        return np.stack([_task_scores(run, metric) for run in self.runs])

    def curve_scores(self, quantity: Quantity = "return") -> Floats:
        """Mean return or expected regret of an episode, after 0..K adaptations, (R, M, K+1).

        :param quantity: `"return"` or `"regret"`
        """
        if quantity == "return":
            return np.stack([run.returns.mean(axis=-1) for run in self.runs])
        if quantity == "regret":
            return np.stack([_regret(run) for run in self.runs])
        raise ValueError(f"quantity={quantity!r} is unknown; use 'return' or 'regret'")

    @property
    def total_regret(self) -> Floats:
        """Regret summed over each task's adaptation episodes, mean over seeds, (M,)."""
        return np.asarray(self.scores("total_regret").mean(axis=0))

    def iqm(self, metric: Metric = "final_return", **bootstrap: Any) -> Interval:
        """Interquartile mean over seeds and tasks with its 95 % stratified bootstrap interval.

        :param metric: what to average
        :param bootstrap: `confidence_level`, `n_resamples`, `seed` of `bootstrap_interval`
        """
        return bootstrap_interval(named_statistic("iqm"), self.scores(metric), **bootstrap)

    def mean(self, metric: Metric = "final_return", **bootstrap: Any) -> Interval:
        """Mean over seeds and tasks with its 95 % stratified bootstrap interval.

        :param metric: what to average
        :param bootstrap: `confidence_level`, `n_resamples`, `seed` of `bootstrap_interval`
        """
        return bootstrap_interval(named_statistic("mean"), self.scores(metric), **bootstrap)

    def curve(
        self, quantity: Quantity = "return", *, statistic: StatisticName = "iqm", **bootstrap: Any
    ) -> Curve:
        """The adaptation curve from 0 to K with pointwise 95 % stratified bootstrap intervals.

        :param quantity: `"return"` or `"regret"`
        :param statistic: `"iqm"` or `"mean"` over seeds and tasks
        :param bootstrap: `confidence_level`, `n_resamples`, `seed` of `bootstrap_curve`
        """
        return bootstrap_curve(named_statistic(statistic), self.curve_scores(quantity), **bootstrap)

    def paired_difference(
        self, other: "ScoreStatistics", metric: Metric | None = None, **bootstrap: Any
    ) -> Interval:
        """Mean of this minus the other, task by task, with its 95 % interval.

        Tasks (or seeds, where there are several) are resampled jointly.

        :param other: evaluation of another learner on the same tasks, with the same seeds
        :param metric: what to compare; None means `total_regret` where both have it, else
            `final_return`
        :param bootstrap: `confidence_level`, `n_resamples`, `seed` of `bootstrap_interval`
        """
        mine, theirs = self._paired_scores(other, metric)
        return bootstrap_interval(named_statistic("mean"), mine - theirs, **bootstrap)

    def ratio(
        self, other: "ScoreStatistics", metric: Metric | None = None, **bootstrap: Any
    ) -> Interval:
        """Mean of this over mean of the other, with its 95 % interval.

        Tasks (or seeds, where there are several) are resampled jointly.

        :param other: evaluation of another learner on the same tasks, with the same seeds
        :param metric: what to compare; None means `total_regret` where both have it, else
            `final_return`
        :param bootstrap: `confidence_level`, `n_resamples`, `seed` of `bootstrap_interval`
        """
        mine, theirs = self._paired_scores(other, metric)
        return bootstrap_interval(_ratio_of_means, mine, theirs, **bootstrap)

    def plot(
        self,
        ax: Any = None,
        *,
        quantity: Quantity = "return",
        statistic: StatisticName = "iqm",
        label: str | None = None,
    ) -> Any:
        """Draws the adaptation curve with its band; returns the matplotlib axes.

        :param ax: axes to draw on; new ones if None
        :param quantity: `"return"` or `"regret"`
        :param statistic: `"iqm"` or `"mean"` over seeds and tasks
        :param label: legend entry; the learner's name if None
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        curve = self.curve(quantity, statistic=statistic)
        steps = np.arange(len(curve.estimate))
        (line,) = ax.plot(steps, curve.estimate, label=label or self.runs[0].learner, marker=".")
        ax.fill_between(
            steps, curve.low, curve.high, alpha=0.2, color=line.get_color(), linewidth=0
        )
        ax.set_xlabel("adaptation steps")
        ax.set_ylabel(f"{quantity} per episode ({statistic} and 95 % interval)")
        return ax

    def _paired_scores(
        self, other: "ScoreStatistics", metric: Metric | None
    ) -> tuple[Floats, Floats]:
        _check_paired(self.runs, other.runs)
        if metric is None:
            have_regret = all(run.regret is not None for run in (*self.runs, *other.runs))
            metric = "total_regret" if have_regret else "final_return"
        return self.scores(metric), other.scores(metric)


def check_same_learner(runs: Sequence["AdaptationResult"]) -> None:
    """Refuses evaluations that are not of one learner, trained with several seeds.

    :param runs: evaluations that are to be combined
    """
    check_same_tasks(runs)
    first = runs[0]
    for run in runs[1:]:
        if run.learner != first.learner:
            raise ValueError(
                f"cannot combine {first.learner!r} with {run.learner!r}: from_seeds is for seeds "
                "of one learner; compare learners by paired_difference or ratio"
            )
        mine, theirs = _how(first), _how(run)
        different = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
        if different:
            raise ValueError(
                f"cannot combine evaluations of {run.learner!r} that differ in "
                + ", ".join(f"{k} ({mine.get(k)!r}, {theirs.get(k)!r})" for k in different)
                + "; use the same settings for all seeds"
            )


def check_same_tasks(runs: Sequence["AdaptationResult"]) -> None:
    """Refuses evaluations that do not share env, tasks and settings.

    :param runs: evaluations of one or several learners
    """
    first = runs[0]
    for run in runs[1:]:
        if run.env_id != first.env_id:
            raise ValueError(
                f"{run.learner!r} was evaluated on env_id={run.env_id!r} but {first.learner!r} on "
                f"{first.env_id!r}; evaluate both on the same env"
            )
        if not np.array_equal(run.task_ids, first.task_ids):
            raise ValueError(
                f"{run.learner!r} (seed {run.seed}) was evaluated on other tasks than "
                f"{first.learner!r} (seed "
                f"{first.seed}); pass the same list of tasks to every evaluate_adaptation"
            )
        if _protocol(run) != _protocol(first):
            raise ValueError(
                f"{run.learner!r} was evaluated with {_protocol(run)} but {first.learner!r} with "
                f"{_protocol(first)}; use the same settings for both"
            )


def _check_paired(mine: Sequence["AdaptationResult"], theirs: Sequence["AdaptationResult"]) -> None:
    if len(mine) != len(theirs):
        raise ValueError(
            f"cannot pair {len(mine)} seed(s) with {len(theirs)}; evaluate both learners with the "
            "same seeds"
        )
    for one, other in zip(mine, theirs, strict=True):
        if one.seed != other.seed:
            raise ValueError(
                f"cannot pair seed {one.seed} of {one.learner!r} with seed {other.seed} of "
                f"{other.learner!r}; "
                "evaluate both learners with the same seeds, in the same order"
            )
        check_same_tasks([one, other])


def _task_scores(run: "AdaptationResult", metric: Metric) -> Floats:
    if metric not in get_args(Metric):
        raise ValueError(f"metric={metric!r} is unknown; use one of {', '.join(get_args(Metric))}")
    if metric == "mean_return":
        return np.asarray(run.returns.mean(axis=(1, 2)))
    if metric == "total_regret":
        return np.asarray(_adaptation_regret(run).sum(axis=1))
    when, what = metric.rsplit("_", 1)
    step = -1 if when == "final" else 0
    return np.asarray(
        run.returns[:, step].mean(axis=-1) if what == "return" else _regret(run)[:, step]
    )


def _regret(run: "AdaptationResult") -> Floats:
    if run.regret is None:
        raise ValueError(
            f"the evaluation of {run.learner!r} on {run.env_id!r} has no regret: the env or the "
            "policy does not allow it; "
            "compare returns instead, e.g. metric='final_return'"
        )
    return run.regret


def _adaptation_regret(run: "AdaptationResult") -> Floats:
    regret = _regret(run)
    if run.adaptation_regret is not None:
        return run.adaptation_regret
    # A result made by hand: the policy of each collection, if that is the one that was scored.
    settings = run.settings
    on_line = settings["n_eval_episodes"] is None
    if not on_line and settings.get("deterministic", False):
        raise ValueError(
            f"the result of {run.learner!r} on {run.env_id!r} has no adaptation_regret, and its "
            "deterministic scored episodes are not the adaptation episodes that total_regret is "
            "about; give adaptation_regret, or compare metric='final_regret'"
        )
    n_collections = run.n_adapt_steps + on_line
    return np.asarray(regret[:, :n_collections] * settings["episodes_per_step"])


def _protocol(run: "AdaptationResult") -> str:
    keys = ("n_adapt_steps", "episodes_per_step", "n_eval_episodes")
    return ", ".join(f"{key}={run.settings[key]}" for key in keys)


def _how(run: "AdaptationResult") -> dict[str, Any]:
    # Whether regret was insisted on changes no score.
    return {k: v for k, v in run.settings.items() if k not in ("seed", "exact_regret")}


def _ratio_of_means(numerator: Floats, denominator: Floats) -> Floats:
    return np.asarray(numerator.mean(axis=-1) / denominator.mean(axis=-1))
