"""The bandits, single and vector."""

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv
from metarl_envs.tabular.bandit.family import BernoulliBanditFamily, GaussianBanditFamily


class BernoulliBanditEnv(FamilyEnv):
    """Arms that pay 1 with unknown probabilities, and a budget of pulls.

    ## Description
    The bandits of Duan et al. (2016), "RL^2: Fast reinforcement learning via slow reinforcement
    learning", https://arxiv.org/abs/1611.02779: success probabilities are independent and uniform
    on [0, 1]. One episode is the whole problem, so all learning happens within it.

    ## Action Space
    `Discrete(n_arms)`: the arm to pull.

    ## Observation Space
    `Discrete(1)`: there is nothing to see. What an agent needs are its own actions and rewards:
    wrap the environment in `ObserveTransition`, or give it a memory.

    ## Rewards
    1 with the success probability of the arm, otherwise 0.

    ## Starting State
    The only one.

    ## Episode End
    The episode terminates after `n_pulls` pulls: the budget is part of the problem. It is never
    truncated.

    ## Arguments
    * `n_arms` (5): k; 5, 10 and 50 in the paper.
    * `n_pulls` (10): n; 10, 100 and 500 in the paper.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `BernoulliBanditTask(success_probabilities)`. An agent that knows it earns
    `optimal_return(task)`, n times the largest probability; one that does not earns, on average
    over tasks, at most `family.bayes_optimal_value()`, by `family.bayes_optimal_policy()`. Both are
    exact; the latter for small n and k. `strategies` has Thompson sampling and others to compare
    with.
    """

    family_class = BernoulliBanditFamily
    family: BernoulliBanditFamily


class BernoulliBanditVectorEnv(FamilyVectorEnv):
    """`num_envs` bandits at once, each with its own task; see `BernoulliBanditEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = BernoulliBanditFamily
    family: BernoulliBanditFamily


class GaussianBanditEnv(FamilyEnv):
    """Arms with unknown mean rewards, Gaussian noise, and a budget of pulls.

    ## Description
    The bandits of Lee et al. (2023), "Supervised pretraining can learn in-context reinforcement
    learning" (DPT), https://arxiv.org/abs/2306.14892: means are independent and uniform on [0, 1].

    ## Action Space
    `Discrete(n_arms)`: the arm to pull.

    ## Observation Space
    `Discrete(1)`: there is nothing to see; see `BernoulliBanditEnv`.

    ## Rewards
    The mean of the arm plus Gaussian noise of standard deviation `reward_std`.

    ## Starting State
    The only one.

    ## Episode End
    The episode terminates after `n_pulls` pulls: the budget is part of the problem. It is never
    truncated.

    ## Arguments
    * `n_arms` (5) and `n_pulls` (500), as there.
    * `reward_std` (0.3): this package's reading of the variance of 0.3 there, which the authors'
      code (https://github.com/jon--lee/decision-pretrained-transformer, `envs/bandit_env.py`) uses
      as a standard deviation.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `GaussianBanditTask(means)`. `optimal_return(task)`, for an agent that knows the task,
    is `n_pulls` times the largest mean.
    """

    family_class = GaussianBanditFamily
    family: GaussianBanditFamily


class GaussianBanditVectorEnv(FamilyVectorEnv):
    """`num_envs` bandits at once, each with its own task; see `GaussianBanditEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = GaussianBanditFamily
    family: GaussianBanditFamily
