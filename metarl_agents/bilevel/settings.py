"""How a hypergradient is computed."""

from typing import Literal, NamedTuple

from metarl_agents.bilevel.lower_level import SOLVERS, Distance, Solver
from metarl_agents.common.argument_checks import check_choice, check_flag, check_number

Mode = Literal["exact", "first_order"]
Method = Literal["closed_form", "implicit"]
MODES: tuple[Mode, ...] = ("exact", "first_order")
METHODS: tuple[Method, ...] = ("closed_form", "implicit")


class HypergradientSettings(NamedTuple):
    """How a hypergradient is computed.

    :param mode: `"exact"`, or `"first_order"` for the gradient at the adapted policy alone, as if
        `d theta' / d phi` were the identity
    :param method: of the exact mode: `"closed_form"` or `"implicit"`, conjugate gradients with
        products of the Hessian
    :param solver: of the lower level: `"exact"`, or `"sgd20"` (`forward_kl` only)
    :param max_iterations: of the lower level
    :param tolerance: largest residual at which the lower level counts as solved
    :param strict: refuse a hypergradient whose lower level is not solved, instead of a warning
    """

    mode: Mode = "exact"
    method: Method = "closed_form"
    solver: Solver = "exact"
    max_iterations: int = 100
    tolerance: float = 1e-8
    strict: bool = True


DEFAULT_SETTINGS = HypergradientSettings()


def check_settings(distance: Distance, settings: HypergradientSettings) -> None:
    """`ValueError` or `TypeError` for settings that do not exist or do not go together.

    :param distance: D
    :param settings: what the user gave
    """
    check_choice("mode", settings.mode, MODES)
    check_choice("method", settings.method, METHODS)
    check_choice("solver", settings.solver, SOLVERS)
    check_number("max_iterations", settings.max_iterations, at_least=1, whole=True)
    check_number("tolerance", settings.tolerance, above=0.0)
    check_flag("strict", settings.strict)
    if settings.solver == "sgd20" and distance.name != "forward_kl":
        raise ValueError(
            f"solver='sgd20' is for algorithm='forward_kl', not {distance.name!r}: use 'exact'"
        )
