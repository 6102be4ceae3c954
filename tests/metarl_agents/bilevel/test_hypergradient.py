import numpy as np
import pytest
import torch as th

from metarl_agents.bilevel import adapted_policies, hypergradient
from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.exact import evaluate, return_gradient
from metarl_agents.bilevel.hypergradient import first_order_cosine, task_hypergradients
from metarl_agents.bilevel.implicit import block_conjugate_gradient, implicit_hypergradient
from metarl_agents.bilevel.lower_level import DISTANCES, solve_lower_level
from metarl_agents.bilevel.meta_step import backtracked_step
from metarl_agents.bilevel.settings import HypergradientSettings
from metarl_envs.tabular.mdp import policy_values
from tests.metarl_agents.bilevel.small_tasks import (
    SETTINGS,
    finite_differences,
    random_logits,
    random_mdps,
    relative_error,
    tasks_of,
)

LAMBDAS = (4.0, 1.0, 0.3, 0.1, 0.03)
IMPLICIT = HypergradientSettings(method="implicit")
FIRST_ORDER = HypergradientSettings(mode="first_order")


def returns_after(distance, lam):
    def objective(tasks, logits):
        _, problem = lower_level_at(tasks, logits, lam)
        return evaluate(tasks, solve_lower_level(distance, problem).policy).returns

    return objective


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_hypergradients_equal_finite_differences(setting, distance):
    tasks = tasks_of(setting, 2)
    logits = random_logits(tasks)
    for lam in LAMBDAS:
        found = task_hypergradients(tasks, logits, distance=distance, lam=lam).gradients
        # lambda 0.03 bends on a scale of 0.03: there h^8 needs the smaller step.
        h = 1e-3 if lam > 0.05 else 5e-4
        expected = finite_differences(tasks, returns_after(distance, lam), logits, h=h)
        # Rounding leaves 1e-12 of differences, and gradients are as small as 1e-4.
        assert relative_error(found.mean(0), expected.mean(0)) < 5e-8, lam
        assert relative_error(found, expected) < 5e-8, lam


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_implicit_differentiation_equals_the_closed_form(setting, distance):
    tasks = tasks_of(setting, 3)
    logits = random_logits(tasks)
    for lam in LAMBDAS:
        closed = task_hypergradients(tasks, logits, distance=distance, lam=lam)
        implicit = task_hypergradients(tasks, logits, distance=distance, lam=lam, settings=IMPLICIT)
        assert relative_error(implicit.gradients, closed.gradients) < (
            1e-10 if lam > 0.05 else 1e-9
        )
        assert implicit.linear_solve.n_iterations <= 2 * logits.shape[1]  # blocks of A actions


def test_autograd_through_the_closed_form_policy_is_the_hypergradient():
    tasks = tasks_of("slippery", 3)
    logits = random_logits(tasks)
    for lam in LAMBDAS:
        phi = logits.clone().requires_grad_()
        before = evaluate(tasks, phi.softmax(-1))
        after = evaluate(tasks, (phi + before.action_values / lam).softmax(-1))
        (expected,) = th.autograd.grad(after.returns.mean(), phi)
        found = task_hypergradients(tasks, logits, distance=DISTANCES["reverse_kl"], lam=lam)
        assert relative_error(found.gradients.mean(0), expected) < 1e-12


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_a_constant_added_to_the_logits_of_a_state_changes_nothing(distance):
    tasks = tasks_of("high variance", 4)
    found = task_hypergradients(tasks, random_logits(tasks), distance=distance, lam=0.3)
    assert float(found.gradients.sum(-1).abs().max()) < 1e-13 * float(found.gradients.norm())


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_for_large_lambda_it_is_the_policy_gradient_at_the_meta_policy(distance):
    tasks = tasks_of("random, discount 0.8", 4)
    logits = random_logits(tasks)
    found = task_hypergradients(tasks, logits, distance=distance, lam=1e6)
    plain = return_gradient(tasks, evaluate(tasks, logits.softmax(-1)))
    assert relative_error(found.gradients, plain) < 1e-5  # O(1 / lambda)


