"""The loop behind `MetaAlgorithm.learn`: collect, train, log, save; undo what was cut short."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean

from metarl_agents.common.checkpoint import restored_generator
from metarl_agents.common.meta_algorithm.signals import interrupts_deferred

if TYPE_CHECKING:
    from metarl_agents.common.meta_algorithm.algorithm import MetaAlgorithm


class Snapshot(NamedTuple):
    """What a collect changes, as it was when the collect started.

    :param counters: by attribute name
    :param generators: states by name
    :param episode_infos: of the logged means
    :param successes: of the logged means
    """

    counters: dict[str, int]
    generators: dict[str, dict[str, Any]]
    episode_infos: list[Any]
    successes: list[Any]


def take_snapshot(agent: "MetaAlgorithm") -> Snapshot:
    """The agent's counters and generators now.

    :param agent: the agent
    """
    return Snapshot(
        {name: int(getattr(agent, name)) for name in agent._counter_names},
        {name: dict(rng.bit_generator.state) for name, rng in agent._generators().items()},
        list(agent.ep_info_buffer or ()),
        list(agent.ep_success_buffer or ()),
    )


def restore_snapshot(agent: "MetaAlgorithm", snapshot: Snapshot) -> None:
    """Puts counters and generators back.

    :param agent: the agent
    :param snapshot: of it
    """
    for name, count in snapshot.counters.items():
        setattr(agent, name, count)
    generators = {name: restored_generator(s) for name, s in snapshot.generators.items()}
    agent._set_generators(generators)
    for buffer, values in (
        (agent.ep_info_buffer, snapshot.episode_infos),
        (agent.ep_success_buffer, snapshot.successes),
    ):
        if buffer is not None:
            buffer.clear()
            buffer.extend(values)


def learn(
    agent: "MetaAlgorithm",
    total_timesteps: int,
    callback: MaybeCallback,
    log_interval: int | None,
    tb_log_name: str | None,
    reset_num_timesteps: bool,
    progress_bar: bool,
    *,
    checkpoint_path: str | Path | None,
    checkpoint_interval: int,
    finished: Callable[[], bool] | None,
) -> None:
    """What `MetaAlgorithm.learn` does; see there.

    :param agent: who learns
    :param finished: also stops where this is true between two meta-iterations
    """
    if agent.env is None:
        raise ValueError("the agent has no env to learn in: call set_env(env) first")
    intervals = {"log_interval": log_interval, "checkpoint_interval": checkpoint_interval}
    for name, interval in intervals.items():
        _check_interval(name, interval)
    tb_log_name = type(agent).__name__ if tb_log_name is None else tb_log_name
    total_timesteps, callback = agent._setup_learn(
        total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
    )
    loop = TrainingLoop(
        agent,
        callback,
        total_timesteps,
        log_interval=log_interval,
        checkpoint_path=checkpoint_path,
        checkpoint_interval=checkpoint_interval,
        finished=finished,
    )
    # SB3's callbacks read `total_timesteps` and `tb_log_name` in the locals.
    callback.on_training_start(locals(), globals())
    loop.run()


class TrainingLoop:
    """One call of `learn`.

    :param agent: who learns
    :param callback: of the call, initialised
    :param total_timesteps: where to stop
    :param log_interval: meta-iterations between log entries, None for no log
    :param checkpoint_path: file to save to, or None
    :param checkpoint_interval: meta-iterations between saves
    :param finished: also stops where this is true between two meta-iterations
    """

    def __init__(
        self,
        agent: "MetaAlgorithm",
        callback: BaseCallback,
        total_timesteps: int,
        *,
        log_interval: int | None,
        checkpoint_path: str | Path | None,
        checkpoint_interval: int,
        finished: Callable[[], bool] | None,
    ) -> None:
        self.agent, self.callback, self.total_timesteps = agent, callback, total_timesteps
        self.log_interval = log_interval
        self.checkpoint_path = checkpoint_path
        self.checkpoint_interval = checkpoint_interval
        self.finished = finished or (lambda: False)
        self.updating = False

    def run(self) -> None:
        """Trains to the end, or undoes the unfinished collect and passes on what interrupted it."""
        try:
            # At once: a path that cannot be written to should not cost hours of training.
            self._save()
            self._iterate()
        except KeyboardInterrupt:
            self._rewind()
            self._save()
            self.callback.on_training_end()
            raise
        except BaseException:
            self._rewind()
            raise
        self._save()
        self.callback.on_training_end()

    def _iterate(self) -> None:
        agent, iteration = self.agent, 0
        while agent.num_timesteps < self.total_timesteps and not self.finished():
            data = self._collect()
            if data is None:
                self._rewind()
                return
            metrics = self._update(data)
            iteration += 1
            if self.log_interval is not None and iteration % self.log_interval == 0:
                self._log(iteration, metrics)
            if self.checkpoint_interval and iteration % self.checkpoint_interval == 0:
                self._save()

    def _collect(self) -> Any | None:
        agent = self.agent
        agent._snapshot = take_snapshot(agent)
        self._update_progress()
        self.callback.on_rollout_start()
        data = agent.collect(self.callback)
        if data is not None:
            self.callback.on_rollout_end()
            self._update_progress()
        return data

    def _update(self, data: Any) -> dict[str, float]:
        # Half an update can be neither undone nor saved.
        with interrupts_deferred():
            self.updating = True
            metrics = self.agent.train(data)
            self.agent._n_updates += 1
            self.agent._snapshot = None
            self.updating = False
        return metrics

    def _update_progress(self) -> None:
        self.agent._update_current_progress_remaining(
            self.agent.num_timesteps, self.total_timesteps
        )

    def _log(self, iteration: int, metrics: dict[str, float]) -> None:
        logger = self.agent.logger
        for name, value in metrics.items():
            logger.record(name if "/" in name else f"train/{name}", value)
        logger.record("train/n_updates", self.agent._n_updates, exclude="tensorboard")
        self.agent.dump_logs(iteration)

    def _rewind(self) -> None:
        if self.agent._snapshot is not None:
            restore_snapshot(self.agent, self.agent._snapshot)
            self.agent._snapshot = None

    def _save(self) -> None:
        if self.checkpoint_path is not None and not self.updating:
            self.agent.save(self.checkpoint_path)


class CallbackHook:
    """Counts env steps and hands them to SB3's callbacks; `collect_episodes` calls it.

    :param agent: who learns
    :param callback: of `learn`
    """

    def __init__(self, agent: "MetaAlgorithm", callback: BaseCallback) -> None:
        self.agent, self.callback = agent, callback

    def update_locals(self, step: dict[str, Any]) -> None:
        """What callbacks find in their `locals`, with SB3's names.

        :param step: of the current step
        """
        self.callback.update_locals({"self": self.agent, **step})

    def __call__(self, n_new_steps: int, infos: list[dict[str, Any]], dones: np.ndarray) -> bool:
        self.agent.num_timesteps += n_new_steps
        self.callback.update_locals({"infos": infos, "dones": dones})
        if not self.callback.on_step():
            return False
        ended = np.flatnonzero(dones)
        if ended.size:
            self.agent._update_info_buffer([infos[i] for i in ended.tolist()], dones[ended])
        self.agent._episode_num += int(ended.size)
        return True


def dump_logs(agent: "MetaAlgorithm", iteration: int) -> None:
    """One log entry with the names that SB3's on-policy agents use.

    :param agent: who learns
    :param iteration: meta-iterations in this `learn`
    """
    logger, episodes, successes = agent.logger, agent.ep_info_buffer, agent.ep_success_buffer
    elapsed = max((time.time_ns() - agent.start_time) / 1e9, sys.float_info.epsilon)
    n_steps = agent.num_timesteps - agent._num_timesteps_at_start
    if iteration > 0:
        logger.record("time/iterations", iteration, exclude="tensorboard")
    if episodes:
        logger.record("rollout/ep_rew_mean", safe_mean([info["r"] for info in episodes]))
        logger.record("rollout/ep_len_mean", safe_mean([info["l"] for info in episodes]))
    if successes:
        logger.record("rollout/success_rate", safe_mean(successes))
    logger.record("time/fps", int(n_steps / elapsed))
    logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
    logger.record("time/total_timesteps", agent.num_timesteps, exclude="tensorboard")
    logger.dump(step=agent.num_timesteps)


def checked_timesteps(total_timesteps: float) -> int:
    """`total_timesteps` as an int; 1e7 is one too.

    :param total_timesteps: what the user said
    """
    number = isinstance(total_timesteps, (int, float, np.number))
    if isinstance(total_timesteps, bool) or not number:
        raise TypeError(f"total_timesteps={total_timesteps!r} must be a number of env steps")
    if not (0 <= total_timesteps < 2**63 and total_timesteps == int(total_timesteps)):
        raise ValueError(f"total_timesteps={total_timesteps!r} must be a non-negative whole number")
    return int(total_timesteps)


def _check_interval(name: str, interval: int | None) -> None:
    if interval is None:
        return
    if isinstance(interval, bool) or interval != int(interval) or interval < 1:
        raise ValueError(f"{name}={interval!r} must be an integer of at least 1, or None")
