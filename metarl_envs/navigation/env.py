"""The point environments, single and vector."""

from metarl_envs.batched.env import FamilyEnv
from metarl_envs.batched.vector import FamilyVectorEnv
from metarl_envs.navigation.corner import PointCornerFamily
from metarl_envs.navigation.families import (
    PointGoalFamily,
    PointRobotFamily,
    PointWindFamily,
    SparsePointGoalFamily,
)


class PointGoalEnv(FamilyEnv):
    """A point in the plane that has to find a goal it is not told.

    ## Description
    The 2-D navigation of Finn et al. (2017), Model-Agnostic Meta-Learning for Fast Adaptation of
    Deep Networks, https://arxiv.org/abs/1703.03400, section 5.3, by default with the settings of
    the code in common use (`cbfinn/maml_rl`, and those that follow it), which differ from the
    paper's: see `preset`.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: an action moves the point by `max_step * action`, each coordinate
    on its own. This is the convention of rllab's normalised environments, in which that code runs:
    a Gaussian policy of standard deviation 1 has the standard deviation of one full step. Other
    code adds the action itself, clipped to `max_step`. Actions outside the space are refused here,
    so agents clip what they hand in; log-probabilities should be of the sample before it is
    clipped.

    ## Observation Space
    `Box(-inf, inf, (2,), float32)`: the position. Positions are kept as float64.

    ## Rewards
    Minus the distance from the goal after the move (`reward="distance"`), or minus its square.

    ## Starting State
    (0, 0).

    ## Episode End
    Truncated after `horizon` steps. With `done_radius` above 0 the episode terminates once the
    point is within that distance of the goal.

    ## Arguments
    * `preset`: `None`, "finn2017" (the paper: squared distance, terminates within 0.01 of the goal)
      or "promp2019" (goals in [-2, 2]^2 as in the code of Rothfuss et al. 2019,
      https://arxiv.org/abs/1810.06784; that code ends an episode near the origin instead of the
      goal, which is not reproduced: here it never terminates). A preset sets what is not given.
    * `goal_range`: half the width of the square of goals; 0.5.
    * `reward`: "distance" (default) or "squared_distance".
    * `horizon`: 100.
    * `max_step`: 0.1.
    * `done_radius`: 0 (default) for never; the code in common use ends an episode when both
      coordinates are within 0.01 of the goal's.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array"; pictures show the goal.

    ## Task family
    A task is `GoalTask(goal)`, uniform in the square [-goal_range, goal_range]^2 around the start.
    `optimal_return(task)` is exact: it is what going straight to the goal in each coordinate earns
    (`optimal_action`; proof in `DistanceFamily`). Actions are float32, so an agent gets there up to
    their rounding. `family.optimal_returns_from(tasks, starts)` is the same from other starts.
    """

    family_class = PointGoalFamily
    family: PointGoalFamily


class PointGoalVectorEnv(FamilyVectorEnv):
    """`num_envs` points at once; see `PointGoalEnv` and `FamilyVectorEnv` for the arguments."""

    family_class = PointGoalFamily
    family: PointGoalFamily


class PointRobotEnv(FamilyEnv):
    """A point that starts anywhere in a square and has to find a goal in it.

    ## Description
    The point robot of Rakelly et al. (2019), Efficient Off-Policy Meta-Reinforcement Learning via
    Probabilistic Context Variables (PEARL), https://arxiv.org/abs/1903.08254, who train on 80 goals
    and test on 20 others.

    Mean returns over tasks and starts with the default arguments, by simulation: staying at the
    start -20.9, going to the centre and staying there -15.9, going straight to the goal -5.19 (with
    `start_range=0`: -2.37).

    ## Action Space
    `Box(-1, 1, (2,), float32)`: moves the point by `max_step * action`; see `PointGoalEnv`.

    ## Observation Space
    `Box(-inf, inf, (2,), float32)`: the position.

    ## Rewards
    Minus the distance from the goal after the move.

    ## Starting State
    Uniform in [-start_range, start_range]^2.

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `goal_range`, `start_range`: half the widths of the squares of goals and of starts; 1 each.
    * `horizon`: 20.
    * `max_step`: 0.1.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array"; pictures show the goal.

    ## Task family
    A task is `GoalTask(goal)`, uniform in its square. `optimal_return(task)` is exact, with the
    integral over starts (`mean_moments` in exact.py);
    `family.optimal_returns_from(tasks, starts)` is the best return from given starts.
    """

    family_class = PointRobotFamily
    family: PointRobotFamily


