"""What is known about tasks while they run, and how Q-functions are drawn from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch as th
from torch import Tensor

from metarl_agents.bayesian.hierarchical import gate
from metarl_agents.bayesian.linear_gaussian import (
    GaussianPrior,
    Statistics,
    Transitions,
    add_transitions,
    posterior,
    with_capacity,
)
from metarl_agents.bayesian.rlsvi import sample_parameters


def _concatenated(batches: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return every field of several batches, joined along the task axis."""
    return [th.cat(list(fields)) for fields in zip(*batches, strict=True)]


@dataclass(frozen=True)
class GateSwitch:
    """Leave the prior-independent prior once a task's own data pass the eigenvalue gate.

    :param independent: what every block starts from, leading axis M
    :param threshold: eigenvalue of the Gram matrix that a block must reach
    :param pooled: Gram matrices of all finished tasks, shape (M, H, C, m, m): which directions
        can be seen at all
    """

    independent: GaussianPrior
    threshold: float
    pooled: Tensor

    def prior(self, learned: GaussianPrior, grams: Tensor) -> GaussianPrior:
        """Return ``learned`` for the blocks whose data passed, else the independent prior."""
        passed = gate(grams.unsqueeze(-5), self.threshold, self.pooled).squeeze(-3)
        return GaussianPrior(
            th.where(passed[..., None], learned.mean, self.independent.mean),
            th.where(passed[..., None, None], learned.factor, self.independent.factor),
        )

    @classmethod
    def joined(cls, switches: Sequence["GateSwitch"]) -> "GateSwitch | None":
        """Return one switch for all the tasks of several; None for none."""
        if not switches:
            return None
        independent = GaussianPrior(*_concatenated([s.independent for s in switches]))
        return cls(independent, switches[0].threshold, th.cat([s.pooled for s in switches]))

    def __getitem__(self, index: int) -> "GateSwitch":
        independent = GaussianPrior(*(field[index, None] for field in self.independent))
        return replace(self, independent=independent, pooled=self.pooled[index, None])


@dataclass(frozen=True)
class ValueModel:
    """How Q-functions are drawn from what is known; the same for all tasks of an agent.

    :param bootstrap: False regresses on immediate rewards only
    :param clip: clip sampled values to the range that rewards in [0, 1] allow
    """

    bootstrap: bool = True
    clip: bool = False

    def draw(self, belief: "TaskBelief", noise: Tensor | None) -> Tensor:
        """Return a posterior draw of all stages (``noise=None``: the mean), shape (M, H, C, m)."""
        given = posterior(belief.effective_prior(), belief.statistics, belief.sigma2)
        return sample_parameters(given, noise, bootstrap=self.bootstrap, clip=self.clip)


@dataclass(frozen=True)
class TaskBelief:
    """What is known about M tasks: the prior they began with and their data so far."""

    prior: GaussianPrior  # leading axis M
    statistics: Statistics  # leading axis M
    sigma2: Tensor  # (M, H)
    switch: GateSwitch | None = None
    history: tuple[Transitions, ...] = ()  # kept where the prior estimator needs single transitions

    def effective_prior(self) -> GaussianPrior:
        """Return the prior that draws are made from."""
        if self.switch is None:
            return self.prior
        return self.switch.prior(self.prior, self.statistics.gram)

    def updated(self, transitions: Transitions, *, keep: bool) -> Self:
        """Return the belief after more episodes; ``keep`` keeps them in the history too."""
        statistics = add_transitions(self.statistics, transitions)
        history = (*self.history, transitions) if keep else self.history
        return replace(self, statistics=statistics, history=history)

    def transitions(self) -> Transitions:
        """Return the whole history as one batch, episodes in order."""
        axis = self.statistics.reward_squares.ndim
        return Transitions(
            *(th.cat(list(chunks), dim=axis) for chunks in zip(*self.history, strict=True))
        )

    @classmethod
    def joined(cls, beliefs: Sequence["TaskBelief"]) -> "TaskBelief":
        """Return one belief about all the tasks of several."""
        n_columns = max(b.statistics.successor_counts.shape[-1] for b in beliefs)
        statistics = [with_capacity(b.statistics, n_columns, exactly=True) for b in beliefs]
        lengths = {len(b.history) for b in beliefs}
        if len(lengths) > 1:
            raise ValueError("policies have seen different numbers of adaptation batches")
        switches = [b.switch for b in beliefs]
        if len({switch is None for switch in switches}) > 1:
            raise ValueError("policies of exploration tasks and of later ones cannot be joined")
        return cls(
            prior=GaussianPrior(*_concatenated([b.prior for b in beliefs])),
            statistics=Statistics(*_concatenated(statistics)),
            sigma2=th.cat([b.sigma2 for b in beliefs]),
            switch=GateSwitch.joined([s for s in switches if s is not None]),
            history=tuple(
                Transitions(*_concatenated([b.history[i] for b in beliefs]))
                for i in range(lengths.pop())
            ),
        )

    def __getitem__(self, index: int) -> Self:
        return replace(
            self,
            prior=GaussianPrior(*(field[index, None] for field in self.prior)),
            statistics=Statistics(*(field[index, None] for field in self.statistics)),
            sigma2=self.sigma2[index, None],
            switch=None if self.switch is None else self.switch[index],
            history=tuple(
                Transitions(*(field[index, None] for field in chunk)) for chunk in self.history
            ),
        )
