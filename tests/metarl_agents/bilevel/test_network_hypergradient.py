"""Hypergradients through networks, against finite differences, closed forms and dense algebra."""

import math

import pytest
import torch as th

from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.lower_level import DISTANCES
from metarl_agents.bilevel.network_hypergradient import (
    PARTS,
    hypergradient_of,
    implicit_solve,
    sampled_hypergradient,
)
from metarl_agents.bilevel.network_lower_level import solve_lower_level
from metarl_agents.common.policies.distributions import Categorical
from metarl_agents.common.policies.networks import MlpNetwork, TabularNetwork
from tests.metarl_agents.bilevel.network_tasks import (
    NETWORK,
    A,
    ExactLevels,
    S,
    flat,
    named,
    single,
    two_gaussian_steps,
    two_states,
)
from tests.metarl_agents.bilevel.small_tasks import random_logits, relative_error
from tests.metarl_agents.common.policy_batches import some_params

CASES = {
    "l2, lambda 0.5": ("l2", 0.5, 0.0),
    "l2, lambda 0.1, eta 0.01": ("l2", 0.1, 0.01),
    "reverse_kl, lambda 1": ("reverse_kl", 1.0, 0.01),
    "reverse_kl, lambda 0.3": ("reverse_kl", 0.3, 0.01),
    "forward_kl, lambda 1": ("forward_kl", 1.0, 0.01),
    "forward_kl, lambda 0.3": ("forward_kl", 0.3, 0.01),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def solved(request):
    """A lower level, phi, and the stationary theta'."""
    levels = ExactLevels.of(*request.param)
    phi = some_params(NETWORK)
    return levels, phi, levels.solved(phi)


def found_at(levels, phi, theta, **options):
    gradient, solve = hypergradient_of(
        levels.loss, theta, phi, levels.cotangent(theta), **({"n_cg": 200} | options)
    )
    return flat(gradient), solve


def cosine(first, second):
    return float(th.cosine_similarity(first, second, dim=0))


def test_hypergradient_is_that_of_finite_differences(solved):
    levels, phi, theta = solved
    found, solve = found_at(levels, phi, theta, tolerance=1e-12)
    assert solve.is_definite
    assert solve.residual <= 1e-12
    # The rule errs by h^4 = 1e-12, and by rounding of 1e-15 over h; 1e-10 is what was measured.
    assert relative_error(found, levels.finite_differences(phi, theta)) < 1e-8


def test_the_distance_alone_points_elsewhere_and_ten_iterations_are_enough(solved):
    levels, phi, theta = solved
    full, _ = found_at(levels, phi, theta)
    constant = levels._replace(constant=("action_values", "occupancy"))
    distance_only, _ = found_at(constant, phi, theta)
    # Measured: 0.996 and 0.944 with l2; 0.85 and 0.55 with reverse_kl, 0.86 and 0.76 with
    # forward_kl, at the larger and at the smaller lambda.
    assert 0.5 < cosine(distance_only, full) < 0.997
    assert cosine(found_at(levels, phi, theta, n_cg=10)[0], full) > 0.999


@pytest.mark.parametrize("dropped", ["action_values", "occupancy"])
def test_no_part_is_dispensable(solved, dropped):
    levels, phi, theta = solved
    expected = levels.finite_differences(phi, theta)
    without, _ = found_at(levels._replace(constant=(dropped,)), phi, theta)
    assert relative_error(without, expected) > 1e-2


def test_ritz_values_find_the_range_of_the_eigenvalues(solved):
    levels, phi, theta = solved
    _, solve = found_at(levels, phi, theta, tolerance=1e-12)
    _, hessian = levels.hessians(flat(theta)[None], flat(phi)[None], phi)
    eigenvalues = th.linalg.eigvalsh(hessian[0])
    # The iterations solved to 1e-12, so they saw the ends; inner ones would be off by far more.
    assert solve.curvature == pytest.approx(float(eigenvalues[0]), rel=1e-5)
    assert solve.max_curvature == pytest.approx(float(eigenvalues[-1]), rel=1e-5)
    assert solve.condition == pytest.approx(float(eigenvalues[-1] / eigenvalues[0]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distance", "lam", "eta"), [CASES["l2, lambda 0.5"], *list(CASES.values())[3::2]]
)
def test_hypergradient_holds_on_a_frozen_lake(distance, lam, eta):
    network = MlpNetwork(16, Categorical(4), net_arch=(8,), dtype=th.float64)
    levels = ExactLevels.of(distance, lam, eta, setting="high variance", network=network)
    phi = some_params(network)
    theta = levels.solved(phi)
    found, solve = found_at(levels, phi, theta, tolerance=1e-12)
    assert solve.is_definite
    generator = th.Generator().manual_seed(0)
    directions = th.randn(6, len(found), generator=generator, dtype=th.float64)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    expected = levels.finite_differences(phi, theta, directions)
    assert relative_error(directions @ found, expected) < 1e-6
    constant = levels._replace(constant=("action_values", "occupancy"))
    # Measured: 0.991, 0.39 and 0.72.
    assert 0.3 < cosine(found_at(constant, phi, theta)[0], found) < 0.995
    assert cosine(found_at(levels, phi, theta, n_cg=10)[0], found) > 0.99


@pytest.mark.parametrize("distance", DISTANCES)
def test_with_a_table_for_a_network_it_is_the_closed_form(distance):
    """Without a proximal term the Hessian of the KL distances is singular: for a softmax, always.
    The right side lies in its range, so iterations from 0 solve the system all the same.
    """
    table = TabularNetwork(S, A)
    levels = ExactLevels.of(distance, 0.5, network=table)
    logits = random_logits(levels.tasks)
    closed = task_hypergradients(levels.tasks, logits, distance=DISTANCES[distance], lam=0.5)
    phi = {"logits": logits}
    theta = levels.solved(phi, {"logits": closed.adapted.logits[0]})
    _, hessian = levels.hessians(flat(theta)[None], flat(phi)[None], phi)
    n_zeros = int((th.linalg.eigvalsh(hessian[0]).abs() < 1e-12).sum())
    assert n_zeros == (0 if distance == "l2" else S)
    found, solve = found_at(levels, phi, theta, tolerance=1e-11)
    assert solve.residual <= 1e-11
    # The smallest eigenvalue, 1e-3, is what the error of the system is divided by.
    assert relative_error(found, closed.gradients.flatten()) < 1e-7


def test_l2_is_definite_where_lambda_exceeds_the_curvature_of_the_gain_and_flagged_below():
    phi = some_params(NETWORK)
    levels = ExactLevels.of("l2", 1.0)
    _, hessian = levels.hessians(flat(phi)[None], flat(phi)[None], phi)
    identity = th.eye(len(hessian[0]), dtype=th.float64)
    largest = float(th.linalg.eigvalsh(2.0 * identity - hessian[0])[-1])  # of lambda = 1
    for factor, is_definite in ((1.01, True), (0.5, False)):
        found = levels._replace(lam=factor * largest / 2.0)
        _, solve = found_at(found, phi, phi)
        assert solve.is_definite == is_definite
        assert (solve.curvature > 0.0) == is_definite
        assert math.isinf(solve.condition) != is_definite


@pytest.mark.parametrize("distance", ["forward_kl", "reverse_kl"])
def test_the_proximal_term_makes_a_divergence_regular(distance):
    """At phi the Hessian of D^2 is the Fisher matrix: positive semidefinite, and singular."""
    phi = some_params(NETWORK)
    lam = 1e9  # so that the surrogate has no curvature
    for eta, smallest in ((0.0, 0.0), (0.01 * lam, 0.02)):
        levels = ExactLevels.of(distance, lam, eta)
        _, hessian = levels.hessians(flat(phi)[None], flat(phi)[None], phi)
        assert float(th.linalg.eigvalsh(hessian[0])[0]) == pytest.approx(smallest, abs=1e-7)


def test_large_lambda_turns_the_hypergradient_into_the_policy_gradient():
    phi = some_params(NETWORK)
    errors = []
    for lam in (100.0, 1000.0):
        levels = ExactLevels.of("l2", lam)
        found, _ = found_at(levels, phi, levels.solved(phi))
        errors.append(relative_error(found, flat(levels.cotangent(phi))))
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0] / 10.0, rel=0.1)  # of order 1 / lambda


