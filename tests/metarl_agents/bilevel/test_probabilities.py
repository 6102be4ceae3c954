"""Log-probabilities of few actions are those of torch, to the last digit or nearly so."""

import pytest
import torch as th

from metarl_agents.bilevel.probabilities import log_softmax


def logits_of(*shape: int) -> th.Tensor:
    generator = th.Generator().manual_seed(shape[-1])
    return 5.0 * th.randn(*shape, dtype=th.float64, generator=generator)


@pytest.mark.parametrize("shape", [(6, 16, 1), (6, 16, 4), (3, 5, 4), (6, 16, 8), (6, 16, 9), (4,)])
def test_log_probabilities_are_those_of_torch(shape: tuple[int, ...]) -> None:
    logits = logits_of(*shape)
    # Where registers are short, sums may be in another order: a unit or two in the last place.
    th.testing.assert_close(log_softmax(logits), logits.log_softmax(-1), rtol=1e-14, atol=1e-15)
    assert log_softmax(logits).is_contiguous()


@pytest.mark.parametrize("n_states", [13, 16])
def test_log_probabilities_of_a_task_do_not_depend_on_the_others(n_states: int) -> None:
    logits = logits_of(8, n_states, 4)
    alone = th.cat([log_softmax(logits[task : task + 1]) for task in range(8)])
    # Equal on processors whose registers hold as many numbers as there are actions, or more.
    th.testing.assert_close(log_softmax(logits), alone, rtol=1e-15, atol=1e-15)


def test_every_row_of_a_shared_table_gets_its_own_gradient() -> None:
    weights, gradients = logits_of(6, 16, 4), []
    for function in (log_softmax, lambda logits: logits.log_softmax(-1)):
        logits = logits_of(16, 4).expand(6, -1, -1).requires_grad_()
        (gradient,) = th.autograd.grad((weights * function(logits)).sum(), logits)
        gradients.append(gradient)
    # Terms up to 15 cancel.
    th.testing.assert_close(*gradients, rtol=0.0, atol=1e-13)
