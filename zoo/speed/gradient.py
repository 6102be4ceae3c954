"""Contenders in meta-learning by gradients: sampling, meta-gradients, curvature, whole iterations.

Shapes: M tasks, E episodes, T steps, B sub-environments, U actuators.
"""

import multiprocessing
import os
import resource
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from torch import Tensor

from metarl_agents import ALGORITHMS, make_task_vec_env
from metarl_agents.common.collect import collect_task_episodes, sample_tasks
from metarl_agents.common.fisher import meta_fisher_product, meta_kl_product
from metarl_agents.common.inner_loop import adapted_params
from metarl_agents.common.losses import episode_log_probs, likelihood_ratio_loss, mean_kl
from metarl_agents.common.meta_gradient import meta_gradient
from metarl_agents.common.policies import (
    FunctionalPolicies,
    FunctionalPolicy,
    Params,
    PolicyNetwork,
    make_network,
)
from metarl_agents.common.returns import WeightedEpisodes
from zoo.speed import cloning
from zoo.speed.locomotion import physics_limit, ppo_rollouts
from zoo.speed.timing import Contender, Row

ENV_ID, BODY = "metarl/HalfCheetahVel-v0", "HalfCheetah-v5"
N_TASKS, N_EPISODES, N_STEPS = 40, 20, 200
INNER_LR = 0.1
N_PEER_ENVS, N_PEER_STEPS = 40, 50
MOST_MEGABYTES = 1200.0
_SAMPLING_STEPS = 100
_LEAST_OF_LIMIT, _LEAST_OF_ROLLOUTS = 0.85, 3.0
_LEAST_OF_LOOP, _LEAST_OF_BACKPROP = 1.5, 2.0
_PER_SECOND = "per second"

Batches = tuple[WeightedEpisodes, WeightedEpisodes]


class Problem(NamedTuple):
    """A meta-batch of the paper's size that nobody had to play."""

    network: PolicyNetwork
    params: Params
    data: Batches
    """inner and outer episodes, fields (M, E, T, ...)"""


def problem(device: str = "cpu", n_tasks: int = N_TASKS, n_steps: int = N_STEPS) -> Problem:
    """M tasks of E episodes: observations of 17 numbers, 6 actuators, two tanh layers of 64.

    :param device: where its tensors are
    :param n_tasks: M
    :param n_steps: T
    """
    observation_space = gym.spaces.Box(-np.inf, np.inf, (17,))
    action_space = gym.spaces.Box(-1.0, 1.0, (6,))
    network = make_network("MlpPolicy", observation_space, action_space)
    rng = np.random.default_rng(0)
    params = network.initial_params(rng, device=device, dtype=th.float32)
    data = tuple(
        _episodes(network, params, rng, (n_tasks, N_EPISODES, n_steps), device) for _ in range(2)
    )
    return Problem(network, params, data)  # type: ignore[arg-type]


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
        name: Contender(_differentiated(given, **arguments), 1, _PER_SECOND, n_threads=n_threads)
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
            lambda: _dropped(cloning.meta_gradient(policy, given.data, INNER_LR)), 1, _PER_SECOND
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
        name: Contender(partial(_multiplied, product, given.params), 1, _PER_SECOND)
        for name, product in ways.items()
    }
    own = f"{title}: ours"
    against = ((backprop, _LEAST_OF_BACKPROP), (kept, None))
    found[own] = found[own]._replace(against=against)
    part = f"{title}: ours, 20 % of the episodes"
    found[part] = found[part]._replace(against=((own, None),))
    # What comes before the ten or so products of a step.
    found[f"{title}: setup of ours"] = Contender(lambda: _dropped(make()), 1, _PER_SECOND)
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
            f"meta-gradient on {where}": _differentiated(given, n_workers=workers),
            f"product on {where}": partial(_multiplied, product, given.params),
        }
        for name, run in runs.items():
            found[name] = Contender(_synchronised(run), 1, _PER_SECOND, n_threads=workers)
    for name in list(found):
        if name.endswith("on cuda"):
            kind = name.removesuffix("cuda")
            reference = next(other for other in found if other.startswith(f"{kind}cpu"))
            found[name] = found[name]._replace(against=((reference, None),))
    return found


