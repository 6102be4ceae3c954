"""Checks of constructor arguments that the gradient-based agents share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl_agents.common.checkpoint.named_callables import callable_name, named_callable
from metarl_agents.gradient.step_sizes import LARGEST, SMALLEST

POLICY_KWARGS = ("net_arch", "activation_fn", "log_std_init")
ACTIVATIONS = ("tanh", "relu")
BASELINES = ("linear", "time", "value", "none")


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    whole: bool = False,
) -> None:
    """`TypeError` unless `value` is a number, `ValueError` unless it lies within its bounds.

    :param name: of the argument
    :param value: what the user gave
    :param above: the value must be larger
    :param at_least: the value may not be smaller
    :param at_most: the value may not be larger
    :param whole: whether only integers will do
    """
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name}={value!r} must be {'an integer' if whole else 'a number'}")
    bounds = [
        (above is not None and not value > above, f"above {above}"),
        (at_least is not None and not value >= at_least, f"at least {at_least}"),
        (at_most is not None and not value <= at_most, f"at most {at_most}"),
    ]
    if not np.isfinite(value) or any(violated for violated, _ in bounds):
        asked = " and ".join(text for _, text in bounds if not text.endswith("None"))
        raise ValueError(f"{name}={value!r} must be finite{' and ' if asked else ''}{asked}")


def check_choice(name: str, value: Any, choices: Sequence[str | None]) -> None:
    """`ValueError` unless `value` is one of `choices`.

    :param name: of the argument
    :param value: what the user gave
    :param choices: what it may be
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(
            f"{name}={value!r} is unknown: choose one of {', '.join(map(repr, choices))}"
        )


def check_flag(name: str, value: Any) -> None:
    """`TypeError` unless `value` is True or False.

    :param name: of the argument
    :param value: what the user gave
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False")


def check_learning_rate(value: Any) -> None:
    """Accepts a positive number, or the name of a schedule such as "lin_1e-3".

    :param value: what the user gave
    """
    if isinstance(value, str):
        if not value.startswith("lin_"):
            raise ValueError(
                f"learning_rate={value!r} must be a number or a schedule like 'lin_1e-3', which "
                "falls linearly from 1e-3 to 0"
            )
        named_callable(value)
        return
    check_number("learning_rate", value, above=0.0)


def checked_policy_kwargs(policy_kwargs: Any) -> dict[str, Any]:
    """Arguments of `MlpPolicy` from those that carry SB3's names; raises for what is unknown.

    :param policy_kwargs: what the user gave, None for the defaults: two layers of 64 tanh units and
        standard deviation exp(0) (Rothfuss et al. 2019)
    """
    if policy_kwargs is not None and not isinstance(policy_kwargs, Mapping):
        raise TypeError(
            f"policy_kwargs={policy_kwargs!r} must be a dict with keys among {list(POLICY_KWARGS)}"
        )
    given = dict(policy_kwargs or {})
    unknown = sorted(set(map(str, given)) - set(POLICY_KWARGS))
    if unknown:
        raise ValueError(f"policy_kwargs has unknown keys {unknown}: use {list(POLICY_KWARGS)}")
    layers = given.get("net_arch", (64, 64))
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(f"policy_kwargs['net_arch']={layers!r} must be a list of layer sizes")
    for size in layers:
        check_number("a size in policy_kwargs['net_arch']", size, at_least=1, whole=True)
    activation = given.get("activation_fn", "tanh")
    name = activation if isinstance(activation, str) else callable_name(activation)
    check_choice("policy_kwargs['activation_fn']", name, ACTIVATIONS)
    log_std = given.get("log_std_init", 0.0)
    check_number("policy_kwargs['log_std_init']", log_std)
    return {
        "net_arch": tuple(int(size) for size in layers),
        "activation": name,
        "initial_log_std": float(log_std),
    }


def check_gradient_arguments(agent: Any) -> None:
    """Raises unless the arguments that all gradient-based agents have make sense.

    :param agent: with its arguments as attributes
    """
    for name in ("meta_batch_size", "n_episodes_per_task", "n_inner_steps", "n_workers"):
        check_number(name, getattr(agent, name), at_least=1, whole=True)
    check_number("inner_lr", agent.inner_lr, above=0.0)
    check_choice("learn_inner_lr", agent.learn_inner_lr, (None, "tensor", "element"))
    if agent.learn_inner_lr is not None and not SMALLEST <= agent.inner_lr <= LARGEST:
        raise ValueError(
            f"inner_lr={agent.inner_lr} must lie in [{SMALLEST}, {LARGEST}], where learned step "
            "sizes are kept: change it, or leave learn_inner_lr out"
        )
    check_number("adapt_lr_decay", agent.adapt_lr_decay, above=0.0)
    check_learning_rate(agent.learning_rate)
    check_number("gamma", agent.gamma, at_least=0.0, at_most=1.0)
    check_number("gae_lambda", agent.gae_lambda, at_least=0.0, at_most=1.0)
    check_flag("normalize_advantage", agent.normalize_advantage)
    check_choice("baseline", agent.baseline, BASELINES)
    check_flag("bootstrap_truncated", agent.bootstrap_truncated)
    if agent.bootstrap_truncated and agent.baseline == "none":
        raise ValueError(
            "bootstrap_truncated=True with baseline='none' has no value to continue episodes with: "
            "use another baseline, or bootstrap_truncated=False"
        )
    check_choice("loss_reduction", agent.loss_reduction, ("mean", "sum"))
    checked_policy_kwargs(agent.policy_kwargs)
