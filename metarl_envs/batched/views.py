"""What renderers show of B episodes, noted while they run, without a loop over them.

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
        self._rewards, self._returns = np.zeros((2, n_envs))
        self._actions: Array = np.zeros(n_envs)
        self._has_acted = np.zeros(n_envs, dtype=np.bool_)
        # Observations of all steps since the oldest running episode began, its first ones apart.
        self._frames: list[Array] = []
        self._starts = np.zeros(n_envs, dtype=np.int64)
        self._firsts: Array = np.empty(0)

    def begin(self, rows: IntArray, observations: Array) -> None:
        """Notes the starts of episodes.

        :param rows: which
        :param observations: first ones in `rows`, (B, *obs_shape)
        """
        self._rewards[rows] = self._returns[rows] = 0.0
        self._has_acted[rows] = False
        if len(self._firsts) != len(observations):
            self._firsts = observations.copy()
        self._firsts[rows] = observations[rows]
        self._starts[rows] = len(self._frames)
        oldest = int(self._starts.min())
        if 2 * oldest > len(self._frames):
            del self._frames[:oldest]
            self._starts -= oldest

    def step(
        self, rows: IntArray, actions: Array, rewards: FloatArray, observations: Array
    ) -> None:
        """Notes a step.

        :param rows: which sub-environments took it
        :param actions: (B, *action_shape)
        :param rewards: (B,)
        :param observations: (B, *obs_shape), fresh
        """
        self._actions, self._has_acted[rows] = actions.copy(), True
        self._rewards[rows] = rewards[rows]
        self._returns[rows] += rewards[rows]
        self._frames.append(observations)

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
        frames = self._frames[int(self._starts[i]) :]
        return View(
            observations[i],
            int(stages[i]),
            self._actions[i] if self._has_acted[i] else None,
            float(self._rewards[i]),
            float(self._returns[i]),
            None if masks is None else masks[i].astype(np.bool_),
            {name: param[i] for name, param in params.items()},
            np.array([self._firsts[i], *(frame[i] for frame in frames)]),
            states[i],
        )
