import copy
import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from metarl_envs.tabular import FiniteMDP, action_values, occupancy, optimal_values, policy_values
from metarl_envs.tabular.gridworld import GridGoalFamily, GridGoalTask


def random_mdp(batch=(), n_states=7, n_actions=3, seed=0, **arguments):
    rng = np.random.default_rng(seed)
    return FiniteMDP(
        rng.dirichlet(np.ones(n_states), size=(*batch, n_states, n_actions)),
        rng.standard_normal((*batch, n_states, n_actions)),
        rng.dirichlet(np.ones(n_states), size=batch),
        **arguments,
    )


def random_policy(mdp, *axes, seed=1):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(mdp.n_actions), size=(*axes, mdp.n_states))


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99, 0.99999])
def test_optimal_values_have_no_bellman_residual(discount):
    mdp = random_mdp((5,), discount=discount)
    values = optimal_values(mdp)
    assert values.shape == (5, 7)
    residual = np.abs(action_values(mdp, values).max(-1) - values).max()
    assert residual <= 1e-10 * max(1.0, np.abs(values).max())


def test_optimal_values_agree_with_value_iteration():
    mdp = random_mdp((4,), discount=0.8)
    values = np.zeros((4, 7))
    for _ in range(300):
        values = action_values(mdp, values).max(-1)
    np.testing.assert_allclose(optimal_values(mdp), values, rtol=0, atol=1e-12)


def test_equally_good_actions_do_not_keep_policy_iteration_going():
    mdp = FiniteMDP(np.full((3, 4, 3), 1 / 3), np.ones((3, 4)), np.full(3, 1 / 3), discount=0.9)
    np.testing.assert_allclose(optimal_values(mdp), 10.0, rtol=1e-14)


def test_finite_horizon_values_agree_with_a_plain_recursion():
    mdp = random_mdp((), horizon=4, discount=0.9)

    def value(stage, state):
        if stage == 4:
            return 0.0
        return max(
            mdp.rewards[state, a]
            + 0.9 * sum(mdp.transitions[state, a, x] * value(stage + 1, x) for x in range(7))
            for a in range(3)
        )

    values = optimal_values(mdp)
    assert values.shape == (4, 7)
    np.testing.assert_allclose(values[1], [value(1, s) for s in range(7)], rtol=0, atol=1e-12)


def test_long_horizon_approaches_the_discounted_values():
    discounted = random_mdp(discount=0.5)
    finite = random_mdp(discount=0.5, horizon=60)
    np.testing.assert_allclose(optimal_values(finite)[0], optimal_values(discounted), atol=1e-12)


@pytest.mark.parametrize("arguments", [{"discount": 0.9}, {"horizon": 5}])
def test_greedy_policy_reaches_the_optimal_values(arguments):
    mdp = random_mdp((3,), **arguments)
    values = optimal_values(mdp)
    greedy = np.eye(3)[action_values(mdp, values).argmax(-1)]
    np.testing.assert_allclose(policy_values(mdp, greedy), values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"discount": 0.9}, {"horizon": 5}])
def test_batch_equals_its_members(arguments):
    mdp = random_mdp((2, 3), **arguments)
    policy = random_policy(mdp, 2, 3)
    for i, j in np.ndindex(2, 3):
        member = FiniteMDP(mdp.transitions[i, j], mdp.rewards[i, j], mdp.initial[i, j], **arguments)
        for batched, single in (
            (optimal_values(mdp)[i, j], optimal_values(member)),
            (policy_values(mdp, policy)[i, j], policy_values(member, policy[i, j])),
            (occupancy(mdp, policy)[i, j], occupancy(member, policy[i, j])),
        ):
            np.testing.assert_allclose(batched, single, rtol=0, atol=1e-12)


