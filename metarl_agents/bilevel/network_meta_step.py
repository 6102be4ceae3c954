"""The step of a meta-policy along a given gradient, within a trust region.

Shapes: M tasks, E episodes, T steps.
"""

from collections.abc import Sequence

import torch as th
from torch import Tensor

from metarl_agents.common.fisher import fisher_product
from metarl_agents.common.losses import mean_kl
from metarl_agents.common.policies.networks import Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.solvers import TrustRegionStep, trust_region_step
from metarl_agents.common.task_chunks import run_on_threads


def meta_policy_step(
    network: PolicyNetwork,
    phi: Params,
    ascent: Params,
    episodes: Sequence[WeightedEpisodes],
    *,
    max_kl: float,
    n_cg_iterations: int,
    damping: float,
    max_backtracks: int,
    backtrack_ratio: float,
    n_workers: int = 1,
) -> TrustRegionStep:
    """A step of natural gradient ascent, shortened until the meta-policy stays within `max_kl`.

    The divergence is the mean over tasks of KL(pi_phi || pi_phi_new) in the states that pi_phi
    visits. What the step improves is the linear function <g, phi_new - phi>: the return after
    adaptation could only be judged after adapting anew, to new episodes.

    :param network: the policy's architecture
    :param phi: where to start
    :param ascent: g, the hypergradient
    :param episodes: of pi_phi in each of M tasks
    :param max_kl: the largest mean divergence, in nats
    :param n_cg_iterations: of conjugate gradients
    :param damping: added to the curvature
    :param max_backtracks: how often to shorten the step before it is rejected
    :param backtrack_ratio: factor that shortens it
    :param n_workers: threads that share the tasks
    """

    def mean(parts: Sequence[Tensor]) -> Tensor:
        return th.stack(list(parts)).mean(0)

    products = run_on_threads(
        lambda own: fisher_product(network, phi, own), episodes, n_workers=n_workers
    )

    def product(vector: Params) -> Params:
        parts = run_on_threads(lambda of_task: of_task(vector), products, n_workers=n_workers)
        return {name: mean([part[name] for part in parts]) for name in vector}

    def evaluate(candidate: Params) -> tuple[Tensor, Tensor]:
        def divergence(own: WeightedEpisodes) -> Tensor:
            with th.no_grad():
                now = network.dist_params(candidate, own.observations)
                return mean_kl(
                    network.distribution, own.dist_params, now, own.mask, own.action_masks
                )

        gains = [(ascent[name] * (candidate[name] - phi[name])).sum() for name in phi]
        return -th.stack(gains).sum(), mean(
            run_on_threads(divergence, episodes, n_workers=n_workers)
        )

    return trust_region_step(
        phi,
        {name: -ascent[name] for name in phi},
        product,
        evaluate,
        max_kl=max_kl,
        n_cg_iterations=n_cg_iterations,
        damping=damping,
        max_backtracks=max_backtracks,
        backtrack_ratio=backtrack_ratio,
    )
