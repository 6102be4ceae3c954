"""Lower levels of small networks whose every expectation is exact: by dynamic programming, by
enumeration and by quadrature.

Shapes: C parameter sets, n numbers in each, S states, A actions, E episodes, T steps.
"""

from typing import NamedTuple

import numpy as np
import torch as th

from metarl_agents.bilevel.exact_network_levels import ExactNetworkLevels
from metarl_agents.bilevel.network_newton import newton_minimum
from metarl_agents.bilevel.network_problem import NetworkProblem, network_problem, squashed
from metarl_agents.common.policies.distributions import Categorical, DiagonalGaussian
from metarl_agents.common.policies.networks import MlpNetwork
from metarl_agents.common.returns import WeightedEpisodes, discounted_returns
from tests.metarl_agents.bilevel.small_tasks import tasks_of
from tests.metarl_agents.common.policy_batches import some_params
from tests.metarl_agents.common.two_state_mdps import DISCOUNT, MDPS

S, A = 5, 3
NETWORK = MlpNetwork(S, Categorical(A), net_arch=(4,), dtype=th.float64)


# Exact by dynamic programming -----------------------------------------------------------------


def flat(params, n_axes=0):
    """(..., n) of parameters with that many leading axes."""
    return th.cat([param.flatten(n_axes) for param in params.values()], dim=-1)


def named(vector, like):
    """Parameters (..., *shape) of (..., n), with the names and shapes of `like`."""
    parts = vector.split([param.numel() for param in like.values()], dim=-1)
    return {
        name: part.reshape(*vector.shape[:-1], *param.shape)
        for (name, param), part in zip(like.items(), parts, strict=True)
    }


class ExactLevels(ExactNetworkLevels):
    """Both levels of one finite MDP, for C parameter sets at once, as (C, n) vectors."""

    @classmethod
    def of(cls, distance, lam, eta=0.0, *, setting="random, discount 0.8", network=NETWORK, **more):
        tasks = tasks_of(setting, 1)
        states = th.arange(tasks.rewards.shape[1])
        one_hot = th.nn.functional.one_hot(states).double()
        observations = states[:, None].double() if network.obs_dim == 1 else one_hot
        return cls(tasks, network, observations, distance, lam, eta, **more)

    def repeated(self, n_sets):
        """Of that many parameter sets."""
        return self._replace(tasks=self.tasks.subset([0] * n_sets))

    def loss(self, theta, phi):
        """Of a single set, without the axis C."""
        first = [{name: param[None] for name, param in params.items()} for params in (theta, phi)]
        return self.losses(*first)[0]

    def cotangent(self, theta):
        """The gradient of J at a single set."""
        leaf = {name: param.clone().requires_grad_() for name, param in theta.items()}
        value = self.returns({name: param[None] for name, param in leaf.items()})[0]
        return dict(zip(leaf, th.autograd.grad(value, list(leaf.values())), strict=True))

    def hessians(self, theta, phi, like):
        """Gradient (C, n) and Hessian (C, n, n) of l in theta, for vectors (C, n)."""
        leaf = theta.detach().requires_grad_()
        total = self.repeated(len(phi)).losses(named(leaf, like), named(phi, like)).sum()
        (slope,) = th.autograd.grad(total, leaf, create_graph=True)
        rows = [
            th.autograd.grad(slope[:, i].sum(), leaf, retain_graph=True)[0]
            for i in range(leaf.shape[-1])
        ]
        return slope.detach(), th.stack(rows, dim=-2)

    def solved(self, phi, start=None):
        """theta' of a single set, stationary to rounding."""
        vector = flat(phi)

        def values(theta):
            return self.loss(named(theta, phi), phi), th.zeros((), dtype=th.float64)

        found = newton_minimum(
            values, vector if start is None else flat(start), max_distance=1.0, n_steps=60,
            n_cg_iterations=200, gradient_norm=1e-13, scale=1.0,
        )  # fmt: skip
        return named(found.theta, phi)

    def finite_differences(self, phi, theta, directions=None, *, h=1e-3):
        """Derivatives of J(theta'(phi)) along directions (k, n) by differences of order 4, (k,);
        the whole gradient, (n,), without them. All shifts at once.
        """
        vector = flat(phi)
        shifts = h * (th.eye(len(vector), dtype=th.float64) if directions is None else directions)
        shifted = th.cat([vector + k * shifts for k in (1, -1, 2, -2)])
        solution = flat(theta).repeat(len(shifted), 1)
        for _ in range(4):  # the start is h away, and Newton squares that
            slope, hessian = self.hessians(solution, shifted, phi)
            solution = solution - th.linalg.solve(hessian, slope)
        assert float(slope.abs().max()) < 1e-8
        returns = self.repeated(len(shifted)).returns(named(solution, phi)).detach()
        up, down, up_2, down_2 = returns.split(len(shifts))
        return (8.0 * (up - down) - (up_2 - down_2)) / (12.0 * h)


def single(problem: NetworkProblem) -> NetworkProblem:
    """The same lower level in float32."""

    def rounded(tensor):
        return tensor.float() if tensor is not None and tensor.is_floating_point() else tensor

    return problem._replace(
        phi={name: rounded(param) for name, param in problem.phi.items()},
        episodes=WeightedEpisodes._make(rounded(field) for field in problem.episodes),
        dist_params=rounded(problem.dist_params),
        weights=rounded(problem.weights),
    )


