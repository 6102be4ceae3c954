"""What acts: one policy, or one policy per task at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from stable_baselines3.common.type_aliases import PolicyPredictor

__all__ = ["ActingPolicies", "PolicyList", "PolicyPredictor", "TaskPolicies", "stack_policies"]


@runtime_checkable
class ActingPolicies(Protocol):
    """What acts in M tasks at once, all that collecting episodes needs.

    With an attribute `counts_stages = True` it is told where every episode starts
    (`episode_start`); otherwise only where the task does, since a recurrent state is carried
    across the episodes of a task.

    Two optional methods: `act(observation, state, episode_start, deterministic)` returns
    `(actions, state, dist_params)` with actions before clipping and the parameters (M, P) of the
    distributions they were drawn from; `action_probabilities(observations, stage=None,
    deterministic=False)` returns (M, S, A).
    """

    @property
    def n_tasks(self) -> int:
        """M, the number of policies."""
        ...

    def predict(
        self,
        observation: np.ndarray,
        /,
        state: Any | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any | None]:
        """The action of each policy for its own observation, and the next recurrent state.

        :param observation: (M, *obs_shape), row i for policy i
        :param state: what the last call returned; None at the start
        :param episode_start: (M,) bool, True where the recurrent state starts anew
        :param deterministic: whether to take the most likely action
        """
        ...


@runtime_checkable
class TaskPolicies(ActingPolicies, Protocol):
    """One policy for each of M tasks, acting at once."""

    def __getitem__(self, index: int) -> PolicyPredictor:
        """The policy of one task.

        :param index: position of the task
        """
        ...


class PolicyList:
    """`TaskPolicies` that asks M separate policies in turn.

    :param policies: one per task
    """

    def __init__(self, policies: Sequence[PolicyPredictor]) -> None:
        if not policies:
            raise ValueError("policies is empty: PolicyList needs at least one policy")
        self.policies = list(policies)

    @property
    def counts_stages(self) -> bool:
        """Whether the policies want to be told where every episode starts."""
        return all(getattr(policy, "counts_stages", False) for policy in self.policies)

    @property
    def n_tasks(self) -> int:
        """M, the number of policies."""
        return len(self.policies)

    def __len__(self) -> int:
        return len(self.policies)

    def __getitem__(self, index: int) -> PolicyPredictor:
        return self.policies[index]

    def __iter__(self) -> Iterator[PolicyPredictor]:
        return iter(self.policies)

    def predict(
        self,
        observation: np.ndarray,
        state: Sequence[Any] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, list[Any] | None]:
        """The action of each policy for its own observation, and the list of their next states.

        :param observation: (M, *obs_shape), row i for policy i
        :param state: what the last call returned; None at the start
        :param episode_start: (M,) bool, True where the recurrent state starts anew
        :param deterministic: whether to take the most likely action
        """
        self._check_rows(observation)
        actions, states = [], []
        for i, policy in enumerate(self.policies):
            action, next_state = policy.predict(
                observation[i : i + 1],
                None if state is None else state[i],
                None if episode_start is None else episode_start[i : i + 1],
                deterministic,
            )
            actions.append(np.asarray(action))
            states.append(next_state)
        return np.concatenate(actions), None if all(s is None for s in states) else states

    @property
    def action_probabilities(self) -> Callable[..., np.ndarray]:
        """A function from (S, ...) observations to (M, S, A), if every policy can tell its own."""
        if not all(hasattr(policy, "action_probabilities") for policy in self.policies):
            raise AttributeError("not every policy in this list has action_probabilities")

        def probabilities(
            observations: np.ndarray, stage: int | None = None, deterministic: bool = False
        ) -> np.ndarray:
            rows: list[Any] = list(self.policies)
            return np.stack(
                [row.action_probabilities(observations, stage, deterministic) for row in rows]
            )

        return probabilities

    def _check_rows(self, observations: np.ndarray) -> None:
        if len(observations) != self.n_tasks:
            raise ValueError(
                f"observation has {len(observations)} rows for {self.n_tasks} policies: give one "
                "row per task"
            )


def stack_policies(policies: Sequence[PolicyPredictor]) -> TaskPolicies:
    """One object that acts for all tasks.

    By the policies' own `stack` where their class has one, else as a `PolicyList`.

    :param policies: one per task
    """
    if not policies:
        raise ValueError("policies is empty: give one policy per task")
    kind = type(policies[0])
    stack: Callable[[Sequence[PolicyPredictor]], TaskPolicies] | None = getattr(kind, "stack", None)
    if stack is not None and all(type(policy) is kind for policy in policies):
        return stack(policies)
    return PolicyList(policies)
