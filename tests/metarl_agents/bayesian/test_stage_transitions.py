from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from metarl_agents.bayesian.linear_q_policy import UniformPolicies
from metarl_agents.bayesian.stage_features import StageFeatures, features_of
from metarl_agents.bayesian.stage_transitions import stage_transitions
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.vec_env import make_task_vec_env
from tests.metarl_agents.bayesian.random_tasks import statistics_of

SMALL = "metarl/RecommendationSmall-v0"  # 6 products, 3 stages
N_STAGES, N_ACTIONS = 3, 2


def numbered(stage, observations):
    """One feature per action, which tells its origin: 100 stage + 10 action + observation."""
    actions = np.arange(N_ACTIONS)[:, None]
    return 100.0 * stage + 10.0 * actions + np.asarray(observations, float)[..., None, None]


FEATURES = StageFeatures(
    numbered,
    # Action 1 is forbidden in odd observations.
    lambda observations: np.stack([observations >= 0, observations % 2 == 0], axis=-1),
    None,
    n_stages=N_STAGES,
    n_actions=N_ACTIONS,
    n_features=1,
    n_blocks=1,
    observation_space=spaces.Discrete(10),
)


def hand_made(lengths, terminated, n_steps=N_STAGES):
    """Episode e sees observations e, e + 1, ...; takes action t % 2 and gets reward 10 e + t."""
    n_episodes = len(lengths)
    step, episode = th.arange(n_steps), th.arange(n_episodes)[:, None]
    mask = (step < th.tensor(lengths)[:, None]).double()
    observations = (episode + step) * mask
    return EpisodeBatch(
        observations=observations.unsqueeze(-1),
        actions=(step % 2).expand(n_episodes, n_steps).unsqueeze(-1) * mask.long().unsqueeze(-1),
        rewards=(10 * episode + step) * mask,
        mask=mask,
        dist_params=th.zeros(n_episodes, n_steps, 0),
        final_observations=(th.arange(n_episodes) + th.tensor(lengths)).double().unsqueeze(-1),
        terminated=th.tensor(terminated, dtype=th.float64),
    )


def transitions_of(batch, features=FEATURES):
    return stage_transitions(features, EpisodeBatch.stack([batch]))


def test_steps_become_stages_and_following_observations_successors():
    transitions = transitions_of(hand_made([3, 3], [1, 1]))
    assert transitions.features.shape == (1, N_STAGES, 2, 1)
    # stage 0: action 0 in observation e; stage 1: action 1; stage 2: action 0.
    assert transitions.features[0, :, 0, 0].tolist() == [0.0, 111.0, 202.0]
    assert transitions.features[0, :, 1, 0].tolist() == [1.0, 112.0, 203.0]
    assert transitions.rewards[0, :, 1].tolist() == [10.0, 11.0, 12.0]
    assert (transitions.weights == 1).all() and (transitions.blocks == 0).all()
    # The successor of episode 0's first step is observation 1, where action 1 is forbidden.
    assert transitions.successor_masks[0, 0, 0].tolist() == [True, False]
    assert transitions.successor_features[0, 0, 0, :, 0].tolist() == [101.0, 0.0]
    assert transitions.successor_features[0, 1, 0, :, 0].tolist() == [202.0, 212.0]


def test_the_last_stage_has_no_successor():
    for terminated in (0, 1):
        transitions = transitions_of(hand_made([3], [terminated]))
        assert not transitions.successor_masks[:, -1].any()
        assert (transitions.successor_features[:, -1] == 0).all()


def test_a_terminal_step_has_no_successor_and_what_follows_no_weight():
    transitions = transitions_of(hand_made([1, 3], [1, 1]))
    assert transitions.weights[0, :, 0].tolist() == [1.0, 0.0, 0.0]
    assert not transitions.successor_masks[0, :, 0].any()
    assert (transitions.successor_features[0, :, 0] == 0).all()
    assert (transitions.rewards[0, 1:, 0] == 0).all()
    assert transitions.successor_masks[0, :2, 1].any(-1).all()


def test_the_successor_of_a_step_that_a_limit_cut_is_the_final_observation():
    transitions = transitions_of(hand_made([3, 1], [1, 0]))
    # Episode 1 starts in observation 1 and is cut in observation 2, where both are allowed.
    assert transitions.successor_masks[0, 0, 1].tolist() == [True, True]
    assert transitions.successor_features[0, 0, 1, :, 0].tolist() == [102.0, 112.0]
    assert not transitions.successor_masks[0, 1:, 1].any()
    assert transitions.weights[0, :, 1].tolist() == [1.0, 0.0, 0.0]


