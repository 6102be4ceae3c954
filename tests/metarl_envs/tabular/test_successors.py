import copy
import itertools
import pickle

import numpy as np
import pytest

from metarl_envs.tabular.mdp import (
    FiniteMDP,
    action_values,
    backups,
    occupancy,
    optimal_values,
    policy_values,
)
from metarl_envs.tabular.successors import SparseMDP

DISCOUNTED = [{"discount": discount} for discount in (0.0, 0.8, 0.99)]
FINITE = [{"horizon": 1}, {"horizon": 5, "discount": 0.9}]


def random_lists(batch=(), n_states=12, n_actions=3, k=3, seed=0, **arguments):
    """Successors drawn with repetition, so that some lists name a state twice."""
    rng = np.random.default_rng(seed)
    return SparseMDP(
        rng.integers(n_states, size=(*batch, n_states, n_actions, k)),
        rng.dirichlet(np.ones(k), size=(*batch, n_states, n_actions)),
        rng.standard_normal((*batch, n_states, n_actions)),
        rng.dirichlet(np.ones(n_states), size=batch),
        **arguments,
    )


def slippery_corridors(slips, n_states=12, **arguments):
    """Left or right, against the will with the probability of a slip; the last state absorbs, and
    pays when it is entered.
    """
    states = np.arange(n_states)
    left, right = np.maximum(states - 1, 0), np.minimum(states + 1, n_states - 1)
    next_states = np.stack([np.stack([left, right], -1), np.stack([right, left], -1)], axis=1)
    next_states[-1] = n_states - 1
    slips = np.asarray(slips)[..., None, None, None] * np.ones((n_states, 2, 1))
    probabilities = np.concatenate([1.0 - slips, slips], axis=-1)
    enters = (next_states == n_states - 1) & (states < n_states - 1)[:, None, None]
    rewards = (probabilities * enters).sum(-1)
    return SparseMDP(next_states, probabilities, rewards, np.eye(n_states)[0], **arguments)


def residual(mdp, values):
    gap = np.abs(action_values(mdp, values).max(-1) - values)
    return (gap.max(-1) / np.maximum(1.0, np.abs(values).max(-1))).max()


def random_policy(mdp, *axes, seed=1):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(mdp.n_actions), size=(*axes, mdp.n_states))


def members(mdp):
    arguments = {"discount": mdp.discount, "horizon": mdp.horizon}
    for task in np.ndindex(mdp.batch_shape):
        arrays = (mdp.next_states, mdp.probabilities, mdp.rewards, mdp.initial)
        yield task, SparseMDP(*(array[task] for array in arrays), **arguments)


@pytest.mark.parametrize("arguments", DISCOUNTED + FINITE)
def test_sparse_and_dense_mdps_have_the_same_solutions(arguments):
    sparse = random_lists((2, 3), **arguments)
    dense = sparse.to_finite_mdp()
    stages = () if sparse.horizon is None else (sparse.horizon,)
    policy = random_policy(sparse, 2, 3, *stages)
    values = np.random.default_rng(2).standard_normal((2, 3, *stages, 12))
    for solve, argument in (
        (lambda mdp, _: optimal_values(mdp), None),
        (policy_values, policy),
        (occupancy, policy),
        (action_values, values),
    ):
        expected = solve(dense, argument)
        assert solve(sparse, argument).shape == expected.shape
        # Values reach 100 for a discount of 0.99.
        np.testing.assert_allclose(solve(sparse, argument), expected, rtol=1e-12, atol=1e-12)


def test_matrix_products_and_gathers_agree(monkeypatch):
    for arguments in ({"discount": 0.95}, {"horizon": 7}):
        mdp = random_lists((4,), n_states=16, **arguments).to_finite_mdp()
        assert mdp.successors is not None
        by_gathers = optimal_values(mdp)
        monkeypatch.setitem(mdp.__dict__, "successors", None)
        np.testing.assert_allclose(optimal_values(mdp), by_gathers, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95])
