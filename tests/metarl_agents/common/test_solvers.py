"""Conjugate gradients and the trust-region step."""

import math

import pytest
import torch as th

from metarl_agents.common.fisher import fisher_product
from metarl_agents.common.losses import (
    episode_log_probs,
    likelihood_ratio_loss,
    mean_kl,
    reinforce_loss,
)
from metarl_agents.common.solvers import (
    conjugate_gradient,
    flatten,
    krylov_solve,
    trust_region_step,
    unflatten,
)
from tests.metarl_agents.common.policy_batches import NETWORKS, random_episodes, some_params

CONDITIONS = (10, 100, 1_000, 10_000)


def matrix_of_condition(condition, n=30, seed=0):
    generator = th.Generator().manual_seed(seed)
    basis, _ = th.linalg.qr(th.randn(n, n, generator=generator, dtype=th.float64))
    values = th.logspace(0, math.log10(condition), n, dtype=th.float64)
    return (basis * values) @ basis.T, th.randn(n, generator=generator, dtype=th.float64)


def aliased_conjugate_gradient(product, b, *, n_iterations=10, tolerance=1e-10):
    """With one tensor as first residual and direction, updated in place: a known mistake."""
    x, residual = th.zeros_like(b), b.clone()
    direction = residual
    squared = residual @ residual
    for _ in range(n_iterations):
        image = product(direction)
        length = squared / (direction @ image)
        x += length * direction
        residual -= length * image
        previous, squared = squared, residual @ residual
        direction = residual + (squared / previous) * direction
    return x


def excess_error(solver, condition):
    """Error after ten iterations over the least one in their Krylov space, in the norm of A."""
    matrix, b = matrix_of_condition(condition)
    exact = th.linalg.solve(matrix, b)
    krylov = [b]
    for _ in range(9):
        image = matrix @ krylov[-1]
        krylov.append(image / image.norm())
    basis, _ = th.linalg.qr(th.stack(krylov, dim=1))
    best = basis @ th.linalg.solve(basis.T @ matrix @ basis, basis.T @ b)
    x = solver(lambda v: matrix @ v, b, n_iterations=10, tolerance=0.0)
    errors = [((y - exact) @ matrix @ (y - exact)).sqrt() for y in (x, best)]
    return (errors[0] / errors[1] - 1).item()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_ten_iterations_are_as_good_as_their_krylov_space_allows(condition):
    # Rounding of the Krylov basis itself: 1e-16 times its condition, below 1e-6.
    assert excess_error(conjugate_gradient, condition) < 1e-4
    assert excess_error(aliased_conjugate_gradient, condition) > 1e-2


@pytest.mark.parametrize("condition", CONDITIONS)
def test_enough_iterations_give_the_dense_solution(condition):
    matrix, b = matrix_of_condition(condition)
    exact = th.linalg.solve(matrix, b)
    options = {"n_iterations": 300, "tolerance": 1e-26}
    x = conjugate_gradient(lambda v: matrix @ v, b, **options)
    # A squared residual of 1e-26 is a relative error of at most 1e-13 times the condition.
    assert (x - exact).norm() <= 1e-12 * condition * exact.norm()


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_products_may_return_their_argument_and_nothing_is_changed(dtype):
    b = th.tensor([3.0, -4.0], dtype=dtype)
    x = conjugate_gradient(lambda v: v, b)
    assert x.dtype == dtype
    assert th.equal(x, b)
    assert b.tolist() == [3.0, -4.0]
    assert x is not b


def test_iterations_stop_at_the_tolerance_and_at_zero():
    matrix, b = matrix_of_condition(100)
    calls = []

    def product(vector):
        calls.append(1)
        return matrix @ vector

    x = conjugate_gradient(product, b, n_iterations=100, tolerance=1e-4)
    assert 2 < len(calls) < 30
    assert (matrix @ x - b).norm() <= 1.001e-2 * b.norm()
    assert th.equal(conjugate_gradient(lambda v: v / 0, th.zeros(3)), th.zeros(3))


