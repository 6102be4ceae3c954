"""Checks of constructor arguments that agents with a policy network share."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarl_agents.common.argument_checks import check_choice, check_flag, check_number
from metarl_agents.common.checkpoint.named_callables import callable_name, named_callable
from metarl_agents.common.policies import MlpPolicy, TabularPolicy

POLICY_KWARGS = ("net_arch", "activation_fn", "log_std_init")
ACTIVATIONS = ("tanh", "relu")
BASELINES = ("linear", "time", "value", "none")


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


def checked_policy(
    policy_class: type[Any], policy_kwargs: Any
) -> tuple[type[MlpPolicy] | type[TabularPolicy], dict[str, Any]]:
    """A policy that can be differentiated through its updates, and its arguments.

    :param policy_class: what the user chose
    :param policy_kwargs: what the user gave
    """
    if issubclass(policy_class, MlpPolicy):
        return policy_class, checked_policy_kwargs(policy_kwargs)
    if not issubclass(policy_class, TabularPolicy):
        raise TypeError(
            f"policy={policy_class.__name__} cannot be differentiated through its own updates: use "
            "'MlpPolicy' or 'TabularPolicy'"
        )
    if policy_kwargs:
        raise ValueError(
            f"policy_kwargs={policy_kwargs!r} go with 'MlpPolicy': a table of logits has no layers"
        )
    return policy_class, {}


def check_network_arguments(agent: Any) -> None:
    """Raises unless the arguments that all agents with a policy network have make sense.

    :param agent: with its arguments as attributes
    """
    for name in ("meta_batch_size", "n_episodes_per_task", "n_workers"):
        check_number(name, getattr(agent, name), at_least=1, whole=True)
    check_learning_rate(agent.learning_rate)
    check_number("gamma", agent.gamma, at_least=0.0, at_most=1.0)
    check_number("gae_lambda", agent.gae_lambda, at_least=0.0, at_most=1.0)
    check_choice("baseline", agent.baseline, BASELINES)
    check_flag("bootstrap_truncated", agent.bootstrap_truncated)
    if agent.bootstrap_truncated and agent.baseline == "none":
        raise ValueError(
            "bootstrap_truncated=True with baseline='none' has no value to continue episodes with: "
            "use another baseline, or bootstrap_truncated=False"
        )
    checked_policy_kwargs(agent.policy_kwargs)
