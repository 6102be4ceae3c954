import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.distributions import prior_tasks, sample_tasks
from metarl_envs.tabular import FiniteMDP, optimal_values
from metarl_envs.tabular.recommendation import RecommendationFamily, RecommendationVectorEnv
from metarl_envs.tabular.recommendation.tasks import gateway_means


def make(**arguments):
    return RecommendationFamily(**({"n_products": 4, "n_recommendations": 3} | arguments))


def tasks_of(family, n=5, seed=0):
    return sample_tasks(family.task_distribution, n, seed=seed)


def like_probability(family, task, x, a):
    logit = task.bias[a] + sum(g * s for g, s in zip(task.affinity[a], x, strict=True))
    if family.population.interactions is not None:
        p = family.n_products
        pairs = [(n, m) for n in range(p) for m in range(n + 1, p)]
        logit += sum(family.population.interactions[a, n, m] * x[n] * x[m] for n, m in pairs)
    return 1 / (1 + np.exp(-logit))


def brute_force(family, task, x, stage, policy=None, myopic=False):
    """Value of a state by enumerating everything that can happen, one state at a time."""
    if stage == family.n_stages:
        return 0.0
    values, likes = {}, {}
    for a in range(family.n_products):
        if x[a] != 0:
            if family.repeat == "mask" and policy is None:
                continue
            likes[a], values[a] = 0.0, brute_force(family, task, x, stage + 1, policy, myopic)
            continue
        likes[a] = like_probability(family, task, x, a)
        after = {r: (*x[:a], r, *x[a + 1 :]) for r in (1, -1)}
        rest = {
            r: brute_force(family, task, s, stage + 1, policy, myopic) for r, s in after.items()
        }
        values[a] = likes[a] * (1 + rest[1]) + (1 - likes[a]) * rest[-1]
    if policy is not None:
        row = next(
            i
            for i, obs in enumerate(family.stage_observations(stage))
            if tuple(obs - 1) == tuple(x)
        )
        return sum(policy[stage][row, a] * value for a, value in values.items())
    return values[max(likes, key=likes.get)] if myopic else max(values.values())


def random_policies(family, n_tasks=None, seed=0):
    rng = np.random.default_rng(seed)
    axes = () if n_tasks is None else (n_tasks,)
    return [
        rng.dirichlet(np.ones(family.n_products), size=(*axes, len(family.stage_observations(h))))
        for h in range(family.n_stages)
    ]


VARIANTS = [
    {"n_products": 3, "n_recommendations": 2},
    {"repeat": "noop", "bias_spread": 1.0, "affinity_spread": 3.0},
    {"interaction_std": 1.5},
    {"n_products": 3, "n_recommendations": 3, "task_noise": "student_t"},
    {"n_products": 5, "n_recommendations": 1, "task_noise": "clusters"},
]


@pytest.mark.parametrize("arguments", VARIANTS)
def test_values_agree_with_brute_force(arguments):
    family = make(**arguments)
    start = (0,) * family.n_products
    tasks = tasks_of(family)
    for values, options in (
        (family.optimal_returns(tasks), {}),
        (family.myopic_returns(tasks), {"myopic": True}),
    ):
        expected = [brute_force(family, task, start, 0, **options) for task in tasks]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    assert family.optimal_return(tasks[0]) == pytest.approx(family.optimal_returns(tasks)[0])


@pytest.mark.parametrize("arguments", VARIANTS)
def test_policy_returns_agree_with_brute_force(arguments):
    family = make(**arguments)
    tasks, policies = tasks_of(family, 3), random_policies(family, 3)
    start = (0,) * family.n_products
    expected = [
        brute_force(family, task, start, 0, policy=[stage[i] for stage in policies])
        for i, task in enumerate(tasks)
    ]
    np.testing.assert_allclose(family.policy_returns(tasks, policies), expected, atol=1e-12)
    shared = [stage[0] for stage in policies]
    first = family.policy_returns(tasks, policies)[0]
    np.testing.assert_allclose(family.policy_returns(tasks, shared)[0], first, atol=1e-12)


def test_values_agree_with_the_finite_mdp_solver():
    family = make(n_products=3, n_recommendations=3)
    task = tasks_of(family, 1)[0]
    states = family.stage_observations(2) - 1
    index = {tuple(x): i for i, x in enumerate(states)}
    n = len(states) + 1
    transitions, rewards = np.zeros((n, 3, n)), np.zeros((n, 3))
    transitions[-1, :, -1] = 1.0
    for x, i in index.items():
        for a in range(3):
            if x[a] != 0:  # forbidden: an end without any reward is never better
                transitions[i, a, -1] = 1.0
                continue
            rewards[i, a] = like_probability(family, task, x, a)
            for sign, p in ((1, rewards[i, a]), (-1, 1 - rewards[i, a])):
                after = (*x[:a], sign, *x[a + 1 :])
                transitions[i, a, index.get(after, n - 1)] += p
    mdp = FiniteMDP(transitions, rewards, np.eye(n)[0], horizon=3)
    assert optimal_values(mdp)[0, 0] == pytest.approx(family.optimal_return(task), abs=1e-12)


