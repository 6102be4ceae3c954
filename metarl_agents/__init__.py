"""Meta-reinforcement-learning agents with the contract of Stable-Baselines3."""

from metarl_agents.bayesian import (
    MTSRL,
    RLSVI,
    LinTS,
    MetaLinTS,
    MetaMAB,
    MetaOracle,
    MTSRLPlus,
    OracleLinTS,
)
from metarl_agents.common.callbacks import MetaEvalCallback
from metarl_agents.common.evaluation import (
    AdaptationResult,
    FineTuned,
    FromScratch,
    Frozen,
    evaluate_adaptation,
)
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.testing import check_meta_algorithm
from metarl_agents.common.vec_env import make_task_vec_env

ALGORITHMS: dict[str, type[MetaAlgorithm]] = {
    "rlsvi": RLSVI,
    "meta_oracle": MetaOracle,
    "mtsrl": MTSRL,
    "mtsrl_plus": MTSRLPlus,
    "lin_ts": LinTS,
    "meta_lin_ts": MetaLinTS,
    "oracle_lin_ts": OracleLinTS,
    "meta_mab": MetaMAB,
}
"""Every algorithm under the name that the command line and the hyper-parameter files use."""

__all__ = [
    "ALGORITHMS",
    "MTSRL",
    "RLSVI",
    "AdaptationResult",
    "FineTuned",
    "FromScratch",
    "Frozen",
    "LinTS",
    "MTSRLPlus",
    "MetaAlgorithm",
    "MetaEvalCallback",
    "MetaLinTS",
    "MetaMAB",
    "MetaOracle",
    "OracleLinTS",
    "check_meta_algorithm",
    "evaluate_adaptation",
    "make_task_vec_env",
]
