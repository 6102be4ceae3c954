import numpy as np
import pytest
import torch as th

from metarl_agents.bilevel import exact
from metarl_agents.bilevel.arguments import stacked_tasks
from metarl_envs.tabular.mdp import (
    FiniteMDP,
    action_values,
    occupancy,
    optimal_values,
    policy_values,
)
from metarl_envs.tabular.successors import SparseMDP
from tests.metarl_agents.bilevel.small_tasks import (
    SETTINGS,
    finite_differences,
    random_logits,
    random_mdps,
    relative_error,
    tasks_of,
)


@pytest.mark.parametrize("setting", SETTINGS)
def test_evaluation_equals_the_numpy_reference(setting):
    mdps = SETTINGS[setting](4)
    tasks = stacked_tasks(mdps)
    policy = random_logits(tasks).softmax(-1)
    at = exact.evaluate(tasks, policy)
    for i, mdp in enumerate(mdps):
        values = policy_values(mdp, policy.numpy())
        # Both solve systems of condition at most 2 / (1 - gamma) = 200 in float64.
        close = {"rtol": 0.0, "atol": 1e-11}
        np.testing.assert_allclose(at.values[i], values, **close)
        np.testing.assert_allclose(at.action_values[i], action_values(mdp, values), **close)
        visits = occupancy(mdp, policy.numpy())
        np.testing.assert_allclose(at.occupancy[i], visits.sum(-1), **close)
        np.testing.assert_allclose(at.returns[i], mdp.initial @ values, **close)


@pytest.mark.parametrize("setting", SETTINGS)
def test_optimal_action_values_equal_the_numpy_reference(setting):
    mdps = SETTINGS[setting](4)
    q = exact.optimal_action_values(stacked_tasks(mdps))
    for i, mdp in enumerate(mdps):
        expected = action_values(mdp, optimal_values(mdp))
        np.testing.assert_allclose(q[i], expected, rtol=0.0, atol=1e-10)


def test_tasks_do_not_depend_on_their_neighbours():
    tasks = tasks_of("random, discount 0.8", 6)
    policy = random_logits(tasks).softmax(-1)
    together = exact.evaluate(tasks, policy).action_values[[4, 1]]
    alone = exact.evaluate(tasks.subset([4, 1]), policy).action_values
    assert th.equal(together, alone)


@pytest.mark.parametrize("setting", ["high variance", "random, discount 0.99"])
def test_products_with_jacobians_equal_finite_differences(setting):
    tasks = tasks_of(setting, 3)
    logits = random_logits(tasks)
    rng = np.random.default_rng(1)
    of_q = th.as_tensor(rng.normal(size=tasks.rewards.shape))
    of_nu = th.as_tensor(rng.normal(size=tasks.initial.shape))
    per_task = tasks.rewards[0].numel()

    def weighted(repeated, shifted):
        at = exact.evaluate(repeated, shifted.softmax(-1))
        on_q = (of_q.repeat_interleave(per_task, 0) * at.action_values).sum((-2, -1))
        return th.stack([on_q, (of_nu.repeat_interleave(per_task, 0) * at.occupancy).sum(-1)])

    at = exact.evaluate(tasks, logits.softmax(-1))
    products = [
        exact.action_values_vjp(tasks, at, of_q),
        exact.occupancy_vjp(tasks, at, of_nu),
    ]
    for i, product in enumerate(products):
        expected = finite_differences(tasks, lambda t, x, i=i: weighted(t, x)[i], logits)
        assert relative_error(product, expected) < 1e-9


def test_products_with_jacobians_equal_autograd():
    tasks = tasks_of("slippery", 3)
    logits = random_logits(tasks).requires_grad_()
    at = exact.evaluate(tasks, logits.softmax(-1))
    cotangent = th.as_tensor(np.random.default_rng(1).normal(size=tasks.rewards.shape))
    (expected,) = th.autograd.grad((at.action_values * cotangent).sum(), logits, retain_graph=True)
    found = exact.action_values_vjp(tasks, at, cotangent).sum(0)
    assert relative_error(found.detach(), expected) < 1e-12
    (expected,) = th.autograd.grad(at.returns.sum(), logits)
    assert relative_error(exact.return_gradient(tasks, at).sum(0).detach(), expected) < 1e-12


def test_tasks_may_differ_in_their_discount():
    mdps = [random_mdps(1, discount=0.8)[0], random_mdps(1, discount=0.99)[0]]
    tasks = stacked_tasks(mdps)
    at = exact.evaluate(tasks, random_logits(tasks).softmax(-1))
    for i, mdp in enumerate(mdps):
        alone = stacked_tasks([mdp])
        expected = exact.evaluate(alone, random_logits(tasks).softmax(-1))
        np.testing.assert_allclose(at.values[i], expected.values[0], atol=1e-12)


def test_a_batch_of_mdps_is_a_sequence_of_them():
    mdps = random_mdps(3)
    names = ("transitions", "rewards", "initial")
    batch = FiniteMDP(*(np.stack([getattr(m, name) for m in mdps]) for name in names), 0.8)
    for one, other in zip(stacked_tasks(mdps), stacked_tasks(batch), strict=True):
        assert th.equal(one, other)


def _undiscounted():
    mdp = random_mdps(1)[0]
    return FiniteMDP(mdp.transitions, mdp.rewards, mdp.initial, 1.0, 5)


@pytest.mark.parametrize(
    ("mdps", "error", "text"),
    [
        ([], ValueError, "at least one task"),
        ([_undiscounted()], ValueError, "horizon=None and a discount below 1"),
        ([SparseMDP.from_finite_mdp(random_mdps(1)[0])], TypeError, "to_finite_mdp"),
        (random_mdps(1)[0], ValueError, "into a list"),
        ([random_mdps(1)[0], random_mdps(1, n_states=4)[0]], ValueError, r"mdps\[1\].*same states"),
    ],
)
def test_mdps_that_do_not_fit_are_refused(mdps, error, text):
    with pytest.raises(error, match=text):
        stacked_tasks(mdps)
