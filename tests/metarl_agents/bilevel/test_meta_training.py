"""Meta-training: settings side by side learn what they would learn alone."""

import numpy as np
import torch as th

from metarl_agents.bilevel.exact import evaluate
from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.meta_training import bo_mrl_gradients, mean_gradients, meta_trained
from metarl_agents.bilevel.policy_gradient import multi_task_gradients
from tests.metarl_agents.bilevel.small_tasks import random_logits, tasks_of

SIZE = {"n_iterations": 4, "meta_batch_size": 3, "learning_rate": 0.1}


def learned(tasks, lams, **changes):
    follow = bo_mrl_gradients(distance_of(2), th.tensor(lams, dtype=th.float64))
    rng = np.random.default_rng(0)
    arguments = {**SIZE, "n_settings": len(lams), "rng": rng, **changes}
    return meta_trained(tasks, follow, **arguments)


def test_a_setting_learns_the_same_beside_others():
    tasks = tasks_of("low variance", 6)
    both = learned(tasks, [1.0, 0.3])
    for i, lam in enumerate((1.0, 0.3)):
        alone = learned(tasks, [lam])
        # Products of batches of another size may be rounded otherwise.
        th.testing.assert_close(both.logits[i], alone.logits[0], rtol=1e-9, atol=1e-9)
        th.testing.assert_close(both.returns[:, i], alone.returns[:, 0])


def test_mini_batches_hold_different_tasks():
    tasks = tasks_of("low variance", 6)
    seen = []

    def follow(batch, logits, settings):
        seen.append(batch.rewards)
        return multi_task_gradients(batch, logits)

    meta_trained(tasks, follow, n_settings=1, rng=np.random.default_rng(0), **SIZE)
    assert len(seen) == SIZE["n_iterations"]
    for rewards in seen:
        assert len(rewards) == len({tuple(row.flatten().tolist()) for row in rewards}) == 3


def test_the_return_after_adaptation_rises():
    tasks = tasks_of("high variance", 6)
    found = learned(tasks, [0.5], n_iterations=40, meta_batch_size=6)
    assert found.returns[-1, 0] > found.returns[0, 0] + 0.3


def test_invalid_hypergradients_count_as_nothing():
    tasks = tasks_of("high variance", 4)
    lams = th.tensor([1e-3], dtype=th.float64)
    follow = bo_mrl_gradients(distance_of("l2"), lams)
    logits = 3.0 * random_logits(tasks)[None]
    gradient, _ = mean_gradients(tasks, logits, follow, th.zeros(1, dtype=th.int64))
    assert bool(gradient.isfinite().all())


def test_without_iterations_the_policy_stays_uniform():
    tasks = tasks_of("low variance", 3)
    found = learned(tasks, [1.0, 0.3], n_iterations=0)
    assert found.returns.shape == (0, 2)
    uniform = evaluate(tasks, found.logits[0].softmax(-1)).policy
    th.testing.assert_close(uniform, th.full_like(uniform, 0.25))
