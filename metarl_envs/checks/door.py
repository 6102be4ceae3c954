"""Checks of law 9, bad input is refused at the door, and of features and masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from metarl_envs.checks.subject import (
    AnyEnv,
    NotApplicableError,
    Player,
    Subject,
    TaskEnvError,
    array_of,
    attribute,
    has_wrapper,
    require,
    require_same,
    rollout,
    same_task,
)


class StrangeTask:
    """A task by structure only, with any array."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def to_array(self) -> NDArray[Any]:
        """Return the array."""
        return self.array

    def __repr__(self) -> str:
        return f"StrangeTask({self.array})"


def bad_tasks_are_refused(subject: Subject) -> None:
    """Tasks that are not finite, not in the space or no tasks at all raise, and change nothing."""
    undisturbed = rollout(subject.make(), seed=subject.seed)
    env = subject.make()
    player = Player(env, subject.seed)
    rows = [player.reset(seed=subject.seed)]
    task = attribute(env, "get_task")()
    for bad in bad_tasks(env):
        must_refuse(partial(attribute(env, "set_task"), bad), f"set_task({bad!r})")
        reset = partial(env.reset, options={"task": bad})
        must_refuse(reset, f'reset(options={{"task": {bad!r}}})')
    require(same_task(attribute(env, "get_task")(), task), "a refused task replaced the old one")
    require_same(undisturbed, [*rows, *player.play(50)], "a refused task changed the episode")


def bad_task_arrays_are_refused(subject: Subject) -> None:
    """``from_array`` raises ``ValueError`` for arrays that are not finite or not in the space."""
    env = subject.make()
    from_array = attribute(env, "task_distribution").from_array
    for array in bad_task_arrays(env):
        must_refuse(partial(from_array, array), f"from_array({array})", ValueError)


def bad_actions_are_refused(subject: Subject) -> None:
    """Actions that are not finite or not in the space raise ``ValueError``, and change nothing."""
    undisturbed = rollout(subject.make(), seed=subject.seed)
    env = subject.make()
    player = Player(env, subject.seed)
    rows = [player.reset(seed=subject.seed)]
    for action in bad_actions(env.action_space):
        must_refuse(partial(env.step, action), f"step({action!r})", ValueError)
    require_same(undisturbed, [*rows, *player.play(50)], "a refused action changed the episode")


def features_are_pure_and_complete(subject: Subject) -> None:
    """``features(stage, observations)`` is (..., A, d), finite, and depends on nothing else."""
    env = subject.make()
    for name in ("features", "n_features", "n_stages"):
        if not env.has_wrapper_attr(name):
            raise NotApplicableError(f"the env has no {name}")
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise NotApplicableError(f"{env.action_space} is not Discrete")
    features, d, n_actions = (
        attribute(env, "features"),
        attribute(env, "n_features"),
        int(env.action_space.n),
    )
    stages = range(attribute(env, "n_stages"))
    rows = rollout(attribute_owner(env, "features"), seed=subject.seed)
    seen = np.array([row.observation for row in rows])
    before = [features(stage, seen) for stage in stages]
    rollout(env, seed=subject.seed + 1)
    for stage in stages:
        require(before[stage].shape == (len(seen), n_actions, d), f"features {before[stage].shape}")
        require(np.isfinite(before[stage]).all(), f"features of stage {stage} are not finite")
        again = features(stage, seen.astype(np.float64))
        require(np.array_equal(again, before[stage]), "features depend on dtype or on the episode")
        single = np.stack([features(stage, observation) for observation in seen])
        # Matrix products may round differently for one row and for many.
        close = np.allclose(single, before[stage], rtol=1e-12, atol=1e-12)
        require(close, "features differ between one and many")


def action_masks_agree_with_infos(subject: Subject) -> None:
    """``action_masks()`` is ``info["action_mask"]``, and some action is allowed at every step.

    Where infos have no mask, every action is allowed.
    """
    env = subject.make()
    if not env.has_wrapper_attr("action_masks"):
        raise NotApplicableError("the env has no action_masks")
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise NotApplicableError(f"{env.action_space} is not Discrete")
    masks = attribute(env, "action_masks")
    player = Player(env, subject.seed)
    row = player.reset(seed=subject.seed)
    wrapped = has_wrapper(env, "ObserveTransition") or has_wrapper(env, "ObserveTask")
    while not row.done:
        current = masks()
        require(current.dtype == np.bool_, f"action_masks() has dtype {current.dtype}, not bool")
        named = row.info.get("action_mask")
        require(named is not None or current.all(), 'info has no "action_mask", but masks forbid')
        named = current if named is None else named
        require(np.array_equal(current, np.asarray(named, bool)), "info and action_masks() differ")
        require(current.any(), "no action is allowed in the middle of an episode")
        if not wrapped:
            # After a wasted step the state is the start of an episode that was not observed yet.
            observation = row.info.get("start_obs", row.observation)
            of_observation = masks(np.asarray(observation)[None])[0]
            require(np.array_equal(of_observation, current), "action_masks(observations) differs")
        row = player.step()


def bad_task_arrays(env: Any) -> list[NDArray[Any]]:
    """Arrays that no task of the family has."""
    good = array_of(attribute(env, "sample_tasks")(1, seed=0)[0]).astype(np.float64)
    arrays = [np.full_like(good, value) for value in (np.nan, np.inf, -np.inf)]
    arrays += [np.append(good, 0.0), good[:-1]]
    space = attribute(env, "task_distribution").space
    if isinstance(space, gym.spaces.Box):
        for bound, sign in ((space.low, -1.0), (space.high, 1.0)):
            if np.isfinite(bound).any():
                array = good.copy()
                array[np.isfinite(bound)] = bound[np.isfinite(bound)] + sign
                arrays.append(array)
    return arrays


def bad_tasks(env: Any) -> list[Any]:
    """Objects that are no tasks of the family."""
    strange: list[Any] = [StrangeTask(array) for array in bad_task_arrays(env)]
    return [*strange, object(), "task", 3.0]


def bad_actions(space: gym.Space[Any]) -> list[Any]:
    """Actions outside ``space``."""
    if isinstance(space, gym.spaces.Discrete):
        start = int(space.start)
        return [start - 1, start + int(space.n), float("nan"), start + 0.5]
    good = np.asarray(space.sample())
    actions = [np.append(good.ravel(), good.ravel()[:1])]
    if isinstance(space, gym.spaces.MultiDiscrete):
        return [*actions, np.asarray(space.start) - 1, np.asarray(space.start) + space.nvec]
    if isinstance(space, gym.spaces.Box):
        if np.issubdtype(space.dtype, np.floating):
            actions += [np.full_like(good, value) for value in (np.nan, np.inf, -np.inf)]
        if space.is_bounded():
            actions += [space.high + 1, space.low - 1]
    return actions


def must_refuse(
    call: Callable[[], Any],
    name: str,
    errors: type[Exception] | tuple[type[Exception], ...] = (ValueError, TypeError),
) -> None:
    """Raise unless ``call`` raises one of ``errors``."""
    try:
        call()
    except errors:
        return
    except Exception as error:
        raise TaskEnvError(f"{name} raised {type(error).__name__}, not ValueError") from error
    raise TaskEnvError(f"{name} was accepted")


def attribute_owner(env: AnyEnv, name: str) -> AnyEnv:
    """Env of the stack whose observations ``name`` is about: the one that defines it."""
    while not hasattr(env, name) and isinstance(env, gym.Wrapper):
        env = env.env
    return env
