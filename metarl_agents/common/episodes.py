"""Batches of episodes: padded tensors, the only form in which agents see experience."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

import torch as th
from torch import Tensor


class EpisodeBatch(NamedTuple):
    """E episodes of one task, padded to T steps; `stack` puts a task axis M in front of all fields.

    Observations are the raw values of the space as numbers, flattened: `obs_dim` is
    `prod(space.shape)`, or 1 for `Discrete`. Actions of `Discrete` spaces are int64 with `act_dim`
    1. Padding is zero everywhere (False in `action_masks`): sums over T need no mask, means do.

    :param observations: (E, T, obs_dim), what the policy saw before each step
    :param actions: (E, T, act_dim), as sampled, before clipping to the action space
    :param rewards: (E, T)
    :param mask: (E, T), 1 while the episode runs
    :param dist_params: (E, T, P) of the policy that acted (P is 0 where the policy does not tell):
        old log-probabilities and KLs come from it
    :param final_observations: (E, obs_dim), seen after the last step, to bootstrap truncated
        episodes
    :param terminated: (E,), 0 where a time limit cut the episode
    :param action_masks: (E, T, A) bool, the actions that were allowed; None where the env has no
        such rule
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor
    dist_params: Tensor
    final_observations: Tensor
    terminated: Tensor
    action_masks: Tensor | None = None

    @property
    def n_episodes(self) -> int:
        """E, the episodes of each task."""
        return self.mask.shape[-2]

    @property
    def n_tasks(self) -> int:
        """M, the length of the task axis; 1 for a batch without one."""
        return self.mask.shape[0] if self.has_task_axis else 1

    @property
    def has_task_axis(self) -> bool:
        """Whether the fields start with a task axis M."""
        return self.mask.ndim == 3

    @property
    def returns(self) -> Tensor:
        """(..., E), the undiscounted sum of rewards of each episode."""
        return (self.rewards * self.mask).sum(dim=-1)

    @property
    def lengths(self) -> Tensor:
        """(..., E) int64, the number of steps of each episode."""
        return self.mask.sum(dim=-1).to(th.int64)

    @property
    def n_steps(self) -> int:
        """The number of steps in the batch, padding not counted."""
        return int(self.mask.sum().item())

    def task(self, index: int) -> Self:
        """The episodes of one task: the fields without the axis M.

        :param index: position on the task axis
        """
        if not self.has_task_axis:
            raise ValueError(
                "this batch holds one task and has no task axis: use it as it is, or stack it"
            )
        return type(self)._make(None if field is None else field[index] for field in self)

    def tasks(self) -> Iterator[Self]:
        """The batches of the single tasks, in order."""
        return (self.task(index) for index in range(self.n_tasks))

    def episodes(self, selection: slice | Sequence[int]) -> Self:
        """The batch restricted to some episodes of every task.

        :param selection: which episodes, as a slice or a list of positions
        """
        axis = 1 if self.has_task_axis else 0
        key = (slice(None),) * axis + (
            selection if isinstance(selection, slice) else list(selection),
        )
        return type(self)._make(None if field is None else field[key] for field in self)

    def trimmed(self) -> Self:
        """The batch without the padding that all of its episodes have at the end."""
        n_steps = max(int(self.lengths.max()), 1)
        if n_steps == self.mask.shape[-1]:
            return self
        masks = self.action_masks
        return self._replace(
            observations=self.observations[..., :n_steps, :],
            actions=self.actions[..., :n_steps, :],
            rewards=self.rewards[..., :n_steps],
            mask=self.mask[..., :n_steps],
            dist_params=self.dist_params[..., :n_steps, :],
            action_masks=None if masks is None else masks[..., :n_steps, :],
        )

    def to(self, device: th.device | str | None = None, dtype: th.dtype | None = None) -> Self:
        """The batch on another device or in another precision; integers and booleans stay such.

        :param device: where to; None keeps it
        :param dtype: floating-point type; None keeps it
        """

        def move(field: Tensor) -> Tensor:
            return field.to(device=device, dtype=dtype if field.is_floating_point() else None)

        return type(self)._make(None if field is None else move(field) for field in self)

    @classmethod
    def stack(cls, batches: Sequence[Self]) -> Self:
        """One batch of M tasks from M batches of one task each, padded to the longest T.

        :param batches: one per task, with equal numbers of episodes
        """
        if not batches:
            raise ValueError("batches is empty: EpisodeBatch.stack needs at least one task")
        if any(batch.has_task_axis for batch in batches):
            raise ValueError(
                "EpisodeBatch.stack takes batches of one task each; these already have a task axis"
            )
        counts = sorted({batch.n_episodes for batch in batches})
        if len(counts) > 1:
            raise ValueError(
                f"every task must have the same number of episodes to be stacked, got {counts}"
            )
        return cls._join(batches, lambda fields: th.stack(list(fields)))

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """One batch with the episodes of all batches in order, padded to the longest T.

        :param batches: all of one task each, or all with the same number of tasks
        """
        if not batches:
            raise ValueError("batches is empty: EpisodeBatch.concatenate needs at least one batch")
        if len({(batch.has_task_axis, batch.n_tasks) for batch in batches}) > 1:
            raise ValueError(
                "EpisodeBatch.concatenate needs the same tasks in every batch, got several numbers"
            )
        axis = 1 if batches[0].has_task_axis else 0
        return cls._join(batches, lambda fields: th.cat(list(fields), dim=axis))

    @classmethod
    def _join(cls, batches: Sequence[Self], join: Callable[[Sequence[Tensor]], Tensor]) -> Self:
        n_steps = max(batch.mask.shape[-1] for batch in batches)
        padded = [batch._padded(n_steps) for batch in batches]
        columns = list(zip(*padded, strict=True))
        if any(mask is None for mask in columns[-1]) and any(
            mask is not None for mask in columns[-1]
        ):
            raise ValueError(
                "some batches have action_masks and some have none: they come from different envs"
            )
        return cls._make(None if column[0] is None else join(column) for column in columns)

    def _padded(self, n_steps: int) -> Self:
        extra = n_steps - self.mask.shape[-1]
        if extra == 0:
            return self
        pad = th.nn.functional.pad
        return self._replace(
            observations=pad(self.observations, (0, 0, 0, extra)),
            actions=pad(self.actions, (0, 0, 0, extra)),
            rewards=pad(self.rewards, (0, extra)),
            mask=pad(self.mask, (0, extra)),
            dist_params=pad(self.dist_params, (0, 0, 0, extra)),
            action_masks=None
            if self.action_masks is None
            else pad(self.action_masks, (0, 0, 0, extra)),
        )