def test_a_direction_without_curvature_ends_the_iterations():
    x = conjugate_gradient(lambda v: v * th.tensor([1.0, 0.0]), th.tensor([1.0, 1.0]))
    assert x.isfinite().all()


def test_vectors_and_parameters_are_inverse_to_each_other():
    params = some_params(NETWORKS["gaussian"])
    vector = flatten(params)
    assert vector.ndim == 1
    back = unflatten(vector, params)
    assert list(back) == list(params)
    assert all(th.equal(back[name], params[name]) for name in params)


# The trust-region step --------------------------------------------------------------------------


def quadratic(scale=1.0):
    """Loss ``(x - 2)^2``, divergence ``scale (x - 1)^2 / 2``, at x = 1."""
    params = {"x": th.tensor([1.0], dtype=th.float64)}

    def evaluate(candidate):
        x = candidate["x"]
        return ((x - 2) ** 2).sum(), scale * ((x - 1) ** 2).sum() / 2

    return params, {"x": th.tensor([-2.0], dtype=th.float64)}, evaluate


def test_the_full_step_reaches_the_border_of_a_quadratic_region():
    params, gradient, evaluate = quadratic(scale=4.0)
    step = trust_region_step(
        params, gradient, lambda v: {"x": 4.0 * v["x"]}, evaluate, max_kl=0.02 + 1e-9, damping=0.0
    )
    # 4 (x - 1)^2 / 2 = 0.02 at x = 1.1
    assert step.accepted
    assert step.params["x"].item() == pytest.approx(1.1)
    assert step.kl == pytest.approx(0.02)
    assert step.loss == pytest.approx(0.81)
    assert (step.step_fraction, step.n_backtracks) == (1.0, 0)
    assert params["x"].item() == 1.0


def test_steps_that_leave_the_region_are_shortened():
    params, gradient, evaluate = quadratic(scale=4.0)
    step = trust_region_step(
        params, gradient, lambda v: v, evaluate, max_kl=0.02, damping=0.0, backtrack_ratio=0.8
    )
    # The product claims a quarter of the curvature: the full step is twice too long, 0.8^4 < 1/2.
    assert step.accepted
    assert step.n_backtracks == 4
    assert step.step_fraction == pytest.approx(0.8**4)
    assert step.kl <= 0.02


def test_steps_that_raise_the_loss_are_shortened():
    params, gradient, evaluate = quadratic(scale=1e-3)
    step = trust_region_step(params, gradient, lambda v: v, evaluate, max_kl=4.5, damping=0.0)
    # The full step to x = 4 has loss 4 > 1; 0.8^2 of it has loss below 1.
    assert step.n_backtracks == 2
    assert step.loss < 1