class PointRobotVectorEnv(FamilyVectorEnv):
    """`num_envs` points at once; see `PointRobotEnv` and `FamilyVectorEnv` for the arguments."""

    family_class = PointRobotFamily
    family: PointRobotFamily


class SparsePointGoalEnv(FamilyEnv):
    """A point that feels the goal, somewhere on a half circle, only where it is near.

    ## Description
    The sparse point robot of Rakelly et al. (2019), PEARL, https://arxiv.org/abs/1903.08254: an
    agent without knowledge of the task has to walk along the half circle until it gets a reward.
    They train on the dense reward and test on the sparse one; see `reward`. Their goals are a fixed
    number of evenly spaced ones, shuffled; here every task is drawn uniformly from the half circle.

    Mean optimal returns of an agent that knows the task, over tasks: 13.4 with `horizon=20`, 53.4
    with 60 and 93.4 with 100.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: moves the point by `max_step * action`; see `PointGoalEnv`. As each
    coordinate moves on its own, goals on the diagonals are reached soonest.

    ## Observation Space
    `Box(-inf, inf, (2,), float32)`: the position.

    ## Rewards
    With `reward="sparse"`, `1 - distance` after the move where the distance from the goal is at
    most `goal_radius` (to 1e-9, more than steps are rounded by), else 0; with `flat_reward` 1
    instead of `1 - distance`. With `reward="dense"` minus the distance, everywhere.

    ## Starting State
    (0, 0); with `random_start` uniform in [-1.5, 1.5] x [-0.5, 1.5].

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `preset`: `None` (PEARL) or "borel2021" (`horizon=60, flat_reward=True, random_start=True`, as
      in the "semi-circle" of Dorfman et al. 2021, BOReL, https://arxiv.org/abs/2008.02598, and of
      Ni et al. 2022, https://arxiv.org/abs/2110.05038). A preset sets what is not given.
    * `reward`: "sparse" (default) or "dense", with which PEARL trains.
    * `horizon`: 20.
    * `flat_reward`, `random_start`: False each. The dense reward takes no notice of the first.
    * `goal_radius`: above 0 and at most 1; 0.2.
    * `max_step`: 0.1.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array"; pictures show the goal.

    ## Task family
    A task is `AngleTask(angle)`, uniform in [0, pi]; the goal is (cos angle, sin angle).
    `optimal_return(task)` is exact: from a fixed start it is what going straight to the goal in
    each coordinate earns, from a random one the integral of that over starts (`mean_moments` in
    exact.py). `family.optimal_returns_from(tasks, starts)` is the best return from given starts.
    """

    family_class = SparsePointGoalFamily
    family: SparsePointGoalFamily


class SparsePointGoalVectorEnv(FamilyVectorEnv):
    """`num_envs` points at once; see `SparsePointGoalEnv` and `FamilyVectorEnv` for the
    arguments.
    """

    family_class = SparsePointGoalFamily
    family: SparsePointGoalFamily


