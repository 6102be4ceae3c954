"""The arguments of an evaluation, checked, and the record that it fills."""

from collections.abc import Sequence
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
        _check_count("n_adapt_steps", self.n_adapt_steps, 0, "0 scores the un-adapted policy only")
        _check_count("episodes_per_step", self.episodes_per_step, 1, "1 adapts after every episode")
        if self.n_eval_episodes is not None:
            _check_count(
                "n_eval_episodes", self.n_eval_episodes, 1, "None scores the adaptation episodes"
            )
        _check_count("seed", self.seed, 0, "0 is the default")

    @property
    def on_line(self) -> bool:
        """Whether the adaptation episodes themselves are scored."""
        return self.n_eval_episodes is None

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
                f"exact_regret=True is impossible for {learner!r} here: the env needs "
                "optimal_returns() and policy_returns() "
                "(metarl_envs.core.ExactEnv) and the policy action_probabilities(); use "
                "exact_regret=None"
            )
        return None


def checked_tasks(tasks: Sequence[Any] | int) -> None:
    """Refuses a number of tasks below 1 and an empty list.

    :param tasks: the argument of `evaluate_adaptation`
    """
    if isinstance(tasks, bool) or (isinstance(tasks, int | np.integer) and tasks < 1):
        raise ValueError(f"tasks={tasks!r} must be at least 1, or a list of tasks")
    if not isinstance(tasks, int | np.integer) and len(tasks) == 0:
        raise ValueError(
            "tasks is empty; give a list of tasks or a number of held-out tasks to draw"
        )


def _check_count(name: str, value: Any, least: int, hint: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}; {hint}")
