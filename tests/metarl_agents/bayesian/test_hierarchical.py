import pytest
import torch as th

from metarl_agents.bayesian.hierarchical import (
    expectation_maximisation,
    gate,
    gls_information,
    gls_mean,
    isotropic_variance,
    marginal_log_likelihood,
)

SIGMA2 = th.tensor([0.5], dtype=th.float64)


def gaussian_tasks(seed, n_tasks, size=3, n_rows=10, sigma2=0.5, rank=None):
    """Tasks from one known prior: its mean and covariance, Gram matrices and X'y (K, 1, 1, ...)."""
    rng = th.Generator().manual_seed(seed)

    def normal(*shape):
        return th.randn(*shape, generator=rng, dtype=th.float64)

    mean, root = normal(size), 0.5 * th.eye(size, dtype=th.float64) + 0.2 * normal(size, size)
    theta = mean + normal(n_tasks, size) @ root.T
    design = normal(n_tasks, n_rows, size)
    if rank is not None:
        design[..., rank:] = 0
    y = (design @ theta.unsqueeze(-1)).squeeze(-1) + sigma2**0.5 * normal(n_tasks, n_rows)
    gram = (design.mT @ design)[:, None, None]
    moment = (design.mT @ y.unsqueeze(-1)).squeeze(-1)[:, None, None]
    return mean, root @ root.T, gram, moment, design, y


def test_gls_information_is_the_inverse_marginal_covariance():
    _, covariance, gram, moment, _, _ = gaussian_tasks(0, 4)
    information, evidence = gls_information(gram, moment, covariance[None, None], SIGMA2)
    marginal = covariance + SIGMA2 * th.linalg.inv(gram)
    th.testing.assert_close(information, th.linalg.inv(marginal), rtol=1e-9, atol=1e-9)
    least_squares = th.linalg.solve(gram, moment.unsqueeze(-1))
    th.testing.assert_close(evidence, (information @ least_squares).squeeze(-1))


def test_gls_information_of_a_singular_gram_is_the_dual_form():
    # W = X'(sigma2 I + X Sigma X')^-1 X is finite whatever the rank of X.
    _, covariance, gram, moment, design, y = gaussian_tasks(1, 4, rank=1)
    information, evidence = gls_information(gram, moment, covariance[None, None], SIGMA2)
    for j in range(4):
        x = design[j]
        kernel = SIGMA2 * th.eye(len(x), dtype=th.float64) + x @ covariance @ x.T
        weights = x.T @ th.linalg.inv(kernel)
        th.testing.assert_close(information[j, 0, 0], weights @ x, rtol=1e-9, atol=1e-9)
        th.testing.assert_close(evidence[j, 0, 0], weights @ y[j], rtol=1e-9, atol=1e-9)


def test_gls_mean_is_the_posterior_mean_of_the_hierarchical_model():
    _, covariance, gram, moment, design, y = gaussian_tasks(2, 5)
    information, evidence = gls_information(gram, moment, covariance[None, None], SIGMA2)
    mean, uncertainty = gls_mean(information.sum(0), evidence.sum(0), hyper_precision=0.7)
    x, targets = design.flatten(0, 1), y.flatten()
    noise = th.block_diag(
        *[d @ covariance @ d.T + SIGMA2 * th.eye(len(d), dtype=th.float64) for d in design]
    )
    precision = 0.7 * th.eye(3, dtype=th.float64) + x.T @ th.linalg.solve(noise, x)
    th.testing.assert_close(uncertainty[0, 0], th.linalg.inv(precision), rtol=1e-8, atol=1e-10)
    expected = th.linalg.solve(precision, x.T @ th.linalg.solve(noise, targets))
    th.testing.assert_close(mean[0, 0], expected, rtol=1e-8, atol=1e-10)


def test_marginal_likelihood_equals_the_gaussian_density_up_to_a_constant():
    mean, covariance, gram, moment, design, y = gaussian_tasks(3, 4)

    def density(centre, spread):
        total = 0.0
        for x, targets in zip(design, y, strict=True):
            kernel = x @ spread @ x.T + SIGMA2 * th.eye(len(x), dtype=th.float64)
            law = th.distributions.MultivariateNormal(x @ centre, kernel)
            total = total + law.log_prob(targets)
        return total

    def ours(centre, spread):
        return marginal_log_likelihood(
            gram, moment, centre[None, None], spread[None, None], SIGMA2
        ).squeeze()

    other = (mean + 0.3, covariance + 0.2 * th.eye(3, dtype=th.float64))
    difference = density(mean, covariance) - density(*other)
    th.testing.assert_close(ours(mean, covariance) - ours(*other), difference)