class PointCornerEnv(FamilyEnv):
    """A point that has to find out which of four corners is the goal.

    ## Description
    After the corner environment of Rothfuss et al. (2019), ProMP: Proximal Meta-Policy Search,
    https://arxiv.org/abs/1810.06784, and its code: corners, start, steps and which positions pay
    are theirs. The default reward is this package's own, because theirs can be farmed.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: moves the point by `max_step * action`; see `PointGoalEnv`.

    ## Observation Space
    `Box(-inf, inf, (2,), float32)`: the position.

    ## Rewards
    A position pays where the goal is a nearest corner and `|x_1| + |x_2| >= sparse_radius`;
    everywhere else nothing tells the corners apart. With d the distance from the goal before a move
    and d' after it:

    * `reward="progress"`, the published one: d - d' where the position after the move pays, else 0.
      To step back out of the part that pays costs nothing, so going in and out again and again
      earns several times the return of going to the goal. Its optimum is not known, and the
      environment then has no `optimal_return`.
    * `reward="potential"` (default): phi(x') - phi(x) with phi(x) = |goal| - d where the position
      pays, else 0. Within that part it is the published reward; the step that enters it is paid for
      all the way from the centre, and the one that leaves it pays everything back (Ng et al. 1999:
      differences of a potential cannot be farmed).

    ## Starting State
    Uniform in [-start_range, start_range]^2, where nothing pays.

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `reward`: "potential" (default) or "progress".
    * `corner`: the goals are (+-corner, +-corner); 2.
    * `sparse_radius`: 0.5; at most 1.9 times `corner`.
    * `start_range`: 0.2.
    * `horizon`: 100.
    * `max_step`: 0.2.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array"; pictures show the goal.

    ## Task family
    A task is `GoalTask(goal)`, each of the four corners with equal probability. `optimal_return` is
    |goal| = sqrt(2) corner: rewards add up to phi of the last position (proof in
    `PointCornerFamily`). Undiscounted, it does not depend on how soon the goal is reached.
    """

    family_class = PointCornerFamily
    family: PointCornerFamily


class PointCornerVectorEnv(FamilyVectorEnv):
    """`num_envs` points at once; see `PointCornerEnv` and `FamilyVectorEnv` for the arguments."""

    family_class = PointCornerFamily
    family: PointCornerFamily


class PointWindEnv(FamilyEnv):
    """A point that knows where to go, in a wind that it does not know.

    ## Description
    The wind environment of Ni et al. (2022), Recurrent Model-Free RL Can Be a Strong Baseline for
    Many POMDPs, https://arxiv.org/abs/2110.05038. Tasks differ in their dynamics, not in their
    rewards: one step tells the wind.

    ## Action Space
    `Box(-1, 1, (2,), float32)`: moves the point by `max_step * action`, and the wind moves it on;
    see `PointGoalEnv`.

    ## Observation Space
    `Box(-inf, inf, (2,), float32)`: the position.

    ## Rewards
    1 where the point is within `goal_radius` of the goal (0, 1) after the move (to 1e-9, more than
    steps are rounded by), else 0.

    ## Starting State
    (0, 0).

    ## Episode End
    Truncated after `horizon` steps. It never terminates.

    ## Arguments
    * `wind_range`: bound of each coordinate of the wind; 0.08. It must be below `max_step`.
    * `goal_radius`: 0.03.
    * `horizon`: 75.
    * `max_step`: 0.1.
    * `task_mode`: "resample" draws a new task at every reset, "fixed" keeps the first one.
    * `render_mode`: `None`, "ansi" or "rgb_array"; pictures show the wind.

    ## Task family
    A task is `WindTask(wind)`, uniform in [-wind_range, wind_range]^2. `optimal_return(task)` is
    exact: an agent that knows the wind gets there in
    T = max(1, ceil((1 - goal_radius) / (max_step + wind_2))) steps and, as the wind is weaker than
    its own steps, stays, so that it earns max(0, horizon - T + 1).
    """

    family_class = PointWindFamily
    family: PointWindFamily


class PointWindVectorEnv(FamilyVectorEnv):
    """`num_envs` points at once; see `PointWindEnv` and `FamilyVectorEnv` for the arguments."""

    family_class = PointWindFamily
    family: PointWindFamily
