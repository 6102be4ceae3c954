"""Translates the infos of gymnasium's vector envs, arrays with masks, to SB3's list of dicts."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def info_dicts(infos: Mapping[str, Any], n_rows: int) -> list[dict[str, Any]]:
    """One dict per sub-environment from gymnasium's arrays, where `_key` masks who has `key`."""
    rows: list[dict[str, Any]] = [{} for _ in range(n_rows)]
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        having: Iterable[int] = range(n_rows)
        if f"_{key}" in infos:
            having = np.flatnonzero(infos[f"_{key}"]).tolist()
        for i, value in _items(values, n_rows, having):
            rows[i][key] = value
    return rows


def _items(values: Any, n_rows: int, having: Iterable[int]) -> Iterable[tuple[int, Any]]:
    if isinstance(values, Mapping):
        nested = info_dicts(values, n_rows)
        return [(i, nested[i]) for i in having]
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object:
        scalars = values.tolist()
        return [(i, scalars[i]) for i in having]
    return [(i, values[i]) for i in having]
