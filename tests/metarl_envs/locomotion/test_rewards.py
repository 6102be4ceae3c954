"""Rewards in closed form, and in the order in which Gymnasium adds them up."""

import numpy as np
import pytest

from metarl_envs.locomotion.rewards import (
    contact_cost,
    control_cost,
    direction_reward,
    goal_reward,
    speed_reward,
)

rng = np.random.default_rng(0)


@pytest.mark.parametrize("n_actuators", [2, 6, 8, 17])
def test_the_control_cost_is_gymnasiums_of_each_row(n_actuators):
    actions = rng.uniform(-1, 1, (50, n_actuators)).astype(np.float32)
    costs = control_cost(actions, 0.05)
    assert costs.dtype == np.float32  # as Gymnasium's, whose actions are float32, too
    assert np.array_equal(costs, [0.05 * np.sum(np.square(action)) for action in actions])
    assert np.array_equal(costs[7:8], control_cost(actions[7:8], 0.05))


def test_the_control_cost_does_not_depend_on_the_order_of_memory():
    actions = rng.uniform(-1, 1, (50, 17)).astype(np.float32)
    wide = np.zeros((100, 34), np.float32)
    wide[::2, ::2] = actions
    for same in (np.asfortranarray(actions), wide[::2, ::2], actions[::-1][::-1]):
        assert np.array_equal(control_cost(same, 0.5), control_cost(actions, 0.5))


def test_the_control_cost_of_known_actions():
    costs = control_cost(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32), 0.5)
    assert costs.tolist() == [12.5, 0.0]


def test_the_contact_cost_is_gymnasiums_of_each_row():
    forces = 3 * rng.standard_normal((20, 14, 6))
    costs = contact_cost(forces, 5e-4, 1.0)
    assert np.array_equal(
        costs, [5e-4 * np.sum(np.square(np.clip(force, -1, 1))) for force in forces]
    )
    assert contact_cost(np.full((1, 2, 6), 5.0), 0.5, 1.0).tolist() == [6.0]


def test_a_speed_is_rewarded_by_its_distance_to_the_target():
    velocity, target = np.array([1.0, -1.0, 2.5]), np.array([1.0, 2.0, 2.0])
    assert speed_reward(velocity, target).tolist() == [0.0, -3.0, -0.5]


def test_a_direction_is_rewarded_by_the_velocity_along_it():
    velocity = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])
    direction = np.array([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    assert direction_reward(velocity, direction)[:2].tolist() == [1.0, -1.0]
    # Three roundings of numbers below 8.
    assert abs(direction_reward(velocity, direction)[2] - 5.0) < 1e-14


def test_a_goal_is_rewarded_by_the_sum_of_the_distances_along_the_axes():
    position, goal = np.array([[0.0, 0.0], [1.0, -1.0]]), np.array([[2.0, -1.0], [1.0, -1.0]])
    assert goal_reward(position, goal).tolist() == [-3.0, 0.0]
