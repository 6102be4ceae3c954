"""Meta-reinforcement-learning agents with the contract of Stable-Baselines3."""

from pathlib import Path

import torch as th

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
from metarl_agents.bilevel import BOMRL, TabularBOMRL
from metarl_agents.common.callbacks import MetaEvalCallback
from metarl_agents.common.evaluation import (
    AdaptationResult,
    FineTuned,
    FromScratch,
    Frozen,
    evaluate_adaptation,
)
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.pretrained import TrainedAgent, load_trained, trained_agents
from metarl_agents.common.testing import check_meta_algorithm
from metarl_agents.common.vec_env import AnyEnv, make_task_vec_env
from metarl_agents.gradient import EMAML, FOMAML, MAML, SGMRL, DiCEMAML, ProMP

ALGORITHMS: dict[str, type[MetaAlgorithm]] = {
    "rlsvi": RLSVI,
    "meta_oracle": MetaOracle,
    "mtsrl": MTSRL,
    "mtsrl_plus": MTSRLPlus,
    "lin_ts": LinTS,
    "meta_lin_ts": MetaLinTS,
    "oracle_lin_ts": OracleLinTS,
    "meta_mab": MetaMAB,
    "maml": MAML,
    "fomaml": FOMAML,
    "emaml": EMAML,
    "promp": ProMP,
    "sgmrl": SGMRL,
    "dice_maml": DiCEMAML,
    "tabular_bomrl": TabularBOMRL,
    "bomrl": BOMRL,
}
"""Every algorithm under the name that the command line and the hyper-parameter files use."""


def load_pretrained(
    name_or_path: str | Path,
    env: AnyEnv | str | None = None,
    device: th.device | str = "auto",
    *,
    folder: str | Path | None = None,
) -> MetaAlgorithm:
    """A trained agent by name, or from a file whose class need not be known.

    Names are those of `trained_agents()`, such as `promp/HalfCheetahDir-v0`: they come with the
    installed package `zoo`. Files are checked against the digest in their index.

    :param name_or_path: a name, or the path of a file that `save` of one of `ALGORITHMS` wrote (a
        `Path`, or text that ends in `.zip`)
    :param env: env to go on in, of any kind; None for an agent that adapts to the env that
        `adapt_to` or `evaluate_adaptation` is given
    :param device: where tensors live
    :param folder: another folder of trained agents, looked at before that of `zoo`
    """
    return load_trained(list(ALGORITHMS.values()), name_or_path, env, device, folder=folder)


__all__ = [
    "ALGORITHMS",
    "BOMRL",
    "EMAML",
    "FOMAML",
    "MAML",
    "MTSRL",
    "RLSVI",
    "SGMRL",
    "AdaptationResult",
    "DiCEMAML",
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
    "ProMP",
    "TabularBOMRL",
    "TrainedAgent",
    "check_meta_algorithm",
    "evaluate_adaptation",
    "load_pretrained",
    "make_task_vec_env",
    "trained_agents",
]
