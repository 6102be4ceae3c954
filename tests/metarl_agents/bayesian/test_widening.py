from itertools import pairwise

import numpy as np
import pytest
import torch as th

from metarl_agents.bayesian.hierarchical import (
    CovarianceEstimate,
    expectation_maximisation,
)
from metarl_agents.bayesian.least_squares import ols_covariance
from metarl_agents.bayesian.widening import bootstrap_width, project_psd, schedule_width


def normal(seed, *shape):
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def estimate_of(covariance, n_tasks, noise=None):
    """What n_tasks tasks with equal contributions say, for one stage and block."""
    blocks = covariance[None, None]
    return CovarianceEstimate(
        covariance=blocks,
        contributions=blocks.expand(n_tasks, 1, 1, *covariance.shape),
        weights=th.ones(n_tasks, 1, 1, dtype=th.float64),
        noise=th.zeros_like(blocks) if noise is None else noise[None, None],
    )


def sampled_estimate(seed, n_tasks, lead=()):
    """The covariance of Gaussian estimates without noise, two stages of one block."""
    estimates = normal(seed, *lead, n_tasks, 2, 1, 3)
    noise = th.zeros(*lead, n_tasks, 2, 1, 3, 3, dtype=th.float64)
    return ols_covariance(estimates, noise, th.ones(*lead, n_tasks, 2, 1, dtype=th.bool))


def resamples(seed, n_resamples, n_tasks):
    counts = np.random.default_rng(seed).multinomial(
        n_tasks, np.full(n_tasks, 1 / n_tasks), size=n_resamples
    )
    return th.as_tensor(counts, dtype=th.float64)


def test_projection_clips_negative_eigenvalues_and_keeps_the_others():
    vectors = th.linalg.qr(normal(0, 3, 3)).Q
    matrix = vectors @ th.diag(th.tensor([2.0, 0.5, -0.3], dtype=th.float64)) @ vectors.T
    expected = vectors @ th.diag(th.tensor([2.0, 0.5, 0.0], dtype=th.float64)) @ vectors.T
    th.testing.assert_close(project_psd(matrix), expected)
    raised = th.linalg.eigvalsh(project_psd(matrix, floor=0.7))
    th.testing.assert_close(raised, th.tensor([0.7, 0.7, 2.0], dtype=th.float64))


def test_projection_is_positive_semi_definite_symmetric_and_idempotent():
    matrices = normal(1, 50, 4, 4)
    projected = project_psd(matrices)
    assert (th.linalg.eigvalsh(projected) > -1e-12).all()
    th.testing.assert_close(projected, projected.mT, rtol=0, atol=1e-12)
    th.testing.assert_close(project_psd(projected), projected, rtol=0, atol=1e-12)


def test_projection_leaves_positive_semi_definite_matrices_alone():
    root = normal(2, 6, 4, 2)
    singular = root @ root.mT
    th.testing.assert_close(project_psd(singular), singular, rtol=0, atol=1e-12)


def test_schedule_is_scale_times_norm_times_rate():
    covariance = th.diag(th.tensor([4.0, 2.0, 2.0], dtype=th.float64))
    # The effective rank is tr / norm = 2; with 8 tasks the rate is sqrt(1/4) + 1/4.
    width = schedule_width(estimate_of(covariance, 8), 0.1)
    th.testing.assert_close(width, th.full((1, 1), 0.1 * 4.0 * 0.75, dtype=th.float64))


@pytest.mark.parametrize("n_tasks", [10, 100, 10_000])
def test_schedule_shrinks_as_one_over_the_root_of_the_number_of_tasks(n_tasks):
    root = normal(3, 4, 4)
    few, many = (
        float(schedule_width(estimate_of(root @ root.T, k), 0.05)) for k in (n_tasks, 4 * n_tasks)
    )
    # With q = sqrt(r / k) the ratio is (q + q^2) / (q / 2 + q^2 / 4): 2 plus a term of order q.
    rank = float(root.square().sum() / th.linalg.matrix_norm(root, ord=2) ** 2)
    assert 2 <= few / many <= 2 + 2 * (rank / n_tasks) ** 0.5
    if n_tasks == 10_000:
        assert few / many == pytest.approx(2, abs=0.03)


def test_schedule_of_scale_zero_is_zero():
    assert (schedule_width(sampled_estimate(4, 10), 0.0) == 0).all()


