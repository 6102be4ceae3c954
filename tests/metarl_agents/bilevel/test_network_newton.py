"""Newton steps by products with the Hessian, on functions with known minima."""

import pytest
import torch as th

from metarl_agents.bilevel.network_newton import newton_minimum

OPTIONS = {
    "max_distance": 1e9,
    "n_steps": 100,
    "n_cg_iterations": 20,
    "gradient_norm": 1e-10,
    "scale": 1.0,
}


def minimum(function, start, **options):
    def values(theta):
        return function(theta), theta.detach().square().sum()

    return newton_minimum(values, th.tensor(start, dtype=th.float64), **(OPTIONS | options))


def rosenbrock(theta):
    return (1.0 - theta[0]).square() + 100.0 * (theta[1] - theta[0].square()).square()


def double_well(theta):
    return (theta[0].square() - 1.0).square() + theta[1].square()


def test_a_curved_valley_is_followed_to_its_minimum():
    found = minimum(rosenbrock, [-1.2, 1.0])
    assert found.theta.tolist() == pytest.approx([1.0, 1.0], abs=1e-8)
    assert float(found.gradient.norm()) <= 1e-10
    assert found.n_steps < OPTIONS["n_steps"]
    assert not found.left


@pytest.mark.parametrize("start", [[0.1, 0.0], [-0.2, 1.0]])
def test_negative_curvature_is_left_downhill(start):
    found = minimum(double_well, start)
    assert found.theta.tolist() == pytest.approx([1.0 if start[0] > 0 else -1.0, 0.0], abs=1e-8)


def test_a_quadratic_takes_few_steps():
    scales = th.tensor([1.0, 10.0, 100.0], dtype=th.float64)
    found = minimum(lambda theta: (scales * (theta - 2.0).square()).sum(), [0.0, 0.0, 0.0])
    assert found.theta.tolist() == pytest.approx([2.0] * 3, abs=1e-9)
    assert found.n_steps <= 6  # linear systems are solved to a tenth, then ever better


def test_steps_end_before_the_distance_exceeds_its_limit():
    found = minimum(rosenbrock, [-0.1, 0.0], max_distance=0.5)
    assert found.left
    assert found.distance <= 0.5


def test_where_no_step_helps_the_start_is_returned():
    found = minimum(lambda theta: th.where(theta == 1.0, theta, 5.0).sum(), [1.0])
    assert (found.theta.tolist(), found.n_steps, found.left) == ([1.0], 0, False)
    assert float(found.gradient.norm()) == 1.0


def test_a_minimum_stays_where_it_is():
    found = minimum(rosenbrock, [1.0, 1.0])
    assert (found.theta.tolist(), found.n_steps) == ([1.0, 1.0], 0)
