"""Exact policy-gradient adaptation: its derivatives, and what is left out of the naive one."""

import pytest
import torch as th

from metarl_agents.bilevel.exact import evaluate, return_gradient
from metarl_agents.bilevel.policy_gradient import (
    gradient_steps,
    hessian_product,
    maml_gradients,
    multi_task_gradients,
)
from tests.metarl_agents.bilevel.small_tasks import (
    finite_differences,
    random_logits,
    relative_error,
    tasks_of,
)

ALPHA = 0.7


def returns_after(n_steps):
    def objective(tasks, logits):
        after = gradient_steps(tasks, logits, ALPHA, n_steps=n_steps)[-1]
        return evaluate(tasks, after.softmax(-1)).returns

    return objective


@pytest.mark.parametrize("n_steps", [0, 1, 2])
@pytest.mark.parametrize("setting", ["random, discount 0.8", "high variance"])
def test_exact_meta_gradient_is_that_of_finite_differences(setting, n_steps):
    tasks = tasks_of(setting, 2)
    logits = random_logits(tasks)
    found = maml_gradients(tasks, logits, ALPHA, n_steps=n_steps)
    expected = finite_differences(tasks, returns_after(n_steps), logits)
    # The error of the differences; see small_tasks.
    assert relative_error(found.gradients, expected) < 1e-9
    th.testing.assert_close(found.returns, returns_after(n_steps)(tasks, logits))


def test_the_hessian_is_symmetric():
    tasks = tasks_of("random, discount 0.99", 1)
    at = evaluate(tasks, random_logits(tasks).softmax(-1))
    u, v = random_logits(tasks, seed=1)[None], random_logits(tasks, seed=2)[None]
    left = (u * hessian_product(tasks, at, v)).sum()
    right = (v * hessian_product(tasks, at, u)).sum()
    th.testing.assert_close(left, right, rtol=1e-10, atol=0.0)


def test_modes_agree_where_the_step_vanishes_and_differ_where_it_does_not():
    tasks = tasks_of("random, discount 0.8", 2)
    logits = random_logits(tasks)
    plain = multi_task_gradients(tasks, logits)
    for mode in ("exact", "naive", "first_order"):
        found = maml_gradients(tasks, logits, 1e-9, mode=mode)
        th.testing.assert_close(found.gradients, plain.gradients, rtol=1e-6, atol=1e-8)
    exact, naive, first = (
        maml_gradients(tasks, logits, ALPHA, mode=mode).gradients
        for mode in ("exact", "naive", "first_order")
    )
    assert relative_error(naive, exact) > 1e-3
    assert relative_error(first, exact) > 1e-3
    assert relative_error(naive, first) > 1e-3


def test_naive_differentiates_the_step_with_constant_occupancy_and_advantages():
    tasks = tasks_of("random, discount 0.8", 1)
    phi = random_logits(tasks)[None].requires_grad_()
    at = evaluate(tasks, phi.detach().softmax(-1))
    scale = (at.occupancy / (1 - tasks.discount)[:, None])[..., None]
    theta = phi + ALPHA * scale * at.advantages * phi.softmax(-1)
    after = evaluate(tasks, theta.detach().softmax(-1))
    (expected,) = th.autograd.grad((theta * return_gradient(tasks, after)).sum(), phi)
    found = maml_gradients(tasks, phi.detach(), ALPHA, mode="naive").gradients
    assert relative_error(found, expected) < 1e-12


def test_every_task_may_have_a_step_size_of_its_own():
    tasks = tasks_of("random, discount 0.8", 2)
    logits = random_logits(tasks)
    both = maml_gradients(tasks, logits, th.tensor([0.5, 2.0], dtype=th.float64)).gradients
    for i, alpha in enumerate((0.5, 2.0)):
        th.testing.assert_close(both[i], maml_gradients(tasks, logits, alpha).gradients[i])
