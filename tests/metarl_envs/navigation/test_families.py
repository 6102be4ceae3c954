import numpy as np
import pytest

from metarl_envs.navigation import (
    PointCornerFamily,
    PointGoalEnv,
    PointGoalFamily,
    PointGoalVectorEnv,
    PointRobotEnv,
    PointRobotFamily,
    PointWindEnv,
    PointWindFamily,
    SparsePointGoalEnv,
    SparsePointGoalFamily,
)

FAMILIES = {
    "PointGoal": PointGoalFamily(),
    "PointGoal finn2017": PointGoalFamily(preset="finn2017"),
    "PointGoal promp2019": PointGoalFamily(preset="promp2019"),
    "PointGoal done": PointGoalFamily(done_radius=0.05, horizon=30),
    "PointRobot": PointRobotFamily(),
    "PointRobot start 0": PointRobotFamily(start_range=0.0),
    "PointRobot goals out of reach": PointRobotFamily(goal_range=3.0, start_range=0.5),
    "SparsePointGoal": SparsePointGoalFamily(),
    "SparsePointGoal borel2021": SparsePointGoalFamily(preset="borel2021"),
    "SparsePointGoal random start": SparsePointGoalFamily(random_start=True),
    "SparsePointGoal dense": SparsePointGoalFamily(reward="dense"),
    "SparsePointGoal dense borel2021": SparsePointGoalFamily(preset="borel2021", reward="dense"),
    "PointWind": PointWindFamily(),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def arrays_of(family, n, seed=0):
    space = family.task_distribution.space
    return space.low + (space.high - space.low) * np.random.default_rng(seed).random(
        (n, *space.shape)
    )


def tasks_of(family, n, seed=0):
    return [family.task_distribution.from_array(row) for row in arrays_of(family, n, seed)]


def starts_of(family, n, seed=1):
    uniforms = np.random.default_rng(seed).random((n, 2))
    return family.start_low + (family.start_high - family.start_low) * uniforms


def play(family, tasks, starts, choose):
    """Returns (M,) of `choose(positions, stage) -> actions`, one episode per task."""
    params = family.compile(np.array([task.to_array() for task in tasks]))
    states, total = np.array(starts, dtype=np.float64), np.zeros(len(tasks))
    running = np.ones(len(tasks), dtype=np.bool_)
    for stage in range(family.horizon):
        stages = np.full(len(tasks), stage)
        actions = np.asarray(choose(family.observe(states, stages), stage), dtype=np.float32)
        assert np.all(np.abs(actions) <= 1)
        nothing = np.empty((len(tasks), 0))
        states, rewards, terminated = family.step(params, states, stages, actions, nothing)
        total += rewards * running
        running &= ~terminated
    return total


def remaining(offsets, speeds, horizon):
    """Smallest distances after 1, ..., H steps, (M, H): `|max(|offset_i| - t speed_i, 0)|`."""
    covered = np.arange(1, horizon + 1)[:, None] * np.broadcast_to(speeds, offsets.shape)[:, None]
    left = np.maximum(np.abs(offsets)[:, None] - covered, 0.0)
    return np.hypot(left[..., 0], left[..., 1])


def assert_mean_is(samples, published, rounding):
    """Within 4 standard errors of what the published figure, rounded, can have been."""
    standard_error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - published) <= rounding + 4 * standard_error


# The optimum ----------------------------------------------------------------------------------


@every_family
def test_the_optimal_action_earns_the_optimal_return(name):
    family = FAMILIES[name]
    tasks, starts = tasks_of(family, 40), starts_of(family, 40)
    returns = play(
        family, tasks, starts, lambda positions, _: family.optimal_actions(tasks, positions)
    )
    # float32 observations and actions: the error of a position is about 1e-7 and does not add up.
    assert np.allclose(returns, family.optimal_returns_from(tasks, starts), rtol=0, atol=2e-5)


