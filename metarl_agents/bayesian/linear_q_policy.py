"""The policy of Thompson sampling within a task: greedy for one draw of the Q-function."""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
import torch as th

from metarl_agents.bayesian.beliefs import TaskBelief, ValueModel
from metarl_agents.bayesian.stage_features import StageFeatures


class LinearQPolicies:
    """Greedy for Q-functions linear in features, one per task: acts for M tasks at once.

    Row i of the observations belongs to task i; ``policies[i]`` is the policy of task i alone.

    :param features: of the family
    :param model: how draws are made from beliefs
    :param belief: about the M tasks
    :param parameters: the current draw, shape (M, H, C, m)
    :param tie_keys: shape (M, H, A); of several best actions the one with the largest key is
        taken, so that one-hot features do not favour low indices in the first episodes
    """

    counts_stages = True  # where observations do not tell the stage, episode starts do

    def __init__(
        self,
        features: StageFeatures,
        model: ValueModel,
        belief: TaskBelief,
        parameters: np.ndarray,
        tie_keys: np.ndarray,
    ):
        self.features, self.model, self.belief = features, model, belief
        self.parameters, self.tie_keys = parameters, tie_keys

    @classmethod
    def drawn(
        cls,
        features: StageFeatures,
        model: ValueModel,
        belief: TaskBelief,
        rngs: Sequence[np.random.Generator],
    ) -> Self:
        """Draw a Q-function for every task, task i from ``rngs[i]``."""
        noise = np.stack([rng.standard_normal(features.shape) for rng in rngs])
        keys = np.stack([rng.random((features.n_stages, features.n_actions)) for rng in rngs])
        mean = belief.prior.mean
        noise_tensor = th.as_tensor(noise, dtype=mean.dtype, device=mean.device)
        draw = model.draw(belief, noise_tensor)
        return cls(features, model, belief, draw.cpu().numpy(), keys)

    @property
    def n_tasks(self) -> int:
        """M."""
        return int(self.parameters.shape[0])

    def __len__(self) -> int:
        return self.n_tasks

    def __getitem__(self, index: int) -> "LinearQPolicy":
        return LinearQPolicy(
            self.features,
            self.model,
            self.belief[index],
            self.parameters[index, None],
            self.tie_keys[index, None],
        )

    @cached_property
    def mean_parameters(self) -> np.ndarray:
        """The posterior mean, shape (M, H, C, m): what ``deterministic=True`` is greedy for."""
        mean = self.model.draw(self.belief, None)
        return mean.cpu().numpy()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return the greedy actions, as Stable-Baselines3's ``predict``.

        :param observation: one observation or a batch
        :param state: the stage counters of a family whose observations do not tell their stage,
            as returned by the previous call
        :param episode_start: shape (n,), True where an episode begins (resets the counters)
        :param deterministic: greedy for the posterior mean instead of the draw
        :raises ValueError: if the stage can be known neither from the observation nor from
            ``state`` and ``episode_start``
        """
        if isinstance(observation, dict):
            raise ValueError("observation is a dict: a linear Q-function needs an array")
        rows, was_batch = self.features.batched(observation)
        tasks = self._tasks(len(rows))
        stages, state = self._stages(rows, state, episode_start)
        actions = np.empty(len(rows), dtype=np.int64)
        for stage in np.unique(stages):
            here = np.flatnonzero(stages == stage)
            actions[here] = self._greedy(int(stage), rows[here], tasks[here], deterministic)
        return (actions if was_batch else actions.squeeze(0)), state

    def _tasks(self, n_rows: int) -> np.ndarray:
        """Return the task that each row belongs to."""
        if n_rows != self.n_tasks:
            raise ValueError(
                f"observation has {n_rows} rows: give one for each of {self.n_tasks} tasks"
            )
        return np.arange(n_rows)

    def _stages(
        self,
        rows: np.ndarray,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray | None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        if self.features.knows_stages:
            return self.features.stages(rows), None
        if state is None and episode_start is None and self.features.n_stages > 1:
            raise ValueError(
                "state=None and episode_start=None, but observations of this env do not tell "
                "their stage: pass both as to a recurrent policy, or give the env stages()"
            )
        counters = np.zeros(len(rows), dtype=np.int64) if state is None else state[0]
        if episode_start is not None:
            counters = np.where(episode_start, 0, counters)
        stages = np.minimum(counters, self.features.n_stages - 1)
        return stages, (counters + 1,)

    def _greedy(
        self, stage: int, rows: np.ndarray, tasks: np.ndarray, deterministic: bool
    ) -> np.ndarray:
        parameters = self.mean_parameters if deterministic else self.parameters
        values = (self.features(stage, rows) * parameters[tasks, stage]).sum(-1)
        return self._best(values, self.features.masks(rows), self.tie_keys[tasks, stage])

    @staticmethod
    def _best(values: np.ndarray, masks: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return the best allowed action of every row, ties to the largest key."""
        values = np.where(masks, values, -np.inf)
        best = values == values.max(-1, keepdims=True)
        return np.where(best & masks, keys, -1.0).argmax(-1)

    def action_probabilities(
        self, observations: np.ndarray, stage: int | None = None, deterministic: bool = False
    ) -> np.ndarray:
        """Return what every task's policy does in every observation, shape (M, S, A), one-hot.

        :param observations: shape (S, *observation_shape), all of one stage
        :param stage: theirs; None asks the env
        """
        rows, _ = self.features.batched(observations)
        if stage is None and not self.features.knows_stages:
            raise ValueError("stage=None, but observations of this env do not tell theirs: pass it")
        if stage is None:
            stage = int(self.features.stages(rows[:1])[0])
        parameters = self.mean_parameters if deterministic else self.parameters
        phi, masks = self.features(stage, rows), self.features.masks(rows)
        values = np.einsum("sam,tam->tsa", phi, self._per_action(parameters[:, stage]))
        # A state without allowed actions is never left by choice: any action stands for it.
        masks = masks | ~masks.any(-1, keepdims=True)
        actions = self._best(values, masks[None], self.tie_keys[:, stage, None])
        return np.eye(self.features.n_actions)[actions]

    def _per_action(self, parameters: np.ndarray) -> np.ndarray:
        """Return parameters of shape (M, A, m), a single block repeated for every action."""
        shape = (len(parameters), self.features.n_actions, self.features.block_size)
        return np.broadcast_to(parameters, shape)


