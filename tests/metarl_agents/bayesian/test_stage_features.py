import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl_agents.bayesian.stage_features import StageFeatures, features_of
from metarl_agents.common.vec_env import make_task_vec_env

SPACE = spaces.Box(-1.0, 1.0, (2,))
SMALL = "metarl/RecommendationSmall-v0"  # 6 products, 3 stages, features [1, x] per product


def in_blocks(stage, observations):
    """Features e_a (x) [1, x1 + stage, x2] of 3 actions, (..., 3, 9)."""
    ones = np.ones((*observations.shape[:-1], 1))
    shared = np.concatenate([ones, observations + np.array([stage, 0])], axis=-1)
    return np.einsum("ab,...m->...abm", np.eye(3), shared).reshape(*shared.shape[:-1], 3, 9)


def described(features=in_blocks, masks=None, stages=None, **changes):
    arguments = {
        "n_stages": 2,
        "n_actions": 3,
        "n_features": 9,
        "n_blocks": 3,
        "observation_space": SPACE,
        **changes,
    }
    return StageFeatures(features, masks, stages, **arguments)


class Plain(gym.Env):
    """An env without any of the members of LinearQEnv."""

    observation_space = SPACE

    def __init__(self, action_space=None):
        self.action_space = spaces.Discrete(3) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        return np.zeros(2, dtype=np.float32), 0.0, True, False, {}


class Linear(Plain):
    n_stages, n_features, n_feature_blocks = 2, 9, 3

    def features(self, stage, observations):
        return in_blocks(stage, observations)


def vec_env(env):
    return DummyVecEnv([lambda: env])


def test_features_are_those_of_the_block_of_each_action():
    observations = np.array([[0.5, -0.5], [0.1, 0.2]])
    own = described()(1, observations)
    assert own.shape == (2, 3, 3) and own.flags.c_contiguous
    assert np.array_equal(own[0], np.tile([1.0, 1.5, -0.5], (3, 1)))
    assert described().shape == (2, 3, 3)


def test_features_in_one_block_stay_as_they_are():
    observations = np.random.default_rng(0).uniform(-1, 1, (4, 5, 2))
    features = described(n_blocks=1)
    assert features.shape == (2, 1, 9)
    assert np.array_equal(features(0, observations), in_blocks(0, observations))


@pytest.mark.parametrize("n_blocks", [0, 2, 9])
def test_blocks_are_one_or_one_per_action(n_blocks):
    with pytest.raises(ValueError, match=rf"n_feature_blocks={n_blocks} must be 1 or .*3"):
        described(n_blocks=n_blocks)


def test_features_must_divide_into_the_blocks():
    with pytest.raises(ValueError, match=r"n_features=10 must be a multiple .*=3"):
        described(n_features=10)


@pytest.mark.parametrize("shape", [(3, 9), (4, 9), (4, 3, 8), (4, 2, 9), (1, 3, 9), (4, 1, 3, 9)])
def test_features_of_another_shape_are_refused(shape):
    features = described(lambda stage, observations: np.zeros(shape))
    with pytest.raises(ValueError, match=r"features\(stage=1, .*not \(4, 3, 9\).*leading axes"):
        features(1, np.zeros((4, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = described(lambda stage, observations: np.full((4, 3, 9), value))
    with pytest.raises(ValueError, match=r"features\(stage=0, observations\) are not finite"):
        features(0, np.zeros((4, 2)))


def test_features_that_leave_the_block_of_their_action_are_refused():
    def leaking(stage, observations):
        values = in_blocks(stage, observations)
        values[..., 0, 5] = 1e-9
        return values

    with pytest.raises(ValueError, match=r"leave the block .*n_feature_blocks=1.*'full'"):
        described(leaking)(0, np.zeros((4, 2)))
    assert described(leaking, n_blocks=1)(0, np.zeros((4, 2))).shape == (4, 3, 9)


def test_without_masks_every_action_is_allowed():
    assert described().masks(np.zeros((4, 5, 2))).shape == (4, 5, 3)
    assert described().masks(np.zeros(2)).all()


def test_masks_are_read_as_booleans():
    features = described(masks=lambda observations: (observations[..., :1] > 0) * np.ones(3))
    masks = features.masks(np.array([[0.5, 0.0], [-0.5, 0.0]]))
    assert masks.dtype == bool and masks.tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("shape", [(3,), (4, 2), (1, 3), (4, 1, 3)])
def test_masks_of_another_shape_are_refused(shape):
    features = described(masks=lambda observations: np.ones(shape))
    with pytest.raises(ValueError, match=r"action_masks\(observations\) has shape .*not \(4, 3\)"):
        features.masks(np.zeros((4, 2)))


def test_stages_stop_at_the_last_one():
    features = described(stages=lambda observations: np.array([0, 1, 2]))
    assert features.knows_stages
    assert features.stages(np.zeros((3, 2))).tolist() == [0, 1, 1]
    assert not described().knows_stages


def test_observations_are_told_from_batches_of_them():
    rows, was_batch = described().batched(np.zeros(2))
    assert rows.shape == (1, 2) and not was_batch
    rows, was_batch = described().batched(np.zeros((5, 2)))
    assert rows.shape == (5, 2) and was_batch


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 2), (5, 1, 2)])
def test_observations_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"observation has shape .*pass \(2,\)"):
        described().batched(np.zeros(shape))


