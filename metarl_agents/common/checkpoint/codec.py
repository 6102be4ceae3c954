"""Constructor arguments, spaces and generator states as JSON and back, exactly."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from gymnasium import spaces

from metarl_agents.common.checkpoint.named_callables import callable_name, named_callable

Json = Any
Arrays = dict[str, np.ndarray]
_ARRAY_KINDS = "biuf"


def encode(value: Any, arrays: Arrays | None = None) -> Json:
    """A constructor argument as JSON; `ValueError` where its type cannot be stored.

    Lists and plain scalars stand for themselves; all else is an object with one key, its kind.

    :param value: None, bool, int, float, str, list, tuple, dict with str keys, array, path, or a
        callable from the registry, nested at will
    :param arrays: takes the arrays, which then stand in JSON by name only; None writes them out
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return _encode_float(float(value))
    if isinstance(value, list):
        return [encode(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": _encode_mapping(value, arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _encode_array(value, arrays)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if callable(value):
        return {"callable": callable_name(value)}
    raise ValueError(
        f"{value!r} is a {type(value).__name__}, which no file can hold: use None, bool, int, "
        "float, str, list, tuple, dict with str keys or a NumPy array"
    )


def decode(value: Json, arrays: Arrays | None = None) -> Any:
    """The value that `encode` made JSON of.

    :param value: parsed JSON
    :param arrays: those that `encode` put aside
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = _only_item(value)
    decoders: dict[str, Callable[[Any], Any]] = {
        "float": float,
        "tuple": lambda items: tuple(decode(item, arrays) for item in items),
        "dict": lambda items: {key: decode(item, arrays) for key, item in items.items()},
        "array": lambda item: _decode_array(item, arrays),
        "path": Path,
        "callable": named_callable,
    }
    if kind not in decoders:
        raise ValueError(f"{kind!r} is no kind of value this version knows")
    return decoders[kind](content)


def encode_space(space: spaces.Space[Any]) -> Json:
    """A space as JSON.

    :param space: Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple
    """
    if isinstance(space, spaces.Box):
        return {"Box": [_encode_array(space.low), _encode_array(space.high)]}
    if isinstance(space, spaces.Discrete):
        return {"Discrete": [int(space.n), int(space.start), np.dtype(space.dtype).name]}
    if isinstance(space, spaces.MultiDiscrete):
        start = _encode_array(np.asarray(space.start))
        return {"MultiDiscrete": [_encode_array(space.nvec), start, np.dtype(space.dtype).name]}
    if isinstance(space, spaces.MultiBinary):
        n = space.n
        return {"MultiBinary": [int(m) for m in n] if isinstance(n, Sequence) else int(n)}
    if isinstance(space, spaces.Dict):
        return {"Dict": {key: encode_space(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"Tuple": [encode_space(part) for part in space.spaces]}
    raise ValueError(
        f"space={space} cannot be stored: use Box, Discrete, MultiDiscrete, MultiBinary, Dict or "
        "Tuple"
    )


def decode_space(value: Json) -> spaces.Space[Any]:
    """The space that `encode_space` made JSON of.

    :param value: parsed JSON
    """
    kind, content = _only_item(value)
    if kind == "Box":
        low, high = (_decode_array(bound) for bound in content)
        return spaces.Box(low, high, dtype=low.dtype.type)
    if kind == "Discrete":
        n, start, dtype = content
        return spaces.Discrete(n, start=start, dtype=np.dtype(dtype).type)
    if kind == "MultiDiscrete":
        nvec, start, dtype = content
        return spaces.MultiDiscrete(
            _decode_array(nvec), dtype=np.dtype(dtype).type, start=_decode_array(start)
        )
    if kind == "MultiBinary":
        return spaces.MultiBinary(content)
    if kind == "Dict":
        return spaces.Dict({key: decode_space(part) for key, part in content.items()})
    if kind == "Tuple":
        return spaces.Tuple([decode_space(part) for part in content])
    raise ValueError(f"{kind!r} is no kind of space this version knows")


def restored_generator(state: Mapping[str, Any]) -> np.random.Generator:
    """A generator that goes on from a saved state.

    :param state: `generator.bit_generator.state` of a PCG64 generator
    """
    if not _is_pcg64(state):
        raise ValueError(f"the state of a random generator is damaged: {str(state)[:200]}")
    bits = np.random.PCG64(0)
    bits.state = cast(Any, dict(state))
    return np.random.Generator(bits)


def _is_pcg64(state: Any) -> bool:
    # NumPy itself takes negative, fractional and even numbers, and draws poor ones from them.
    try:
        bits, limits = state["state"], (("state", 2**128), ("inc", 2**128))
        words = [(bits[name], limit) for name, limit in limits]
        words += [(state["uinteger"], 2**32), (state["has_uint32"], 2)]
        whole = all(isinstance(n, int) and 0 <= n < limit for n, limit in words)
        return bool(state["bit_generator"] == "PCG64" and whole and bits["inc"] % 2 == 1)
    except (KeyError, TypeError):
        return False


def _only_item(value: Json) -> tuple[str, Any]:
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"expected an object with one key, its kind, got {str(value)[:80]!r}")
    return next(iter(value.items()))


def _encode_mapping(value: Mapping[Any, Any], arrays: Arrays | None) -> dict[str, Json]:
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is a key of a dict that is to be stored: keys must be str")
    return {key: encode(item, arrays) for key, item in value.items()}


def _encode_float(value: float) -> Json:
    # JSON has no infinities; everything finite survives repr exactly.
    return value if math.isfinite(value) else {"float": repr(value)}


def _encode_array(array: np.ndarray, arrays: Arrays | None = None) -> Json:
    if array.dtype.kind not in _ARRAY_KINDS or array.dtype.itemsize > 8:
        raise ValueError(f"arrays of dtype {array.dtype} cannot be stored: use numbers or booleans")
    if arrays is not None:
        name = f"array_{len(arrays)}"
        arrays[name] = array
        return name
    flat = [_encode_float(x) if isinstance(x, float) else x for x in array.ravel().tolist()]
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": flat}


def _decode_array(value: Json, arrays: Arrays | None = None) -> np.ndarray:
    if isinstance(value, str):
        return (arrays or {})[value]
    dtype = np.dtype(str(value["dtype"]))
    if dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"{dtype} is no dtype that arrays are stored in")
    shape = value["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{str(shape)[:80]!r} is no shape of an array")
    return np.array([decode(x) for x in value["values"]], dtype=dtype).reshape(shape)
