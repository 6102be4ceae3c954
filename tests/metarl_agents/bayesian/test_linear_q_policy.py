from dataclasses import replace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from metarl_agents.bayesian.beliefs import GateSwitch, TaskBelief, ValueModel
from metarl_agents.bayesian.linear_gaussian import GaussianPrior, posterior
from metarl_agents.bayesian.linear_q_policy import (
    LinearQPolicies,
    LinearQPolicy,
    UniformPolicies,
)
from metarl_agents.bayesian.rlsvi import sample_parameters
from metarl_agents.bayesian.stage_features import StageFeatures
from tests.metarl_agents.bayesian.random_tasks import (
    random_prior,
    random_transitions,
    statistics_of,
)

M, H, S, A, SIZE = 4, 3, 5, 3, 4
RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((H, S, A, SIZE))
MASKS = RNG.random((H, S, A)) < 0.7
MASKS[..., 0] |= ~MASKS.any(-1)
ROWS = np.stack(np.meshgrid(np.arange(H), np.arange(S), indexing="ij"), axis=-1)  # (H, S, 2)
LAYOUTS = pytest.mark.parametrize("n_blocks", [1, A])


def table_masks(observations):
    stage, state = np.moveaxis(np.asarray(observations).astype(int), -1, 0)
    return MASKS[stage, state]


def nothing_allowed(observations):
    return np.zeros((*observations.shape[:-1], A), dtype=bool)


def stage_features(n_blocks=1, *, tells_stage=True, masks=table_masks):
    """Observations are (stage, state); features stand in one block or in one per action."""

    def features(stage, observations):
        own = TABLE[stage, np.asarray(observations)[..., 1].astype(int)]
        if n_blocks == 1:
            return own
        wide = np.einsum("ab,...am->...abm", np.eye(A), own)
        return wide.reshape(*own.shape[:-1], A * SIZE)

    return StageFeatures(
        features,
        masks,
        (lambda observations: np.asarray(observations)[..., 0]) if tells_stage else None,
        n_stages=H,
        n_actions=A,
        n_features=SIZE * n_blocks,
        n_blocks=n_blocks,
        observation_space=spaces.MultiDiscrete([H, S]),
    )


def some_belief(seed, n_blocks=1, n_tasks=M, n_episodes=6):
    transitions = random_transitions(
        seed, lead=(n_tasks,), n_blocks=n_blocks, n_episodes=n_episodes, n_actions=A
    )
    prior = random_prior(seed + 1, (n_tasks, H, n_blocks, SIZE))
    variance = th.full((n_tasks, H), 0.4, dtype=th.float64)
    return TaskBelief(prior, statistics_of(transitions, n_blocks), variance)


def drawn(seed=0, n_blocks=1, n_tasks=M, **kwargs):
    belief = some_belief(seed, n_blocks, n_tasks)
    rngs = np.random.default_rng(seed).spawn(n_tasks)
    return LinearQPolicies.drawn(stage_features(n_blocks, **kwargs), ValueModel(), belief, rngs)


def best_actions(policies, parameters, task, stage):
    """The greedy action in every state of a stage, one by one."""
    actions = []
    for state in range(S):
        theta = np.broadcast_to(parameters[task, stage], (A, SIZE))
        values = [TABLE[stage, state, a] @ theta[a] for a in range(A)]
        allowed = [a for a in range(A) if MASKS[stage, state, a]]
        actions.append(max(allowed, key=lambda a: values[a]))
    return actions


@LAYOUTS
@pytest.mark.parametrize("deterministic", [False, True])
def test_actions_are_the_best_allowed_ones(n_blocks, deterministic):
    policies = drawn(1, n_blocks)
    parameters = policies.mean_parameters if deterministic else policies.parameters
    for task in range(M):
        for stage in range(H):
            actions, state = policies[task].predict(ROWS[stage], deterministic=deterministic)
            assert state is None and actions.dtype == np.int64
            assert actions.tolist() == best_actions(policies, parameters, task, stage)
            assert MASKS[stage, np.arange(S), actions].all()


@LAYOUTS
def test_rows_of_different_stages_are_told_apart(n_blocks):
    policy = drawn(2, n_blocks)[1]
    mixed = ROWS.reshape(-1, 2)[::-1]
    together, _ = policy.predict(mixed)
    one_by_one = [int(policy.predict(row)[0]) for row in mixed]
    assert together.tolist() == one_by_one


