"""Turn episodes into the stage-wise transitions that the regressions use."""

import numpy as np
import torch as th

from metarl_agents.bayesian.linear_gaussian import Transitions
from metarl_agents.bayesian.stage_features import StageFeatures
from metarl_agents.common.episodes import EpisodeBatch


def stage_transitions(
    features: StageFeatures, episodes: EpisodeBatch, device: th.device | str = "cpu"
) -> Transitions:
    """Return the transitions of M tasks' episodes, stage by stage.

    Step t of an episode is stage t. The successor of a step that a time limit cut is the final
    observation; a terminal step, and the last stage, have none.

    :param features: of the family
    :param episodes: with leading axis M
    :return: leading axis M; float64 on ``device``
    :raises ValueError: if an episode has more steps than the family has stages, or rewards are
        not finite
    """
    mask = episodes.mask.cpu().numpy().astype(bool)
    n_tasks, n_episodes, n_steps = mask.shape
    if mask[..., features.n_stages :].any():
        raise ValueError(
            f"an episode has more than n_stages={features.n_stages} steps: give the env or the "
            "agent its true horizon"
        )
    rewards = episodes.rewards.cpu().numpy().astype(np.float64)
    if not np.isfinite(rewards).all():
        raise ValueError("rewards are not finite: mend the env before learning from it")
    rows = _observations(features, episodes)
    out = _Buffers(features, n_tasks, n_episodes)
    actions = episodes.actions.cpu().numpy().reshape(n_tasks, n_episodes, n_steps).astype(np.int64)
    for stage in range(min(n_steps, features.n_stages)):
        out.put_step(stage, rows[:, :, stage], actions[..., stage], mask[..., stage])
        out.rewards[:, stage] = rewards[..., stage] * mask[..., stage]
        out.weights[:, stage] = mask[..., stage]
    for stage in range(min(n_steps, features.n_stages - 1)):
        following = mask[..., stage + 1] if stage + 1 < n_steps else np.zeros_like(mask[..., 0])
        cut = mask[..., stage] & ~following & ~_terminated(episodes)
        successor = rows[:, :, stage + 1] if stage + 1 < n_steps else rows[:, :, stage]
        final = _final_observations(features, episodes)
        axes = (..., *[None] * (successor.ndim - 2))
        out.put_successor(stage, np.where(cut[axes], final, successor), following | cut)
    return out.transitions(device)


class _Buffers:
    """Arrays of shape (M, H, E, ...) that stages are written into."""

    def __init__(self, features: StageFeatures, n_tasks: int, n_episodes: int):
        shape = (n_tasks, features.n_stages, n_episodes)
        per_action = (*shape, features.n_actions)
        self.of = features
        self.features = np.zeros((*shape, features.block_size))
        self.blocks = np.zeros(shape, dtype=np.int64)
        self.rewards = np.zeros(shape)
        self.weights = np.zeros(shape)
        self.successor_features = np.zeros((*per_action, features.block_size))
        self.successor_masks = np.zeros(per_action, dtype=bool)

    def put_step(
        self, stage: int, rows: np.ndarray, actions: np.ndarray, exists: np.ndarray
    ) -> None:
        chosen = actions[exists]
        values = self.of(stage, rows[exists])
        self.features[:, stage][exists] = values[np.arange(len(chosen)), chosen]
        if self.of.n_blocks > 1:
            self.blocks[:, stage][exists] = chosen

    def put_successor(self, stage: int, rows: np.ndarray, exists: np.ndarray) -> None:
        masks = self.of.masks(rows[exists])
        self.successor_masks[:, stage][exists] = masks
        values = self.of(stage + 1, rows[exists]) * masks[..., None]
        self.successor_features[:, stage][exists] = values

    def transitions(self, device: th.device | str) -> Transitions:
        fields = (getattr(self, name) for name in Transitions._fields)
        return Transitions(*(th.as_tensor(field, device=device) for field in fields))


def _observations(features: StageFeatures, episodes: EpisodeBatch) -> np.ndarray:
    """Return observations in the shape of their space, (M, E, T, *shape)."""
    flat = episodes.observations.cpu().numpy()
    return flat.reshape(*flat.shape[:3], *(features.observation_space.shape or ()))


def _final_observations(features: StageFeatures, episodes: EpisodeBatch) -> np.ndarray:
    flat = episodes.final_observations.cpu().numpy()
    return flat.reshape(*flat.shape[:2], *(features.observation_space.shape or ()))


def _terminated(episodes: EpisodeBatch) -> np.ndarray:
    return episodes.terminated.cpu().numpy().astype(bool)
