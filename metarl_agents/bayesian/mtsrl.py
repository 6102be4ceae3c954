"""Thompson sampling with learned Q-priors: MTSRL, MTSRL+, and the references at both ends.

Zhou, Chen, Chen (2025), "Prior-Aligned Meta-RL: Thompson Sampling with Learned Priors and
Guarantees in Finite-Horizon MDPs", https://arxiv.org/abs/2510.05446. The optimal Q-function of a
task is linear, ``Q*_h(s, a) = phi_h(s, a)'theta_h``, and the parameters of related tasks are draws
from one Gaussian per stage, ``theta_h ~ N(mean_h, covariance_h)``. A learner that knew it would
solve a new task in a few episodes; MTSRL learns it while it solves one task after another.
"""

from metarl_agents.bayesian.known_prior_meta import KnownPriorMeta
from metarl_agents.bayesian.prior_learning_meta import PriorLearningMeta
from metarl_agents.bayesian.thompson_meta import ThompsonMeta


class RLSVI(ThompsonMeta):
    """Randomised least-squares value iteration that starts afresh in every task.

    The prior-independent baseline: every task begins with ``N(0, I / prior_precision)`` (Osband,
    Van Roy, Wen 2016). It learns nothing between tasks. Arguments: :class:`ThompsonMeta`.
    """


class MTSRL(PriorLearningMeta):
    """Thompson sampling with a learned prior mean and a known covariance.

    Zhou, Chen, Chen (2025), MTSRL. After ``n_exploration_tasks`` tasks played by prior-independent
    RLSVI, every task begins with ``N(learned mean, prior_covariance)``.

    Differs from the paper: only its abstract fixes names and rates, so constants and schedules are
    arguments with defaults of ours, and the mean is by default aggregated by generalised least
    squares (the posterior mean of the hierarchical model) where the paper averages least-squares
    estimates (``estimator="ols"``). Arguments: :class:`PriorLearningMeta`; where
    ``prior_covariance`` is None, an isotropic covariance takes its place, per stage and block the
    one under which the finished tasks are most likely.
    """


class MTSRLPlus(PriorLearningMeta):
    """Thompson sampling with a learned prior mean and covariance, the covariance widened.

    Zhou, Chen, Chen (2025), MTSRL+. Widening insures against an under-estimated covariance, with
    which a confident wrong prior would never be corrected.

    Differs from the paper: by default the prior maximises the marginal likelihood
    (``estimator="em"``); the paper's recipe of least-squares estimates whose covariance is widened
    is ``estimator="ols"``. Its constants are ours. Arguments: :class:`PriorLearningMeta`;
    ``prior_covariance`` must be None.
    """

    _learns_covariance = True
    _default_estimator = "em"
    _default_widening = "schedule"

    def _check_arguments(self) -> None:
        if self.prior_covariance is not None:
            raise ValueError(
                "prior_covariance is given, but MTSRLPlus learns it: use MTSRL where it is known"
            )
        super()._check_arguments()


class MetaOracle(KnownPriorMeta):
    """Thompson sampling that is handed the true prior: what a meta-learner is measured against.

    The meta-oracle of Zhou, Chen, Chen (2025): it explores only what is new about a task. Where the
    truth is not linear and Gaussian it is a strong reference, not an upper bound. Arguments:
    :class:`KnownPriorMeta`.
    """
