"""Distributions over actions as functions of a tensor of parameters, for learning and for acting.

Learning works on tensors and differentiates; acting works on NumPy arrays and is given its noise.
Shapes: P distribution parameters, A actions, `...` any leading axes, the same for all arguments.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch as th
from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)


class ActionDistribution(Protocol):
    """A family of distributions over actions, with P parameters."""

    @property
    def n_params(self) -> int:
        """P."""
        ...

    @property
    def act_dim(self) -> int:
        """Numbers in one action."""
        ...

    def log_prob(
        self, dist_params: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> Tensor:
        """Log-probability (density) of actions, (...).

        :param dist_params: (..., P)
        :param actions: (..., act_dim)
        :param action_masks: (..., A) bool, the allowed actions
        """
        ...

    def entropy(self, dist_params: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Entropy in nats, (...).

        :param dist_params: (..., P)
        :param action_masks: (..., A) bool
        """
        ...

    def kl(self, old: Tensor, new: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Kullback-Leibler divergence KL(old || new), (...).

        :param old: (..., P)
        :param new: (..., P)
        :param action_masks: (..., A) bool, of both
        """
        ...

    def fisher_product(
        self, dist_params: Tensor, tangent: Tensor, action_masks: Tensor | None = None
    ) -> Tensor:
        """The Fisher matrix with respect to the distribution's own parameters times a tangent.

        It is the Hessian of KL(dist_params || new) in `new` at `new = dist_params`; (..., P).

        :param dist_params: (..., P)
        :param tangent: (..., P)
        :param action_masks: (..., A) bool
        """
        ...

    def draw_noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """What `sample` needs for n rows, (n, noise_dim) float64.

        Drawn in one go or row by row, it is the same.

        :param rng: the generator
        :param n: rows
        """
        ...

    def sample(
        self, dist_params: np.ndarray, noise: np.ndarray, action_masks: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions, (..., act_dim), a function of the noise.

        :param dist_params: (..., P)
        :param noise: (..., noise_dim)
        :param action_masks: (..., A) bool
        """
        ...

    def mode(self, dist_params: np.ndarray, action_masks: np.ndarray | None = None) -> np.ndarray:
        """The most likely actions, (..., act_dim).

        :param dist_params: (..., P)
        :param action_masks: (..., A) bool
        """
        ...


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals: parameters are the means, then the logarithms of the deviations.

    Actions are unbounded: whoever acts clips them, and log-probabilities are of what was sampled.
    Action masks have no meaning for it and are ignored.

    :param act_dim: numbers in one action
    """

    act_dim: int

    @property
    def n_params(self) -> int:
        """P = 2 act_dim."""
        return 2 * self.act_dim

    def log_prob(
        self, dist_params: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> Tensor:
        """Log-density: the sum over dimensions of -((a - mu) / sigma)^2 / 2 - log sigma - log(2 pi)
        / 2; see `ActionDistribution.log_prob`.
        """
        mean, log_std = self._split(dist_params)
        errors = (actions - mean) * th.exp(-log_std)
        constant = 0.5 * LOG_TWO_PI * self.act_dim
        return -(0.5 * errors.square() + log_std).sum(-1) - constant

    def entropy(self, dist_params: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """The sum over dimensions of log sigma + (1 + log(2 pi)) / 2."""
        _, log_std = self._split(dist_params)
        return log_std.sum(-1) + 0.5 * (1.0 + LOG_TWO_PI) * self.act_dim

    def kl(self, old: Tensor, new: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """The sum over dimensions of log(sigma' / sigma) + (sigma^2 + (mu - mu')^2) / (2 sigma'^2)
        - 1/2, primes for `new`.
        """
        old_mean, old_log_std = self._split(old)
        mean, log_std = self._split(new)
        log_ratio = log_std - old_log_std
        errors = (old_mean - mean) * th.exp(-log_std)
        # expm1: no cancellation where the two are close, as within a trust region.
        spread = 0.5 * th.expm1(-2.0 * log_ratio) + log_ratio
        return (spread + 0.5 * errors.square()).sum(-1)

    def fisher_product(
        self, dist_params: Tensor, tangent: Tensor, action_masks: Tensor | None = None
    ) -> Tensor:
        """Diagonal: 1 / sigma^2 for the means, 2 for the logarithms of the deviations."""
        _, log_std = self._split(dist_params)
        mean_part, log_std_part = self._split(tangent)
        return th.cat([mean_part * th.exp(-2.0 * log_std), 2.0 * log_std_part], dim=-1)

    def draw_noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Standard normals, (n, act_dim)."""
        return rng.standard_normal((n, self.act_dim))

    def sample(
        self, dist_params: np.ndarray, noise: np.ndarray, action_masks: np.ndarray | None = None
    ) -> np.ndarray:
        """mu + sigma * noise, in the precision of the parameters."""
        mean, log_std = dist_params[..., : self.act_dim], dist_params[..., self.act_dim :]
        return mean + np.exp(log_std) * noise.astype(dist_params.dtype, copy=False)

    def mode(self, dist_params: np.ndarray, action_masks: np.ndarray | None = None) -> np.ndarray:
        """The means."""
        return dist_params[..., : self.act_dim].copy()

    def _split(self, dist_params: Tensor) -> tuple[Tensor, Tensor]:
        return dist_params[..., : self.act_dim], dist_params[..., self.act_dim :]


@dataclass(frozen=True)
class Categorical:
    """One of A actions: parameters are logits, actions are int64 with act_dim 1.

    Actions that a mask forbids have probability 0 and log-probability -inf, and pass no gradient.
    A row that allows nothing (padding is such) stands for one that allows everything.

    :param n_actions: A
    """

    n_actions: int

    @property
    def n_params(self) -> int:
        """P = A."""
        return self.n_actions

    @property
    def act_dim(self) -> int:
        """1."""
        return 1

    def log_prob(
        self, dist_params: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> Tensor:
        """The normalised logit of the action; see `ActionDistribution.log_prob`."""
        log_probs, allowed = self._log_probs(dist_params, action_masks)
        if allowed is not None:
            log_probs = log_probs.masked_fill(~allowed, -th.inf)
        return log_probs.gather(-1, actions.to(th.int64)).squeeze(-1)

    def entropy(self, dist_params: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """- sum_a p_a log p_a over the allowed actions."""
        log_probs, _ = self._log_probs(dist_params, action_masks)
        return -(log_probs.exp() * log_probs).sum(-1)

    def kl(self, old: Tensor, new: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """sum_a p_a (log p_a - log p'_a) over the allowed actions, primes for `new`."""
        old_log_probs, allowed = self._log_probs(old, action_masks)
        log_probs, _ = self._log_probs(new, action_masks)
        terms = old_log_probs.exp() * (old_log_probs - log_probs)
        return (terms if allowed is None else terms.masked_fill(~allowed, 0.0)).sum(-1)

    def fisher_product(
        self, dist_params: Tensor, tangent: Tensor, action_masks: Tensor | None = None
    ) -> Tensor:
        """(diag(p) - p p') v."""
        log_probs, _ = self._log_probs(dist_params, action_masks)
        weighted = log_probs.exp() * tangent
        return weighted - log_probs.exp() * weighted.sum(-1, keepdim=True)

    def draw_noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Uniforms in [0, 1), (n, 1)."""
        return rng.random((n, 1))

    def sample(
        self, dist_params: np.ndarray, noise: np.ndarray, action_masks: np.ndarray | None = None
    ) -> np.ndarray:
        """The inverse of the cumulative distribution function at the noise."""
        cumulative = np.cumsum(self._weights(dist_params, action_masks), axis=-1)
        # Not >=: actions of weight 0 are never counted up to, not even by noise 0.
        below = cumulative <= noise * cumulative[..., -1:]
        return below.sum(axis=-1, keepdims=True)

    def mode(self, dist_params: np.ndarray, action_masks: np.ndarray | None = None) -> np.ndarray:
        """The allowed action of the largest logit, the first one of several."""
        return self._weights(dist_params, action_masks).argmax(axis=-1)[..., None]

    def probabilities(
        self, dist_params: np.ndarray, action_masks: np.ndarray | None = None
    ) -> np.ndarray:
        """The probabilities of all actions, (..., A) float64.

        :param dist_params: (..., A)
        :param action_masks: (..., A) bool
        """
        weights = self._weights(dist_params, action_masks)
        return weights / weights.sum(axis=-1, keepdims=True)

    def _log_probs(
        self, logits: Tensor, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised logits and what is allowed; those of forbidden actions are huge but finite."""
        if action_masks is None:
            return logits.log_softmax(-1), None
        allowed = action_masks | ~action_masks.any(-1, keepdim=True)
        lowest = th.finfo(logits.dtype).min / 4  # so that sums and differences stay finite
        return logits.masked_fill(~allowed, lowest).log_softmax(-1), allowed

    @staticmethod
    def _weights(logits: np.ndarray, action_masks: np.ndarray | None) -> np.ndarray:
        """Probabilities up to a factor, in float64: rounding gives no action to a weight of 0."""
        values = np.asarray(logits, dtype=np.float64)
        if action_masks is not None:
            allowed = action_masks | ~action_masks.any(axis=-1, keepdims=True)
            values = np.where(allowed, values, -np.inf)
        weights: np.ndarray = np.exp(values - values.max(axis=-1, keepdims=True))
        return weights
