"""Bias and variance of estimators of the meta-gradient, on tasks that are small enough for truth.

Two tasks of two states, two actions and three stages, whose gradients nearly cancel. Up to four
episodes all inner batches are enumerated; with more they are sampled, and compared with an unbiased
estimate from the same batches.

Shapes: C batches, S states, A actions.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.gradient import ESTIMATORS, EstimatesMetaGradient, certify_meta_gradient
from metarl_agents.gradient.enumeration import TabularTask
from metarl_agents.gradient.tabular_adaptation import (
    AdaptationSettings,
    AdvantageBaseline,
    BatchChains,
    TabularAdaptation,
)
from metarl_envs.core import FloatArray
from metarl_envs.tabular import FiniteMDP
from zoo.studies.study import Context, Row, Run, Study
from zoo.studies.wrong_estimators import WrongScore

LOGITS = np.array([[0.3, -0.2], [-0.4, 0.1]])
"""The policy before adaptation, (S, A)."""
SCORE = "SG-MRL"
WITH_BASELINE = "SG-MRL, baseline"
CONTROLLED = "SG-MRL, control variate"
DOUBLE = "DiCE + score, twice"
FIRST_ONLY = "first score only"
UNCHAINED = "scores without chain"
_ROWS_PER_CHUNK = 50_000  # steps of all episodes of a chunk


class Contender(NamedTuple):
    """An estimator and what goes with it."""

    estimator: EstimatesMetaGradient
    has_baseline: bool = False
    has_control_variate: bool = False


CONTENDERS: Mapping[str, Contender] = {
    "FOMAML": Contender(ESTIMATORS["fomaml"]),
    "MAML": Contender(ESTIMATORS["maml"]),
    "LVC": Contender(ESTIMATORS["lvc"]),
    "DiCE": Contender(ESTIMATORS["dice"]),
    "Loaded DiCE": Contender(ESTIMATORS["loaded_dice"]),
    "E-MAML": Contender(ESTIMATORS["emaml"]),
    SCORE: Contender(ESTIMATORS["sgmrl"]),
    WITH_BASELINE: Contender(ESTIMATORS["sgmrl"], has_baseline=True),
    CONTROLLED: Contender(ESTIMATORS["sgmrl"], has_baseline=True, has_control_variate=True),
    DOUBLE: Contender(WrongScore("dice")),
    FIRST_ONLY: Contender(WrongScore(first_only=True)),
    UNCHAINED: Contender(WrongScore(chained=False)),
}
"""By the names in tables; baselines are returns after exact steps, one per task."""

_PLAIN = ("FOMAML", "MAML", "LVC", "DiCE", "Loaded DiCE", "E-MAML", SCORE)
_DRAWN = (*_PLAIN, WITH_BASELINE, CONTROLLED)


class Setting(NamedTuple):
    """Where estimators are compared."""

    tasks: str
    inner_lr: float
    n_episodes: int
    n_inner_steps: int = 1
    baseline: AdvantageBaseline = "none"
    is_sampled: bool = False

    @property
    def name(self) -> str:
        """What it is called in files."""
        name = f"{self.tasks} alpha={self.inner_lr:g} N={self.n_episodes} K={self.n_inner_steps}"
        return name + (f" {self.baseline}" if self.baseline != "none" else "")


TABLE = tuple(
    Setting("A+B", inner_lr, n)
    for inner_lr, n in ((0.1, 1), (0.1, 2), (0.5, 1), (0.5, 2), (0.5, 3), (1.0, 2))
)
"""Both tasks."""
ONE_TASK = (*(Setting("A", 0.5, n) for n in (1, 2, 3)), Setting("A", 0.1, 2))
CENTRED = (Setting("A", 0.5, 2, baseline="batch"),)
TWO_STEPS = tuple(Setting("A", inner_lr, 1, 2) for inner_lr in (0.1, 0.3, 0.5))
FOUR_BATCHES = Setting("A", 0.5, 2, 2)
"""Two steps of two episodes each: a quarter of a million chains."""
BY_EPISODES = (
    *(Setting("A", 0.5, n) for n in (1, 2, 3, 4)),
    *(Setting("A", 0.5, n, is_sampled=True) for n in (8, 16, 32)),
)
BY_STEPS = tuple(Setting("A", 0.3, 1, n_steps) for n_steps in (1, 2, 3))
BY_STEP_SIZE = tuple(Setting("A", x, 2) for x in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0))
_LONG = (BY_EPISODES[3], *BY_EPISODES[5:], BY_STEPS[2])


def tasks_of(setting: Setting) -> list[FiniteMDP]:
    """Task A, or both; numbers in the order (state, action) = (0, 0), (0, 1), (1, 0), (1, 1).

    :param setting: tells which
    """
    a = _task((0.8, 0.2, 0.4, 0.7), (1.0, -0.5, -1.2, 0.6))
    b = _task((0.3, 0.6, 0.9, 0.1), (-0.7, 0.8, 1.1, -0.3))
    return [a] if setting.tasks == "A" else [a, b]


def estimator_study(*, quick: bool = False, seed: int = 0) -> Study:
    """
    All settings, each with all estimators.

    :param quick: leave out what takes longest, and sample less
    :param seed: of what is sampled
    """
    settings = dict.fromkeys(
        (*TABLE, *ONE_TASK, *CENTRED, *TWO_STEPS, FOUR_BATCHES)
        + (*BY_EPISODES, *BY_STEPS, *BY_STEP_SIZE)
    )
    chosen = [setting for setting in settings if not (quick and setting in _LONG)]
    n_replicates = 2_000 if quick else 20_000
    runs = [
        Run(
            setting.name,
            seed,
            setting._asdict(),
            {"n_replicates": n_replicates} if setting.is_sampled else {},
        )
        for setting in chosen
    ]
    return Study("estimator_study", play, runs)


def play(run: Run, context: Context) -> Sequence[Row] | None:
    """
    One setting: a row per estimator.

    :param run: whose config are the fields of a `Setting`
    :param context: its surroundings
    """
    setting = Setting(**run.config)
    if setting.is_sampled:
        return _sampled_rows(setting, int(run.budget["n_replicates"]), run.seed, context)
    rows = []
    for name in names_in(setting):
        if context.is_over():
            return None
        rows.append(_enumerated_row(setting, name))
    return rows


def names_in(setting: Setting) -> tuple[str, ...]:
    """
    The estimators of a setting.

    :param setting: the setting
    """
    if setting == FOUR_BATCHES:
        return (SCORE, CONTROLLED)
    if setting.baseline != "none":  # DiCE has no weights that could be centred
        return tuple(name for name in _PLAIN if name != "DiCE")
    if setting in TWO_STEPS:
        return (*_DRAWN, FIRST_ONLY, UNCHAINED)
    return (*_DRAWN, DOUBLE) if setting in (*TABLE, *ONE_TASK) else _DRAWN


def _task(to_first: Sequence[float], rewards: Sequence[float]) -> FiniteMDP:
    chance = np.reshape(to_first, (2, 2))
    transitions = np.stack([chance, 1 - chance], axis=-1)
    return FiniteMDP(transitions, np.reshape(rewards, (2, 2)), np.array([1.0, 0.0]), 0.9, 3)


def _enumerated_row(setting: Setting, name: str) -> dict[str, Any]:
    contender, (direction, baselines) = CONTENDERS[name], _foresight(setting, CONTENDERS[name])
    found = certify_meta_gradient(
        contender.estimator,
        tasks_of(setting),
        LOGITS,
        n_episodes=setting.n_episodes,
        n_inner_steps=setting.n_inner_steps,
        inner_lr=setting.inner_lr,
        baseline=setting.baseline,
        score_baseline=baselines,
        control_variate=direction,
    )
    return {
        "estimator": name,
        **setting._asdict(),
        "n_batches": found.n_batches,
        "objective": f"{found.objective:.10g}",
        "relative_bias": f"{found.relative_bias:.6g}",
        "bias_standard_error": "0",
        "relative_bias_infinite": f"{found.relative_bias_infinite:.6g}",
        "relative_std": f"{found.relative_std:.6g}",
    }


def _foresight(setting: Setting, contender: Contender) -> tuple[FloatArray | None, list[float]]:
    """Direction of the control variate and a baseline for each task, from exact steps."""
    tasks = [TabularTask(mdp) for mdp in tasks_of(setting)]
    if not contender.has_baseline:
        return None, [0.0] * len(tasks)
    ends = [_after_exact_steps(task, setting) for task in tasks]
    values = [float(task.value(end)) for task, end in zip(tasks, ends, strict=True)]
    if not contender.has_control_variate:
        return None, values
    slopes = [_slope(task.value, end) for task, end in zip(tasks, ends, strict=True)]
    direction = th.stack(slopes).mean(0)
    moves = [float((direction * (end - th.tensor(LOGITS))).sum()) for end in ends]
    foretold = [value - move for value, move in zip(values, moves, strict=True)]
    return direction.numpy(), foretold


def _after_exact_steps(task: TabularTask, setting: Setting) -> Tensor:
    logits = th.tensor(LOGITS)
    for _ in range(setting.n_inner_steps):
        logits = logits + setting.inner_lr * _slope(task.value, logits)
    return logits


def _slope(value: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    (slope,) = th.autograd.grad(value(leaf), leaf)
    return slope


def _sampled_rows(
    setting: Setting, n_replicates: int, seed: int, context: Context
) -> list[Row] | None:
    """Moments over replicates; the truth is the mean of the estimate with control variate."""
    (mdp,) = tasks_of(setting)
    settings = AdaptationSettings(setting.n_episodes, setting.n_inner_steps, setting.inner_lr)
    adaptation = TabularAdaptation(mdp, th.tensor(LOGITS), settings)
    rng, values = np.random.default_rng(seed), []
    estimates: dict[str, list[Tensor]] = {name: [] for name in _DRAWN}
    steps = setting.n_episodes * setting.n_inner_steps * (mdp.horizon or 1)
    left = n_replicates
    while left > 0:
        if context.is_over():
            return None
        chains = adaptation.sampled_chains(min(left, max(1, _ROWS_PER_CHUNK // steps)), rng)
        left -= len(chains.draws)
        values.append(adaptation.adapted_values(chains))
        for name, found in estimates.items():
            found.append(_estimates(setting, CONTENDERS[name], adaptation, chains))
    truth = th.cat(estimates[CONTROLLED])
    objective, limit = float(th.cat(values).mean()), adaptation.exact_infinite()
    return [
        _sampled_row(setting, name, th.cat(found), truth, limit, objective)
        for name, found in estimates.items()
    ]


def _estimates(
    setting: Setting, contender: Contender, adaptation: TabularAdaptation, chains: BatchChains
) -> Tensor:
    direction, (baseline,) = _foresight(setting, contender)
    loss: Callable[..., Tensor] = contender.estimator.meta_loss
    if direction is not None:
        loss = partial(loss, control_variate={"logits": th.tensor(direction)})
    return adaptation.estimates(chains, loss, baseline)


def _sampled_row(
    setting: Setting,
    name: str,
    estimates: Tensor,
    truth: Tensor,
    limit: Tensor,
    objective: float,
) -> dict[str, Any]:
    norm = float(truth.mean(0).norm())
    errors = estimates - truth
    bias, spread = errors.mean(0), errors.flatten(1).var(0).sum()
    to_infinite = (estimates.mean(0) - limit).norm() / limit.norm()
    return {
        "estimator": name,
        **setting._asdict(),
        "n_batches": len(estimates),
        "objective": f"{objective:.6g}",
        "relative_bias": f"{float(bias.norm()) / norm:.6g}",
        "bias_standard_error": f"{float(spread / len(estimates)) ** 0.5 / norm:.6g}",
        "relative_bias_infinite": f"{float(to_infinite):.6g}",
        "relative_std": f"{float(estimates.flatten(1).var(0).sum()) ** 0.5 / norm:.6g}",
    }
