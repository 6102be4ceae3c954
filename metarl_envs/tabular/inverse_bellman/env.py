"""The inverse Bellman environments, single and vector."""

from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.tabular.inverse_bellman.family import InverseBellmanFamily


class InverseBellmanEnv(FamilyEnv):
    """Random finite MDPs in which an agent's Gaussian prior on linear Q-functions can be exactly
    right.

    ## Description
    Ground truth for agents that learn a prior over Q-functions. Kernels and features are fixed; a
    task draws the parameters of its optimal Q-function, and the rewards are *defined* by the
    Bellman equation, read backwards: with `q_h = features_h @ parameters_h` and `v_h(s) = max_a
    q_h(s, a)`,

        r_h(s, a) = q_h(s, a) - sum_s' P_h(s' | s, a) v_{h+1}(s'),   v_H = 0.

    Then `Q* = q` for every kernel. Rewards are unbounded and may be negative. All numbers are
    choices of this package.

    ## Action Space
    `Discrete(A)`. Every action is allowed everywhere.

    ## Observation Space
    `MultiDiscrete([H + 1, S])`: the stage, from 0 (H after the last step), and the state.

    ## Rewards
    `r_h(s, a)` plus Gaussian noise of standard deviation `reward_std`.

    ## Starting State
    A state drawn uniformly.

    ## Episode End
    The episode terminates after H steps. It is never truncated.

    ## Arguments
    * `n_states`, `n_actions`, `n_stages`, `n_features`: S, A, H and d.
    * `reward_std`: standard deviation of the reward noise. With deterministic kernels it is all the
      noise that regression targets have.
    * `kernel`: "stochastic" (each row uniform on the simplex) or "deterministic".
    * `population_seed`: fixes what all tasks share: kernels, features (normal, variance 1 / d, one
      table per stage) and the default prior.
    * `prior_mean`: (H, d) or (d,); by default standard normal numbers.
    * `prior_covariance`: (H, d, d) or (d, d), positive semi-definite; by default variances
      `task_std**2` with random correlations.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `InverseBellmanTask(parameters)`, (H, d), Gaussian and independent over stages. The
    observation does not tell it. `optimal_returns`, `policy_returns`, `myopic_returns` and
    `q_prior` are exact (`q_prior(target="myopic")` by Monte Carlo over tasks).
    """

    family_class = InverseBellmanFamily
    family: InverseBellmanFamily


class InverseBellmanVectorEnv(FamilyVectorEnv):
    """`num_envs` MDPs at once, each with its own task; see `InverseBellmanEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = InverseBellmanFamily
    family: InverseBellmanFamily
