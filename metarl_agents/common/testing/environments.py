"""Checks that every kind of environment and device works."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl_agents.common.testing.subject import (
    NotApplicableError,
    Subject,
    require,
    require_raises,
    require_same,
    state_of,
)


def every_kind_of_env_gives_the_same(subject: Subject) -> None:
    """Env, VecEnv, VectorEnv and id train to the same bits, one sub-environment each."""
    kinds: dict[str, Any] = {
        "a gymnasium Env": subject.single_env(),
        "a DummyVecEnv": DummyVecEnv([lambda: Monitor(subject.single_env())]),
        "a SyncVectorEnv": SyncVectorEnv(
            [subject.single_env], autoreset_mode=AutoresetMode.SAME_STEP
        ),
    }
    source = subject.configuration.env
    if isinstance(source, str):
        kinds["an env id"] = source
    for kind, env in kinds.items():
        agent = subject.agent(env=env)
        agent.learn(subject.total_timesteps)
        require_same(subject.reference, state_of(agent), f"training in a vector env and in {kind}")


def several_tasks_at_once_work(subject: Subject) -> None:
    """With three sub-environments the agent learns, counts all steps and resumes exactly."""
    agent = subject.agent(env=subject.vec_env(3))
    agent.learn(subject.total_timesteps)
    require(agent.n_envs == 3, f"n_envs={agent.n_envs} in an env with three sub-environments")
    require(agent.num_timesteps % 3 == 0, "num_timesteps does not count all sub-environments")
    again = subject.agent(env=subject.vec_env(3))
    again.learn(agent.num_timesteps // 2)
    path = subject.folder / "three.zip"
    again.save(path)
    again = subject.algorithm.load(path, env=subject.vec_env(3))
    remaining = agent._total_timesteps - again.num_timesteps
    again.learn(max(remaining, 0), reset_num_timesteps=False)
    require_same(state_of(agent), state_of(again), "training with three envs in one and two pieces")


def vector_env_must_reset_in_the_same_step(subject: Subject) -> None:
    """Another autoreset mode would mix up episodes: it is refused with the remedy."""
    env = SyncVectorEnv([subject.single_env], autoreset_mode=AutoresetMode.NEXT_STEP)
    require_raises(lambda: subject.agent(env=env), ValueError, what="autoreset mode NEXT_STEP")


def env_can_be_replaced(subject: Subject) -> None:
    """`set_env` takes an env of the same spaces, `get_env` returns it; others are refused."""
    agent, venv = subject.agent(), subject.vec_env()
    agent.set_env(venv)
    require(agent.get_env() is venv, "get_env() does not return what set_env() was given")
    agent.learn(subject.total_timesteps)
    require_same(subject.reference, state_of(agent), "training in the first env and a replaced one")
    for what, env in (("another space", _OtherSpaces()), ("two envs", subject.vec_env(2))):
        require_raises(lambda e=env: agent.set_env(e), ValueError, what=f"set_env with {what}")  # type: ignore[misc]
    require(agent.get_env() is venv, "a refused set_env() replaced the env")
    require_raises(
        lambda: subject.algorithm.load(subject.saved, env=_OtherSpaces()),
        ValueError,
        what="load with an env of another space",
    )


def devices_agree(subject: Subject) -> None:
    """What was saved on one device goes on on the other, where there is one."""
    agent = subject.agent(device="cpu")
    require(agent.device.type == "cpu", f"device='cpu' gives {agent.device}")
    if not th.cuda.is_available():
        return
    agent = subject.agent(device="cuda")
    agent.learn(subject.total_timesteps)
    path = subject.folder / "cuda.zip"
    agent.save(path)
    for device in ("cpu", "cuda"):
        loaded = subject.algorithm.load(path, env=subject.vec_env(), device=device)
        require(loaded.device.type == device, f"load(device={device!r}) gives {loaded.device}")
        require_same(state_of(agent), state_of(loaded), f"the agent on cuda and loaded on {device}")
        loaded.learn(1, reset_num_timesteps=False)


def env_is_given_back_as_it_was(subject: Subject) -> None:
    """After training, and after a stop, the env draws its own tasks again."""
    venv: VecEnv = subject.vec_env()
    if not venv.has_attr("get_task"):
        raise NotApplicableError("the env has no tasks")
    subject.agent(env=venv).learn(1)
    tasks = []
    for seed in range(8):
        venv.seed(seed)
        venv.reset()
        tasks.append(venv.env_method("get_task")[0])
    require(
        any(task != tasks[0] for task in tasks),
        "after training the env stays on one task: a pinned task was not taken off",
    )


class _OtherSpaces(gym.Env[np.ndarray, np.ndarray]):
    """An env whose spaces are nobody's."""

    observation_space = gym.spaces.Box(-3.0, 3.0, (17,), dtype=np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (13,), dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(17), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(17), 0.0, True, False, {}