def test_occupancy_and_values_give_the_same_return():
    discounted = random_mdp((4,), discount=0.95)
    policy = random_policy(discounted, 4)
    visits = occupancy(discounted, policy)
    assert visits.shape == (4, 7, 3)
    np.testing.assert_allclose(visits.sum((-1, -2)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        (visits * discounted.rewards).sum((-1, -2)) / 0.05,
        (policy_values(discounted, policy) * discounted.initial).sum(-1),
        rtol=1e-10,
    )


def test_finite_horizon_occupancy_and_values_give_the_same_return():
    mdp = random_mdp((4,), horizon=6, discount=0.9)
    policy = random_policy(mdp, 4, 6)
    visits = occupancy(mdp, policy)
    assert visits.shape == (4, 6, 7, 3)
    np.testing.assert_allclose(visits.sum((-1, -2)), 1.0, rtol=1e-12)
    discounts = 0.9 ** np.arange(6)
    np.testing.assert_allclose(
        np.einsum("khsa,ksa,h->k", visits, mdp.rewards, discounts),
        (policy_values(mdp, policy)[:, 0] * mdp.initial).sum(-1),
        rtol=1e-10,
    )


def test_stationary_policy_equals_the_same_policy_at_every_stage():
    mdp = random_mdp((2,), horizon=3)
    policy = random_policy(mdp)
    stages = np.broadcast_to(policy, (2, 3, 7, 3))
    np.testing.assert_array_equal(policy_values(mdp, policy), policy_values(mdp, stages))
    single = random_mdp(horizon=3)
    np.testing.assert_array_equal(
        occupancy(single, policy), occupancy(single, np.broadcast_to(policy, (3, 7, 3)))
    )


def test_shared_arrays_are_broadcast_over_the_batch():
    rng = np.random.default_rng(0)
    single = random_mdp(discount=0.9)
    rewards = rng.standard_normal((5, 7, 3))
    mdp = FiniteMDP(single.transitions, rewards, single.initial, 0.9)
    assert mdp.batch_shape == (5,)
    member = FiniteMDP(single.transitions, rewards[2], single.initial, 0.9)
    np.testing.assert_allclose(optimal_values(mdp)[2], optimal_values(member), atol=1e-12)


def test_mdp_is_frozen_read_only_float64_and_picklable():
    rewards = np.ones((1, 2), dtype=np.float32)
    mdp = FiniteMDP(np.ones((1, 2, 1)), rewards, [1], horizon=1)
    rewards[:] = 7.0
    assert mdp.rewards.max() == 1.0 and mdp.rewards.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        mdp.rewards[0, 0] = 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        mdp.discount = 0.5
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mdp)).rewards, mdp.rewards)


@pytest.mark.parametrize("solve", [optimal_values, lambda m: policy_values(m, random_policy(m))])
def test_undiscounted_endless_mdp_is_refused(solve):
    with pytest.raises(ValueError, match=r"horizon=None with discount=1\.0"):
        solve(random_mdp())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": np.full((2, 2, 2), 0.4)}, "transitions must be"),
        ({"transitions": np.full((2, 2, 2), np.nan)}, "transitions must be"),
        ({"transitions": np.ones((2, 2))}, "must have shapes"),
        ({"transitions": np.full((2, 3, 2), 0.5)}, "disagree"),
        ({"rewards": np.full((2, 2), np.inf)}, "rewards must be finite"),
        ({"initial": [1.5, -0.5]}, "initial must be"),
        ({"initial": np.ones((3, 2)) / 2, "rewards": np.ones((4, 2, 2))}, "do not broadcast"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"discount": np.nan}, "discount=nan"),
        ({"horizon": 0}, "horizon=0"),
        ({"horizon": 2.5}, "horizon=2.5"),
    ],
)
def test_what_is_no_mdp_is_refused(change, message):
    arguments = {
        "transitions": np.full((2, 2, 2), 0.5),
        "rewards": np.zeros((2, 2)),
        "initial": [0.5, 0.5],
    }
    with pytest.raises(ValueError, match=message):
        FiniteMDP(**(arguments | change))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.full((7, 4), 0.25), r"must end in \(S, A\)"),
        (np.full((7, 3), 0.5), "policy must be"),
        (np.full((2, 7, 3), 1 / 3), r"must end in \(H, S, A\)"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        policy_values(random_mdp(horizon=4), policy)


def test_a_staged_policy_shared_by_a_batch_must_say_so():
    for n_tasks in (3, 5):  # as many tasks as stages, or not
        mdp = random_mdp((n_tasks,), horizon=3)
        policy = random_policy(mdp, 3)
        for evaluate in (policy_values, occupancy):
            with pytest.raises(ValueError, match=r"write policy\[None\] \(1,H,S,A\)"):
                evaluate(mdp, policy)
            shared = evaluate(mdp, policy[None])
            for i in range(n_tasks):
                member = FiniteMDP(mdp.transitions[i], mdp.rewards[i], mdp.initial[i], horizon=3)
                np.testing.assert_allclose(shared[i], evaluate(member, policy), atol=1e-12)


def test_stationary_policies_per_task_may_keep_the_stage_axis():
    mdp = random_mdp((3,), horizon=3)
    policy = random_policy(mdp, 3)
    values = policy_values(mdp, policy[:, None])
    for i in range(3):
        member = FiniteMDP(mdp.transitions[i], mdp.rewards[i], mdp.initial[i], horizon=3)
        np.testing.assert_allclose(values[i], policy_values(member, policy[i]), atol=1e-12)


@pytest.mark.parametrize(("arguments", "stages"), [({"horizon": 4}, (4,)), ({"discount": 0.9}, ())])
def test_one_mdp_takes_a_batch_of_policies(arguments, stages):
    mdp = random_mdp(n_states=5, **arguments)
    policies = random_policy(mdp, 7, *stages)
    values, visits = policy_values(mdp, policies), occupancy(mdp, policies)
    assert values.shape == (7, *stages, 5)
    assert visits.shape == (7, *stages, 5, 3)
    for i in range(7):
        np.testing.assert_allclose(values[i], policy_values(mdp, policies[i]), atol=1e-12)
        np.testing.assert_allclose(visits[i], occupancy(mdp, policies[i]), atol=1e-12)


@pytest.mark.parametrize("arguments", [{"horizon": 4}, {"discount": 0.9}])
def test_errors_of_broadcasting_name_the_shapes_of_policy_and_mdp(arguments):
    mdp = random_mdp((3,), **arguments)
    with pytest.raises(ValueError, match=r"\(5, 7, 3\) .*batch axes \(3,\)"):
        policy_values(mdp, random_policy(mdp, 5))


@pytest.mark.parametrize("arguments", [{"horizon": 4}, {"discount": 0.9}])
def test_values_of_another_shape_are_refused(arguments):
    mdp = random_mdp((3,), **arguments)
    for shape in [(6,), (3, 4, 6), (3, 7, 1), (5, 4, 7), ()]:
        with pytest.raises(ValueError, match="values"):
            action_values(mdp, np.zeros(shape))


@pytest.mark.parametrize("discount", ["x", [0.9, 0.8], None, np.array([0.9])])
def test_a_discount_is_one_number(discount):
    with pytest.raises(TypeError, match="discount="):
        random_mdp(discount=discount)


def test_unpickled_and_copied_mdps_stay_read_only():
    mdp = random_mdp((2,), horizon=2)
    for twin in (pickle.loads(pickle.dumps(mdp)), copy.deepcopy(mdp)):
        for name in ("transitions", "rewards", "initial"):
            np.testing.assert_array_equal(getattr(twin, name), getattr(mdp, name))
            assert not getattr(twin, name).flags.writeable


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95])
def test_optimal_values_are_those_of_the_best_deterministic_policy(discount):
    mdp = random_mdp((3,), n_states=4, n_actions=2, discount=discount)
    policies = [np.eye(2)[list(p)] for p in itertools.product(range(2), repeat=4)]
    best = np.max([policy_values(mdp, policy) for policy in policies], axis=0)
    np.testing.assert_allclose(optimal_values(mdp), best, rtol=1e-12, atol=1e-12)