def test_first_order_is_the_policy_gradient_at_the_adapted_policy():
    tasks = tasks_of("random, discount 0.8", 4)
    distance = DISTANCES["forward_kl"]
    found = task_hypergradients(
        tasks, random_logits(tasks), distance=distance, lam=0.3, settings=FIRST_ORDER
    )
    assert th.equal(found.gradients, return_gradient(tasks, found.after))


def test_first_order_is_good_for_large_lambda_only():
    tasks = tasks_of("high variance", 6)
    logits = th.zeros_like(tasks.rewards[0])
    distance = DISTANCES["reverse_kl"]
    assert first_order_cosine(tasks, logits, distance=distance, lam=20.0) > 0.99
    with pytest.warns(UserWarning, match=r"cosine of 0\.\d+ with the exact one"):
        assert first_order_cosine(tasks, logits, distance=distance, lam=0.03) < 0.9


@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_objective_is_the_mean_return_of_the_adapted_policies(algorithm):
    mdps = random_mdps(3)
    logits = random_logits(tasks_of("random, discount 0.8", 1)).numpy()
    objective, gradient = hypergradient(mdps, logits, algorithm=algorithm, lam=0.5)
    policies = adapted_policies(mdps, logits, algorithm=algorithm, lam=0.5)
    returns = [m.initial @ policy_values(m, p) for m, p in zip(mdps, policies, strict=True)]
    assert objective == pytest.approx(np.mean(returns), abs=1e-13)
    assert gradient.shape == (5, 3) and gradient.dtype == np.float64
    name = list(DISTANCES)[algorithm - 1]
    assert hypergradient(mdps, logits, algorithm=name, lam=0.5)[0] == objective
    torch_logits = th.as_tensor(logits, dtype=th.float32)
    assert hypergradient(mdps, torch_logits, algorithm=name, lam=0.5)[1].dtype == np.float64


def test_the_mean_over_tasks_is_that_of_single_tasks():
    mdps = random_mdps(4)
    logits = np.zeros((5, 3))
    together = hypergradient(mdps, logits, algorithm=1, lam=0.5)[1]
    alone = [hypergradient([mdp], logits, algorithm=1, lam=0.5)[1] for mdp in mdps]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-15)


def test_ascent_along_the_hypergradient_learns():
    tasks = tasks_of("high variance", 5)
    logits = th.zeros_like(tasks.rewards[0])
    objectives = []
    for _ in range(40):
        found = task_hypergradients(tasks, logits, distance=DISTANCES["reverse_kl"], lam=0.5)
        gradient = found.gradients.mean(0)
        logits = logits + gradient / gradient.abs().max() * 0.2
        objectives.append(float(found.after.returns.mean()))
    assert objectives[-1] > 1.3 > objectives[0]  # the optimum is 1.638


# What is refused, and what is flagged ---------------------------------------------------------


def test_a_lower_level_that_is_not_solved_is_refused_unless_asked_for():
    mdps, logits = random_mdps(3), np.zeros((5, 3))
    shortcut = {"algorithm": "forward_kl", "lam": 0.3, "solver": "sgd20"}
    with pytest.raises(ValueError, match=r"residual of .* solver='exact'"):
        hypergradient(mdps, logits, **shortcut)
    with pytest.warns(UserWarning, match="not valid in 3 tasks"):
        hypergradient(mdps, logits, strict=False, **shortcut)
    hypergradient(mdps, logits, mode="first_order", **shortcut)
    with pytest.raises(ValueError, match="larger max_iterations"):
        hypergradient(mdps, logits, algorithm="l2", lam=0.1, max_iterations=1)


@pytest.mark.parametrize("method", ["closed_form", "implicit"])
def test_negative_curvature_is_never_reported_as_valid(method):
    tasks = tasks_of("random, discount 0.8", 3)
    logits = random_logits(tasks, scale=1.0)
    # One iteration ends far from the minimum, where the problem is not convex.
    loose = HypergradientSettings(method=method, max_iterations=1, tolerance=1e9)
    arguments = {"distance": DISTANCES["l2"], "lam": 3e-3}
    with pytest.raises(ValueError, match=r"too small for the lower level to be convex.*above 1.5"):
        task_hypergradients(tasks, logits, settings=loose, **arguments)
    with pytest.warns(UserWarning, match="too small for the lower level to be convex"):
        found = task_hypergradients(
            tasks, logits, settings=loose._replace(strict=False), **arguments
        )
    assert not bool(found.is_valid.all())


