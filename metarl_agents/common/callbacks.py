"""Callbacks for meta-training."""

import os
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, EventCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

from metarl_agents.common.evaluation.comparators import Frozen
from metarl_agents.common.evaluation.environments import EvaluationEnv, env_name
from metarl_agents.common.evaluation.protocol import evaluate_adaptation
from metarl_agents.common.evaluation.result import AdaptationResult
from metarl_agents.common.vec_env import TaskVecEnv


class MetaEvalCallback(EventCallback):
    """Evaluates, while an agent trains, how well it adapts to held-out tasks.

    The counterpart of SB3's `EvalCallback`, which would score the un-adapted policy. It has the
    same attributes, so `StopTrainingOnRewardThreshold` and `StopTrainingOnNoModelImprovement`
    work with it. The score is the mean return after the last adaptation; `eval/mean_reward_0` is
    zero-shot. The agent and its generators are left as they were: training with and without it is
    bit-equal. A plain SB3 agent is evaluated as `Frozen`.

    :param eval_env: id (fastest), spec, env, vector env or `VecEnv`, not the one that the agent
        trains in
    :param tasks: held-out tasks, or how many to draw from the env's test stream with `seed`
    :param n_adapt_steps: K, adaptations per task
    :param episodes_per_step: episodes that each adaptation learns from
    :param n_eval_episodes: extra episodes scored after each step; None scores the adaptation
        episodes
    :param callback_on_new_best: called when there is a new best score
    :param callback_after_eval: called after every evaluation
    :param eval_freq: evaluate every `eval_freq` calls of the callback, as SB3's: one call per
        step of the vector env
    :param log_path: folder for `evaluations.npz`, or None
    :param best_model_save_path: folder for the best agent, `best_model`, or None
    :param deterministic: whether scored episodes take the most likely actions
    :param seed: of everything random in the evaluations, the same each time
    :param n_envs: tasks played at once, where `eval_env` is an id
    :param verbose: 0 for no output, 1 for a line per evaluation
    """

    def __init__(
        self,
        eval_env: EvaluationEnv,
        *,
        tasks: Sequence[Any] | int = 20,
        n_adapt_steps: int = 1,
        episodes_per_step: int = 1,
        n_eval_episodes: int | None = None,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        eval_freq: int = 10_000,
        log_path: str | os.PathLike[str] | None = None,
        best_model_save_path: str | os.PathLike[str] | None = None,
        deterministic: bool = False,
        seed: int = 0,
        n_envs: int | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(callback_after_eval, verbose=verbose)
        if eval_freq < 1:
            raise ValueError(
                f"eval_freq={eval_freq} must be at least 1, the number of calls between evaluations"
            )
        self.callback_on_new_best = callback_on_new_best
        if callback_on_new_best is not None:
            callback_on_new_best.parent = self
        self.eval_env = eval_env
        self.tasks = tasks
        self.n_adapt_steps, self.episodes_per_step = n_adapt_steps, episodes_per_step
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.best_model_save_path = (
            None if best_model_save_path is None else os.fspath(best_model_save_path)
        )
        self.log_path = None if log_path is None else os.path.join(log_path, "evaluations")
        self.deterministic = deterministic
        self.seed = seed
        self.n_envs = n_envs
        self.best_mean_reward = -np.inf
        self.last_mean_reward = -np.inf
        self.last_result: AdaptationResult | None = None
        self.evaluations_timesteps: list[int] = []
        self.evaluations_results: list[list[float]] = []
        self.evaluations_length: list[list[int]] = []
        self.evaluations_returns: list[np.ndarray] = []

    def _init_callback(self) -> None:
        if _innermost(self.eval_env) & _innermost(self.model.get_env()):
            raise ValueError(
                f"eval_env={env_name(self.eval_env)} is the env that the agent trains in; pass "
                "another one, or its id"
            )
        needs_statistics = self.model.get_vec_normalize_env() is not None and hasattr(
            self.model, "adapt"
        )
        if needs_statistics and not isinstance(self.eval_env, VecNormalize):
            raise ValueError(
                f"the agent trains in a VecNormalize but eval_env={env_name(self.eval_env)} is "
                "none; pass VecNormalize(make_task_vec_env(...)), whose statistics are kept in step"
            )
        for folder in (self.best_model_save_path, self.log_path and os.path.dirname(self.log_path)):
            if folder:
                os.makedirs(folder, exist_ok=True)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq != 0:
            return True
        result = self._evaluate()
        self.last_result = result
        self.last_mean_reward = float(result.returns[:, -1].mean())
        self._store(result)
        self._log(result)
        continue_training = True
        if self.last_mean_reward > self.best_mean_reward:
            self.best_mean_reward = self.last_mean_reward
            continue_training = self._on_new_best()
        return continue_training and self._on_event()

    def update_child_locals(self, locals_: dict[str, Any]) -> None:
        """Hands the training's local variables on to the callbacks inside.

        :param locals_: the local variables
        """
        for child in (self.callback, self.callback_on_new_best):
            if child is not None:
                child.update_locals(locals_)

    def _evaluate(self) -> AdaptationResult:
        if isinstance(self.eval_env, VecNormalize):
            sync_envs_normalization(self.training_env, self.eval_env)
        learner: Any = self.model if hasattr(self.model, "adapt") else Frozen(self.model)
        return evaluate_adaptation(
            learner,
            self.eval_env,
            self.tasks,
            n_adapt_steps=self.n_adapt_steps,
            episodes_per_step=self.episodes_per_step,
            n_eval_episodes=self.n_eval_episodes,
            deterministic=self.deterministic,
            seed=self.seed,
            n_envs=self.n_envs,
        )

    def _on_new_best(self) -> bool:
        if self.verbose >= 1:
            print("New best mean reward!")
        if self.best_model_save_path is not None:
            self.model.save(os.path.join(self.best_model_save_path, "best_model"))
        return True if self.callback_on_new_best is None else self.callback_on_new_best.on_step()

    def _store(self, result: AdaptationResult) -> None:
        self.evaluations_timesteps.append(self.num_timesteps)
        self.evaluations_results.append(result.returns[:, -1].ravel().tolist())
        self.evaluations_length.append(result.lengths[:, -1].ravel().tolist())
        self.evaluations_returns.append(result.returns)
        if self.log_path is not None:
            np.savez(
                self.log_path,
                timesteps=self.evaluations_timesteps,
                results=self.evaluations_results,
                ep_lengths=self.evaluations_length,
                returns=np.stack(self.evaluations_returns),
            )

    def _log(self, result: AdaptationResult) -> None:
        by_step = result.returns.mean(axis=(0, 2))
        if self.verbose >= 1:
            curve = " ".join(f"{value:.2f}" for value in by_step)
            print(
                f"Eval num_timesteps={self.num_timesteps}, mean reward after "
                f"0..{self.n_adapt_steps} adaptations: {curve}"
            )
        self.logger.record("eval/mean_reward", self.last_mean_reward)
        self.logger.record("eval/mean_ep_length", float(result.lengths[:, -1].mean()))
        for step, value in enumerate(by_step):
            self.logger.record(f"eval/mean_reward_{step}", float(value))
        if result.regret is not None:
            self.logger.record("eval/mean_regret", float(result.regret[:, -1].mean()))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)


def _innermost(env: Any) -> set[int]:
    """Identities of the envs below all wrappers; empty for an id or a spec, which make new ones."""
    if not isinstance(env, gym.Env | VectorEnv | VecEnv):
        return set()
    inside = env.unwrapped
    if isinstance(inside, TaskVecEnv):
        return _innermost(inside.vector_env)
    return {id(inside)}.union(*map(_innermost, getattr(inside, "envs", ())))