# From episodes --------------------------------------------------------------------------------

EPISODES = {
    "two states": two_states,
    "two states that end": lambda **settings: two_states(ends=True, **settings),
    "gaussian": two_gaussian_steps,
}


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", EPISODES)
def test_all_episodes_together_give_the_exact_hypergradient(name, distance, squash):
    """Every episode of a policy, weighted by its probability: what samples say on average, without
    noise. The exact one differentiates these probabilities."""
    whole = EPISODES[name](distance=distance, lam=1.0, eta=0.1, squash=squash)
    solution = solve_lower_level(
        whole.problem, polish_steps=50, polish_cg_iterations=100, tolerance=1e-12
    )
    assert solution.residual <= 1e-12
    cotangent = some_params(whole.problem.network, seed=3)
    options = {"n_cg": 100, "tolerance": 1e-13}
    expected, _ = hypergradient_of(
        whole.loss, solution.params, whole.problem.phi, cotangent, **options
    )
    found, solve = sampled_hypergradient(
        whole.problem, solution.params, cotangent, gamma=0.9, **options
    )
    assert solve.is_definite
    # Rounding alone, times the condition number of H, some 100.
    assert relative_error(flat(found), flat(expected)) < 1e-10
    for part in PARTS:
        rest, _ = sampled_hypergradient(
            whole.problem, solution.params, cotangent, gamma=0.9,
            parts=[other for other in PARTS if other != part], **options,
        )  # fmt: skip
        assert relative_error(flat(rest), flat(expected)) > 1e-4