def memory_rows(runs: Iterable[str] = ("1 worker", "2 workers", "vmap", "trpo")) -> list[Row]:
    """Peak memory of whole processes, each of which does one thing and nothing else.

    :param runs: names of what they do
    """
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in runs:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            megabytes = pool.submit(peak_megabytes, name).result()
        bar = ""
        if name != "vmap":
            said = "met" if megabytes <= MOST_MEGABYTES else "MISSED"
            bar = f"<= {MOST_MEGABYTES:g} MB: {said}"
        what = _MEMORY_RUNS[name][0]
        rows.append(Row(f"peak memory: {what}", "MB", megabytes, "memory", bar=bar))
    return rows


def peak_megabytes(name: str) -> float:
    """Largest resident size of this process so far, after a run.

    :param name: of the run
    """
    th.set_num_threads(1)
    _MEMORY_RUNS[name][1]()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def kept_backprop(given: Problem) -> Callable[[Params], Params]:
    """Products by backward passes through the gradient of the divergence, built once, per task.

    :param given: the meta-batch
    """
    inner, outer = given.data
    network, theta = given.network, given.params
    variables = {name: value.detach().requires_grad_() for name, value in theta.items()}
    gradients = []
    for task in range(len(inner.mask)):
        own_inner, own_outer = (_of_task(batch, task) for batch in (inner, outer))
        adapted = adapted_params(network, variables, [own_inner], inner_lr=INNER_LR)[-1]
        new = network.dist_params(adapted, own_outer.observations)
        divergence = mean_kl(network.distribution, new.detach(), new, own_outer.mask)
        gradients.append(th.autograd.grad(divergence, list(variables.values()), create_graph=True))

    def product(vector: Params) -> Params:
        total = {name: th.zeros_like(value) for name, value in theta.items()}
        for gradient in gradients:
            images = th.autograd.grad(
                gradient, list(variables.values()), list(vector.values()), retain_graph=True
            )
            for name, image in zip(total, images, strict=True):
                total[name] += image / len(gradients)
        return total

    return product


def task_loss(network: PolicyNetwork, params: Params, data: Batches) -> Tensor:
    """(C,), the surrogate of the return after one step that is differentiated through.

    :param network: the policy
    :param params: theta
    :param data: inner and outer episodes of C tasks
    """
    inner, outer = data
    adapted = adapted_params(network, params, [inner], inner_lr=INNER_LR)[-1]
    log_probs = episode_log_probs(network, adapted, outer)
    return likelihood_ratio_loss(log_probs, None, outer)


def _episodes(
    network: PolicyNetwork,
    params: Params,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    device: str,
) -> WeightedEpisodes:
    def normal(*last: int) -> Tensor:
        numbers = rng.standard_normal((*shape, *last), dtype=np.float32)
        return th.as_tensor(numbers, device=device)

    observations, actions = normal(17), normal(6)
    with th.no_grad():
        dist_params = network.dist_params(params, observations)
        log_probs = network.distribution.log_prob(dist_params, actions)
    rewards, zeros = normal(), th.zeros(shape, device=device)
    return WeightedEpisodes(
        observations=observations,
        actions=actions,
        mask=th.ones(shape, device=device),
        dist_params=dist_params,
        log_probs=log_probs,
        advantages=normal(),
        rewards=rewards,
        baselines=zeros,
        returns=rewards.sum(-1),
    )


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
    return lambda: _dropped(_collected(venv, policies, tasks)), clipped


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


def _differentiated(given: Problem, **arguments: Any) -> Callable[[], None]:
    loss = partial(task_loss, given.network)
    return lambda: _dropped(meta_gradient(loss, given.params, given.data, **arguments))


def _multiplied(product: Callable[[Params], Params], vector: Params) -> None:
    product(vector)


def _of_task(batch: WeightedEpisodes, task: int) -> WeightedEpisodes:
    return WeightedEpisodes._make(None if field is None else field[task] for field in batch)


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


def _dropped(result: Any) -> None:
    del result


def _gradient_alone(**arguments: Any) -> None:
    _differentiated(problem(), **arguments)()


def _trpo_alone() -> None:
    given = problem()
    inner, outer = given.data
    product = meta_fisher_product(
        given.network, given.params, [inner], outer, inner_lr=INNER_LR, n_workers=2
    )
    _multiplied(product, given.params)


_MEMORY_RUNS: Mapping[str, tuple[str, Callable[[], None]]] = {
    "1 worker": ("meta-gradient, 1 worker", partial(_gradient_alone, n_workers=1)),
    "2 workers": ("meta-gradient, 2 workers", partial(_gradient_alone, n_workers=2)),
    "vmap": ("meta-gradient, all tasks by vmap", partial(_gradient_alone, backend="vmap")),
    "trpo": ("product for TRPO, graphs kept", _trpo_alone),
}
