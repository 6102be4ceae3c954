"""One run of the study of convergence of BO-MRL in which policies are small networks.

The theory of Xu & Zhu 2024, "Meta-Reinforcement Learning with Universal Policy Adaptation",
https://arxiv.org/abs/2410.09728, speaks of gradient ascent on the return after adaptation,

    F(phi) = mean over tasks of J(theta'(phi)),   theta'(phi) = argmin over theta of l(theta; phi)

and of stationary points alone, with tables and with networks: the smallest squared norm of grad F
so far goes to 0. It claims no maximum, and F of a network need not be concave. Here F and its
gradient are exact, as dynamic programming evaluates all policies, and lower levels are solved to
rounding: what the norms show is gradient ascent itself, without noise of any kind.

Shapes: M tasks, S states. Parameters of the meta-policy have no task axis, adapted ones have M.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from metarl_agents.bilevel.exact_network_levels import ExactNetworkLevels, MetaPolicies
from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.network_hypergradient import hypergradient_of
from metarl_agents.bilevel.network_newton import newton_minimum
from metarl_agents.common.policies.distributions import Categorical
from metarl_agents.common.policies.networks import MlpNetwork, Params
from metarl_agents.common.solvers import flatten, unflatten
from zoo.studies.bo_mrl_tasks import lakes_of
from zoo.studies.study import Context, Row, Run

TOLERANCE = 1e-9
"""On the residuals of the lower levels and of the linear system, relative to where they start."""
_N_NEWTON_STEPS, _N_CG_ITERATIONS = 60, 1000


def network_convergence_run(run: Run, context: Context) -> list[Row] | None:
    """
    The squared norm of the exact gradient of the objective over all training tasks, along plain
    gradient ascent on all of them through a network; ``residual`` is the largest of the tasks.

    ``config``: that of ``lakes_of``, ``algorithm``, ``lam``, ``eta``, ``n_hidden`` (of the one
    hidden layer) and ``learning_rate``. ``budget``: ``n_iterations``.

    :param run: the run
    :param context: its surroundings
    """
    levels = network_levels(run.config, run.seed)
    phi = levels.network.initial_params(np.random.default_rng(run.seed))
    adapted = shared(phi, levels)
    rows: list[Row] = []
    for iteration in range(run.budget["n_iterations"] + 1):
        if context.is_over():
            return None
        adapted, residual = adapted_params(levels, phi, start=adapted)
        gradient, value = exact_gradient(levels, phi, adapted)
        rows.append(
            {
                "kind": "convergence",
                "step": iteration,
                "return": f"{value:.8f}",
                "squared_norm": f"{float(flatten(gradient).square().sum()):.6e}",
                "residual": f"{residual:.1e}",
            }
        )
        phi = {name: p + run.config["learning_rate"] * gradient[name] for name, p in phi.items()}
    return rows


def network_levels(config: Mapping[str, Any], seed: int) -> ExactNetworkLevels:
    """
    Both levels of the training tasks, for a network of one hidden layer that sees states one-hot.

    :param config: of a run
    :param seed: of the tasks
    """
    tasks = lakes_of(config, seed).train
    n_states, n_actions = tasks.rewards.shape[1:]
    return ExactNetworkLevels(
        tasks,
        MlpNetwork(
            n_states, Categorical(n_actions), net_arch=(config["n_hidden"],), dtype=th.float64
        ),
        th.eye(n_states, dtype=th.float64),
        distance_of(config["algorithm"]).name,
        config["lam"],
        config["eta"],
    )


def shared(phi: Params, levels: ExactNetworkLevels) -> Params:
    """
    The meta-policy's parameters for every task, (M, ...).

    :param phi: parameters of the meta-policy
    :param levels: of M tasks
    """
    return {name: p.expand(levels.tasks.n_tasks, *p.shape) for name, p in phi.items()}


def adapted_params(
    levels: ExactNetworkLevels, phi: Params, *, start: Params
) -> tuple[Params, float]:
    """
    theta' of every task, (M, ...), and the largest residual: the norm of a lower level's gradient
    relative to that at phi.

    Tasks share no parameters, so that Newton steps solve them as one problem.

    :param levels: of M tasks
    :param phi: parameters of the meta-policy
    :param start: a point near theta', (M, ...)
    """
    with th.no_grad():
        meta = levels.at(shared(phi, levels))
    first = _slope_norms(levels, meta.phi, meta)

    def values(theta: Tensor) -> tuple[Tensor, Tensor]:
        return levels.losses_at(unflatten(theta, start), meta).sum(), theta.new_zeros(())

    found = newton_minimum(
        values,
        flatten(start),
        max_distance=np.inf,
        n_steps=_N_NEWTON_STEPS,
        n_cg_iterations=_N_CG_ITERATIONS,
        gradient_norm=TOLERANCE * float(first.min()),
        scale=1.0,
    )
    theta = unflatten(found.theta, start)
    residual = float((_slope_norms(levels, theta, meta) / first).max())
    if not residual <= TOLERANCE:
        raise ValueError(
            f"a lower level is solved to a residual of {residual:.1e} only, so that theta' is not "
            f"stationary and has no derivative: raise lam={levels.lam} or eta={levels.eta}, or "
            "lower the learning rate"
        )
    return theta, residual


def exact_gradient(
    levels: ExactNetworkLevels, phi: Params, adapted: Params
) -> tuple[Params, float]:
    """
    The gradient of F at phi, and F itself.

    :param levels: of M tasks
    :param phi: parameters of the meta-policy
    :param adapted: theta' of every task, (M, ...)
    """
    leaves = {name: param.detach().requires_grad_() for name, param in adapted.items()}
    value = levels.returns(leaves).mean()
    cotangent = dict(zip(leaves, th.autograd.grad(value, list(leaves.values())), strict=True))
    gradient, solve = hypergradient_of(
        lambda theta, meta: levels.losses(theta, shared(meta, levels)).sum(),
        adapted,
        phi,
        cotangent,
        n_cg=_N_CG_ITERATIONS,
        tolerance=TOLERANCE,
    )
    if not (solve.is_definite and solve.residual <= TOLERANCE):
        raise ValueError(
            f"the Hessian of a lower level has a curvature of {solve.curvature:.1e} and its linear "
            f"system a residual of {solve.residual:.1e}, so that the gradient is not one: raise "
            f"lam={levels.lam} or eta={levels.eta}"
        )
    return gradient, float(value.detach())


def _slope_norms(levels: ExactNetworkLevels, theta: Params, meta: MetaPolicies) -> Tensor:
    """Norms of the lower levels' gradients, (M,)."""
    leaves = {name: param.detach().requires_grad_() for name, param in theta.items()}
    slopes = th.autograd.grad(levels.losses_at(leaves, meta).sum(), list(leaves.values()))
    return th.cat([slope.flatten(1) for slope in slopes], dim=-1).norm(dim=-1)