# Exact by enumeration and by quadrature -------------------------------------------------------


class Enumerated(NamedTuple):
    """All episodes of a policy with their probabilities: what samples say on average.

    :param problem: the lower level, each step weighted by the probability of its episode, too
    :param step_weights: what a step of one episode counts, (E, T), not normalised
    :param masses: of the episodes under pi_phi, (E,)
    """

    problem: NetworkProblem
    step_weights: th.Tensor
    masses: th.Tensor
    normalised: bool

    def loss(self, theta, phi):
        """l(theta; phi), where phi also says how likely each episode is."""
        problem, network = self.problem, self.problem.network
        episodes, distribution = problem.episodes, problem.network.distribution
        meta, adapted = (network.dist_params(p, episodes.observations) for p in (phi, theta))
        log_meta, log_adapted = (
            distribution.log_prob(numbers, episodes.actions) for numbers in (meta, adapted)
        )
        relative = (log_meta - episodes.log_probs).sum(-1, keepdim=True).exp()
        weights = self.masses[:, None] * relative * self.step_weights
        if self.normalised:
            weights = weights / weights.sum()
        ratios = (log_adapted - log_meta).exp()
        gains = squashed(ratios) if problem.squash else ratios
        moved = sum((theta[name] - phi[name]).square().sum() for name in phi)
        loss = (problem.eta / problem.lam) * moved
        loss = loss - (weights * episodes.advantages * gains).sum() / problem.lam
        if problem.distance == "l2":
            return loss + moved
        old, new = (meta, adapted) if problem.distance == "forward_kl" else (adapted, meta)
        return loss + (weights * distribution.kl(old, new)).sum()


def enumerated(network, phi, observations, actions, rewards, mask, masses, *, gamma, **settings):
    """The lower level of all episodes; those that end have weights normalised by their steps."""
    returns = discounted_returns(rewards, mask, gamma)
    empty = th.zeros_like(mask)
    episodes = WeightedEpisodes(
        observations, actions, mask, empty, empty, (returns - 0.2) * mask, empty, empty, empty[:, 0]
    )
    problem = network_problem(network, phi, episodes, discount=1.0, **settings)
    is_fixed = bool((mask == 1.0).all())
    step_weights = mask.clone()
    if is_fixed:
        powers = gamma ** th.arange(mask.shape[1], dtype=mask.dtype)
        step_weights = (powers / powers.sum()).expand_as(mask)
    weights = masses[:, None] * step_weights
    weights = weights if is_fixed else weights / weights.sum()
    # Steps after the end still have probabilities to count, so their log-probabilities stay.
    numbers = network.dist_params(phi, observations)
    log_probs = network.distribution.log_prob(numbers, actions)
    problem = problem._replace(
        weights=weights, episodes=problem.episodes._replace(log_probs=log_probs)
    )
    return Enumerated(problem, step_weights, masses, not is_fixed)


def two_states(*, ends=False, **settings):
    """All 32 episodes of an MDP of two states; with `ends` they end in state 1."""
    mdp = MDPS["A"]
    network = MlpNetwork(1, Categorical(2), net_arch=(3,), dtype=th.float64)
    phi = some_params(network)
    states, actions = mdp.paths().unbind(-1)
    observations, rewards = states[..., None].double(), mdp.rewards[states, actions]
    log_policy = network.dist_params(phi, th.tensor([[0.0], [1.0]], dtype=th.float64))
    masses = mdp.probabilities(log_policy)
    mask = th.ones_like(rewards)
    if ends:
        mask[:, 1:] = (states[:, :-1] == 0).to(mask.dtype).cumprod(-1)
    return enumerated(
        network, phi, observations, actions[..., None], rewards, mask, masses, gamma=DISCOUNT,
        **settings,
    )  # fmt: skip


def two_gaussian_steps(*, n_nodes=12, **settings):
    """Two steps of one continuous action each, at the nodes of Gauss and Hermite."""
    network = MlpNetwork(1, DiagonalGaussian(1), net_arch=(3,), dtype=th.float64)
    phi = some_params(network)
    nodes, node_weights = (th.tensor(x) for x in np.polynomial.hermite_e.hermegauss(n_nodes))
    first, second = th.cartesian_prod(nodes, nodes).unbind(-1)
    masses = th.cartesian_prod(node_weights, node_weights).prod(-1) / (2.0 * th.pi)

    def action(states, noise):
        mean, log_std = network.dist_params(phi, states[:, None]).unbind(-1)
        return mean + log_std.exp() * noise

    states_0 = th.full_like(first, 0.3)
    actions_0 = action(states_0, first)
    states_1 = 0.5 * states_0 + actions_0
    actions_1 = action(states_1, second)
    rewards = th.stack([-(actions_0 - 0.5).square(), -(states_1 + actions_1).square()], dim=-1)
    states, actions = th.stack([states_0, states_1], -1), th.stack([actions_0, actions_1], -1)
    return enumerated(
        network, phi, states[..., None], actions[..., None], 0.1 * rewards, th.ones_like(rewards),
        masses, gamma=0.9, **settings,
    )  # fmt: skip
