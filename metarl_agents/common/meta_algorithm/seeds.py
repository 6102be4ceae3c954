"""Seeds: checked where the user gives them, drawn where an agent needs fresh ones."""

import numpy as np

MAX_SEED = 2**31 - 1


def draw_seed(rng: np.random.Generator) -> int:
    """A fresh seed.

    :param rng: where it comes from
    """
    return int(rng.integers(MAX_SEED))


def checked_seed(seed: int | None) -> int | None:
    """`seed` as an int, or an error that says what it must be.

    :param seed: what the user said
    """
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r} must be a non-negative integer, or None for fresh entropy")
    return int(seed)
