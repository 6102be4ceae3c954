"""The frozen lake environments, single and vector."""

from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.tabular.frozen_lake.variants import (
    FrozenLakeGoalFamily,
    FrozenLakeHolesFamily,
    FrozenLakeRewardFamily,
    FrozenLakeSlipFamily,
)


class FrozenLakeHolesEnv(FamilyEnv):
    """Cross a frozen lake whose holes are somewhere else in every task.

    ## Description
    Gymnasium's FrozenLake (https://gymnasium.farama.org/environments/toy_text/frozen_lake/) with a
    random map for each task, as its `generate_random_map` draws them. Tasks differ much, which
    Xu and Zhu (BO-MRL, 2024, https://arxiv.org/abs/2410.09728) call a high task variance. The
    transitions and rewards are those of Gymnasium's environment on the same map (`desc(task)`).

    ## Action Space
    `Discrete(4)`: 0 left, 1 down, 2 right, 3 up. At the border the agent stays where it is.

    ## Observation Space
    `Discrete(size**2)`: the tile, `row * size + column`. It does not show the map.

    ## Rewards
    1 for entering the goal, `hole_reward` for entering a hole, else 0. Where holes and goal absorb,
    they pay the same again at every step.

    ## Starting State
    The top left tile. The goal is the bottom right one.

    ## Episode End
    The episode terminates in a hole and at the goal, unless `absorbing`. It is truncated after
    `horizon` steps: a time limit, not a part of the problem.

    ## Arguments
    * `size`: rows and columns, from 2 to 8.
    * `p`: probability that a tile is frozen; Gymnasium's default is 0.8. At most 1, and at least
      0.3 for maps of up to 5x5 tiles, 0.35, 0.4 and 0.45 for 6x6, 7x7 and 8x8: below, hardly a map
      has a path.
    * `preset`: gives `hole_reward`, `absorbing`, `discount` and `horizon` their defaults; what is
      given explicitly wins. "gymnasium": 0, False, 1 and 100 (200 for maps larger than 4x4).
      "bomrl2024": -1, True, 0.8 and 49, of the public experiment scripts for Xu and Zhu (2024);
      whether those are the final version is not known. With what `p` their maps were drawn is not
      published.
    * `is_slippery`, `success_rate`: as in Gymnasium; a slippery move goes in the intended direction
      with probability `success_rate`, and in each perpendicular one with half of the rest. Not
      slippery by default, unlike Gymnasium's, as in those scripts.
    * `hole_reward`: of entering a hole.
    * `absorbing`: whether holes and goal keep the agent until the horizon instead of ending the
      episode.
    * `discount`: of `discounted_optimal_returns`, `discounted_policy_returns` and the MDPs handed
      out only. Below 1 these never end; at 1 they have `horizon` steps.
    * `horizon`: steps after which an episode is truncated.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `HolesTask(holes)`, 0 or 1 for each tile. Each tile but start and goal is a hole with
    probability `1 - p`, independently, given that there is a path. `desc(task)` and
    `task_from_desc(desc)` translate Gymnasium's maps. Exact are `optimal_returns` and
    `stationary_policy_returns`, of an episode of `horizon` steps and not discounted,
    `discounted_optimal_returns` and `discounted_policy_returns`, which with a `discount` below 1
    are of an episode that never ends, and the MDPs `finite_mdp(task)` and `sparse_mdps(tasks)`.
    With the horizon, the best policy may depend on the time left, which the observation does not
    show.
    """

    family_class = FrozenLakeHolesFamily
    family: FrozenLakeHolesFamily


