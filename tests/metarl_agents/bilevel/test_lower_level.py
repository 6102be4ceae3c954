import numpy as np
import pytest
import torch as th
from scipy.optimize import brentq, minimize

from metarl_agents.bilevel.adaptation import adapted_policies, lower_level_at
from metarl_agents.bilevel.forward_kl import log_root
from metarl_agents.bilevel.lower_level import (
    DISTANCES,
    LowerLevel,
    distance_of,
    kl_divergence,
    solve_lower_level,
)
from metarl_agents.bilevel.newton import ProximalProblems, proximal_logits
from tests.metarl_agents.bilevel.small_tasks import SETTINGS, random_logits, random_mdps, tasks_of

LAMBDAS = (4.0, 1.0, 0.3, 0.1, 0.03)


def random_problem(lam, *, n_tasks=3, n_states=4, n_actions=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n_tasks, n_states, n_actions)
    return LowerLevel(
        th.as_tensor(rng.normal(size=shape)),
        th.as_tensor(rng.normal(size=shape)),
        th.as_tensor(rng.dirichlet(np.ones(n_states), size=n_tasks)),
        th.full((n_tasks,), lam, dtype=th.float64),
    )


def objective(distance, problem, theta):
    gain = (problem.occupancy * (theta.softmax(-1) * problem.action_values).sum(-1)).sum(-1)
    return problem.lam * distance.squared(problem, theta) - gain


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_the_solution_is_stationary_and_no_neighbour_is_better(distance, lam):
    problem = random_problem(lam)
    adapted = solve_lower_level(distance, problem)
    assert float(adapted.residual.max()) < 1e-12
    assert bool(adapted.decreased.all()) and bool((adapted.min_eigenvalue > 0).all())
    best = objective(distance, problem, adapted.logits)
    generator = th.Generator().manual_seed(0)
    for size in (1e-3, 0.1, 1.0):
        noise = th.randn(adapted.logits.shape, generator=generator, dtype=th.float64)
        assert bool((objective(distance, problem, adapted.logits + size * noise) >= best).all())


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_the_solution_is_that_of_a_general_optimiser(distance):
    problem = random_problem(0.5, n_tasks=1, n_states=2)

    def value(flat):
        theta = th.tensor(flat, dtype=th.float64).reshape(1, 2, 4).requires_grad_()
        result = objective(distance, problem, theta).sum()
        (gradient,) = th.autograd.grad(result, theta)
        return float(result.detach()), gradient.flatten().numpy()

    start = problem.logits.numpy().ravel()
    found = minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-10})
    expected = th.as_tensor(found.x).reshape(1, 2, 4).softmax(-1)
    adapted = solve_lower_level(distance, problem)
    # BFGS stops at a gradient of 1e-10, of problems with curvature of at least 1e-3.
    np.testing.assert_allclose(adapted.policy, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_kl_solutions_do_not_depend_on_the_occupancy(name):
    problem = random_problem(0.3)
    unvisited = problem._replace(occupancy=th.zeros_like(problem.occupancy))
    one, other = (solve_lower_level(DISTANCES[name], p) for p in (problem, unvisited))
    assert th.equal(one.logits, other.logits)


def test_forward_and_reverse_kl_agree_to_second_order_for_large_lambda():
    gaps = []
    for lam in (100.0, 200.0):
        problem = random_problem(lam)
        one, other = (
            solve_lower_level(DISTANCES[name], problem).policy
            for name in ("forward_kl", "reverse_kl")
        )
        gaps.append(float((one - other).abs().max()))
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.1)  # O(1 / lambda^2)


def test_reverse_kl_survives_probabilities_that_underflow():
    problem = random_problem(1e-4)
    adapted = solve_lower_level(DISTANCES["reverse_kl"], problem)
    assert bool(adapted.logits.isfinite().all())
    assert float(adapted.log_policy.min()) < -1_000.0


@pytest.mark.parametrize("seed", range(20))
def test_the_root_is_reached_across_many_scales(seed):
    rng = np.random.default_rng(seed)
    log_prior = th.as_tensor(rng.normal(size=(200, 5)) * 10 ** rng.uniform(-1, 2.5, size=(200, 1)))
    log_prior = log_prior.log_softmax(-1)
    log_gap = th.as_tensor(rng.uniform(-40, 5, size=(200, 5)))
    log_gap[th.arange(200), th.as_tensor(rng.integers(5, size=200))] = -th.inf
    root = log_root(log_prior, log_gap)
    total = (log_prior - th.logaddexp(root, log_gap)).logsumexp(-1)
    # Logarithms of up to 1e3 carry an error of 1e-13 each.
    assert float(total.abs().max()) < 1e-11


def test_the_root_is_that_of_a_bracketing_solver():
    p, gap = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.5, 0.01, 2.0])
    expected = brentq(lambda x: (p / (x + gap)).sum() - 1.0, 1e-9, 1.0, xtol=1e-15)
    found = log_root(th.as_tensor(p).log(), th.as_tensor(gap).log())
    assert float(found.exp()) == pytest.approx(expected, rel=1e-12)


def test_where_two_scales_meet_the_root_is_still_found():
    # Without the best action the sum is 1 - 1e-12: Newton alone would double x some forty times.
    log_prior = th.tensor([-46.0, 0.0], dtype=th.float64)
    log_gap = th.tensor([-th.inf, 1e-12], dtype=th.float64)
    root = log_root(log_prior, log_gap)
    assert float((log_prior - th.logaddexp(root, log_gap)).logsumexp(-1)) == pytest.approx(
        0.0, abs=1e-13
    )


