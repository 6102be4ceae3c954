"""Policies made of a network and a dictionary of parameters, for one task or for many at once.

They act in NumPy on a snapshot of the parameters. Shapes: M tasks, k rows per task, n rows, P
distribution parameters, S observations, A actions.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.common.policies.distributions import Categorical
from metarl_agents.common.policies.networks import Arrays, Params, PolicyNetwork
from metarl_agents.common.policies.noise import TaskNoise


class _ActingNetwork:
    """What policies of one task and of many have in common."""

    takes_action_masks = True
    """Collectors that know the allowed actions hand them to `act`."""

    network: PolicyNetwork
    params: Params
    action_space: spaces.Space[Any]
    n_updates: int
    _arrays: Arrays
    _noise: TaskNoise
    _venv: VecEnv | None = None

    def in_env(self, venv: VecEnv) -> Self:
        """The same policy, taking action masks from this env where it has them.

        :param venv: the env it is about to act in
        """
        bound = copy.copy(self)
        is_discrete = isinstance(self.network.distribution, Categorical)
        bound._venv = venv if is_discrete and venv.has_attr("action_masks") else None
        return bound

    def act(
        self,
        observation: np.ndarray,
        state: Any | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, None, np.ndarray]:
        """Actions before clipping (n, *action_shape), no state, and distribution parameters (n, P).

        :param observation: (n, *obs_shape)
        :param state: not used
        :param episode_start: (n,) bool; a task all of whose rows start gets new noise
        :param deterministic: whether to take the most likely action
        :param action_masks: (n, A) bool, the allowed actions; None asks the env of `in_env`
        """
        n, network = len(observation), self.network
        rows = self._by_task(np.asarray(observation).reshape(n, network.obs_dim))
        masks = self._current_masks(n) if action_masks is None else action_masks
        if masks is not None:
            masks = masks.reshape(*rows.shape[:-1], -1)
        dist_params = network.dist_params_numpy(self._arrays, rows)
        if deterministic:
            actions = network.distribution.mode(dist_params, masks)
        else:
            noise = self._drawn(rows.shape, episode_start)
            actions = network.distribution.sample(dist_params, noise, masks)
        shape = self.action_space.shape or ()
        return actions.reshape(n, *shape), None, dist_params.reshape(n, -1)

    def _by_task(self, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _drawn(self, shape: tuple[int, ...], episode_start: np.ndarray | None) -> np.ndarray:
        if episode_start is not None and episode_start.any():
            starts = np.reshape(episode_start, (len(self._noise.rngs), -1)).all(axis=1)
            self._noise.restart(np.flatnonzero(starts).tolist())
        noise = self._noise.take(shape[-2])
        return noise if len(shape) == 3 else noise[0]

    def _current_masks(self, n: int) -> np.ndarray | None:
        if self._venv is None or self._venv.num_envs != n:
            return None
        return np.stack(self._venv.env_method("action_masks")).astype(bool)

    def _clipped(self, actions: np.ndarray) -> np.ndarray:
        if isinstance(self.action_space, spaces.Box):
            return np.clip(actions, self.action_space.low, self.action_space.high)
        return actions

    @property
    def action_probabilities(self) -> Any:
        """A function from (S, *obs_shape) observations to probabilities, of discrete actions.

        Called as `action_probabilities(observations, stage=None, deterministic=False)`; (S, A) for
        one task, (M, S, A) for many.
        """
        if not isinstance(self.network.distribution, Categorical):
            raise AttributeError("continuous actions have densities, not action_probabilities")
        return self._probabilities

    def _probabilities(
        self, observations: np.ndarray, stage: int | None = None, deterministic: bool = False
    ) -> np.ndarray:
        distribution = self.network.distribution
        assert isinstance(distribution, Categorical)
        n = len(observations)
        rows = np.asarray(observations).reshape(n, self.network.obs_dim)
        dist_params = self.network.dist_params_numpy(self._arrays, self._for_all_tasks(rows))
        masks = None if self._venv is None else self._masks_of(self._venv, observations)
        if deterministic:
            modes = distribution.mode(dist_params, masks)[..., 0]
            return np.asarray(np.eye(distribution.n_actions)[modes])
        return distribution.probabilities(dist_params, masks)

    def _for_all_tasks(self, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @staticmethod
    def _masks_of(venv: VecEnv, observations: np.ndarray) -> np.ndarray:
        masks = venv.env_method("action_masks", observations, indices=[0])[0]
        return np.asarray(masks, dtype=bool)


class FunctionalPolicy(_ActingNetwork):
    """The policy of one task: an SB3 `PolicyPredictor` for any number of rows.

    :param network: maps observations to distributions
    :param params: of the network; it acts on a copy, so later changes of them make no difference
    :param action_space: of the env; `predict` clips continuous actions to it
    :param rng: acting draws from children of it, a new one whenever the task starts
    :param n_updates: how often the parameters were adapted
    """

    def __init__(
        self,
        network: PolicyNetwork,
        params: Params,
        *,
        action_space: spaces.Space[Any],
        rng: np.random.Generator,
        n_updates: int = 0,
    ) -> None:
        self.network, self.params, self.action_space = network, params, action_space
        self.rng, self.n_updates = rng, n_updates
        self._arrays = _snapshot(params)
        self._noise = TaskNoise(network.distribution, [rng])

    @classmethod
    def stack(cls, policies: Sequence["FunctionalPolicy"]) -> "FunctionalPolicies":
        """One object that acts for all tasks.

        :param policies: one per task, of one network and adapted equally often
        """
        if not policies:
            raise ValueError("policies is empty: give one policy per task")
        first = policies[0]
        if any(p.network != first.network or p.n_updates != first.n_updates for p in policies):
            raise ValueError(
                "policies have different networks or numbers of updates: stack those that were "
                "adapted equally often, or use PolicyList"
            )
        return FunctionalPolicies(
            first.network,
            {name: th.stack([p.params[name] for p in policies]) for name in first.params},
            action_space=first.action_space,
            rngs=[policy.rng for policy in policies],
            n_updates=first.n_updates,
        )

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions inside the space, as Stable-Baselines3's `predict`.

        :param observation: one observation or a batch
        :param state: not used
        :param episode_start: (n,) bool, True where the task starts
        :param deterministic: whether to take the most likely action
        """
        if isinstance(observation, dict):
            raise ValueError("observation is a dict: this network needs an array")
        observation = np.asarray(observation)
        if observation.shape == self.network.obs_shape:
            actions, _, _ = self.act(observation[None], None, episode_start, deterministic)
            return self._clipped(actions)[0], None
        actions, _, _ = self.act(observation, None, episode_start, deterministic)
        return self._clipped(actions), None

    def _by_task(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def _for_all_tasks(self, rows: np.ndarray) -> np.ndarray:
        return rows


class FunctionalPolicies(_ActingNetwork):
    """The policies of M tasks, acting at once: one stacked matrix product per layer.

    Row i of the observations belongs to task i. A task acts as it would alone, bit for bit.

    :param network: maps observations to distributions
    :param params: of the network, with leading axis M; without one if `is_shared`
    :param action_space: of the env; `predict` clips continuous actions to it
    :param rngs: M generators; acting draws from children of them, new ones whenever a task starts
    :param n_updates: how often the parameters were adapted
    :param is_shared: whether all tasks act with the same parameters
    """

    def __init__(
        self,
        network: PolicyNetwork,
        params: Params,
        *,
        action_space: spaces.Space[Any],
        rngs: Sequence[np.random.Generator],
        n_updates: int = 0,
        is_shared: bool = False,
    ) -> None:
        if not rngs:
            raise ValueError("rngs is empty: give one generator per task")
        for name, tensor in params.items():
            if not is_shared and len(tensor) != len(rngs):
                raise ValueError(
                    f"params[{name!r}] has {len(tensor)} rows but there are {len(rngs)} rngs: give "
                    "one row and one generator per task"
                )
        self.network, self.params, self.action_space = network, params, action_space
        self.rngs, self.n_updates, self.is_shared = list(rngs), n_updates, is_shared
        self.rows_per_task = 1
        self._arrays = _snapshot(params)
        self._noise = TaskNoise(network.distribution, self.rngs)

    @classmethod
    def shared(
        cls,
        network: PolicyNetwork,
        params: Params,
        n_tasks: int,
        *,
        action_space: spaces.Space[Any],
        rng: np.random.Generator | Sequence[np.random.Generator],
    ) -> Self:
        """The same parameters in all of M tasks.

        :param network: maps observations to distributions
        :param params: one set
        :param n_tasks: M
        :param action_space: of the env
        :param rng: one generator per task, or one whose children they are
        """
        rngs = rng.spawn(n_tasks) if isinstance(rng, np.random.Generator) else rng
        if len(rngs) != n_tasks:
            raise ValueError(f"rng has {len(rngs)} generators for n_tasks={n_tasks} tasks")
        return cls(network, params, action_space=action_space, rngs=rngs, is_shared=True)

    @property
    def n_tasks(self) -> int:
        """M, or M * k after `repeated(k)`: the number of rows."""
        return len(self.rngs) * self.rows_per_task

    def __len__(self) -> int:
        return self.n_tasks

    def __getitem__(self, index: int) -> FunctionalPolicy:
        if not -self.n_tasks <= index < self.n_tasks:
            raise IndexError(f"index={index} must lie in [0, {self.n_tasks})")
        task = index % self.n_tasks // self.rows_per_task
        return FunctionalPolicy(
            self.network,
            self.params if self.is_shared else {n: p[task] for n, p in self.params.items()},
            action_space=self.action_space,
            rng=self.rngs[task],
            n_updates=self.n_updates,
        )

    def subset(self, tasks: slice) -> "FunctionalPolicies":
        """The policies of some of the M tasks.

        :param tasks: which
        """
        return FunctionalPolicies(
            self.network,
            self.params if self.is_shared else {n: p[tasks] for n, p in self.params.items()},
            action_space=self.action_space,
            rngs=self.rngs[tasks],
            n_updates=self.n_updates,
            is_shared=self.is_shared,
        )

    def repeated(self, k: int) -> "FunctionalPolicies":
        """The same policies for k rows per task: row i acts for task i // k.

        :param k: rows per task
        """
        repeated = copy.copy(self)
        repeated.rows_per_task = k
        return repeated

    def predict(
        self,
        observation: np.ndarray,
        state: Any | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, None]:
        """Actions inside the space, one per row.

        :param observation: (M, *obs_shape), k times as many rows after `repeated(k)`
        :param state: not used
        :param episode_start: (M,) bool, True where a task starts
        :param deterministic: whether to take the most likely action
        """
        actions, _, _ = self.act(observation, state, episode_start, deterministic)
        return self._clipped(actions), None

    def _by_task(self, rows: np.ndarray) -> np.ndarray:
        if len(rows) != self.n_tasks:
            raise ValueError(
                f"observation has {len(rows)} rows for {self.n_tasks}: give "
                f"{self.rows_per_task} row(s) for each of {len(self.rngs)} tasks"
            )
        return rows.reshape(len(self.rngs), self.rows_per_task, -1)

    def _for_all_tasks(self, rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(rows, (len(self.rngs), *rows.shape))


def _snapshot(params: Params) -> dict[str, np.ndarray]:
    """A copy in row-major order, which decides how products are rounded."""
    return {name: np.array(p.detach().cpu().numpy(), order="C") for name, p in params.items()}