class LinearQPolicy(LinearQPolicies):
    """Greedy for one Q-function linear in features: the policy of one task, for any number of rows.

    A Stable-Baselines3 ``PolicyPredictor``.
    """

    @classmethod
    def stack(cls, policies: Sequence["LinearQPolicy"]) -> LinearQPolicies:
        """Return one object that acts for all the tasks at once."""
        if not policies:
            raise ValueError("policies is empty: give one policy per task")
        first = policies[0]
        return LinearQPolicies(
            first.features,
            first.model,
            TaskBelief.joined([policy.belief for policy in policies]),
            np.concatenate([policy.parameters for policy in policies]),
            np.concatenate([policy.tie_keys for policy in policies]),
        )

    def _tasks(self, n_rows: int) -> np.ndarray:
        return np.zeros(n_rows, dtype=np.int64)

    def action_probabilities(
        self, observations: np.ndarray, stage: int | None = None, deterministic: bool = False
    ) -> np.ndarray:
        """Return what the policy does in every observation, shape (S, A), one-hot.

        :param observations: shape (S, *observation_shape), all of one stage
        :param stage: theirs; None asks the env
        """
        return super().action_probabilities(observations, stage, deterministic)[0]


class UniformPolicies:
    """Uniform over the allowed actions, in M tasks at once; carries the beliefs of other policies.

    :param policies: whose tasks these are
    :param rngs: one per task
    """

    def __init__(self, policies: LinearQPolicies, rngs: Sequence[np.random.Generator]):
        self.features, self.rngs, self.n_tasks = policies.features, rngs, policies.n_tasks

    def predict(
        self,
        observation: np.ndarray,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return one allowed action per task."""
        masks = self.features.masks(self.features.batched(observation)[0])
        drawn = [rng.choice(np.flatnonzero(m)) for rng, m in zip(self.rngs, masks, strict=True)]
        return np.array(drawn, dtype=np.int64), state

    def action_probabilities(
        self, observations: np.ndarray, stage: int | None = None, deterministic: bool = False
    ) -> np.ndarray:
        """Return the probabilities of all actions, shape (M, S, A)."""
        masks = self.features.masks(self.features.batched(observations)[0]).astype(np.float64)
        masks[masks.sum(-1) == 0] = 1.0
        probabilities = masks / masks.sum(-1, keepdims=True)
        return np.broadcast_to(probabilities, (self.n_tasks, *probabilities.shape))

    def __getitem__(self, index: int) -> "UniformPolicies":
        raise TypeError("uniform exploration acts for all its tasks at once")
