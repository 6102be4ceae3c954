"""Several episodes of one task as a single one."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from gymnasium.utils import RecordConstructorArgs

from metarl_envs.core import Task
from metarl_envs.wrappers.base import (
    AnyEnv,
    StepResult,
    TaskWrapper,
    require_choice,
    require_count,
    require_task_env,
)

ResetMode: TypeAlias = Literal["true_start", "wasted_step"]


class Trial(TaskWrapper):
    """Makes ``n_episodes`` episodes of one task a single episode: the trial.

    An inner episode that ends is followed by an inner reset within the same step. With
    ``reset_mode="true_start"`` that step returns the true first observation of the new inner
    episode, so no action is ever taken blindly; the last observation of the old one is
    ``info["inner_final_obs"]``. With ``"wasted_step"`` it returns the last observation of the old
    episode, and the next action, which already acts on the new one, is chosen without seeing its
    start (``info["start_obs"]``), as in the reference code of VariBAD (Zintgraf et al., 2020,
    https://github.com/lmzintgraf/varibad, ``VariBadWrapper``). After such a step the observation is
    that of a state that is over, so take action masks from ``info["action_mask"]`` or from
    ``action_masks()``, which tell those of the new episode, never from
    ``action_masks(observations)``.

    The blind action is the first of the new episode, so a trial has K H steps in both modes; it
    takes no K - 1 steps more for the resets.

    A trial ends as ``terminated``, since its budget is part of the problem, however its last
    episode ended: ``info["inner_episode"]`` keeps that apart. Put a ``TimeLimit`` inside, not
    outside: ``gymnasium.make(id, max_episode_steps=T)`` puts it outside and cuts trials; give an
    env its own horizon, or ``belief_mdp(id, K, max_episode_steps=T)``. ``set_task`` during a trial
    takes effect at the next trial.

    ``info["episode_done"]`` says whether the step ended an inner episode, and then
    ``info["inner_episode"]`` holds its index ``k``, return ``r``, length ``l``, ``terminated`` and
    ``truncated``.

    :param env: a task env whose episodes end
    :param n_episodes: inner episodes per trial (K)
    :param reset_mode: ``"true_start"`` or ``"wasted_step"``
    """

    def __init__(
        self, env: AnyEnv, n_episodes: int, *, reset_mode: ResetMode = "true_start"
    ) -> None:
        require_task_env(env, "Trial")
        require_count(n_episodes, "n_episodes")
        require_choice(reset_mode, "reset_mode", get_args(ResetMode))
        RecordConstructorArgs.__init__(self, n_episodes=n_episodes, reset_mode=reset_mode)
        super().__init__(env)
        self.n_episodes = n_episodes
        self.reset_mode = reset_mode
        self._task: Task | None = None
        self._start_episode(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a trial: the first of its inner episodes."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._task = self.get_task()
        self._start_episode(0)
        return observation, {**info, "episode_done": False}

    def step(self, action: Any) -> StepResult:
        """Step the inner env; begin its next episode where one ended."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        if not (terminated or truncated):
            return observation, float(reward), False, False, {**info, "episode_done": False}
        info = {**info, "episode_done": True, "inner_episode": self._summary(terminated, truncated)}
        self._start_episode(self._episode + 1)
        if self._episode >= self.n_episodes:
            return observation, float(reward), True, False, info
        observation, info = self._reset_inner(observation, info)
        return observation, float(reward), False, False, info

    def _start_episode(self, index: int) -> None:
        self._episode = index
        self._return = 0.0
        self._length = 0

    def _summary(self, terminated: bool, truncated: bool) -> dict[str, Any]:
        return {
            "k": self._episode,
            "r": self._return,
            "l": self._length,
            "terminated": bool(terminated),
            "truncated": bool(truncated),
        }

    def _reset_inner(self, final: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        start, start_info = self.env.reset(options={"task": self._task})
        # What describes the current state (masks, stage) is the new episode's; the task itself is
        # named at the reset of a trial only.
        info |= {key: value for key, value in start_info.items() if key != "task"}
        if self.reset_mode == "true_start":
            return start, info | {"inner_final_obs": final, "episode_done": True}
        return final, info | {"start_obs": start, "episode_done": True}