def test_twenty_gradient_steps_are_what_they_say():
    problem = random_problem(0.5, n_tasks=1)
    theta = problem.logits.clone()
    prior, q = problem.logits.softmax(-1), problem.action_values / 0.5
    for _ in range(20):
        theta.requires_grad_()
        p = theta.softmax(-1)
        kl = (prior.clamp(min=1e-4) * (prior.clamp(min=1e-4) / p.clamp(min=1e-4)).log()).sum(-1)
        (gradient,) = th.autograd.grad((kl - (p * q).sum(-1)).sum(), theta)
        theta = theta.detach() - 0.6 * gradient
    adapted = solve_lower_level(DISTANCES["forward_kl"], problem, solver="sgd20")
    np.testing.assert_allclose(adapted.logits, theta, atol=1e-13)
    assert float(adapted.residual.min()) > 1e-3  # it is no solution


def test_newton_descends_where_the_problem_is_not_convex():
    rng = np.random.default_rng(3)
    problems = ProximalProblems(
        th.as_tensor(rng.normal(size=(500, 4))),
        th.as_tensor(5.0 * rng.normal(size=(500, 4))),
        th.as_tensor(rng.uniform(size=500)),
        th.full((500,), 0.01, dtype=th.float64),
    )
    start = th.linalg.eigvalsh(problems.hessian(problems.logits))
    assert float(start.min()) < -0.1
    theta = proximal_logits(problems, max_iterations=200)
    assert float(problems.gradient(theta).abs().max()) < 1e-10
    assert float(th.linalg.eigvalsh(problems.hessian(theta)).min()) > 0.0
    assert bool((problems.objective(theta) <= problems.objective(problems.logits)).all())


def test_an_unvisited_state_does_not_move_under_l2():
    problem = random_problem(0.1)
    problem.occupancy[:, 2] = 0.0
    adapted = solve_lower_level(DISTANCES["l2"], problem)
    assert th.equal(adapted.logits[:, 2], problem.logits[:, 2])
    assert not th.equal(adapted.logits[:, 1], problem.logits[:, 1])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("algorithm", [1, 2])
def test_adaptation_within_a_kl_divergence_never_lowers_the_return(setting, algorithm):
    tasks = tasks_of(setting, 5)
    for lam in LAMBDAS:
        before, problem = lower_level_at(tasks, random_logits(tasks), lam)
        policy = solve_lower_level(distance_of(algorithm), problem).policy
        progress = (policy * before.advantages).sum(-1)
        assert float(progress.min()) > -1e-12
        after, _ = lower_level_at(tasks, policy.log(), lam)
        assert bool((after.returns >= before.returns - 1e-12).all())


def test_divergences_of_policies_with_zeros():
    log_p = th.tensor([1.0, 0.0]).log()
    log_q = th.tensor([0.25, 0.75]).log()
    assert float(kl_divergence(log_p, log_q)) == pytest.approx(np.log(4.0))
    assert float(kl_divergence(log_q, log_p)) == np.inf


def test_adapted_policies_take_the_place_of_the_meta_policy():
    mdps = random_mdps(3)
    logits = np.random.default_rng(0).normal(size=(5, 3))
    one = adapted_policies(mdps, logits, algorithm=2, lam=0.5)
    two = adapted_policies(mdps, logits, algorithm=2, lam=0.5, n_steps=2)
    for i, mdp in enumerate(mdps):
        again = adapted_policies([mdp], np.log(one[i]), algorithm="reverse_kl", lam=0.5)
        np.testing.assert_allclose(two[i], again[0], atol=1e-12)
    none = adapted_policies(mdps, logits, algorithm=2, lam=0.5, n_steps=0)
    np.testing.assert_allclose(none[1], th.as_tensor(logits).softmax(-1))


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"algorithm": 4}, ValueError, "choose 1, 2 or 3"),
        ({"algorithm": "kl"}, ValueError, "forward_kl"),
        ({"lam": 0.0}, ValueError, "lam=0.0 must be positive"),
        ({"lam": "0.1"}, TypeError, "lam='0.1'"),
        ({"logits": np.zeros((5, 4))}, ValueError, r"\(S, A\) = \(5, 3\)"),
        ({"logits": np.full((5, 3), -np.inf)}, ValueError, "must be finite"),
        ({"logits": np.zeros((5, 3), dtype=complex)}, TypeError, "must hold real numbers"),
        ({"mdps": None}, TypeError, "mdps is a NoneType"),
        ({"n_steps": -1}, ValueError, "n_steps=-1 must be at least 0"),
        ({"n_steps": 1.5}, TypeError, "n_steps=1.5"),
        ({"solver": "sgd"}, ValueError, "solver='sgd'"),
        ({"solver": "sgd20"}, ValueError, "algorithm='forward_kl'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changed, error, text):
    usual = {"mdps": random_mdps(2), "logits": np.zeros((5, 3)), "algorithm": 2, "lam": 0.5}
    with pytest.raises(error, match=text):
        adapted_policies(**(usual | changed))


def test_algorithms_may_be_counted_in_integers_of_numpy():
    arguments = {"logits": np.zeros((5, 3)), "lam": 0.5}
    ours, theirs = (
        adapted_policies(random_mdps(2), algorithm=algorithm, **arguments)
        for algorithm in (2, np.int64(2))
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("scale", [0.0, 1e-12])
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_a_solution_that_stays_at_the_meta_policy_is_no_worse_than_it(distance, scale):
    problem = random_problem(4.0, n_tasks=50)
    problem = problem._replace(action_values=scale * problem.action_values)
    assert bool(solve_lower_level(distance, problem).decreased.all())


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_a_solution_under_a_huge_lambda_is_no_worse_than_the_meta_policy(distance):
    assert bool(solve_lower_level(distance, random_problem(1e12, n_tasks=50)).decreased.all())
