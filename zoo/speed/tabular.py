"""Contenders among the tabular families: Gymnasium's FrozenLake, and exact solvers.

Shapes: B sub-environments.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl_envs.tabular import optimal_values
from zoo.speed.timing import Contender

HOLES, SLIP = "metarl/FrozenLakeHoles-v0", "metarl/FrozenLakeSlip-v0"
SIZES = 1_000, 10_000
N_TASKS = 1_000
_LAKE, _LARGE_LAKE = "Gymnasium FrozenLake-v1", "Gymnasium FrozenLake8x8-v1"
_MOST_MILLISECONDS = {4: 40.0, 8: 250.0}


def stepping(n_envs: int) -> dict[str, Contender]:
    """Vector envs of n_envs sub-environments: Gymnasium's lakes, ours, ours within trials.

    Gymnasium's sub-environments keep their one map, so the bar is for ours that keep each its own;
    a new map at every reset is a row below.
    """
    theirs, ours = (30, 600) if n_envs <= SIZES[0] else (4, 100)
    kept = {"is_slippery": True, "task_mode": "fixed"}
    trials = {"episodes_per_trial": 4, "observe_transitions": False}
    cheap = 1 / 1.1  # trials may cost 10 %
    own, new = "holes 4x4, each its own map", "holes 4x4, new map per episode"
    lakes: dict[str, tuple[str, dict[str, Any], str, float | None]] = {
        own: (HOLES, kept, _LAKE, 200),
        new: (HOLES, {"is_slippery": True}, _LAKE, None),
        "slip 4x4, each its own": (SLIP, {"task_mode": "fixed"}, _LAKE, 200),
        "slip 4x4, new per episode": (SLIP, {}, _LAKE, None),
        "holes 8x8, each its own map": (HOLES, {"size": 8, **kept}, _LARGE_LAKE, 200),
        "own maps, trials of 4": (HOLES, kept | trials, own, cheap),
        "own maps, trials of 4, transitions observed": (
            HOLES,
            {**kept, "episodes_per_trial": 4},
            own,
            None,
        ),
        "new map per trial of 4": (HOLES, {"is_slippery": True, **trials}, new, None),
    }
    for name, env_id in (("grid", "metarl/GridGoal-v0"), ("bandit", "metarl/BernoulliBandit-v0")):
        fixed = {"task_mode": "fixed"}
        lakes |= {
            f"{name}, each its own task": (env_id, fixed, "", None),
            f"{name}, trials of 4": (
                env_id,
                {**fixed, **trials},
                f"{name}, each its own task",
                cheap,
            ),
        }
    found = {
        f"{n_envs:,} envs: {name}": Contender(
            _played(_gymnasium(name, n_envs), theirs), theirs * n_envs
        )
        for name in (_LAKE, _LARGE_LAKE)
    }
    for name, (env_id, arguments, reference, least) in lakes.items():
        env = gym.make_vec(
            env_id, num_envs=n_envs, vectorization_mode="vector_entry_point", **arguments
        )
        full = f"{n_envs:,} envs: {reference}" if reference else ""
        found[f"{n_envs:,} envs: {name}"] = Contender(
            _played(env, ours), ours * n_envs, against=((full, least),) if reference else ()
        )
    return found


def solving() -> dict[str, Contender]:
    """Optimal values of 1,000 slippery lakes, from tasks, sparse MDPs and dense MDPs."""
    found = {}
    for size, most in _MOST_MILLISECONDS.items():
        for label, arguments in (
            ("horizon 100", {"horizon": 100}),
            ("discount 0.8", {"discount": 0.8, "absorbing": True}),
            ("discount 0.99", {"discount": 0.99}),
        ):
            env: Any = gym.make(HOLES, size=size, is_slippery=True, **arguments).unwrapped
            tasks = env.sample_tasks(N_TASKS, seed=0)
            is_discounted = "discount" in arguments
            returns = env.discounted_optimal_returns if is_discounted else env.optimal_returns
            ways: dict[str, Callable[[], Any]] = {
                returns.__name__: partial(returns, tasks),
                "optimal_values, sparse": partial(optimal_values, env.sparse_mdps(tasks)),
                "optimal_values, dense": partial(optimal_values, env.finite_mdps(tasks)),
            }
            for way, run in ways.items():
                name = f"{N_TASKS:,} tasks {size}x{size}, {label}: {way}"
                found[name] = Contender(_called(run), 1, most_milliseconds=most)
    return found


def _gymnasium(name: str, n_envs: int) -> Any:
    env_id = name.removeprefix("Gymnasium ")
    return SyncVectorEnv(
        # Without Gymnasium's checks, as who wants speed would make them.
        [lambda: gym.make(env_id, disable_env_checker=True)] * n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def _played(env: Any, n_steps: int) -> Callable[[], None]:
    """Plays actions that were drawn beforehand; the env runs in already."""
    rng = np.random.default_rng(0)
    actions = rng.integers(env.single_action_space.n, size=(n_steps, env.num_envs))
    env.reset(seed=0)

    def run() -> None:
        for chosen in actions:
            env.step(chosen)

    return run


def _called(function: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        function()

    return run
