"""Evaluation: one function for every learner, its result, and SB3's agents as learners."""

from metarl_agents.common.evaluation.comparators import (
    FineTuned,
    FromScratch,
    Frozen,
    InteractingLearner,
)
from metarl_agents.common.evaluation.interaction import TrainingOverError
from metarl_agents.common.evaluation.intervals import Curve, Interval, interquartile_mean
from metarl_agents.common.evaluation.protocol import evaluate_adaptation
from metarl_agents.common.evaluation.result import AdaptationResult, SeedAggregate

__all__ = [
    "AdaptationResult",
    "Curve",
    "FineTuned",
    "FromScratch",
    "Frozen",
    "InteractingLearner",
    "Interval",
    "SeedAggregate",
    "TrainingOverError",
    "evaluate_adaptation",
    "interquartile_mean",
]
