"""Model-agnostic meta-learning with policy gradients.

Finn, Abbeel, Levine (2017), "Model-agnostic meta-learning for fast adaptation of deep networks",
https://arxiv.org/abs/1703.03400.
"""

from metarl_agents.gradient.estimators import ESTIMATORS, MetaEstimator
from metarl_agents.gradient.surrogate_meta import SurrogateMeta


class MAML(SurrogateMeta):
    """Learns the initialisation from which policy-gradient steps reach the best policies.

    Finn, Abbeel, Levine (2017), algorithm 3: theta' = theta - alpha grad L(theta; D) with
    L = - mean_t A_t log pi(a_t | s_t), and a trust-region step on
    - mean_t A'_t pi_theta'(theta) / pi_old over the episodes after adaptation, differentiated
    through the inner step.

    The inner step's derivative takes log-probabilities as if the episodes were given, so the
    gradient is neither that of the return after a step on expected gradients nor that after a step
    on sampled episodes; :func:`.certify_meta_gradient` shows by how much. Nevertheless it works.

    Differs from the authors' code: curvature products are exact, J'FJ with the Fisher matrix of the
    adapted policies, and networks have two layers of 64 tanh units (Rothfuss et al. 2019), where
    ``policy_kwargs=dict(net_arch=[100, 100], activation_fn="relu")`` are the authors'. Arguments:
    :class:`.SurrogateMeta`.
    """

    @property
    def estimator(self) -> MetaEstimator:
        """The plain policy-gradient surrogate, differentiated once more."""
        return ESTIMATORS["maml"]
