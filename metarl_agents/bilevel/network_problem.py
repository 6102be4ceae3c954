"""The lower level of BO-MRL with networks: adapt a policy by many steps on one batch of episodes.

From episodes of the meta-policy pi_phi alone,

    minimise over theta  l(theta; phi) = - E[Qhat g(rho)] / lambda + D^2(phi, theta)
                                         + (eta / lambda) ||theta - phi||^2

with rho = pi_theta(a|s) / pi_phi(a|s), Qhat the return less a constant, and D^2 the mean over
states of KL(pi_phi || pi_theta) (`forward_kl`, Alg 1) or of KL(pi_theta || pi_phi) (`reverse_kl`,
Alg 2), or ||theta - phi||^2 (`l2`, Alg 3): Xu & Zhu 2024, "Meta-Reinforcement Learning with
Universal Policy Adaptation", https://arxiv.org/abs/2410.09728. The squash g and the 50 steps of
Adam are those of publicly available experiment scripts; the proximal term and the Newton steps are
ours, so that the implicit function theorem has a stationary point of a regular problem to hold at.

Shapes: E episodes, T steps, P numbers of a distribution, n parameters in all. One task.
"""

import math
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.arguments import check_positive
from metarl_agents.bilevel.lower_level import DISTANCES
from metarl_agents.common.argument_checks import check_choice
from metarl_agents.common.losses import episode_log_probs
from metarl_agents.common.policies.networks import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.solvers import flatten

# From here on the squash is constant to rounding, in float64 too: exp(-2 exp(10)) = 0.
_LARGEST_LOG_RATIO = 10.0


class NetworkProblem(NamedTuple):
    """The lower level of one task; :func:`network_problem` makes one.

    :param network: architecture of the policies
    :param phi: parameters of the meta-policy
    :param episodes: of pi_phi, (E, T); `log_probs` are those of pi_phi, and `advantages` Qhat
    :param dist_params: of pi_phi at the observations, (E, T, P)
    :param weights: what each step counts in E[.] and in the mean over states, (E, T); 0 in padding,
        with sum 1
    :param distance: `"forward_kl"`, `"reverse_kl"` or `"l2"`
    :param lam: lambda, in units of the return
    :param eta: weight of the proximal term, in units of the return; 0 for none
    :param squash: whether g is `2 sigmoid(2 rho - 2)`; otherwise g(rho) = rho
    """

    network: PolicyNetwork
    phi: Params
    episodes: WeightedEpisodes
    dist_params: Float[Tensor, "episode time number"]
    weights: Float[Tensor, "episode time"]
    distance: str
    lam: float
    eta: float = 0.0
    squash: bool = True


def network_problem(
    network: PolicyNetwork,
    phi: Params,
    episodes: WeightedEpisodes,
    *,
    distance: str,
    lam: float,
    eta: float = 0.0,
    squash: bool = True,
    discount: float = 1.0,
) -> NetworkProblem:
    """The lower level at phi, with log-probabilities and distributions computed from phi itself.

    :param network: architecture of the policies
    :param phi: parameters of the meta-policy
    :param episodes: of pi_phi, (E, T); their advantages are Qhat, their log_probs are not used
    :param distance: `"forward_kl"`, `"reverse_kl"` or `"l2"`
    :param lam: lambda, in units of the return
    :param eta: weight of the proximal term, in units of the return; 0 for none
    :param squash: whether to squash the ratio
    :param discount: weight of step t is its t-th power; 1 for all steps alike
    """
    constant = {name: param.detach() for name, param in phi.items()}
    with th.no_grad():
        numbers = network.dist_params(constant, episodes.observations)
        log_probs = episode_log_probs(network, constant, episodes)
    problem = NetworkProblem(
        network,
        constant,
        episodes._replace(dist_params=numbers, log_probs=log_probs),
        numbers,
        state_weights(episodes.mask, discount),
        distance,
        lam,
        eta,
        squash,
    )
    check_problem(problem)
    return problem


def state_weights(
    mask: Float[Tensor, "episode time"], discount: float = 1.0
) -> Float[Tensor, "episode time"]:
    """What each step counts: `discount^t` while the episode runs, normalised over all episodes.

    :param mask: 1 while the episode runs
    :param discount: 1 for all steps alike
    """
    steps = th.arange(mask.shape[-1], device=mask.device, dtype=mask.dtype)
    weights = mask * discount**steps
    return weights / weights.sum()


