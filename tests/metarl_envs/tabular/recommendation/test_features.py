import numpy as np
import pytest

from metarl_envs.tabular.recommendation import RecommendationFamily
from metarl_envs.tabular.recommendation.features import in_action_blocks

SIZES = {"linear": 5, "intercept": 1, "sum": 2, "projection": 4, "tabular": 33}


def make(features):
    return RecommendationFamily(n_products=4, n_recommendations=3, features=features)


@pytest.mark.parametrize("name", SIZES)
def test_each_action_has_its_features_in_its_own_block(name):
    family = make(name)
    observations = family.stage_observations(2)
    features = family.features(2, observations)
    m = SIZES[name]
    assert family.n_features == 4 * m
    assert features.shape == (len(observations), 4, 4 * m) and features.dtype == np.float64
    blocks = features.reshape(len(observations), 4, 4, m)
    for a in range(4):
        np.testing.assert_array_equal(blocks[:, a, a], blocks[:, 0, 0])
        assert not np.delete(blocks[:, a], a, axis=1).any()


@pytest.mark.parametrize("name", SIZES)
def test_features_accept_floats_and_any_leading_axes(name):
    family = make(name)
    observations = family.stage_observations(2)
    expected = family.features(2, observations)
    batch = observations.astype(np.float32)[None]
    np.testing.assert_array_equal(family.features(0, batch)[0], expected)
    np.testing.assert_array_equal(family.features(2, observations[7]), expected[7])


def test_linear_features_are_one_and_x():
    features = make("linear").features(0, np.array([2, 0, 1, 1]))
    np.testing.assert_array_equal(features[1, 5:10], [1, 1, -1, 0, 0])


def test_sum_feature_is_the_balance_of_likes():
    features = make("sum").features(0, np.array([2, 2, 0, 1]))
    np.testing.assert_array_equal(features[0, :2], [1, 1])


def test_projection_is_a_function_of_the_population_seed():
    observation = np.array([2, 0, 1, 1])
    families = [
        RecommendationFamily(
            n_products=4, n_recommendations=3, features="projection", population_seed=seed
        )
        for seed in (0, 0, 1)
    ]
    first, second, third = (family.features(0, observation) for family in families)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_tabular_features_tell_all_states_apart():
    family = make("tabular")
    blocks = family.features(2, family.stage_observations(2))[:, 0, :33]
    np.testing.assert_array_equal(blocks, np.eye(33))
    # The episode is over there: no value, hence no feature.
    assert not family.features(2, np.array([2, 0, 2, 1])).any()


def test_in_action_blocks_is_the_kronecker_product():
    f = np.array([2.0, 3.0])
    expected = [np.kron(e, f) for e in np.eye(3)]
    np.testing.assert_array_equal(in_action_blocks(f, 3), expected)
