"""Runs that train an agent, ours or Stable-Baselines3's, and score it on held-out tasks.

Shapes: M tasks, K adaptations, E episodes.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from metarl_agents import (
    ALGORITHMS,
    FineTuned,
    FromScratch,
    Frozen,
    MetaAlgorithm,
    evaluate_adaptation,
    make_task_vec_env,
)
from metarl_agents.common.evaluation.result import AdaptationResult
from zoo.config import check_arguments
from zoo.experiment import env_spec, held_out_tasks
from zoo.studies.study import Context, Row, Run

CHECKPOINT_INTERVAL = 10  # meta-iterations
_N_RECENT = 20  # meta-iterations by which checkpoints are compared
_MOST_POINTS = 50  # of a learning curve in a table
_ROLES = {"frozen": Frozen, "finetuned": FineTuned, "scratch": FromScratch}


def meta_train(run: Run, context: Context) -> list[Row] | None:
    """
    Train one of our agents and let it adapt to held-out tasks; None where it was stopped.

    ``config``: ``algo``, ``env``, ``env_kwargs``, ``arguments``, ``n_tasks`` and ``protocols``:
    arguments of ``evaluate_adaptation``, and under ``arguments`` what the agent changes for it.
    ``budget``: ``n_iterations``, ``device``, and with ``keep: best`` the checkpoint that is scored
    is the one after the meta-iterations that earned most on training tasks, instead of the last.

    :param run: the run
    :param context: its surroundings
    """
    config, path = run.config, checkpoint_of(run, context.folder)
    agent = _agent(run, path)
    n_iterations = run.budget["n_iterations"]
    if agent._n_updates > n_iterations:
        raise ValueError(
            f"{path} has had {agent._n_updates} meta-iterations already, more than {n_iterations}: "
            "ask for as many, or keep the runs in another folder"
        )
    curve = LearningCurve(path.with_suffix(".curve.jsonl"), agent)
    best = BestCheckpoint(path, curve) if run.budget.get("keep") == "best" else None
    agent.set_logger(Logger(None, [curve] if best is None else [curve, best]))
    if agent._n_updates < n_iterations:
        # Counted in meta-iterations: how many steps these have depends on the episodes.
        agent.learn(
            2**62,
            callback=StopAfter(n_iterations, context),
            reset_num_timesteps=False,
            checkpoint_path=path,
            checkpoint_interval=CHECKPOINT_INTERVAL,
        )
    if agent._n_updates < n_iterations:
        return None
    rows: list[Row] = [row | {"env_steps": agent.num_timesteps} for row in curve.rows(n_iterations)]
    if best is not None:
        best.consider(n_iterations)
        path = scored_checkpoint_of(run, context.folder)
        agent = loaded(run, path)
    tasks = held_out_tasks(
        config["env"], config["n_tasks"], env_kwargs=config.get("env_kwargs", {})
    )
    for name, protocol in config["protocols"].items():
        arguments = dict(protocol)
        changes = arguments.pop("arguments", {})
        learner = loaded(run, path, **changes) if changes else agent
        result = evaluated(learner, run, tasks, arguments)
        rows += [row | {"env_steps": agent.num_timesteps} for row in adaptation_rows(result, name)]
    return rows


def sb3_train(run: Run, context: Context) -> list[Row] | None:
    """
    Train PPO on all tasks at once, where its role asks for it, and score it on held-out ones.

    ``config``: ``role`` (``frozen``, ``finetuned`` or ``scratch``), ``env``, ``env_kwargs``,
    ``n_envs``, ``arguments`` of PPO, ``in_task`` (what it changes within a task),
    ``n_steps_per_adaptation``, ``n_tasks`` and ``protocols``.
    ``budget``: ``n_timesteps``, ``device``.

    :param run: the run
    :param context: its surroundings
    """
    config, role = run.config, _ROLES[run.config["role"]]
    env_kwargs = config.get("env_kwargs", {})
    arguments = {"policy": "MlpPolicy", **config["arguments"], "device": run.budget["device"]}
    n_steps = 0
    if role is FromScratch:
        learner: Any = FromScratch(
            PPO, config["n_steps_per_adaptation"], model_kwargs={**arguments, **config["in_task"]}
        )
    else:
        venv = make_task_vec_env(config["env"], config["n_envs"], env_kwargs=env_kwargs)
        n_steps = int(run.budget["n_timesteps"])
        model = PPO(env=venv, seed=run.seed, **arguments)
        model.learn(n_steps, callback=StopAfter(None, context))
        if model.num_timesteps < n_steps:
            return None
        learner = (
            Frozen(model)
            if role is Frozen
            else FineTuned(model, config["n_steps_per_adaptation"], model_kwargs=config["in_task"])
        )
    tasks = held_out_tasks(config["env"], config["n_tasks"], env_kwargs=env_kwargs)
    rows: list[Row] = []
    for name, protocol in config["protocols"].items():
        result = evaluated(learner, run, tasks, protocol)
        rows += [row | {"env_steps": n_steps} for row in adaptation_rows(result, name)]
    return rows


def checkpoint_of(run: Run, folder: Path) -> Path:
    """
    Where a run keeps its agent.

    :param run: the run
    :param folder: of the study
    """
    return folder / f"{run.stem}.zip"


def scored_checkpoint_of(run: Run, folder: Path) -> Path:
    """
    The agent that a finished run was scored by: its last one, or its best.

    :param run: the run
    :param folder: of the study
    """
    last = checkpoint_of(run, folder)
    return _kept(last) if run.budget.get("keep") == "best" else last


def _kept(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".best.zip")


def loaded(run: Run, path: Path, **changes: Any) -> MetaAlgorithm:
    """
    The agent of a run, on an env of its own.

    :param run: the run
    :param path: its checkpoint
    :param changes: arguments of the constructor that are to be others
    """
    config = run.config
    venv = make_task_vec_env(
        config["env"], config["arguments"]["n_envs"], env_kwargs=config.get("env_kwargs", {})
    )
    cls = ALGORITHMS[config["algo"]]
    return cls.load(path, env=venv, device=run.budget["device"], **changes)


def evaluated(
    learner: Any, run: Run, tasks: Sequence[Any], protocol: Mapping[str, Any]
) -> AdaptationResult:
    """
    How well it adapts to held-out tasks.

    :param learner: who
    :param run: whose env and seed are meant
    :param tasks: M held-out tasks
    :param protocol: further arguments of ``evaluate_adaptation``
    """
    spec = env_spec(run.config["env"], run.config.get("env_kwargs"))
    return evaluate_adaptation(learner, spec, tasks, seed=run.seed, exact_regret=False, **protocol)


def adaptation_rows(result: AdaptationResult, protocol: str) -> list[dict[str, Any]]:
    """
    One row per adaptation step: the mean return, and that of every task.

    :param result: an evaluation
    :param protocol: its name
    """
    means = result.returns.mean(axis=-1)
    return [
        {
            "kind": "adaptation",
            "protocol": protocol,
            "step": step,
            "return": f"{means[:, step].mean():.3f}",
            "by_task": " ".join(f"{value:.2f}" for value in means[:, step]),
        }
        for step in range(means.shape[1])
    ]


class StopAfter(BaseCallback):
    """
    Stops an agent that has had its meta-iterations, or whose time is over.

    :param n_iterations: how many; None for no such limit
    :param context: of the run
    """

    def __init__(self, n_iterations: int | None, context: Context) -> None:
        super().__init__()
        self.n_iterations, self.context = n_iterations, context

    def _on_step(self) -> bool:
        n_done = self.model._n_updates
        is_done = self.n_iterations is not None and n_done >= self.n_iterations
        return not (is_done or self.context.is_over())


class LearningCurve(KVWriter):
    """
    Keeps what an agent logs of its returns, one line per meta-iteration.

    :param path: file, which is gone on with where it exists
    :param agent: who logs
    """

    _KEYS = {"train/pre_update_return": "0", "train/post_update_return": "K"}

    def __init__(self, path: Path, agent: MetaAlgorithm) -> None:
        self.path, self.agent = path, agent

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """
        Keep one entry of the log.

        :param key_values: what was logged
        :param key_excluded: not looked at
        :param step: env steps
        """
        returns = {
            step: round(float(key_values[key]), 4)
            for key, step in self._KEYS.items()
            if key in key_values
        }
        line = {"iteration": self.agent._n_updates, "returns": returns}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Nothing is open between two entries."""

    def recent_means(self, iterations: Sequence[int]) -> list[float]:
        """
        Mean returns after adaptation of the 20 meta-iterations up to each of some.

        :param iterations: the last of each 20; -infinity where there are not as many
        """
        earned = {i: returns["K"] for i, returns in self._by_iteration().items() if "K" in returns}
        means = []
        for last in iterations:
            recent = range(last - _N_RECENT + 1, last + 1)
            found = [earned[i] for i in recent if i in earned]
            means.append(float(np.mean(found)) if len(found) == _N_RECENT else -math.inf)
        return means

    def rows(self, n_iterations: int) -> list[dict[str, Any]]:
        """
        The curve in at most 50 points, means over consecutive meta-iterations.

        :param n_iterations: how many of them count
        """
        by_iteration = self._by_iteration()
        length = max(1, math.ceil(n_iterations / _MOST_POINTS))
        rows = []
        for end in range(length, n_iterations + 1, length):
            block = [by_iteration[i] for i in range(end - length + 1, end + 1) if i in by_iteration]
            for step in sorted({step for returns in block for step in returns}):
                mean = np.mean([returns[step] for returns in block if step in returns])
                row = {"kind": "training", "iteration": end, "step": step}
                rows.append(row | {"return": f"{mean:.3f}"})
        return rows

    def _by_iteration(self) -> dict[int, dict[str, float]]:
        # A run that was killed repeats what came after its last checkpoint: the later line counts.
        return {entry["iteration"]: entry["returns"] for entry in self._entries()}

    def _entries(self) -> Iterator[dict[str, Any]]:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            with suppress(json.JSONDecodeError):  # cut off where the machine went down
                yield json.loads(line)


