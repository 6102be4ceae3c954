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
        self._check_count("n_adapt_steps", 0, "0 scores the un-adapted policy only")
        self._check_count("episodes_per_step", 1, "1 adapts after every episode")
        self._check_count("seed", 0, "0 is the default")
        if self.n_eval_episodes is not None:
            self._check_count("n_eval_episodes", 1, "None scores the adaptation episodes")
        object.__setattr__(self, "deterministic", bool(self.deterministic))

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


def is_whole(value: Any) -> bool:
    """Whether it is an integer, and not True or False.

    :param value: any object
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def checked_n_tasks(tasks: Sequence[Any] | int) -> int:
    """How many tasks there will be; refuses a number below 1 and an empty list.

    :param tasks: the argument of `evaluate_adaptation`
    """
    if isinstance(tasks, Sequence):
        if len(tasks) == 0:
            raise ValueError(
                "tasks is empty; give a list of tasks or a number of held-out tasks to draw"
            )
        return len(tasks)
    if not is_whole(tasks) or tasks < 1:
        raise ValueError(f"tasks={tasks!r} must be an integer of at least 1, or a list of tasks")
    return int(tasks)
