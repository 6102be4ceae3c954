"""Checks of constructor arguments and of what `learn` accepts."""

import inspect
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from metarl_agents.common.checkpoint import constructor_arguments, constructor_parameters
from metarl_agents.common.checkpoint.arguments import NEVER_SAVED
from metarl_agents.common.checkpoint.codec import decode, encode
from metarl_agents.common.testing.subject import Subject, require, require_raises


def agent_is_an_sb3_algorithm(subject: Subject) -> None:
    """It has SB3's base class, env, logger and counters."""
    agent = subject.trained
    require(isinstance(agent, BaseAlgorithm), f"{type(agent)} is no BaseAlgorithm")
    require(agent.get_env() is not None, "get_env() returned None though an env was given")
    require(agent.num_timesteps >= subject.total_timesteps, "num_timesteps stopped too early")
    require(agent.logger is not None, "it has no logger after learn()")


def constructor_arguments_are_stored_unchanged(subject: Subject) -> None:
    """Every argument, given or default, is an attribute of the same name."""
    agent = subject.agent(stats_window_size=7)
    parameters = constructor_parameters(subject.algorithm)
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty and name not in NEVER_SAVED
    }
    given = {**subject.configuration.kwargs, "stats_window_size": 7, "seed": subject.seed}
    for name, value in {**defaults, **given}.items():
        if name == "policy":
            continue
        require(
            _same(getattr(agent, name, None), value),
            f"argument {name}={value!r} is stored as {getattr(agent, name, None)!r}",
        )


def constructor_arguments_survive_json(subject: Subject) -> None:
    """What files hold of the arguments equals the arguments."""
    for name, value in constructor_arguments(subject.trained).saved.items():
        restored = decode(encode(value))
        require(_same(restored, value), f"argument {name}={value!r} comes back as {restored!r}")


def arguments_after_the_env_are_keywords(subject: Subject) -> None:
    """Only `policy` and `env` may be given by position."""
    for name, parameter in constructor_parameters(subject.algorithm).items():
        positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        require(
            not positional or name in ("policy", "env"),
            f"argument {name} may be given by position: put it behind the *",
        )


def functions_in_arguments_are_refused(subject: Subject) -> None:
    """A function that no file can hold is refused at construction, not when saving."""
    require_raises(
        lambda: subject.agent(verbose=lambda: None),
        ValueError,
        TypeError,
        what="a lambda as a constructor argument",
    )


def bad_arguments_are_refused(subject: Subject) -> None:
    """Unknown policy names, seeds and env counts that are none."""
    bad: dict[str, dict[str, Any]] = {
        "seed=-1": {"seed": -1},
        "seed=0.5": {"seed": 0.5},
        "n_envs=7 with one env": {"n_envs": 7},
        "env=3": {"env": 3},
        "env_kwargs with a made env": {"env_kwargs": {"render_mode": None}},
    }
    for what, arguments in bad.items():
        require_raises(lambda a=arguments: subject.agent(**a), ValueError, TypeError, what=what)  # type: ignore[misc]
    for policy in ("NoSuchPolicy", 3, None, dict):
        require_raises(
            lambda p=policy: subject.algorithm(  # type: ignore[misc]
                p, subject.vec_env(), **subject.configuration.kwargs
            ),
            ValueError,
            TypeError,
            what=f"policy={policy!r}",
        )


def total_timesteps_is_checked(subject: Subject) -> None:
    """Whole numbers are accepted, floats like 1e2 too, anything else is refused."""
    agent = subject.agent()
    for bad in (-1, float("nan"), float("inf"), 0.5, "10", None, True):
        require_raises(
            lambda n=bad: agent.learn(n),  # type: ignore[misc]
            ValueError,
            TypeError,
            what=f"total_timesteps={bad!r}",
        )
    require(agent.learn(1.0) is agent, "learn() must return the agent itself")


def predictions_lie_in_the_action_space(subject: Subject) -> None:
    """`predict` takes one observation or a batch, deterministic or not, and changes nothing."""
    agent = subject.trained
    observations = subject.observations(8)
    for deterministic in (False, True):
        actions, _ = agent.predict(observations, deterministic=deterministic)
        require(len(actions) == 8, f"predict returned {len(actions)} actions for 8 observations")
        single, _ = agent.predict(observations[0], deterministic=deterministic)
        for action in (*actions, single):
            kept = np.asarray(action).astype(agent.action_space.dtype)
            require(agent.action_space.contains(kept), f"{action} is outside the action space")


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return type(first) is type(second) and np.array_equal(first, second)
    return bool(first == second)
