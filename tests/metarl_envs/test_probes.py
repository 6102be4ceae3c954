import itertools
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.optimize import minimize
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from metarl_envs.checks import (
    TASK_ENV_CHECKS,
    TASK_VECTOR_ENV_CHECKS,
    check_task_env,
    check_task_vector_env,
)
from metarl_envs.core import ExactEnv, LinearQEnv
from metarl_envs.probes import (
    Chain,
    ChainVector,
    GaussianBandit,
    GaussianBanditTask,
    GaussianBanditVector,
    LinearQuadratic,
    LinearQuadraticTask,
    LinearQuadraticVector,
    SignFlip,
    SignFlipVector,
    WhichArm,
    WhichArmVector,
)

FINITE = [
    (WhichArm, WhichArmVector),
    (GaussianBandit, GaussianBanditVector),
    (Chain, ChainVector),
]
CONTINUOUS = [(SignFlip, SignFlipVector), (LinearQuadratic, LinearQuadraticVector)]
OF_FINITE_ENVS = {
    "features_are_pure_and_complete",
    "action_masks_agree_with_infos",
    "policy_returns_agree_with_random_play",
}


def play(env, task, choose, *, seed=0):
    """Return of one episode under ``choose(observation)``."""
    observation, _ = env.reset(seed=seed, options={"task": task})
    total, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(choose(observation))
        total, done = total + reward, terminated or truncated
    return total


def returns_of_batch(vector_env, task, choose, *, seed=0):
    """Returns of one episode per sub-environment, (B,), for envs of a fixed number of steps."""
    n = vector_env.num_envs
    observations, _ = vector_env.reset(seed=seed, options={"tasks": [task] * n})
    total = np.zeros(n)
    for _ in range(vector_env.family.n_stages):
        observations, rewards, *_ = vector_env.step(choose(observations))
        total += rewards
    return total


def assert_mean_is(samples, expected):
    standard_error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - expected) <= 4 * standard_error + 1e-12


@pytest.mark.parametrize(("env", "vector_env"), FINITE + CONTINUOUS)
def test_probes_keep_the_laws(env, vector_env):
    missing = TASK_ENV_CHECKS.keys() - set(check_task_env(env))
    expected = set() if (env, vector_env) in FINITE else OF_FINITE_ENVS
    assert missing == expected | {"spec_survives_json"}
    ran = check_task_vector_env(vector_env, single=env)
    assert TASK_VECTOR_ENV_CHECKS.keys() - set(ran) == {"vector_spec_survives_json"}