@pytest.mark.parametrize("rank", [None, 2])
def test_every_iteration_of_em_raises_the_marginal_likelihood(rank):
    _, _, gram, moment, _, _ = gaussian_tasks(4, 12, rank=rank)
    covariance = th.eye(3, dtype=th.float64)[None, None]
    likelihoods = []
    for n_iterations in range(1, 12):
        fit = expectation_maximisation(
            gram, moment, covariance, SIGMA2, n_iterations=n_iterations, hyper_precision=1e-12
        )
        likelihoods.append(
            marginal_log_likelihood(gram, moment, fit.mean, fit.estimate.covariance, SIGMA2).item()
        )
    rises = th.tensor(likelihoods).diff()
    assert (rises >= -1e-9).all()
    assert rises[0] > 1e-4


def test_em_recovers_the_prior_of_many_tasks():
    mean, covariance, gram, moment, _, _ = gaussian_tasks(5, 3000)
    start = th.eye(3, dtype=th.float64)[None, None]
    fit = expectation_maximisation(gram, moment, start, SIGMA2, n_iterations=60)
    # Sampling error of a covariance from 3,000 tasks is about sqrt(d / K) = 3 %; noise adds to it.
    error = (fit.estimate.covariance[0, 0] - covariance).norm() / covariance.norm()
    assert error < 0.1
    assert (fit.mean[0, 0] - mean).abs().max() < 4 * (covariance.diagonal().max() / 3000) ** 0.5 * 2


def test_em_mean_is_the_gls_mean_under_the_final_covariance():
    _, _, gram, moment, _, _ = gaussian_tasks(6, 8)
    start = th.eye(3, dtype=th.float64)[None, None]
    fit = expectation_maximisation(gram, moment, start, SIGMA2, hyper_precision=0.3)
    information, evidence = gls_information(gram, moment, fit.estimate.covariance, SIGMA2)
    expected, _ = gls_mean(information.sum(0), evidence.sum(0), 0.3)
    th.testing.assert_close(fit.mean, expected)


def test_isotropic_variance_finds_the_scale_through_unseen_directions():
    rng = th.Generator().manual_seed(7)
    n_tasks, size, variance = 2000, 4, 0.09
    theta = variance**0.5 * th.randn(n_tasks, size, generator=rng, dtype=th.float64)
    design = th.randn(n_tasks, 8, size, generator=rng, dtype=th.float64)
    design[..., 2:] = 0
    noise = 0.5**0.5 * th.randn(n_tasks, 8, generator=rng, dtype=th.float64)
    y = (design @ theta.unsqueeze(-1)).squeeze(-1) + noise
    gram = (design.mT @ design)[:, None, None]
    moment = (design.mT @ y.unsqueeze(-1)).squeeze(-1)[:, None, None]
    found = isotropic_variance(gram, moment, 1.0, SIGMA2, n_iterations=60, hyper_precision=1e-6)
    # 4,000 seen directions, each with reliability of about a half: 4 % standard error.
    assert abs(found.item() / variance - 1) < 0.16


def test_isotropic_variance_without_data_stays_where_it_started():
    gram = th.zeros(3, 1, 1, 2, 2, dtype=th.float64)
    moment = th.zeros(3, 1, 1, 2, dtype=th.float64)
    found = isotropic_variance(gram, moment, 0.4, SIGMA2, hyper_precision=1.0)
    assert found.item() == 0.4


def test_gate_ignores_directions_that_no_task_can_see():
    seen = th.diag(th.tensor([4.0, 2.0, 0.0], dtype=th.float64))
    poor = th.diag(th.tensor([4.0, 0.5, 0.0], dtype=th.float64))
    grams = th.stack([seen, poor])[:, None, None]
    assert gate(grams, 1.0).flatten().tolist() == [True, False]


def test_gate_is_shut_without_data():
    assert not gate(th.zeros(2, 1, 1, 3, 3, dtype=th.float64), 1.0).any()


def test_a_batch_of_replicates_equals_single_replicates():
    fits = []
    for seed in (8, 9):
        _, _, gram, moment, _, _ = gaussian_tasks(seed, 6)
        fits.append((gram, moment))
    gram, moment = (th.stack(field) for field in zip(*fits, strict=True))
    start = th.eye(3, dtype=th.float64).expand(2, 1, 1, 3, 3)
    both = expectation_maximisation(gram, moment, start, SIGMA2)
    for i in range(2):
        one = expectation_maximisation(gram[i], moment[i], start[i], SIGMA2)
        th.testing.assert_close(both.mean[i], one.mean, rtol=1e-12, atol=1e-12)
        th.testing.assert_close(
            both.estimate.covariance[i], one.estimate.covariance, rtol=1e-12, atol=1e-12
        )
