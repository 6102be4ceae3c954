"""Checks of constructor arguments that the gradient-based agents share."""

from typing import Any

from metarl_agents.common.argument_checks import check_choice, check_flag, check_number
from metarl_agents.common.step_sizes import LARGEST, SMALLEST


def check_gradient_arguments(agent: Any) -> None:
    """Raises unless the arguments that gradient-based agents add make sense.

    :param agent: with its arguments as attributes
    """
    check_number("n_inner_steps", agent.n_inner_steps, at_least=1, whole=True)
    check_number("inner_lr", agent.inner_lr, above=0.0)
    check_choice("learn_inner_lr", agent.learn_inner_lr, (None, "tensor", "element"))
    if agent.learn_inner_lr is not None and not SMALLEST <= agent.inner_lr <= LARGEST:
        raise ValueError(
            f"inner_lr={agent.inner_lr} must lie in [{SMALLEST}, {LARGEST}], where learned step "
            "sizes are kept: change it, or leave learn_inner_lr out"
        )
    check_number("adapt_lr_decay", agent.adapt_lr_decay, above=0.0)
    if agent.max_grad_norm is not None:
        check_number("max_grad_norm", agent.max_grad_norm, above=0.0)
    check_flag("normalize_advantage", agent.normalize_advantage)
    check_choice("loss_reduction", agent.loss_reduction, ("mean", "sum"))
