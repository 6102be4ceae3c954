"""The check of a `Family`: its methods are batched, elementwise and pure.

Shapes: B environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl_envs.batched.family import Family
from metarl_envs.checks.subject import NotApplicableError, attribute, is_same, require
from metarl_envs.checks.vector_subject import N_ENVS, VectorSubject
from metarl_envs.distributions import task_arrays

_N_STEPS = 5


def family_methods_are_batched_and_pure(subject: VectorSubject) -> None:
    """Methods of a ``Family`` return what it promises, row by row, and change no argument.

    So row b of a batch has the bits of a batch of one, and nothing that was returned changes later.
    """
    env = subject.make()
    family = getattr(env.unwrapped, "family", None)
    if not isinstance(family, Family):
        raise NotApplicableError("the env is not made of a Family")
    tasks = attribute(env, "sample_tasks")(N_ENVS, seed=subject.seed)
    trace = _trace(family, task_arrays(family.task_distribution, tasks), subject.seed, slice(None))
    for row in range(N_ENVS):
        alone = _trace(
            family,
            task_arrays(family.task_distribution, tasks[row : row + 1]),
            subject.seed,
            slice(row, row + 1),
        )
        for name, values in alone.items():
            same = is_same(values, trace[name][row : row + 1])
            require(same, f"{name} differs between a batch of {N_ENVS} and its row {row} alone")


def _trace(family: Family, arrays: NDArray[Any], seed: int, rows: slice) -> dict[str, NDArray[Any]]:
    """What the methods return over some steps, for ``rows`` of the random numbers of a batch."""
    rng, n = np.random.default_rng(seed), len(arrays)
    family.action_space.seed(seed)
    params = _called(family, "compile", arrays)
    require(isinstance(params, dict), f"compile returned a {type(params).__name__}, not a dict")
    for name, values in params.items():
        _require_rows(values, n, f"compile()[{name!r}]")
    uniforms = rng.random((N_ENVS, family.n_reset_uniforms))[rows]
    states = _called(family, "initial", params, uniforms)
    _require_rows(states, n, "initial()")
    found = {"states at 0": states, **{f"params {name}": each for name, each in params.items()}}
    for stage in range(min(_N_STEPS, family.horizon)):
        stages = np.full(n, stage, dtype=np.int64)
        actions = np.array([family.action_space.sample() for _ in range(N_ENVS)])[rows]
        uniforms = rng.random((N_ENVS, family.n_step_uniforms))[rows]
        result = _called(family, "step", params, states, stages, actions, uniforms)
        is_triple = isinstance(result, tuple) and len(result) == 3
        require(is_triple, "step must return (next states, rewards, terminated)")
        following, rewards, terminated = result
        _require_rows(following, n, "the next states of step()")
        _require_rows(rewards, n, "the rewards of step()", np.float64)
        _require_rows(terminated, n, "terminated of step()", np.bool_)
        _require_apart(following, states, "step() returns the states that it was given")
        observations = _called(family, "observe", following, stages + 1)
        _require_rows(observations, n, "observe()")
        _require_apart(observations, following, "observe() returns the states themselves: copy")
        found |= {f"rewards at {stage}": rewards, f"observations at {stage}": observations}
        found |= {f"states after {stage}": following, f"terminated at {stage}": terminated}
        states = following
    return found


def _called(family: Family, name: str, *arguments: Any) -> Any:
    """The result of a method; raises where the method changed an argument."""
    before = [_copied(each) for each in arguments]
    result = getattr(family, name)(*arguments)
    for each, copy in zip(arguments, before, strict=True):
        require(is_same(each, copy), f"{name}() changes an argument in place")
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: each.copy() for name, each in value.items()}
    return value.copy()


def _require_rows(values: Any, n: int, name: str, dtype: Any = None) -> None:
    is_array = isinstance(values, np.ndarray) and values.ndim > 0 and len(values) == n
    require(is_array, f"{name} must be an array with {n} rows, not {values!r}")
    right = dtype is None or values.dtype == dtype
    require(right, f"{name} must have dtype {np.dtype(dtype or float)}, not {values.dtype}")


def _require_apart(values: NDArray[Any], others: NDArray[Any], message: str) -> None:
    require(not np.shares_memory(values, others), message)
