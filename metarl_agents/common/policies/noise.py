"""Random numbers for acting in many tasks, each with a generator of its own."""

from collections.abc import Sequence

import numpy as np

from metarl_agents.common.policies.distributions import ActionDistribution

MOST_STEPS = 64


class TaskNoise:
    """Noise for M tasks, drawn for many steps ahead, so that M generators cost little.

    A task's noise is a function of its own generator: neither the other tasks, nor how far ahead is
    drawn, nor what was used before the task started change it.

    :param distribution: says what noise is
    :param rngs: one generator per task; they are not advanced, a child of them is taken at every
        start of a task
    """

    def __init__(
        self, distribution: ActionDistribution, rngs: Sequence[np.random.Generator]
    ) -> None:
        self.distribution, self.rngs = distribution, list(rngs)
        self._streams: list[np.random.Generator | None] = [None] * len(self.rngs)
        self._rows = np.zeros((len(self.rngs), 0, 0))
        self._used = 0
        self._n_steps = 1

    def restart(self, tasks: Sequence[int]) -> None:
        """Gives some tasks a new stream.

        :param tasks: positions of the tasks
        """
        ahead = self._rows.shape[1] - self._used
        for task in tasks:
            self._streams[task] = self._stream(task, renew=True)
            if ahead:
                self._rows[task, self._used :] = self._drawn(task, ahead)

    def take(self, n: int) -> np.ndarray:
        """The next n rows of each task, (M, n, noise_dim).

        :param n: how many
        """
        if self._used + n > self._rows.shape[1]:
            self._draw(n)
        self._used += n
        return self._rows[:, self._used - n : self._used]

    def _draw(self, n: int) -> None:
        kept = self._rows[:, self._used :]
        n_new = n * self._n_steps - kept.shape[1]
        self._n_steps = min(2 * self._n_steps, MOST_STEPS)
        fresh = np.stack([self._drawn(task, n_new) for task in range(len(self.rngs))])
        self._rows = np.concatenate([kept, fresh], axis=1) if kept.shape[1] else fresh
        self._used = 0

    def _drawn(self, task: int, n: int) -> np.ndarray:
        return self.distribution.draw_noise(self._stream(task), n)

    def _stream(self, task: int, renew: bool = False) -> np.random.Generator:
        stream = self._streams[task]
        if stream is None or renew:
            stream = self._streams[task] = self.rngs[task].spawn(1)[0]
        return stream
