"""Both levels of BO-MRL with networks in finite MDPs that are known: every expectation is exact.

The lower levels are those of :mod:`metarl_agents.bilevel.network_problem`, with the action values Q
and the occupancy nu of pi_phi by dynamic programming in place of averages over episodes:

    l(theta; phi) = - sum_s nu(s) sum_a pi_phi(a|s) Q(s, a) g(rho(a|s)) / lambda + D^2(phi, theta)
                    + (eta / lambda) ||theta - phi||^2

with D^2 of Alg 1 to 3 of Xu & Zhu 2024, "Meta-Reinforcement Learning with Universal Policy
Adaptation", https://arxiv.org/abs/2410.09728. Autograd differentiates Q and nu as functions of phi,
so that :func:`~metarl_agents.bilevel.network_hypergradient.hypergradient_of` is exact for it.

Shapes: M tasks, S states, A actions. Parameters have a leading axis M.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from metarl_agents.bilevel.exact import Evaluation, TabularTasks, evaluate
from metarl_agents.bilevel.lower_level import kl_divergence
from metarl_agents.bilevel.network_problem import squashed
from metarl_agents.common.policies.networks import Params, PolicyNetwork


class MetaPolicies(NamedTuple):
    """What the lower levels at phi are made of.

    :param phi: parameters, (M, ...)
    :param log_policy: log pi_phi, (M, S, A)
    :param action_values: Q of pi_phi less the baseline, (M, S, A)
    :param occupancy: nu of pi_phi, (M, S)
    """

    phi: Params
    log_policy: Float[Tensor, "task state action"]
    action_values: Float[Tensor, "task state action"]
    occupancy: Float[Tensor, "task state"]


class ExactNetworkLevels(NamedTuple):
    """Both levels of M tasks; each has parameters of its own, (M, ...).

    :param tasks: M finite MDPs
    :param network: of categorical policies
    :param observations: what the network sees of each state, (S, obs_dim)
    :param distance: `"forward_kl"`, `"reverse_kl"` or `"l2"`
    :param lam: lambda, in units of the return
    :param eta: weight of the proximal term, in units of the return; 0 for none
    :param squash: whether g is `2 sigmoid(2 rho - 2)`; otherwise g(rho) = rho
    :param baseline: subtracted from Q; it makes a difference to squashed ratios only
    :param constant: what not to differentiate in phi: `"action_values"`, `"occupancy"`
    """

    tasks: TabularTasks
    network: PolicyNetwork
    observations: Float[Tensor, "state number"]
    distance: str
    lam: float
    eta: float = 0.0
    squash: bool = False
    baseline: float = 0.0
    constant: tuple[str, ...] = ()

    def log_policy(self, params: Params) -> Float[Tensor, "task state action"]:
        """log pi, (M, S, A).

        :param params: (M, ...)
        """
        n_sets = len(next(iter(params.values())))
        numbers = self.network.dist_params(params, self.observations.expand(n_sets, -1, -1))
        return numbers.log_softmax(-1)

    def evaluated(self, log_policy: Float[Tensor, "task state action"]) -> Evaluation:
        """Policies in their tasks.

        :param log_policy: log pi, (M, S, A)
        """
        return evaluate(self.tasks, log_policy.exp())

    def returns(self, theta: Params) -> Float[Tensor, " task"]:
        """J, (M,).

        :param theta: (M, ...)
        """
        return self.evaluated(self.log_policy(theta)).returns

    def at(self, phi: Params) -> MetaPolicies:
        """Q and nu of meta-policies.

        :param phi: (M, ...)
        """
        log_policy = self.log_policy(phi)
        found = self.evaluated(log_policy)
        q, nu = found.action_values - self.baseline, found.occupancy
        return MetaPolicies(
            phi,
            log_policy,
            q.detach() if "action_values" in self.constant else q,
            nu.detach() if "occupancy" in self.constant else nu,
        )

    def losses(self, theta: Params, phi: Params) -> Float[Tensor, " task"]:
        """l(theta; phi), (M,); Q and nu are functions of phi.

        :param theta: (M, ...)
        :param phi: (M, ...)
        """
        return self.losses_at(theta, self.at(phi))

    def losses_at(self, theta: Params, meta: MetaPolicies) -> Float[Tensor, " task"]:
        """l(theta; phi), (M,), for many theta at one phi.

        :param theta: (M, ...)
        :param meta: what `at` returned for phi
        """
        adapted = self.log_policy(theta)
        weights = adapted.exp()
        if self.squash:
            weights = meta.log_policy.exp() * squashed((adapted - meta.log_policy).exp())
        gain = (meta.occupancy * (weights * meta.action_values).sum(-1)).sum(-1)
        moved = _squared_distances(theta, meta.phi)
        distance = moved if self.distance == "l2" else self._divergence(adapted, meta)
        return distance - gain / self.lam + (self.eta / self.lam) * moved

    def _divergence(self, adapted: Tensor, meta: MetaPolicies) -> Tensor:
        """The mean over nu of the KL divergence, (M,)."""
        if self.distance == "forward_kl":
            divergences = kl_divergence(meta.log_policy, adapted)
        else:
            divergences = kl_divergence(adapted, meta.log_policy)
        return (meta.occupancy * divergences).sum(-1)


def _squared_distances(theta: Params, phi: Params) -> Tensor:
    """`||theta - phi||^2`, (M,)."""
    squares = [(theta[name] - phi[name]).square().flatten(1).sum(-1) for name in phi]
    return sum(squares[1:], start=squares[0])
