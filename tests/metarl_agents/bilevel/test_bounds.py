from functools import cache

import numpy as np
import pytest
import torch as th

from metarl_agents.bilevel import adapted_policies, bounds, bounds_table
from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.bound_formulas import worst_case_constant
from metarl_agents.bilevel.bounds import BOUNDS, compare
from metarl_agents.bilevel.comparators import (
    comparator_of,
    nearest_optimal,
    reachable_states,
    softened,
    task_variance,
)
from metarl_agents.bilevel.exact import evaluate, optimal_action_values
from metarl_agents.bilevel.lower_level import DISTANCES, kl_divergence
from metarl_envs.tabular.mdp import optimal_values, policy_values
from tests.metarl_agents.bilevel.small_tasks import (
    SETTINGS,
    high_variance_lakes,
    random_logits,
    random_mdps,
    tasks_of,
)

QUICK = {"n_variance_steps": 0}


@cache
def cases(setting, algorithm):
    """Meta-policies from uniform to nearly deterministic, and lambdas from large to small."""
    return list(_cases(setting, algorithm))


def _cases(setting, algorithm):
    mdps = SETTINGS[setting](6)
    for seed, lam in enumerate((4.0, 0.5, 0.1, 0.03)):
        for scale in (0.0, 0.5, 2.0):
            logits = random_logits(tasks_of(setting, 1), scale=scale, seed=seed).numpy()
            yield bounds(mdps, logits, algorithm=algorithm, lam=lam, n_steps=3, **QUICK)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_no_bound_is_violated_where_its_assumptions_are_true(setting, algorithm):
    for found in cases(setting, algorithm):
        rounding = 1e-9 * (1.0 + abs(found["optimal_return"]))
        for name in ("B1", "B2", "B3", "B4", "B5", "B6"):
            gap = found["gap_after_steps" if name == "B6" else "gap"]
            holds = np.logical_and.reduce(list(found["assumptions"][name].values()))
            assert np.all((gap <= found[name] + rounding)[holds]), name
        for name in ("B2", "B3", "B5"):  # certified: their assumptions are always true
            assert all(truth.all() for truth in found["assumptions"][name].values()), name


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_the_identity_equals_the_gap(setting, algorithm):
    for found in cases(setting, algorithm):
        # For l2, theta' - phi keeps 1e-16 of phi, times 2 lambda / (1 - gamma) pi* / pi' ~ 1e7.
        np.testing.assert_allclose(found["B0"], found["gap"], rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_the_gap_is_that_of_the_adapted_policies(algorithm):
    mdps = random_mdps(3)
    found = bounds(mdps, np.zeros((5, 3)), algorithm=algorithm, lam=0.5, n_steps=2, **QUICK)
    for name, n_steps in (("gap_before", 0), ("gap", 1), ("gap_after_steps", 2)):
        policies = adapted_policies(
            mdps, np.zeros((5, 3)), algorithm=algorithm, lam=0.5, n_steps=n_steps
        )
        for i, mdp in enumerate(mdps):
            best, reached = optimal_values(mdp), policy_values(mdp, policies[i])
            assert found[name][i] == pytest.approx(mdp.initial @ (best - reached), abs=1e-10)


def test_the_published_form_is_flagged_where_its_assumption_is_false():
    mdps = high_variance_lakes(8)
    found = bounds(
        mdps, random_logits(tasks_of("high variance", 1)), algorithm=2, lam=0.03, **QUICK
    )
    broken = found["gap"] > found["B4"] + 1e-9
    assert broken.any() and not found["assumption_ok"][broken].any()
    assert np.array_equal(
        found["assumption_ok"],
        (found["k_star"] <= 0.8 * 0.03) & (found["k_one"] <= 0.03),
    )
    text = bounds_table(found)
    assert all(name in text for name in BOUNDS)
    assert "k* <= gamma lam: in" in text and "largest" in text
    large = bounds(mdps, np.zeros((16, 4)), algorithm=2, lam=4.0, **QUICK)
    assert large["assumption_ok"].all() and "k* <= gamma lam: yes" in bounds_table(large)
    assert large["B_paper"] == pytest.approx((4.0 * 9.0 * large["distance"]).mean())


def test_bounds_that_an_algorithm_has_not_are_not_a_number():
    found = bounds(random_mdps(2), np.zeros((5, 3)), algorithm=1, lam=0.5, **QUICK)
    assert np.isnan(found["B6"]).all()
    assert not found["assumptions"]["B6"]["the algorithm is reverse_kl"].any()
    assert found["epsilon"] == 1e-4 and (found["own_gap"] > 0.0).all()


@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_other_comparators_add_their_own_gap(algorithm):
    mdps = random_mdps(4)
    coarse = adapted_policies(mdps, np.zeros((5, 3)), algorithm=2, lam=0.2, n_steps=3)
    found = bounds(
        mdps, np.zeros((5, 3)), algorithm=algorithm, lam=0.3, comparators=coarse, **QUICK
    )
    assert (found["own_gap"] > 0.0).all()
    np.testing.assert_allclose(found["B0"], found["gap"], atol=1e-10)
    assert (found["gap"] <= found["B3"] + 1e-10).all()
    assert (found["gap"] <= found["B5"] + 1e-10).all()
    with pytest.raises(ValueError, match=r"\(M, S, A\) = \(4, 5, 3\)"):
        bounds(mdps, np.zeros((5, 3)), algorithm=2, lam=0.3, comparators=coarse[:2])


# The lower bound and the improvement ----------------------------------------------------------


@pytest.mark.parametrize("discount", [0.8, 0.99])
@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_the_surrogate_is_a_lower_bound_of_the_return_for_the_worst_case_lambda(discount, distance):
    tasks = tasks_of(f"random, discount {discount}", 6)
    logits = random_logits(tasks)
    comparator = comparator_of(tasks, distance, logits, policies=None, smallest=1e-4)
    c = compare(tasks, distance, logits, 1.0, comparator=comparator)
    lam = worst_case_constant(c)
    generator = th.Generator().manual_seed(0)
    for size in (0.01, 0.3, 1.0, 5.0):
        noise = th.randn(tasks.rewards.shape, generator=generator, dtype=th.float64)
        theta = logits + size * noise
        at = evaluate(tasks, theta.softmax(-1))
        gain = (c.before.occupancy * (at.policy * c.before.advantages).sum(-1)).sum(-1)
        penalty = lam * distance.squared(c.problem, theta)
        promised = c.before.returns + (gain - penalty) / (1.0 - discount)
        assert bool((at.returns >= promised - 1e-12).all())
        # Not even with the sign reversed does the error exceed the penalty.
        surplus = at.returns - c.before.returns - (gain + penalty) / (1.0 - discount)
        assert float(surplus.max()) < 1e-12


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_the_return_never_falls_where_improvement_is_guaranteed(setting, algorithm):
    for found in cases(setting, algorithm):
        assert found["improvement_is_guaranteed"].all()
        assert (found["improvement"] >= -1e-11).all()


# Comparators ----------------------------------------------------------------------------------


def test_of_tied_optimal_policies_the_nearest_is_taken():
    tasks = tasks_of("high variance", 6)
    logits = random_logits(tasks)
    optimal_q = optimal_action_values(tasks)
    log_policy = nearest_optimal(optimal_q, logits)
    values = evaluate(tasks, log_policy.exp()).values
    np.testing.assert_allclose(values, optimal_q.amax(-1), atol=1e-12)  # it is optimal
    first = th.nn.functional.one_hot(optimal_q.argmax(-1), 4).to(logits.dtype)
    prior = logits.log_softmax(-1).expand_as(first)
    near, fixed = kl_divergence(log_policy, prior), kl_divergence(first.log(), prior)
    assert bool((near <= fixed + 1e-12).all()) and float((fixed - near).max()) > 0.5


def test_the_nearest_optimal_policy_is_nearer_than_the_limit_of_adaptation():
    mdps = high_variance_lakes(4)
    tasks = tasks_of("high variance", 4)
    logits = random_logits(tasks)
    log_policy = nearest_optimal(optimal_action_values(tasks), logits)
    limit = adapted_policies(mdps, logits, algorithm=2, lam=0.05, n_steps=60)
    before, problem = lower_level_at(tasks, logits, 1.0)
    distance = DISTANCES["reverse_kl"]
    near = distance.squared(problem, log_policy)
    far = distance.squared(problem, th.as_tensor(limit).log().clamp(min=-1e4))
    assert bool((near <= far + 1e-9).all())


def test_a_softened_policy_has_no_zeros():
    log_policy = th.tensor([1.0, 0.0, 0.0], dtype=th.float64).log()
    p = softened(log_policy, 1e-4).exp()
    assert p.tolist() == pytest.approx([1 / 1.0002, 1e-4 / 1.0002, 1e-4 / 1.0002])


def test_reachable_states_are_those_with_an_occupancy():
    tasks = tasks_of("high variance", 6)
    reached = reachable_states(tasks)
    occupancy = evaluate(tasks, th.full_like(tasks.rewards, 0.25)).occupancy
    assert th.equal(reached, occupancy > 1e-12)
    assert not bool(reached.all())


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_task_variance_falls_from_the_uniform_policy_and_vanishes_for_equal_tasks(distance):
    tasks = tasks_of("low variance", 5)
    start, _ = task_variance(tasks, distance, n_steps=0)
    variance, _ = task_variance(tasks, distance, n_steps=60)
    alone, logits = task_variance(tasks.subset([2, 2]), distance, n_steps=60)
    assert alone < variance < start
    _, problem = lower_level_at(tasks.subset([2, 2]), logits, 1.0)
    comparator = comparator_of(tasks.subset([2, 2]), distance, logits, policies=None, smallest=1e-4)
    measured = float(distance.squared(problem, comparator.logits).mean())
    assert measured == pytest.approx(alone, rel=1e-9)
