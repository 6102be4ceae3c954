"""Bayesian linear regression of stage-wise Q-functions: priors, sufficient statistics and
posteriors, batched.

Shapes: ``...`` leading axes (tasks, replicates), H stages, A actions, U distinct successor
observations, and C blocks of m features with d = C m. The features of an action lie in one block: C
= 1 puts all actions into one block of m = d features, C = A gives every action a block of its own.
With C = A and a block-diagonal prior the posterior factorises over actions, and every solve is A^2
times cheaper than in the full matrix.

All functions are pure, work in float64 and run on the device of their inputs.
"""

from typing import NamedTuple

import numpy as np
import torch as th
from jaxtyping import Bool, Float, Int
from torch import Tensor


class GaussianPrior(NamedTuple):
    """A Gaussian over the parameters of every stage: ``theta_h ~ N(mean_h, factor_h factor_h')``.

    The covariance is kept as a square root, so singular covariances are legal and nothing inverts
    them.
    """

    mean: Float[Tensor, "... stage block feature"]
    factor: Float[Tensor, "... stage block feature feature"]

    @property
    def covariance(self) -> Float[Tensor, "... stage block feature feature"]:
        """``factor factor'``, shape (..., H, C, m, m)."""
        return self.factor @ self.factor.mT

    def dense_covariance(self) -> np.ndarray:
        """Return the covariance with the blocks in place, shape (..., H, d, d)."""
        blocks = self.covariance.cpu().numpy()
        n_blocks, size = blocks.shape[-3:-1]
        dense = np.einsum("...cmn,cd->...cmdn", blocks, np.eye(n_blocks))
        return dense.reshape(*blocks.shape[:-3], n_blocks * size, n_blocks * size)


class Statistics(NamedTuple):
    """Sufficient statistics of one task's transitions for regressions whose targets change in every
    episode.

    With the value ``v`` of every distinct successor, ``X'y = reward_moment + successor_moment v``,
    so that nothing re-reads the data. Column 0 of every stage stands for "no successor" (its mask
    is empty, its value 0).
    """

    gram: Float[Tensor, "... stage block feature feature"]  # X'X
    reward_moment: Float[Tensor, "... stage block feature"]  # X'r
    successor_moment: Float[Tensor, "... stage block feature successor"]  # X'1{s' = u}
    successor_features: Float[Tensor, "... stage successor action feature"]
    successor_masks: Bool[Tensor, "... stage successor action"]
    successor_counts: Float[Tensor, "... stage successor"]
    successor_rewards: Float[Tensor, "... stage successor"]  # sum of r where s' = u
    reward_squares: Float[Tensor, "... stage"]  # r'r
    n_successors: Int[Tensor, "... stage"]  # columns in use, column 0 included


class Transitions(NamedTuple):
    """One transition per stage and episode, ``weights`` 0 where an episode did not reach the
    stage."""

    features: Float[Tensor, "... stage episode feature"]  # of the action taken
    blocks: Int[Tensor, "... stage episode"]  # the block these features lie in
    rewards: Float[Tensor, "... stage episode"]
    successor_features: Float[Tensor, "... stage episode action feature"]
    successor_masks: Bool[Tensor, "... stage episode action"]  # all False: no successor
    weights: Float[Tensor, "... stage episode"]


def square_root(
    covariance: Float[Tensor, "... feature feature"],
) -> Float[Tensor, "... feature feature"]:
    """Return ``L`` with ``L L' = covariance``; eigenvalues below zero (rounding) count as zero."""
    values, vectors = th.linalg.eigh((covariance + covariance.mT) / 2)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)


def isotropic_prior(
    shape: tuple[int, ...], precision: float, device: th.device | str = "cpu"
) -> GaussianPrior:
    """Return ``N(0, I / precision)`` for ``shape = (..., H, C, m)``: RLSVI's prior (Osband, Van
    Roy, Wen 2016)."""
    mean = th.zeros(shape, dtype=th.float64, device=device)
    eye = th.eye(shape[-1], dtype=th.float64, device=device) * precision**-0.5
    return GaussianPrior(mean, eye.expand(*shape, shape[-1]))


def empty_statistics(
    lead: tuple[int, ...],
    n_stages: int,
    n_actions: int,
    n_blocks: int,
    block_size: int,
    device: th.device | str = "cpu",
) -> Statistics:
    """Return the statistics of no data, with room for "no successor" only."""

    def zeros(*shape: int) -> Tensor:
        return th.zeros(*lead, n_stages, *shape, dtype=th.float64, device=device)

    return Statistics(
        gram=zeros(n_blocks, block_size, block_size),
        reward_moment=zeros(n_blocks, block_size),
        successor_moment=zeros(n_blocks, block_size, 1),
        successor_features=zeros(1, n_actions, block_size),
        successor_masks=zeros(1, n_actions).bool(),
        successor_counts=zeros(1),
        successor_rewards=zeros(1),
        reward_squares=zeros(),
        n_successors=th.ones(*lead, n_stages, dtype=th.int64, device=device),
    )


def add_transitions(statistics: Statistics, transitions: Transitions) -> Statistics:
    """Return the statistics after more episodes."""
    for episode in range(transitions.weights.shape[-1]):
        one = Transitions(*(_take(field, episode, statistics) for field in transitions))
        statistics = _add_episode(statistics, one)
    return statistics


def _take(field: Tensor, episode: int, statistics: Statistics) -> Tensor:
    axis = statistics.reward_squares.ndim
    return field.narrow(axis, episode, 1)


