"""Contenders in tabular BO-MRL do the same work, and every bar names a contender."""

from typing import Any

import numpy as np
import pytest
import torch as th

from metarl_agents.bilevel.exact import TabularTasks
from zoo.speed.bilevel import contenders, memory
from zoo.speed.bilevel.problem import (
    Evaluated,
    as_arrays,
    check_agreement,
    lakes,
    looped,
    meta_logits,
    ours,
    stacked,
    trained_agent,
)
from zoo.speed.timing import Contender, Sample, rows_of, unjudged


@pytest.fixture(scope="module")
def tasks() -> TabularTasks:
    return lakes(3)


@pytest.fixture
def evaluated(tasks: TabularTasks) -> Evaluated:
    return looped(as_arrays(tasks), meta_logits(tasks).softmax(-1).numpy())


def test_all_ways_to_evaluate_a_policy_agree(tasks: TabularTasks, evaluated: Evaluated) -> None:
    policy = meta_logits(tasks).softmax(-1)
    for found in (ours(tasks, policy), stacked(as_arrays(tasks), policy.numpy())):
        # Systems of 16 equations whose condition number is below (1 + 0.8) / (1 - 0.8).
        check_agreement(found, evaluated, "another way", tolerance=1e-13)


def test_the_loop_solves_the_bellman_equation(tasks: TabularTasks, evaluated: Evaluated) -> None:
    policy = meta_logits(tasks).softmax(-1).numpy()
    np.testing.assert_allclose(
        (policy * evaluated.action_values).sum(-1), evaluated.values, rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(evaluated.occupancy.sum(-1), 1.0, rtol=1e-13)


def test_contenders_that_disagree_are_not_timed(evaluated: Evaluated) -> None:
    for changed in (evaluated.returns + 1e-6, np.full_like(evaluated.returns, np.nan)):
        with pytest.raises(RuntimeError, match="ours is off by"):
            check_agreement(evaluated._replace(returns=changed), evaluated, "ours")


@pytest.mark.parametrize("algorithm", contenders.ALGORITHM_NUMBERS)
def test_hypergradients_agree_however_they_are_computed(algorithm: int) -> None:
    contenders.check_hypergradients(algorithm, n_tasks=3)


def test_a_run_of_updates_always_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def agent_of(*arguments: Any, **keywords: Any) -> Any:
        made.append(trained_agent(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(contenders, "trained_agent", agent_of)
    run = contenders.repeated_updates(2, 3, n_calls=2)
    ((agent, _),) = made
    start = agent._meta.logits
    run()
    first = agent._meta.logits
    run()
    assert not th.equal(start, first)
    assert th.equal(first, agent._meta.logits)


def test_every_comparison_is_with_a_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "SIZES", (2, 3))
    for name, size in (("_JUDGED", 2), ("_LARGEST", 3), ("_EVALUATIONS", 1)):
        monkeypatch.setattr(contenders, name, size)
    for name in ("_UPDATES", "_EPISODES"):
        monkeypatch.setattr(contenders, name, 1)
    groups = (
        contenders.evaluation(3),
        contenders.updates(),
        contenders.alternatives(2),
        contenders.collecting(),
    )
    for group in groups:
        for name, contender in group.items():
            contender.run()
            assert {reference for reference, _ in contender.against} <= set(group), name


def test_growth_with_the_number_of_tasks_is_judged() -> None:
    # 20 times as many tasks in 20 times the time are as many per second.
    few, many = Contender(_nothing, 20), Contender(_nothing, 400, against=(("few", 1.0),))
    for seconds, said in ((20.0, "met"), (21.0, "MISSED")):
        samples = {"few": [Sample(1.0, 1.0, 0.0)], "many": [Sample(1.0, seconds, 0.0)]}
        row = rows_of({"few": few, "many": many}, samples, clock="cpu")[-1]
        assert row.bar == f">= 1x: {said}"


def test_durations_are_of_one_call_and_may_go_without_a_bar() -> None:
    timed = {"call": Contender(_nothing, 1, most_milliseconds=20.0, n_calls=10)}
    samples = {"call": [Sample(1.0, 0.1, 0.0)]}
    (judged,) = rows_of(timed, samples, clock="cpu")
    assert (round(judged.rate, 9), judged.bar) == (10.0, "<= 20 ms: met")
    (free,) = rows_of(unjudged(timed), samples, clock="cpu")
    assert (round(free.rate, 9), free.bar) == (10.0, "")


def test_memory_is_that_of_a_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.th, "set_num_threads", lambda n: None)
    assert 50.0 < memory.peak_megabytes("imports") < 1e5


def _nothing() -> None:
    pass
