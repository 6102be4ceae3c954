"""The base of all meta-learning agents: SB3's contract for training, acting and files."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl_agents.common.collect import check_flat_spaces
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm import agent_file, training
from metarl_agents.common.meta_algorithm.adaptation import adapted_policy
from metarl_agents.common.meta_algorithm.argument_checks import (
    CheckedArguments,
    check_policy,
    check_reports,
)
from metarl_agents.common.meta_algorithm.seeds import checked_seed, draw_seed
from metarl_agents.common.playing import StepHook
from metarl_agents.common.policies import PolicyPredictor, TaskPolicies, stack_policies
from metarl_agents.common.vec_env import AnyEnv, as_vec_env
from metarl_agents.common.vec_env.factory import checked_n_envs


class MetaAlgorithm(BaseAlgorithm, metaclass=CheckedArguments):
    """SB3's `BaseAlgorithm` for agents that learn from many tasks how to adapt to a new one.

    A subclass stores its constructor arguments unchanged under their own names, then calls this
    constructor, which ends in `_setup_model()`. (Or as SB3 does: calls it first, with
    `_init_setup_model=False`, and `_setup_model()` at its own end, if its own `_init_setup_model`
    says so.) `learn` is written once: collect, train, log, save, again.

    Training can be stopped anywhere and resumed bit for bit: everything random in a collect comes
    from a seed of `_begin_collect()`, and an unfinished collect is undone, in memory and in files.
    (With a `VecNormalize` env, save and restore its statistics yourself, as with SB3.)

    :param policy: name in `policy_aliases`, or a policy class
    :param env: id, gymnasium `Env` or `VectorEnv`, SB3 `VecEnv`; None to load a trained agent
    :param n_envs: sub-environments to make of an id; for a vector env it must be 1 (the default) or
        agree
    :param env_kwargs: for the constructor of every env that is made of an id, in `set_env` and
        `adapt_to` too; not saved, like the env itself
    :param stats_window_size: episodes that the logged means are taken over
    :param tensorboard_log: folder for TensorBoard, or None; not saved, since no file decides where
        `learn` writes: pass it to `load` again
    :param verbose: 0 for no output, 1 for tables and notices, 2 for debugging
    :param seed: of all random numbers of the agent; None for fresh entropy
    :param device: where tensors live: "auto", "cpu", "cuda", ...
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}
    _unsaved_arguments: ClassVar[frozenset[str]] = frozenset()
    """Constructor arguments that cannot be stored: `load` needs those that were given again."""
    _counter_names: ClassVar[tuple[str, ...]] = (
        "num_timesteps",
        "_n_updates",
        "_episode_num",
        "_total_timesteps",
    )

    def __init__(
        self,
        policy: str | type[Any],
        env: AnyEnv | str | None,
        *,
        n_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_policy(policy, self.policy_aliases, type(self).__name__)
        check_reports(stats_window_size, tensorboard_log, verbose)
        n_envs = checked_n_envs(n_envs)
        self._policy_argument = policy
        self.env_kwargs = env_kwargs
        self.stats_window_size = stats_window_size
        self._rng = np.random.default_rng(checked_seed(seed))
        self._snapshot: training.Snapshot | None = None
        venv = None if env is None else as_vec_env(env, n_envs, env_kwargs=env_kwargs)
        if venv is not None:
            check_flat_spaces(venv)
        super().__init__(
            policy,
            venv,
            learning_rate=0.0,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        if venv is None:
            self.n_envs = n_envs
        if _init_setup_model:
            self._setup_model()

    # What an agent defines.

    @abstractmethod
    def _setup_model(self) -> None:
        """Creates what is learned, and only what is missing: it runs again in `load`, `set_env`."""

    @abstractmethod
    def collect(self, callback: BaseCallback) -> Any | None:
        """Plays the episodes of one meta-iteration from a reset seeded by `_begin_collect()`.

        What was learned stays; `self._step_hook(callback)` counts steps and asks the callback.

        :param callback: of `learn`
        :return: what `train` needs, or None because a callback asked to stop
        """

    @abstractmethod
    def train(self, data: Any) -> dict[str, float]:
        """One meta-update.

        :param data: what `collect` returned
        :return: numbers to log under `train/`
        """

    @abstractmethod
    def initial_policy(self, *, rng: np.random.Generator | None = None) -> PolicyPredictor:
        """The policy before anything of the task is known; see `MetaLearner`."""

    @abstractmethod
    def adapt(
        self, policy: PolicyPredictor, episodes: EpisodeBatch, *, rng: np.random.Generator
    ) -> PolicyPredictor:
        """The policy after `episodes`; pure, and deterministic given `rng`; see `MetaLearner`."""

    @abstractmethod
    def _learned_state(self) -> dict[str, Tensor]:
        """All that was learned, by name: with it and its arguments the agent is complete."""

    @abstractmethod
    def _restore_learned_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `_learned_state` returned, on `self.device`; checks before it changes."""

    # For many tasks at once: agents with batched mathematics override these two.

    def initial_policies(self, rngs: Sequence[np.random.Generator]) -> TaskPolicies:
        """The initial policies of M tasks.

        :param rngs: M generators, one per task
        """
        return stack_policies([self.initial_policy(rng=rng) for rng in rngs])

    def adapt_tasks(
        self, policies: TaskPolicies, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> TaskPolicies:
        """The policies of M tasks after `episodes`.

        :param policies: of M tasks
        :param episodes: with leading task axis M
        :param rngs: M generators, one per task
        """
        return stack_policies(
            [
                self.adapt(policies[i], batch, rng=rng)
                for i, (batch, rng) in enumerate(zip(episodes.tasks(), rngs, strict=True))
            ]
        )

    # The user's verbs.

    def learn(
        self,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        checkpoint_path: str | Path | None = None,
        checkpoint_interval: int = 1,
    ) -> Self:
        """Meta-trains for at least `total_timesteps` env steps, up to the end of a meta-iteration.

        Where a callback stops it, or Ctrl-C does, the unfinished collect is undone: memory and file
        are those of the last finished meta-iteration, and learning on from there is bit-equal to
        learning without the stop. Ctrl-C during an update waits for its end; an error in one may
        leave memory half updated, but never the file.

        :param total_timesteps: env steps of all sub-environments, adaptation included
        :param callback: SB3 callback, list of them, or function
        :param log_interval: meta-iterations between two log entries; None to log nothing
        :param tb_log_name: name of the TensorBoard run; None for the class name
        :param reset_num_timesteps: False goes on counting where the last `learn` stopped
        :param progress_bar: whether to show one
        :param checkpoint_path: file to save to at the start, while learning and at the end
        :param checkpoint_interval: meta-iterations between two saves
        """
        return self._learn(
            training.checked_timesteps(total_timesteps),
            callback,
            log_interval,
            tb_log_name,
            reset_num_timesteps,
            progress_bar,
            checkpoint_path=checkpoint_path,
            checkpoint_interval=checkpoint_interval,
        )

    def _learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        checkpoint_path: str | Path | None = None,
        checkpoint_interval: int = 1,
        finished: Callable[[], bool] | None = None,
    ) -> Self:
        """`learn`, which also ends where `finished()` says so between two meta-iterations."""
        training.learn(
            self,
            total_timesteps,
            callback,
            log_interval,
            tb_log_name,
            reset_num_timesteps,
            progress_bar,
            checkpoint_path=checkpoint_path,
            checkpoint_interval=checkpoint_interval,
            finished=finished,
        )
        return self

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The action of the initial, un-adapted policy; `adapt_to` returns a policy that adapted.

        :param observation: one observation or a batch of them
        :param state: recurrent state, if the policy has one
        :param episode_start: where the recurrent state starts anew
        :param deterministic: whether to take the most likely action
        """
        policy = self.initial_policy()
        return policy.predict(observation, state, episode_start, deterministic)

    def adapt_to(
        self,
        env: AnyEnv | str,
        n_episodes: int,
        *,
        task: Any | None = None,
        seed: int | None = None,
    ) -> PolicyPredictor:
        """The policy adapted to one task by `n_episodes` episodes in it.

        Most agents adapt after each episode; agents that take gradient steps, after each batch of
        as many as they were trained with, and after what is left over. The agent stays untouched;
        the result is deterministic given `seed`.

        :param env: one environment of any kind; an env with tasks stays on one task throughout. An
            agent that was loaded without an env needs no `set_env` before
        :param n_episodes: episodes to play
        :param task: the task to play; None for the one that the env is on, or draws first
        :param seed: of everything random; None for fresh entropy
        """
        if isinstance(n_episodes, bool) or n_episodes < 0 or n_episodes != int(n_episodes):
            raise ValueError(f"n_episodes={n_episodes!r} must be a non-negative integer")
        venv = as_vec_env(env, env_kwargs=self._kwargs_for(env))
        try:
            return adapted_policy(self, venv, int(n_episodes), task, checked_seed(seed))
        finally:
            if isinstance(env, str):
                venv.close()

    def set_env(self, env: AnyEnv | str, force_reset: bool = True) -> None:
        """Replaces the env; spaces and number of sub-environments must be those of the agent.

        :param env: of any kind; of an id, `n_envs` sub-environments are made with `env_kwargs`
        :param force_reset: kept for SB3's sake: every collect starts with a reset anyway
        """
        n_envs = self.n_envs if isinstance(env, str) else 1
        venv = as_vec_env(env, n_envs, env_kwargs=self._kwargs_for(env))
        if venv.num_envs != self.n_envs:
            raise ValueError(
                f"env has {venv.num_envs} sub-environment(s), the agent n_envs={self.n_envs}: use "
                f"{type(self).__name__}.load(path, env) to go on with another number"
            )
        self._check_spaces(venv)
        super().set_env(venv, force_reset)
        self._setup_model()

    def set_random_seed(self, seed: int | None = None) -> None:
        """Restarts the agent's own generator, the env's and the action space's; no global one.

        :param seed: None leaves all as they are
        """
        if seed is None:
            return
        self._rng = np.random.default_rng(checked_seed(seed))
        self.action_space.seed(seed)
        if self.env is not None:
            self.env.seed(seed)

    # Files.

    def save(  # type: ignore[override]
        self,
        path: str | Path,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Saves the agent so that `load` goes on exactly: one zip of JSON and tensors, no pickle.

        In the middle of a collect, the state at its start is saved. The env is not saved.

        :param path: where to; `.zip` is added where there is no suffix
        :param exclude: not supported, the file holds all that is learned and nothing else
        :param include: not supported either
        """
        if exclude or include:
            raise ValueError(
                f"exclude={exclude!r}, include={include!r}: the file holds exactly what the agent "
                "needs to go on; leave both out"
            )
        agent_file.save_agent(self, path)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | Path,
        env: AnyEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: Mapping[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """A new agent from a file that `save` of this class wrote; nothing in the file is executed.

        `ValueError` names the file where anything is wrong with it, or with what goes with it.

        :param path: the file
        :param env: env to go on in, of any kind. None for an agent that adapts to the env that
            `adapt_to` is given, and that `set_env` lets learn on; it predicts where it needs no env
            for that
        :param device: where tensors live
        :param custom_objects: not supported, files hold no objects
        :param print_system_info: whether to print the versions here and those that wrote the file
        :param force_reset: kept for SB3's sake: every collect starts with a reset anyway
        :param kwargs: constructor arguments to replace those in the file, or that no file holds
            (`env_kwargs`, `tensorboard_log`, functions of your own); a `seed` starts new random
            numbers instead of going on with the saved ones
        """
        if custom_objects:
            raise ValueError(
                f"custom_objects={custom_objects!r}: files hold no objects to replace; override "
                "constructor arguments by keyword instead"
            )
        return agent_file.load_agent(
            cls, path, env, device=device, print_versions=print_system_info, overrides=kwargs
        )

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """A copy of what was learned, as tensors by name under the key "learned_state"."""
        return {"learned_state": agent_file.cloned(self._learned_state())}

    def set_parameters(
        self,
        load_path_or_dict: str | Path | dict[str, Any],
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """Takes over what another agent of this class learned; after an error all is as before.

        A fresh agent with the same arguments then acts as the other one does. Generators and
        counters of env steps stay its own.

        :param load_path_or_dict: file, or what `get_parameters` returned
        :param exact_match: False keeps what the source does not have
        :param device: kept for SB3's sake: tensors go to the agent's own device
        """
        agent_file.set_learned_state(self, load_path_or_dict, exact_match)

    # For agents.

    @property
    def _episodes_per_adaptation(self) -> int:
        """Episodes that `adapt_to` plays before each adaptation."""
        return 1

    def _prepare_for(self, venv: VecEnv) -> None:
        """Lets an agent without an env read what it needs to act off the one it is to adapt to.

        Called before `initial_policy`; does nothing here.

        :param venv: of the agent's spaces
        """

    def _kwargs_for(self, env: AnyEnv | str) -> Mapping[str, Any] | None:
        return self.env_kwargs if isinstance(env, str) else None

    def _begin_collect(self) -> int:
        """A fresh seed for everything random in a collect, from the generator that files hold."""
        return draw_seed(self._rng)

    def _step_hook(self, callback: BaseCallback) -> StepHook:
        """What `collect_episodes` calls after every step: counts it, logs it, asks the callback."""
        return training.CallbackHook(self, callback)

    def _init_info_buffers(self) -> None:
        self.ep_info_buffer = deque(maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)

    def _generators(self) -> dict[str, np.random.Generator]:
        """The NumPy generators that files hold, by name; agents with more of them add theirs."""
        return {"rng": self._rng}

    def _set_generators(self, generators: Mapping[str, np.random.Generator]) -> None:
        """Takes over restored generators.

        :param generators: with the names of `_generators`
        """
        self._rng = generators["rng"]

    def dump_logs(self, iteration: int = 0) -> None:
        """Writes one log entry.

        :param iteration: meta-iterations in this `learn`
        """
        training.dump_logs(self, iteration)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # SB3's would move the channels of pictures, in the envs it is shown but in no others.
        assert isinstance(env, VecEnv)
        return env

    def _get_policy_from_name(self, policy_name: str) -> type[Any]:
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"policy={policy_name!r} is unknown to {type(self).__name__}: use one of "
                f"{sorted(self.policy_aliases)}"
            )
        return self.policy_aliases[policy_name]

    def _check_spaces(self, venv: VecEnv) -> None:
        check_for_correct_spaces(venv, self.observation_space, self.action_space)

    def _get_torch_save_params(self) -> NoReturn:
        raise NotImplementedError("agents are saved by `_learned_state`, not by SB3's state dicts")
