import pickle

import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular.gridworld import DarkKeyToDoorTask, GridGoalFamily
from metarl_envs.tabular.gridworld.placement import PlacementTasks

CORNER = np.array([[0, 0], [0, 1]])
REST = np.array([[1, 0], [1, 1], [2, 5]])
TASKS = PlacementTasks(DarkKeyToDoorTask.from_array, [CORNER, REST])


def test_every_combination_is_equally_likely():
    uniforms = np.random.default_rng(0).random((6000, 2))
    arrays = TASKS.arrays_from_uniforms(lambda rows: uniforms[rows], 6000)
    met, counts = np.unique(arrays, axis=0, return_counts=True)
    assert len(met) == TASKS.n_tasks == 6
    # Four standard errors of a count with mean 1000.
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(6000 * 1 / 6 * 5 / 6)


def test_one_at_a_time_and_batches_draw_the_same():
    one, many = np.random.default_rng(3), np.random.default_rng(3)
    arrays = TASKS.arrays_from_uniforms(lambda rows: many.random((len(rows), 2)), 50)
    np.testing.assert_array_equal([TASKS.sample(one).to_array() for _ in range(50)], arrays)


def test_arrays_of_no_task_are_refused():
    task = TASKS.from_array(np.array([0.0, 1.0, 2.0, 5.0]))
    assert task == DarkKeyToDoorTask((0, 1), (2, 5))
    for bad in ([0, 1, 2, 4], [0, 0.5, 1, 0], [0, 1, np.nan, 0], [0, 1, 1], [1, 0, 1, 0]):
        with pytest.raises(ValueError, match="task"):
            TASKS.from_array(np.array(bad, dtype=float))


def test_the_distribution_survives_pickle():
    distribution = GridGoalFamily().task_distribution
    again = pickle.loads(pickle.dumps(distribution))
    assert sample_tasks(again, 20, seed=4) == sample_tasks(distribution, 20, seed=4)
