"""MTSRL, MTSRL+ and their references as agents, on families small enough to be solved exactly."""

import csv

import gymnasium as gym
import numpy as np
import pytest
import torch as th

import metarl_envs  # noqa: F401  (registers the ids)
from metarl_agents import MTSRL, RLSVI, LinTS, MetaLinTS, MetaMAB, MetaOracle, MTSRLPlus
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.episodes import EpisodeBatch

INVERSE_BELLMAN = "metarl/InverseBellman-v0"
RECOMMENDATION = "metarl/RecommendationSmall-v0"
FAMILY = {"n_states": 4, "n_actions": 2, "n_stages": 3, "n_features": 4}


def make(algorithm, n_replicates=4, env_id=INVERSE_BELLMAN, env_kwargs=FAMILY, **arguments):
    defaults = {"n_episodes_per_task": 10, "n_exploration_tasks": 2, "seed": 3, "device": "cpu"}
    if not hasattr(algorithm, "_default_estimator"):
        del defaults["n_exploration_tasks"]
    return algorithm(
        "LinearQPolicy",
        env_id,
        n_envs=n_replicates,
        n_replicates=n_replicates,
        env_kwargs=env_kwargs,
        **{**defaults, **arguments},
    )


def regret_of(algorithm, n_tasks=4, **arguments):
    agent = make(algorithm, track_regret=True, **arguments)
    return agent.learn_tasks(n_tasks, log_interval=None).regret_history


@pytest.mark.parametrize("algorithm", [MTSRL, MTSRLPlus])
@pytest.mark.parametrize("estimator", ["ols", "gls", "em"])
def test_exploration_tasks_equal_rlsvi_exactly_and_later_ones_do_not(algorithm, estimator):
    reference = regret_of(RLSVI)
    learned = regret_of(algorithm, estimator=estimator, gate_threshold=1e-3)
    np.testing.assert_array_equal(learned[:, :2], reference[:, :2])
    assert not np.array_equal(learned[:, 2:], reference[:, 2:])


def test_learned_prior_approaches_the_truth():
    env = gym.make(INVERSE_BELLMAN, **FAMILY, kernel="deterministic")
    mean, covariance = env.unwrapped.q_prior()
    agent = make(
        MTSRL,
        env_kwargs={**FAMILY, "kernel": "deterministic"},
        prior_covariance=covariance,
        n_episodes_per_task=30,
        n_uniform_episodes=30,
        n_exploration_tasks=40,
        hyper_precision=1e-3,
    )
    agent.learn_tasks(40, log_interval=None)
    learned, kept = agent.prior()
    # 40 tasks: standard error sqrt((0.35^2 + noise) / 40), about 0.07 where 30 random episodes
    # determine a direction well; the max in the targets biases early stages by a little more.
    assert np.abs(learned - mean).mean() < 0.12
    np.testing.assert_allclose(kept, np.broadcast_to(covariance, kept.shape), atol=1e-12)


def test_a_freely_moving_average_of_tasks_is_not_frozen_and_a_frozen_one_is():
    moving, frozen = make(MTSRL), make(MTSRL, update="freeze")
    for agent in (moving, frozen):
        agent.learn_tasks(2, log_interval=None)
    before = frozen.prior()[0]
    np.testing.assert_array_equal(moving.prior()[0], before)
    for agent in (moving, frozen):
        agent.learn_tasks(2, log_interval=None, reset_num_timesteps=False)
    np.testing.assert_array_equal(frozen.prior()[0], before)
    assert not np.array_equal(moving.prior()[0], before)


def test_oracle_regret_is_far_below_that_of_starting_afresh():
    env = gym.make(INVERSE_BELLMAN, n_features=8)
    mean, covariance = env.unwrapped.q_prior()
    settings = {"env_kwargs": {"n_features": 8}, "n_episodes_per_task": 30, "n_replicates": 8}
    oracle = regret_of(MetaOracle, prior_mean=mean, prior_covariance=covariance, **settings)
    afresh = regret_of(RLSVI, **settings)
    assert 3 * oracle.sum(-1).mean() < afresh.sum(-1).mean()


