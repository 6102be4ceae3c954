import numpy as np
import pytest

from metarl_agents.bayesian.argument_checks import (
    check_positive,
    checked_covariance,
    checked_mean,
)
from metarl_agents.common.argument_checks import check_choice

SHAPE = (2, 3, 4)  # H, C, m: d = 12


def block_diagonal(seed=0, rank=4, shape=SHAPE):
    """Random block-diagonal covariances (H, d, d), singular where ``rank`` is below m."""
    stages, blocks, size = shape
    root = np.random.default_rng(seed).standard_normal((stages, blocks, size, rank))
    own = root @ root.swapaxes(-1, -2)
    wide = np.zeros((stages, blocks, size, blocks, size))
    for block in range(blocks):
        wide[:, block, :, block] = own[:, block]
    return wide.reshape(stages, blocks * size, blocks * size), own


@pytest.mark.parametrize("value", [1, 0.5, np.float64(2.0), np.int64(3), 1e-300])
def test_positive_numbers_pass(value):
    check_positive("x", value)


@pytest.mark.parametrize("value", [0, 0.0, -1, -1e-9, float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_positive_and_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"n_things=.*must be finite and above 0"):
        check_positive("n_things", value)


@pytest.mark.parametrize("value", ["1", None, True, np.True_, [1.0], 1j])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(TypeError, match=r"n_things=.*must be a number"):
        check_positive("n_things", value)


@pytest.mark.parametrize("value", [1.0, 2.5, np.float64(3), "3", True])
def test_whole_numbers_are_integers(value):
    with pytest.raises(TypeError, match=r"n_things=.*must be an integer"):
        check_positive("n_things", value, whole=True)
    check_positive("n_things", np.int32(3), whole=True)


def test_zero_passes_where_it_is_allowed_and_negative_numbers_do_not():
    check_positive("scale", 0, zero=True)
    check_positive("scale", 0.0, zero=True)
    with pytest.raises(ValueError, match=r"scale=-1 must be finite and at least 0"):
        check_positive("scale", -1, zero=True)


def test_choices_are_named_in_the_error():
    check_choice("mode", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"mode='c' is unknown: choose one of a, b"):
        check_choice("mode", "c", ("a", "b"))


def test_a_mean_is_split_into_blocks():
    mean = np.arange(24.0).reshape(2, 12)
    checked = checked_mean("prior_mean", mean, SHAPE)
    assert checked.shape == SHAPE and checked.dtype == np.float64
    assert np.array_equal(checked[1, 2], mean[1, 8:])
    assert np.array_equal(checked_mean("prior_mean", mean.tolist(), SHAPE), checked)
    checked[:] = 0
    assert mean[1, 2] == 14


def test_a_number_is_the_mean_of_all_parameters():
    assert (checked_mean("prior_mean", 0.5, SHAPE) == np.full(SHAPE, 0.5)).all()


@pytest.mark.parametrize("shape", [(12,), (2, 11), (3, 12), (2, 3, 4), (1, 12)])
def test_a_mean_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"prior_mean has shape .*n_features\) = \(2, 12\)"):
        checked_mean("prior_mean", np.zeros(shape), SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf, np.where(np.eye(2, 12), np.nan, 0.0)])
def test_a_mean_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="prior_mean is not finite"):
        checked_mean("prior_mean", value, SHAPE)


@pytest.mark.parametrize("value", ["wide", [["a"]], {"mean": 1.0}, [[1.0], [1.0, 2.0]]])
@pytest.mark.parametrize("check", [checked_mean, checked_covariance])
def test_priors_that_are_not_numbers_are_refused_by_name(check, value):
    with pytest.raises(TypeError, match=r"my_prior=.*must be a number or an array of numbers"):
        check("my_prior", value, SHAPE)


def test_a_covariance_is_split_into_blocks():
    wide, own = block_diagonal()
    checked = checked_covariance("prior_covariance", wide, SHAPE)
    assert checked.flags.c_contiguous and np.array_equal(checked, own)
    checked[:] = 0
    assert wide.any()


def test_a_number_is_the_variance_of_all_parameters():
    checked = checked_covariance("prior_covariance", 0.3, SHAPE)
    assert np.array_equal(checked, np.broadcast_to(0.3 * np.eye(4), (*SHAPE, 4)))
    assert (checked_covariance("prior_covariance", 0, SHAPE) == 0).all()


def test_a_negative_variance_is_refused():
    with pytest.raises(ValueError, match=r"prior_covariance=-0.1 must be at least 0"):
        checked_covariance("prior_covariance", -0.1, SHAPE)


@pytest.mark.parametrize("shape", [(12, 12), (2, 12), (2, 12, 11), (3, 12, 12), (2, 3, 4, 4)])
def test_a_covariance_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"prior_covariance has shape .*\(2, 12, 12\)"):
        checked_covariance("prior_covariance", np.zeros(shape), SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_covariance_that_is_not_finite_is_refused(value):
    wide, _ = block_diagonal()
    wide[1, 3, 3] = value
    for covariance in (wide, value):
        with pytest.raises(ValueError, match="prior_covariance is not finite"):
            checked_covariance("prior_covariance", covariance, SHAPE)


def test_a_covariance_that_is_not_symmetric_is_refused():
    wide, _ = block_diagonal()
    wide[0, 0, 1] += 1e-3
    with pytest.raises(ValueError, match="prior_covariance is not symmetric"):
        checked_covariance("prior_covariance", wide, SHAPE)


def test_a_covariance_with_a_negative_eigenvalue_is_refused():
    wide, _ = block_diagonal(rank=2)
    with pytest.raises(ValueError, match="prior_covariance is not positive semi-definite"):
        checked_covariance("prior_covariance", wide - 1e-3 * np.eye(12), SHAPE)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_singular_covariance_is_legal(rank):
    wide, own = block_diagonal(rank=rank)
    assert np.array_equal(checked_covariance("prior_covariance", wide, SHAPE), own)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_rounding_is_not_taken_for_a_negative_eigenvalue_or_an_asymmetry(scale):
    wide, own = block_diagonal(rank=2)
    wide, own = scale * wide, scale * own
    rounded = wide - 1e-12 * scale * np.eye(12)
    rounded[:, 0, 1] += 1e-12 * scale
    checked = checked_covariance("prior_covariance", rounded, SHAPE)
    np.testing.assert_allclose(checked, own, rtol=0, atol=3e-12 * scale)


@pytest.mark.parametrize("coupling", [1e-3, -1e-3])
def test_a_covariance_between_blocks_is_refused(coupling):
    wide, _ = block_diagonal()
    wide[1, 0, 11] = wide[1, 11, 0] = coupling
    with pytest.raises(ValueError, match=r"couples features of different blocks.*'full'"):
        checked_covariance("prior_covariance", wide, SHAPE)
    one_block = (2, 1, 12)
    assert checked_covariance("prior_covariance", wide, one_block)[1, 0, 0, 11] == coupling


def test_large_block_diagonal_covariances_are_not_taken_for_coupled_ones():
    # A sum of squares over all entries would lose what lies between the blocks in its rounding.
    shape = (5, 10, 11)
    for seed in range(20):
        wide, own = block_diagonal(seed, rank=11, shape=shape)
        assert np.array_equal(checked_covariance("prior_covariance", wide, shape), own)
