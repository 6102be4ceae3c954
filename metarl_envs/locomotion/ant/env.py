"""Single and vector environments of the Ant's families."""

from metarl_envs.batched import FamilyEnv, FamilyVectorEnv
from metarl_envs.locomotion.ant.families import (
    AntDir2DFamily,
    AntDirFamily,
    AntGoalFamily,
    AntVelFamily,
)


class AntDirEnv(FamilyEnv):
    """Run forward or backward, which only the rewards tell.

    ## Description
    Gymnasium's Ant-v5 with the two tasks of Finn, Abbeel and Levine (2017,
    https://arxiv.org/abs/1703.03400), and the costs of PEARL (Rakelly et al., 2019,
    https://arxiv.org/abs/1903.08254), which are Gymnasium's. Simulated in batches by
    `mujoco.batch`, bit for bit as Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (8,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (27,), float64)`: height, orientation and joint positions (13), velocities (14),
    without the place in the world, as Gymnasium's without contact forces; with
    `include_cfrc_ext_in_observation=True` Gymnasium's 105 numbers.

    ## Rewards
    `d v + 1 - 0.5 ||a||^2`, where v is the torso's speed along x over the step of 0.05 s and d is 1
    or -1; the bonus of 1 is for steps that end healthy, see below.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Terminated where the torso is not from 0.2 to 1 m high or a number is not finite, unless
    `terminate_when_unhealthy=False`; truncated after `horizon` steps.

    ## Arguments
    * `horizon`: H = 200; `ctrl_cost_weight`: 0.5; `healthy_reward`: 1.
    * `preset`: "pearl2019", which is the default by name, "finn2017" with the weight 0.005 and the
      bonus 0.05 of their code (https://github.com/cbfinn/maml_rl), or "bomrl2024" with the weight
      0.005 and the bonus 1 + 0.05, which is how we read the public experiment scripts for Xu and
      Zhu (2024, https://arxiv.org/abs/2410.09728): a hundredth of Gymnasium's control cost, and
      0.05 on top of its bonus; whether the paper's figures come from them is not known. Explicit
      arguments override it. The published codes give the bonus at the last, unhealthy step, too.
    * `include_cfrc_ext_in_observation`: False; True adds the contact forces on 13 bodies, clipped
      to [-1, 1], to observations, and `contact_cost_weight` (0.0005) times the squared norm of all
      to the costs, as Gymnasium's default does. Each simulation is then stepped on its own, which
      is slower. Without it contacts cost nothing, as in gym with MuJoCo 2.0, where these forces
      stayed zero (https://github.com/openai/gym/issues/1541).
    * `terminate_when_unhealthy`: True; `reset_noise_scale`: 0.1.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
      With contact forces there is one only, and a warning says so.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `HeadingTask(angle)`, 0 (forward) or pi (backward) with equal probability. There are
    two only, so train = test, as in PEARL (`n_train_tasks` and `n_test_tasks` are 2). The
    observation does not tell the task.
    """

    family_class = AntDirFamily
    family: AntDirFamily


class AntDirVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `AntDirEnv` and `FamilyVectorEnv`."""

    family_class = AntDirFamily
    family: AntDirFamily


class AntDir2DEnv(FamilyEnv):
    """Run in a direction of the plane that only the rewards tell.

    ## Description
    Gymnasium's Ant-v5 with directions all around, as in ProMP (Rothfuss et al., 2019,
    https://arxiv.org/abs/1810.06784) and PEARL's code (Rakelly et al., 2019,
    https://arxiv.org/abs/1903.08254), with their costs, which are Gymnasium's. Simulated in
    batches by `mujoco.batch`, bit for bit as Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (8,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (27,), float64)`: height, orientation and joint positions (13), velocities (14),
    without the place in the world, as Gymnasium's without contact forces; with
    `include_cfrc_ext_in_observation=True` Gymnasium's 105 numbers.

    ## Rewards
    `v . d + 1 - 0.5 ||a||^2`, where v is the torso's velocity over the step of 0.05 s and
    d = (cos angle, sin angle); the bonus of 1 is for steps that end healthy, see below.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Terminated where the torso is not from 0.2 to 1 m high or a number is not finite, unless
    `terminate_when_unhealthy=False`; truncated after `horizon` steps.

    ## Arguments
    * `horizon`: H = 200; `ctrl_cost_weight`: 0.5; `healthy_reward`: 1.
    * `preset`: "pearl2019", which is the default by name, or "finn2017" with the weight 0.005 and
      the bonus 0.05 of the code of Finn, Abbeel and Levine (2017, https://arxiv.org/abs/1703.03400,
      https://github.com/cbfinn/maml_rl) for two directions; explicit arguments override it.
    * `include_cfrc_ext_in_observation`: False; True adds the contact forces on 13 bodies, clipped
      to [-1, 1], to observations, and `contact_cost_weight` (0.0005) times the squared norm of all
      to the costs, as Gymnasium's default does. Each simulation is then stepped on its own, which
      is slower. Without it contacts cost nothing, as in gym with MuJoCo 2.0, where these forces
      stayed zero (https://github.com/openai/gym/issues/1541).
    * `terminate_when_unhealthy`: True; `reset_noise_scale`: 0.1.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
      With contact forces there is one only, and a warning says so.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `HeadingTask(angle)`, uniform in [0, 2 pi). ProMP draws fresh ones; `n_train_tasks`
    and `n_test_tasks`, 100 and 30, are those of PEARL's HumanoidDir, with the same directions.
    `sample_tasks(n, split="test")` draws from a stream of its own. The observation does not tell
    the task.
    """

    family_class = AntDir2DFamily
    family: AntDir2DFamily


class AntDir2DVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `AntDir2DEnv` and `FamilyVectorEnv`."""

    family_class = AntDir2DFamily
    family: AntDir2DFamily


class AntVelEnv(FamilyEnv):
    """Run at a speed that only the rewards tell.

    ## Description
    Gymnasium's Ant-v5 with the task family of Finn, Abbeel and Levine (2017,
    https://arxiv.org/abs/1703.03400). Simulated in batches by
    `mujoco.batch`, bit for bit as Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (8,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (27,), float64)`: height, orientation and joint positions (13), velocities (14),
    without the place in the world, as Gymnasium's without contact forces; with
    `include_cfrc_ext_in_observation=True` Gymnasium's 105 numbers.

    ## Rewards
    `-|v - v*| + 1 - 0.5 ||a||^2`, where v is the torso's speed along x over the step of 0.05 s; the
    bonus of 1 is for steps that end healthy, see below. The weight of the costs is Gymnasium's.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Terminated where the torso is not from 0.2 to 1 m high or a number is not finite, unless
    `terminate_when_unhealthy=False`; truncated after `horizon` steps.

    ## Arguments
    * `task_range`: target speeds, m/s; (0, 3) as in the code of Finn, Abbeel and Levine.
    * `horizon`: H = 200; `ctrl_cost_weight`: 0.5; `healthy_reward`: 1.
    * `preset`: "finn2017" with the weight 0.005 and the bonus 1 + 0.05 of their code
      (https://github.com/cbfinn/maml_rl), or "bomrl2024" with the same two numbers, which is how we
      read the public experiment scripts for Xu and Zhu (2024, https://arxiv.org/abs/2410.09728): a
      hundredth of Gymnasium's control cost, and 0.05 on top of its bonus; whether the paper's
      figures come from them is not known. Explicit arguments override it. The published codes give
      the bonus at the last, unhealthy step, too.
    * `include_cfrc_ext_in_observation`: False; True adds the contact forces on 13 bodies, clipped
      to [-1, 1], to observations, and `contact_cost_weight` (0.0005) times the squared norm of all
      to the costs, as Gymnasium's default does. Each simulation is then stepped on its own, which
      is slower. Without it contacts cost nothing, as in gym with MuJoCo 2.0, where these forces
      stayed zero (https://github.com/openai/gym/issues/1541).
    * `terminate_when_unhealthy`: True; `reset_noise_scale`: 0.1.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
      With contact forces there is one only, and a warning says so.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `VelocityTask(velocity)`, uniform in `task_range`. There is no published split;
    `n_train_tasks` and `n_test_tasks` are those of PEARL's HalfCheetahVel, 100 and 30.
    `sample_tasks(n, split="test")` draws from a stream of its own. The observation does not tell
    the task.
    """

    family_class = AntVelFamily
    family: AntVelFamily


class AntVelVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `AntVelEnv` and `FamilyVectorEnv`."""

    family_class = AntVelFamily
    family: AntVelFamily


class AntGoalEnv(FamilyEnv):
    """Go to a place that only the rewards tell.

    ## Description
    Gymnasium's Ant-v5 with the goals and costs of PEARL (Rakelly et al., 2019,
    https://arxiv.org/abs/1903.08254), which have them from ProMP's code (Rothfuss et al., 2019,
    https://arxiv.org/abs/1810.06784). Simulated in batches by
    `mujoco.batch`, bit for bit as Gymnasium does one after the other.

    ## Action Space
    `Box(-1, 1, (8,), float32)`: torques, as Gymnasium's.

    ## Observation Space
    `Box(-inf, inf, (29,), float64)`: positions (15), the place in the world first, and velocities
    (14), as Gymnasium's with `exclude_current_positions_from_observation=False` and without contact
    forces; with `include_cfrc_ext_in_observation=True` 107 numbers.

    ## Rewards
    `-||x - g||_1 - 0.1 ||a||^2`, where x is the torso's place in the plane, as MuJoCo's `xpos` has
    it after a step (0.01 s behind `qpos`, as in the published codes), and g the goal.

    ## Starting State
    Gymnasium's: uniform noise of half width 0.1 on positions, normal noise of that scale on
    velocities.

    ## Episode End
    Truncated after `horizon` steps. It does not terminate, unless `terminate_when_unhealthy=True`:
    then where the torso is not from 0.2 to 1 m high or a number is not finite.

    ## Arguments
    * `goal_shape`: "disc", where goals are uniform in a disc, or "square"; `goal_limit`: its radius
      or half width, 3 m.
    * `horizon`: H = 200; `ctrl_cost_weight`: 0.1; `healthy_reward`: 0.
    * `preset`: "promp2019" and "pearl2019", which are the default by name, or "finn2017" with a
      square, the weight 0.005, the bonus 4 + 0.05 and the termination of the code of Finn, Abbeel
      and Levine (2017, https://arxiv.org/abs/1703.03400, https://github.com/cbfinn/maml_rl), which
      gives the bonus at the last, unhealthy step, too; explicit arguments override it.
    * `include_cfrc_ext_in_observation`: False; True adds the contact forces on 13 bodies, clipped
      to [-1, 1], to observations, and `contact_cost_weight` (0.0005) times the squared norm of all
      to the costs, as Gymnasium's default does. Each simulation is then stepped on its own, which
      is slower. Without it contacts cost nothing, as in gym with MuJoCo 2.0, where these forces
      stayed zero (https://github.com/openai/gym/issues/1541).
    * `terminate_when_unhealthy`: False; `reset_noise_scale`: 0.1.
    * `n_threads`: threads that share the physics of a vector environment; nothing else changes.
      With contact forces there is one only, and a warning says so.
    * `task_mode` and `render_mode` as in `FamilyEnv`.

    ## Task family
    A task is `GoalTask(goal)`, uniform in the disc: `g = (r cos a, r sin a)`, `r = 3 sqrt(u)`, with
    u and a uniform in [0, 1) and [0, 2 pi). PEARL's code trains on 150 tasks and tests on 30
    (`n_train_tasks`, `n_test_tasks`); `sample_tasks(n, split="test")` draws from a stream of its
    own. The observation does not tell the task.
    """

    family_class = AntGoalFamily
    family: AntGoalFamily


class AntGoalVectorEnv(FamilyVectorEnv):
    """`num_envs` of them at once; see `AntGoalEnv` and `FamilyVectorEnv`."""

    family_class = AntGoalFamily
    family: AntGoalFamily