def test_tracked_regret_is_non_negative_and_that_of_the_policies_played():
    regret = regret_of(RLSVI)
    assert regret.shape == (4, 4, 10)
    assert (regret >= -1e-12).all()


def test_gls_estimator_needs_no_gate_where_ols_keeps_the_independent_prior():
    ols = make(MTSRL, estimator="ols", gate_threshold=1e6).learn_tasks(3, log_interval=None)
    gls = make(MTSRL, estimator="gls").learn_tasks(3, log_interval=None)
    independent = ols._independent_prior()
    np.testing.assert_array_equal(ols.prior()[0], 0.0)
    np.testing.assert_allclose(ols.prior()[1], independent.dense_covariance(), atol=1e-12)
    assert np.abs(gls.prior()[0]).max() > 0.1


@pytest.mark.parametrize("correction", ["none", "homo", "sandwich", "homo+prop", "sandwich+prop"])
@pytest.mark.parametrize("widening", ["none", "schedule", "bootstrap"])
def test_every_covariance_option_gives_a_positive_semi_definite_prior(correction, widening):
    agent = make(
        MTSRLPlus,
        estimator="ols",
        noise_correction=correction,
        widening=widening,
        gate_threshold=0.01,
        n_episodes_per_task=8,
    )
    agent.learn_tasks(4, log_interval=None)
    covariance = agent.prior()[1]
    assert np.linalg.eigvalsh(covariance).min() >= -1e-10
    np.testing.assert_allclose(covariance, covariance.swapaxes(-1, -2), atol=1e-12)


def test_widening_by_mean_uncertainty_shrinks_as_tasks_come_in():
    plain, wide = (
        make(MTSRL, prior_covariance=0.1, widening=widening)
        for widening in (None, "mean_uncertainty")
    )
    extra = []
    for _ in range(2):
        for agent in (plain, wide):
            agent.learn_tasks(3, log_interval=None, reset_num_timesteps=False)
        extra.append(np.trace((wide.prior()[1] - plain.prior()[1]), axis1=-2, axis2=-1).mean())
    assert extra[0] > extra[1] > 0


def test_warm_start_by_episodes_begins_with_the_independent_prior_and_leaves_it():
    agent = make(MTSRL, warm_start="episodes", gate_threshold=2.0)
    agent.learn_tasks(2, log_interval=None)
    policies = agent.initial_policies([np.random.default_rng(i) for i in range(4)])
    begun = policies.belief.effective_prior()
    assert th.equal(begun.mean, th.zeros_like(begun.mean))
    grams = 10 * th.eye(4, dtype=th.float64).expand_as(policies.belief.statistics.gram)
    known = policies.belief.statistics._replace(gram=grams)
    later = policies.belief.switch.prior(policies.belief.prior, known.gram)
    assert th.equal(later.mean, policies.belief.prior.mean)


def test_estimated_target_variance_finds_the_reward_noise_of_the_last_stage():
    agent = make(RLSVI, n_replicates=8, sigma2="estimate", n_episodes_per_task=40)
    agent.learn_tasks(6, log_interval=None)
    variance = agent.target_variance().numpy()
    # The last stage's targets are rewards with standard deviation 0.5; 8 x 240 of them.
    assert abs(variance[:, -1].mean() / 0.25 - 1) < 4 * (2 / (8 * 240)) ** 0.5 + 0.02
    assert variance[:, 0].mean() > 0.25


def test_tasks_played_at_once_share_the_prior_and_update_it_together():
    agent = MTSRL(
        "LinearQPolicy",
        RECOMMENDATION,
        n_envs=3,
        n_episodes_per_task=4,
        n_exploration_tasks=3,
        seed=0,
        device="cpu",
    )
    agent.learn_tasks(7, log_interval=None)
    assert agent.n_tasks_seen == 9
    assert agent.num_timesteps == 9 * 4 * 3
    assert agent.prior()[0].shape == (3, 42)


def test_replicates_are_independent_experiments():
    agent = make(MTSRL).learn_tasks(4, log_interval=None)
    means, _ = agent.prior()
    assert means.shape == (4, 3, 4)
    assert len({mean.tobytes() for mean in means}) == 4


