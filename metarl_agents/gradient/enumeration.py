"""Everything that can happen in a small finite-horizon MDP: its trajectories and their multisets.

Shapes: L trajectories, C multisets, N trajectories in each, H stages, S states, A actions, `...`
any leading axes.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from metarl_envs.tabular.mdp import FiniteMDP


class Trajectories(NamedTuple):
    """All trajectories of an MDP up to the last action; where that one leads earns nothing.

    :param states: (L, H), int64
    :param actions: (L, H), int64
    :param rewards: (L, H), the expected ones, not discounted
    :param environment_probabilities: (L,), of the first state and the transitions; times the
        policy's probabilities of the actions they sum to 1
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    environment_probabilities: Tensor


def all_trajectories(mdp: FiniteMDP) -> Trajectories:
    """Every trajectory of positive probability (under a policy that plays every action).

    :param mdp: one MDP with a horizon
    """
    horizon = _horizon(mdp)
    (first,) = np.nonzero(mdp.initial)
    states, probabilities = first[:, None], mdp.initial[first]
    actions = np.empty((len(first), 0), dtype=np.int64)
    for _ in range(horizon - 1):
        rows, chosen, following = np.nonzero(mdp.transitions[states[:, -1]])
        probabilities = probabilities[rows] * mdp.transitions[states[rows, -1], chosen, following]
        states = np.concatenate([states[rows], following[:, None]], axis=1)
        actions = np.concatenate([actions[rows], chosen[:, None]], axis=1)
    rows, last = np.divmod(np.arange(len(states) * mdp.n_actions), mdp.n_actions)
    states, actions = states[rows], np.concatenate([actions[rows], last[:, None]], axis=1)
    return Trajectories(
        th.as_tensor(states),
        th.as_tensor(actions),
        th.as_tensor(mdp.rewards[states, actions]),
        th.as_tensor(probabilities[rows]),
    )


def n_trajectories(mdp: FiniteMDP) -> int:
    """L, counted without listing them.

    :param mdp: one MDP with a horizon
    """
    possible = (mdp.transitions > 0).astype(object)  # integers of any size
    counts = np.full(mdp.n_states, mdp.n_actions, dtype=object)
    for _ in range(_horizon(mdp) - 1):
        counts = (possible @ counts).sum(axis=-1)
    return int(counts[mdp.initial > 0].sum())


def n_multisets(n_kinds: int, size: int) -> int:
    """C, the number of multisets.

    :param n_kinds: L
    :param size: N
    """
    return math.comb(n_kinds + size - 1, size)


def multisets(n_kinds: int, size: int) -> tuple[Tensor, Tensor]:
    """All multisets of `size` out of `n_kinds`, (C, N), and in how many orders each is drawn, (C,).

    What depends on a sample but not on its order has an expectation over C terms instead of L^N.

    :param n_kinds: L
    :param size: N
    """
    # `th.combinations` fills a mask of L^N entries, far more than there are multisets.
    rows = itertools.combinations_with_replacement(range(n_kinds), size)
    numbers = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64)
    picks = th.as_tensor(numbers.reshape(-1, size))
    # In a sorted row, the product of the running lengths of its runs is that of their factorials.
    run = th.ones(len(picks), dtype=th.float64)
    orders = run.clone()
    for j in range(1, size):
        run = th.where(picks[:, j] == picks[:, j - 1], run + 1, th.ones_like(run))
        orders = orders * (j + 1) / run
    return picks, orders


class TabularTask:
    """One MDP as tensors, with exact values that can be differentiated in the logits.

    :param mdp: one MDP with a horizon
    """

    def __init__(self, mdp: FiniteMDP) -> None:
        self.horizon = _horizon(mdp)
        self.discount = float(mdp.discount)
        # Copies: the arrays of an MDP are read-only, which tensors cannot be.
        self._transitions = th.tensor(mdp.transitions)
        self._rewards = th.tensor(mdp.rewards)
        self._initial = th.tensor(mdp.initial)

    def stage_values(self, logits: Tensor) -> Tensor:
        """(..., H, S), the values of a softmax policy at each stage, by backward induction.

        :param logits: (..., S, A)
        """
        policy = logits.softmax(-1)
        values = [th.zeros_like(policy[..., 0])]
        for _ in range(self.horizon):
            following = th.einsum("sax,...x->...sa", self._transitions, values[-1])
            values.append((policy * (self._rewards + self.discount * following)).sum(-1))
        return th.stack(values[:0:-1], dim=-2)

    def value(self, logits: Tensor) -> Tensor:
        """(...), the expected discounted return of a softmax policy.

        :param logits: (..., S, A)
        """
        return self.stage_values(logits)[..., 0, :] @ self._initial


def _horizon(mdp: FiniteMDP) -> int:
    if mdp.horizon is None:
        raise ValueError(
            "horizon=None: only the episodes of an MDP with a horizon can be enumerated; give "
            "FiniteMDP(..., horizon=H)"
        )
    return mdp.horizon
