"""Does it converge to a stationary point of the objective? Exactly and by sampling, on small tasks.

The objective J_N is the expected return after K inner steps on N sampled episodes each. Two tasks
of two states and two actions are so small that all batches can be enumerated: the gradient of J_N
is exact wherever a run is looked at, whatever estimator moves it.

Shapes: R replicates, N episodes, H stages, S states, A actions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.common.inner_loop import adapted_params
from metarl_agents.common.policies import Params
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.gradient import certify_meta_gradient
from metarl_agents.gradient.estimators import ESTIMATORS
from metarl_agents.gradient.outer_losses import outer_loss
from metarl_agents.gradient.tabular_adaptation import AdaptationSettings, TabularAdaptation
from metarl_envs.tabular import FiniteMDP
from zoo.studies.study import Context, Row, Run

HORIZON, DISCOUNT = 2, 0.9
START = ((0.3, -0.2), (-0.4, 0.1))
"""theta_0, (S, A)"""
_REWARDS = (((1.0, -0.5), (-1.2, 0.6)), ((-0.7, 0.8), (1.1, -0.3)))


def tasks() -> list[FiniteMDP]:
    """Two tasks that want different things; action 0 stays in the state, action 1 leaves it."""
    stay_or_leave = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
    first = np.array([1.0, 0.0])
    return [
        FiniteMDP(stay_or_leave, np.array(rewards), first, DISCOUNT, HORIZON)
        for rewards in _REWARDS
    ]


def exact_run(run: Run, context: Context) -> list[Row] | None:
    """
    Ascend along the expectation of an estimator, whose own gradient may be another one.

    ``config``: ``estimator``, ``n_episodes``, ``n_inner_steps``, ``inner_lr``, ``step_size``.
    ``budget``: ``n_iterations``.

    :param run: the run
    :param context: its surroundings
    """
    config, logits, rows = run.config, np.array(START), []
    for iteration in range(run.budget["n_iterations"] + 1):
        if context.is_over():
            return None
        found = certify_meta_gradient(config["estimator"], tasks(), logits, **_inner(config))
        rows.append(_row(iteration, 0, 0, found.objective, found.exact))
        logits = logits + config["step_size"] * found.expected
    return rows


def sampled_run(run: Run, context: Context) -> list[Row] | None:
    """
    Ascend along sampled estimates with a constant step, many replicates at once.

    ``config``: as in ``exact_run``, and ``n_replicates``, ``n_looks`` (how often the exact gradient
    is taken). ``budget``: ``n_iterations``.

    :param run: the run, whose seed is that of all replicates
    :param context: its surroundings
    """
    config, n_iterations = run.config, run.budget["n_iterations"]
    ascent = SampledAscent(config, run.seed)
    spaced = np.geomspace(1, n_iterations, config["n_looks"])
    looks = {0, *np.unique(spaced.round().astype(int)).tolist()}
    rows: list[Row] = []
    for iteration in range(n_iterations + 1):
        if context.is_over():
            return None
        if iteration in looks:
            for replicate, logits in enumerate(ascent.logits.numpy()):
                found = certify_meta_gradient("sgmrl", tasks(), logits, **_inner(config))
                n_episodes = iteration * ascent.n_episodes_per_iteration
                rows.append(_row(iteration, replicate, n_episodes, found.objective, found.exact))
        ascent.step()
    return rows


class SampledAscent:
    """
    Stochastic gradient ascent by an estimator, from sampled inner and outer episodes.

    :param config: of the run
    :param seed: of the episodes
    """

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        self.estimator = ESTIMATORS[config["estimator"]]
        self.settings, self.step_size = AdaptationSettings(**_inner(config)), config["step_size"]
        start = th.tensor(START, dtype=th.float64)
        self.tasks = [TabularAdaptation(mdp, start, self.settings) for mdp in tasks()]
        self.generator = th.Generator().manual_seed(seed)
        self.logits = start.repeat(config["n_replicates"], 1, 1)
        """theta of every replicate, (R, S, A)"""

    @property
    def n_episodes_per_iteration(self) -> int:
        """Of all tasks, inner and outer ones."""
        return len(self.tasks) * self.settings.n_episodes * (self.settings.n_inner_steps + 1)

    def step(self) -> None:
        """One meta-iteration of every replicate."""
        gradients = [self._gradient(task) for task in self.tasks]
        self.logits = self.logits - self.step_size * th.stack(gradients).mean(0)

    def _gradient(self, task: TabularAdaptation) -> Tensor:
        """Of the surrogate in one task, (R, S, A)."""
        inner_lr, reduction = self.settings.inner_lr, self.settings.reduction
        params, inner = {"logits": self.logits}, []
        for _ in range(self.settings.n_inner_steps):
            inner.append(self._sampled(task, params))
            params = adapted_params(
                task.network,
                params,
                inner[-1:],
                reduction=reduction,
                inner_lr=inner_lr,
                create_graph=False,
            )[-1]
        outer = self._sampled(task, params)
        leaf = self.logits.clone().requires_grad_()
        losses = self.estimator.meta_loss(
            task.network,
            {"logits": leaf},
            inner,
            outer_loss("loglik", task.network, outer, reduction=reduction),
            outer.returns.mean(-1),
            inner_lr=inner_lr,
            reduction=reduction,
        )
        (gradient,) = th.autograd.grad(losses.sum(), leaf)
        return gradient

    def _sampled(self, task: TabularAdaptation, params: Params) -> WeightedEpisodes:
        """N episodes of the policy of every replicate, (R, N, H)."""
        chances, n = task.trajectory_probabilities(params), self.settings.n_episodes
        picks = th.multinomial(chances, n, replacement=True, generator=self.generator)
        return task.weighted(picks, params)


def running_minimum(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """
    The smallest squared norm of the gradient so far, in order of the iterations.

    :param rows: of one replicate of one run
    """
    return np.asarray(np.minimum.accumulate([float(r["squared_norm"]) for r in _in_order(rows)]))


def samples_to_reach(
    rows: Sequence[Mapping[str, Any]], levels: Sequence[float]
) -> dict[float, float]:
    """
    Episodes until the gradient of J_N is first below each level; infinite where it never is.

    :param rows: of one replicate of one run
    :param levels: of the gradient's norm
    """
    norms = running_minimum(rows) ** 0.5
    n_samples = np.array([float(row["n_episodes"]) for row in _in_order(rows)])
    return {
        level: float(n_samples[np.argmax(norms <= level)]) if norms[-1] <= level else np.inf
        for level in levels
    }


def fitted_exponent(levels: Sequence[float], samples: Sequence[float]) -> float:
    """
    The p of samples ~ level^-p, by least squares of logarithms; NaN with fewer than two points.

    :param levels: of the gradient's norm
    :param samples: that it took to reach them; infinite ones are left out
    """
    pairs = [
        (level, n) for level, n in zip(levels, samples, strict=True) if np.isfinite(n) and n > 0
    ]
    if len(pairs) < 2:
        return float("nan")
    x, y = np.log(np.array(pairs)).T
    return float(-np.polyfit(x, y, 1)[0])


def _in_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: int(row["iteration"]))


def _inner(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("n_episodes", "n_inner_steps", "inner_lr")}


def _row(
    iteration: int, replicate: int, n_episodes: int, objective: float, gradient: np.ndarray
) -> Row:
    return {
        "iteration": iteration,
        "replicate": replicate,
        "n_episodes": n_episodes,
        "objective": f"{objective:.6f}",
        "squared_norm": f"{float((gradient**2).sum()):.6e}",
    }
