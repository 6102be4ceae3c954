"""The recommendation environments, single and vector."""

from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.tabular.recommendation.family import RecommendationFamily


class RecommendationEnv(FamilyEnv):
    """Recommend products to a customer, one after the other, and learn from what was liked.

    ## Description
    A customer is shown J of P products, each at most once. Whether a product is liked depends on
    what was liked and disliked before: liking one makes others more or less attractive. So the
    first recommendations should not only please but open the door to the next ones. The number of
    likes counts.

    The customer model follows the style of Osband, Van Roy and Wen (2016), "Generalization and
    Exploration via Randomized Value Functions" (https://arxiv.org/abs/1402.0635). The population of
    segments, all default values and the presets are choices of this package.

    ## Action Space
    `Discrete(P)`: the product to show. A product that was shown before is masked
    (`info["action_mask"]`, `action_masks()`); `step` accepts it all the same, as a recommendation
    without effect: nothing changes but the stage, and the reward is 0.

    ## Observation Space
    `MultiDiscrete([3] * P)`: `x + 1`, where `x[a]` is -1 for a product that was disliked, 0 for one
    not shown yet and +1 for one that was liked.

    ## Rewards
    1 if the product is liked, else 0. Product a is liked with probability `sigmoid(bias[a] + sum_n
    affinity[a, n] x[n])`, plus the interactions `sum_{n < m} interaction[a, n, m] x[n] x[m]` in the
    log-odds where `interaction_std > 0`.

    ## Starting State
    No product was shown: x = 0.

    ## Episode End
    The episode terminates after J recommendations. It is never truncated.

    ## Arguments
    * `n_products`, `n_recommendations`: P and J.
    * `repeat`: "mask" forbids products that were shown, to agents (through the masks) and to the
      optimum alike; "noop" allows them, as a way to pass. The best return is the same: passes can
      be moved to the end of an episode, where a product shown instead can only please.
    * `population`: "random", or "gateway" (product 0 is disliked a little by itself, but who likes
      it likes products 1 to 4).
    * `population_seed`: fixes what all segments share.
    * `affinity_spread`, `bias_spread`: standard deviations of the mean affinities over pairs of
      products (default 1, with "gateway" 0) and of the mean biases over products (default 0). With
      `affinity_spread=0` and "random" the segments share nothing: a negative control.
    * `bias_std`, `affinity_std`: how much segments differ from the population (0.5 each).
    * `interaction_std`: standard deviation of the pairwise interactions, which all segments share
      and no features but "tabular" can express (0).
    * `task_noise`: "gaussian", "student_t" (heavy tails with `degrees_of_freedom`, same standard
      deviation) or "clusters" (Gaussian around one of `n_clusters` centres that lie
      `cluster_spread` from the population's mean).
    * `features`: what `features()` returns per product: "linear" [1, x], "intercept" [1], "sum" [1,
      sum of x], "projection" [1, R x] with `n_projections` random rows, or "tabular" (one-hot
      states; at most 4 products), with which linear Q-functions are exact.
    * `task_mode`: "resample" draws a new segment at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is a segment of customers, `RecommendationTask(bias, affinity)`, P + P^2 numbers: the
    population's mean plus independent noise. The observation does not tell it. `optimal_returns`,
    `policy_returns`, `myopic_returns` and `q_prior` are exact (the last by Monte Carlo over tasks)
    up to some 200,000 states. `features` are `e_a (x) [1, x]`, one block per product, so
    Q-functions are linear in them only approximately.
    """

    family_class = RecommendationFamily
    family: RecommendationFamily


class RecommendationVectorEnv(FamilyVectorEnv):
    """`num_envs` customers at once, each of a segment of its own; see `RecommendationEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = RecommendationFamily
    family: RecommendationFamily
