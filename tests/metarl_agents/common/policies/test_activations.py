"""Activations: exact values and derivatives."""

import numpy as np
import pytest
import torch as th

from metarl_agents.common.policies.activations import tanh

POINTS = th.linspace(-12, 12, 241, dtype=th.float64).reshape(1, 241)


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_values_are_those_of_numpy_and_exact_to_rounding(dtype):
    points = POINTS.to(dtype)
    result = tanh(points)
    assert result.dtype == dtype
    assert result.shape == points.shape
    assert np.array_equal(result.numpy(), np.tanh(points.numpy()))
    exact = np.tanh(points.numpy().astype(np.longdouble))
    # Two units in the last place.
    assert np.abs(result.numpy() - exact).max() <= th.finfo(dtype).eps


def test_first_to_third_derivatives_are_right():
    points = POINTS[:, ::8].clone().requires_grad_()
    assert th.autograd.gradcheck(tanh, points)
    assert th.autograd.gradgradcheck(tanh, points)
    first = th.func.vmap(th.func.grad(tanh))
    scalar = th.func.vmap(th.func.grad(th.func.grad(th.func.grad(tanh))))(POINTS[0])
    slopes = 1 - POINTS[0].tanh().square()
    assert th.allclose(first(POINTS[0]), slopes, atol=1e-15, rtol=0)
    assert th.allclose(scalar, 4 * slopes - 6 * slopes.square(), atol=1e-14, rtol=0)


def test_transforms_agree_with_torch():
    points, tangents = POINTS, POINTS.flip(-1)
    ours = th.func.jvp(tanh, (points,), (tangents,))
    theirs = th.func.jvp(th.tanh, (points,), (tangents,))
    for value, expected in zip(ours, theirs, strict=True):
        assert th.allclose(value, expected, atol=1e-14, rtol=0)
    assert th.equal(th.func.vmap(tanh, in_dims=1)(points), tanh(points.T))


def test_other_devices_and_precisions_use_torch():
    assert tanh(th.zeros(2, device="meta")).device.type == "meta"
    assert tanh(th.ones(2, dtype=th.bfloat16)).dtype == th.bfloat16
