"""A tiny family and a tiny meta-agent, so that the base is tested without any real algorithm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from metarl_agents.common.collect import collect_episodes, pinned_tasks, sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm import MetaAlgorithm

N_ARMS = 3


@dataclass(frozen=True)
class ArmTask:
    """Expected reward of each arm."""

    values: tuple[float, ...]

    def to_array(self) -> np.ndarray:
        return np.array(self.values)


class ArmTasks:
    """Arm 1 is good on average; tasks differ around that."""

    space = spaces.Box(-np.inf, np.inf, (N_ARMS,), dtype=np.float64)

    def sample(self, rng: np.random.Generator) -> ArmTask:
        return ArmTask(tuple(np.array([0.0, 0.5, 0.0]) + rng.standard_normal(N_ARMS)))

    def from_array(self, array: np.ndarray) -> ArmTask:
        return ArmTask(tuple(array))


class ArmEnv(gym.Env[np.ndarray, int]):
    """Two pulls, or a random number of them with `p_end`; the observation counts the pulls.

    :param p_end: probability that a pull ends the episode
    :param horizon: pulls after which it is truncated
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    observation_space = spaces.Box(0.0, 100.0, (1,), dtype=np.float64)
    action_space = spaces.Discrete(N_ARMS)

    def __init__(self, p_end: float = 0.0, horizon: int = 2, render_mode: str | None = None):
        self.p_end, self.horizon, self.render_mode = p_end, horizon, render_mode
        self.task_distribution = ArmTasks()
        self.pinned_task: ArmTask | None = None
        self.task: ArmTask | None = None
        self._task_rng = np.random.default_rng()
        self.action_space = spaces.Discrete(N_ARMS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self._task_rng = np.random.default_rng([seed, 1])
        drawn = self.task_distribution.sample(self._task_rng)
        self.task = (options or {}).get("task") or self.pinned_task or drawn
        self.n_pulls = 0
        return self._observation(), {"task_id": hash(self.task) % 2**31}

    def step(self, action: int):
        assert self.task is not None
        reward = self.task.values[int(action)] + 0.1 * self.np_random.standard_normal()
        self.n_pulls += 1
        terminated = bool(self.np_random.random() < self.p_end)
        truncated = not terminated and self.n_pulls >= self.horizon
        return self._observation(), float(reward), terminated, truncated, {}

    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train"):
        rng = self._task_rng if seed is None else np.random.default_rng([seed, split == "test"])
        return [self.task_distribution.sample(rng) for _ in range(n)]

    def set_task(self, task: ArmTask | None) -> None:
        self.pinned_task = task

    def get_task(self) -> ArmTask:
        task = self.task or self.pinned_task
        if task is None:
            raise gym.error.ResetNeeded("no task before the first reset")
        return task

    def action_masks(self) -> np.ndarray:
        return np.ones(N_ARMS, dtype=bool)

    def render(self) -> np.ndarray:
        return np.zeros((4, 4, 3), dtype=np.uint8)

    def _observation(self) -> np.ndarray:
        return np.array([float(self.n_pulls)])


class RaggedArmEnv(ArmEnv):
    """Episodes of random length."""

    def __init__(self) -> None:
        super().__init__(p_end=0.3, horizon=6)


@dataclass(frozen=True)
class ArmPolicy:
    """Greedy for one draw from what is known about the arms."""

    mean: np.ndarray
    counts: np.ndarray
    draw: np.ndarray

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        shape = np.shape(observation)[:-1]
        return np.full(shape, int(np.argmax(self.draw))), state


class ArmMeta(MetaAlgorithm):
    """Learns the mean value of each arm over tasks, and starts every task from it.

    :param n_episodes_per_task: episodes per task
    :param prior_weight: pulls that the learned mean is worth
    :param activation: unused, a place for a callable
    :param transform: unused, a callable that no file holds
    """

    policy_aliases: ClassVar[dict[str, Any]] = {"ArmPolicy": ArmPolicy}
    _unsaved_arguments: ClassVar[frozenset[str]] = frozenset({"transform"})

    def __init__(
        self,
        policy: str | type[Any],
        env: Any,
        *,
        n_episodes_per_task: int = 2,
        prior_weight: float = 1.0,
        activation: Any = None,
        transform: Callable[[float], float] | None = None,
        n_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        self.n_episodes_per_task, self.prior_weight = n_episodes_per_task, prior_weight
        self.activation, self.transform = activation, transform
        super().__init__(
            policy,
            env,
            n_envs=n_envs,
            env_kwargs=env_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        if not hasattr(self, "sums"):
            self.sums = th.zeros(N_ARMS, dtype=th.float64, device=self.device)
            self.pulls = th.zeros(N_ARMS, dtype=th.float64, device=self.device)

    def collect(self, callback: BaseCallback) -> EpisodeBatch | None:
        assert self.env is not None
        rng = np.random.default_rng(self._begin_collect())
        n_tasks = self.env.num_envs
        tasks = sample_tasks(self.env, n_tasks, seed=int(rng.integers(2**31)))
        rngs = rng.spawn(n_tasks)
        policies, batches = self.initial_policies(rngs), []
        with pinned_tasks(self.env, tasks):
            for _ in range(self.n_episodes_per_task):
                seed = int(rng.integers(2**31))
                hook = self._step_hook(callback)
                batch = collect_episodes(self.env, policies, 1, seed=seed, on_step=hook)
                if batch is None:
                    return None
                batches.append(batch)
                policies = self.adapt_tasks(policies, batch, rngs=rngs)
        return EpisodeBatch.concatenate(batches)

    def train(self, data: EpisodeBatch) -> dict[str, float]:
        one_hot = th.nn.functional.one_hot(data.actions[..., 0], N_ARMS) * data.mask[..., None]
        self.pulls = self.pulls + one_hot.sum((0, 1, 2)).to(self.device)
        gained = (one_hot * data.rewards[..., None]).sum((0, 1, 2))
        self.sums = self.sums + gained.to(self.device)
        return {"mean_return": float(data.returns.mean())}

    def initial_policy(self, *, rng: np.random.Generator | None = None) -> ArmPolicy:
        mean = (self.sums / (self.pulls + 1)).cpu().numpy()
        return self._drawn(mean, np.full(N_ARMS, self.prior_weight), rng)

    def adapt(self, policy: Any, episodes: EpisodeBatch, *, rng: np.random.Generator) -> ArmPolicy:
        one_hot = th.nn.functional.one_hot(episodes.actions[..., 0], N_ARMS)
        pulled = (one_hot * episodes.mask[..., None]).sum((0, 1)).numpy()
        gained = (one_hot * episodes.rewards[..., None]).sum((0, 1)).numpy()
        counts = policy.counts + pulled
        mean = (policy.mean * policy.counts + gained) / counts
        return self._drawn(mean, counts, rng)

    def _drawn(self, mean: np.ndarray, counts: np.ndarray, rng: Any) -> ArmPolicy:
        rng = np.random.default_rng(0) if rng is None else rng
        return ArmPolicy(mean, counts, mean + rng.standard_normal(N_ARMS) / np.sqrt(counts))

    def _learned_state(self) -> dict[str, Tensor]:
        return {"sums": self.sums, "pulls": self.pulls}

    def _restore_learned_state(self, state: dict[str, Tensor]) -> None:
        for name in ("sums", "pulls"):
            if state[name].shape != (N_ARMS,):
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not ({N_ARMS},)")
        self.sums, self.pulls = (state[name].to(self.device) for name in ("sums", "pulls"))
