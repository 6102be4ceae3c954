"""Uniform random numbers for many environments at once, each from its own generator.

Shapes: B generators.
"""

import numpy as np

from metarl_envs.core import FloatArray, IntArray


class UniformBuffers:
    """Uniform numbers of B generators, drawn in blocks: `Generator.random(n)` gives the numbers of
    n single calls.

    :param n_envs: B
    :param block: numbers per block; at least as many as one `take` asks for
    """

    def __init__(self, n_envs: int, block: int) -> None:
        self.generators: list[np.random.Generator | None] = [None] * n_envs
        self._block = block
        self._buffer = np.empty((n_envs, block))
        self._cursor = np.full(n_envs, block)

    def seed(self, index: int, generator: np.random.Generator) -> None:
        """Starts row `index` from a new generator."""
        self.generators[index] = generator
        self._cursor[index] = self._block

    def take(self, indices: IntArray, n: int) -> FloatArray:
        """The next `n` numbers of each of the rows `indices`, (len(indices), n)."""
        if n == 0:
            return np.empty((len(indices), 0))
        for index in indices[self._cursor[indices] + n > self._block]:
            self._refill(int(index))
        start = self._cursor[indices]
        self._cursor[indices] = start + n
        return self._buffer[indices[:, None], start[:, None] + np.arange(n)]

    def _refill(self, index: int) -> None:
        row, used = self._buffer[index], int(self._cursor[index])
        generator = self.generators[index]
        assert generator is not None
        row[: self._block - used] = row[used:]
        row[self._block - used :] = generator.random(used)
        self._cursor[index] = 0
