"""What a prior estimator keeps of finished tasks."""

from collections.abc import Mapping
from typing import Self

import torch as th
from torch import Tensor

from metarl_agents.bayesian.hierarchical import gate

PREFIX = "records/"


class TaskRecords:
    """Named tensors with leading axis R (replicates): sums over tasks, or one row per task.

    :param n_replicates: R
    """

    def __init__(self, n_replicates: int):
        self.n_replicates = n_replicates
        self._tensors: dict[str, Tensor] = {}
        self._passed: tuple[float, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._tensors[name] = value

    @property
    def names(self) -> set[str]:
        """The names of all tensors; empty before the first task is finished."""
        return set(self._tensors)

    def add(self, name: str, values: Tensor) -> None:
        """Add finished tasks to a sum.

        :param values: shape (R B, ...), replicates outermost
        """
        total = self._by_replicate(values).sum(1)
        old = self._tensors.get(name)
        self._tensors[name] = total if old is None else old + total

    def append(self, name: str, values: Tensor) -> None:
        """File one row per finished task, (R, K, ...).

        :param values: shape (R B, ...), replicates outermost
        """
        self._passed = None
        new, old = self._by_replicate(values), self._tensors.get(name)
        self._tensors[name] = new if old is None else th.cat([old, new], dim=1)

    def passed(self, threshold: float) -> Tensor:
        """Return which tasks passed the eigenvalue gate, shape (R, K, H, C)."""
        # One update asks several times, and the answer decomposes every Gram matrix.
        if self._passed is None or self._passed[0] != threshold:
            self._passed = (threshold, gate(self._tensors["grams"], threshold))
        return self._passed[1]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors under the names that checkpoints use."""
        return {PREFIX + name: tensor for name, tensor in self._tensors.items()}

    @classmethod
    def restored(
        cls, n_replicates: int, state: Mapping[str, Tensor], device: th.device | str
    ) -> Self:
        """Return the records that :meth:`state` described; other names are left alone."""
        records = cls(n_replicates)
        for name, tensor in state.items():
            if name.startswith(PREFIX):
                records[name.removeprefix(PREFIX)] = tensor.to(device)
        return records

    def _by_replicate(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.n_replicates, -1))