@pytest.mark.parametrize(("env", "vector_env"), FINITE + CONTINUOUS)
def test_probes_pass_the_checks_of_gymnasium_and_sb3(env, vector_env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*not having a spec.*")
        warnings.filterwarnings("ignore", message=".*observation space (min|max)imum value is.*")
        check_env(env())
        check_env_of_sb3(env())


@pytest.mark.parametrize(("env", "vector_env"), FINITE)
def test_finite_probes_have_linear_and_exact_values(env, vector_env):
    for each in (env(), vector_env(2)):
        assert isinstance(each, LinearQEnv)
        assert isinstance(each, ExactEnv)


def test_which_arm_pays_one_for_its_arm_only():
    env = WhichArm(n_arms=5)
    for task in env.sample_tasks(20, seed=0):
        paid = [play(env, task, lambda _, arm=arm: arm) for arm in range(5)]
        assert paid == [float(arm == task.arm) for arm in range(5)]
        assert env.optimal_return(task) == max(paid) == 1.0
        assert env.optimal_action(task, np.array([0, 0])) == task.arm


def test_which_arm_draws_every_arm_equally_often():
    tasks = WhichArm(n_arms=4).sample_tasks(4000, seed=1)
    counts = np.bincount([task.arm for task in tasks], minlength=4)
    # 4 standard deviations of a binomial count.
    assert np.abs(counts - 1000).max() <= 4 * np.sqrt(4000 * 0.25 * 0.75)


def test_the_best_gaussian_arm_earns_its_mean():
    env = GaussianBanditVector(2000, n_arms=3, noise_std=0.7)
    task = GaussianBanditTask((0.2, 1.3, -0.4))
    single = GaussianBandit(n_arms=3, noise_std=0.7)
    assert single.optimal_return(task) == 1.3
    assert single.optimal_action(task, np.array([0, 0])) == 1
    for arm, mean in enumerate(task.means):
        samples = returns_of_batch(env, task, lambda o, arm=arm: np.full(len(o), arm))
        assert_mean_is(samples, mean)
        assert samples.std() == pytest.approx(0.7, abs=4 * 0.7 / np.sqrt(2 * 2000))


def test_gaussian_bandit_tasks_have_the_prior_of_q_prior():
    env = GaussianBandit(n_arms=2, prior_mean=[1.0, -1.0], prior_std=[0.5, 2.0])
    mean, covariance = env.q_prior()
    assert mean.tolist() == [[1.0, -1.0]]
    assert covariance.tolist() == [[[0.25, 0.0], [0.0, 4.0]]]
    arrays = np.array([task.to_array() for task in env.sample_tasks(5000, seed=2)])
    for arm in range(2):
        assert_mean_is(arrays[:, arm], mean[0, arm])
        assert_mean_is((arrays[:, arm] - mean[0, arm]) ** 2, covariance[0, arm, arm])


@pytest.mark.parametrize("n_stages", [1, 2, 4])
def test_the_optimum_of_a_chain_is_the_best_of_all_action_sequences(n_stages):
    env = Chain(n_stages=n_stages)
    for task in env.task_distribution.tasks:
        sequences = list(itertools.product(range(2), repeat=n_stages))
        earned = [play(env, task, lambda o, s=sequence: s[o[0]]) for sequence in sequences]
        assert env.optimal_return(task) == max(earned) == 1.0
        assert sum(earned) == 1.0
        assert play(env, task, lambda o, task=task: env.optimal_action(task, o)) == 1.0


def test_stage_observations_of_a_chain_are_those_that_play_reaches():
    env = Chain(n_stages=4)
    seen = [set() for _ in range(4)]
    for sequence in itertools.product(range(2), repeat=4):
        observation, _ = env.reset(seed=0)
        for action in sequence:
            seen[observation[0]].add(tuple(observation.tolist()))
            observation, *_ = env.step(action)
    for stage in range(4):
        assert set(map(tuple, env.stage_observations(stage).tolist())) == seen[stage]


def test_policy_returns_of_a_chain_equal_monte_carlo():
    n = 2000
    env = ChainVector(n, n_stages=3)
    rng = np.random.default_rng(3)
    policy = [rng.dirichlet([1, 1], len(env.stage_observations(stage))) for stage in range(3)]
    index = [
        {tuple(row): i for i, row in enumerate(env.stage_observations(stage).tolist())}
        for stage in range(3)
    ]

    def choose(observations):
        stage = observations[0, 0]
        rows = [index[stage][tuple(row)] for row in observations.tolist()]
        return (rng.random(n) < policy[stage][rows, 1]).astype(np.int64)

    tasks = env.task_distribution.tasks
    exact = env.policy_returns(tasks, policy)
    for task, expected in zip(tasks, exact, strict=True):
        assert_mean_is(returns_of_batch(env, task, choose), expected)
    per_task = env.policy_returns(tasks, [np.stack([part, part]) for part in policy])
    assert np.allclose(per_task, exact, rtol=0, atol=1e-15)


@pytest.mark.parametrize("env", [WhichArm(n_arms=4), GaussianBandit(n_arms=4), Chain(n_stages=3)])
def test_the_optimal_policy_has_the_optimal_return(env):
    tasks = env.sample_tasks(5, seed=4)
    greedy = [
        np.eye(env.action_space.n)[
            [
                [env.optimal_action(task, row) for row in env.stage_observations(stage)]
                for task in tasks
            ]
        ]
        for stage in range(env.n_stages)
    ]
    best = env.optimal_returns(tasks)
    assert np.allclose(env.policy_returns(tasks, greedy), best, rtol=0, atol=1e-14)
    assert np.all(env.myopic_returns(tasks) <= best + 1e-14)


@pytest.mark.parametrize("env", [WhichArm(n_arms=4), GaussianBandit(n_arms=4), Chain(n_stages=3)])
def test_action_values_are_linear_in_the_features(env):
    family = env.family
    tasks = env.sample_tasks(3, seed=5)
    values = family.optimal_action_values(tasks)
    parameters = values.swapaxes(2, 3).reshape(3, env.n_stages, env.n_features)
    for stage in range(env.n_stages):
        observations = env.stage_observations(stage)
        predicted = np.einsum(
            "sad,md->msa", env.features(stage, observations), parameters[:, stage]
        )
        assert np.array_equal(predicted, values[:, stage][:, observations[:, 1]])
        assert np.array_equal(env.stages(observations), np.full(len(observations), stage))


def test_q_prior_of_which_arm_is_the_moments_of_a_one_hot_vector():
    env = WhichArm(n_arms=4)
    mean, covariance = env.q_prior(structure="full")
    assert np.allclose(mean, 0.25, rtol=0, atol=1e-15)
    assert np.allclose(covariance[0], np.eye(4) / 4 - 1 / 16, rtol=0, atol=1e-15)
    _, block = env.q_prior()
    assert np.allclose(block[0], np.eye(4) * 3 / 16, rtol=0, atol=1e-15)


def test_q_prior_of_a_chain_has_the_moments_of_its_two_tasks():
    env = Chain(n_stages=2)
    values = env.family.optimal_action_values(env.task_distribution.tasks)
    mean, covariance = env.q_prior(structure="full")
    # At the start left is worth 1 in one task and right in the other.
    left, right = mean[0].reshape(2, -1)[:, 0]
    assert (left, right) == (0.5, 0.5)
    stacked = values.swapaxes(2, 3).reshape(2, 2, -1)
    for stage in range(2):
        assert np.allclose(covariance[stage], np.cov(stacked[:, stage].T, bias=True), atol=1e-15)
    myopic, _ = env.q_prior(target="myopic")
    assert np.all(myopic[0] == 0)


def test_sign_flip_pays_the_signed_action():
    env = SignFlip(n_stages=3)
    for task in env.task_distribution.tasks:
        assert play(env, task, lambda o, task=task: env.optimal_action(task, o)) == 3.0
        assert env.optimal_return(task) == 3.0
        earned = play(env, task, lambda _: np.array([0.25], np.float32))
        assert earned == task.sign * 0.75


def test_sign_flip_earns_nothing_without_the_task():
    env = SignFlip()
    for action in (-1.0, -0.3, 1.0):
        earned = [
            play(env, task, lambda _, action=action: np.array([action], np.float32))
            for task in env.task_distribution.tasks
        ]
        assert sum(earned) == 0.0


def expected_return_of_feedback(gains, task, *, control_cost, noise_std, start_std):
    """Expected return of ``a_t = -k_t e_t``, from the moments of e, without Riccati."""
    second_moment, total = start_std**2 + task.goal**2, 0.0
    for k in gains:
        total -= control_cost * k**2 * second_moment
        second_moment = (1 - task.gain * k) ** 2 * second_moment + noise_std**2
        total -= second_moment
    return total


@pytest.mark.parametrize("control_cost", [0.0, 0.1, 2.0])
def test_riccati_gains_are_the_best_of_all_linear_feedbacks(control_cost):
    numbers = {"control_cost": control_cost, "noise_std": 0.2, "start_std": 0.3}
    env = LinearQuadratic(n_stages=5, **numbers)
    for task in env.sample_tasks(3, seed=6):
        result = minimize(
            lambda k, task=task: -expected_return_of_feedback(k, task, **numbers),
            np.full(5, 0.5),
            tol=1e-12,
        )
        assert env.optimal_return(task) == pytest.approx(-result.fun, abs=1e-9)
        gains = env.family.riccati(task)[0]
        exact = expected_return_of_feedback(gains, task, **numbers)
        assert env.optimal_return(task) == pytest.approx(exact, abs=1e-12)


def test_no_control_is_better_than_the_riccati_control_at_any_state():
    """One-step deviations on a grid: with the value function they make the policy optimal."""
    env = LinearQuadratic(n_stages=4, noise_std=0.2)
    task = LinearQuadraticTask(0.7, 1.2)
    k, p, q = env.family.riccati(task)
    p, q = np.append(p, 0.0), np.append(q, 0.0)
    controls = np.linspace(-10, 10, 4001)
    for stage in range(4):
        for e in np.linspace(-3, 3, 13):
            following = (e + task.gain * controls) ** 2 + 0.2**2
            q_values = -(following + 0.1 * controls**2 + p[stage + 1] * following + q[stage + 1])
            value = -(p[stage] * e**2 + q[stage])
            # The grid's step is 0.005: next to a maximum of curvature 2 * (c + m b^2) it misses
            # less than 2.5e-3 ** 2 * (0.1 + 2 * 1.44) = 1.9e-5.
            assert value - 1.9e-5 <= q_values.max() <= value + 1e-9
            assert controls[q_values.argmax()] == pytest.approx(-k[stage] * e, abs=0.0026)


def test_the_linear_quadratic_optimum_is_what_its_policy_earns():
    n = 2000
    env = LinearQuadraticVector(n)
    for task in env.sample_tasks(2, seed=7):
        gains = env.family.riccati(task)[0]
        largest = []

        def choose(observations, task=task, gains=gains, largest=largest):
            stage = round(float(observations[0, 1]) * env.n_stages)
            actions = -gains[stage] * (observations[:, :1] - task.goal) / 5.0
            largest.append(np.abs(actions).max())
            return actions.astype(np.float32)

        assert_mean_is(returns_of_batch(env, task, choose), env.optimal_return(task))
        assert max(largest) < 0.8


def test_optimal_action_of_the_linear_quadratic_env_follows_the_stage():
    env = LinearQuadratic(n_stages=3)
    task = LinearQuadraticTask(0.5, 1.0)
    gains = env.family.riccati(task)[0]
    for stage in range(3):
        action = env.optimal_action(task, np.array([0.1, stage / 3], np.float32))
        assert action == pytest.approx([gains[stage] * 0.4 / 5.0], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: WhichArm(n_arms=0), "n_arms"),
        (lambda: WhichArm(noise_std=-1.0), "noise_std"),
        (lambda: GaussianBandit(prior_mean=[1.0, 2.0]), "prior_mean"),
        (lambda: GaussianBandit(prior_std=-1.0), "std"),
        (lambda: Chain(n_stages=0), "n_stages"),
        (lambda: Chain().policy_returns([], [np.ones((1, 2)) / 2]), "probabilities"),
        (lambda: Chain().features(3, np.zeros(2)), "stage"),
        (lambda: SignFlip(n_stages=1.5), "n_stages"),
        (lambda: LinearQuadratic(control_cost=float("nan")), "control_cost"),
    ],
)
def test_bad_arguments_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()
