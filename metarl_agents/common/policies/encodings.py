"""What a network's first layer sees of an observation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor


class Encoding(Protocol):
    """Turns observations (..., obs_dim) into features (..., n_features)."""

    @property
    def n_features(self) -> int:
        """Numbers that the first layer sees."""
        ...

    def encoded(self, observations: Tensor, dtype: th.dtype) -> Tensor:
        """Features, (..., n_features).

        :param observations: (..., obs_dim)
        :param dtype: of the result
        """
        ...

    def encoded_numpy(self, observations: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """The same in NumPy.

        :param observations: (..., obs_dim)
        :param dtype: of the result
        """
        ...


@dataclass(frozen=True)
class Numbers:
    """Observations as they are.

    :param n_features: obs_dim
    """

    n_features: int

    def encoded(self, observations: Tensor, dtype: th.dtype) -> Tensor:
        """The observations; see `Encoding.encoded`."""
        return observations.to(dtype)

    def encoded_numpy(self, observations: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """The observations; see `Encoding.encoded_numpy`."""
        return observations.astype(dtype, copy=False)


@dataclass(frozen=True)
class OneHot:
    """One indicator per value of each number of the observation, side by side.

    :param sizes: how many values each number takes
    :param starts: the smallest value of each
    """

    sizes: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def n_features(self) -> int:
        """The sum of the sizes."""
        return sum(self.sizes)

    def encoded(self, observations: Tensor, dtype: th.dtype) -> Tensor:
        """Indicators; see `Encoding.encoded`."""
        positions, values = (
            th.as_tensor(column, device=observations.device) for column in self._columns
        )
        return (observations.index_select(-1, positions) == values).to(dtype)

    def encoded_numpy(self, observations: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Indicators; see `Encoding.encoded_numpy`."""
        positions, values = self._columns
        return (observations[..., positions] == values).astype(dtype)

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        """For each indicator, which number it looks at, and for which value."""
        positions = np.repeat(np.arange(len(self.sizes)), self.sizes)
        values = [
            np.arange(size) + start for size, start in zip(self.sizes, self.starts, strict=True)
        ]
        return positions, np.concatenate(values)


def encoding_of(space: spaces.Space[Any]) -> Encoding:
    """Indicators for `Discrete` and `MultiDiscrete`, the numbers for `Box` and `MultiBinary`.

    :param space: of the observations
    """
    if isinstance(space, spaces.Discrete):
        return OneHot((int(space.n),), (int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        return OneHot(_ints(space.nvec), _ints(space.start))
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return Numbers(prod(space.shape))
    raise ValueError(
        f"observation_space={space} is not supported: use Box, Discrete, MultiDiscrete or "
        "MultiBinary (gymnasium.wrappers.FlattenObservation turns nested observations into a Box)"
    )


def _ints(values: Sequence[int] | np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(values).reshape(-1))
