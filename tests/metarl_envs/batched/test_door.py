"""What users hand to tabular families and their environments is checked at the door."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from metarl_envs import FAMILIES
from metarl_envs.batched.checking import check_seed
from metarl_envs.probes import GaussianBandit, GaussianBanditVector
from metarl_envs.tabular.inverse_bellman import InverseBellmanFamily
from metarl_envs.tabular.inverse_bellman import tasks as inverse_tasks
from metarl_envs.tabular.recommendation import RecommendationFamily, RecommendationTask
from metarl_envs.tabular.recommendation import tasks as recommendation_tasks
from tests.metarl_envs.reference_envs import without_new_tasks

IDS = [env_id for env_id in FAMILIES if "Recommendation" in env_id or "Inverse" in env_id]
ID, INVERSE = "metarl/RecommendationSmall-v0", "metarl/InverseBellman-v0"
FAMILY_CLASSES = [RecommendationFamily, InverseBellmanFamily]
BAD_SEEDS = [None, -1, 1.5, "0", True]


# Task streams and population draws.


def standardised(family, task):
    noise = task.to_array() - family.prior_mean.ravel()
    return np.linalg.solve(family.task_distribution.factor, noise)


@pytest.mark.parametrize("seed", [0, 3])
def test_first_tasks_share_no_numbers_with_the_population(seed):
    family = InverseBellmanFamily(population_seed=seed)
    env = gym.make(INVERSE, population_seed=seed).unwrapped
    env.reset(seed=seed)
    numbers = [
        standardised(family, task)
        for task in [
            env.get_task(),
            env.sample_tasks(1, seed=seed)[0],
            env.sample_tasks(1, seed=seed, split="test")[0],
        ]
    ]
    for module in (inverse_tasks._population_rng, recommendation_tasks.population_rng):
        for key in range(8):
            drawn = module(seed, key).standard_normal(family.prior_mean.size)
            for normals in numbers:
                assert not np.isclose(normals, drawn, atol=1e-6).any()


# Seeds.


@pytest.mark.parametrize("seed", BAD_SEEDS)
def test_seeds_are_non_negative_integers(seed):
    with pytest.raises(ValueError, match=r"some_seed=.* must be a non-negative integer"):
        check_seed(some_seed=seed)
    check_seed(some_seed=np.int64(3))


@pytest.mark.parametrize("seed", BAD_SEEDS)
@pytest.mark.parametrize("family", FAMILY_CLASSES)
def test_a_population_needs_a_seed(family, seed):
    with pytest.raises(ValueError, match="population_seed="):
        family(population_seed=seed)


@pytest.mark.parametrize("seed", BAD_SEEDS)
@pytest.mark.parametrize("env_id", [ID, INVERSE])
def test_priors_and_samples_need_a_seed(env_id, seed):
    env = gym.make(env_id).unwrapped
    with pytest.raises(ValueError, match="seed="):
        env.q_prior(seed=seed)
    if seed is not None:
        with pytest.raises(ValueError, match="seed="):
            env.sample_tasks(2, seed=seed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("covariance_scale", -1.0),
        ("covariance_scale", np.nan),
        ("mean_shift", np.nan),
        ("mean_shift", "1"),
        ("n_tasks", 2.5),
        ("ridge", None),
    ],
)
@pytest.mark.parametrize("family", FAMILY_CLASSES)
def test_priors_refuse_bad_options_by_name(family, name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        family().q_prior(**{name: value})


@pytest.mark.parametrize("value", [np.inf, np.nan, 2.0, "3"])
def test_degrees_of_freedom_are_finite(value):
    with pytest.raises(ValueError, match="degrees_of_freedom="):
        RecommendationFamily(task_noise="student_t", degrees_of_freedom=value)


# Tasks.


def test_tasks_of_other_sizes_are_refused_although_their_numbers_fit():
    env = gym.make(INVERSE, n_stages=4, n_features=2).unwrapped
    other = gym.make(INVERSE, n_stages=2, n_features=4).unwrapped
    half = gym.make(INVERSE, n_stages=2, n_features=2).unwrapped
    stranger, halves = other.sample_tasks(1, seed=0)[0], half.sample_tasks(2, seed=0)
    for call in (
        lambda: env.set_task(stranger),
        lambda: env.reset(options={"task": stranger}),
        lambda: env.optimal_return(stranger),
        lambda: env.optimal_returns([stranger]),
        lambda: env.myopic_returns([stranger]),
        lambda: env.optimal_returns(halves),
    ):
        with pytest.raises(ValueError):
            call()


def test_tasks_that_hold_arrays_are_refused_with_the_remedy():
    env = gym.make(ID).unwrapped
    task = env.sample_tasks(1, seed=0)[0]
    unhashable = RecommendationTask(np.array(task.bias), np.array(task.affinity))
    lists = RecommendationTask(list(task.bias), list(map(list, task.affinity)))
    for bad in (unhashable, lists):
        with pytest.raises(ValueError, match="from_array"):
            env.set_task(bad)
        with pytest.raises(ValueError, match="from_array"):
            env.optimal_returns([bad])
    with pytest.raises(TypeError, match="in a list"):
        env.optimal_returns(task)


# Observations.


@pytest.mark.parametrize("observation", [[0] * 5 + [3], [-1] + [0] * 5, [np.nan] * 6, ["a"] * 6])
def test_recommendation_refuses_observations_outside_the_space(observation):
    env = gym.make(ID).unwrapped
    for ask in (lambda x: env.features(0, x), env.action_masks, env.stages):
        with pytest.raises(ValueError, match="observations="):
            ask(np.array(observation))


@pytest.mark.parametrize("observation", [[0, 6], [0, -1], [5, 0], [-1, 0], [0, np.nan], [0], 0])
@pytest.mark.parametrize("env_id", [INVERSE, None])
def test_stage_and_state_lie_in_the_space(env_id, observation):
    env = GaussianBandit() if env_id is None else gym.make(env_id).unwrapped
    for ask in (lambda x: env.features(0, x), env.action_masks, env.stages):
        with pytest.raises(ValueError, match="observations"):
            ask(np.array(observation))


# Time limits, specs, seeds and options of environments.


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_time_limit_of_the_vector_env_is_that_of_single_envs(env_id, mode, limit):
    vector = gym.make_vec(env_id, num_envs=2, max_episode_steps=limit, autoreset_mode=mode)
    sync = gym.make_vec(
        env_id,
        num_envs=2,
        max_episode_steps=limit,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
    )
    assert data_equivalence(vector.reset(seed=1), sync.reset(seed=1), exact=True)
    for step in range(1, 15):
        actions = np.array([step % 3, 0])
        left, right = (without_new_tasks(env.step(actions)) for env in (vector, sync))
        assert data_equivalence(left, right, exact=True)
        if step == limit == 2:
            assert left[3].all() and not left[2].any()


def test_time_limits_are_positive_integers():
    with pytest.raises(ValueError, match="max_episode_steps=0"):
        gym.make_vec(ID, num_envs=2, max_episode_steps=0)


def test_specs_with_arrays_survive_json():
    mean = np.linspace(0.1, 0.7, 4)
    for make in (gym.make, lambda *args, **kwargs: gym.make_vec(*args, num_envs=2, **kwargs)):
        env = make(INVERSE, prior_mean=mean, prior_covariance=np.eye(4))
        twin_spec = EnvSpec.from_json(env.spec.to_json())
        twin = (gym.make if make is gym.make else gym.make_vec)(twin_spec)
        assert np.array_equal(twin.unwrapped.family.prior_mean, env.unwrapped.family.prior_mean)
        left, right = twin.reset(seed=0), env.reset(seed=0)
        assert data_equivalence(left, right, exact=True)


@pytest.mark.parametrize(
    "seed", [[1.5, 2, 3], 1.5, [1, 2, -3], -1, "123", [1, "2", 3], True, [1, 2], np.ones(3)]
)
def test_bad_seeds_of_the_vector_env_reseed_nothing(seed):
    vector, reference = (gym.make_vec(ID, num_envs=3) for _ in range(2))
    for env in (vector, reference):
        env.reset(seed=0)
    with pytest.raises(ValueError, match="seed"):
        vector.reset(seed=seed)
    assert data_equivalence(vector.reset(), reference.reset(), exact=True)


def test_the_vector_env_tells_its_seeds_as_gymnasium_does():
    vector = gym.make_vec(ID, num_envs=3)
    sync = gym.make_vec(ID, num_envs=3, vectorization_mode="sync")
    for env in (vector, sync):
        env.reset(seed=5)
    assert vector.np_random_seed == sync.np_random_seed == (5, 6, 7)
    vector.reset(seed=np.array([9, 1, 4]))
    assert vector.np_random_seed == (9, 1, 4)
    fresh = gym.make_vec(ID, num_envs=2)
    seeds = fresh.np_random_seed
    twin = gym.make_vec(ID, num_envs=2)
    assert data_equivalence(fresh.reset(), twin.reset(seed=seeds), exact=True)


@pytest.mark.parametrize("tasks", [None, 3])
def test_tasks_of_the_vector_env_come_as_a_list(tasks):
    vector = GaussianBanditVector(2)
    one = vector.sample_tasks(1, seed=0)[0]
    for bad in (tasks, one):
        with pytest.raises(TypeError, match="must be a list with one task"):
            vector.set_tasks(bad)
        with pytest.raises(TypeError, match="must be a list with one task"):
            vector.reset(options={"tasks": bad})


def test_the_single_env_refuses_the_option_of_the_vector_env():
    env = gym.make(ID)
    with pytest.raises(ValueError, match=r'give options=\{"task": task\}'):
        env.reset(options={"tasks": env.unwrapped.sample_tasks(1)})


def test_tasks_follow_a_generator_that_the_user_sets():
    def tasks(before):
        env = gym.make(ID).unwrapped
        if before:
            env.reset(**before)
        env.np_random = np.random.default_rng(3)
        return [env.reset()[1]["task"] for _ in range(3)] + env.sample_tasks(2)

    first = tasks(None)
    assert len(set(first)) == 5
    assert tasks(None) == tasks({"seed": None}) == tasks({"seed": 4}) == first
