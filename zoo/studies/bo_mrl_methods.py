"""What studies of BO-MRL in tabular tasks have in common: families of tasks, methods, sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zoo.studies.bo_mrl_tasks import TASK_SEEDS

Config = Mapping[str, Any]


class Options(NamedTuple):
    """What the command line may change; None leaves each study its own."""

    n_seeds: int | None = None
    n_iterations: int | None = None
    device: str = "cpu"
    """where networks learn; tables are computed on the CPU"""


PRESET = {"preset": "bomrl2024"}
VARIANCES: Mapping[str, Config] = {
    "high variance": {"env": "metarl/FrozenLakeHoles-v0", "env_kwargs": {**PRESET, "p": 0.8}},
    "high variance, p 0.95": {
        "env": "metarl/FrozenLakeHoles-v0",
        "env_kwargs": {**PRESET, "p": 0.95},
    },
    "low variance": {"env": "metarl/FrozenLakeReward-v0", "env_kwargs": {**PRESET}},
}
"""Task families. What their published maps were drawn with is not known: 0.8 is Gymnasium's, and
near 0.95 returns without adaptation are of the published size."""
LAMS = (4.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
# Lower levels of logits count in squared logits: much smaller ones do the same.
L2_LAMS = (0.1, 0.03, 0.02, 0.01, 0.005, 0.003, 0.001, 0.0003)
# On the gradient of the return: 1, 4, 10, 20 are 5, 20, 50, 100 without its factor 1 / (1 - gamma).
STEP_SIZES = (0.3, 1.0, 4.0, *(10.0 * 2.0**exponent for exponent in range(11)))


def bo_mrl(algorithm: int, method: str = "bo_mrl", lams: Sequence[float] | None = None) -> Config:
    """
    BO-MRL with every lambda of a grid.

    :param algorithm: 1, 2 or 3
    :param method: ``bo_mrl`` or ``first_order``
    :param lams: the grid; None for the usual one of the algorithm
    """
    usual = L2_LAMS if algorithm == 3 else LAMS
    lams = tuple(usual if lams is None else lams)
    return {"method": method, "algorithm": algorithm, "grid": lams, "adapt_grid": lams}


def maml(mode: str, step_sizes: Sequence[float] = STEP_SIZES) -> Config:
    """
    MAML with every step size of a grid.

    :param mode: ``exact`` or ``naive``
    :param step_sizes: the grid
    """
    step_sizes = tuple(step_sizes)
    grids = {"grid": step_sizes, "adapt_grid": step_sizes}
    return {"method": "maml", "mode": mode, "algorithm": 2, **grids}


_SINGLE: Config = {"algorithm": 2, "grid": (0.0,), "adapt_grid": LAMS}
METHODS: Mapping[str, Config] = {
    "BO-MRL, Alg 1": bo_mrl(1),
    "BO-MRL, Alg 2": bo_mrl(2),
    "BO-MRL, Alg 3": bo_mrl(3),
    "first-order, Alg 2": bo_mrl(2, "first_order"),
    "MAML, exact (E-MAML)": maml("exact"),
    "MAML, naive": maml("naive"),
    "multi-task, Alg 2": {"method": "multi_task", **_SINGLE},
    "uniform, Alg 2": {"method": "uniform", **_SINGLE},
}
"""With exact expectations E-MAML's gradient is that of exact MAML; the last two adapt by Alg 2."""
_PUBLISHED_LAMS: Mapping[str, Mapping[int, float]] = {
    "high variance": {1: 0.1, 2: 0.2},
    "high variance, p 0.95": {1: 0.1, 2: 0.2},
    "low variance": {1: 0.05, 2: 0.1},
}
_SCRIPT_STEP = 10.0


def published(variance: str, method: str) -> Config:
    """
    What the values of a method may be where adaptation is that of publicly available scripts.

    Lambda of adaptation is theirs, which is twice as large from a uniform policy; of Alg 3 none is
    known. They take gradient steps of one size, 10 here, from BO-MRL's own meta-policy; MAML is
    trained for its steps here, and may take twice as long ones or shorter ones. All else, such as
    lambda in training, is free.

    :param variance: the family
    :param method: of ``METHODS``
    """
    config = METHODS[method]
    if config["method"] == "maml":
        steps = [step for step in config["grid"] if 1.0 <= step <= 2.0 * _SCRIPT_STEP]
        return {"grid": steps, "adapt_grid": steps}
    lam = _PUBLISHED_LAMS[variance].get(config["algorithm"])
    if lam is None:
        return {"grid": config["grid"], "adapt_grid": config["adapt_grid"]}
    return {
        "grid": config["grid"],
        "adapt_grid": [2.0 * lam if config["method"] == "uniform" else lam],
    }


SIZE: Config = {
    "task_seeds": TASK_SEEDS,
    "n_validation": 300,
    "n_test": 300,
    "meta_batch_size": 5,
    "learning_rate": 0.03,
}
"""Mini-batch and step size of Adam are those of publicly available experiment scripts."""
