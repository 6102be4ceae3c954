"""What the checks look at: fresh agents of the class under test, and their states."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.vec_env import make_task_vec_env
from metarl_envs.probes import SignFlip, WhichArm

EnvSource = str | Callable[[], gym.Env[Any, Any]]
N_ITERATIONS = 3


class MetaAlgorithmError(AssertionError):
    """An agent breaks the contract: the message names the check and says what was seen."""


class NotApplicableError(Exception):
    """A check has nothing to look at here."""


class Configuration(NamedTuple):
    """What `check_meta_algorithm` was asked to look at.

    :param algorithm: the class under test
    :param policy: first constructor argument
    :param env: id, or callable that makes a gymnasium env
    :param kwargs: further constructor arguments
    :param total_timesteps: of one training; None for three meta-iterations
    :param probe: env in which adapting pays; None for one of metarl_envs.probes
    :param probe_kwargs: constructor arguments that replace `kwargs` on the probe
    :param probe_timesteps: trained on the probe before adapting
    :param n_adapt_episodes: episodes to adapt with on the probe
    :param seed: of everything random
    """

    algorithm: type[MetaAlgorithm]
    policy: Any
    env: EnvSource
    kwargs: Mapping[str, Any]
    total_timesteps: int | None
    probe: EnvSource | None
    probe_kwargs: Mapping[str, Any] | None
    probe_timesteps: int
    n_adapt_episodes: int
    seed: int


class State(NamedTuple):
    """All that decides how an agent goes on.

    :param learned: tensors by name
    :param generators: states by name
    :param counters: by name
    """

    learned: dict[str, th.Tensor]
    generators: dict[str, Any]
    counters: dict[str, int]


def require(condition: Any, message: str) -> None:
    """`MetaAlgorithmError` with `message` unless `condition` holds.

    :param condition: what must be true
    :param message: what was seen and what is asked for
    """
    if not condition:
        raise MetaAlgorithmError(message)


def require_raises(call: Callable[[], Any], *kinds: type[Exception], what: str) -> None:
    """`MetaAlgorithmError` unless `call` raises one of `kinds` with a sentence.

    :param call: what must fail
    :param kinds: of exceptions that are right
    :param what: what was tried, for the message
    """
    try:
        call()
    except kinds as error:
        require(" " in str(error), f"{what} was refused without a sentence: {error!r}")
        return
    except Exception as error:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise MetaAlgorithmError(
            f"{what} raised {type(error).__name__} ({error}) instead of {names}"
        ) from error
    raise MetaAlgorithmError(f"{what} was accepted")


def state_of(agent: MetaAlgorithm) -> State:
    """A copy of the agent's state.

    :param agent: the agent
    """
    return State(
        {name: tensor.detach().cpu().clone() for name, tensor in agent._learned_state().items()},
        {name: rng.bit_generator.state for name, rng in agent._generators().items()},
        {name: int(getattr(agent, name)) for name in agent._counter_names},
    )


def difference(first: State, second: State) -> str | None:
    """What differs between two states, None where they are bit-equal.

    :param first: one state
    :param second: the other
    """
    if first.learned.keys() != second.learned.keys():
        return f"names of what was learned: {sorted(first.learned)} != {sorted(second.learned)}"
    for name, tensor in first.learned.items():
        if not _bit_equal(tensor, second.learned[name]):
            return f"learned tensor {name!r}"
    if first.generators != second.generators:
        return "random generators"
    if first.counters != second.counters:
        return f"counters {first.counters} != {second.counters}"
    return None


def require_same(first: State, second: State, what: str) -> None:
    """`MetaAlgorithmError` unless two states are bit-equal.

    :param first: one state
    :param second: the other
    :param what: which two, for the message
    """
    differing = difference(first, second)
    require(differing is None, f"{what} differ in {differing}")


class Subject:
    """An algorithm under test: makes agents and environments, and cleans up after them.

    :param configuration: what to look at
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.algorithm, self.seed = configuration.algorithm, configuration.seed
        self.folder = Path(tempfile.mkdtemp(prefix="check_meta_algorithm_"))
        self._envs: list[Any] = []

    def agent(self, *, env: Any | None = None, probe: bool = False, **overrides: Any) -> Any:
        """A fresh agent.

        :param env: in place of the env to look at
        :param probe: whether to put it on the probe
        :param overrides: of its constructor arguments
        """
        configuration = self.configuration
        kwargs = configuration.kwargs
        if probe and configuration.probe_kwargs is not None:
            kwargs = configuration.probe_kwargs
        arguments = {"seed": self.seed, **kwargs, **overrides}
        where = env if env is not None else self.vec_env(probe=probe)
        return self.algorithm(configuration.policy, where, **arguments)

    def single_env(self, *, probe: bool = False) -> gym.Env[Any, Any]:
        """A fresh gymnasium env.

        :param probe: whether to make the probe
        """
        source = self._source(probe)
        env = gym.make(source) if isinstance(source, str) else source()
        self._envs.append(env)
        return env

    def vec_env(self, n_envs: int = 1, *, probe: bool = False) -> VecEnv:
        """A fresh vector env.

        :param n_envs: sub-environments
        :param probe: whether to make the probe
        """
        source = self._source(probe)
        if isinstance(source, str):
            venv = make_task_vec_env(source, n_envs)
        else:
            venv = DummyVecEnv([lambda: Monitor(source()) for _ in range(n_envs)])
        self._envs.append(venv)
        return venv

    @cached_property
    def total_timesteps(self) -> int:
        """Env steps of one training."""
        if self.configuration.total_timesteps is not None:
            return self.configuration.total_timesteps
        agent = self.agent()
        agent.learn(1)
        require(agent.num_timesteps >= 1, "learn(1) took no env step")
        return int(N_ITERATIONS * agent.num_timesteps)

    @cached_property
    def _training(self) -> tuple[Any, list[int]]:
        agent, boundaries = self.agent(), _Boundaries()
        agent.learn(self.total_timesteps, callback=boundaries)
        return agent, boundaries.found

    @property
    def trained(self) -> Any:
        """An agent that trained without a stop; not to be changed."""
        return self._training[0]

    @property
    def boundaries(self) -> list[int]:
        """Env steps after each meta-iteration of the training without a stop; at least two."""
        found = self._training[1]
        require(
            len(found) >= 2,
            f"total_timesteps={self.total_timesteps} are {len(found)} meta-iteration(s), at least "
            "two are needed to stop in between: give more",
        )
        return found

    @cached_property
    def reference(self) -> State:
        """Where training without a stop ends."""
        return state_of(self.trained)

    @cached_property
    def saved(self) -> Path:
        """The file of the agent that trained without a stop."""
        path = self.folder / "trained.zip"
        self.trained.save(path)
        return path

    def resume(self, agent: Any) -> Any:
        """Trains on to where the training without a stop ends.

        :param agent: that stopped before
        """
        remaining = self.total_timesteps - agent.num_timesteps
        return agent.learn(max(remaining, 0), reset_num_timesteps=False)

    def observations(self, n: int = 32) -> np.ndarray:
        """(n, *obs_shape) from the observation space.

        :param n: how many
        """
        space = self.trained.observation_space
        space.seed(self.seed)
        return np.stack([np.asarray(space.sample()) for _ in range(n)])

    def close(self) -> None:
        """Closes all envs and removes all files."""
        while self._envs:
            self._envs.pop().close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _source(self, probe: bool) -> EnvSource:
        configuration = self.configuration
        if not probe:
            return configuration.env
        return self._default_probe if configuration.probe is None else configuration.probe

    @cached_property
    def _default_probe(self) -> EnvSource:
        discrete = isinstance(self.vec_env().action_space, gym.spaces.Discrete)
        return WhichArm if discrete else SignFlip