@pytest.mark.parametrize("repeat", ["mask", "noop"])
def test_average_of_rollouts_is_the_exact_value(repeat):
    env = RecommendationVectorEnv(4_000, n_products=5, n_recommendations=3, repeat=repeat)
    task = env.sample_tasks(1, seed=0)[0]
    env.set_tasks([task] * env.num_envs)
    policies = random_policies(env.family)
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    returns = np.zeros(env.num_envs)
    for stage in range(3):
        rows = {tuple(obs): i for i, obs in enumerate(env.stage_observations(stage))}
        probabilities = policies[stage][[rows[tuple(obs)] for obs in observations]]
        draws = rng.random((env.num_envs, 1))
        actions = np.minimum((draws > probabilities.cumsum(-1)).sum(-1), 4)
        observations, rewards, *_ = env.step(actions)
        returns += rewards
    exact = env.policy_returns([task], policies)[0]
    standard_error = returns.std() / np.sqrt(env.num_envs)
    assert abs(returns.mean() - exact) < 4 * standard_error


def test_optimum_beats_myopic_beats_uniform_everywhere():
    family = make(n_products=6, n_recommendations=3)
    tasks = tasks_of(family, 50)
    uniform = []
    for stage in range(3):
        masks = family.action_masks(family.stage_observations(stage))
        uniform.append(masks / masks.sum(-1, keepdims=True))
    optimal, myopic = family.optimal_returns(tasks), family.myopic_returns(tasks)
    assert np.all(optimal >= myopic - 1e-12)
    assert np.mean(myopic) > np.mean(family.policy_returns(tasks, uniform)) + 0.3


def test_passing_gains_nothing():
    # Passes can be moved to the end of an episode, where a product shown instead costs nothing.
    mask, noop = make(affinity_spread=3.0), make(affinity_spread=3.0, repeat="noop")
    tasks = tasks_of(mask, 30)
    np.testing.assert_allclose(
        noop.optimal_returns(tasks), mask.optimal_returns(tasks), rtol=0, atol=1e-12
    )


def test_gateway_misleads_a_myopic_agent():
    family = gym.make("metarl/RecommendationGateway-v0").unwrapped.family
    tasks = tasks_of(family, 60)
    optimal, myopic = family.optimal_returns(tasks).mean(), family.myopic_returns(tasks).mean()
    assert (optimal - myopic) / optimal > 0.05
    bias, affinity = gateway_means(8)
    np.testing.assert_array_equal(family.population.bias, bias)
    np.testing.assert_array_equal(family.population.affinity, affinity)


def test_osband_preset_has_no_biases():
    family = gym.make("metarl/RecommendationOsband-v0").unwrapped.family
    assert not any(tasks_of(family, 1)[0].bias)
    assert family.population.affinity.std() == pytest.approx(2.0, rel=0.2)


def test_population_is_a_function_of_its_seed():
    assert tasks_of(make()) == tasks_of(make())
    assert tasks_of(make(population_seed=1)) != tasks_of(make())
    # An option that is switched on draws nothing that others need.
    np.testing.assert_array_equal(
        make(interaction_std=1.0).population.affinity, make().population.affinity
    )


def test_stage_observations_list_what_any_policy_reaches():
    env = RecommendationVectorEnv(300, n_products=4, n_recommendations=3)
    rng = np.random.default_rng(0)
    observations, _ = env.reset(seed=0)
    for stage in range(3):
        listed = {tuple(obs) for obs in env.stage_observations(stage)}
        assert len(listed) == len(env.stage_observations(stage))
        assert {tuple(obs) for obs in observations} <= listed
        observations, *_ = env.step(rng.integers(4, size=300))


def test_sizes_of_the_standard_instance():
    family = RecommendationFamily()
    sizes = [len(family.stage_observations(h)) for h in range(5)]
    assert np.diff([0, *sizes]).tolist() == [1, 20, 180, 960, 3360]
    assert (family.n_features, family.n_feature_blocks) == (110, 10)


def test_repeat_is_without_effect():
    env = gym.make("metarl/RecommendationSmall-v0").unwrapped
    env.reset(seed=0)
    first, *_ = env.step(2)
    second, reward, terminated, _, info = env.step(2)
    np.testing.assert_array_equal(first, second)
    assert (reward, terminated, info["stage"]) == (0.0, False, 2)


def test_masks_and_stages_follow_the_observation():
    family = make()
    observations = np.array([[1, 1, 1, 1], [0, 1, 2, 1]], dtype=np.float32)
    np.testing.assert_array_equal(
        family.action_masks(observations), [[True] * 4, [False, True, False, True]]
    )
    np.testing.assert_array_equal(family.stages(observations), [0, 2])
    noop = make(repeat="noop")
    assert noop.action_masks(observations).all()
    with pytest.raises(ValueError, match="noop"):
        noop.stages(observations)


