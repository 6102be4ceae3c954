import numpy as np
import pytest

from metarl_envs.navigation.exact import mean_moments

REACHES = np.array([0.0, 0.1, 0.45, 1.2, 3.0])
RECTANGLES = {
    "around the goal": ([-0.7, -0.3], [1.1, 0.9]),
    "on one side": ([0.2, 0.1], [1.0, 0.8]),
    "across one axis": ([-1.2, 0.3], [-0.2, 1.9]),
    "from the goal": ([0.0, -0.5], [0.4, 0.0]),
}


def quadrature(low, high, reach, radius, n):
    """Midpoint rule on n x n cells."""
    steps = (np.arange(n) + 0.5) / n
    left = [
        np.maximum(np.abs(a + (b - a) * steps) - reach, 0) for a, b in zip(low, high, strict=True)
    ]
    distances = np.hypot(left[0][:, None], left[1][None])
    inside = distances <= radius
    return inside.mean(), (inside * distances).mean()


@pytest.mark.parametrize("name", RECTANGLES)
def test_mean_distances_are_those_of_quadrature(name):
    low, high = RECTANGLES[name]
    inside, distances = mean_moments(np.array([low]), np.array([high]), REACHES, np.inf)
    assert np.allclose(inside, 1.0, rtol=0, atol=1e-12)
    for reach, distance in zip(REACHES, distances[0], strict=True):
        # The midpoint rule's error is of the order 1 / n^2 where the integrand has kinks.
        assert distance == pytest.approx(quadrature(low, high, reach, np.inf, 1000)[1], abs=1e-6)


@pytest.mark.parametrize("name", RECTANGLES)
@pytest.mark.parametrize("radius", [0.2, 0.7])
def test_moments_within_a_radius_are_those_of_quadrature(name, radius):
    low, high = RECTANGLES[name]
    moments = mean_moments(np.array([low]), np.array([high]), REACHES, radius)
    for stage, reach in enumerate(REACHES):
        # At the edge of the disc, of about n cells, each of n^2 cells is in or out.
        expected = quadrature(low, high, reach, radius, 1500)
        assert [moment[0, stage] for moment in moments] == pytest.approx(expected, abs=2e-4)


def test_a_radius_that_holds_everything_is_an_infinite_one():
    low, high = np.array([[-0.7, -0.3]]), np.array([[1.1, 0.9]])
    within, anywhere = (mean_moments(low, high, REACHES, radius) for radius in (5.0, np.inf))
    assert np.allclose(within, anywhere, rtol=0, atol=1e-13)


def test_the_mean_distance_in_the_unit_square_is_known():
    # E|u| for u uniform in [0, 1]^2 is (sqrt 2 + asinh 1) / 3.
    _, distance = mean_moments(np.zeros((1, 2)), np.ones((1, 2)), np.zeros(1), np.inf)
    assert distance[0, 0] == pytest.approx((np.sqrt(2) + np.arcsinh(1)) / 3, abs=1e-15)


def test_the_area_of_a_disc_is_known():
    inside, distance = mean_moments(-np.ones((1, 2)), np.ones((1, 2)), np.zeros(1), 0.5)
    assert 4 * inside[0, 0] == pytest.approx(np.pi * 0.25, abs=1e-15)
    assert 4 * distance[0, 0] == pytest.approx(2 * np.pi * 0.125 / 3, abs=1e-15)