def test_row_i_belongs_to_task_i():
    policies = drawn(3)
    for state in range(S):
        rows = np.stack([ROWS[task % H, state] for task in range(M)])
        actions, _ = policies.predict(rows)
        alone = [int(policies[task].predict(rows[task])[0]) for task in range(M)]
        assert actions.tolist() == alone


def test_a_single_observation_gives_a_single_action():
    action, _ = drawn(4)[0].predict(ROWS[1, 2])
    assert np.shape(action) == () and action in range(A)
    actions, _ = drawn(4)[0].predict(ROWS[1, 2][None])
    assert actions.shape == (1,) and actions[0] == action


def test_a_dict_observation_is_refused():
    with pytest.raises(ValueError, match="observation is a dict"):
        drawn(5).predict({"observation": ROWS[0, :M]})


def test_an_observation_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"observation has shape \(3,\): pass \(2,\)"):
        drawn(6)[0].predict(np.zeros(3))


@pytest.mark.parametrize("n_rows", [1, M - 1, M + 1])
def test_several_tasks_want_one_row_each(n_rows):
    with pytest.raises(ValueError, match=rf"observation has {n_rows} rows.*each of 4 tasks"):
        drawn(7).predict(np.zeros((n_rows, 2)))


def indifferent(seed, n_tasks, n_blocks=1, **kwargs):
    """Policies of tasks whose Q-functions are zero everywhere."""
    policies = drawn(seed, n_blocks, n_tasks, **kwargs)
    policies.parameters = np.zeros_like(policies.parameters)
    return policies


@LAYOUTS
def test_ties_go_to_the_allowed_action_with_the_largest_key(n_blocks):
    policies = indifferent(8, M, n_blocks)
    for task in range(M):
        for stage in range(H):
            actions, _ = policies[task].predict(ROWS[stage])
            keys = np.where(MASKS[stage], policies.tie_keys[task, stage], -1.0)
            assert actions.tolist() == keys.argmax(-1).tolist()


def test_ties_are_broken_uniformly_over_draws():
    n_tasks = 3000
    policies = indifferent(9, n_tasks)
    state = int(np.flatnonzero(MASKS[0].all(-1))[0])
    actions, _ = policies.predict(np.tile(ROWS[0, state], (n_tasks, 1)))
    counts = np.bincount(actions, minlength=A)
    # 4 standard errors of a count.
    assert (abs(counts - n_tasks / A) <= 4 * (n_tasks * (1 / A) * (1 - 1 / A)) ** 0.5).all()


@LAYOUTS
@pytest.mark.parametrize("deterministic", [False, True])
def test_action_probabilities_agree_with_predict_in_every_state(n_blocks, deterministic):
    for policies in (drawn(10, n_blocks), indifferent(11, M, n_blocks)):
        for stage in range(H):
            table = policies.action_probabilities(ROWS[stage], stage, deterministic)
            assert table.shape == (M, S, A) and (table.sum(-1) == 1).all()
            for task in range(M):
                actions, _ = policies[task].predict(ROWS[stage], deterministic=deterministic)
                assert table[task].argmax(-1).tolist() == actions.tolist()
                own = policies[task].action_probabilities(ROWS[stage], stage, deterministic)
                assert np.array_equal(own, table[task])


def test_action_probabilities_find_the_stage_themselves():
    policies = drawn(12)
    for stage in range(H):
        given = policies.action_probabilities(ROWS[stage], stage)
        assert np.array_equal(policies.action_probabilities(ROWS[stage]), given)


def test_a_state_without_allowed_actions_has_probabilities_too():
    policies = drawn(13, masks=nothing_allowed)
    assert (policies.action_probabilities(ROWS[0], 0).sum(-1) == 1).all()


@LAYOUTS
def test_deterministic_is_greedy_for_the_posterior_mean(n_blocks):
    policies = drawn(14, n_blocks)
    belief = policies.belief
    mean = sample_parameters(posterior(belief.prior, belief.statistics, belief.sigma2))
    assert np.array_equal(policies.mean_parameters, mean.numpy())
    gaps = abs(policies.parameters - policies.mean_parameters).max((-1, -2, -3))
    assert (gaps > 1e-3).all()


def test_task_i_is_drawn_from_generator_i_alone():
    belief, features = some_belief(15), stage_features()
    policies = LinearQPolicies.drawn(
        features, ValueModel(), belief, np.random.default_rng(1).spawn(M)
    )
    for i in range(M):
        rng = np.random.default_rng(1).spawn(M)[i]
        own = LinearQPolicy.drawn(features, ValueModel(), belief[i], [rng])
        assert np.array_equal(own.parameters[0], policies.parameters[i])
        assert np.array_equal(own.tie_keys[0], policies.tie_keys[i])