@every_family
def test_no_perturbed_optimal_action_and_no_random_play_earns_more(name):
    family = FAMILIES[name]
    tasks, starts = tasks_of(family, 60), starts_of(family, 60)
    best = family.optimal_returns_from(tasks, starts)
    rng = np.random.default_rng(2)
    for scale in (0.01, 0.1, 0.5, 2.0):
        noise = scale * rng.standard_normal((family.horizon, len(tasks), 2))

        def choose(positions, stage, noise=noise):
            return np.clip(family.optimal_actions(tasks, positions) + noise[stage], -1, 1)

        assert np.all(play(family, tasks, starts, choose) <= best + 2e-5)
    randoms = rng.uniform(-1, 1, (family.horizon, len(tasks), 2))
    assert np.all(play(family, tasks, starts, lambda _, stage: randoms[stage]) <= best + 1e-9)


def test_going_straight_in_the_plane_earns_less_than_straight_in_each_coordinate():
    family = FAMILIES["PointRobot"]
    tasks, starts = tasks_of(family, 200), starts_of(family, 200)
    goals = np.array([task.goal for task in tasks])

    def choose(positions, _):
        moves = (goals - positions) / family.max_step
        return moves / np.maximum(np.abs(moves).max(axis=1, keepdims=True), 1)

    returns = play(family, tasks, starts, choose)
    best = family.optimal_returns_from(tasks, starts)
    assert np.all(returns <= best + 1e-5)
    assert returns.mean() < best.mean() - 0.05


