"""Checks of SB3's callbacks, progress bar and logs."""

import csv
from collections import Counter
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.logger import configure

from metarl_agents.common.testing.subject import StopAt, Subject, require, require_same, state_of

LOGGED = (
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "time/fps",
    "time/iterations",
    "time/total_timesteps",
)


def callbacks_see_every_step(subject: Subject) -> None:
    """One call per step of the vector env, with SB3's hooks in SB3's order."""
    agent, callback = subject.agent(env=subject.vec_env(2)), _Recorder()
    agent.learn(subject.total_timesteps, callback=callback)
    calls = callback.calls
    require(calls["step"] * 2 == agent.num_timesteps, f"{calls['step']} calls of on_step for "
            f"{agent.num_timesteps} env steps in 2 sub-environments")  # fmt: skip
    require(
        calls["rollout_start"] == calls["rollout_end"] >= 1,
        f"{calls['rollout_start']} starts and {calls['rollout_end']} ends of rollouts",
    )
    require(
        calls["training_start"] == calls["training_end"] == 1,
        "on_training_start and on_training_end are not called once each",
    )
    missing = {"infos", "dones", "rewards", "actions", "new_obs"} - callback.keys
    require(not missing, f"callback.locals lacks {sorted(missing)}")


def callbacks_stop_training(subject: Subject) -> None:
    """A callback, a function or SB3's own that returns False ends `learn` at once."""
    agent, callback = subject.agent(), StopAt(2)
    agent.learn(subject.total_timesteps, callback=callback)
    require(callback.n_calls == 2, f"asked to stop at call 2, stopped at {callback.n_calls}")
    calls: list[int] = []

    def stop(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        calls.append(1)
        return False

    subject.agent().learn(subject.total_timesteps, callback=stop)
    require(len(calls) == 1, "a function that returns False does not stop training")
    episodes = StopTrainingOnMaxEpisodes(1)
    subject.agent().learn(subject.total_timesteps, callback=[episodes])
    require(episodes.n_episodes == 1, "SB3's StopTrainingOnMaxEpisodes does not stop training")


def stopping_leaves_a_consistent_agent(subject: Subject) -> None:
    """Stopped in the first collect, the agent is as if it had never begun."""
    agent, untouched = subject.agent(), subject.agent()
    agent.learn(subject.total_timesteps, callback=StopAt(1))
    untouched.learn(0)
    ours, theirs = state_of(agent), state_of(untouched)
    counters = {**ours.counters, "_total_timesteps": 0}
    require_same(
        ours._replace(counters=counters),
        theirs._replace(counters={**theirs.counters, "_total_timesteps": 0}),
        "an agent stopped in its first collect and a fresh one",
    )


def progress_bar_works(subject: Subject) -> None:
    """`learn(progress_bar=True)` shows one and learns the same."""
    agent = subject.agent()
    agent.learn(subject.total_timesteps, progress_bar=True)
    require_same(subject.reference, state_of(agent), "training with and without progress bar")


def tensorboard_log_is_written(subject: Subject) -> None:
    """`tensorboard_log=folder` gives SB3's folders, named after the class or `tb_log_name`."""
    folder = subject.folder / "tensorboard"
    agent = subject.agent(tensorboard_log=str(folder))
    agent.learn(1)
    agent.learn(1, tb_log_name="named")
    for name in (f"{subject.algorithm.__name__}_1", "named_1"):
        require(list((folder / name).glob("events.*")), f"there is no TensorBoard log in {name}")


def log_has_sb3_names(subject: Subject) -> None:
    """Episode statistics, times and the numbers that `train` returns."""
    agent = subject.agent()
    agent.set_logger(configure(str(subject.folder / "log"), ["csv"]))
    agent.learn(subject.total_timesteps)
    agent.logger.close()
    with open(subject.folder / "log" / "progress.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    require(rows, "nothing was logged")
    missing = [name for name in LOGGED if name not in rows[-1]]
    require(not missing, f"the log lacks {missing}")
    require(any(name.startswith("train/") for name in rows[-1]), "the log has no train/...")
    last = float(rows[-1]["time/total_timesteps"])
    require(last == agent.num_timesteps, f"time/total_timesteps ends at {last}")


class _Recorder(BaseCallback):
    """Counts the calls of each hook."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.keys: set[str] = set()

    def _on_training_start(self) -> None:
        self.calls["training_start"] += 1

    def _on_rollout_start(self) -> None:
        self.calls["rollout_start"] += 1

    def _on_step(self) -> bool:
        self.calls["step"] += 1
        self.keys |= set(self.locals)
        return True

    def _on_rollout_end(self) -> None:
        self.calls["rollout_end"] += 1

    def _on_training_end(self) -> None:
        self.calls["training_end"] += 1