def test_optimal_values_are_those_of_the_best_deterministic_policy(discount):
    mdp = random_lists((3,), n_states=4, n_actions=2, k=2, discount=discount)
    policies = np.array([np.eye(2)[list(p)] for p in itertools.product(range(2), repeat=4)])
    best = np.max([policy_values(mdp, policy) for policy in policies], axis=0)
    np.testing.assert_allclose(optimal_values(mdp), best, rtol=1e-12, atol=1e-12)


def test_finite_horizon_values_are_those_of_the_best_staged_policy():
    mdp = random_lists((), n_states=3, n_actions=2, k=2, horizon=3, discount=0.9)
    policies = [np.eye(2)[np.reshape(p, (3, 3))] for p in itertools.product(range(2), repeat=9)]
    best = policy_values(mdp, np.array(policies)).max(axis=0)
    np.testing.assert_allclose(optimal_values(mdp), best, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("discount", [0.8, 0.95])
def test_optimal_values_agree_with_plain_value_iteration(discount):
    mdp = random_lists((2,), n_states=5, n_actions=2, k=2, discount=discount)
    for (task,), member in members(mdp):
        values = [0.0] * 5
        # 0.95^700 < 1e-15: what is left to gain is rounding.
        for _ in range(700):
            values = [
                max(
                    member.rewards[s, a]
                    + discount
                    * sum(member.probabilities[s, a, i] * values[x] for i, x in enumerate(lists))
                    for a, lists in enumerate(member.next_states[s])
                )
                for s in range(5)
            ]
        np.testing.assert_allclose(optimal_values(mdp)[task], values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("discount", [0.8, 0.99, 0.999, 0.9999, 0.99999])
@pytest.mark.parametrize("cost", [0.0, 1.0])
def test_optimal_values_have_no_bellman_residual(discount, cost):
    mdp = slippery_corridors(np.linspace(0.0, 0.5, 9), n_states=30, discount=discount)
    mdp = SparseMDP(mdp.next_states, mdp.probabilities, mdp.rewards - cost, mdp.initial, discount)
    assert residual(mdp, optimal_values(mdp)) <= 1e-10


def test_values_without_slips_have_a_closed_form():
    values = optimal_values(slippery_corridors(0.0, discount=0.9))
    expected = [*(0.9 ** np.arange(10, -1, -1)), 0.0]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-14)


def test_reward_of_an_absorbing_state_is_a_geometric_sum():
    mdp = SparseMDP([[[0]]], [[[1.0]]], [[3.0]], [1.0], discount=0.9999)
    np.testing.assert_allclose(optimal_values(mdp), [3.0 / (1 - 0.9999)], rtol=1e-12)


@pytest.mark.parametrize("discount", [0.9, 0.9999, 0.99999])
def test_ties_do_not_keep_policy_iteration_going(discount):
    # With nothing to lose, all policies that reach the goal at last are almost equally good.
    rng = np.random.default_rng(0)
    next_states = rng.integers(30, size=(50, 30, 2, 3)).repeat(2, axis=2)
    next_states[:, -1] = 29
    rewards = (next_states == 29).mean(-1) * (np.arange(30) < 29)[:, None]
    mdp = SparseMDP(next_states, np.full((30, 4, 3), 1 / 3), rewards, np.eye(30)[0], discount)
    assert residual(mdp, optimal_values(mdp)) <= 1e-10


@pytest.mark.parametrize("arguments", [{"discount": 0.99}, {"horizon": 6}])
@pytest.mark.parametrize("n_per_chunk", [1, 2, 100])
def test_batch_equals_its_members_in_chunks_of_any_size(arguments, n_per_chunk, monkeypatch):
    monkeypatch.setattr(backups, "_SPARSE_ENTRIES", n_per_chunk * 12 * 3 * 3)
    mdp = random_lists((5,), **arguments)
    stages = () if mdp.horizon is None else (6,)
    policy = random_policy(mdp, 5, *stages)
    values, visits, best = policy_values(mdp, policy), occupancy(mdp, policy), optimal_values(mdp)
    for task, member in members(mdp):
        for batched, single in (
            (best[task], optimal_values(member)),
            (values[task], policy_values(member, policy[task])),
            (visits[task], occupancy(member, policy[task])),
        ):
            np.testing.assert_allclose(batched, single, rtol=0, atol=1e-12)


@pytest.mark.parametrize("discount", [0.0, 0.95, 0.9999])
def test_return_is_occupancy_times_rewards(discount):
    mdp = random_lists((4,), discount=discount)
    policy = random_policy(mdp, 4)
    visits = occupancy(mdp, policy)
    np.testing.assert_allclose(visits.sum((-1, -2)), 1.0, rtol=1e-10)
    np.testing.assert_allclose(
        (visits * mdp.rewards).sum((-1, -2)) / (1.0 - discount),
        (policy_values(mdp, policy) * mdp.initial).sum(-1),
        # Rounding times the condition number, 1 / (1 - gamma) = 1e4.
        rtol=1e-10,
        atol=1e-10,
    )


def test_finite_horizon_return_is_occupancy_times_rewards():
    mdp = random_lists((4,), horizon=6, discount=0.9)
    policy = random_policy(mdp, 4, 6)
    visits = occupancy(mdp, policy)
    np.testing.assert_allclose(visits.sum((-1, -2)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        np.einsum("mhsa,msa,h->m", visits, mdp.rewards, 0.9 ** np.arange(6)),
        (policy_values(mdp, policy)[:, 0] * mdp.initial).sum(-1),
        rtol=1e-12,
        atol=1e-12,
    )


def test_tasks_may_share_their_successors():
    slips = np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]])
    mdp = slippery_corridors(slips, discount=0.95)
    assert mdp.batch_shape == (2, 3)
    assert mdp.next_states.shape == (2, 3, 12, 2, 2)
    assert mdp.next_states.strides[:2] == (0, 0)
    assert mdp.to_finite_mdp().transitions.shape == (2, 3, 12, 2, 12)
    values = optimal_values(mdp)
    for task, slip in np.ndenumerate(slips):
        single = optimal_values(slippery_corridors(slip, discount=0.95))
        np.testing.assert_allclose(values[task], single, rtol=0, atol=1e-12)


