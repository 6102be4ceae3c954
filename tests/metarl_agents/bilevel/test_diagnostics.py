import warnings

import numpy as np
import pytest
import torch as th

from metarl_agents.bilevel import hypergradient
from metarl_agents.bilevel.diagnostics import absolute_lam, relative_lam
from metarl_agents.bilevel.exact import evaluate
from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.lower_level import DISTANCES
from tests.metarl_agents.bilevel.small_tasks import random_logits, random_mdps, tasks_of


def diagnostics_at(lam, name="reverse_kl", scale=0.5):
    tasks = tasks_of("high variance", 4)
    logits = random_logits(tasks, scale=scale)
    found = task_hypergradients(tasks, logits, distance=DISTANCES[name], lam=lam)
    return found, found.diagnostics


@pytest.mark.parametrize("name", DISTANCES)
def test_every_number_is_there_for_every_task(name):
    found, numbers = diagnostics_at(0.3, name)
    assert all(value.shape == (4,) and value.isfinite().all() for value in numbers.values())
    assert th.equal(numbers["return_after"], found.after.returns)
    assert bool((numbers["hessian_cond"] >= 1.0).all())
    assert bool((numbers["unvisited_mass"] < 1e-15).all())


def test_a_small_lambda_is_warned_of():
    with pytest.warns(UserWarning, match="lam is small.*effective sample size"):
        hypergradient(random_mdps(2), np.zeros((5, 3)), algorithm=2, lam=0.01)


def test_a_large_lambda_is_warned_of():
    with pytest.warns(UserWarning, match="lam is large"):
        hypergradient(random_mdps(2), np.zeros((5, 3)), algorithm=2, lam=1_000.0)


def test_a_lambda_between_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hypergradient(random_mdps(2), np.zeros((5, 3)), algorithm=2, lam=0.5)


def test_the_effective_sample_size_is_one_for_a_policy_that_does_not_move():
    _, still = diagnostics_at(1e6)
    _, moved = diagnostics_at(0.1)
    assert still["effective_sample_size"].tolist() == pytest.approx([1.0] * 4, abs=1e-4)
    assert bool((moved["effective_sample_size"] < 0.9).all())
    assert float(still["mean_kl"].max()) < 1e-9 < float(moved["mean_kl"].min())


def test_a_relative_lambda_does_not_see_the_scale_of_the_rewards():
    tasks = tasks_of("random, discount 0.8", 3)
    policy = random_logits(tasks).softmax(-1)
    q = evaluate(tasks, policy).action_values
    larger = evaluate(tasks._replace(rewards=7.0 * tasks.rewards), policy).action_values
    np.testing.assert_allclose(relative_lam(0.7, larger), relative_lam(0.1, q), rtol=1e-12)
    lam = absolute_lam(0.2, q)
    assert absolute_lam(0.2, larger) == pytest.approx(7.0 * lam)
    assert float((lam / relative_lam(lam, q)).mean()) == pytest.approx(lam / 0.2)