@pytest.mark.parametrize("target", ["optimal", "myopic"])
def test_tabular_features_make_the_prior_exact(target):
    arguments = {"n_products": 3, "n_recommendations": 2, "features": "tabular"}
    family = make(**arguments)
    mean, covariance = family.q_prior(n_tasks=40, seed=1, target=target, structure="full", ridge=0)
    tasks = prior_tasks(family.task_distribution, 40, 1)
    q = family.optimal_action_values(tasks)
    for stage in range(2):
        observations = family.stage_observations(stage)
        layer = family.stages(observations) == stage
        allowed = family.action_masks(observations) & layer[:, None]
        values = q[stage]
        if target == "myopic":
            values = np.array(
                [
                    [
                        [like_probability(family, t, x, a) if x[a] == 0 else 0.0 for a in range(3)]
                        for x in observations - 1
                    ]
                    for t in tasks
                ]
            )
        features = family.features(stage, observations)
        fitted = features @ mean[stage]
        np.testing.assert_allclose(fitted[allowed], values.mean(0)[allowed], atol=1e-12)
        spread = np.einsum("sad,de,sae->sa", features, covariance[stage], features)
        np.testing.assert_allclose(
            spread[allowed], values.var(0, ddof=1)[allowed], rtol=0, atol=1e-12
        )


def test_prior_options():
    family = make(n_products=5)
    mean, block = family.q_prior(n_tasks=60)
    same_mean, full = family.q_prior(n_tasks=60, structure="full")
    assert mean.shape == (3, 30) and block.shape == (3, 30, 30)
    np.testing.assert_array_equal(mean, same_mean)
    own = np.repeat(np.arange(5), 6)[:, None] == np.repeat(np.arange(5), 6)
    np.testing.assert_array_equal(block[:, own], full[:, own])
    assert not block[:, ~own].any() and np.abs(full[:, ~own]).max() > 1e-3
    assert np.linalg.eigvalsh(full).min() > -1e-12
    extra = family.q_prior(n_tasks=60, misfit=True)[1] - block
    added = np.diagonal(extra, axis1=1, axis2=2)
    assert np.allclose(added, added[:, :1]) and added[0, 0] < 1e-6 < added[1, 0]
    wide = family.q_prior(n_tasks=60, covariance_scale=4.0, mean_shift=-2.0)
    np.testing.assert_allclose(wide[1], 4 * block)
    deviations = np.sqrt(np.diagonal(block, axis1=1, axis2=2))
    np.testing.assert_allclose(wide[0], mean - 2 * deviations)


def test_prior_mean_predicts_the_average_value():
    family = make(n_products=6, n_recommendations=3)
    mean, _ = family.q_prior(n_tasks=400)
    # Stage 0 has one state, so the projection is exact there up to the ridge.
    predicted = (family.features(0, family.stage_observations(0)) @ mean[0]).max()
    tasks = tasks_of(family, 400)
    q = family.optimal_action_values(tasks)[0].mean(0).max()
    assert predicted == pytest.approx(q, abs=0.05)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_products": 0},
        {"n_recommendations": 5},
        {"n_products": 4.0},
        {"bias_std": -0.1},
        {"affinity_std": np.nan},
        {"interaction_std": -1.0},
        {"repeat": "allow"},
        {"population": "other"},
        {"task_noise": "cauchy"},
        {"degrees_of_freedom": 2.0},
        {"features": "quadratic"},
        {"n_clusters": 0},
        {"n_products": 8, "n_recommendations": 8, "features": "tabular"},
    ],
)
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        make(**arguments)


def test_too_many_states_are_refused_only_when_values_are_asked_for():
    env = RecommendationVectorEnv(2, n_products=20, n_recommendations=8)
    env.reset(seed=0)
    env.step([0, 19])
    with pytest.raises(ValueError, match="n_products=20"):
        env.optimal_returns(env.get_tasks())


def test_bad_questions_are_refused():
    family = make()
    tasks = tasks_of(family, 2)
    policies = random_policies(family)
    strangers = tasks_of(make(n_products=5), 1)
    for question in (
        lambda: family.features(3, np.ones(4)),
        lambda: family.features(0, np.ones(5)),
        lambda: family.stage_observations(-1),
        lambda: family.policy_returns(tasks, policies[:2]),
        lambda: family.policy_returns(tasks, [p * 2 for p in policies]),
        lambda: family.policy_returns(tasks, policies[::-1]),
        lambda: family.optimal_returns(strangers),
        lambda: family.q_prior(n_tasks=1),
        lambda: family.q_prior(target="greedy"),
        lambda: family.q_prior(structure="diagonal"),
    ):
        with pytest.raises(ValueError):
            question()
    for question in (lambda: family.optimal_returns([None]), lambda: family.optimal_return(3)):
        with pytest.raises(TypeError, match="no task"):
            question()


def test_no_tasks_have_no_returns():
    family = make()
    assert family.optimal_returns([]).shape == (0,)
    assert family.myopic_returns([]).shape == (0,)
