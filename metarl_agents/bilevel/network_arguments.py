"""Checks of the constructor arguments of `BOMRL`."""

from typing import Any

from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.network_lower_level import OPTIMIZERS
from metarl_agents.bilevel.network_sampled import PARTS, check_parts
from metarl_agents.common.argument_checks import check_choice, check_flag, check_number

MODES = ("implicit", "first_order")
OUTER_STEPS = ("trpo", "adam")


def check_network_bilevel_arguments(agent: Any) -> None:
    """Raises unless the arguments that `BOMRL` adds make sense.

    :param agent: with its arguments as attributes
    """
    distance_of(agent.algorithm)
    check_number("lam", agent.lam, above=0.0)
    if agent.adapt_lam is not None:
        check_number("adapt_lam", agent.adapt_lam, above=0.0)
    check_number("eta", agent.eta, at_least=0.0)
    for name in ("lam_relative", "squash", "discounted_states", "strict"):
        check_flag(name, getattr(agent, name))
    _check_lower_level(agent)
    _check_hypergradient(agent)
    _check_meta_step(agent)


def _check_lower_level(agent: Any) -> None:
    check_number("n_lower_steps", agent.n_lower_steps, at_least=0, whole=True)
    check_number("lower_lr", agent.lower_lr, above=0.0)
    check_choice("lower_optimizer", agent.lower_optimizer, OPTIMIZERS)
    check_number("max_distance", agent.max_distance, above=0.0)
    check_number("polish_steps", agent.polish_steps, at_least=0, whole=True)
    check_number("tolerance", agent.tolerance, above=0.0)
    if agent.n_lower_steps + agent.polish_steps == 0:
        raise ValueError(
            "n_lower_steps=0 with polish_steps=0 never adapts: let one of them be at least 1"
        )


def _check_hypergradient(agent: Any) -> None:
    check_choice("mode", agent.mode, MODES)
    check_parts(agent.parts)
    check_number("n_implicit_iterations", agent.n_implicit_iterations, at_least=1, whole=True)
    check_number("n_episodes_after_factor", agent.n_episodes_after_factor, at_least=1, whole=True)
    if agent.mode == "first_order" and (agent.strict or tuple(agent.parts) != PARTS):
        raise ValueError(
            f"strict={agent.strict} and parts={agent.parts!r} are about implicit derivatives, "
            "which mode='first_order' does without: leave them out, or use mode='implicit'"
        )


def _check_meta_step(agent: Any) -> None:
    check_choice("outer", agent.outer, OUTER_STEPS)
    check_number("max_kl", agent.max_kl, above=0.0)
    check_number("n_cg_iterations", agent.n_cg_iterations, at_least=1, whole=True)
    check_number("cg_damping", agent.cg_damping, at_least=0.0)
    check_number("max_backtracks", agent.max_backtracks, at_least=0, whole=True)
    check_number("backtrack_ratio", agent.backtrack_ratio, above=0.0, at_most=1.0)
