"""Uniform random numbers for many environments at once, each from its own generator.

Shapes: B generators.
"""

from collections.abc import Callable

import numpy as np

from metarl_envs.core import FloatArray, IntArray

_MOST_NUMBERS = 2**22  # of all rows together: 32 MiB
_LEAST_BLOCK, _MOST_BLOCK = 32, 512


class UniformBuffers:
    """Uniform numbers of B generators, drawn in blocks: `Generator.random(n)` gives the numbers of
    n single calls, so the size of the blocks shows in nothing but speed.

    :param n_envs: B
    :param n_most: the most numbers per row that one `take` asks for
    :param generator: makes a generator of a seed when its first number is needed
    """

    def __init__(
        self, n_envs: int, n_most: int, generator: Callable[[int], np.random.Generator]
    ) -> None:
        fair = min(max(_MOST_NUMBERS // n_envs, _LEAST_BLOCK), _MOST_BLOCK)
        self._block = max(fair, n_most)
        self._make = generator
        self._generators: list[np.random.Generator | int | None] = [None] * n_envs
        self._buffer = np.empty((n_envs, self._block))
        self._rows, self._flat = list(self._buffer), self._buffer.reshape(-1)
        # Flat positions of the next number of each row, and of the end of its block.
        self._ends = self._block * np.arange(1, n_envs + 1)
        self._next = self._ends.copy()
        # Every row has at least so many numbers left.
        self._n_sure = 0

    def __getstate__(self) -> dict[str, object]:
        views = "_rows", "_flat"
        return {name: value for name, value in self.__dict__.items() if name not in views}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._rows, self._flat = list(self._buffer), self._buffer.reshape(-1)

    def seed(self, index: int, generator: np.random.Generator | int) -> None:
        """Starts row `index` from a generator, or from the seed of one."""
        self._generators[index] = generator
        self._next[index] = self._ends[index]
        self._n_sure = 0

    def is_seeded(self, index: int) -> bool:
        """Whether row `index` can give numbers."""
        return self._generators[index] is not None

    def generator(self, index: int) -> np.random.Generator:
        """The generator of row `index`, for numbers of other kinds: not together with `take`."""
        generator = self._generators[index]
        if isinstance(generator, int):
            generator = self._generators[index] = self._make(generator)
        assert generator is not None, "a row has a generator after it was seeded"
        return generator

    def take_all(self, n: int) -> FloatArray:
        """The next `n` numbers of every row, (B, n)."""
        if n == 0:
            return self._buffer[:, :0]
        if n > self._n_sure:
            self._fill(n)
        self._n_sure -= n
        taken = self._gathered(self._next, n)
        self._next += n
        return taken

    def take(self, rows: IntArray, n: int) -> FloatArray:
        """The next `n` numbers of each of some rows, which are all different, (rows, n)."""
        if n == 0:
            return np.empty((len(rows), 0))
        if n > self._n_sure:
            self._fill(n, rows)
        self._n_sure -= n
        start = self._next[rows]
        self._next[rows] = start + n
        return self._gathered(start, n)

    def _gathered(self, start: IntArray, n: int) -> FloatArray:
        if n == 1:
            return self._flat.take(start)[:, None]
        return self._flat.take(start[:, None] + np.arange(n))

    def _fill(self, n: int, rows: IntArray | None = None) -> None:
        """Tops up the rows that are nearly empty, and at least the wanted ones that are too short.

        :param n: numbers that will be taken
        :param rows: from these; from all of them where absent
        """
        n_left = self._ends - self._next
        short = np.flatnonzero(n_left < max(n, self._block // 2))
        for row, n_kept in zip(short.tolist(), n_left[short].tolist(), strict=True):
            if self._generators[row] is not None:
                numbers = self._rows[row]
                if n_kept:
                    numbers[:n_kept] = numbers[self._block - n_kept :]
                self.generator(row).random(out=numbers[n_kept:] if n_kept else numbers)
                self._next[row] = self._ends[row] - self._block
        n_left = self._ends - self._next
        self._n_sure = int(n_left.min())
        wanted = n_left if rows is None else n_left[rows]
        assert wanted.min(initial=n) >= n, "a row gives numbers after it was seeded"
