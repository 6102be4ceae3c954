"""Exact values agree with plain value iteration on Gymnasium's tables, and with simulation."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import MAPS

from metarl_envs import check_task_env
from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular import FiniteMDP, action_values, optimal_values, policy_values
from metarl_envs.tabular.frozen_lake import (
    FrozenLakeGoalFamily,
    FrozenLakeHolesFamily,
    FrozenLakeRewardFamily,
    FrozenLakeSlipFamily,
    HolesTask,
    SlipTask,
)


def value_iteration(table, discount, n_iterations):
    """Values of the start, in plain Python."""
    values = [0.0] * len(table)
    for _ in range(n_iterations):
        values = [
            max(
                sum(p * (r + discount * values[following]) for p, following, r, _ in outcomes)
                for outcomes in actions.values()
            )
            for actions in table.values()
        ]
    return values[0]


def some_tasks(family, n=4):
    return sample_tasks(family.task_distribution, n, seed=7)


@pytest.mark.parametrize("success_rate", [1.0, 1 / 3])
@pytest.mark.parametrize(("discount", "n_iterations"), [(0.8, 150), (0.99, 3000), (1.0, 100)])
def test_optimal_returns_are_those_of_value_iteration(success_rate, discount, n_iterations):
    family = FrozenLakeHolesFamily(is_slippery=True, success_rate=success_rate, discount=discount)
    tasks = [family.task_from_desc(MAPS["4x4"]), *some_tasks(family, 1)]
    for task, value in zip(tasks, family.discounted_optimal_returns(tasks), strict=True):
        env = gym.make("FrozenLake-v1", desc=family.desc(task), success_rate=success_rate)
        expected = value_iteration(env.unwrapped.P, discount, n_iterations)
        # What is left of 0.8^150 and 0.99^3000 is below 1e-12.
        assert value == pytest.approx(expected, abs=1e-11)
        assert family.discounted_optimal_return(task) == pytest.approx(value, abs=1e-13)
        undiscounted = value_iteration(env.unwrapped.P, 1.0, family.horizon)
        assert family.optimal_return(task) == pytest.approx(undiscounted, abs=1e-11)


@pytest.mark.parametrize(("map_name", "optimum"), [("4x4", 0.74), ("8x8", 0.91)])
def test_the_optimum_of_gymnasiums_own_maps_is_the_one_it_documents(map_name, optimum):
    # Gymnasium's registration gives two digits.
    family = FrozenLakeSlipFamily(map_name=map_name)
    assert family.optimal_return(SlipTask(2 / 3)) == pytest.approx(optimum, abs=0.005)


FAMILIES = [
    FrozenLakeHolesFamily(size=5, is_slippery=True, hole_reward=-0.5),
    FrozenLakeHolesFamily(preset="bomrl2024", discount=1.0),
    FrozenLakeHolesFamily(preset="bomrl2024"),
    FrozenLakeHolesFamily(absorbing=True, is_slippery=True, hole_reward=-1.0),
    FrozenLakeRewardFamily(is_slippery=True, success_rate=0.8),
    FrozenLakeRewardFamily(preset="bomrl2024"),
    FrozenLakeSlipFamily(),
    FrozenLakeSlipFamily(discount=0.95),
    FrozenLakeSlipFamily(absorbing=True),
    FrozenLakeGoalFamily(is_slippery=True, hole_reward=-1.0),
    FrozenLakeGoalFamily(discount=0.9),
]


@pytest.mark.parametrize("family", FAMILIES, ids=range(len(FAMILIES)))
def test_optimal_returns_are_those_of_the_general_solver(family):
    tasks = some_tasks(family)
    for mdps in (family.finite_mdps(tasks), family.sparse_mdps(tasks)):
        values = optimal_values(mdps)
        values = values[:, 0] if mdps.horizon is None else values[:, 0, 0]
        # The backups add up the three directions in another order.
        own = family.discounted_optimal_returns(tasks)
        np.testing.assert_allclose(own, values, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES, ids=range(len(FAMILIES)))
def test_policy_returns_are_those_of_the_dense_solver(family):
    tasks = some_tasks(family, 3)
    rng = np.random.default_rng(0)
    policies = rng.dirichlet(np.ones(4), size=(3, family.n_states))
    own = family.discounted_policy_returns(tasks, policies)
    shared = family.discounted_policy_returns(tasks, policies[1])
    assert own[1] == pytest.approx(shared[1], abs=1e-12)
    for task, policy, value in zip(tasks, policies, own, strict=True):
        values = policy_values(family.finite_mdp(task), policy)
        assert value == pytest.approx(values.ravel()[0], abs=1e-10)


def test_the_shortest_path_of_the_published_setting_is_worth_its_closed_form():
    # Six moves, the last of which is paid 0.8^5, and then 1 for ever.
    family = FrozenLakeHolesFamily(preset="bomrl2024")
    value = family.discounted_optimal_return(HolesTask((0,) * 16))
    assert value == pytest.approx(0.8**5 / (1 - 0.8), abs=1e-12)
    # Within 49 steps, 1 from the sixth one on.
    assert family.optimal_return(HolesTask((0,) * 16)) == 49 - 6 + 1
    assert (family.absorbing, family.hole_reward, family.horizon) == (True, -1.0, 49)


@pytest.mark.parametrize("family", FAMILIES, ids=range(len(FAMILIES)))
def test_returns_without_discounted_in_their_name_do_not_depend_on_the_discount(family):
    tasks = some_tasks(family, 3)
    policy = np.random.default_rng(0).dirichlet(np.ones(4), size=family.n_states)
    mdps = family.finite_mdps(tasks)
    undiscounted = FiniteMDP(mdps.transitions, mdps.rewards, mdps.initial, horizon=family.horizon)
    for own, expected in (
        (family.optimal_returns(tasks), optimal_values(undiscounted)),
        (family.stationary_policy_returns(tasks, policy), policy_values(undiscounted, policy)),
    ):
        np.testing.assert_allclose(own, expected[:, 0, 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["Holes", "Reward"])
def test_no_play_of_the_published_setting_beats_its_optimum(name):
    env = gym.make(f"metarl/FrozenLake{name}-v0", preset="bomrl2024")
    check_task_env(env)


def test_a_path_without_costs_makes_every_optimal_return_1():
    family = FrozenLakeRewardFamily()
    np.testing.assert_array_equal(family.optimal_returns(some_tasks(family, 50)), 1.0)


def test_more_slippery_ice_is_worth_less():
    # On Gymnasium's 4x4 map slipping never helps.
    values = FrozenLakeSlipFamily().optimal_returns(
        [SlipTask(slip) for slip in np.linspace(0.0, 2 / 3, 9).tolist()]
    )
    assert values[0] == 1.0
    assert np.all(np.diff(values) < 0)


@pytest.mark.parametrize(
    "family",
    [
        FrozenLakeSlipFamily(hole_reward=-0.5),
        FrozenLakeHolesFamily(size=5, p=0.6, is_slippery=True, horizon=20),
        FrozenLakeRewardFamily(is_slippery=True, success_rate=0.6, penalty=0.3),
        FrozenLakeGoalFamily(is_slippery=True, hole_reward=-1.0, absorbing=True, horizon=30),
    ],
)
def test_the_optimal_policy_earns_the_optimal_return(family):
    task, n = some_tasks(family, 1)[0], 4000
    mdp = family.finite_mdp(task)
    policy = action_values(mdp, optimal_values(mdp)).argmax(axis=-1)
    returns = simulate(family, task, lambda stage, states, rng: policy[stage][states], n)
    error = returns.std(ddof=1) / np.sqrt(n)
    assert error > 0
    assert abs(returns.mean() - family.optimal_return(task)) <= 4 * error


def test_the_uniform_policy_earns_its_value():
    family, n = FrozenLakeSlipFamily(hole_reward=-1.0), 4000
    task = some_tasks(family, 1)[0]
    value = family.stationary_policy_returns([task], np.full((16, 4), 0.25))[0]
    returns = simulate(family, task, lambda stage, states, rng: rng.integers(4, size=n), n)
    assert abs(returns.mean() - value) <= 4 * returns.std(ddof=1) / np.sqrt(n)


def simulate(family, task, act, n):
    """Returns of n episodes of one task, (n,)."""
    rng = np.random.default_rng(11)
    params = family.compile(np.repeat(task.to_array()[None], n, axis=0))
    states = family.initial(params, np.empty((n, 0)))
    returns, running = np.zeros(n), np.ones(n, dtype=bool)
    for stage in range(family.horizon):
        uniforms = rng.random((n, family.n_step_uniforms))
        actions = act(stage, states, rng)
        states, rewards, ended = family.step(params, states, np.full(n, stage), actions, uniforms)
        returns += running * rewards
        running &= ~ended
    return returns


def test_tasks_that_differ_in_little_share_their_successors():
    for family in (FrozenLakeSlipFamily(), FrozenLakeRewardFamily(is_slippery=True)):
        mdps = family.sparse_mdps(some_tasks(family, 20))
        assert mdps.batch_shape == (20,)
        assert mdps.next_states.strides[0] == 0


def test_no_tasks_have_no_returns():
    for family in (FrozenLakeHolesFamily(), FrozenLakeSlipFamily(discount=0.9)):
        uniform = np.full((16, 4), 0.25)
        assert family.optimal_returns([]).shape == (0,)
        assert family.discounted_optimal_returns([]).shape == (0,)
        assert family.stationary_policy_returns([], uniform).shape == (0,)
        assert family.discounted_policy_returns([], uniform).shape == (0,)