class FrozenLakeHolesVectorEnv(FamilyVectorEnv):
    """`num_envs` lakes at once, each with its own task; see `FrozenLakeHolesEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = FrozenLakeHolesFamily
    family: FrozenLakeHolesFamily


class FrozenLakeRewardEnv(FamilyEnv):
    """Cross a lake without holes, some of whose tiles cost: other ones in every task.

    ## Description
    One map, whose rewards differ between tasks: the transitions are those of Gymnasium's FrozenLake
    (https://gymnasium.farama.org/environments/toy_text/frozen_lake/) without holes. Tasks differ
    little, which Xu and Zhu (BO-MRL, 2024, https://arxiv.org/abs/2410.09728) call a low task
    variance. They do not say what a tile costs: `penalty` is this package's assumption.

    ## Action Space
    `Discrete(4)`: 0 left, 1 down, 2 right, 3 up. At the border the agent stays where it is.

    ## Observation Space
    `Discrete(size**2)`: the tile, `row * size + column`. It does not show which tiles cost.

    ## Rewards
    1 for entering the goal, `-penalty` for every step that ends on a marked tile, else 0. That this
    includes bumping into the border there is this package's reading. Where the goal absorbs, it
    pays again at every step.

    ## Starting State
    The top left tile. The goal is the bottom right one. Neither is marked.

    ## Episode End
    The episode terminates at the goal, unless `absorbing`. It is truncated after `horizon` steps: a
    time limit, not a part of the problem.

    ## Arguments
    * `size`: rows and columns, from 2 to 8.
    * `p`: probability that a tile is not marked; bounds as in `FrozenLakeHolesEnv`.
    * `penalty`: what a marked tile costs.
    * `preset`: gives `absorbing`, `discount` and `horizon` their defaults; what is given explicitly
      wins. "gymnasium": False, 1 and 100 (200 for maps larger than 4x4). "bomrl2024": True, 0.8 and
      49, of the public experiment scripts for Xu and Zhu (2024); whether those are the final
      version is not known.
    * `is_slippery`, `success_rate`: as in Gymnasium; not slippery by default, unlike Gymnasium's,
      as in those scripts.
    * `absorbing`: whether the goal keeps the agent until the horizon instead of ending the episode.
    * `discount`: of `discounted_optimal_returns`, `discounted_policy_returns` and the MDPs handed
      out only. Below 1 these never end; at 1 they have `horizon` steps.
    * `horizon`: steps after which an episode is truncated.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `MarksTask(marks)`, 0 or 1 for each tile, drawn as the holes of
    `metarl/FrozenLakeHoles-v0` are: there is a path that costs nothing. `desc(task)` writes marked
    tiles as `C`, which Gymnasium takes for ice; `task_from_desc(desc)` is its inverse.
    Exact values as in `FrozenLakeHolesEnv`.
    """

    family_class = FrozenLakeRewardFamily
    family: FrozenLakeRewardFamily


class FrozenLakeRewardVectorEnv(FamilyVectorEnv):
    """`num_envs` lakes at once, each with its own task; see `FrozenLakeRewardEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = FrozenLakeRewardFamily
    family: FrozenLakeRewardFamily


class FrozenLakeSlipEnv(FamilyEnv):
    """Cross one of Gymnasium's lakes, more or less slippery in every task.

    ## Description
    Gymnasium's FrozenLake (https://gymnasium.farama.org/environments/toy_text/frozen_lake/) on its
    own map with `success_rate = 1 - slip_probability`. The best policy hugs the border the more,
    the more slippery the ice is. The range of slip probabilities is this package's choice; its
    upper end is Gymnasium's default.

    ## Action Space
    `Discrete(4)`: 0 left, 1 down, 2 right, 3 up. The agent goes in the intended direction with
    probability `1 - slip_probability`, in each perpendicular one with half of the rest; at the
    border it stays where it is.

    ## Observation Space
    `Discrete(S)`: the tile, `row * size + column`, of S = 16 or 64.

    ## Rewards
    1 for entering the goal, `hole_reward` for entering a hole, else 0. Where holes and goal absorb,
    they pay the same again at every step.

    ## Starting State
    The top left tile. The goal is the bottom right one.

    ## Episode End
    The episode terminates in a hole and at the goal, unless `absorbing`. It is truncated after
    `horizon` steps: a time limit, not a part of the problem.

    ## Arguments
    * `map_name`: "4x4" or "8x8", Gymnasium's maps.
    * `slip_range`: smallest and largest slip probability.
    * `preset`, `hole_reward`, `absorbing`, `discount`, `horizon`: as in `FrozenLakeHolesEnv`.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `SlipTask(slip_probability)`, uniform in `slip_range`; `desc(task)` is the same map
    for every task. Exact values as in `FrozenLakeHolesEnv`.
    """

    family_class = FrozenLakeSlipFamily
    family: FrozenLakeSlipFamily


class FrozenLakeSlipVectorEnv(FamilyVectorEnv):
    """`num_envs` lakes at once, each with its own task; see `FrozenLakeSlipEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = FrozenLakeSlipFamily
    family: FrozenLakeSlipFamily


class FrozenLakeGoalEnv(FamilyEnv):
    """Find the goal on one of Gymnasium's lakes: it is somewhere else in every task.

    ## Description
    Gymnasium's FrozenLake (https://gymnasium.farama.org/environments/toy_text/frozen_lake/) on its
    own map, with the goal on any frozen tile that a path leads to. Holes are where they always are.
    The choice of goals is this package's.

    ## Action Space
    `Discrete(4)`: 0 left, 1 down, 2 right, 3 up. At the border the agent stays where it is.

    ## Observation Space
    `Discrete(S)`: the tile, `row * size + column`, of S = 16 or 64. It does not show the goal.

    ## Rewards
    1 for entering the goal, `hole_reward` for entering a hole, else 0. Where holes and goal absorb,
    they pay the same again at every step.

    ## Starting State
    The top left tile.

    ## Episode End
    The episode terminates in a hole and at the goal, unless `absorbing`. It is truncated after
    `horizon` steps: a time limit, not a part of the problem.

    ## Arguments
    * `map_name`: "4x4" or "8x8", Gymnasium's maps.
    * `preset`, `is_slippery`, `success_rate`, `hole_reward`, `absorbing`, `discount`, `horizon`: as
      in `FrozenLakeHolesEnv`.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array".

    ## Task family
    A task is `LakeGoalTask(goal)`, the index of a tile, uniform over the frozen tiles that can be
    reached, Gymnasium's goal among them and the start not. `desc(task)` and `task_from_desc(desc)`
    translate Gymnasium's maps. Exact values as in `FrozenLakeHolesEnv`.
    """

    family_class = FrozenLakeGoalFamily
    family: FrozenLakeGoalFamily


class FrozenLakeGoalVectorEnv(FamilyVectorEnv):
    """`num_envs` lakes at once, each with its own task; see `FrozenLakeGoalEnv` and
    `FamilyVectorEnv` for the arguments.
    """

    family_class = FrozenLakeGoalFamily
    family: FrozenLakeGoalFamily