def test_tasks_may_differ_in_their_rewards_only():
    mdp = slippery_corridors(0.1, discount=0.9)
    scales = np.arange(1.0, 4.0)
    rewards = scales[:, None, None] * mdp.rewards
    sparse = SparseMDP(mdp.next_states, mdp.probabilities, rewards, mdp.initial, 0.9)
    for batch in (sparse, sparse.to_finite_mdp()):
        np.testing.assert_allclose(
            optimal_values(batch), scales[:, None] * optimal_values(mdp), rtol=1e-12
        )


@pytest.mark.parametrize(("arguments", "stages"), [({"horizon": 4}, (4,)), ({"discount": 0.9}, ())])
def test_one_mdp_takes_a_batch_of_policies(arguments, stages):
    mdp = random_lists(**arguments)
    policies = random_policy(mdp, 5, *stages)
    values, visits = policy_values(mdp, policies), occupancy(mdp, policies)
    for i in range(5):
        np.testing.assert_allclose(values[i], policy_values(mdp, policies[i]), atol=1e-12)
        np.testing.assert_allclose(visits[i], occupancy(mdp, policies[i]), atol=1e-12)


def test_an_empty_batch_has_empty_solutions():
    for mdp in (random_lists((0,), discount=0.9), random_lists((0,), horizon=3).to_finite_mdp()):
        assert optimal_values(mdp).shape[0] == 0


