import pytest
import torch as th

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.exact import evaluate
from metarl_agents.bilevel.lower_level import DISTANCES, surrogate_gain
from metarl_agents.bilevel.trust_region import solve_trust_region, trust_region_hypergradients
from tests.metarl_agents.bilevel.small_tasks import (
    finite_differences,
    random_logits,
    relative_error,
    tasks_of,
)


@pytest.mark.parametrize("setting", ["high variance", "random, discount 0.99"])
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_the_solution_lies_on_the_border_and_no_policy_inside_is_better(setting, distance):
    tasks = tasks_of(setting, 3)
    _, problem = lower_level_at(tasks, random_logits(tasks), 1.0)
    solution = solve_trust_region(distance, problem, max_distance=0.1)
    theta = solution.adapted.logits
    assert distance.squared(problem, theta).tolist() == pytest.approx([0.1] * 3, rel=1e-10)
    assert bool((solution.problem.lam > 0.0).all())
    best = surrogate_gain(problem, theta)
    generator = th.Generator().manual_seed(0)
    n_inside = 0
    for size in (0.01, 0.1, 0.5):
        noise = size * th.randn(theta.shape, generator=generator, dtype=th.float64)
        for shrink in (0.5, 0.8, 0.95, 1.0):
            other = problem.logits + shrink * (theta + noise - problem.logits)
            is_inside = distance.squared(problem, other) <= 0.1
            n_inside += int(is_inside.sum())
            assert bool((surrogate_gain(problem, other) <= best)[is_inside].all())
    assert n_inside > 5


@pytest.mark.parametrize("setting", ["high variance", "random, discount 0.99"])
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_its_hypergradient_equals_finite_differences(setting, distance):
    tasks = tasks_of(setting, 2)
    logits = random_logits(tasks)

    def objective(repeated, shifted):
        _, problem = lower_level_at(repeated, shifted, 1.0)
        solution = solve_trust_region(distance, problem, max_distance=0.1)
        return evaluate(repeated, solution.adapted.policy).returns

    found = trust_region_hypergradients(tasks, logits, distance=distance, max_distance=0.1)
    expected = finite_differences(tasks, objective, logits)
    assert relative_error(found.gradients, expected) < 1e-8
    assert bool(found.is_valid.all())


def test_a_constraint_that_is_not_active_is_refused():
    tasks = tasks_of("random, discount 0.8", 2)
    _, problem = lower_level_at(tasks, random_logits(tasks), 1.0)
    with pytest.raises(ValueError, match=r"max_distance=50.0 is not reached in task 0"):
        solve_trust_region(DISTANCES["reverse_kl"], problem, max_distance=50.0)