NAN, INF = math.nan, math.inf
BROKEN = {
    "NaN in the gradient": {"gradient": NAN},
    "infinity in the gradient": {"gradient": INF},
    "no gradient": {"gradient": 0.0},
    "NaN in the product": {"product": NAN},
    "infinity in the product": {"product": INF},
    "negative curvature": {"product": -1.0},
    "no curvature": {"product": 0.0},
    "NaN in the loss": {"loss": NAN},
    "infinitely good loss": {"loss": -INF},
    "NaN in the divergence": {"kl": NAN},
    "divergence too large": {"kl": 1.0},
    "no better loss": {"loss": 1.0},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_failed_step_leaves_the_parameters_bit_for_bit(broken):
    params, gradient, evaluate = quadratic()
    before = params["x"].clone()
    if "gradient" in broken:
        gradient = {"x": th.tensor([broken["gradient"]], dtype=th.float64)}

    def damaged(candidate):
        loss, kl = evaluate(candidate)
        if candidate["x"].item() == 1.0:
            return loss, kl
        return broken.get("loss", loss), broken.get("kl", kl)

    step = trust_region_step(
        params,
        gradient,
        lambda v: {"x": broken.get("product", 1.0) * v["x"]},
        damaged,
        max_kl=0.01,
        damping=0.0,
    )
    assert not step.accepted
    assert step.params["x"] is params["x"]
    assert th.equal(params["x"], before)
    assert (step.loss, step.kl, step.step_fraction) == (1.0, 0.0, 0.0)


def test_a_product_that_breaks_later_rejects_the_step():
    params = {"x": th.ones(3, dtype=th.float64)}
    scales = th.tensor([1.0, 2.0, 3.0], dtype=th.float64)
    calls = []

    def product(vector):
        calls.append(1)
        return {"x": vector["x"] * (scales if len(calls) < 2 else NAN)}

    step = trust_region_step(
        params,
        {"x": th.ones(3, dtype=th.float64)},
        product,
        lambda candidate: ((candidate["x"] * scales).sum(), 0.0),
        max_kl=0.01,
    )
    assert len(calls) > 1
    assert not step.accepted
    assert step.params["x"] is params["x"]


def test_a_loss_that_is_broken_from_the_start_rejects_the_step():
    params, gradient, _ = quadratic()
    step = trust_region_step(params, gradient, lambda v: v, lambda _: (NAN, 0.0), max_kl=0.01)
    assert not step.accepted
    assert step.params["x"] is params["x"]


@pytest.mark.parametrize("max_kl", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_policies_never_leave_the_region_nor_get_worse(network, dtype, max_kl):
    accepted = 0
    for seed in range(8):
        params = some_params(network, dtype, seed=seed)
        episodes = random_episodes(network, params, seed=seed, with_masks=True)

        def evaluate(candidate, episodes=episodes):
            numbers = network.dist_params(candidate, episodes.observations)
            log_probs = episode_log_probs(network, candidate, episodes)
            kl = mean_kl(
                network.distribution,
                episodes.dist_params,
                numbers,
                episodes.mask,
                episodes.action_masks,
            )
            return likelihood_ratio_loss(log_probs, episodes.log_probs, episodes), kl

        leaves = {name: param.clone().requires_grad_() for name, param in params.items()}
        loss = reinforce_loss(episode_log_probs(network, leaves, episodes), episodes)
        gradient = dict(zip(leaves, th.autograd.grad(loss, list(leaves.values())), strict=True))
        step = trust_region_step(
            params,
            gradient,
            fisher_product(network, params, episodes),
            evaluate,
            max_kl=max_kl,
            damping=1e-3,
        )
        with th.no_grad():
            loss_after, kl_after = evaluate(step.params)
        assert kl_after <= max_kl
        assert loss_after <= evaluate(params)[0]
        assert step.loss == loss_after.item()
        accepted += step.accepted
    assert accepted >= 7


def test_ritz_values_end_as_the_eigenvalues_and_lie_between_them_before():
    matrix, b = matrix_of_condition(100, n=8)
    eigenvalues = th.linalg.eigvalsh(matrix)
    solve = krylov_solve(lambda v: matrix @ v, b, n_iterations=8, tolerance=1e-30)
    assert th.allclose(solve.ritz_values(), eigenvalues, rtol=1e-6)
    early = krylov_solve(lambda v: matrix @ v, b, n_iterations=4, tolerance=1e-30)
    values = early.ritz_values()
    assert len(values) == early.n_products == 4
    assert float(eigenvalues[0]) < float(values[0]) < float(values[-1]) < float(eigenvalues[-1])
    expected = (b - matrix @ early.x).norm() / b.norm()
    assert float(early.residual) == pytest.approx(float(expected), rel=1e-10)


def test_a_direction_of_negative_curvature_is_told_with_its_bend():
    matrix = th.tensor([2.0, -3.0]).diag()
    solve = krylov_solve(lambda v: matrix @ v, th.tensor([0.0, 1.0]), n_iterations=5, tolerance=0.0)
    assert (float(solve.bend), solve.n_products, float(solve.residual)) == (-3.0, 1, 1.0)
    assert len(solve.ritz_values()) == 0
