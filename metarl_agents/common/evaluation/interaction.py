"""Evaluates learners that act in the env by themselves while they adapt, task by task.

The learner trains in one go over its whole budget. The env that it trains in records its
episodes, has it scored whenever an adaptation step begins, and stops it when the budget is spent.
So schedules span the budget, rollouts and replay run across adaptation steps and no episode is
cut.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl_agents.common.collect import collect_episodes, pinned_tasks
from metarl_agents.common.evaluation.comparators import InteractingLearner
from metarl_agents.common.evaluation.environments import (
    EvaluationEnv,
    SeededResets,
    another_env,
    episode_steps,
    opened_single_env,
)
from metarl_agents.common.evaluation.learners import learner_name
from metarl_agents.common.evaluation.regret import ExactValues
from metarl_agents.common.evaluation.settings import Scores, Settings
from metarl_agents.common.evaluation.streams import Purpose, TaskStreams, scoped_global_rng
from metarl_agents.common.policies import PolicyList


class TrainingOverError(Exception):
    """Raised by the env at the first step beyond a learner's budget."""


class TrainingEnv(gym.Wrapper[Any, Any, Any, Any]):
    """The env that a learner trains in, one task at a time.

    :param env: a single env
    :param settings: of the evaluation
    :param n_steps: env steps per adaptation; None means as many as the adaptation episodes have
    """

    transparent = True

    def __init__(self, env: gym.Env[Any, Any], settings: Settings, n_steps: int | None) -> None:
        super().__init__(env)
        self.settings = settings
        self.n_steps = n_steps
        self.n_periods = settings.n_collections

    def begin_task(
        self,
        streams: TaskStreams,
        on_period: Callable[[int], None],
        on_episode: Callable[[int], None],
    ) -> None:
        """Forgets the last task.

        :param streams: of the new task
        :param on_period: called with k at the first step after k adaptations
        :param on_episode: called with k at the first step of every episode that begins after k
            adaptations
        """
        self.streams, self.on_period, self.on_episode = streams, on_period, on_episode
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.steps_played = 0
        self._periods_begun = 0
        self._return, self._length = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode.

        Where an adaptation step begins with it, it starts from the seed that every learner meets.

        :param seed: not used: learners seed the env with their own seed
        :param options: handed on
        """
        step, within = divmod(len(self.returns), self.settings.episodes_per_step)
        seed = None if within else self.streams.integer(step, Purpose.ADAPTATION_EPISODES)
        self._return, self._length = 0.0, 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Plays one action; raises `TrainingOverError` beyond the budget."""
        period = self._period()
        if period >= self.n_periods:
            raise TrainingOverError
        if period == self._periods_begun:
            self._periods_begun += 1
            self.on_period(period)
        if self._length == 0:
            # Not at the reset, which SB3 makes before it learns from the episode that has ended.
            self.on_episode(period)
        observation, reward, terminated, truncated, info = self.env.step(action)
        # SB3's VecEnvs hand out float32, and returns of all learners have to be comparable.
        self._return += float(np.float32(reward))
        self._length += 1
        self.steps_played += 1
        if terminated or truncated:
            self.returns.append(self._return)
            self.lengths.append(self._length)
        return observation, reward, terminated, truncated, info

    def budget(self, learner: str) -> int:
        """Env steps of all adaptations together, at most.

        :param learner: its name, for errors
        """
        n_episodes = self.settings.episodes_per_step
        longest, fixed = episode_steps(self.env)
        if self.n_steps is None:
            if longest is None:
                raise ValueError(
                    f"{learner} with n_steps=None needs an env whose episodes have a known "
                    "greatest length; register the env "
                    "with max_episode_steps, or give n_steps together with n_eval_episodes"
                )
            return self.n_periods * n_episodes * longest
        if self.settings.on_line:
            self._check_steps(
                learner, n_episodes * longest if fixed and longest is not None else None
            )
        return self.n_periods * self.n_steps

    def _check_steps(self, learner: str, expected: int | None) -> None:
        if self.n_steps != expected:
            have = "a varying number of steps" if expected is None else f"{expected} steps"
            raise ValueError(
                f"{learner} has n_steps={self.n_steps}, but the {self.settings.episodes_per_step} "
                "episode(s) per adaptation step "
                f"that are scored have {have}; use n_steps=None, or score extra episodes with "
                "n_eval_episodes"
            )

    def _period(self) -> int:
        if self.n_steps is None:
            return len(self.returns) // self.settings.episodes_per_step
        return self.steps_played // self.n_steps