def test_draws_without_data_come_from_the_prior():
    n_tasks = 4000
    belief = some_belief(16, n_tasks=1)
    empty = belief.statistics._replace(
        gram=0 * belief.statistics.gram,
        reward_moment=0 * belief.statistics.reward_moment,
        successor_moment=0 * belief.statistics.successor_moment,
    )
    joined = TaskBelief.joined([TaskBelief(belief.prior, empty, belief.sigma2)] * n_tasks)
    rngs = np.random.default_rng(2).spawn(n_tasks)
    draws = LinearQPolicies.drawn(stage_features(), ValueModel(), joined, rngs).parameters
    deviation = np.sqrt(np.diagonal(belief.prior.covariance[0].numpy(), axis1=-2, axis2=-1))
    errors = abs(draws.mean(0) - belief.prior.mean[0].numpy())
    assert (errors <= 4 * deviation / n_tasks**0.5).all()
    np.testing.assert_allclose(draws.std(0), deviation, rtol=4 / (2 * n_tasks) ** 0.5)


@LAYOUTS
def test_stacking_and_indexing_lose_no_bit(n_blocks):
    policies = drawn(17, n_blocks)
    again = LinearQPolicy.stack([policies[i] for i in range(len(policies))])
    assert again.n_tasks == len(again) == M
    assert np.array_equal(again.parameters, policies.parameters)
    assert np.array_equal(again.tie_keys, policies.tie_keys)
    assert np.array_equal(again.mean_parameters, policies.mean_parameters)
    for old, new in zip(policies.belief.statistics, again.belief.statistics, strict=True):
        assert th.equal(old, new)
    assert th.equal(again.belief.prior.mean, policies.belief.prior.mean)
    assert th.equal(again.belief.prior.factor, policies.belief.prior.factor)
    assert th.equal(again.belief.sigma2, policies.belief.sigma2)
    rows = ROWS[1, :M]
    for deterministic in (False, True):
        expected, _ = policies.predict(rows, deterministic=deterministic)
        actions, _ = again.predict(rows, deterministic=deterministic)
        assert np.array_equal(actions, expected)


def test_tasks_that_have_seen_different_numbers_of_successors_are_stacked():
    features = stage_features()
    policies = [
        LinearQPolicy.drawn(
            features,
            ValueModel(),
            some_belief(seed, n_tasks=1, n_episodes=n_episodes),
            [np.random.default_rng(seed)],
        )
        for seed, n_episodes in ((18, 1), (19, 30))
    ]
    columns = [p.belief.statistics.successor_counts.shape[-1] for p in policies]
    assert columns[0] < columns[1]
    both = LinearQPolicy.stack(policies)
    for i, policy in enumerate(policies):
        assert np.array_equal(both[i].parameters, policy.parameters)
        np.testing.assert_allclose(
            both[i].mean_parameters, policy.mean_parameters, rtol=0, atol=1e-12
        )
        assert np.array_equal(
            both[i].action_probabilities(ROWS[0], 0), policy.action_probabilities(ROWS[0], 0)
        )


def test_policies_from_before_and_after_the_prior_switch_are_not_stacked():
    policies, belief = drawn(24), some_belief(24)
    switch = GateSwitch(belief.prior, 1.0, belief.statistics.gram)
    later = replace(belief, switch=switch)
    rngs = np.random.default_rng(6).spawn(M)
    gated = LinearQPolicies.drawn(stage_features(), ValueModel(), later, rngs)
    with pytest.raises(ValueError, match="exploration tasks and of later ones cannot be joined"):
        LinearQPolicy.stack([policies[0], gated[0]])
    again = LinearQPolicy.stack([gated[i] for i in range(M)])
    assert np.array_equal(again.mean_parameters, gated.mean_parameters)


def test_policies_that_keep_histories_of_different_lengths_are_not_stacked():
    transitions = random_transitions(25, lead=(M,), n_actions=A)
    belief = some_belief(25)
    longer = belief.updated(transitions, keep=True)
    rngs = np.random.default_rng(7).spawn(M)
    policies = [
        LinearQPolicies.drawn(stage_features(), ValueModel(), known, rngs)[0]
        for known in (belief, longer)
    ]
    with pytest.raises(ValueError, match="different numbers of adaptation batches"):
        LinearQPolicy.stack(policies)


