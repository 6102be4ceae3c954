import numpy as np
import pytest
from scipy.stats import kstest

from metarl_envs.tabular.random_mdp import RandomMDPTask, RandomMDPTasks


def drawn(distribution, uniforms):
    return distribution.arrays_from_uniforms(lambda rows: uniforms[rows], len(uniforms))


def test_batches_and_single_draws_agree_bit_for_bit():
    distribution = RandomMDPTasks(10, 5)
    uniforms = np.random.default_rng(0).random((64, distribution.n_uniforms))
    together = drawn(distribution, uniforms)
    for size in (1, 3, 17):
        for start in range(0, 60, size):
            part = drawn(distribution, uniforms[start : start + size])
            np.testing.assert_array_equal(part, together[start : start + size])


def test_sample_is_the_draw_of_one():
    distribution = RandomMDPTasks(4, 3)
    sampled = distribution.sample(np.random.default_rng(5))
    uniforms = np.random.default_rng(5).random((1, distribution.n_uniforms))
    np.testing.assert_array_equal(sampled.to_array(), drawn(distribution, uniforms)[0])


def test_rows_are_uniform_on_the_simplex_and_means_normal():
    distribution = RandomMDPTasks(4, 2)
    uniforms = np.random.default_rng(0).random((2_000, distribution.n_uniforms))
    transitions, means = distribution.split(drawn(distribution, uniforms))
    np.testing.assert_allclose(transitions.sum(-1), 1.0, atol=1e-14)
    # Each coordinate of Dirichlet(1, 1, 1, 1) is Beta(1, 3).
    for next_state in range(4):
        sample = transitions[:, 1, 1, next_state]
        assert kstest(sample, lambda x: 1 - (1 - x) ** 3).pvalue > 1e-3
    # Its squared length has the mean 2 / 5.
    squares = (transitions**2).sum(-1).ravel()
    assert abs(squares.mean() - 2 / 5) < 4 * squares.std() / np.sqrt(len(squares))
    assert kstest(means.ravel() - 1.0, "norm").pvalue > 1e-3


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-53])
def test_extreme_uniform_numbers_make_tasks(uniform):
    for n_states in (1, 3):
        distribution = RandomMDPTasks(n_states, 2)
        array = drawn(distribution, np.full((1, distribution.n_uniforms), uniform))[0]
        assert distribution.from_array(array) == distribution.from_row(array)


def test_tasks_have_the_shapes_of_the_mdp_and_come_back():
    distribution = RandomMDPTasks(3, 2)
    task = distribution.sample(np.random.default_rng(0))
    assert np.shape(task.transitions) == (3, 2, 3) and np.shape(task.mean_rewards) == (3, 2)
    array = task.to_array()
    transitions, means = distribution.split(array)
    np.testing.assert_array_equal(transitions, task.transitions)
    np.testing.assert_array_equal(means, task.mean_rewards)
    assert distribution.from_array(array) == task
    assert isinstance(task, RandomMDPTask) and hash(task) == hash(distribution.from_array(array))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda array: array[:-1], "shape"),
        (lambda array: np.where(np.arange(array.size) == 0, array + 1e-8, array), "sum to"),
        (lambda array: np.where(np.arange(array.size) == 0, -0.1, array), "outside the task space"),
        (lambda array: np.full_like(array, np.nan), "not finite"),
        (lambda array: np.zeros_like(array), "sum to"),
    ],
)
def test_arrays_outside_the_family_are_refused(change, message):
    distribution = RandomMDPTasks(3, 2)
    array = distribution.sample(np.random.default_rng(0)).to_array()
    with pytest.raises(ValueError, match=message):
        distribution.from_array(change(array))
