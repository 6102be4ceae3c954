import pytest
import torch as th

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.arguments import stacked_tasks
from metarl_agents.bilevel.exact import action_values_vjp, evaluate, occupancy_vjp
from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.lower_level import DISTANCES, solve_lower_level
from metarl_agents.bilevel.sampled import (
    SampledEvaluation,
    sampled_action_values_vjp,
    sampled_evaluation,
    sampled_hypergradients,
    sampled_occupancy_vjp,
    sampled_problem,
    sampled_rollouts,
)
from tests.metarl_agents.bilevel.small_tasks import (
    high_variance_lakes,
    random_logits,
    relative_error,
    tasks_of,
)


def generator():
    return th.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def played():
    """Tasks, logits, the exact evaluation, many episodes, and what they say with the exact Q."""
    tasks = tasks_of("random, discount 0.8", 3)
    logits = random_logits(tasks, scale=0.3).expand_as(tasks.rewards)
    before = evaluate(tasks, logits.softmax(-1))
    # 0.8^40 = 1e-4 is left of an episode.
    rollouts = sampled_rollouts(
        tasks, before.policy, n_episodes=20_000, n_steps=40, generator=generator()
    )
    known = SampledEvaluation(
        before.policy, before.action_values, before.occupancy, th.ones_like(before.policy)
    )
    return tasks, logits, before, rollouts, known


def test_episodes_visit_states_as_often_as_the_occupancy_says(played):
    tasks, _, before, rollouts, _ = played
    short = rollouts._replace(
        states=rollouts.states[:, :50], actions=rollouts.actions[:, :50],
        rewards=rollouts.rewards[:, :50],
    )  # fmt: skip
    seen = sampled_evaluation(short, before.policy, tasks.discount)
    # 50 episodes of some 5 steps that count.
    assert float((seen.occupancy - before.occupancy).abs().max()) < 0.1
    assert seen.occupancy.sum(-1).tolist() == pytest.approx([1.0] * 3)
    assert int(seen.counts.sum()) == 3 * 50 * 40


def test_sampled_jacobian_products_approach_the_exact_ones(played):
    tasks, _, before, rollouts, known = played
    cotangent = th.randn(before.policy.shape, generator=generator(), dtype=th.float64)
    found, skipped = sampled_action_values_vjp(
        rollouts, known, before.advantages, tasks.discount, cotangent
    )
    # Some 2 % of noise with 20,000 episodes; a wrong factor gamma would show as 20 %.
    assert relative_error(found, action_values_vjp(tasks, before, cotangent)) < 0.05
    assert skipped.tolist() == [0.0] * 3
    found = sampled_occupancy_vjp(rollouts, before.policy, tasks.discount, cotangent[..., 0])
    assert relative_error(found, occupancy_vjp(tasks, before, cotangent[..., 0])) < 0.08


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_sampled_hypergradients_approach_the_exact_ones(played, distance):
    tasks, logits, before, rollouts, known = played
    _, problem = lower_level_at(tasks, logits, 0.5)
    adapted = solve_lower_level(distance, problem)
    after = evaluate(tasks, adapted.policy)
    known_after = SampledEvaluation(
        after.policy, after.action_values, after.occupancy, th.ones_like(after.policy)
    )
    found = sampled_hypergradients(
        problem, adapted, rollouts, known, known_after, distance=distance, discount=tasks.discount
    )
    exact = task_hypergradients(tasks, logits, distance=distance, lam=0.5)
    assert relative_error(found.gradients, exact.gradients) < 0.05


def test_expected_sarsa_learns_the_action_values():
    tasks = stacked_tasks(high_variance_lakes(2))
    policy = th.full_like(tasks.rewards, 0.25)
    rollouts = sampled_rollouts(tasks, policy, n_episodes=150, n_steps=49, generator=generator())
    seen = sampled_evaluation(rollouts, policy, tasks.discount, require_start=True)
    before = evaluate(tasks, policy)
    error = (seen.action_values - before.action_values).square()
    weighted = (before.occupancy[..., None] * policy * error).sum((-2, -1)).sqrt()
    # A constant step of 0.3 leaves noise: a third of what is learnt.
    assert float(weighted.max()) < 0.5 < float(before.returns.abs().min()) / 3.0
    problem = sampled_problem(th.zeros_like(policy), seen, 0.5)
    adapted = evaluate(tasks, solve_lower_level(DISTANCES["reverse_kl"], problem).policy)
    assert bool((adapted.returns > before.returns + 0.5).all())


def test_pairs_that_were_never_played_are_reported_and_keep_their_first_value():
    tasks = stacked_tasks(high_variance_lakes(2))
    policy = th.full_like(tasks.rewards, 0.25)
    rollouts = sampled_rollouts(tasks, policy, n_episodes=3, n_steps=5, generator=generator())
    for initial in (0.0, 5.0):  # pessimistic or optimistic
        seen = sampled_evaluation(rollouts, policy, tasks.discount, initial=initial)
        assert bool((seen.action_values[seen.counts == 0] == initial).all())
    assert bool((seen.coverage < 0.5).all())
    unvisited = (seen.counts == 0).to(policy.dtype)
    cotangent = 3.0 * unvisited + (1.0 - unvisited)
    found, skipped = sampled_action_values_vjp(
        rollouts, seen, seen.advantages, tasks.discount, cotangent
    )
    share = 3.0 * unvisited.sum((-2, -1)) / cotangent.sum((-2, -1))
    assert skipped.tolist() == pytest.approx(share.tolist())
    assert bool(found.isfinite().all())


def test_actions_never_played_at_the_start_are_an_error():
    tasks = stacked_tasks(high_variance_lakes(2))
    policy = th.tensor([1.0, 0.0, 0.0, 0.0], dtype=th.float64).expand_as(tasks.rewards)
    rollouts = sampled_rollouts(tasks, policy, n_episodes=3, n_steps=5, generator=generator())
    with pytest.raises(ValueError, match="in task 0 no episode played action 1 in state 0"):
        sampled_evaluation(rollouts, policy, tasks.discount, require_start=True)


def test_the_same_generator_plays_the_same_episodes():
    tasks = tasks_of("slippery", 2)
    policy = th.full_like(tasks.rewards, 0.25)
    one, other = (
        sampled_rollouts(tasks, policy, n_episodes=4, n_steps=6, generator=generator())
        for _ in range(2)
    )
    assert th.equal(one.states, other.states) and th.equal(one.rewards, other.rewards)
