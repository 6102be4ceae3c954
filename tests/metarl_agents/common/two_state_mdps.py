"""Two MDPs with two states, two actions and three steps: small enough to enumerate."""

from itertools import product
from typing import NamedTuple

import torch as th
from torch import Tensor

from metarl_agents.common.policies.networks import Params, TabularNetwork
from metarl_agents.common.returns import WeightedEpisodes

HORIZON, DISCOUNT = 3, 0.9
NETWORK = TabularNetwork(2, 2)


def tensor(values: object) -> Tensor:
    """Float64."""
    return th.tensor(values, dtype=th.float64)


LOGITS = tensor([[0.3, -0.2], [-0.4, 0.1]])


class TwoStateMDP(NamedTuple):
    """Starts in state 0; ``stay`` is P(next state = 0 | s, a), ``rewards`` R(s, a)."""

    stay: Tensor
    rewards: Tensor

    def paths(self) -> Tensor:
        """(32, 3, 2), the states and actions of all trajectories."""
        return th.tensor(
            [[(0, a0), (s1, a1), (s2, a2)] for a0, s1, a1, s2, a2 in product((0, 1), repeat=5)]
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """(32,), differentiable."""
        states, actions = self.paths().unbind(-1)
        policy = logits.softmax(-1)[states, actions].prod(-1)
        to_zero = self.stay[states, actions][:, :-1]
        return policy * th.where(states[:, 1:] == 0, to_zero, 1 - to_zero).prod(-1)

    def values(self, logits: Tensor) -> Tensor:
        """(4, 2), V_t(s); the last row is 0."""
        policy, ahead = logits.softmax(-1), th.zeros(2, dtype=th.float64)
        rows = [ahead]
        for _ in range(HORIZON):
            following = self.stay * ahead[0] + (1 - self.stay) * ahead[1]
            ahead = (policy * (self.rewards + DISCOUNT * following)).sum(-1)
            rows.append(ahead)
        return th.stack(rows[::-1])

    def value(self, logits: Tensor) -> Tensor:
        """Expected discounted return."""
        return self.values(logits)[0, 0]

    def episodes(self, logits: Tensor, *, baseline: bool) -> WeightedEpisodes:
        """All 32 trajectories as a leading axis of tasks of one episode each.

        Advantages are discounted rewards-to-go, minus the exact values with ``baseline``, times
        the discount of their step.
        """
        states, actions = self.paths().unbind(-1)
        powers = DISCOUNT ** th.arange(HORIZON, dtype=th.float64)
        rewards = powers * self.rewards[states, actions]
        to_go = rewards.flip(-1).cumsum(-1).flip(-1)
        baselines = powers * self.values(logits)[th.arange(HORIZON), states].detach()
        log_policy = logits.detach().log_softmax(-1)
        return WeightedEpisodes(
            observations=states[:, None, :, None].double(),
            actions=actions[:, None, :, None],
            mask=th.ones(32, 1, HORIZON, dtype=th.float64),
            dist_params=logits.detach()[states][:, None],
            log_probs=log_policy[states, actions][:, None],
            advantages=(to_go - baselines if baseline else to_go)[:, None],
            rewards=rewards[:, None],
            baselines=baselines[:, None],
            returns=rewards.sum(-1, keepdim=True),
        )


MDPS = {
    "A": TwoStateMDP(tensor([[0.8, 0.2], [0.4, 0.7]]), tensor([[1.0, -0.5], [-1.2, 0.6]])),
    "B": TwoStateMDP(tensor([[0.3, 0.6], [0.9, 0.1]]), tensor([[-0.7, 0.8], [1.1, -0.3]])),
}


def params_of(logits: Tensor, n: int = 32) -> Params:
    """The same table for n tasks."""
    return {"logits": logits.expand(n, 2, 2)}
