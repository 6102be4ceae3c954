"""The loop of acting and stepping: policies play until enough episodes are recorded."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies import ActingPolicies
from metarl_agents.common.recorder import EpisodeRecorder
from metarl_agents.common.vec_env.infos import LazyInfos

StepHook = Callable[[int, list[dict[str, Any]], np.ndarray], bool]
"""`(n_new_steps, infos, dones) -> bool`, called after every step; False stops the collection."""


def play(
    venv: VecEnv,
    policies: ActingPolicies,
    recorder: EpisodeRecorder,
    deterministic: bool,
    on_step: StepHook | None,
) -> EpisodeBatch | None:
    """The episodes from a reset until the recorder has enough; None where `on_step` stopped it.

    :param venv: B sub-environments
    :param policies: B policies, row i acts in sub-environment i
    :param recorder: of this env
    :param deterministic: whether the policies take their most likely actions
    :param on_step: hook for callbacks; see `StepHook`
    """
    observations = cast(np.ndarray, venv.reset())
    state: Any | None = None
    starts = np.ones(venv.num_envs, dtype=bool)
    none_starts = np.zeros_like(starts)
    act = _actor(policies)
    counts_stages = getattr(policies, "counts_stages", False)
    while recorder.running.any():
        masks = _action_masks(venv) if recorder.with_masks else None
        actions, state, dist_params = act(observations, state, starts, deterministic, masks)
        new_obs, rewards, dones, infos = venv.step(_legal(venv.action_space, actions))
        starts = dones.copy() if counts_stages else none_starts
        running = recorder.running.copy()
        recorder.add(observations, actions, rewards, dist_params, masks, new_obs, dones, infos)
        observations = cast(np.ndarray, new_obs)
        if on_step is not None:
            if not running.all():
                infos = _wanted(infos, running)
            _show(on_step, actions=actions, rewards=rewards, new_obs=new_obs)
            if not on_step(venv.num_envs, infos, dones & running):
                return None
    return recorder.batch()


def _wanted(infos: list[dict[str, Any]], running: np.ndarray) -> list[dict[str, Any]]:
    """The infos, empty for surplus episodes, which would make statistics favour short ones."""

    def make() -> list[dict[str, Any]]:
        pairs = zip(infos, running.tolist(), strict=True)
        return [info if wanted else {} for info, wanted in pairs]

    return LazyInfos(make, len(infos))


def _show(on_step: StepHook, **step: Any) -> None:
    """Lets a hook that asks for it see what SB3's callbacks expect in their `locals`."""
    update_locals = getattr(on_step, "update_locals", None)
    if update_locals is not None:
        update_locals(step)


def _actor(policies: Any) -> Callable[..., tuple[np.ndarray, Any | None, np.ndarray]]:
    """A function from (observations, state, starts, deterministic, masks) to what was done.

    That is actions before clipping, the next state, and distribution parameters.
    """
    own_act = getattr(policies, "act", None)
    takes_masks = getattr(policies, "takes_action_masks", False)

    def act(
        observations: np.ndarray,
        state: Any | None,
        starts: np.ndarray,
        deterministic: bool,
        masks: np.ndarray | None,
    ) -> tuple[np.ndarray, Any | None, np.ndarray]:
        if own_act is None:
            actions, state = policies.predict(observations, state, starts, deterministic)
            return np.asarray(actions), state, np.zeros((len(observations), 0))
        more = (masks,) if takes_masks else ()
        actions, state, dist_params = own_act(observations, state, starts, deterministic, *more)
        return np.asarray(actions), state, np.asarray(dist_params)

    return act


def _legal(space: spaces.Space[Any], actions: np.ndarray) -> np.ndarray:
    if isinstance(space, spaces.Box):
        return np.clip(actions, space.low, space.high)
    return actions


def _action_masks(venv: VecEnv) -> np.ndarray:
    return np.stack(venv.env_method("action_masks")).astype(bool)
