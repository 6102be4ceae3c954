"""Contenders among the locomotion families: the physics alone, Gymnasium, SB3, EnvPool.

Shapes: B sub-environments, U actuators.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from mujoco import rollout as mujoco_rollout
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from metarl_agents.common.vec_env import TaskVecEnv
from zoo.speed.timing import Contender


class Race(NamedTuple):
    """One of our families beside the body that it is made of."""

    env_id: str
    peer: str
    """Gymnasium's id of the body"""
    envpool: str
    """EnvPool's id of it"""
    n_steps: int
    """vector steps of one sample at 40 sub-environments"""
    least_of_limit: float


RACES = (
    Race("metarl/HalfCheetahVel-v0", "HalfCheetah-v5", "HalfCheetah-v5", 250, 0.93),
    Race("metarl/AntDir-v0", "Ant-v5", "Ant-v5", 40, 0.95),
)
SIZES = 40, 200
_PEER_BARS = {"DummyVecEnv": 3.0, "SubprocVecEnv": 10.0, "EnvPool": 1.2}


def race(one: Race, n_envs: int, n_threads: int, *, peers: bool) -> dict[str, Contender]:
    """Our vector env, the limit, and what others do with the same body.

    :param one: which family
    :param n_envs: B
    :param n_threads: of the physics; peers without threads have none, or a process for each
        sub-environment
    :param peers: whether to race EnvPool, where it is installed
    """
    n_steps = max(8, one.n_steps * SIZES[0] // n_envs)
    # Processes are forked first: children of a process with threads may hang.
    others = [
        (name, make(), slower, threads)
        for name, make, slower, threads in _peers(one, n_envs, n_threads, peers=peers)
    ]
    ours = _ours(one.env_id, n_envs, n_threads)
    title = f"{one.env_id.split('/')[1]}, {n_envs} envs, {n_threads} thread(s)"
    limit = f"{title}: limit, mujoco.rollout"
    found = {
        limit: Contender(
            physics_limit(ours, _actions(ours, n_steps), n_threads),
            n_envs * n_steps,
            n_threads=n_threads,
        )
    }
    against: list[tuple[str, float | None]] = [(limit, one.least_of_limit)]
    for name, other, slower, threads in others:
        steps = max(2, n_steps // slower)
        found[f"{title}: {name}"] = Contender(
            _played(other, steps), n_envs * steps, n_threads=threads
        )
        # Processes take both cores, so ours is judged against them with two threads.
        is_judged = "HalfCheetah" in one.env_id and (n_threads == 2 or name == "EnvPool")
        bar = _PEER_BARS.get(name) if is_judged else None
        against.append((f"{title}: {name}", bar))
    found[f"{title}: ours"] = Contender(
        _played(ours, n_steps), n_envs * n_steps, against=tuple(against), n_threads=n_threads
    )
    return found


def policies(n_envs: int = 200) -> dict[str, Contender]:
    """A policy of two layers of 64 in the loop, one thread: ours, and PPO's own collection."""
    n_steps = 25
    one = RACES[0]
    ours = _ours(one.env_id, n_envs, 1)
    dummy = DummyVecEnv([lambda: Monitor(gym.make(one.peer))] * n_envs)
    ppo_dummy, ppo_ours = "PPO.collect_rollouts, DummyVecEnv", "PPO.collect_rollouts, our VecEnv"
    collected = {
        name: Contender(ppo_rollouts(venv, n_steps), n_envs * n_steps)
        for name, venv in (
            (ppo_dummy, dummy),
            (ppo_ours, TaskVecEnv(_ours(one.env_id, n_envs, 1))),
        )
    }
    collected[ppo_ours] = collected[ppo_ours]._replace(against=((ppo_dummy, 1.7),))
    against = ((ppo_dummy, None), (ppo_ours, None))
    loop = Contender(_acted(ours, 4 * n_steps), 4 * n_envs * n_steps, against=against)
    return collected | {"ours with a NumPy policy, 2 x 64": loop}


def per_env_bodies(n_envs: int = 40) -> dict[str, Contender]:
    """Walker2d with a body of its own in every sub-environment, and with one body for all."""
    n_steps, env_id = 60, "metarl/Walker2dRandParams-v0"
    shared, own = "Walker2d, one body for all", "Walker2dRandParams, each its own body"
    return {
        shared: Contender(
            _played(_ours("metarl/Walker2dVel-v0", n_envs, 1), n_steps), n_envs * n_steps
        ),
        own: Contender(
            _played(_ours(env_id, n_envs, 1), n_steps),
            n_envs * n_steps,
            against=((shared, 0.92),),
        ),
    }


def _ours(env_id: str, n_envs: int, n_threads: int) -> Any:
    return gym.make_vec(
        env_id,
        num_envs=n_envs,
        vectorization_mode="vector_entry_point",
        task_mode="fixed",
        horizon=1_000,  # as Gymnasium's
        n_threads=n_threads,
    )


def _peers(
    one: Race, n_envs: int, n_threads: int, *, peers: bool
) -> Iterable[tuple[str, Callable[[], Any], int, int]]:
    """Name, maker, how many times fewer steps, and threads."""
    makers = [lambda: gym.make(one.peer)] * n_envs
    if n_envs == SIZES[0]:
        yield "AsyncVectorEnv", partial(_asynchronous, makers), 4, n_envs
        yield "SubprocVecEnv", lambda: SubprocVecEnv(makers, start_method="fork"), 4, n_envs
        same_step = AutoresetMode.SAME_STEP
        yield "SyncVectorEnv", lambda: SyncVectorEnv(makers, autoreset_mode=same_step), 2, 1
        yield "DummyVecEnv", lambda: DummyVecEnv(makers), 2, 1
    if peers and (pool := _envpool()) is not None:
        arguments = {"num_envs": n_envs, "num_threads": n_threads}
        yield "EnvPool", lambda: pool.make_gymnasium(one.envpool, **arguments), 1, n_threads


def _asynchronous(makers: list[Callable[[], Any]]) -> Any:
    return AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP, context="fork")


def _envpool() -> Any:
    try:
        import envpool
    except ImportError:
        print("EnvPool is not installed: pip install envpool")
        return None
    return envpool


def physics_limit(env: Any, actions: np.ndarray, n_threads: int) -> Callable[[], None]:
    """All steps of the physics in one call of `mujoco.rollout`, with Gymnasium's own options, from
    where the environments are now and under the actions that they are to play next.

    So both simulate the same motions: what a step costs depends on what touches the floor.
    """
    physics = env.family.physics
    model = copy.copy(physics.model)
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    n_state = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    data = [mujoco.MjData(model) for _ in range(n_threads)]
    controls = np.repeat(actions.swapaxes(0, 1), physics.frame_skip, axis=1).astype(np.float64)
    pool = mujoco_rollout.Rollout(nthread=n_threads)

    def run() -> None:
        # Rows of the integration state begin with those of the full physics.
        states = np.ascontiguousarray(env._states[:, :n_state])
        pool.rollout(model, data, states, controls)

    return run


def _played(env: Any, n_steps: int) -> Callable[[], None]:
    actions = _actions(env, n_steps)
    env.reset()

    def run() -> None:
        for chosen in actions:
            env.step(chosen)

    return run


def _actions(env: Any, n_steps: int) -> np.ndarray:
    """The same ones for everybody, (n_steps, B, U)."""
    space = getattr(env, "single_action_space", env.action_space)
    n_envs = getattr(env, "num_envs", None) or len(env.all_env_ids)
    shape = n_steps, n_envs, *space.shape
    return np.random.default_rng(0).uniform(space.low, space.high, shape).astype(np.float32)


def _acted(env: Any, n_steps: int) -> Callable[[], None]:
    """A NumPy forward pass of two tanh layers of 64 and Gaussian noise, in the loop."""
    rng = np.random.default_rng(0)
    sizes = (env.single_observation_space.shape[0], 64, 64, env.single_action_space.shape[0])
    layers = [
        rng.standard_normal(shape).astype(np.float32) / np.sqrt(shape[0])
        for shape in pairwise(sizes)
    ]
    observations, _ = env.reset(seed=0)

    def run() -> None:
        nonlocal observations
        for _ in range(n_steps):
            hidden = observations.astype(np.float32)
            for weights in layers[:-1]:
                hidden = np.tanh(hidden @ weights)
            means = hidden @ layers[-1]
            noise = rng.standard_normal(means.shape, dtype=np.float32)
            observations, *_ = env.step(np.clip(means + noise, -1.0, 1.0))

    return run


def ppo_rollouts(venv: VecEnv, n_steps: int) -> Callable[[], None]:
    """`PPO.collect_rollouts`, without learning."""
    settings = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    n_samples = n_steps * venv.num_envs
    model = PPO(
        "MlpPolicy",
        venv,
        n_steps=n_steps,
        batch_size=n_samples,
        policy_kwargs=settings,
        device="cpu",
    )
    model._setup_learn(n_steps * venv.num_envs)
    callback = CallbackList([])
    callback.init_callback(model)
    assert model.env is not None
    env = model.env

    def run() -> None:
        model.collect_rollouts(env, callback, model.rollout_buffer, n_rollout_steps=n_steps)

    return run
