"""What all learners of the demo share: the env, the held-out tasks, hyper-parameters, a log."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_agents import AdaptationResult
from zoo.config import BENCHMARKS, DemoConfig, Settings, parse_settings, read_yaml
from zoo.experiment import build_agent, evaluate_on_line, held_out_tasks

LABELS: Mapping[str, str] = {
    "meta_oracle": "meta-oracle",
    "mtsrl": "MTSRL",
    "mtsrl_plus": "MTSRL+",
    "mtsrl_plus_logged": "MTSRL+ from a log",
    "meta_lin_ts": "meta-LinTS (bandit)",
    "rlsvi": "RLSVI",
    "ppo": "SB3 PPO",
    "maskable_ppo": "SB3 MaskablePPO",
    "dqn_scratch": "SB3 DQN",
}
N_CONCURRENT = 4  # tasks that one agent learns from side by side


@dataclass(frozen=True)
class Entry:
    """What one learner did.

    :param result: on the held-out tasks
    :param experience: env steps before it met them
    :param history: regret of every task of meta-training, (R, K): R replicates, K tasks
    """

    result: AdaptationResult
    experience: str
    history: np.ndarray | None = None


class Lab:
    """Everything that the learners share.

    :param config: the demo's options
    """

    def __init__(self, config: DemoConfig) -> None:
        self.config = config
        self._benchmark = read_yaml(BENCHMARKS / "demo.yml")
        self.env_id = str(self._benchmark["env"])
        self.env_kwargs: dict[str, Any] = self._benchmark["env_kwargs"]

    @cached_property
    def tasks(self) -> list[Any]:
        """The held-out tasks."""
        seed = self.config.seed
        return held_out_tasks(
            self.env_id, self.config.n_test_tasks, seed=seed, env_kwargs=self.env_kwargs
        )

    def settings(self, name: str) -> Settings:
        """
        Hyper-parameters from the benchmark's file.

        :param name: of the agent
        """
        return parse_settings(self._benchmark["agents"][name], where=f"demo.yml, {name}")

    def make_env(self, **kwargs: Any) -> Any:
        """
        A single env, unwrapped.

        :param kwargs: further arguments of its constructor
        """
        return gym.make(self.env_id, **self.env_kwargs, **kwargs).unwrapped

    def agent(
        self,
        name: str,
        *,
        settings: Settings | None = None,
        n_replicates: int = 1,
        n_concurrent: int = 1,
    ) -> Any:
        """
        One of our agents, untrained.

        :param name: in ``ALGORITHMS``
        :param settings: hyper-parameters (default: those of the benchmark)
        :param n_replicates: independent repetitions at once
        :param n_concurrent: tasks that each of them plays at once
        """
        return build_agent(
            name,
            self.env_id,
            settings=settings or self.settings(name),
            seed=self.config.seed,
            n_envs=n_replicates * n_concurrent,
            env_kwargs=self.env_kwargs,
            n_replicates=n_replicates,
            n_episodes_per_task=self.config.n_episodes,
            track_regret=True,
            device="cpu",
        )

    def evaluate(self, learner: Any, *, deterministic: bool = False) -> AdaptationResult:
        """
        A learner in every held-out task.

        :param learner: any
        :param deterministic: take the most likely actions
        """
        return evaluate_on_line(
            learner,
            self.env_id,
            self.tasks,
            n_episodes=self.config.n_episodes,
            deterministic=deterministic,
            seed=self.config.seed,
            env_kwargs=self.env_kwargs,
        )


def write_log(path: Path, lab: Lab, *, n_tasks: int = 40, n_episodes: int = 100) -> int:
    """
    Log random recommendations as CSV, one row per step; returns the number of rows.

    :param path: the file
    :param lab: knows the env
    :param n_tasks: segments, of a stream that no agent meets
    :param n_episodes: customers of each
    """
    env, seed = lab.make_env(), lab.config.seed + 1
    env.action_space.seed(seed)
    width = int(np.prod(env.observation_space.shape))
    header = ["task", "episode", "stage", *(f"obs_{i}" for i in range(width)), "action", "reward"]
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, task in enumerate(env.sample_tasks(n_tasks, seed=seed)):
            for episode in range(n_episodes):
                for row in _random_episode(env, task, seed if episode == number == 0 else None):
                    writer.writerow([number, episode, *row])
                    rows += 1
    return rows


def _random_episode(env: Any, task: Any, seed: int | None) -> Iterator[list[Any]]:
    observation, info = env.reset(seed=seed, options={"task": task})
    stage, done = 0, False
    while not done:
        action = int(env.action_space.sample(mask=info["action_mask"]))
        following, reward, terminated, truncated, info = env.step(action)
        yield [stage, *np.ravel(observation).tolist(), action, float(reward)]
        observation, stage, done = following, stage + 1, terminated or truncated