def test_a_policy_keeps_its_draw_when_its_source_draws_again():
    policies = drawn(20)
    one = policies[2]
    before = one.parameters.copy()
    rngs = np.random.default_rng(3).spawn(M)
    LinearQPolicies.drawn(policies.features, policies.model, policies.belief, rngs)
    assert np.array_equal(one.parameters, before)
    assert np.array_equal(one.parameters[0], policies.parameters[2])


def stage_tellers(n_tasks):
    """Policies without stages() that take action h at stage h, in state 0 where all is allowed."""
    policies = indifferent(21, n_tasks, tells_stage=False, masks=None)
    policies.tie_keys = np.tile(np.eye(H, A), (n_tasks, 1, 1))
    return policies


def test_counters_keep_the_stage_where_the_env_does_not_tell_it():
    policies, rows = stage_tellers(M), np.zeros((M, 2))
    starts = np.ones(M, dtype=bool)
    taken, state = [], None
    for _ in range(2 * H + 1):
        actions, state = policies.predict(rows, state, starts)
        starts = np.zeros(M, dtype=bool)
        taken.append(actions.tolist())
    # Beyond the last stage only an episode start goes back to the first.
    assert taken == [[min(step, H - 1)] * M for step in range(2 * H + 1)]


def test_counters_start_again_where_an_episode_begins():
    policies, rows = stage_tellers(M), np.zeros((M, 2))
    _, state = policies.predict(rows, None, np.ones(M, dtype=bool))
    actions, state = policies.predict(rows, state, np.array([False, True, False, True]))
    assert actions.tolist() == [1, 0, 1, 0]
    actions, _ = policies.predict(rows, state, np.zeros(M, dtype=bool))
    assert actions.tolist() == [2, 1, 2, 1]


def test_counters_of_a_single_observation():
    policy, taken, state = stage_tellers(M)[0], [], None
    for step in range(H):
        action, state = policy.predict(np.zeros(2), state, np.array([step == 0]))
        taken.append(int(action))
    assert taken == [0, 1, 2]


def test_counting_changes_no_state_that_was_passed_in():
    policies = stage_tellers(M)
    state = (np.array([0, 1, 2, 0]),)
    policies.predict(np.zeros((M, 2)), state, np.array([True, False, False, True]))
    assert state[0].tolist() == [0, 1, 2, 0]


def test_a_stage_that_cannot_be_known_is_an_error_with_both_remedies():
    with pytest.raises(ValueError, match=r"state=None and episode_start=None.*stages\(\)"):
        stage_tellers(M).predict(np.zeros((M, 2)))


def uniform(**kwargs):
    return UniformPolicies(drawn(22, **kwargs), np.random.default_rng(4).spawn(M))


def test_uniform_policies_take_every_allowed_action_equally_often():
    policies, n_draws = uniform(), 1500
    allowed = MASKS[1, :M]
    counts = np.zeros((M, A))
    for _ in range(n_draws):
        actions, _ = policies.predict(ROWS[1, :M])
        counts[np.arange(M), actions] += 1
    expected = policies.action_probabilities(ROWS[1, :M], 1)[0]
    assert np.array_equal(expected, allowed / allowed.sum(-1, keepdims=True))
    error = np.sqrt(expected * (1 - expected) / n_draws)
    assert (abs(counts / n_draws - expected) <= 4 * error).all()


def test_uniform_policies_spread_over_all_actions_where_none_is_allowed():
    table = uniform(masks=nothing_allowed).action_probabilities(ROWS[0], 0)
    assert table.shape == (M, S, A) and np.allclose(table, 1 / A)


def test_uniform_policies_act_for_all_their_tasks_or_not_at_all():
    with pytest.raises(TypeError, match="all its tasks at once"):
        uniform()[0]


def test_a_prior_without_variance_is_played_as_it_is():
    belief = some_belief(23)
    certain = GaussianPrior(belief.prior.mean, th.zeros_like(belief.prior.factor))
    sure = TaskBelief(certain, belief.statistics, belief.sigma2)
    rngs = np.random.default_rng(5).spawn(M)
    policies = LinearQPolicies.drawn(stage_features(), ValueModel(), sure, rngs)
    assert np.array_equal(policies.parameters, certain.mean.numpy())
    assert np.array_equal(policies.parameters, policies.mean_parameters)
