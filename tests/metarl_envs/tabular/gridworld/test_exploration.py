from functools import cache
from itertools import pairwise
from time import perf_counter

import numpy as np
import pytest

from metarl_envs.tabular.gridworld import GridGoalFamily
from metarl_envs.tabular.gridworld.exploration import GoalSearch
from metarl_envs.tabular.gridworld.grid import Grid


def exhaustive_total(family, goals, start, n_episodes):
    """The best expected return of a trial, by looking at every walk."""
    horizon, grid = family.horizon, family.grid
    distances = np.maximum(grid.distances(start), 1)

    def known_return(n_paid):
        return n_paid * family.goal_reward + (horizon - n_paid) * family.step_reward

    @cache
    def best(episode, step, cell, unknown):
        """Summed over the goals that are still unknown, from here to the end of the trial."""
        if episode == n_episodes or not unknown:
            return 0.0
        if step == horizon:
            return best(episode + 1, 0, start, unknown)
        options = []
        for following in set(grid.neighbours[cell].tolist()):
            met, rest = unknown & {following}, unknown - {following}
            value = len(rest) * family.step_reward + best(episode, step + 1, following, rest)
            if met:
                later = known_return(max(0, horizon - distances[following] + 1))
                value += (horizon - step) * family.goal_reward
                value += (n_episodes - episode - 1) * later
            options.append(value)
        return max(options)

    return best(0, 0, start, frozenset(goals)) / len(goals)


@pytest.mark.parametrize(
    ("size", "horizon", "n_episodes"), [(3, 1, 2), (3, 3, 1), (3, 3, 3), (3, 5, 2), (4, 5, 2)]
)
def test_the_search_finds_the_best_walk_of_all(size, horizon, n_episodes):
    family = GridGoalFamily(size=size, horizon=horizon, step_reward=-0.3)
    goals = family.grid.cells(family.goals).tolist()
    total = family.best_adaptive_returns(n_episodes).sum()
    expected = exhaustive_total(family, goals, 0, n_episodes)
    assert total == pytest.approx(expected, abs=1e-10)


def test_a_goal_on_the_start_is_met_by_staying():
    family = GridGoalFamily(size=3, horizon=3, step_reward=0.0)
    goals, start = [4, 3, 8], 4
    plan = GoalSearch(family.grid, start, goals, 3, 2).plan(1.0, 0.0, 10_000)
    expected = exhaustive_total(family, goals, start, 2)
    assert sum(plan.returns) == pytest.approx(expected, abs=1e-12)


def test_walks_are_walks():
    family = GridGoalFamily()
    plan = family.best_adaptive_plan(3)
    met = {cell for walk in plan.walks for cell in walk}
    assert met >= set(family.grid.cells(family.goals).tolist())
    for walk in plan.walks:
        assert walk[0] == 0 and len(walk) <= 16
        for cell, following in pairwise(walk):
            assert following in family.grid.neighbours[cell]


def test_a_search_that_is_too_long_says_so():
    family = GridGoalFamily()
    for method in (family.best_adaptive_plan, family.best_adaptive_returns):
        with pytest.raises(ValueError, match="max_nodes=10 nodes: give more of them"):
            method(4, max_nodes=10)
        for wrong in (None, 0, "many"):
            with pytest.raises(ValueError, match=f"max_nodes={wrong!r}"):
                method(1, max_nodes=wrong)
    with pytest.raises(ValueError, match="n_episodes"):
        GridGoalFamily().best_adaptive_returns(0)


def test_a_search_without_hope_is_given_up_soon():
    start = perf_counter()
    with pytest.raises(ValueError, match="max_nodes=10000"):
        GridGoalFamily(size=10, horizon=40).best_adaptive_returns(2)
    # About one second; the rest is for slow machines.
    assert perf_counter() - start < 10


def test_distances_and_neighbours_of_a_grid():
    grid = Grid(3)
    assert grid.distances(0).tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4]
    assert grid.distances(np.array([4, 8])).tolist() == [
        [2, 1, 2, 1, 0, 1, 2, 1, 2],
        [4, 3, 2, 3, 2, 1, 2, 1, 0],
    ]
    assert grid.neighbours[0].tolist() == [0, 1, 3, 0, 0]
    assert grid.neighbours[4].tolist() == [4, 5, 7, 3, 1]
