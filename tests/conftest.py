"""One thread per worker, and array shapes checked at run time in the pure tensor modules."""

import importlib.util
import os
import signal

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Before anything imports them: their jaxtyping annotations are enforced under test, and only there.
CHECKED_MODULES = tuple(
    f"metarl_agents.bayesian.{name}"
    for name in (
        "alignment",
        "hierarchical",
        "least_squares",
        "linear_gaussian",
        "rlsvi",
        "target_variance",
        "widening",
    )
)

if importlib.util.find_spec("beartype") is not None:
    from jaxtyping import install_import_hook

    install_import_hook(list(CHECKED_MODULES), "beartype.beartype")


def pytest_configure() -> None:
    """One thread for torch, which reads no variable after its import; Ctrl-C as in a terminal.

    A shell starts what runs in the background with interrupts ignored, and children inherit it.
    """
    import torch as th

    th.set_num_threads(1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