def check_problem(problem: NetworkProblem) -> None:
    """`TypeError` or `ValueError` where a lower level is not one.

    :param problem: the lower level
    """
    check_choice("distance", problem.distance, list(DISTANCES))
    check_positive("lam", problem.lam, "lambda weighs the distance, in units of the return")
    if not (math.isfinite(problem.eta) and problem.eta >= 0.0):
        raise ValueError(
            f"eta={problem.eta!r} must be finite and not negative: 0 leaves out the proximal term"
        )
    for name in ("weights", "dist_params"):
        shape = tuple(getattr(problem, name).shape[:2])
        if shape != tuple(problem.episodes.mask.shape):
            raise ValueError(
                f"{name} starts with axes {shape}, but the episodes with (E, T) = "
                f"{tuple(problem.episodes.mask.shape)}: give the lower level of one task"
            )
    given = {"phi": flatten(problem.phi), "advantages": problem.episodes.advantages}
    for name, tensor in given.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{name} must be finite, but hold NaN or infinity: check the rewards and the last "
                "meta-update"
            )


def squashed(ratios: Tensor) -> Tensor:
    """`g(rho) = 2 sigmoid(2 rho - 2)`: g(1) = 1 and g'(1) = 1, between 0.238 and 2.

    A smooth relative of the clipped ratio of PPO, from publicly available experiment scripts.

    :param ratios: rho, any shape
    """
    return 2.0 * th.sigmoid(2.0 * ratios - 2.0)


def ratio_gain(problem: NetworkProblem, log_rho: Tensor) -> Tensor:
    """g(rho), in the shape of its argument.

    :param problem: the lower level, which says whether to squash
    :param log_rho: log rho
    """
    return squashed(bounded_ratios(log_rho)) if problem.squash else log_rho.exp()


def bounded_ratios(log_rho: Tensor) -> Tensor:
    """rho for the squash, which is constant to rounding from the bound on: infinity times a slope
    of 0 would be NaN.

    :param log_rho: log rho, any shape
    """
    return log_rho.clamp(max=_LARGEST_LOG_RATIO).exp()


def step_divergences(
    problem: NetworkProblem, meta: Tensor, adapted: Tensor
) -> Float[Tensor, "episode time"]:
    """The divergence of the two policies at every step, 0 in padding; for the KL distances.

    :param problem: the lower level
    :param meta: numbers of pi_phi, (E, T, P)
    :param adapted: numbers of pi_theta, (E, T, P)
    """
    old, new = (meta, adapted) if problem.distance == "forward_kl" else (adapted, meta)
    episodes = problem.episodes
    divergences = problem.network.distribution.kl(old, new, episodes.action_masks)
    return th.where(episodes.mask > 0, divergences, 0.0)


def log_ratios(problem: NetworkProblem, numbers: Tensor) -> Float[Tensor, "episode time"]:
    """log rho of the actions taken, 0 in padding.

    :param problem: the lower level
    :param numbers: of pi_theta, (E, T, P)
    """
    episodes = problem.episodes
    log_probs = problem.network.distribution.log_prob(
        numbers, episodes.actions, episodes.action_masks
    )
    return th.where(episodes.mask > 0, log_probs - episodes.log_probs, 0.0)


def lower_level_loss(problem: NetworkProblem, theta: Params) -> Float[Tensor, ""]:
    """`l(theta; phi)`, a scalar that autograd can differentiate in theta twice.

    :param problem: the lower level
    :param theta: parameters of the policy
    """
    return loss_and_distance(problem, theta)[0]


def loss_and_distance(
    problem: NetworkProblem, theta: Params
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`l(theta; phi)` and D^2(phi, theta), from one pass through the network.

    :param problem: the lower level
    :param theta: parameters of the policy
    """
    numbers = problem.network.dist_params(theta, problem.episodes.observations)
    gain = ratio_gain(problem, log_ratios(problem, numbers))
    surrogate = (problem.weights * problem.episodes.advantages * gain).sum()
    is_proximal = problem.distance == "l2" or problem.eta > 0.0
    moved = _squared_distance(theta, problem.phi) if is_proximal else surrogate.new_zeros(())
    if problem.distance == "l2":
        distance = moved
    else:
        divergences = step_divergences(problem, problem.dist_params, numbers)
        distance = (problem.weights * divergences).sum()
    loss = distance - surrogate / problem.lam
    if problem.eta > 0.0:
        loss = loss + (problem.eta / problem.lam) * moved
    return loss, distance


def _squared_distance(theta: Params, phi: Params) -> Tensor:
    return th.stack([(theta[name] - phi[name]).square().sum() for name in phi]).sum()
