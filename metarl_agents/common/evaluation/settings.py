"""The arguments of an evaluation, checked, and the record that it fills."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl_agents.common.evaluation.intervals import Floats


@dataclass(frozen=True)
class Settings:
    """How an evaluation is played; see `evaluate_adaptation`."""

    n_adapt_steps: int
    episodes_per_step: int
    n_eval_episodes: int | None
    deterministic: bool
    seed: int
    exact_regret: bool | None = None

    def __post_init__(self) -> None:
        self._check_count("n_adapt_steps", 0, "0 scores the un-adapted policy only")
        self._check_count("episodes_per_step", 1, "1 adapts after every episode")
        self._check_count("seed", 0, "0 is the default")
        if self.n_eval_episodes is not None:
            self._check_count("n_eval_episodes", 1, "None scores the adaptation episodes")
        if not isinstance(self.deterministic, bool | np.bool_):
            raise ValueError(f"deterministic={self.deterministic!r} must be True or False")
        object.__setattr__(self, "deterministic", bool(self.deterministic))
        if not (self.exact_regret is None or isinstance(self.exact_regret, bool)):
            raise ValueError(f"exact_regret={self.exact_regret!r} must be None, True or False")

    def _check_count(self, name: str, least: int, hint: str) -> None:
        value = getattr(self, name)
        if not is_whole(value) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer of at least {least}; {hint}")
        # NumPy's integers are not JSON.
        object.__setattr__(self, name, int(value))

    @property
    def on_line(self) -> bool:
        """Whether the adaptation episodes themselves are scored."""
        return self.n_eval_episodes is None

    @property
    def n_collections(self) -> int:
        """How often adaptation episodes are played: on-line also after the last adaptation."""
        return self.n_adapt_steps + self.on_line

    @property
    def adapts_deterministically(self) -> bool:
        """Whether adaptation episodes take the most likely actions, as scored ones may."""
        return self.on_line and self.deterministic

    @property
    def n_scored_episodes(self) -> int:
        """E, scored episodes per step."""
        return self.episodes_per_step if self.n_eval_episodes is None else self.n_eval_episodes


class Scores:
    """What M tasks earned, filled in step by step.

    :param n_tasks: M
    :param settings: of the evaluation
    """

    def __init__(self, n_tasks: int, settings: Settings) -> None:
        shape = (n_tasks, settings.n_adapt_steps + 1)
        self.returns: Floats = np.full((*shape, settings.n_scored_episodes), np.nan)
        self.lengths = np.zeros((*shape, settings.n_scored_episodes), dtype=np.int64)
        self.policy_returns: Floats = np.full(shape, np.nan)
        self.optimal_returns: Floats = np.full(n_tasks, np.nan)
        # Expected returns of the adaptation episodes, summed, and how many of them there were.
        self.adaptation_returns: Floats = np.zeros((n_tasks, settings.n_collections))
        self.n_adaptation_episodes = np.zeros((n_tasks, settings.n_collections), dtype=np.int64)

    def regret(self, settings: Settings, learner: str) -> Floats | None:
        """Expected regret (M, K+1), or None where env or policies do not allow it.

        :param settings: of the evaluation
        :param learner: for the error where regret was asked for and is impossible
        """
        regret = self.optimal_returns[:, None] - self.policy_returns
        if settings.exact_regret is False:
            return None
        if not np.isnan(regret).any():
            return regret
        if settings.exact_regret:
            raise ValueError(
                f"exact_regret=True is impossible for {learner!r} here: its policies need "
                "action_probabilities(observations, stage=..., deterministic=...), and the env "
                "action_masks(observations) if they take masks; use exact_regret=None"
            )
        return None

    def adaptation_regret(self) -> Floats:
        """Expected regret of the adaptation episodes that were played, (M, K or K+1).

        NaN where it is not known.
        """
        return self.optimal_returns[:, None] * self.n_adaptation_episodes - self.adaptation_returns


def is_whole(value: Any) -> bool:
    """Whether it is an integer, and not True or False.

    :param value: any object
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def checked_n_tasks(tasks: Sequence[Any] | int) -> int:
    """How many tasks there will be; refuses a number below 1 and an empty list.

    :param tasks: the argument of `evaluate_adaptation`
    """
    if isinstance(tasks, Sequence | np.ndarray):
        if len(tasks) == 0:
            raise ValueError(
                "tasks is empty; give a list of tasks or a number of held-out tasks to draw"
            )
        _check_tasks(tasks)
        return len(tasks)
    if not is_whole(tasks) or tasks < 1:
        raise ValueError(f"tasks={tasks!r} must be an integer of at least 1, or a list of tasks")
    return int(tasks)


def _check_tasks(tasks: Iterable[Any]) -> None:
    for index, task in enumerate(tasks):
        if callable(getattr(task, "to_array", None)):
            continue
        remedy = "pass tasks of the env, e.g. env.unwrapped.sample_tasks(5, split='test')"
        if isinstance(task, Sequence | np.ndarray | np.number) and not isinstance(task, str):
            remedy = "make tasks of raw arrays by env.unwrapped.task_distribution.from_array(array)"
        raise ValueError(
            f"tasks[{index}]={task!r} is a {type(task).__name__} without to_array(), no task "
            f"(metarl_envs.core.Task); {remedy}"
        )