def test_a_lambda_that_the_message_asks_for_is_convex_everywhere():
    tasks = tasks_of("random, discount 0.8", 3)
    before, problem = lower_level_at(tasks, random_logits(tasks), 1.0)
    largest = before.occupancy.amax(-1) * before.advantages.abs().amax((-2, -1))
    problem = problem._replace(lam=1.5 * largest)
    generator = th.Generator().manual_seed(0)
    for _ in range(50):
        theta = 3.0 * th.randn(problem.logits.shape, generator=generator, dtype=th.float64)
        assert float(DISTANCES["l2"].curvature_range(problem, theta)[0].min()) > 0.0


def test_conjugate_gradients_stop_at_negative_curvature_and_say_so():
    matrices = th.stack([th.diag(th.tensor([2.0, 1.0])), th.diag(th.tensor([2.0, -1.0]))]).double()
    b = th.ones(2, 2, dtype=th.float64)
    solve = block_conjugate_gradient(
        lambda v: (matrices @ v[..., None])[..., 0],
        b,
        diagonal=th.ones_like(b),
        max_iterations=10,
        tolerance=1e-12,
    )
    assert solve.is_definite.tolist() == [True, False]
    np.testing.assert_allclose(solve.x[0], [0.5, 1.0])
    assert bool(solve.x[1].isfinite().all()) and float(solve.residual[1]) > 0.1


def test_states_that_the_data_never_visited_are_named():
    tasks = tasks_of("random, discount 0.8", 2)
    logits = random_logits(tasks)
    distance = DISTANCES["reverse_kl"]
    _, problem = lower_level_at(tasks, logits, 0.3)
    adapted = solve_lower_level(distance, problem)
    upper = return_gradient(tasks, evaluate(tasks, adapted.policy))
    problem.occupancy[1, [0, 3]] = 0.0
    with pytest.raises(ValueError, match=r"in task 1 .* never visited states \[0, 3\]"):
        implicit_hypergradient(tasks, distance, problem, adapted.logits, upper)
    closed = distance.pullback(problem, adapted.logits, upper)  # has no need of nu
    assert bool(closed.action_values.isfinite().all())


def test_small_probabilities_do_the_closed_forms_no_harm():
    tasks = tasks_of("high variance", 3)
    logits = 30.0 * random_logits(tasks)  # probabilities down to e^-60
    for name in ("forward_kl", "reverse_kl"):
        found = task_hypergradients(tasks, logits, distance=DISTANCES[name], lam=0.01)
        assert bool(found.gradients.isfinite().all())
        assert float(found.diagnostics["hessian_cond"].max()) > 1e30


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"mode": "second"}, "mode='second'"),
        ({"method": "cg"}, "method='cg'"),
        ({"algorithm": 0}, "algorithm=0 is unknown"),
        ({"lam": -1.0}, "lam=-1.0 must be positive"),
        ({"max_iterations": 0}, "max_iterations=0 must be at least 1"),
        ({"tolerance": 0.0}, "tolerance=0.0 must be finite and above 0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changed, text):
    arguments = {"algorithm": 2, "lam": 0.5} | changed
    with pytest.raises(ValueError, match=text):
        hypergradient(random_mdps(2), np.zeros((5, 3)), **arguments)


def test_a_step_that_is_too_long_is_shortened_until_the_return_does_not_fall():
    def objective(logits):
        return -float(logits.square().sum())

    start = th.tensor([[1.0, 0.0]])
    step = backtracked_step(start, th.tensor([[-8.0, 0.0]]), objective, objective_before=-1.0)
    assert step.accepted and step.n_backtracks == 2 and step.objective == -1.0
    away = backtracked_step(start, th.tensor([[1.0, 0.0]]), objective, objective_before=-1.0)
    assert not away.accepted and away.logits is start
