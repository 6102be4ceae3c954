import numpy as np
import pytest
import torch as th

from metarl_agents.common.inner_loop import inner_step
from metarl_agents.common.step_sizes import (
    LARGEST,
    PREFIX,
    SMALLEST,
    initial_log_step_sizes,
    policy_part,
    step_sizes,
    within_bounds,
)

THETA = {"w": th.ones(3, 2, dtype=th.float64), "b": th.ones(3, dtype=th.float64)}


@pytest.mark.parametrize(("per", "shape"), [("tensor", ()), ("element", (3, 2))])
def test_there_is_one_step_size_per_tensor_or_per_element(per, shape):
    logs = initial_log_step_sizes(THETA, 0.1, per)
    assert set(logs) == {PREFIX + "w", PREFIX + "b"} and logs[PREFIX + "w"].shape == shape
    rates = step_sizes({**THETA, **logs}, 0.5)
    np.testing.assert_allclose(rates["w"], 0.1, rtol=1e-15)


def test_without_learned_step_sizes_the_number_holds_for_all():
    assert initial_log_step_sizes(THETA, 0.1, None) == {}
    assert step_sizes(THETA, 0.1) == 0.1


@pytest.mark.parametrize("per", ["tensor", "element"])
def test_equal_learned_step_sizes_step_as_the_number_does(per):
    gradient = {name: th.full_like(t, 2.0) for name, t in THETA.items()}
    learned = step_sizes({**THETA, **initial_log_step_sizes(THETA, 0.25, per)}, 0.0)
    for name, tensor in inner_step(THETA, gradient, learned).items():
        # exp(log(0.25)) may miss 0.25 by a rounding.
        np.testing.assert_allclose(tensor, inner_step(THETA, gradient, 0.25)[name], rtol=1e-15)


def test_step_sizes_stay_within_their_bounds_and_parameters_are_left_alone():
    params = {"w": th.tensor([1e3]), PREFIX + "w": th.tensor(9.0), PREFIX + "b": th.tensor(-99.0)}
    bounded = within_bounds(params)
    rates = step_sizes(bounded, 0.0)
    assert policy_part(bounded).keys() == {"w"} and float(bounded["w"]) == 1e3
    np.testing.assert_allclose([float(rates["w"]), float(rates["b"])], [LARGEST, SMALLEST], 1e-6)
