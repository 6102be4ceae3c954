"""One thread per worker, and array shapes checked at run time in the pure tensor modules."""

import importlib.util
import os
import signal

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Before anything imports them: their jaxtyping annotations are enforced under test, and only there.
PURE_MODULES = {
    "bayesian": (
        "alignment",
        "hierarchical",
        "least_squares",
        "linear_gaussian",
        "rlsvi",
        "target_variance",
        "widening",
    ),
    "bilevel": (
        "bound_formulas",
        "comparators",
        "diagnostics",
        "exact",
        "forward_kl",
        "implicit",
        "lower_level",
        "meta_step",
        "network_hypergradient",
        "network_newton",
        "network_sampled",
        "newton",
        "policy_gradient",
        "sampled",
        "trust_region",
    ),
    "common": ("returns",),
}
CHECKED_MODULES = [
    f"metarl_agents.{package}.{name}" for package, names in PURE_MODULES.items() for name in names
]

if importlib.util.find_spec("beartype") is not None:
    from jaxtyping import install_import_hook

    install_import_hook(CHECKED_MODULES, "beartype.beartype")


def pytest_configure() -> None:
    """One thread for torch, which reads no variable after its import; Ctrl-C as in a terminal.

    A shell starts what runs in the background with interrupts ignored, and children inherit it.
    """
    import torch as th

    th.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
