"""Prior alignment: how far a task played under a learned prior is from one played under the truth.

Give two agents the same early actions, one with the learned prior mean and one with the true one. A
small shift of the reward noise of the first makes their posteriors agree, and from then on they are
the same agent. How likely such a shift goes unnoticed bounds what the learned prior can cost. The
functions here are diagnostics and tests of that argument; no agent uses them.

Zhou, Chen, Chen (2025), https://arxiv.org/abs/2510.05446, name the technique for finite-horizon
MDPs; the formulas here are our derivation, after the prior alignment of Bastani, Simchi-Levi and
Zhu for pricing bandits.

Shapes as in :mod:`.linear_gaussian`: ``...`` leading axes, H stages, E episodes, C blocks of m
features. Covariances are those of one block.
"""

from typing import NamedTuple

import torch as th
from jaxtyping import Bool, Float
from torch import Tensor

from metarl_agents.bayesian.hierarchical import PINV_CUTOFF
from metarl_agents.bayesian.linear_gaussian import GaussianPrior, Transitions, batched_product

ROUNDING = 1e-8  # relative size below which a vector or an eigenvalue counts as zero


class NoiseShift(NamedTuple):
    """The smallest shift of a task's rewards that makes two posterior means agree.

    Transition i is shifted by ``phi_i'direction``.
    """

    direction: Float[Tensor, "... stage block feature"]
    squared_norm: Float[Tensor, "... stage"]  # over all transitions; inf where no shift does it


def noise_shift(
    true: GaussianPrior,
    learned_mean: Float[Tensor, "... stage block feature"],
    gram: Float[Tensor, "... stage block feature feature"],
    sigma2: Float[Tensor, "... stage"],
) -> NoiseShift:
    """Return what to add to the rewards under the learned prior mean so that the posteriors agree.

    Same transitions, same covariance ``Sigma``: the posterior means agree iff ``X'delta = sigma2
    v`` with ``v = Sigma^-1 (mean_true - mean_learned)``. The shift of least norm is ``delta =
    sigma2 X G^-1 v``, with ``||delta||^2 = sigma2^2 v'G^-1 v``. It serves every stage at once:
    where the last stage agrees, both agents draw the same parameters from the same z, so that the
    targets of the stage before differ by its own shift alone.

    With ``Sigma = L L'``, ``L w = mean_true - mean_learned`` and ``A = L'GL`` this is ``sigma2 X L
    A^-1 w``: nothing inverts ``Sigma`` or ``G``, and both may be singular. There is no shift where
    the means differ in a direction that has no prior variance, or that no transition has seen.

    :param true: the true prior
    :param learned_mean: of a prior with the same covariance
    :param gram: ``X'X`` of the transitions that both agents share
    :param sigma2: variance that the agents assume for regression targets, broadcast
    """
    factor, difference = true.factor, true.mean - learned_mean
    # The factor holds square roots, so its cutoff is the root of that of eigenvalues.
    white = batched_product(th.linalg.pinv(factor, rtol=PINV_CUTOFF**0.5), difference)
    values, vectors = th.linalg.eigh(factor.mT @ gram @ factor)
    seen = values > PINV_CUTOFF * values.amax(-1, keepdim=True).clamp_min(1e-300)
    turned = batched_product(vectors.mT, white)
    solved = th.where(seen, turned / th.where(seen, values, 1.0), 0.0)
    direction = batched_product(factor @ vectors, solved) * sigma2[..., None, None]
    missed = difference - batched_product(factor, white)
    reached = _vanishes(missed, difference) & _vanishes(turned * ~seen, turned)
    squares = (turned * solved).sum(-1) * sigma2.unsqueeze(-1) ** 2
    return NoiseShift(direction, th.where(reached, squares, th.inf).sum(-1))


def _vanishes(
    part: Float[Tensor, "... feature"], whole: Float[Tensor, "... feature"]
) -> Bool[Tensor, "..."]:
    return part.norm(dim=-1) <= ROUNDING * whole.norm(dim=-1)


