import numpy as np
import pytest

from metarl_envs.navigation.exact import mean_moments

REACHES = np.array([0.0, 0.1, 0.45, 1.2, 3.0])
RECTANGLES = {
    "around the goal": ([0.2, 0.3], [0.9, 0.6]),
    "on one side": ([0.6, -0.45], [0.4, 0.35]),
    "across one axis": ([-0.7, 1.1], [0.5, 0.8]),
    "from the goal": ([0.2, -0.25], [0.2, 0.25]),
}


def mean_distances(centres, half_width, reaches=REACHES):
    return mean_moments(
        np.array(centres), np.full(2, half_width), np.asarray(reaches, dtype=float), np.inf
    )[1]


def quadrature(centre, half_widths, reach, radius, n):
    """Midpoint rule on n x n cells."""
    steps = (np.arange(n) + 0.5) / n * 2 - 1
    left = [
        np.maximum(np.abs(c + s * steps) - reach, 0)
        for c, s in zip(centre, half_widths, strict=True)
    ]
    distances = np.hypot(left[0][:, None], left[1][None])
    inside = distances <= radius
    return inside.mean(), (inside * distances).mean()


@pytest.mark.parametrize("name", RECTANGLES)
def test_mean_distances_are_those_of_quadrature(name):
    centre, half_widths = RECTANGLES[name]
    inside, distances = mean_moments(np.array([centre]), np.array(half_widths), REACHES, np.inf)
    assert np.allclose(inside, 1.0, rtol=0, atol=1e-12)
    for reach, distance in zip(REACHES, distances[0], strict=True):
        # The midpoint rule's error is of the order 1 / n^2 where the integrand has kinks.
        expected = quadrature(centre, half_widths, reach, np.inf, 1000)[1]
        assert distance == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", RECTANGLES)
@pytest.mark.parametrize("radius", [0.2, 0.7])
def test_moments_within_a_radius_are_those_of_quadrature(name, radius):
    centre, half_widths = RECTANGLES[name]
    moments = mean_moments(np.array([centre]), np.array(half_widths), REACHES, radius)
    for stage, reach in enumerate(REACHES):
        # At the edge of the disc, of about n cells, each of n^2 cells is in or out.
        expected = quadrature(centre, half_widths, reach, radius, 1500)
        assert [moment[0, stage] for moment in moments] == pytest.approx(expected, abs=2e-4)


def test_a_radius_that_holds_everything_is_an_infinite_one():
    centres, half_widths = np.array([[0.2, 0.3]]), np.array([0.9, 0.6])
    within, anywhere = (
        mean_moments(centres, half_widths, REACHES, radius) for radius in (5.0, np.inf)
    )
    assert np.allclose(within, anywhere, rtol=0, atol=1e-13)


def test_the_mean_distance_in_the_unit_square_is_known():
    # E|u| for u uniform in [0, 1]^2 is (sqrt 2 + asinh 1) / 3.
    distance = mean_distances([[0.5, 0.5]], 0.5, [0.0])
    assert distance[0, 0] == pytest.approx((np.sqrt(2) + np.arcsinh(1)) / 3, abs=1e-15)


def test_the_area_of_a_disc_is_known():
    inside, distance = mean_moments(np.zeros((1, 2)), np.ones(2), np.zeros(1), 0.5)
    assert 4 * inside[0, 0] == pytest.approx(np.pi * 0.25, abs=1e-15)
    assert 4 * distance[0, 0] == pytest.approx(2 * np.pi * 0.125 / 3, abs=1e-15)


@pytest.mark.parametrize("half_width", 10.0 ** np.arange(-12, 1))
def test_small_squares_lose_no_digits(half_width):
    centres = [[0.637, 0.411], [0.45, -0.1], [0.1, 3.0], [0.0, 0.0]]
    distances = mean_distances(centres, half_width)
    for centre, row in zip(centres, distances, strict=True):
        for reach, distance in zip(REACHES, row, strict=True):
            left = np.maximum(np.abs(centre) - reach, 0)
            # The distance changes no faster than the offset, which is up to sqrt 2 s away. Where
            # the centre is a kink, rounding of the offset itself is left.
            assert abs(distance - np.hypot(*left)) <= 1.5 * half_width + 1e-15


def gauss_legendre(centre, half_width, reach):
    """The mean distance, with 40 x 40 nodes between the kinks."""
    nodes, masses = np.polynomial.legendre.leggauss(40)
    points, weights = [], []
    for c in centre:
        kinks = np.clip([-1, (-reach - c) / half_width, (reach - c) / half_width, 1], -1, 1)
        half = np.diff(kinks)[:, None] / 2
        t = ((kinks[:-1] + kinks[1:]) / 2)[:, None] + half * nodes
        points.append(np.maximum(np.abs(c + half_width * t) - reach, 0).ravel())
        weights.append((half * masses).ravel() / 2)
    return weights[0] @ np.hypot(points[0][:, None], points[1]) @ weights[1]


@pytest.mark.parametrize("ratio", [0.1, 1.0, 6.9, 7.1, 8.5, 9.2, 50.0, 1e3])
@pytest.mark.parametrize("half_width", [1e-4, 1.0, 1e3])
def test_both_formulas_agree_with_gauss_legendre_where_they_meet(ratio, half_width):
    for reach in (0.0, 0.5 * ratio * half_width, ratio * half_width):
        for direction in ([1.0, 0.3], [0.8, -0.6], [1.0, 1.0], [1.0, 0.0]):
            centre = ratio * half_width * np.array(direction)
            distance = mean_distances([centre], half_width, [reach])[0, 0]
            expected = gauss_legendre(centre, half_width, reach)
            # Where the square touches the goal, the cusp there leaves an error of quadrature.
            is_smooth = np.max(np.abs(centre)) - reach > 1.01 * half_width
            tolerance = 1e-12 if is_smooth else 1e-5
            assert distance == pytest.approx(expected, rel=tolerance, abs=tolerance * half_width)


def test_goals_far_away_are_as_far_as_they_are():
    distance = mean_distances([[3e5, -4e5], [1e6, 1e6]], 1.0, [0.0, 1e5])
    # E|u| is |c| + O(s^2 / |c|); the rounding of |c| is 1e-10.
    expected = [[5e5, np.hypot(2e5, 3e5)], [np.hypot(1e6, 1e6), np.hypot(9e5, 9e5)]]
    assert np.allclose(distance, expected, rtol=0, atol=3e-6)