class _Boundaries(BaseCallback):
    """Notes the env steps at the end of every collect."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def _on_rollout_end(self) -> None:
        self.found.append(self.model.num_timesteps)

    def _on_step(self) -> bool:
        return True


class StopAt(BaseCallback):
    """Does something at the n-th call, by default asks to stop.

    :param n: the call, from 1
    :param action: what to do instead
    """

    def __init__(self, n: int, action: Callable[[Any], bool] | None = None) -> None:
        super().__init__()
        self.n, self.action = n, action

    def _on_step(self) -> bool:
        if self.n_calls != self.n:
            return True
        return False if self.action is None else self.action(self.model)


def actions_of(policy: Any, observations: np.ndarray) -> np.ndarray:
    """The most likely action for each observation, asked one by one.

    :param policy: the policy
    :param observations: (n, *obs_shape)
    """
    rows = [policy.predict(row[None], deterministic=True)[0] for row in observations]
    return np.concatenate([np.atleast_1d(np.asarray(row)) for row in rows])


def global_random_state() -> tuple[Any, ...]:
    """The states of NumPy's and torch's global generators, comparable.

    Python's own is left out, since run-time type checkers draw from it.
    """
    numpy_state = np.random.get_state(legacy=False)
    return repr(numpy_state), th.get_rng_state().numpy().tobytes()


def _bit_equal(first: th.Tensor, second: th.Tensor) -> bool:
    same_kind = first.dtype == second.dtype and first.shape == second.shape
    # Bytes, not values: NaN equals NaN and 0.0 differs from -0.0.
    return same_kind and first.numpy().tobytes() == second.numpy().tobytes()