class BestCheckpoint(KVWriter):
    """
    Keeps a copy of the checkpoint after the meta-iterations that earned most.

    Agents log before they write a checkpoint: at an entry, the file is that of some iteration
    before.

    :param path: of the checkpoint
    :param curve: which hears of every entry first
    """

    def __init__(self, path: Path, curve: LearningCurve) -> None:
        self.path, self.curve = path, curve
        self.kept = _kept(path)
        """the copy"""

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """
        Look at the checkpoint that was written last.

        :param key_values: not looked at
        :param key_excluded: not looked at
        :param step: not looked at
        """
        last = self.curve.agent._n_updates - 1
        if last and last % CHECKPOINT_INTERVAL == 0:
            self.consider(last)

    def close(self) -> None:
        """Nothing is open between two entries."""

    def consider(self, iteration: int) -> None:
        """
        Copy the checkpoint if no other had better meta-iterations before it.

        :param iteration: of the checkpoint
        """
        rivals = range(CHECKPOINT_INTERVAL, iteration, CHECKPOINT_INTERVAL)
        earned, *before = self.curve.recent_means([iteration, *rivals])
        if earned > max(before, default=-math.inf) or not self.kept.exists():
            unfinished = self.kept.with_suffix(".part")
            shutil.copyfile(self.path, unfinished)
            unfinished.replace(self.kept)


def _agent(run: Run, path: Path) -> MetaAlgorithm:
    if path.exists():
        return loaded(run, path)
    config = run.config
    cls = ALGORITHMS[config["algo"]]
    check_arguments(config["arguments"], cls, where=run.name)
    return cls(
        "MlpPolicy",
        config["env"],
        env_kwargs=config.get("env_kwargs", {}),
        seed=run.seed,
        device=run.budget["device"],
        **config["arguments"],
    )