def test_no_sequence_of_whole_half_or_no_steps_earns_more():
    # The goal is 1.5 and 2.5 steps away, which halves reach.
    family = PointGoalFamily(horizon=4)
    task = family.task_distribution.from_array(np.array([0.15, -0.25]))
    steps = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    grid = np.stack(np.meshgrid(*[steps] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    # All 625 sequences of the first coordinate with all 625 of the second one.
    paths = 0.1 * np.cumsum(grid, axis=1)
    x, y = np.abs(paths - 0.15), np.abs(paths + 0.25)
    best = -np.hypot(x[:, None], y[None]).sum(axis=-1).min()
    assert family.optimal_return(task) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", ["PointGoal", "PointGoal promp2019", "PointRobot"])
def test_the_optimum_of_distance_rewards_is_the_sum_of_what_is_left(name):
    family = FAMILIES[name]
    tasks, starts = tasks_of(family, 100), starts_of(family, 100)
    offsets = np.array([task.goal for task in tasks]) - starts
    expected = -remaining(offsets, family.max_step, family.horizon).sum(axis=1)
    assert np.allclose(family.optimal_returns_from(tasks, starts), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["PointGoal finn2017", "PointGoal done"])
def test_the_optimum_with_termination_counts_no_step_after_the_first_that_is_near(name):
    family = FAMILIES[name]
    tasks = tasks_of(family, 300)
    distances = remaining(np.array([task.goal for task in tasks]), 0.1, family.horizon)
    costs = distances**2 if family.reward == "squared_distance" else distances
    after = np.cumsum(distances <= family.done_radius, axis=1) > 1
    expected = -np.where(after, 0.0, costs).sum(axis=1)
    assert np.allclose(family.optimal_returns(tasks), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["SparsePointGoal", "SparsePointGoal borel2021"])
def test_the_optimum_of_sparse_rewards_is_the_sum_over_what_is_left(name):
    family = FAMILIES[name]
    tasks, starts = tasks_of(family, 300), starts_of(family, 300)
    angles = np.array([task.angle for task in tasks])
    offsets = np.stack([np.cos(angles), np.sin(angles)], axis=1) - starts
    distances = remaining(offsets, 0.1, family.horizon)
    near = 1.0 if family.flat_reward else 1.0 - distances
    expected = np.where(distances <= 0.2, near, 0.0).sum(axis=1)
    assert np.allclose(family.optimal_returns_from(tasks, starts), expected, rtol=0, atol=1e-10)


def test_the_optimum_in_the_wind_is_the_horizon_less_the_way():
    family = FAMILIES["PointWind"]
    tasks = tasks_of(family, 300)
    winds = np.array([task.wind for task in tasks])
    n_steps = np.ceil((1 - 0.03) / (0.1 + winds[:, 1]))
    assert np.array_equal(family.optimal_returns(tasks), 75 - n_steps + 1)
    sign = np.array([0.0, 1.0])
    distances = remaining(np.tile([0.0, 1.0], (300, 1)), 0.1 + sign * winds, 75)
    assert np.array_equal(family.optimal_returns(tasks), (distances <= 0.03).sum(axis=1))


@pytest.mark.parametrize(
    "name",
    [
        "PointRobot",
        "PointRobot goals out of reach",
        "SparsePointGoal borel2021",
        "SparsePointGoal random start",
        "SparsePointGoal dense borel2021",
    ],
)
def test_the_optimum_over_random_starts_is_the_mean_over_starts(name):
    family = FAMILIES[name]
    for task in tasks_of(family, 4):
        starts = starts_of(family, 4_000)
        returns = family.optimal_returns_from([task] * len(starts), starts)
        assert_mean_is(returns, family.optimal_return(task), 1e-9)


def test_the_optimum_over_random_starts_is_what_gauss_legendre_gives():
    family = PointRobotFamily()
    task = family.task_distribution.from_array(np.array([0.4, -0.9]))
    # Gauss-Legendre between the kinks: |g - x| is a whole number of steps there.
    nodes, weights = np.polynomial.legendre.leggauss(6)
    points, masses = [], []
    for goal in task.goal:
        kinks = np.concatenate([goal + 0.1 * np.arange(-20, 21), [-1, 1]])
        kinks = np.unique(np.round(kinks[np.abs(kinks) <= 1 + 1e-12], 12))
        half = np.diff(kinks)[:, None] / 2
        points.append((kinks[:-1, None] + half * (1 + nodes)).ravel())
        masses.append((half * weights).ravel() / 2)
    starts = np.stack(np.meshgrid(*points, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.outer(*masses).ravel()
    returns = family.optimal_returns_from([task] * len(starts), starts)
    # The distance has a cusp where both coordinates meet their kinks: that is what is left.
    assert family.optimal_return(task) == pytest.approx(float(mass @ returns), abs=1e-5)


@pytest.mark.parametrize("start_range", 10.0 ** np.arange(-12, 1))
@pytest.mark.parametrize("goal", [(0.637, 0.411), (0.3, -0.9), (0.0, 0.0), (0.25, 1.0)])
def test_a_small_square_of_starts_changes_the_optimum_little(start_range, goal):
    fixed, random = PointRobotFamily(start_range=0.0), PointRobotFamily(start_range=start_range)
    task = fixed.task_distribution.from_array(np.array(goal))
    change = random.optimal_return(task) - fixed.optimal_return(task)
    # Each of 20 distances changes by at most sqrt 2 start_range; the rest is rounding.
    assert abs(change) <= 20 * 1.5 * start_range + 1e-13


def test_goals_far_away_have_an_exact_optimum_too():
    family = PointRobotFamily(goal_range=1e6)
    for task in tasks_of(family, 20):
        # Out of reach, distances are convex over starts, by less than 1 / distance.
        centre = family.optimal_return_from(task, (0.0, 0.0))
        assert family.optimal_return(task) == pytest.approx(centre, rel=1e-10)


@every_family
def test_one_optimum_is_a_row_of_many(name):
    family = FAMILIES[name]
    tasks = tasks_of(family, 7)
    assert family.optimal_returns(tasks).shape == (7,)
    assert [family.optimal_return(task) for task in tasks] == pytest.approx(
        family.optimal_returns(tasks), abs=1e-12
    )


# Published and simulated figures --------------------------------------------------------------


def test_the_figures_of_the_point_robot():
    family = PointRobotFamily()
    tasks, starts = tasks_of(family, 8_000), starts_of(family, 8_000)
    stay = play(family, tasks, starts, lambda positions, _: np.zeros_like(positions))
    assert_mean_is(stay, -20.9, 0.05)
    centre = play(
        family, tasks, starts, lambda positions, _: np.clip(-positions / family.max_step, -1, 1)
    )
    assert_mean_is(centre, -15.9, 0.05)
    assert_mean_is(family.optimal_returns_from(tasks, starts), -5.187, 0.0005)
    assert_mean_is(family.optimal_returns(tasks), -5.187, 0.0005)
    from_centre = PointRobotFamily(start_range=0.0)
    assert_mean_is(from_centre.optimal_returns(tasks), -2.37, 0.005)


@pytest.mark.parametrize(("horizon", "figure"), [(20, 13.4), (60, 53.4), (100, 93.4)])
def test_the_figures_of_the_sparse_point_robot(horizon, figure):
    family = SparsePointGoalFamily(horizon=horizon)
    assert_mean_is(family.optimal_returns(tasks_of(family, 4_000)), figure, 0.05)


def test_rewards_are_those_of_the_definitions():
    action = np.array([1.0, -0.5], dtype=np.float32)
    goal = np.array([0.3, 0.4])
    after = np.array([0.1, -0.05])
    distance = float(np.hypot(*(goal - after)))
    for reward, expected in (("distance", -distance), ("squared_distance", -(distance**2))):
        env = PointGoalEnv(reward=reward)
        env.reset(seed=0, options={"task": env.task_distribution.from_array(goal)})
        observation, got, *_ = env.step(action)
        assert got == pytest.approx(expected, abs=1e-12)
        assert np.array_equal(observation, after.astype(np.float32))


def test_sparse_rewards_are_paid_within_the_radius_only():
    family, flat = SparsePointGoalFamily(), SparsePointGoalFamily(flat_reward=True)
    distances = np.array([0.0, 0.1, 0.2, 0.2 + 1e-8, 1.0])
    assert np.array_equal(family.rewards(distances), [1.0, 0.9, 0.8, 0.0, 0.0])
    assert np.array_equal(flat.rewards(distances), [1.0, 1.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("angle", [0.0, np.pi / 2, np.pi])
def test_a_radius_that_whole_steps_reach_exactly_is_reached(angle):
    # Eight steps of 0.1 leave 0.2 of 1, nine leave 0.1, ten and more leave nothing.
    env = SparsePointGoalEnv()
    task = env.task_distribution.from_array(np.array([angle]))
    observation, _ = env.reset(seed=0, options={"task": task})
    rewards = []
    for _ in range(20):
        observation, reward, *_ = env.step(env.optimal_action(task, observation))
        rewards.append(reward)
    assert rewards == pytest.approx([0] * 7 + [0.8, 0.9] + [1] * 11, abs=1e-6)
    assert env.optimal_return(task) == pytest.approx(12.7, abs=1e-9)


def test_no_reward_near_the_goal_is_negative():
    distances = np.array([0.0, 1.0, 1.0 + 5e-10, 1.1])
    assert SparsePointGoalFamily(goal_radius=1.0).rewards(distances).tolist() == [1, 0, 0, 0]


def test_the_dense_reward_is_minus_the_distance_everywhere():
    family = FAMILIES["SparsePointGoal dense"]
    assert family.rewards(np.array([0.0, 0.1, 3.0])).tolist() == [0.0, -0.1, -3.0]
    tasks = tasks_of(family, 100)
    angles = np.array([task.angle for task in tasks])
    left = remaining(np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.1, 20)
    assert np.allclose(family.optimal_returns(tasks), -left.sum(axis=1), rtol=0, atol=1e-10)


def test_the_wind_moves_a_point_that_stays():
    env = PointWindEnv()
    task = env.task_distribution.from_array(np.array([0.05, -0.08]))
    env.reset(seed=0, options={"task": task})
    for n in (1, 2, 3):
        observation, *_ = env.step(np.zeros(2, np.float32))
        assert observation == pytest.approx([0.05 * n, -0.08 * n], abs=1e-6)


# Episodes -------------------------------------------------------------------------------------


def length_of_optimal_play(env, task):
    observation, _ = env.reset(seed=0, options={"task": task})
    for n in range(1, 1000):
        observation, *_, terminated, truncated, _ = env.step(env.optimal_action(task, observation))
        if terminated or truncated:
            return n, terminated
    raise AssertionError("the episode never ended")


def test_episodes_terminate_near_the_goal_only_where_that_is_asked_for():
    task = PointGoalFamily().task_distribution.from_array(np.array([0.45, 0.2]))
    assert length_of_optimal_play(PointGoalEnv(), task) == (100, False)
    assert length_of_optimal_play(PointGoalEnv(preset="finn2017"), task) == (5, True)
    assert length_of_optimal_play(PointGoalEnv(preset="finn2017", done_radius=0), task) == (
        100,
        False,
    )
    assert length_of_optimal_play(PointGoalEnv(done_radius=0.06), task) == (4, True)


def test_starts_are_where_they_are_said_to_be():
    def starts(env):
        return np.array([env.reset(seed=seed)[0] for seed in range(300)])

    assert not starts(PointGoalEnv()).any()
    assert not starts(SparsePointGoalEnv()).any()
    robot, borel = starts(PointRobotEnv()), starts(SparsePointGoalEnv(preset="borel2021"))
    for positions, low, high in (
        (robot, [-1, -1], [1, 1]),
        (borel, [-1.5, -0.5], [1.5, 1.5]),
    ):
        assert np.all((positions >= low) & (positions <= high))
        # A corner of a tenth of each side is missed with probability 0.9^300.
        assert np.all(positions.min(axis=0) < np.array(low) + 0.2)
        assert np.all(positions.max(axis=0) > np.array(high) - 0.2)


@every_family
def test_the_bits_of_a_step_do_not_depend_on_the_batch(name):
    family, n = FAMILIES[name], 37
    rng = np.random.default_rng(3)
    arrays, actions = arrays_of(family, n), rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    uniforms, nothing = rng.random((n, family.n_reset_uniforms)), np.empty((n, 0))

    def step(rows):
        params = family.compile(arrays[rows])
        states = family.initial(params, uniforms[rows])
        stages = np.zeros(len(states), dtype=np.int64)
        return family.step(params, states, stages, actions[rows], nothing[rows])

    every = step(slice(None))
    for rows in (slice(5, 6), slice(3, 20), slice(36, 37)):
        for one, many in zip(step(rows), every, strict=True):
            assert np.array_equal(one, many[rows])


def test_a_vector_env_plays_each_task():
    env = PointGoalVectorEnv(3, horizon=10)
    tasks = env.sample_tasks(3, seed=4)
    observations, _ = env.reset(seed=0, options={"tasks": tasks})
    total = np.zeros(3)
    for _ in range(10):
        actions = env.family.optimal_actions(tasks, observations)
        observations, rewards, *_ = env.step(actions)
        total += rewards
    assert np.allclose(total, env.optimal_returns(tasks), rtol=0, atol=1e-5)


# Arguments ------------------------------------------------------------------------------------


def test_presets_fill_what_is_not_given():
    family = PointGoalFamily(preset="finn2017")
    assert (family.goal_range, family.reward, family.horizon) == (0.5, "squared_distance", 100)
    assert (family.max_step, family.done_radius) == (0.1, 0.01)
    family = PointGoalFamily(preset="promp2019", horizon=50, done_radius=0.02)
    assert (family.goal_range, family.reward, family.horizon) == (2.0, "distance", 50)
    assert family.done_radius == 0.02
    family = SparsePointGoalFamily(preset="borel2021", flat_reward=False)
    assert (family.horizon, family.flat_reward, family.random_start) == (60, False, True)


@pytest.mark.parametrize("family", [PointGoalFamily, SparsePointGoalFamily])
def test_an_unknown_preset_is_refused_with_the_names_there_are(family):
    with pytest.raises(ValueError, match=r"preset='maml' must be None or one of .*20\d\d"):
        family(preset="maml")


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (PointGoalFamily, {"goal_range": -1}, "goal_range=-1"),
        (PointGoalFamily, {"goal_range": np.inf}, "goal_range=inf"),
        (PointGoalFamily, {"reward": "cubic"}, "reward='cubic'"),
        (PointGoalFamily, {"horizon": 0}, "horizon=0"),
        (PointGoalFamily, {"max_step": 0.0}, "max_step=0.0 must be above 0"),
        (PointGoalFamily, {"done_radius": -0.1}, "done_radius=-0.1"),
        (PointRobotFamily, {"start_range": np.nan}, "start_range=nan"),
        (PointRobotFamily, {"horizon": 2.5}, "horizon=2.5"),
        (SparsePointGoalFamily, {"flat_reward": "yes"}, "flat_reward='yes'"),
        (SparsePointGoalFamily, {"goal_radius": 1.5}, "goal_radius=1.5 must be at most 1"),
        (SparsePointGoalFamily, {"goal_radius": 0}, "goal_radius=0 must be above 0"),
        (SparsePointGoalFamily, {"reward": "distance"}, "reward='distance'"),
        (PointGoalFamily, {"goal_range": 1e200}, "goal_range=1e.200 must be a number from"),
        (PointGoalFamily, {"max_step": 1e7}, "max_step=10000000.0"),
        (PointGoalFamily, {"max_step": 1e-300}, "max_step=1e-300 must be above 0, and at least"),
        (PointRobotFamily, {"start_range": 1e-13}, "start_range=1e-13 must be above 0, and at"),
        (PointRobotFamily, {"start_range": 1e7}, "start_range=10000000.0"),
        (PointCornerFamily, {"sparse_radius": 4.0}, "at most 1.9 times corner=2.0"),
        (PointWindFamily, {"wind_range": 0.1}, "wind_range=0.1 must be below max_step=0.1"),
        (PointWindFamily, {"goal_radius": 0}, "goal_radius=0"),
        (PointCornerFamily, {"reward": "dense"}, "reward='dense'"),
        (PointCornerFamily, {"corner": 0}, "corner=0"),
        (PointCornerFamily, {"start_range": 0.25}, "start_range=0.25"),
        (PointCornerFamily, {"sparse_radius": 5.0}, "sparse_radius=5.0"),
        (PointCornerFamily, {"horizon": 10}, "horizon=10"),
    ],
)
def test_bad_arguments_are_refused_by_name(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        family(**arguments)


def test_positions_of_wrong_shapes_are_refused():
    family = PointGoalFamily()
    tasks = tasks_of(family, 2)
    with pytest.raises(ValueError, match=r"observations has shape \(3, 2\): give \(2, 2\)"):
        family.optimal_actions(tasks, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"starts has shape \(3, 2\): give \(2,\) or \(2, 2\)"):
        family.optimal_returns_from(tasks, np.zeros((3, 2)))


@pytest.mark.parametrize(
    "position", ["ab", None, ["a", "b"], [0.0, np.nan], [0, np.inf], [[0], []]]
)
def test_positions_that_are_none_are_refused_by_name(position):
    family = PointGoalFamily()
    (task,) = tasks_of(family, 1)
    for method, name in (
        (family.optimal_return_from, "starts"),
        (family.optimal_action, "observation"),
    ):
        with pytest.raises(ValueError, match=f"^{name}="):
            method(task, position)
    with pytest.raises(ValueError, match=r"starts=.*nearer"):
        family.optimal_return_from(task, [0.0, 1e200])
    for method in (family.optimal_returns_from, family.optimal_actions):
        with pytest.raises(TypeError, match="tasks=5"):
            method(5, [0.0, 0.0])


def test_actions_outside_the_box_are_refused():
    env = PointGoalEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="outside"):
        env.step(np.array([1.1, 0.0], dtype=np.float32))


def test_arrays_of_no_task_are_refused():
    distribution = SparsePointGoalFamily().task_distribution
    for array in ([-0.1], [3.2], [np.nan], [1.0, 1.0]):
        with pytest.raises(ValueError):
            distribution.from_array(np.array(array))
    with pytest.raises(ValueError, match="none of the 4 tasks"):
        PointCornerFamily().task_distribution.from_array(np.array([1.0, 2.0]))