@pytest.mark.parametrize("distance", DISTANCES)
def test_hypergradient_passes_forward_through_the_network_three_times(distance):
    whole = two_states(distance=distance, lam=1.0, eta=0.1)
    counting = CountingNetwork(whole.problem.network)
    problem = whole.problem._replace(network=counting)
    solution = solve_lower_level(problem, n_steps=7)
    assert (counting.n_passes, solution.n_steps) == (8, 7)
    counting.n_passes = 0
    sampled_hypergradient(
        problem, solution.params, some_params(counting.network), gamma=0.9, n_cg=10
    )
    assert counting.n_passes == 3  # at theta', along u at theta', at phi
    if distance == "l2":
        counting.n_passes = 0
        sampled_hypergradient(problem, solution.params, problem.phi, gamma=0.9, parts=["distance"])
        assert counting.n_passes == 1


class CountingNetwork:
    """A network that counts how often it is passed through."""

    def __init__(self, network):
        self.network, self.distribution, self.n_passes = network, network.distribution, 0

    def dist_params(self, params, observations):
        self.n_passes += 1
        return self.network.dist_params(params, observations)


def test_single_precision_agrees_with_double():
    whole = two_gaussian_steps(distance="forward_kl", lam=1.0, eta=0.1, squash=True)
    theta = some_params(whole.problem.network, seed=0)
    cotangent = some_params(whole.problem.network, seed=3)
    exact, _ = sampled_hypergradient(whole.problem, theta, cotangent, gamma=0.9)

    found, _ = sampled_hypergradient(
        single(whole.problem),
        {name: param.float() for name, param in theta.items()},
        {name: param.float() for name, param in cotangent.items()},
        gamma=0.9,
    )
    assert all(part.dtype == th.float32 for part in found.values())
    # Rounding of 1e-7, times the condition number.
    assert relative_error(flat(found).double(), flat(exact)) < 1e-3


# The linear system ----------------------------------------------------------------------------


def matrix_product(matrix):
    like = {"a": th.zeros(2, 2), "b": th.zeros(3)}

    def product(vector):
        assert list(vector) == ["a", "b"]
        image = named(matrix @ flat(vector), like)
        return {"b": image["b"], "a": image["a"]}  # the order does not matter

    return product


def right_side():
    generator = th.Generator().manual_seed(0)
    vector = th.randn(7, generator=generator, dtype=th.float64)
    return {"a": vector[:4].reshape(2, 2), "b": vector[4:]}