class InteractingEvaluation:
    """Trains and scores one interacting learner in one task after another.

    :param learner: acts by itself
    :param settings: of the evaluation
    :param training_env: where it trains
    :param scoring_env: where extra episodes are played; None on-line
    """

    def __init__(
        self,
        learner: InteractingLearner,
        settings: Settings,
        training_env: gym.Env[Any, Any],
        scoring_env: gym.Env[Any, Any] | None,
    ) -> None:
        self.learner, self.settings = learner, settings
        self.env = TrainingEnv(training_env, settings, learner.n_steps)
        self.budget = self.env.budget(learner_name(learner))
        # Never stepped: a way to the methods of the training env.
        self.view = DummyVecEnv([lambda: self.env])
        self.exact = ExactValues(self.view)
        if settings.exact_regret:
            self.exact.require(learner_name(learner))
        self.scoring: SeededResets | None = None
        if scoring_env is not None:
            self.scoring = SeededResets(DummyVecEnv([lambda: scoring_env]))

    def run(self, tasks: Sequence[Any], streams: Sequence[TaskStreams]) -> Scores:
        """Scores of all tasks.

        :param tasks: M tasks
        :param streams: theirs
        """
        scores = Scores(len(tasks), self.settings)
        for row, (task, stream) in enumerate(zip(tasks, streams, strict=True)):
            with (
                pinned_tasks(self.view, [task]),
                scoped_global_rng(stream.integer(0, Purpose.ACTING)),
            ):
                self._run_task(row, task, stream, scores)
        optimum = self.exact.optimal_returns(tasks)
        if optimum is not None:
            scores.optimal_returns[:] = optimum
        return scores

    def _run_task(self, row: int, task: Any, streams: TaskStreams, scores: Scores) -> None:
        agent: Any = None

        def score(step: int) -> None:
            with scoped_global_rng():
                self._score(agent, row, task, step, streams, scores)

        def count_episode(step: int) -> None:
            with scoped_global_rng():
                self._count_episode(agent, row, task, step, streams, scores)

        self.env.begin_task(streams, score, count_episode)
        agent = self.learner.start_in(self.env, seed=streams.integer(0, Purpose.INITIAL_POLICY))
        if self.env.n_periods:
            with suppress(TrainingOverError):
                self.learner.train_in(agent, self.budget)
            self._check_complete()
        if self.settings.on_line:
            shape = scores.returns[row].shape
            scores.returns[row] = np.reshape(self.env.returns[: np.prod(shape)], shape)
            scores.lengths[row] = np.reshape(self.env.lengths[: np.prod(shape)], shape)
        else:
            score(self.settings.n_adapt_steps)

    def _score(
        self, agent: Any, row: int, task: Any, step: int, streams: TaskStreams, scores: Scores
    ) -> None:
        policy = self.learner.policy_of(agent, streams.rng(step, Purpose.ACTING))
        # What is scored on-line is how the learner acts while it trains.
        deterministic = self.settings.deterministic and not self.settings.on_line
        scores.policy_returns[row, step] = self._exact_return(task, policy, deterministic)
        if self.scoring is not None:
            policies = PolicyList([in_env(policy, self.scoring)])
            self.scoring.next_seeds = [streams.integer(step, Purpose.SCORED_EPISODES)]
            with pinned_tasks(self.scoring, [task]):
                batch = collect_episodes(
                    self.scoring,
                    policies,
                    self.settings.n_scored_episodes,
                    seed=0,
                    deterministic=deterministic,
                )
            scores.returns[row, step] = batch.returns[0].numpy()
            scores.lengths[row, step] = batch.lengths[0].numpy()

    def _count_episode(
        self, agent: Any, row: int, task: Any, step: int, streams: TaskStreams, scores: Scores
    ) -> None:
        if self.settings.on_line and scores.n_adaptation_episodes[row, step] == 0:
            value = scores.policy_returns[row, step]
        else:
            policy = self.learner.policy_of(agent, streams.rng(step, Purpose.ACTING))
            # While it trains it explores.
            value = self._exact_return(task, policy, deterministic=False)
        scores.adaptation_returns[row, step] += value
        scores.n_adaptation_episodes[row, step] += 1

    def _exact_return(self, task: Any, policy: Any, deterministic: bool) -> float:
        """The expected return of the policy; NaN where it is not known."""
        if self.settings.exact_regret is False:
            return np.nan
        value = self.exact.policy_returns([task], in_env(policy, self.view), deterministic)
        return np.nan if value is None else float(value[0])

    def _check_complete(self) -> None:
        if self.env.steps_played < self.budget and self.env._period() < self.env.n_periods:
            raise ValueError(
                f"{learner_name(self.learner)} stopped training after {self.env.steps_played} of "
                f"{self.budget} env steps; "
                "its learn() must not stop early"
            )


def in_env(policies: Any, venv: VecEnv) -> Any:
    """The policies, told which env they act in if they ask for it (for action masks).

    :param policies: policies of one or several tasks
    :param venv: the env
    """
    return policies.in_env(venv) if hasattr(policies, "in_env") else policies


def evaluate_interacting(
    learner: InteractingLearner,
    env: EvaluationEnv,
    tasks: Sequence[Any],
    streams: Sequence[TaskStreams],
    settings: Settings,
) -> Scores:
    """Scores of a learner that acts by itself.

    :param learner: the learner
    :param env: id, spec, single env, or a vector env that has a spec
    :param tasks: M tasks
    :param streams: theirs
    :param settings: of the evaluation
    """
    with ExitStack() as stack:
        training_env = stack.enter_context(opened_single_env(env))
        scoring_env = None
        if not settings.on_line:
            scoring_env = another_env(env)
            stack.callback(scoring_env.close)
        return InteractingEvaluation(learner, settings, training_env, scoring_env).run(
            tasks, streams
        )