def transition_shifts(
    transitions: Transitions, direction: Float[Tensor, "... stage block feature"]
) -> Float[Tensor, "... stage episode"]:
    """Return ``phi_i'direction`` of every transition, in the block of its action; 0 where the
    episode had ended.

    :param transitions: those that the Gram matrix sums up
    :param direction: from :func:`noise_shift`
    """
    in_block = th.nn.functional.one_hot(transitions.blocks, direction.shape[-2])
    shifts = th.einsum(
        "...hem,...hec,...hcm->...he", transitions.features, in_block.to(th.float64), direction
    )
    return shifts * transitions.weights


def alignment_distance(
    squared_norm: Float[Tensor, "... stage"], noise_std: Float[Tensor, "... stage"]
) -> Float[Tensor, "..."]:
    """Return ``D = ||(delta_1, ..., delta_H)|| / sigma_r``: the shift of all stages in standard
    deviations of the reward noise.

    :param squared_norm: from :func:`noise_shift`
    :param noise_std: standard deviation ``sigma_r`` of the rewards given the task, broadcast
    """
    return (squared_norm / noise_std**2).sum(-1).sqrt()


def total_variation(distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the total variation ``2 Phi(D / 2) - 1`` of two unit Gaussians at distance D.

    It is the probability that a maximal coupling of two tasks fails to align their posteriors, and
    at most ``D / sqrt(2 pi)``. Times the range of returns and the number of episodes it bounds the
    meta-regret of a task. The bound is of first order in the error of the prior mean; what the
    error costs is of second order.
    """
    return th.erf(distance / 8**0.5)


class Coupling(NamedTuple):
    """Reward noise for the second of two coupled agents."""

    noise: Float[Tensor, "... row"]  # standard normal, whatever the shift
    aligned: Bool[Tensor, "..."]  # where it is the noise of the first agent plus the shift


def reflection_coupling(
    noise: Float[Tensor, "... row"],
    shift: Float[Tensor, "... row"],
    uniform: Float[Tensor, "..."],
) -> Coupling:
    """Return standard normal noise that equals ``noise + shift`` as often as any coupling can.

    With ``p`` the component of the noise along the shift: ``noise + shift`` with probability
    ``min(1, phi(p + ||shift||) / phi(p))``, else the noise reflected, ``noise - 2 p shift /
    ||shift||``. The first happens with probability ``1 - total_variation(||shift||)``, the most
    that is possible.

    :param noise: standard normal, all transitions of a task in one row
    :param shift: in units of the noise, finite
    :param uniform: from [0, 1), independent of ``noise``
    """
    size = shift.norm(dim=-1)
    unit = shift / size.clamp_min(1e-300).unsqueeze(-1)
    along = (noise * unit).sum(-1)
    aligned = uniform.log() <= -size * (along + size / 2)
    reflected = noise - 2 * along.unsqueeze(-1) * unit
    return Coupling(th.where(aligned.unsqueeze(-1), noise + shift, reflected), aligned)


def required_gram(
    true: Float[Tensor, "... stage block feature feature"],
    widened: Float[Tensor, "... stage block feature feature"],
    sigma2: Float[Tensor, "... stage"],
) -> Float[Tensor, "... stage block feature feature"]:
    """Return the extra ``X'X`` that gives a learner with another covariance the posterior
    covariance of one with the true covariance: ``sigma2 (true^-1 - widened^-1)``.

    Data can have this Gram matrix only where it is positive semi-definite, that is where
    ``widened`` dominates ``true``: this is why learned covariances are widened. With 0.8 times the
    truth all its eigenvalues are negative, and nothing aligns. The posteriors then agree in law;
    the same z gives the same draws only through the same square root of their covariance.

    :param true: positive definite
    :param widened: positive definite
    :param sigma2: variance that the agents assume for regression targets, broadcast
    """
    # The product does not subtract two large inverses of nearly equal covariances.
    extra = th.linalg.solve(true, th.linalg.solve(widened, widened - true, left=False))
    return (extra + extra.mT) / 2 * sigma2[..., None, None, None]


def dominates(
    widened: Float[Tensor, "... feature feature"], true: Float[Tensor, "... feature feature"]
) -> Bool[Tensor, "..."]:
    """Return whether ``widened - true`` has no negative eigenvalue beyond rounding.

    :param widened: the learned covariance, after widening
    :param true: what it should cover
    """
    difference = widened - true
    smallest = th.linalg.eigvalsh((difference + difference.mT) / 2)[..., 0]
    return smallest >= -ROUNDING * th.linalg.matrix_norm(true, ord=2)
