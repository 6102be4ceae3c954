"""How well does a learner adapt to tasks it has never met? One function for every learner.

Shapes: M tasks, K adaptations, E scored episodes, B sub-environments.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.common.collect import collect_episodes, pinned_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.evaluation.comparators import InteractingLearner
from metarl_agents.common.evaluation.environments import (
    EvaluationEnv,
    SeededResets,
    env_name,
    opened_vec_env,
)
from metarl_agents.common.evaluation.interaction import evaluate_interacting, in_env
from metarl_agents.common.evaluation.learners import batched_learner, learner_name
from metarl_agents.common.evaluation.regret import ExactValues
from metarl_agents.common.evaluation.result import AdaptationResult
from metarl_agents.common.evaluation.settings import Scores, Settings, checked_n_tasks, is_whole
from metarl_agents.common.evaluation.streams import (
    Purpose,
    TaskStreams,
    scoped_global_rng,
    task_streams,
)

MAX_TASKS_AT_ONCE = 256


def evaluate_adaptation(
    learner: Any,
    env: EvaluationEnv,
    tasks: Sequence[Any] | int,
    *,
    n_adapt_steps: int,
    episodes_per_step: int = 1,
    n_eval_episodes: int | None = None,
    deterministic: bool = False,
    seed: int = 0,
    n_envs: int | None = None,
    exact_regret: bool | None = None,
) -> AdaptationResult:
    """Lets a learner adapt to each task, and scores its policy before and after every adaptation.

    In every task: play `episodes_per_step` episodes with the policy so far, adapt to them, and so
    on, `n_adapt_steps` times. Scored are these episodes themselves (`n_eval_episodes=None`:
    on-line, as in regret; a last collection that nothing is learned from completes the curve) or
    that many extra ones after each step, from which nothing is learned.

    Random numbers belong to (seed, task, step, purpose): every learner meets the same noise of
    the env, and a task's result is the same whichever tasks are evaluated with it. The learner is
    not changed, nor are the global generators.

    :param learner: a `MetaAlgorithm`, anything with `initial_policy` and `adapt`, or `Frozen`,
        `FineTuned`, `FromScratch`
    :param env: id (fastest: tasks are played at once), spec, gymnasium env or vector env, or
        `VecEnv`
    :param tasks: held-out tasks, or how many to draw from the env's test stream with `seed`
    :param n_adapt_steps: K, adaptations per task
    :param episodes_per_step: episodes that each adaptation learns from
    :param n_eval_episodes: extra episodes scored after each step; None scores the adaptation
        episodes
    :param deterministic: whether scored episodes take the most likely actions; extra ones leave
        adaptation episodes sampled, and learners that train in the task always explore while they
        do
    :param seed: of everything random
    :param n_envs: tasks played at once, where `env` is an id; None means all, up to 256
    :param exact_regret: None computes regret where env and policy allow it, True insists, False
        leaves it out
    """
    settings = Settings(
        n_adapt_steps, episodes_per_step, n_eval_episodes, deterministic, seed, exact_regret
    )
    n_tasks = checked_n_tasks(tasks)
    if n_envs is not None and (not is_whole(n_envs) or n_envs < 1):
        raise ValueError(
            f"n_envs={n_envs!r} must be an integer of at least 1, or None for all tasks at once"
        )
    interacts = bool(getattr(learner, "interacts", False))
    n_at_once = 1 if interacts else min(n_tasks, int(n_envs or MAX_TASKS_AT_ONCE))
    with opened_vec_env(env, n_at_once) as venv, scoped_global_rng(settings.seed % 2**31):
        drawn = _drawn_tasks(venv, tasks, settings.seed)
        streams = task_streams(drawn, settings.seed)
        if interacts:
            _check_interacting(learner)
            scores = evaluate_interacting(learner, env, drawn, streams, settings)
        else:
            check_learner(learner, venv)
            scores = _evaluate_batched(learner, venv, drawn, streams, settings)
    return _result(learner_name(learner), env_name(env), drawn, streams, scores, settings)


def _result(
    learner: str,
    env_id: str,
    tasks: Sequence[Any],
    streams: Sequence[TaskStreams],
    scores: Scores,
    settings: Settings,
) -> AdaptationResult:
    knows_optimum = not np.isnan(scores.optimal_returns).any()
    regret = scores.regret(settings, learner)
    return AdaptationResult(
        learner=learner,
        env_id=env_id,
        seed=settings.seed,
        task_ids=np.array([stream.task_id for stream in streams]),
        tasks=np.stack([np.asarray(task.to_array(), dtype=np.float64) for task in tasks]),
        returns=scores.returns,
        lengths=scores.lengths,
        regret=regret,
        adaptation_regret=None if regret is None else scores.adaptation_regret(),
        optimal_returns=scores.optimal_returns if knows_optimum else None,
        settings=asdict(settings),
    )


def check_learner(learner: Any, venv: VecEnv) -> None:
    """Refuses what cannot adapt, and what was made for other spaces.

    :param learner: any learner that does not act by itself
    :param venv: the env it is to be evaluated in
    """
    batched_learner(learner, [])
    model = getattr(learner, "model", learner)
    spaces = getattr(model, "observation_space", None), getattr(model, "action_space", None)
    if None not in spaces:
        check_for_correct_spaces(venv, *spaces)  # type: ignore[arg-type]


def _check_interacting(learner: Any) -> None:
    if not isinstance(learner, InteractingLearner):
        needed = "n_steps, start_in(), train_in() and policy_of()"
        raise TypeError(
            f"learner={learner!r} has interacts=True but lacks some of {needed} "
            "(metarl_agents.common.evaluation.InteractingLearner)"
        )


def _drawn_tasks(venv: VecEnv, tasks: Sequence[Any] | int, seed: int) -> list[Any]:
    if not isinstance(tasks, int | np.integer):
        return list(tasks)
    if not venv.has_attr("sample_tasks"):
        raise ValueError(
            f"tasks={tasks} cannot be drawn: the env has no sample_tasks() "
            "(metarl_envs.core.TaskEnv); "
            "pass an env with a task distribution, for example metarl/Recommendation-v0"
        )
    sample = venv.get_attr("sample_tasks", indices=[0])[0]
    if "split" not in inspect.signature(sample).parameters:
        raise ValueError(
            f"tasks={tasks} cannot be drawn: the env's sample_tasks() has no split='test'; pass a "
            "list of held-out tasks"
        )
    return list(sample(int(tasks), seed=seed, split="test"))


def _evaluate_batched(
    learner: Any,
    venv: VecEnv,
    tasks: Sequence[Any],
    streams: Sequence[TaskStreams],
    settings: Settings,
) -> Scores:
    scores = Scores(len(tasks), settings)
    exact = ExactValues(venv)
    if settings.exact_regret:
        exact.require(learner_name(learner))
    for rows in _chunks(len(tasks), venv.num_envs):
        chunk = _Chunk(learner, SeededResets(venv), exact, settings)
        chunk.run(rows, [tasks[row] for row in rows], [streams[row] for row in rows], scores)
    return scores


def _chunks(n_tasks: int, n_envs: int) -> Iterator[np.ndarray]:
    """Rows of the tasks played at once.

    The last chunk repeats a row to fill up the sub-environments.
    """
    for start in range(0, n_tasks, n_envs):
        yield np.minimum(np.arange(start, start + n_envs), n_tasks - 1)


class _Chunk:
    """Plays as many tasks as there are sub-environments, all adaptation steps."""

    def __init__(
        self, learner: Any, venv: SeededResets, exact: ExactValues, settings: Settings
    ) -> None:
        self.learner, self.venv, self.exact, self.settings = learner, venv, exact, settings

    def run(
        self, rows: np.ndarray, tasks: list[Any], streams: list[TaskStreams], scores: Scores
    ) -> None:
        """Fills in the scores of these tasks.

        :param rows: their places in the scores, (B,)
        :param tasks: B tasks
        :param streams: theirs
        :param scores: to be filled in
        """
        settings = self.settings
        learner = batched_learner(self.learner, [s.rng(0, Purpose.ACTING) for s in streams])
        policies = learner.initial_policies([s.rng(0, Purpose.INITIAL_POLICY) for s in streams])
        optimum = self.exact.optimal_returns(tasks)
        if optimum is not None:
            scores.optimal_returns[rows] = optimum
        with pinned_tasks(self.venv, tasks):
            for step in range(settings.n_adapt_steps + 1):
                policies = in_env(policies, self.venv)
                self._score_exactly(rows, tasks, policies, step, scores)
                batch = self._play(rows, policies, step, streams, scores)
                if step < settings.n_adapt_steps:
                    rngs = [s.rng(step + 1, Purpose.ADAPTATION) for s in streams]
                    policies = learner.adapt_tasks(policies, batch, rngs=rngs)

    def _play(
        self, rows: np.ndarray, policies: Any, step: int, streams: list[TaskStreams], scores: Scores
    ) -> EpisodeBatch | None:
        settings, batch = self.settings, None
        if step < settings.n_collections:
            n_episodes, purpose = settings.episodes_per_step, Purpose.ADAPTATION_EPISODES
            greedy = settings.adapts_deterministically
            batch = self._collected(policies, n_episodes, step, purpose, streams, greedy)
        scored = batch
        if not settings.on_line:
            n_episodes, purpose = settings.n_scored_episodes, Purpose.SCORED_EPISODES
            scored = self._collected(
                policies, n_episodes, step, purpose, streams, settings.deterministic
            )
        assert scored is not None
        scores.returns[rows, step] = scored.returns.numpy()
        scores.lengths[rows, step] = scored.lengths.numpy()
        return batch

    def _collected(
        self,
        policies: Any,
        n_episodes: int,
        step: int,
        purpose: Purpose,
        streams: list[TaskStreams],
        deterministic: bool,
    ) -> EpisodeBatch:
        self.venv.next_seeds = [stream.integer(step, purpose) for stream in streams]
        return collect_episodes(
            self.venv, policies, n_episodes, seed=0, deterministic=deterministic
        )

    def _score_exactly(
        self, rows: np.ndarray, tasks: list[Any], policies: Any, step: int, scores: Scores
    ) -> None:
        if self.settings.exact_regret is False:
            return
        settings = self.settings
        values = self.exact.policy_returns(tasks, policies, settings.deterministic)
        if values is None:
            return
        scores.policy_returns[rows, step] = values
        if step < settings.n_collections:
            if settings.adapts_deterministically != settings.deterministic:
                values = self.exact.policy_returns(tasks, policies, False)
            n_episodes = settings.episodes_per_step
            scores.n_adaptation_episodes[rows, step] = n_episodes
            scores.adaptation_returns[rows, step] = n_episodes * np.asarray(values)
