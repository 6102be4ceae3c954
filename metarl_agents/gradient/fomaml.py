"""First-order MAML with policy gradients."""

from metarl_agents.gradient.estimators import ESTIMATORS, MetaEstimator
from metarl_agents.gradient.surrogate_meta import SurrogateMeta


class FOMAML(SurrogateMeta):
    """MAML that takes the inner gradient as a constant: d theta' / d theta = I.

    Finn, Abbeel, Levine (2017), section 5.2, https://arxiv.org/abs/1703.03400. Cheaper, since no
    second derivative is needed, also by the trust region, whose curvature is the mean Fisher matrix
    of the adapted policies. Arguments: :class:`.SurrogateMeta`.
    """

    @property
    def estimator(self) -> MetaEstimator:
        """No derivative of the inner step."""
        return ESTIMATORS["fomaml"]
