"""Checks of the constructor arguments of agents that adapt by a lower level."""

from typing import Any

import numpy as np

from metarl_agents.bilevel.arguments import check_positive
from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.settings import HypergradientSettings, check_settings
from metarl_agents.common.argument_checks import check_choice, check_number
from metarl_agents.common.checkpoint.named_callables import named_callable

MODES = ("exact", "first_order", "sampled")
OPTIMIZERS = ("adam", "sgd")


def settings_of(agent: Any) -> HypergradientSettings:
    """How this agent solves its lower levels and differentiates them.

    :param agent: with its arguments as attributes
    """
    return HypergradientSettings(
        mode="first_order" if agent.mode == "first_order" else "exact",
        method=agent.method,
        solver=agent.solver,
        max_iterations=agent.max_iterations,
        tolerance=agent.tolerance,
        strict=agent.strict,
    )


def check_tabular_arguments(agent: Any) -> None:
    """Raises unless the arguments of `TabularBOMRL` make sense.

    :param agent: with its arguments as attributes
    """
    distance = distance_of(agent.algorithm)
    check_choice("mode", agent.mode, MODES)
    check_settings(distance, settings_of(agent))
    if agent.mode == "sampled" and agent.method != "closed_form":
        raise ValueError(
            f"method={agent.method!r} needs the models of tasks, which mode='sampled' does "
            "without: use 'closed_form'"
        )
    for name in ("meta_batch_size", "n_episodes_per_task"):
        check_number(name, getattr(agent, name), at_least=1, whole=True)
    if agent.n_tasks is not None:
        check_number("n_tasks", agent.n_tasks, at_least=1, whole=True)
        if agent.n_tasks < agent.meta_batch_size:
            raise ValueError(
                f"n_tasks={agent.n_tasks} must be at least meta_batch_size="
                f"{agent.meta_batch_size}: a mini-batch holds different tasks"
            )
    _check_lams(agent)
    _check_numbers(agent)
    _check_ascent(agent)


def _check_lams(agent: Any) -> None:
    check_positive("lam", agent.lam, "a larger one moves the policy less")
    if agent.adapt_lam is not None:
        check_positive("adapt_lam", agent.adapt_lam, "None takes lam")
    for name in ("lam_relative", "strict", "require_start", "backtracking", "track_gap"):
        value = getattr(agent, name)
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r} must be True or False")


def _check_numbers(agent: Any) -> None:
    check_positive("tolerance", agent.tolerance, "1e-8 is the default")
    check_positive("gamma", agent.gamma, "a discount below 1")
    check_positive("q_step_size", agent.q_step_size, "0.3 is usual")
    for name in ("gamma", "q_step_size"):
        value = getattr(agent, name)
        if value > 1.0 or (name == "gamma" and value == 1.0):
            limit = "below 1: the tasks go on for ever" if name == "gamma" else "at most 1"
            raise ValueError(f"{name}={value!r} must be {limit}")
    is_number = isinstance(agent.initial_q, int | float | np.integer | np.floating)
    if isinstance(agent.initial_q, bool) or not is_number or not np.isfinite(agent.initial_q):
        raise ValueError(f"initial_q={agent.initial_q!r} must be a finite number")


def _check_ascent(agent: Any) -> None:
    check_choice("optimizer", agent.optimizer, OPTIMIZERS)
    if isinstance(agent.learning_rate, str):
        if not agent.learning_rate.startswith("lin_"):
            raise ValueError(
                f"learning_rate={agent.learning_rate!r} must be a number or a schedule like "
                "'lin_3e-2', which falls linearly from 3e-2 to 0"
            )
        named_callable(agent.learning_rate)
    else:
        check_positive("learning_rate", agent.learning_rate, "or a schedule like 'lin_3e-2'")
    if agent.audit_interval is not None:
        check_number("audit_interval", agent.audit_interval, at_least=1, whole=True)
    exact_only = {"backtracking": agent.backtracking, "track_gap": agent.track_gap}
    given = [name for name, value in exact_only.items() if value]
    if agent.mode == "sampled" and given:
        raise ValueError(
            f"{given[0]}=True needs the models of tasks, which mode='sampled' does without: leave "
            "it False, or use mode='exact'"
        )
    if agent.mode != "first_order" and agent.audit_interval is not None:
        raise ValueError(
            f"audit_interval={agent.audit_interval} compares the first-order gradient with the "
            "exact one: it goes with mode='first_order'"
        )