@pytest.mark.parametrize("algorithm", [LinTS, MetaLinTS, MetaMAB])
def test_bandits_ignore_what_follows(algorithm):
    """Two logs that differ in later rewards only teach a bandit the same first stage."""
    agent = make(algorithm, n_replicates=1)
    rng = np.random.default_rng(0)
    policy = agent.initial_policy()
    adapted = [
        agent.adapt(policy, episodes, rng=np.random.default_rng(1)).parameters[:, 0]
        for episodes in (log(rng_seed=5, late=0.0), log(rng_seed=5, late=9.0))
    ]
    np.testing.assert_array_equal(*adapted)
    looking_ahead = make(RLSVI, n_replicates=1)
    policy = looking_ahead.initial_policy(rng=rng)
    first, second = (
        looking_ahead.adapt(policy, episodes, rng=np.random.default_rng(1)).parameters[:, 0]
        for episodes in (log(rng_seed=5, late=0.0), log(rng_seed=5, late=9.0))
    )
    assert not np.array_equal(first, second)


def log(rng_seed, late, n_episodes=6, n_stages=3):
    rng = np.random.default_rng(rng_seed)
    states = rng.integers(4, size=(n_episodes, n_stages))
    observations = np.stack([np.broadcast_to(np.arange(n_stages), states.shape), states], -1)
    rewards = rng.standard_normal((n_episodes, n_stages))
    rewards[:, 1:] += late
    return EpisodeBatch(
        observations=th.as_tensor(observations, dtype=th.float64),
        actions=th.as_tensor(rng.integers(2, size=(n_episodes, n_stages, 1))),
        rewards=th.as_tensor(rewards),
        mask=th.ones(n_episodes, n_stages, dtype=th.float64),
        dist_params=th.zeros(n_episodes, n_stages, 0, dtype=th.float64),
        final_observations=th.zeros(n_episodes, 2, dtype=th.float64),
        terminated=th.ones(n_episodes, dtype=th.float64),
    )


def write_log(path, n_tasks=4):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "episode", "stage", "obs_0", "obs_1", "action", "reward"])
        for task in range(n_tasks):
            batch = log(rng_seed=task, late=0.0)
            for e in range(6):
                for t in range(3):
                    row = [*batch.observations[e, t].int().tolist(), int(batch.actions[e, t])]
                    writer.writerow([f"customer {task}", e, t, *row, float(batch.rewards[e, t])])


def test_prior_from_a_csv_log_equals_the_prior_from_its_episodes(tmp_path):
    write_log(tmp_path / "log.csv")
    from_file = make(MTSRLPlus, n_replicates=1).fit_prior(tmp_path / "log.csv")
    batches = [log(rng_seed=task, late=0.0) for task in range(4)]
    from_batches = make(MTSRLPlus, n_replicates=1).fit_prior(batches)
    from_stack = make(MTSRLPlus, n_replicates=1).fit_prior(EpisodeBatch.stack(batches))
    for agent in (from_batches, from_stack):
        np.testing.assert_allclose(from_file.prior()[0], agent.prior()[0], atol=1e-12)
        np.testing.assert_allclose(from_file.prior()[1], agent.prior()[1], atol=1e-12)
    assert from_file.n_tasks_seen == 4
    assert not from_file.is_exploring


