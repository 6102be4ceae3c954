"""The random MDPs, single and vector."""

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv
from metarl_envs.tabular.random_mdp.family import RandomMDPFamily


class RandomMDPEnv(FamilyEnv):
    """Finite MDPs in which everything is random: transitions and mean rewards.

    ## Description
    The tabular MDPs of Duan et al. (2016), "RL^2: Fast reinforcement learning via slow
    reinforcement learning", https://arxiv.org/abs/1611.02779. There a trial has 10 to 100 episodes
    of one task, and an agent is judged by the sum of their returns; see `Trial`.

    ## Action Space
    `Discrete(n_actions)`.

    ## Observation Space
    `Discrete(n_states)`: the state. The stage, on which the best policy depends, is
    `info["stage"]`.

    ## Rewards
    Gaussian, with mean `mu(s, a)` and standard deviation `reward_std`.

    ## Starting State
    State 0.

    ## Episode End
    The episode terminates after `n_stages` steps: the horizon is part of the problem. It is never
    truncated.

    ## Arguments
    * `n_states` (10), `n_actions` (5), `n_stages` (10): S, A and H, as in the paper.
    * `reward_std` (1), as in the paper.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `RandomMDPTask(transitions, mean_rewards)`: the rows of the kernel are independent and
    uniform on the simplex, Dirichlet(1, ..., 1), and the mean rewards N(1, 1).
    `optimal_return(task)` is the exact value of the best policy for this task, which may depend on
    the stage. Random play earns H on average over tasks. `learners` has posterior sampling and a
    certainty-equivalent learner to compare with.
    """

    family_class = RandomMDPFamily
    family: RandomMDPFamily


class RandomMDPVectorEnv(FamilyVectorEnv):
    """`num_envs` MDPs at once, each with its own task; see `RandomMDPEnv` and `FamilyVectorEnv` for
    the arguments.
    """

    family_class = RandomMDPFamily
    family: RandomMDPFamily
