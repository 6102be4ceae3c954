import numpy as np
import pytest

from metarl_envs.batched.checking import (
    check_counts,
    check_deviations,
    check_flags,
    check_magnitudes,
    checked_numbers,
    checked_policies,
)
from metarl_envs.batched.normals import normals


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "3"])
def test_counts_are_positive_integers(value):
    with pytest.raises(ValueError, match="n_things"):
        check_counts(n_things=value)
    check_counts(n_things=np.int64(1))


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_deviations_are_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="noise_std"):
        check_deviations(noise_std=value)


def test_policies_are_broadcast_over_tasks():
    policies = checked_policies([np.full((2, 4), 0.25), np.full((3, 5, 4), 0.25)], 3, [2, 5], 4)
    assert [policy.shape for policy in policies] == [(3, 2, 4), (3, 5, 4)]


@pytest.mark.parametrize(
    "policy", [np.full((2, 4), 0.3), np.full((2, 4), np.nan), [[1.5, -0.5, 0, 0]] * 2, [1, 0, 0, 0]]
)
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(ValueError, match=r"probabilities\[0\]"):
        checked_policies([policy], 3, [2], 4)


@pytest.mark.parametrize("value", [1e6 + 1, -1e7, np.nan, np.inf, 10**400, "1", None])
def test_magnitudes_are_moderate(value):
    with pytest.raises(ValueError, match=r"goal_reward=.* must be a number from -1e.06 to 1e.06"):
        check_magnitudes(goal_reward=value)
    check_magnitudes(goal_reward=-1e6, step_reward=np.float32(2))


@pytest.mark.parametrize("value", [0, 1, None, "yes", np.array([True])])
def test_flags_are_true_or_false(value):
    with pytest.raises(ValueError, match=r"is_slippery=.* must be True or False"):
        check_flags(absorbing=np.bool_(True), is_slippery=value)


@pytest.mark.parametrize(
    "value", ["ab", None, [np.nan, 0], [1, np.inf], [1j, 0], [0], [[0], [0, 1]]]
)
def test_numbers_are_finite_and_shaped(value):
    with pytest.raises(ValueError, match=r"^start"):
        checked_numbers("start", value, (2,), (3, 2))
    assert checked_numbers("start", [1, 2], (2,), (3, 2)).dtype == np.float64


def test_normal_numbers_are_finite_and_have_their_quantiles():
    uniforms = np.array([[0.0, 0.5], [0.975, 1 - 2.0**-53]])
    numbers = normals(uniforms)
    assert numbers.shape == (2, 2) and np.all(np.isfinite(numbers))
    assert numbers[0, 1] == 0.0
    assert numbers[1, 0] == pytest.approx(1.959963984540054, abs=1e-12)
    assert numbers[0, 0] < -numbers[1, 1]
