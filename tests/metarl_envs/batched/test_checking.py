import numpy as np
import pytest

from metarl_envs.batched.checking import check_counts, check_deviations, checked_policies


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