def test_schedule_without_data_is_zero():
    nothing = estimate_of(th.zeros(3, 3, dtype=th.float64), 5)
    nothing = nothing._replace(weights=th.zeros_like(nothing.weights))
    assert schedule_width(nothing, 1.0) == 0


def test_schedule_counts_the_tasks_that_passed_the_gate():
    estimate = estimate_of(th.eye(3, dtype=th.float64), 8)
    weights = estimate.weights.clone()
    weights[2:] = 0
    expected = schedule_width(estimate_of(th.eye(3, dtype=th.float64), 2), 0.3)
    assert th.equal(schedule_width(estimate._replace(weights=weights), 0.3), expected)


def test_noise_widens_the_schedule_and_negative_eigenvalues_do_not_narrow_it():
    covariance = th.diag(th.tensor([1.0, 0.5], dtype=th.float64))
    indefinite = th.diag(th.tensor([1.0, -3.0], dtype=th.float64))
    projected = th.diag(th.tensor([1.0, 0.0], dtype=th.float64))
    plain = schedule_width(estimate_of(covariance, 9), 1.0)
    noisy = schedule_width(estimate_of(covariance, 9, noise=0.2 * th.eye(2).double()), 1.0)
    assert noisy > plain
    th.testing.assert_close(
        schedule_width(estimate_of(indefinite, 9), 1.0),
        schedule_width(estimate_of(projected, 9), 1.0),
    )


def test_bootstrap_is_a_quantile_of_distances_to_resampled_covariances():
    estimate, counts = sampled_estimate(5, 7), resamples(6, 40, 7)
    found = bootstrap_width(estimate, counts, quantile=0.75)
    for stage in range(2):
        norms = []
        for row in counts:
            own = estimate.contributions[:, stage, 0]
            resampled = (row[:, None, None] * own).sum(0) / row.sum()
            difference = (resampled - estimate.covariance[stage, 0]).numpy()
            norms.append(np.linalg.norm(difference, ord=2))
        assert float(found[stage, 0]) == pytest.approx(np.quantile(norms, 0.75))


def test_bootstrap_is_positive_and_shrinks_with_the_number_of_tasks():
    widths = [
        bootstrap_width(sampled_estimate(7, k), resamples(8, 200, k)) for k in (10, 40, 160, 640)
    ]
    assert all((width > 0).all() for width in widths)
    for few, many in pairwise(widths):
        assert (many < few).all()
    # From 10 to 640 tasks the width falls by 8; the bootstrap of 10 tasks is rough.
    assert (widths[0] / widths[-1] > 4).all() and (widths[0] / widths[-1] < 16).all()


def test_bootstrap_is_the_same_for_the_same_resamples():
    estimate, counts = sampled_estimate(9, 12), resamples(10, 50, 12)
    assert th.equal(bootstrap_width(estimate, counts), bootstrap_width(estimate, counts.clone()))


def test_bootstrap_that_draws_every_task_once_is_zero():
    estimate = sampled_estimate(11, 12)
    width = bootstrap_width(estimate, th.ones(20, 12, dtype=th.float64))
    th.testing.assert_close(width, th.zeros(2, 1, dtype=th.float64), rtol=0, atol=1e-12)


def test_bootstrap_of_replicates_equals_single_replicates():
    both, counts = sampled_estimate(12, 9, lead=(3,)), resamples(13, 30, 9)
    widths = bootstrap_width(both, counts)
    assert widths.shape == (3, 2, 1)
    for i in range(3):
        one = CovarianceEstimate(*(field[i] for field in both))
        th.testing.assert_close(widths[i], bootstrap_width(one, counts))


def test_bootstrap_of_a_shrunk_covariance_measures_the_tasks_not_the_shrinkage():
    rng = th.Generator().manual_seed(0)
    root = th.randn(6, 1, 1, 5, 3, generator=rng, dtype=th.float64)
    moments = th.randn(6, 1, 1, 3, generator=rng, dtype=th.float64)
    start = th.eye(3, dtype=th.float64)[None, None]
    fit = expectation_maximisation(
        root.mT @ root, moments, start, th.ones(1, dtype=th.float64), shrinkage=5.0
    )
    every_task_once = th.ones(10, 6, dtype=th.float64)
    assert bootstrap_width(fit.estimate, every_task_once).max() < 1e-12
