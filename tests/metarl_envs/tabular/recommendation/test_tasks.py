import numpy as np
import pytest

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular.recommendation import RecommendationFamily, RecommendationTask
from metarl_envs.tabular.recommendation.tasks import gateway_means


def arrays(n=4_000, **arguments):
    family = RecommendationFamily(n_products=3, n_recommendations=2, **arguments)
    tasks = sample_tasks(family.task_distribution, n, seed=0)
    return family, np.stack([task.to_array() for task in tasks])


def test_task_and_array_are_inverse():
    task = RecommendationTask((0.5, -1.0), ((0.0, 1.0), (2.0, 3.0)))
    np.testing.assert_array_equal(task.to_array(), [0.5, -1, 0, 1, 2, 3])
    assert RecommendationTask.from_array(task.to_array()) == task


@pytest.mark.parametrize("noise", ["gaussian", "student_t"])
def test_segments_have_the_mean_of_the_population_and_the_deviations_asked_for(noise):
    family, x = arrays(bias_std=0.3, affinity_std=0.6, task_noise=noise, degrees_of_freedom=5.0)
    # Student-t with five degrees of freedom: kurtosis 9, so variances are known to 4.5 % here.
    np.testing.assert_allclose(x.mean(0), family.task_distribution.mean, atol=0.05)
    np.testing.assert_allclose(x.std(0), np.repeat([0.3, 0.6], [3, 9]), rtol=0.1)


def test_student_t_has_heavier_tails():
    excess = []
    for noise in ("gaussian", "student_t"):
        x = arrays(task_noise=noise)[1]
        z = (x - x.mean(0)) / x.std(0)
        excess.append(np.mean(z**4) - 3)
    assert abs(excess[0]) < 0.3 and excess[1] > 2


def test_clusters_lie_around_their_centres():
    family, x = arrays(task_noise="clusters", bias_std=0.01, affinity_std=0.01, n_clusters=3)
    centres = family.task_distribution.mean + family.population.cluster_offsets
    nearest = np.linalg.norm(x[:, None] - centres, axis=-1)
    assert nearest.min(1).max() < 0.1
    counts = np.bincount(nearest.argmin(1), minlength=3)
    # Four standard deviations of a binomial count with probability 1/3.
    assert np.all(np.abs(counts - 4_000 / 3) < 4 * np.sqrt(4_000 * 2 / 9))


def test_spread_of_zero_leaves_segments_nothing_to_share():
    family = RecommendationFamily(affinity_spread=0.0)
    assert not family.task_distribution.mean.any()


def test_gateway_opens_the_door_to_four_products():
    bias, affinity = gateway_means(6)
    np.testing.assert_array_equal(bias, [-0.4, -2, -2, -2, -2, 0.2])
    np.testing.assert_array_equal(affinity.nonzero()[0], [1, 2, 3, 4])
    assert set(affinity[1:5, 0]) == {4.0}
