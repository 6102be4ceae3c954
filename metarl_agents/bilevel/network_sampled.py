"""How the solution of a lower level with a network depends on the policy that was sampled from.

Our derivation. Let W_t be the weights of the steps, u the solution of the implicit system,
`ell_t = <u, grad log pi_theta'(a_t|s_t)>`, and `w_t = <u, grad g(rho_t)> = g'(rho_t) rho_t ell_t`.
With u and theta' held fixed,

    - <u, grad_theta l> = E[sum_t W_t (w_t Q(s_t, a_t) / lambda - <u, grad_theta KL_t>)] + ...

depends on phi in four ways:

- explicitly, in the divergence and in the proximal terms;
- through Q: `grad Q(s_t, a_t) = E[sum_(k>t) gamma^(k-t) Q(s_k, a_k) grad log pi_phi(a_k|s_k)]`;
- through the states that pi_phi visits: a policy gradient with the bracket as its reward;
- through the actions that it takes there. For the plain ratio `E_a[w Q] = sum_a <u, grad pi_theta'>
  Q` does not depend on pi_phi. Under a squash `grad_phi rho = - rho grad log pi_phi` leaves
  `- g''(rho) rho^2 ell Q grad log pi_phi` of it.

The baseline within Qhat counts as a constant. It makes no difference to the plain ratio.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.network_problem import (
    NetworkProblem,
    bounded_ratios,
    log_ratios,
    ratio_gain,
    step_divergences,
)
from metarl_agents.common.policies.networks import Params
from metarl_agents.common.returns import discounted_returns

PARTS = ("distance", "action_values", "occupancy")
"""What a lower level depends on phi through: D^2 and the proximal term, as they are written; Q; and
the distribution of the data, its states and (under a squash) its actions.
"""


def check_parts(parts: Sequence[str]) -> None:
    """`ValueError` unless `parts` names some of `PARTS`.

    :param parts: what the user gave
    """
    if isinstance(parts, str) or not parts or not set(parts) <= set(PARTS):
        raise ValueError(f"parts={parts!r} must hold one or more of {PARTS}: try parts={PARTS}")


class StepDerivatives(NamedTuple):
    """Derivatives along u at theta', by step.

    :param numbers: of the distributions, (E, T, P)
    :param tangents: of these numbers, (E, T, P)
    :param gains: w_t, of g(rho_t), (E, T)
    :param bends: `g''(rho_t) rho_t^2 ell_t`, (E, T)
    """

    numbers: Float[Tensor, "episode time number"]
    tangents: Float[Tensor, "episode time number"]
    gains: Float[Tensor, "episode time"]
    bends: Float[Tensor, "episode time"]


def sampled_pullback(
    problem: NetworkProblem,
    theta: Params,
    adjoint: Params,
    *,
    parts: Sequence[str] = PARTS,
    gamma: float,
    advantages: Float[Tensor, "episode time"] | None = None,
) -> Params:
    """`- grad_phi <u, grad_theta l(theta'; phi)>` from the episodes, for given u and theta'.

    Costs a pass forth and two back at theta', and one forth and back at phi. The estimate is linear
    in the episodes, up to the mean of the bracket that its reward is centred by.

    :param problem: the lower level at phi
    :param theta: theta'
    :param adjoint: u
    :param parts: of `PARTS`, what depends on phi
    :param gamma: discount of the returns
    :param advantages: of pi_phi, to follow the action values by, (E, T); None for Qhat
    """
    check_parts(parts)
    gradient = {name: th.zeros_like(param) for name, param in problem.phi.items()}
    through_divergence = "distance" in parts and problem.distance != "l2"
    if through_divergence or set(parts) - {"distance"}:
        along = step_derivatives(problem, theta, adjoint)
        scores = score_weights(problem, along, parts=parts, gamma=gamma, advantages=advantages)
        gradient = _network_gradient(problem, along, scores, through_divergence)
    if "distance" in parts:
        pull = 2.0 * (float(problem.distance == "l2") + problem.eta / problem.lam)
        gradient = {name: part + pull * adjoint[name] for name, part in gradient.items()}
    return gradient


def step_derivatives(problem: NetworkProblem, theta: Params, adjoint: Params) -> StepDerivatives:
    """Derivatives of all steps along u at once, from one push-forward through the network.

    :param problem: the lower level
    :param theta: theta'
    :param adjoint: u
    """
    numbers, tangents = _pushed_forward(problem, theta, adjoint)
    with th.enable_grad():
        leaf = numbers.requires_grad_()
        log_rho = log_ratios(problem, leaf)
        gains = _along(ratio_gain(problem, log_rho), leaf, tangents)
        scores = _along(log_rho, leaf, tangents)
    bends = ratio_bend(problem, log_rho.detach()) * scores
    return StepDerivatives(numbers.detach(), tangents, gains, bends)


def score_weights(
    problem: NetworkProblem,
    along: StepDerivatives,
    *,
    parts: Sequence[str],
    gamma: float,
    advantages: Float[Tensor, "episode time"] | None = None,
) -> Float[Tensor, "episode time"]:
    """What multiplies `grad log pi_phi(a_t|s_t)` of each step, (E, T).

    :param problem: the lower level
    :param along: derivatives along u
    :param parts: of `PARTS`
    :param gamma: discount of the returns
    :param advantages: of pi_phi, to follow the action values by, (E, T); None for Qhat
    """
    weights, q = problem.weights, problem.episodes.advantages
    total = th.zeros_like(weights)
    if "action_values" in parts:
        followed = q if advantages is None else advantages
        traces = _traces(weights * along.gains, problem.episodes.mask, gamma)
        total = total + traces * followed / problem.lam
    if "occupancy" in parts:
        rewards = along.gains * q / problem.lam
        if problem.distance != "l2":
            rewards = rewards - divergence_slopes(problem, along, problem.dist_params)
        # The weights sum to 1 whatever the lengths: the derivative of that is the mean.
        centred = weights * (rewards - (weights * rewards).sum())
        total = total + centred.flip(-1).cumsum(-1).flip(-1) - centred
        total = total - weights * along.bends * q / problem.lam
    return total


def divergence_slopes(
    problem: NetworkProblem, along: StepDerivatives, meta: Float[Tensor, "episode time number"]
) -> Float[Tensor, "episode time"]:
    """`<u, grad_theta KL_t>` of every step, (E, T); can be differentiated in the numbers of pi_phi.

    :param problem: the lower level, with a KL distance
    :param along: derivatives along u
    :param meta: numbers of pi_phi, (E, T, P)
    """
    with th.enable_grad():
        leaf = along.numbers.detach().requires_grad_()
        divergences = step_divergences(problem, meta, leaf)
        return _along(divergences, leaf, along.tangents, create_graph=meta.requires_grad)


def ratio_bend(
    problem: NetworkProblem, log_rho: Float[Tensor, "episode time"]
) -> Float[Tensor, "episode time"]:
    """`g''(rho) rho^2`, (E, T); 0 for the plain ratio.

    :param problem: the lower level
    :param log_rho: log rho, (E, T)
    """
    if not problem.squash:
        return th.zeros_like(log_rho)
    ratios = bounded_ratios(log_rho)
    s = th.sigmoid(2.0 * ratios - 2.0)
    return 8.0 * s * (1.0 - s) * (1.0 - 2.0 * s) * ratios.square()


def _network_gradient(
    problem: NetworkProblem, along: StepDerivatives, scores: Tensor, through_divergence: bool
) -> Params:
    """Through the log-probabilities and the divergences of pi_phi, in one pass forth and back."""
    episodes = problem.episodes
    with th.enable_grad():
        phi = {name: param.detach().requires_grad_() for name, param in problem.phi.items()}
        meta = problem.network.dist_params(phi, episodes.observations)
        log_probs = problem.network.distribution.log_prob(
            meta, episodes.actions, episodes.action_masks
        )
        total = (scores * th.where(episodes.mask > 0, log_probs, 0.0)).sum()
        if through_divergence:
            total = total - (problem.weights * divergence_slopes(problem, along, meta)).sum()
        gradients = th.autograd.grad(total, list(phi.values()), materialize_grads=True)
    return dict(zip(phi, gradients, strict=True))


def _traces(starts: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """`e_t = gamma (e_(t-1) + x_(t-1))` with `e_0 = 0`, (E, T): discounted sums, backwards."""
    sums = discounted_returns(starts.flip(-1), mask.flip(-1), gamma).flip(-1)
    return sums - starts


def _pushed_forward(
    problem: NetworkProblem, theta: Params, adjoint: Params
) -> tuple[Tensor, Tensor]:
    """Numbers of the distributions at theta', (E, T, P), and their derivative along u.

    The pull-back of the network is linear in its cotangent, and its transpose is the push-forward:
    two backward passes, as forward mode takes PyTorch seconds to set up.
    """
    with th.enable_grad():
        leaves = {name: theta[name].detach().requires_grad_() for name in problem.phi}
        numbers = problem.network.dist_params(leaves, problem.episodes.observations)
        cotangent = th.zeros_like(numbers).requires_grad_()
        pulled = th.autograd.grad(
            numbers, list(leaves.values()), cotangent, create_graph=True, materialize_grads=True
        )
        felt = [(part, adjoint[n]) for n, part in zip(leaves, pulled, strict=True)]
        felt = [(part, tangent) for part, tangent in felt if part.requires_grad]
        (tangents,) = th.autograd.grad(
            [part for part, _ in felt], cotangent, [tangent.detach() for _, tangent in felt]
        )
    return numbers.detach(), tangents


def _along(
    values: Tensor, numbers: Tensor, tangents: Tensor, *, create_graph: bool = False
) -> Float[Tensor, "episode time"]:
    """Derivatives of values, each of which depends on the numbers of its own step alone."""
    (slopes,) = th.autograd.grad(
        values.sum(), numbers, retain_graph=True, create_graph=create_graph
    )
    return (slopes * tangents).sum(-1)