def test_read_only_arrays_that_own_their_memory_are_not_copied():
    locked, writeable = np.ones((1, 2, 1)), np.ones((1, 2, 1))
    locked.flags.writeable = False
    view = writeable[:]
    view.flags.writeable = False
    for array, is_shared in ((locked, True), (writeable, False), (view, False)):
        mdp = FiniteMDP(array, np.zeros((1, 2)), [1.0])
        assert np.shares_memory(mdp.transitions, array) == is_shared


def test_shared_arrays_stay_shared_when_pickled():
    single = random_mdp()
    mdp = FiniteMDP(single.transitions, np.zeros((100, 7, 3)), single.initial, 0.5)
    twin = pickle.loads(pickle.dumps(mdp))
    assert twin.transitions.shape == (100, 7, 3, 7)
    assert twin.transitions.strides[0] == 0


def test_the_error_of_what_is_no_distribution_tells_entry_and_sum():
    with pytest.raises(ValueError, match=r"transitions must be .* entry 0\.4 .* \[0\.8, 0\.8\]"):
        FiniteMDP(np.full((2, 2, 2), 0.4), np.zeros((2, 2)), [0.5, 0.5])


def test_one_task_of_a_batch_is_an_mdp_of_its_own():
    batch = GridGoalFamily(size=3, horizon=4).finite_mdps(
        [GridGoalTask((2, 0)), GridGoalTask((2, 2))]
    )
    one = batch[1]
    assert one.batch_shape == () and one.horizon == 4 and one.discount == 1.0
    np.testing.assert_array_equal(one.transitions, batch.transitions[1])
    np.testing.assert_array_equal(one.rewards, batch.rewards[1])
    np.testing.assert_array_equal(optimal_values(one), optimal_values(batch)[1])
    np.testing.assert_array_equal(optimal_values(batch[:1]), optimal_values(batch)[:1])
    with pytest.raises(TypeError, match="single MDP"):
        one[0]
    with pytest.raises(IndexError):
        batch[2]