def test_definite_systems_are_solved_and_their_spectrum_is_seen():
    eigenvalues = th.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 9.0], dtype=th.float64)
    basis = th.linalg.qr(th.randn(7, 7, generator=th.Generator().manual_seed(1)).double()).Q
    matrix = basis @ eigenvalues.diag() @ basis.T
    solve = implicit_solve(matrix_product(matrix), right_side(), n_iterations=7, tolerance=1e-12)
    assert relative_error(flat(solve.x), th.linalg.solve(matrix, flat(right_side()))) < 1e-8
    assert (solve.n_iterations, solve.is_definite) == (7, True)
    assert solve.curvature == pytest.approx(0.1, rel=1e-6)
    assert solve.max_curvature == pytest.approx(9.0, rel=1e-6)
    early = implicit_solve(matrix_product(matrix), right_side(), n_iterations=3, tolerance=1e-12)
    residual = flat(right_side()) - matrix @ flat(early.x)
    expected = float(residual.norm() / flat(right_side()).norm())
    assert early.residual == pytest.approx(expected, rel=1e-8)
    assert 0.1 < early.curvature < early.max_curvature < 9.0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_size_of_the_right_side_makes_no_difference(scale):
    matrix = th.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], dtype=th.float64).diag()
    b = {name: scale * part for name, part in right_side().items()}
    solve = implicit_solve(matrix_product(matrix), b, n_iterations=20, tolerance=1e-12)
    assert relative_error(flat(solve.x) / scale, flat(right_side()) / matrix.diag()) < 1e-11


@pytest.mark.parametrize("smallest", [-0.5, 0.0])
def test_non_positive_curvature_stops_the_iterations_and_is_flagged(smallest):
    matrix = th.tensor([smallest] * 7, dtype=th.float64).diag()
    at_once = implicit_solve(matrix_product(matrix), right_side(), n_iterations=9, tolerance=1e-12)
    assert not at_once.is_definite
    assert (at_once.n_iterations, at_once.residual) == (1, 1.0)
    assert at_once.curvature == pytest.approx(smallest)
    assert not bool(flat(at_once.x).any())
    mixed = matrix + 2.0 * th.eye(7, dtype=th.float64) * (th.arange(7) > 0)
    later = implicit_solve(matrix_product(mixed), right_side(), n_iterations=9, tolerance=1e-12)
    if smallest < 0.0:  # a zero is met exactly only without rounding
        assert not later.is_definite
    assert bool(flat(later.x).isfinite().all())


def test_a_right_side_of_zero_needs_no_product():
    def refused(vector):
        raise AssertionError("no product is needed")

    zero = {"a": th.zeros(2, 2), "b": th.zeros(3)}
    solve = implicit_solve(refused, zero, n_iterations=9, tolerance=1e-12)
    assert not bool(flat(solve.x).any())
    assert (solve.n_iterations, solve.residual, solve.curvature) == (0, 0.0, math.inf)


def test_what_is_not_finite_is_refused():
    whole = two_states(distance="forward_kl", lam=1.0)
    problem, phi = whole.problem, whole.problem.phi
    wrong = {name: th.full_like(param, math.nan) for name, param in phi.items()}
    with pytest.raises(ValueError, match="right side of the implicit system is not finite"):
        sampled_hypergradient(problem, phi, wrong, gamma=0.9)
    with pytest.raises(ValueError, match="lower-level loss is nan at theta"):
        sampled_hypergradient(problem, wrong, phi, gamma=0.9)
    with pytest.raises(ValueError, match="lower-level loss is nan at theta"):
        hypergradient_of(whole.loss, wrong, phi, phi)


@pytest.mark.parametrize("parts", [(), ("q",), "distance", ("distance", "nu")])
def test_unknown_parts_are_refused(parts):
    problem = two_states(distance="forward_kl", lam=1.0).problem
    with pytest.raises(ValueError, match="parts="):
        sampled_hypergradient(problem, problem.phi, problem.phi, gamma=0.9, parts=parts)


def test_hypergradient_leaves_its_arguments_alone():
    whole = two_states(distance="reverse_kl", lam=1.0, eta=0.1)
    problem = whole.problem
    before = {name: param.clone() for name, param in problem.phi.items()}
    found, _ = sampled_hypergradient(problem, problem.phi, problem.phi, gamma=0.9)
    assert all(th.equal(problem.phi[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in (*problem.phi.values(), *found.values()))
