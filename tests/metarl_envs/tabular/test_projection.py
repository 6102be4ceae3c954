import numpy as np

from metarl_envs.tabular.projection import misspecified, prior_moments, project_actions, projector

RNG = np.random.default_rng(0)


def test_projector_solves_ridge_regression():
    features, values = RNG.standard_normal((9, 3)), RNG.standard_normal(9)
    stacked = np.vstack([features, np.sqrt(0.5) * np.eye(3)])
    expected = np.linalg.lstsq(stacked, np.concatenate([values, np.zeros(3)]), rcond=None)[0]
    np.testing.assert_allclose(projector(features, 0.5) @ values, expected, atol=1e-12)


def test_linear_values_are_projected_without_residual():
    features, parameters = RNG.standard_normal((9, 3)), RNG.standard_normal((2, 4, 3))
    values = np.einsum("rm,kam->kra", features, parameters)
    allowed = RNG.random((9, 4)) < 0.8
    coefficients, residuals = project_actions(values, features, allowed, 0.0)
    np.testing.assert_allclose(coefficients, parameters, atol=1e-10)
    np.testing.assert_allclose(residuals, 0.0, atol=1e-20)


def test_values_of_forbidden_actions_do_not_count():
    features, values = RNG.standard_normal((9, 3)), RNG.standard_normal((2, 9, 4))
    allowed = RNG.random((9, 4)) < 0.7
    first = project_actions(values, features, allowed, 0.1)
    second = project_actions(np.where(allowed, values, 1e6), features, allowed, 0.1)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


def test_moments_are_those_of_numpy():
    parameters = RNG.standard_normal((30, 2, 4))
    mean, covariance = prior_moments(parameters, np.array([0.0, 0.5]))
    np.testing.assert_allclose(mean, parameters.mean(0))
    np.testing.assert_allclose(covariance[0], np.cov(parameters[:, 0].T), atol=1e-12)
    np.testing.assert_allclose(
        covariance[1], np.cov(parameters[:, 1].T) + 0.5 * np.eye(4), atol=1e-12
    )
    blocks = prior_moments(parameters, np.zeros(2), n_blocks=2)[1]
    assert not blocks[:, :2, 2:].any()
    np.testing.assert_array_equal(blocks[0, :2, :2], covariance[0, :2, :2])


def test_misspecified_prior_shifts_by_deviations():
    mean, covariance = np.zeros((1, 2)), np.array([[[4.0, 1.0], [1.0, 9.0]]])
    shifted, scaled = misspecified(mean, covariance, 2.0, 1.5)
    np.testing.assert_allclose(shifted, [[3.0, 4.5]])
    np.testing.assert_allclose(scaled, 2 * covariance)
