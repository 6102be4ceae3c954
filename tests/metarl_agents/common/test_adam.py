import numpy as np
import pytest
import torch as th

from metarl_agents.common.adam import adam_step, initial_adam_state


def test_steps_equal_those_of_pytorch():
    generator = th.Generator().manual_seed(0)
    params = {
        "a": th.randn(3, 2, generator=generator, dtype=th.float64),
        "b": th.randn((), generator=generator, dtype=th.float64),
    }
    theirs = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    optimiser = th.optim.Adam(theirs.values(), lr=0.03)
    ours, state = params, initial_adam_state(params)
    for _ in range(7):
        gradient = {
            name: th.randn(t.shape, generator=generator, dtype=th.float64)
            for name, t in params.items()
        }
        ours, state = adam_step(ours, gradient, state, 0.03)
        for name, tensor in theirs.items():
            tensor.grad = gradient[name].clone()
        optimiser.step()
    for name in params:
        # The same formulas in another order: a few roundings of 1e-16 in seven steps.
        np.testing.assert_allclose(ours[name], theirs[name].detach(), rtol=0, atol=1e-14)


def test_a_step_leaves_its_arguments_alone():
    params = {"a": th.ones(2)}
    state = initial_adam_state(params)
    adam_step(params, {"a": th.ones(2)}, state, 0.1)
    assert th.equal(params["a"], th.ones(2))
    assert float(state.n_steps) == 0 and not state.mean["a"].any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_first_step_has_the_length_of_the_learning_rate_whatever_the_gradient(scale):
    params = {"a": th.zeros(4, dtype=th.float64)}
    after, _ = adam_step(
        params,
        {"a": scale * th.tensor([1.0, -2.0, 3.0, -4.0], dtype=th.float64)},
        initial_adam_state(params),
        0.1,
    )
    # Epsilon, 1e-8, is at most 1e-5 of these gradients.
    np.testing.assert_allclose(after["a"], [-0.1, 0.1, -0.1, 0.1], rtol=2e-5)