def test_states_that_are_listed_twice_have_the_sum_of_the_probabilities():
    mdp = SparseMDP(
        [[[1, 1, 0]], [[1, 0, 0]]], [[[0.25, 0.5, 0.25]], [[1.0, 0, 0]]], [[0], [1]], [1, 0]
    )
    expected = [[[0.25, 0.75]], [[0.0, 1.0]]]
    np.testing.assert_array_equal(mdp.to_finite_mdp().transitions, expected)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_dense_transitions_survive_the_way_through_lists_unchanged(batch):
    dense = random_lists(batch, discount=0.9).to_finite_mdp()
    sparse = SparseMDP.from_finite_mdp(dense)
    assert sparse.next_states.shape == (*batch, 12, 3, 3)
    back = sparse.to_finite_mdp()
    for name in ("transitions", "rewards", "initial", "discount", "horizon"):
        np.testing.assert_array_equal(getattr(back, name), getattr(dense, name))


def test_lists_hold_as_many_states_as_transitions_that_are_dense_need():
    dense = FiniteMDP(np.full((5, 2, 5), 0.2), np.ones((5, 2)), np.full(5, 0.2), discount=0.5)
    assert dense.successors is None
    sparse = SparseMDP.from_finite_mdp(dense)
    assert sparse.next_states.shape == (5, 2, 5)
    np.testing.assert_allclose(optimal_values(sparse), 2.0, rtol=1e-14)


def test_arrays_are_read_only_copies():
    rewards = np.zeros((1, 2))
    mdp = SparseMDP(np.zeros((1, 2, 1), np.uint8), np.ones((1, 2, 1)), rewards, [1], horizon=1)
    rewards[:] = 7.0
    assert mdp.rewards.max() == 0.0 and mdp.next_states.dtype == np.intp
    for name in ("next_states", "probabilities", "rewards", "initial"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(mdp, name)[...] = 0


def test_pickled_and_copied_mdps_stay_shared_and_read_only():
    mdp = slippery_corridors([0.1, 0.2, 0.3], horizon=4)
    for twin in (pickle.loads(pickle.dumps(mdp)), copy.deepcopy(mdp)):
        assert twin.next_states.strides[0] == 0
        for name in ("next_states", "probabilities", "rewards", "initial"):
            np.testing.assert_array_equal(getattr(twin, name), getattr(mdp, name))
            assert not getattr(twin, name).flags.writeable
        assert (twin.discount, twin.horizon) == (1.0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_states": np.full((2, 2, 1), 2)}, "next_states has entries from 2 to 2"),
        ({"next_states": np.full((2, 2, 1), -1)}, "pad with a state of probability 0"),
        ({"next_states": np.zeros((2, 2, 2), int)}, "disagree"),
        (
            {"next_states": np.zeros((2, 2, 0), int), "probabilities": np.ones((2, 2, 0))},
            "disagree",
        ),
        ({"next_states": 0}, "disagree"),
        ({"probabilities": np.full((2, 2, 1), 0.9)}, r"probabilities must be .* sum in \[0\.9"),
        ({"probabilities": np.full((2, 2, 1), np.nan)}, "probabilities must be"),
        ({"rewards": np.full((2, 2), np.nan)}, "rewards must be finite, but hold nan"),
        ({"rewards": np.zeros((2, 3))}, "disagree"),
        ({"initial": [1.5, -0.5]}, "initial must be .* entry -0.5"),
        ({"initial": np.ones((3, 2)) / 2, "rewards": np.ones((4, 2, 2))}, "do not broadcast"),
        ({"discount": 1.5}, r"discount=1\.5 must lie in \[0, 1\]"),
        ({"horizon": 0}, "horizon=0 must be None or"),
    ],
)
def test_what_is_no_mdp_is_refused(change, message):
    arguments = {
        "next_states": np.zeros((2, 2, 1), int),
        "probabilities": np.ones((2, 2, 1)),
        "rewards": np.zeros((2, 2)),
        "initial": [0.5, 0.5],
    }
    with pytest.raises(ValueError, match=message):
        SparseMDP(**(arguments | change))


def test_next_states_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="next_states of dtype float64 must be integers"):
        SparseMDP(np.zeros((1, 1, 1)), np.ones((1, 1, 1)), np.zeros((1, 1)), [1.0])


def test_undiscounted_endless_mdp_is_refused():
    with pytest.raises(ValueError, match=r"horizon=None with discount=1\.0"):
        optimal_values(random_lists())