def test_episodes_that_were_all_cut_early_still_have_all_stages():
    transitions = transitions_of(hand_made([1, 1], [0, 1], n_steps=1))
    assert transitions.weights.tolist() == [[[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]
    assert transitions.successor_masks[0, 0].any(-1).tolist() == [True, False]
    assert transitions.successor_features[0, 0, 0, :, 0].tolist() == [101.0, 0.0]


def test_padding_beyond_the_last_stage_is_no_step():
    padded = transitions_of(hand_made([3, 2], [1, 1], n_steps=5))
    plain = transitions_of(hand_made([3, 2], [1, 1]))
    assert all(th.equal(a, b) for a, b in zip(padded, plain, strict=True))


def test_features_are_not_asked_for_where_no_step_and_no_successor_was():
    def undefined_in_padding(stage, observations):
        assert (observations > 0).all()
        return numbered(stage, observations)

    features = FEATURES.replaced(undefined_in_padding, n_features=1, n_blocks=1)
    batch = hand_made([1, 3, 1], [1, 1, 0]).episodes([1, 2])
    transitions_of(batch, features)
    short = hand_made([1, 1], [1, 1], n_steps=3).episodes([1])
    assert transitions_of(short, features).weights.sum() == 1


def test_an_episode_longer_than_the_family_is_refused():
    with pytest.raises(ValueError, match=r"more than n_stages=3 steps.*true horizon"):
        transitions_of(hand_made([3, 4], [1, 1], n_steps=4))


@pytest.mark.parametrize("value", [th.nan, th.inf])
def test_rewards_that_are_not_finite_are_refused(value):
    batch = hand_made([3, 2], [1, 1])
    batch.rewards[1, 1] = value
    with pytest.raises(ValueError, match="rewards are not finite"):
        transitions_of(batch)


def test_tasks_are_kept_apart():
    first, second = hand_made([3, 2], [1, 0]), hand_made([1, 3], [1, 1])
    both = stage_transitions(FEATURES, EpisodeBatch.stack([first, second]))
    for i, batch in enumerate((first, second)):
        one = transitions_of(batch)
        assert all(th.equal(a[i], b[0]) for a, b in zip(both, one, strict=True))


def test_everything_is_in_double_precision_also_where_the_batch_is_not():
    transitions = transitions_of(hand_made([3, 2], [1, 1]).to(dtype=th.float32))
    floats = [field for field in transitions if field.is_floating_point()]
    assert all(field.dtype == th.float64 for field in floats)
    assert transitions.blocks.dtype == th.int64 and transitions.successor_masks.dtype == th.bool


@pytest.fixture(scope="module")
def shop():
    """Five customers, four episodes each, of random recommendations."""
    env = make_task_vec_env(SMALL, 5)
    features = features_of(env)
    rngs = np.random.default_rng(0).spawn(5)
    policies = UniformPolicies(SimpleNamespace(features=features, n_tasks=5), rngs)
    return features, collect_episodes(env, policies, 4, seed=1)


def test_collected_episodes_keep_their_features_rewards_and_blocks(shop):
    features, batch = shop
    transitions = stage_transitions(features, batch)
    assert transitions.features.shape == (5, 3, 4, 7)
    assert (transitions.weights == 1).all()
    assert th.equal(transitions.rewards, batch.rewards.transpose(1, 2))
    assert th.equal(transitions.blocks, batch.actions.squeeze(-1).transpose(1, 2))
    shown = batch.observations.transpose(1, 2) - 1
    assert th.equal(transitions.features[..., 0], th.ones(5, 3, 4, dtype=th.float64))
    assert th.equal(transitions.features[..., 1:], shown)


def test_successors_of_collected_episodes_are_the_next_observations(shop):
    features, batch = shop
    transitions = stage_transitions(features, batch)
    following = batch.observations[:, :, 1:].transpose(1, 2) - 1
    allowed = following == 0
    assert th.equal(transitions.successor_masks[:, :2], allowed)
    assert not transitions.successor_masks[:, 2].any()
    for action in range(6):
        own = transitions.successor_features[:, :2, :, action]
        assert th.equal(own[..., 1:], following * allowed[..., action, None])
        assert th.equal(own[..., 0], allowed[..., action].double())


def test_statistics_of_collected_episodes_count_every_step(shop):
    features, batch = shop
    statistics = statistics_of(stage_transitions(features, batch), n_blocks=6)
    assert (statistics.successor_counts.sum(-1) == 4).all()
    assert (statistics.successor_counts[:, 2, 0] == 4).all()
    th.testing.assert_close(statistics.reward_squares, (batch.rewards**2).sum(1))