def test_observations_of_a_discrete_space_are_numbers():
    features = described(
        lambda stage, observations: np.ones((*observations.shape, 3, 1)),
        n_features=1,
        n_blocks=1,
        observation_space=spaces.Discrete(7),
    )
    rows, was_batch = features.batched(np.array(3))
    assert rows.shape == (1,) and not was_batch
    rows, was_batch = features.batched(np.array([3, 4]))
    assert rows.shape == (2,) and was_batch
    assert features(0, rows).shape == (2, 3, 1) and features.masks(rows).shape == (2, 3)


def test_replaced_features_keep_stages_and_masks():
    features = described(
        masks=lambda observations: np.zeros((*observations.shape[:-1], 3)),
        stages=lambda observations: np.ones(len(observations)),
    )
    other = features.replaced(
        lambda stage, observations: np.ones((*observations.shape[:-1], 3, 4)),
        n_features=4,
        n_blocks=1,
    )
    assert other.shape == (2, 1, 4)
    assert other(0, np.zeros((5, 2))).shape == (5, 3, 4)
    assert not other.masks(np.zeros((5, 2))).any() and other.stages(np.zeros((5, 2))).all()


def test_an_env_tells_its_features_masks_stages_and_blocks():
    features = features_of(make_task_vec_env(SMALL, 2))
    assert features.shape == (3, 6, 7) and features.knows_stages
    observation = np.array([2, 1, 0, 1, 1, 1])  # product 0 liked, product 2 disliked
    own = features(2, observation[None])[0]
    assert np.array_equal(own, np.tile([1, 1, 0, -1, 0, 0, 0], (6, 1)))
    assert features.masks(observation).tolist() == [False, True, False, True, True, True]
    assert features.stages(observation[None]) == 2


def test_a_full_covariance_ignores_the_blocks_of_the_env():
    assert features_of(make_task_vec_env(SMALL, 2), covariance="full").shape == (3, 1, 42)


def test_a_single_env_of_the_users_is_enough():
    features = features_of(vec_env(Linear()))
    assert features.shape == (2, 3, 3) and not features.knows_stages
    assert features.masks(np.zeros((4, 2))).all()


def test_the_callers_features_replace_those_of_the_env():
    features = features_of(
        vec_env(Linear()),
        lambda stage, observations: np.ones((*observations.shape[:-1], 3, 5)),
        n_stages=7,
    )
    assert features.shape == (7, 1, 5)


def test_the_callers_features_are_enough_for_an_env_that_knows_nothing():
    assert features_of(vec_env(Plain()), in_blocks, n_stages=2).shape == (2, 1, 9)


@pytest.mark.parametrize("given", [{}, {"n_stages": 2}, {"features": in_blocks}])
def test_an_env_without_features_is_told_both_remedies(given):
    with pytest.raises(ValueError, match=r"LinearQEnv.*features=callable and n_stages=int"):
        features_of(vec_env(Plain()), **given)


@pytest.mark.parametrize(
    "space", [spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3, start=1), spaces.MultiDiscrete([3])]
)
def test_actions_that_are_not_numbered_from_zero_are_refused(space):
    with pytest.raises(ValueError, match=r"action_space=.*Discrete space starting at 0"):
        features_of(vec_env(Plain(space)), in_blocks, n_stages=2)


def test_the_callers_features_need_be_defined_within_the_space_only():
    env = Plain()
    env.observation_space = spaces.Discrete(3, start=5)

    def square_roots(stage, observations):
        assert (observations >= 5).all()
        return np.ones((*np.shape(observations), 3, 4))

    assert features_of(vec_env(env), square_roots, n_stages=2).shape == (2, 1, 4)


def test_discrete_observations_reach_features_and_masks_as_integers():
    table = np.arange(18.0).reshape(6, 3, 1)
    features = StageFeatures(
        lambda stage, observations: table[observations],
        lambda observations: table[observations][..., 0] > 4,
        lambda observations: np.eye(6, dtype=int)[observations][..., 5],
        n_stages=2,
        n_actions=3,
        n_features=1,
        n_blocks=1,
        observation_space=spaces.Discrete(6),
    )
    rows = np.array([1.0, 5.0])
    assert np.array_equal(features(0, rows), table[[1, 5]])
    assert features.masks(rows).tolist() == [[False, False, True], [True] * 3]
    assert features.stages(rows).tolist() == [0, 1]


def test_features_without_an_axis_of_observations_are_refused():
    with pytest.raises(ValueError, match=r"features\(0, observations\) has shape \(3, 9\)"):
        features_of(vec_env(Plain()), lambda stage, observations: np.ones((3, 9)), n_stages=2)
