"""Agents that learn an initialisation of a policy, and certificates of their meta-gradients."""

from metarl_agents.gradient.certify import GradientCertificate, certify_meta_gradient
from metarl_agents.gradient.dice_maml import DiCEMAML
from metarl_agents.gradient.e_maml import EMAML
from metarl_agents.gradient.estimators import ESTIMATORS, EstimatesMetaGradient, MetaEstimator
from metarl_agents.gradient.fomaml import FOMAML
from metarl_agents.gradient.maml import MAML
from metarl_agents.gradient.promp import ProMP
from metarl_agents.gradient.sg_mrl import SGMRL

__all__ = [
    "EMAML",
    "ESTIMATORS",
    "FOMAML",
    "MAML",
    "SGMRL",
    "DiCEMAML",
    "EstimatesMetaGradient",
    "GradientCertificate",
    "MetaEstimator",
    "ProMP",
    "certify_meta_gradient",
]