def test_a_bad_log_leaves_what_was_learned_untouched(tmp_path):
    agent = make(MTSRLPlus, n_replicates=1).learn_tasks(3, log_interval=None)
    before, counts = agent.prior(), agent.n_tasks_seen
    bad = log(rng_seed=0, late=0.0)
    bad.rewards[2, 1] = float("nan")
    with pytest.raises(ValueError, match="rewards are not finite"):
        agent.fit_prior([log(rng_seed=1, late=0.0), bad])
    (tmp_path / "log.csv").write_text("task,episode,stage,action\n1,1,0,1\n")
    with pytest.raises(ValueError, match="it needs task, episode, stage"):
        agent.fit_prior(tmp_path / "log.csv")
    np.testing.assert_array_equal(agent.prior()[0], before[0])
    np.testing.assert_array_equal(agent.prior()[1], before[1])
    assert agent.n_tasks_seen == counts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior_covariance": np.eye(3)}, "prior_covariance has shape"),
        ({"prior_covariance": -1.0}, "must be at least 0"),
        ({"prior_covariance": np.full((3, 4, 4), np.nan)}, "not finite"),
        ({"prior_covariance": np.stack([-np.eye(4)] * 3)}, "not positive semi-definite"),
        ({"prior_covariance": np.stack([np.triu(np.ones((4, 4)))] * 3)}, "not symmetric"),
        ({"estimator": "map"}, "estimator='map' is unknown"),
        ({"sigma2": -0.1}, "sigma2=-0.1"),
        ({"sigma2": [0.1, 0.2]}, "sigma2 has shape"),
        ({"sigma2": "guess"}, "sigma2='guess' is unknown"),
        ({"n_episodes_per_task": 0}, "n_episodes_per_task=0"),
        ({"widening": "schedule"}, "widens a learned covariance"),
        ({"n_replicates": 3, "n_envs": 4}, "must divide"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, message):
    settings = {"n_envs": 1, "n_replicates": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        MTSRL("LinearQPolicy", INVERSE_BELLMAN, env_kwargs=FAMILY, device="cpu", **settings)


def test_mtsrl_plus_refuses_a_known_covariance():
    with pytest.raises(ValueError, match="use MTSRL where it is known"):
        make(MTSRLPlus, prior_covariance=0.1)


def test_oracle_refuses_a_prior_of_the_wrong_shape_at_construction():
    with pytest.raises(ValueError, match="prior_mean has shape"):
        make(MetaOracle, prior_mean=np.zeros((2, 2)), prior_covariance=1.0)


def test_env_without_features_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="pass features=callable"):
        RLSVI("LinearQPolicy", gym.make("FrozenLake-v1"), device="cpu")


def test_policy_of_another_agent_is_refused():
    with pytest.raises(TypeError, match="pass one from initial_policy"):
        make(RLSVI).adapt(object(), log(0, 0.0), rng=np.random.default_rng(0))


def test_features_can_be_handed_in():
    def one_hot(stage, observations):
        index = observations[..., 1].astype(int)
        return np.eye(8)[np.stack([2 * index, 2 * index + 1], axis=-1)]

    agent = make(RLSVI, features=one_hot, n_replicates=1).learn_tasks(1, log_interval=None)
    assert agent.prior()[0].shape == (3, 8)


def recommendation_log():
    agent = make(MTSRL, n_replicates=2, env_id=RECOMMENDATION, env_kwargs=None)
    policies = agent.initial_policies([np.random.default_rng(i) for i in range(2)])
    return agent, collect_episodes(agent.env, policies, 5, seed=0)


def test_a_logged_action_that_was_masked_is_refused():
    agent, episodes = recommendation_log()
    episodes.actions[1, 2, 1] = episodes.actions[1, 2, 0]
    with pytest.raises(ValueError, match=r"hold the masked action .* at stage 1"):
        agent.fit_prior(episodes)
    assert agent.n_tasks_seen == 0


def test_a_log_whose_episodes_miss_their_first_step_is_refused():
    agent, episodes = recommendation_log()
    late = EpisodeBatch(*(field[:, :, 1:] if field.ndim > 2 else field for field in episodes))
    late = late._replace(final_observations=episodes.final_observations)
    with pytest.raises(ValueError, match="belongs to another stage"):
        agent.fit_prior(late)


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        ({"estimator": "em"}, {"estimator": "ols"}),
        ({"estimator": "gls", "prior_covariance": 0.1}, {"prior_covariance": None}),
    ],
)
def test_a_file_of_another_estimator_is_refused_instead_of_half_forgotten(saved, loaded, tmp_path):
    agent = make(MTSRL, n_replicates=1, **saved).learn_tasks(3, log_interval=None)
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="leave estimator and prior_covariance as they were saved"):
        MTSRL.load(tmp_path / "agent", INVERSE_BELLMAN, env_kwargs=FAMILY, device="cpu", **loaded)


