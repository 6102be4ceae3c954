"""What BO-MRL with networks does in one task: weigh episodes, adapt, differentiate the adaptation.

Pure functions of one task's tensors. Shapes: M tasks, E episodes, T steps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.network_hypergradient import (
    PARTS,
    NetworkLinearSolve,
    sampled_hypergradient,
)
from metarl_agents.bilevel.network_lower_level import NetworkSolution
from metarl_agents.bilevel.network_problem import NetworkProblem, log_ratios
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.inner_loop import inner_gradient
from metarl_agents.common.policies.networks import Params
from metarl_agents.common.returns import WeightedEpisodes, deviation
from metarl_agents.common.solvers import flatten


class BilevelEpisodes(NamedTuple):
    """What one meta-iteration collected.

    :param before: episodes of the meta-policy in M tasks
    :param after: of the adapted policies
    :param problems: the M lower levels
    :param solutions: of these, the adapted policies
    :param seed: of what is random in the update
    """

    before: EpisodeBatch
    after: EpisodeBatch
    problems: Sequence[NetworkProblem]
    solutions: Sequence[NetworkSolution]
    seed: int


class HypergradientChoice(NamedTuple):
    """How the hypergradient of a task is computed.

    :param mode: "implicit", or "first_order" for the gradient at the adapted policy alone, as if
        `d theta' / d phi` were the identity
    :param parts: of :data:`.PARTS`, what the lower level depends on phi through
    :param n_iterations: of conjugate gradients at most
    :param gamma: discount of the returns
    """

    mode: str = "implicit"
    parts: Sequence[str] = PARTS
    n_iterations: int = 10
    gamma: float = 0.995


class TaskHypergradient(NamedTuple):
    """The gradient of the return after adaptation to one task.

    :param gradient: of the return per step, in phi
    :param numbers: diagnostics by name; see :func:`task_hypergradient`
    :param is_solved: whether theta' is stationary, to the tolerance
    :param is_definite: whether no direction of non-positive curvature was met
    """

    gradient: Params
    numbers: dict[str, float]
    is_solved: bool
    is_definite: bool

    @property
    def is_valid(self) -> bool:
        """Whether the implicit function theorem holds at theta'."""
        return self.is_solved and self.is_definite


def centred_values(episodes: WeightedEpisodes) -> WeightedEpisodes:
    """The same with Qhat in place of advantages: these less their mean over all steps.

    :param episodes: of one task, whose advantages are returns less a baseline
    """
    mask = episodes.mask
    mean = (episodes.advantages * mask).sum() / mask.sum().clamp(min=1.0)
    return episodes._replace(advantages=(episodes.advantages - mean) * mask)


def value_unit(episodes: WeightedEpisodes) -> float:
    """The deviation of Qhat, which a relative lambda counts in; 1 where all of it is zero.

    :param episodes: of one task, with Qhat as advantages
    """
    if not bool(episodes.advantages.any()):
        return 1.0  # nothing to adapt to: any lambda leaves the policy as it is
    return float(deviation(episodes.advantages, episodes.mask))


def task_hypergradient(
    problem: NetworkProblem,
    solution: NetworkSolution,
    after: WeightedEpisodes,
    choice: HypergradientChoice,
    *,
    tolerance: float,
) -> TaskHypergradient:
    """The hypergradient of one task from its episodes before and after adaptation.

    Diagnostics: `residual` of the lower level, relative to phi; `distance`, D^2; `lower_steps` and
    `stopped_early`; `mean_kl`, KL(pi' || pi_phi), and `effective_sample_size`, the share of samples
    that the ratios leave, both over the steps of pi_phi; `relative_lam`, lambda over the deviation
    of Qhat, and `largest_value`, the largest |Qhat| over lambda; of conjugate gradients
    `implicit_iterations`, `implicit_residual`, `min_eigenvalue`, `max_eigenvalue`, `hessian_cond`;
    `first_order_cosine`, of the gradient at theta' with the hypergradient.

    :param problem: the lower level
    :param solution: of it
    :param after: episodes of the adapted policy, with advantages
    :param choice: how to compute it
    :param tolerance: largest residual at which the lower level counts as solved
    """
    theta = {name: solution.params[name].detach() for name in problem.phi}
    loss_gradient = inner_gradient(problem.network, theta, after, create_graph=False)
    cotangent = {name: -part for name, part in loss_gradient.items()}
    numbers = _numbers(problem, solution)
    is_solved = solution.residual <= tolerance and not solution.stopped_early
    if choice.mode == "first_order":
        return TaskHypergradient(cotangent, numbers, True, True)
    gradient, solve = sampled_hypergradient(
        problem,
        theta,
        cotangent,
        parts=choice.parts,
        gamma=choice.gamma,
        n_cg=choice.n_iterations,
    )
    numbers |= _solve_numbers(solve)
    numbers["first_order_cosine"] = _cosine(cotangent, gradient)
    return TaskHypergradient(gradient, numbers, is_solved, solve.is_definite)


def _numbers(problem: NetworkProblem, solution: NetworkSolution) -> dict[str, float]:
    episodes, network = problem.episodes, problem.network
    with th.no_grad():
        numbers = network.dist_params(solution.params, episodes.observations)
        kls = network.distribution.kl(numbers, problem.dist_params, episodes.action_masks)
        kl = (problem.weights * th.where(episodes.mask > 0, kls, 0.0)).sum()
        size = effective_sample_size(log_ratios(problem, numbers), problem.weights)
    return {
        "residual": solution.residual,
        "distance": solution.distance,
        "lower_steps": float(solution.n_steps),
        "stopped_early": float(solution.stopped_early),
        "mean_kl": float(kl),
        "effective_sample_size": float(size),
        "relative_lam": problem.lam / value_unit(episodes),
        "largest_value": float(episodes.advantages.abs().max()) / problem.lam,
    }


def effective_sample_size(
    log_rho: Float[Tensor, "episode time"], weights: Float[Tensor, "episode time"]
) -> Float[Tensor, ""]:
    """`E[rho]^2 / E[rho^2]` in (0, 1]: the share of the samples that the ratios rho leave.

    :param log_rho: log rho, (E, T)
    :param weights: what each step counts, (E, T), with sum 1
    """
    counted = th.where(weights > 0, log_rho, -th.inf)
    ratios = (counted - counted.max()).exp()  # the largest cancels, and would overflow
    return (weights * ratios).sum().square() / (weights * ratios.square()).sum()


def _solve_numbers(solve: NetworkLinearSolve) -> dict[str, float]:
    return {
        "implicit_iterations": float(solve.n_iterations),
        "implicit_residual": solve.residual,
        "min_eigenvalue": solve.curvature,
        "max_eigenvalue": solve.max_curvature,
        "hessian_cond": solve.condition,
    }


def _cosine(first: Params, second: Params) -> float:
    """Of two gradients; 0 where one of them vanishes."""
    ours, theirs = flatten(first), flatten({name: second[name] for name in first})
    scale = float(ours.norm() * theirs.norm())
    return float(ours @ theirs) / scale if scale > 0.0 and math.isfinite(scale) else 0.0