def _add_episode(statistics: Statistics, new: Transitions) -> Statistics:
    statistics, columns = _successor_columns(statistics, new)
    n_blocks, n_columns = statistics.gram.shape[-3], statistics.successor_counts.shape[-1]
    one_hot = th.nn.functional.one_hot
    weight = new.weights[..., 0]
    in_block = one_hot(new.blocks[..., 0], n_blocks).to(weight.dtype)
    in_column = one_hot(columns, n_columns).to(weight.dtype) * weight.unsqueeze(-1)
    phi, reward = new.features[..., 0, :], new.rewards[..., 0] * weight
    spread = in_block.unsqueeze(-1) * phi.unsqueeze(-2)
    outer = spread.unsqueeze(-1) * (phi * weight.unsqueeze(-1))[..., None, None, :]
    return statistics._replace(
        gram=statistics.gram + outer,
        reward_moment=statistics.reward_moment + spread * reward[..., None, None],
        successor_moment=statistics.successor_moment
        + spread.unsqueeze(-1) * in_column[..., None, None, :],
        successor_counts=statistics.successor_counts + in_column,
        successor_rewards=statistics.successor_rewards + in_column * new.rewards,
        reward_squares=statistics.reward_squares + reward * new.rewards[..., 0],
    )


def successor_columns(
    statistics: Statistics,
    successor_features: Float[Tensor, "... stage action feature"],
    successor_masks: Bool[Tensor, "... stage action"],
) -> Int[Tensor, "... stage"]:
    """Return the column of successors the statistics know, 0 for "no successor", and the first free
    column for new ones.

    Successors with the same features and masks have the same value under all parameters, so they
    share a column.
    """
    same = (statistics.successor_features == successor_features.unsqueeze(-3)).all((-1, -2))
    same &= (statistics.successor_masks == successor_masks.unsqueeze(-2)).all(-1)
    known, free = same.any(-1), statistics.n_successors
    column = th.where(known, same.to(th.uint8).argmax(-1), free)
    return th.where(successor_masks.any(-1), column, 0)


def _successor_columns(statistics: Statistics, new: Transitions) -> tuple[Statistics, Tensor]:
    """Return the statistics with a column for every successor of an episode, and these columns."""
    features, masks = new.successor_features[..., 0, :, :], new.successor_masks[..., 0, :]
    columns = successor_columns(statistics, features, masks)
    is_new = columns == statistics.n_successors
    if not is_new.any():
        return statistics, columns
    statistics = with_capacity(statistics, int(columns.max()) + 1)
    n_columns = statistics.successor_counts.shape[-1]
    write = th.nn.functional.one_hot(columns, n_columns).bool() & is_new.unsqueeze(-1)
    return statistics._replace(
        n_successors=statistics.n_successors + is_new.long(),
        successor_features=th.where(
            write[..., None, None], features.unsqueeze(-3), statistics.successor_features
        ),
        successor_masks=th.where(
            write.unsqueeze(-1), masks.unsqueeze(-2), statistics.successor_masks
        ),
    ), columns


def with_capacity(statistics: Statistics, n_columns: int, *, exactly: bool = False) -> Statistics:
    """Return the statistics with room for ``n_columns`` successors.

    Room that is too small is at least doubled, so that growing costs little per episode, unless
    ``exactly`` is asked for.
    """
    present = statistics.successor_counts.shape[-1]
    if n_columns <= present:
        return statistics
    extra = (n_columns if exactly else max(n_columns, 2 * present)) - present
    pad = th.nn.functional.pad
    return statistics._replace(
        successor_moment=pad(statistics.successor_moment, (0, extra)),
        successor_features=pad(statistics.successor_features, (0, 0, 0, 0, 0, extra)),
        successor_masks=pad(statistics.successor_masks, (0, 0, 0, extra)),
        successor_counts=pad(statistics.successor_counts, (0, extra)),
        successor_rewards=pad(statistics.successor_rewards, (0, extra)),
    )


class Posterior(NamedTuple):
    """What of a posterior does not depend on the regression targets: ``P P'`` is its covariance."""

    prior: GaussianPrior
    root: Float[Tensor, "... stage block feature feature"]  # P = L R^-T, R R' = I + L'GL / sigma2
    statistics: Statistics
    sigma2: Float[Tensor, "... stage"]


def posterior(
    prior: GaussianPrior, statistics: Statistics, sigma2: Float[Tensor, "... stage"]
) -> Posterior:
    """Condition the prior on a task's data, in whitened form.

    With ``theta = mu + L u`` and ``u ~ N(0, I)``, the precision of u is ``I + L'GL / sigma2``: its
    eigenvalues are at least 1, so the Cholesky factorisation cannot fail and the prior covariance
    is never inverted.

    :param prior: leading axes broadcast against those of ``statistics``
    :param statistics: of one task, leading axes allowed
    :param sigma2: variance of the regression targets per stage, shape (..., H), broadcast
    """
    factor, gram = prior.factor, statistics.gram
    eye = th.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    precision = eye + factor.mT @ gram @ factor / sigma2[..., None, None, None]
    triangle = th.linalg.cholesky((precision + precision.mT) / 2)
    root = th.linalg.solve_triangular(triangle, factor.mT.expand_as(triangle), upper=False).mT
    return Posterior(prior, root, statistics, sigma2)


def batched_product(
    matrix: Float[Tensor, "... row column"], vector: Float[Tensor, "... column"]
) -> Float[Tensor, "... row"]:
    """Multiply a batch of matrices with a batch of vectors."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
