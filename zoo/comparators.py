"""Agents of Stable-Baselines3 in the role of meta-learners, by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from metarl_agents import ALGORITHMS, FineTuned, FromScratch, Frozen


@dataclass(frozen=True)
class Comparator:
    """An agent of Stable-Baselines3 in the role of a meta-learner."""

    agent: type[BaseAlgorithm]
    role: type[Frozen | FineTuned | FromScratch]
    """what it does in a held-out task"""
    description: str


COMPARATORS: Mapping[str, Comparator] = {
    "ppo": Comparator(PPO, Frozen, "PPO trained on all tasks at once, then frozen"),
    "ppo_finetuned": Comparator(
        PPO, FineTuned, "PPO trained on all tasks at once, goes on learning in the new task"
    ),
    "maskable_ppo": Comparator(
        MaskablePPO, Frozen, "MaskablePPO (sb3-contrib) trained on all tasks at once, then frozen"
    ),
    "dqn_scratch": Comparator(DQN, FromScratch, "DQN that starts afresh in every new task"),
    "ppo_scratch": Comparator(PPO, FromScratch, "PPO that starts afresh in every new task"),
}


def agent_class(algo: str) -> type[BaseAlgorithm]:
    """
    The class behind a name of ``ALGORITHMS`` or ``COMPARATORS``.

    :param algo: the name
    """
    if algo in ALGORITHMS:
        return ALGORITHMS[algo]
    if algo in COMPARATORS:
        return COMPARATORS[algo].agent
    known = ", ".join([*ALGORITHMS, *COMPARATORS])
    raise ValueError(f"algorithm {algo!r} is unknown; choose one of {known}")
