"""Seeds: checked where the user gives them, drawn where an agent needs fresh ones."""

import numpy as np

MAX_SEED = 2**31 - 1


def draw_seed(rng: np.random.Generator) -> int:
    """A fresh seed.

    :param rng: where it comes from
    """
    return int(rng.integers(MAX_SEED))


def child_generator(rng: np.random.Generator) -> np.random.Generator:
    """A generator of its own, from one draw: files hold the state that draws move.

    :param rng: where it comes from
    """
    return np.random.default_rng(int(rng.integers(2**63)))


def derived_generator(seed: int | None, concern: int) -> np.random.Generator:
    """The generator of one concern of an agent, the same for the same seed; 0 stands for None.

    :param seed: of the agent
    :param concern: which
    """
    return np.random.default_rng([0 if seed is None else seed, concern])


def checked_seed(seed: int | None) -> int | None:
    """`seed` as an int, or an error that says what it must be.

    :param seed: what the user said
    """
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r} must be a non-negative integer, or None for fresh entropy")
    return int(seed)
