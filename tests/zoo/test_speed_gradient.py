"""Contenders in meta-learning do the same work, and every bar names a contender."""

import pytest
import torch as th

from metarl_agents.common.fisher import meta_fisher_product
from metarl_agents.common.meta_gradient import meta_gradient
from zoo.speed import cloning
from zoo.speed.gradient import contenders
from zoo.speed.gradient.problem import INNER_LR, Problem, kept_backprop, problem, task_loss


@pytest.fixture(scope="module")
def small() -> Problem:
    return problem(n_tasks=3, n_steps=5)


def test_cloned_modules_have_our_meta_gradient(small: Problem) -> None:
    policy = cloning.GaussianPolicy(17, 6)
    # Layers 0, 2 and 4 of theirs are linear.
    names = {f"mean.{2 * i}.{p}": f"layers.{i}.{p}" for i in range(3) for p in ("weight", "bias")}
    names["log_std"] = "log_std"
    policy.load_state_dict({theirs: small.params[ours] for theirs, ours in names.items()})
    found = meta_gradient(lambda p, d: task_loss(small.network, p, d), small.params, small.data)
    gradients = cloning.meta_gradient(policy, small.data, INNER_LR)
    for (theirs, _), value in zip(policy.named_parameters(), gradients, strict=True):
        # float32 sums of 100 terms in another order.
        th.testing.assert_close(found.gradient[names[theirs]], value, rtol=1e-3, atol=1e-5)


def test_double_backprop_with_kept_graphs_is_our_product(small: Problem) -> None:
    inner, outer = small.data
    ours = meta_fisher_product(small.network, small.params, [inner], outer, inner_lr=INNER_LR)
    theirs = kept_backprop(small)(small.params)
    for name, image in ours(small.params).items():
        th.testing.assert_close(image, theirs[name], rtol=1e-3, atol=1e-5)


def test_every_comparison_is_with_a_contender(
    monkeypatch: pytest.MonkeyPatch, small: Problem
) -> None:
    monkeypatch.setattr(contenders, "problem", lambda *_: small)
    for group in (contenders.meta_gradients(peers=True), contenders.curvature()):
        for name, contender in group.items():
            contender.run()
            assert {reference for reference, _ in contender.against} <= set(group), name
