"""Baselines of returns by name, and what of them is learned."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor

from metarl_agents.common.baselines import (
    Baseline,
    LinearFeatureBaseline,
    LinearTimeBaseline,
    ValueBaseline,
    ZeroBaseline,
    state_time_features,
    time_features,
)
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies.encodings import encoding_of
from metarl_agents.common.returns import discounted_returns


def make_baseline(
    name: str,
    observation_space: spaces.Space[Any],
    *,
    rng: np.random.Generator,
    device: th.device | str,
    dtype: th.dtype,
    from_others: bool = False,
) -> Baseline:
    """The baseline of a name.

    :param name: "linear", "time", "value" or "none"
    :param observation_space: what "value" sees
    :param rng: of the initial weights of "value"
    :param device: where they live
    :param dtype: of them
    :param from_others: whether "linear" and "time" predict an episode from the others of its task
    """
    if from_others and name in ("linear", "time"):
        return OtherEpisodesBaseline(state_time_features if name == "linear" else time_features)
    if name == "value":
        return ValueBaseline(
            int(np.prod(observation_space.shape or ())),
            rng=rng,
            encoding=encoding_of(observation_space),
            device=device,
            dtype=dtype,
        )
    fitted_in_place: dict[str, type[Any]] = {
        "linear": LinearFeatureBaseline,
        "time": LinearTimeBaseline,
        "none": ZeroBaseline,
    }
    baseline: Baseline = fitted_in_place[name]()
    return baseline


class OtherEpisodesBaseline:
    """Ridge regression fitted, for every episode, to the other episodes of its task.

    So the advantages of an episode do not depend on what the others' scores are multiplied with:
    given the others, a baseline adds nothing to the expected gradient of an episode.

    :param features: function from episodes to (..., E, T, D)
    :param ridge: added to the diagonal of the normal equations
    """

    def __init__(self, features: Callable[[EpisodeBatch], Tensor], ridge: float = 1e-5) -> None:
        self.features, self.ridge = features, ridge

    def __call__(self, episodes: EpisodeBatch, returns: Tensor) -> Tensor:
        """Predictions, (..., E, T), zero where there is no other episode."""
        mask = episodes.mask.to(th.float64)
        x = self.features(episodes) * mask.unsqueeze(-1)
        y = (returns.to(th.float64) * mask).unsqueeze(-1)
        gram, moments = x.mT @ x, x.mT @ y
        others = gram.sum(-3, keepdim=True) - gram
        identity = th.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        weights = th.linalg.solve(
            others + self.ridge * identity, moments.sum(-3, keepdim=True) - moments
        )
        return (x @ weights).squeeze(-1).to(returns.dtype)


def learn_from(
    baseline: Baseline, phases: Sequence[EpisodeBatch], *, gamma: float, seed: int
) -> dict[str, float]:
    """Fits a baseline that is learned to a finished meta-iteration; what to log.

    :param baseline: any
    :param phases: batches of the same tasks
    :param gamma: the discount factor
    :param seed: of the order of the steps
    """
    if not isinstance(baseline, ValueBaseline):
        return {}
    episodes = EpisodeBatch.concatenate(list(phases))
    returns = discounted_returns(episodes.rewards, episodes.mask, gamma)
    explained = baseline.fit(episodes, returns, rng=np.random.default_rng(seed))
    return {"explained_variance": explained}
