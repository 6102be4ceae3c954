"""What renderers show of B episodes, noted while they run.

Shapes: B sub-environments.
"""

import numpy as np

from metarl_envs.batched.family import Array, Params, View
from metarl_envs.core import FloatArray, IntArray


class ViewRecords:
    """Last actions and rewards, returns and paths of B episodes.

    :param n_envs: B
    """

    def __init__(self, n_envs: int) -> None:
        self._actions: list[Array | None] = [None] * n_envs
        self._rewards = np.zeros(n_envs)
        self._returns = np.zeros(n_envs)
        self._paths: list[list[Array]] = [[] for _ in range(n_envs)]

    def begin(self, rows: IntArray, observations: Array) -> None:
        """Notes the starts of episodes.

        :param rows: which
        :param observations: first ones in `rows`, (B, *obs_shape)
        """
        self._rewards[rows] = self._returns[rows] = 0.0
        for i in rows.tolist():
            self._actions[i], self._paths[i] = None, [observations[i]]

    def step(
        self, rows: IntArray, actions: Array, rewards: FloatArray, observations: Array
    ) -> None:
        """Notes a step.

        :param rows: which sub-environments took it
        :param actions: (B, *action_shape)
        :param rewards: (B,)
        :param observations: (B, *obs_shape)
        """
        self._rewards[rows] = rewards[rows]
        self._returns[rows] += rewards[rows]
        for i in rows.tolist():
            self._actions[i] = actions[i].copy()
            self._paths[i].append(observations[i])

    def view(
        self,
        i: int,
        observations: Array,
        stages: IntArray,
        masks: Array | None,
        params: Params,
        states: Array,
    ) -> View:
        """What a renderer may show of sub-environment `i`; arguments are of all of them."""
        return View(
            observations[i],
            int(stages[i]),
            self._actions[i],
            float(self._rewards[i]),
            float(self._returns[i]),
            None if masks is None else masks[i].astype(np.bool_),
            {name: param[i] for name, param in params.items()},
            np.array(self._paths[i]),
            states[i],
        )
