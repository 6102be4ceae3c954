"""Contenders in meta-learning by gradients: sampling, meta-gradients, curvature, whole iterations.

Shapes: M tasks, E episodes, T steps, B sub-environments, U actuators.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from metarl_agents import ALGORITHMS, make_task_vec_env
from metarl_agents.common.collect import collect_task_episodes, sample_tasks
from metarl_agents.common.fisher import meta_fisher_product, meta_kl_product
from metarl_agents.common.policies import FunctionalPolicies, FunctionalPolicy, make_network
from zoo.speed import cloning
from zoo.speed.gradient.problem import (
    INNER_LR,
    N_EPISODES,
    N_STEPS,
    N_TASKS,
    differentiated,
    dropped,
    kept_backprop,
    multiplied,
    problem,
)
from zoo.speed.locomotion import physics_limit, ppo_rollouts
from zoo.speed.timing import Contender

ENV_ID, BODY = "metarl/HalfCheetahVel-v0", "HalfCheetah-v5"
N_PEER_ENVS, N_PEER_STEPS = 40, 50
_SAMPLING_STEPS = 100
_LEAST_OF_LIMIT, _LEAST_OF_ROLLOUTS = 0.85, 3.0
_LEAST_OF_LOOP, _LEAST_OF_BACKPROP = 1.5, 2.0
_PER_SECOND = "per second"


def sampling(n_threads: int) -> dict[str, Contender]:
    """40 tasks x 20 sub-environments with one policy per task, beside the physics and SB3.

    :param n_threads: of the physics
    """
    n_envs = N_TASKS * N_EPISODES
    title = f"sampling, {n_threads} thread(s)"
    peer_units = N_PEER_ENVS * N_PEER_STEPS
    makers: list[Callable[[], gym.Env[Any, Any]]] = [_peer] * N_PEER_ENVS
    # Processes are forked first: children of a process with threads may hang.
    processes = SubprocVecEnv(makers, start_method="fork")
    dummy, subproc = f"{title}: PPO rollouts, DummyVecEnv", f"{title}: PPO rollouts, SubprocVecEnv"
    limit = f"{title}: limit, mujoco.rollout"
    run, actions = _sampled(n_envs, n_threads)
    n_units = n_envs * _SAMPLING_STEPS
    bar = _LEAST_OF_ROLLOUTS if n_threads == 2 else None  # both take the cores that they can
    against = ((limit, _LEAST_OF_LIMIT), (dummy, bar), (subproc, None))
    return {
        limit: Contender(_limit(n_envs, n_threads, actions), n_units, n_threads=n_threads),
        dummy: Contender(ppo_rollouts(DummyVecEnv(makers), N_PEER_STEPS), peer_units),
        subproc: Contender(
            ppo_rollouts(processes, N_PEER_STEPS), peer_units, n_threads=N_PEER_ENVS
        ),
        f"{title}: ours": Contender(run, n_units, against=against, n_threads=n_threads),
    }


def meta_gradients(*, peers: bool) -> dict[str, Contender]:
    """The second-order meta-gradient of 40 tasks x 4,000 samples.

    :param peers: whether to race modules that are cloned for every task, too
    """
    given, title = problem(), "meta-gradient"
    loop = f"{title}: plain loop over tasks"
    ways: dict[str, tuple[dict[str, Any], int]] = {
        loop: ({"backend": "loop"}, 1),
        f"{title}: all tasks by vmap": ({"backend": "vmap"}, 1),
        f"{title}: chunks of 4 by vmap": ({"backend": "vmap", "chunk_size": 4}, 1),
        f"{title}: all tasks batched": ({"backend": "batched"}, 1),
        f"{title}: ours, 1 worker": ({"n_workers": 1}, 1),
        f"{title}: ours, 2 workers": ({"n_workers": 2}, 2),
    }
    found = {
        name: Contender(differentiated(given, **arguments), 1, _PER_SECOND, n_threads=n_threads)
        for name, (arguments, n_threads) in ways.items()
    }
    vmap = f"{title}: all tasks by vmap"
    own = f"{title}: ours, 2 workers"
    found[own] = found[own]._replace(against=((loop, _LEAST_OF_LOOP), (vmap, None)))
    single = f"{title}: ours, 1 worker"
    found[single] = found[single]._replace(against=((loop, None), (vmap, None)))
    if peers:
        # Not that library itself: its way of adapting, a module copied for every task.
        cloned = f"{title}: cloned modules, as learn2learn does"
        policy = cloning.GaussianPolicy(17, 6)
        found[cloned] = Contender(
            lambda: dropped(cloning.meta_gradient(policy, given.data, INNER_LR)), 1, _PER_SECOND
        )
        for name in (single, own):
            found[name] = found[name]._replace(against=(*found[name].against, (cloned, None)))
    return found


def curvature() -> dict[str, Contender]:
    """A product with the curvature of the mean divergence of 40 tasks x 4,000 samples."""
    given, title = problem(), "product"
    inner, outer = given.data
    backprop = f"{title}: double backprop"
    kept = f"{title}: double backprop, graphs kept"
    make = partial(
        meta_fisher_product, given.network, given.params, [inner], outer, inner_lr=INNER_LR
    )
    ways = {
        backprop: meta_kl_product(given.network, given.params, [inner], outer, inner_lr=INNER_LR),
        kept: kept_backprop(given),
        f"{title}: ours": make(),
        f"{title}: ours, 20 % of the episodes": make(subsample=0.2, rng=np.random.default_rng(0)),
    }
    found = {
        name: Contender(partial(multiplied, product, given.params), 1, _PER_SECOND)
        for name, product in ways.items()
    }
    own = f"{title}: ours"
    against = ((backprop, _LEAST_OF_BACKPROP), (kept, None))
    found[own] = found[own]._replace(against=against)
    part = f"{title}: ours, 20 % of the episodes"
    found[part] = found[part]._replace(against=((own, None),))
    # What comes before the ten or so products of a step.
    found[f"{title}: setup of ours"] = Contender(lambda: dropped(make()), 1, _PER_SECOND)
    return found


def iterations(device: str = "cpu", n_workers: int = 2) -> dict[str, Contender]:
    """Whole meta-iterations of 320,000 env steps, split into sampling and learning.

    :param device: where agents learn
    :param n_workers: threads that learn, and threads of the physics
    """
    found = {}
    for name, algo, arguments in (
        ("ProMP", "promp", {}),
        ("MAML-TRPO", "maml", {}),
        ("MAML-TRPO, 20 % for products", "maml", {"hvp_fraction": 0.2}),
    ):
        collect, train = _phases(algo, device, n_workers, arguments)
        title = f"{name} on {device}, {n_workers} workers"
        for phase, run in (("sampling", collect), ("learning", train)):
            key = f"iteration, {title}: {phase}"
            found[key] = Contender(run, 1, _PER_SECOND, n_threads=n_workers)
    return found


def on_cuda() -> dict[str, Contender]:
    """Meta-gradients and products on the GPU beside those on the processor."""
    found = {}
    cores = os.cpu_count() or 1
    for device in ("cpu", "cuda"):
        given = problem(device)
        inner, outer = given.data
        workers = cores if device == "cpu" else 1
        where = f"{device}, {workers} workers" if device == "cpu" else device
        product = meta_fisher_product(
            given.network, given.params, [inner], outer, inner_lr=INNER_LR, n_workers=workers
        )
        runs: dict[str, Callable[[], None]] = {
            f"meta-gradient on {where}": differentiated(given, n_workers=workers),
            f"product on {where}": partial(multiplied, product, given.params),
        }
        for name, run in runs.items():
            found[name] = Contender(_synchronised(run), 1, _PER_SECOND, n_threads=workers)
    for name in list(found):
        if name.endswith("on cuda"):
            kind = name.removesuffix("cuda")
            reference = next(other for other in found if other.startswith(f"{kind}cpu"))
            found[name] = found[name]._replace(against=((reference, None),))
    return found


def _peer() -> gym.Env[Any, Any]:
    return Monitor(gym.make(BODY))


def _sampled(n_envs: int, n_threads: int) -> tuple[Callable[[], None], np.ndarray]:
    """Plays one batch; and the actions of such a batch, (T, B, U)."""
    venv = make_task_vec_env(
        ENV_ID, n_envs, env_kwargs={"horizon": _SAMPLING_STEPS, "n_threads": n_threads}
    )
    network = make_network("MlpPolicy", venv.observation_space, venv.action_space)
    tasks = sample_tasks(venv, N_TASKS, seed=0)
    rng = np.random.default_rng(0)
    # As after adaptation: parameters of its own for every task.
    policies = FunctionalPolicy.stack(
        [
            FunctionalPolicy(
                network,
                network.initial_params(rng, device="cpu", dtype=th.float32),
                action_space=venv.action_space,
                rng=np.random.default_rng(task),
            )
            for task in range(N_TASKS)
        ]
    )
    batch = _collected(venv, policies, tasks)
    actions = batch.actions.flatten(0, 1).swapaxes(0, 1).numpy()
    low, high = venv.action_space.low, venv.action_space.high  # type: ignore[attr-defined]
    clipped = np.ascontiguousarray(np.clip(actions, low, high), dtype=np.float32)
    return lambda: dropped(_collected(venv, policies, tasks)), clipped


def _collected(venv: Any, policies: FunctionalPolicies, tasks: list[Any]) -> Any:
    return collect_task_episodes(venv, policies, N_EPISODES, tasks=tasks, seed=0)


def _limit(n_envs: int, n_threads: int, actions: np.ndarray) -> Callable[[], None]:
    """The physics alone, from resets, under actions that the policies took."""
    env: Any = gym.make_vec(
        ENV_ID,
        num_envs=n_envs,
        vectorization_mode="vector_entry_point",
        horizon=_SAMPLING_STEPS,
        n_threads=n_threads,
    )
    env.reset(seed=0)
    return physics_limit(env, actions, n_threads)


def _phases(
    algo: str, device: str, n_workers: int, arguments: Mapping[str, Any]
) -> tuple[Callable[[], None], Callable[[], None]]:
    cls: Any = ALGORITHMS[algo]
    agent = cls(
        "MlpPolicy",
        ENV_ID,
        env_kwargs={"horizon": N_STEPS, "n_threads": n_workers if device == "cpu" else 1},
        n_envs=N_TASKS * N_EPISODES,
        n_workers=n_workers,
        device=device,
        seed=0,
        **arguments,
    )
    _, callback = agent._setup_learn(2**40, None)
    collected: list[Any] = []

    def collect() -> None:
        collected[:] = [agent.collect(callback)]

    def train() -> None:
        agent.train(collected[0])

    return collect, _synchronised(train) if device == "cuda" else train


def _synchronised(run: Callable[[], None]) -> Callable[[], None]:
    def waited() -> None:
        run()
        th.cuda.synchronize()

    return waited