def test_an_env_with_other_features_is_refused_and_the_agent_stays_in_its_own(tmp_path):
    agent = make(MTSRL, n_replicates=1).learn_tasks(3, log_interval=None)
    other, before = gym.make(INVERSE_BELLMAN, **{**FAMILY, "n_features": 6}), agent.prior()[0]
    with pytest.raises(ValueError, match="use an env with the same features"):
        agent.set_env(other)
    agent.learn_tasks(1, log_interval=None, reset_num_timesteps=False)
    assert agent.prior()[0].shape == before.shape
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="use an env with the same features"):
        MTSRL.load(tmp_path / "agent", other, device="cpu")


@pytest.mark.parametrize("algorithm", [RLSVI, MTSRL])
def test_uniform_episodes_mean_the_same_to_all_agents_that_explore(algorithm):
    uniform = regret_of(algorithm, n_uniform_episodes=3)
    greedy = regret_of(algorithm)
    reference = regret_of(RLSVI, n_uniform_episodes=3)
    np.testing.assert_array_equal(uniform[:, :2], reference[:, :2])
    assert not np.array_equal(uniform[:, :2, :3], greedy[:, :2, :3])


def test_logs_are_learned_from_even_where_the_prior_is_frozen_later():
    logs = [log(rng_seed=task, late=0.0) for task in range(6)]
    all_logs = make(MTSRL, n_replicates=1, update="freeze").fit_prior(logs)
    first = make(MTSRL, n_replicates=1, update="freeze").fit_prior(logs[:2])
    assert not np.array_equal(all_logs.prior()[0], first.prior()[0])
    frozen = all_logs.prior()[0]
    all_logs.learn_tasks(1, log_interval=None)
    np.testing.assert_array_equal(all_logs.prior()[0], frozen)


def test_a_bad_first_guess_of_the_target_variance_is_forgotten():
    variances = [
        make(RLSVI, sigma2="estimate", initial_sigma2=initial, n_episodes_per_task=20)
        .learn_tasks(10, log_interval=None)
        .target_variance()
        .mean(0)
        .numpy()
        for initial in (1.0, 1000.0)
    ]
    # The runs differ in what they explore in the first task; 4 x 200 residuals give about 5 %.
    np.testing.assert_allclose(*variances, rtol=0.35)


def test_parameters_of_one_agent_make_another_play_like_it():
    learned = make(MTSRL, n_replicates=1).learn_tasks(3, log_interval=None)
    fresh = make(MTSRL, n_replicates=1, seed=9)
    fresh.set_parameters(learned.get_parameters())
    assert not fresh.is_exploring
    np.testing.assert_array_equal(fresh.prior()[0], learned.prior()[0])


@pytest.mark.parametrize("name", ["records/mean", "records/covariance"])
def test_a_damaged_state_is_refused_and_what_was_learned_stays(name):
    agent = make(MTSRLPlus, n_replicates=1).learn_tasks(3, log_interval=None)
    before, state = agent.prior(), agent._learned_state()
    for damage in (th.full_like(state[name], float("nan")), state[name].float()):
        with pytest.raises(ValueError, match="state is damaged"):
            agent._restore_learned_state({**state, name: damage})
    if name == "records/covariance":
        with pytest.raises(ValueError, match="is no covariance"):
            agent._restore_learned_state({**state, name: -state[name]})
    np.testing.assert_array_equal(agent.prior()[1], before[1])


def test_an_agent_loaded_without_env_adapts_to_the_env_it_is_handed(tmp_path):
    agent = make(MTSRL, n_replicates=1).learn_tasks(3, log_interval=None)
    agent.save(tmp_path / "agent")
    loaded = MTSRL.load(tmp_path / "agent", device="cpu")
    env = gym.make(INVERSE_BELLMAN, **FAMILY)
    with pytest.raises(ValueError, match=r"load\(path, env="):
        loaded.prior()
    expected = agent.adapt_to(gym.make(INVERSE_BELLMAN, **FAMILY), 3, seed=4)
    np.testing.assert_array_equal(loaded.adapt_to(env, 3, seed=4).parameters, expected.parameters)
