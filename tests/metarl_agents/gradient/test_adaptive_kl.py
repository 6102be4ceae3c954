import pytest
import torch as th

from metarl_agents.gradient.adaptive_kl import LARGEST, SMALLEST, followed_coefficients


def test_coefficients_double_above_the_band_halve_below_it_and_else_stay():
    found = followed_coefficients(
        th.tensor([1.0, 1.0, 1.0, 3.0]), th.tensor([0.0151, 0.0149, 0.0066, 0.01]), 0.01
    )
    assert found.tolist() == [2.0, 1.0, 0.5, 3.0]


def test_coefficients_come_back_from_however_long_outside_the_band():
    coefficients = th.tensor([5e-4])
    for divergence in (0.0, 1.0):
        for _ in range(400):
            coefficients = followed_coefficients(coefficients, th.tensor([divergence]), 0.01)
        assert coefficients.tolist() == pytest.approx([LARGEST if divergence else SMALLEST])
