"""Translates the infos of gymnasium's vector envs, arrays with masks, to SB3's list of dicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, SupportsIndex

import numpy as np


def info_dicts(infos: Mapping[str, Any], n_rows: int) -> list[dict[str, Any]]:
    """One dict per sub-environment from gymnasium's arrays, where `_key` masks who has `key`."""
    rows: list[dict[str, Any]] = [{} for _ in range(n_rows)]
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        mask = infos.get(f"_{key}")
        if mask is None or np.all(mask):
            # Of several ways to fill many small dicts, the fastest by a factor of two.
            for row, value in zip(rows, _items(values, n_rows), strict=True):
                row[key] = value
        elif np.any(mask):
            items = _items(values, n_rows)
            for i in np.flatnonzero(mask).tolist():
                rows[i][key] = items[i]
    return rows


def _items(values: Any, n_rows: int) -> Sequence[Any]:
    if isinstance(values, Mapping):
        return info_dicts(values, n_rows)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object:
        return values.tolist()
    return values


class LazyInfos(list[dict[str, Any]]):
    """A list of dicts that is filled when somebody first looks: most steps, nobody does.

    :param make: what makes the dicts
    :param n_rows: how many it will make
    """

    def __init__(self, make: Callable[[], list[dict[str, Any]]], n_rows: int) -> None:
        super().__init__()
        self._make: Callable[[], list[dict[str, Any]]] | None = make
        self._n_rows = n_rows

    def filled(self) -> Self:
        """This list, with the dicts in it."""
        if self._make is not None:
            make, self._make = self._make, None
            super().extend(make())
        return self

    def __len__(self) -> int:
        return self._n_rows if self._make is not None else super().__len__()

    def __radd__(self, other: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return other + list(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (list(self),)


def _filling(name: str) -> Callable[..., Any]:
    def method(self: LazyInfos, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(LazyInfos, self.filled()), name)(*args, **kwargs)

    method.__name__ = name
    return method


_COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__"}
_OWN = {"__class_getitem__", *vars(LazyInfos)}

# All that looks at the items or changes them.
for _name in (set(dir(list)) - set(dir(object)) - _OWN) | _COMPARISONS:
    setattr(LazyInfos, _name, _filling(_name))


def lazy_info_dicts(infos: Mapping[str, Any], n_rows: int) -> list[dict[str, Any]]:
    """`info_dicts`, made when somebody looks; the arrays may be written over meanwhile.

    :param infos: gymnasium's arrays
    :param n_rows: B
    """
    if any(not isinstance(values, np.ndarray) for values in infos.values()):
        return info_dicts(infos, n_rows)
    kept = {key: values.copy() for key, values in infos.items()}
    return LazyInfos(lambda: info_dicts(kept, n_rows), n_rows)
