import numpy as np
import pytest
import torch as th
from scipy import stats
from torch.func import hessian

from metarl_agents.common.policies import Categorical, DiagonalGaussian

EXACT = {"rtol": 1e-12, "atol": 1e-12}
GAUSSIAN, CATEGORICAL = DiagonalGaussian(3), Categorical(4)


def draws(*shape, seed=0):
    return th.as_tensor(np.random.default_rng(seed).standard_normal(shape))


def normal(dist_params):
    mean, log_std = dist_params.chunk(2, dim=-1)
    return th.distributions.Independent(th.distributions.Normal(mean, log_std.exp()), 1)


MASKS = th.tensor([[True, False, True, True], [True, True, False, False], [False, True] * 2])


def test_gaussian_log_prob_entropy_and_kl_are_those_of_torch():
    old, new, actions = draws(5, 2, 6), draws(5, 2, 6, seed=1), draws(5, 2, 3, seed=2)
    th.testing.assert_close(GAUSSIAN.log_prob(old, actions), normal(old).log_prob(actions), **EXACT)
    th.testing.assert_close(GAUSSIAN.entropy(old), normal(old).entropy(), **EXACT)
    expected = th.distributions.kl_divergence(normal(old), normal(new))
    th.testing.assert_close(GAUSSIAN.kl(old, new), expected, **EXACT)


def test_gaussian_kl_of_neighbours_keeps_its_digits_in_float32():
    old = draws(50, 6)
    new = old + 1e-4 * draws(50, 6, seed=1)
    exact = GAUSSIAN.kl(old, new)
    # About 1e-8, where the difference of terms near 1 would be all rounding.
    single = GAUSSIAN.kl(old.float(), new.float().double().float())
    rounded = GAUSSIAN.kl(old.float().double(), new.float().double())
    th.testing.assert_close(single.double(), rounded, rtol=1e-3, atol=0.0)
    assert (exact > 0).all()


def test_categorical_log_prob_entropy_and_kl_are_those_of_torch():
    old, new = draws(5, 2, 4), draws(5, 2, 4, seed=1)
    actions = th.randint(0, 4, (5, 2, 1), generator=th.Generator().manual_seed(0))
    theirs, other = (th.distributions.Categorical(logits=logits) for logits in (old, new))
    th.testing.assert_close(
        CATEGORICAL.log_prob(old, actions), theirs.log_prob(actions[..., 0]), **EXACT
    )
    th.testing.assert_close(CATEGORICAL.entropy(old), theirs.entropy(), **EXACT)
    expected = th.distributions.kl_divergence(theirs, other)
    th.testing.assert_close(CATEGORICAL.kl(old, new), expected, **EXACT)


def test_masks_leave_the_distribution_over_the_allowed_actions():
    old, new = draws(3, 4), draws(3, 4, seed=1)
    for row, mask in enumerate(MASKS):
        theirs, other = (
            th.distributions.Categorical(logits=logits[row, mask]) for logits in (old, new)
        )
        masked = [old[row], MASKS[row]]
        th.testing.assert_close(CATEGORICAL.entropy(*masked), theirs.entropy(), **EXACT)
        kl = CATEGORICAL.kl(old[row], new[row], mask)
        th.testing.assert_close(kl, th.distributions.kl_divergence(theirs, other), **EXACT)
        log_probs = CATEGORICAL.log_prob(
            old[row].expand(4, 4), th.arange(4)[:, None], mask.expand(4, 4)
        )
        th.testing.assert_close(log_probs[mask], theirs.logits, **EXACT)
        assert (log_probs[~mask] == -th.inf).all()


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_masks_give_finite_gradients_of_first_and_second_order_also_in_padding(dtype):
    logits = draws(3, 4).to(dtype).requires_grad_()
    masks = MASKS.clone()
    masks[2] = False  # padding
    actions = th.tensor([[0], [1], [0]])
    total = (
        CATEGORICAL.log_prob(logits, actions, masks)
        + CATEGORICAL.entropy(logits, masks)
        + CATEGORICAL.kl(logits.detach() + 0.1, logits, masks)
        + CATEGORICAL.kl(logits, logits.detach() - 0.1 * logits, masks)
    ).sum()
    (gradient,) = th.autograd.grad(total, logits, create_graph=True)
    (second,) = th.autograd.grad(gradient.square().sum(), logits)
    assert gradient.isfinite().all()
    assert second.isfinite().all()
    assert (gradient[:2][~masks[:2]] == 0).all()


def test_a_forbidden_action_has_no_gradient_rather_than_nan():
    logits = draws(4).requires_grad_()
    log_prob = CATEGORICAL.log_prob(logits, th.tensor([1]), MASKS[0])
    assert log_prob == -th.inf
    log_prob.backward()
    assert not logits.grad.isnan().any()


@pytest.mark.parametrize(
    ("distribution", "masks"), [(GAUSSIAN, None), (CATEGORICAL, None), (CATEGORICAL, MASKS)]
)
def test_fisher_product_is_the_hessian_of_the_kl(distribution, masks):
    n = distribution.n_params
    dist_params, tangent = draws(3, n), draws(3, n, seed=1)
    products = distribution.fisher_product(dist_params, tangent, masks)
    for row in range(3):
        mask = None if masks is None else masks[row]
        own = dist_params[row]
        fisher = hessian(lambda new, own=own, mask=mask: distribution.kl(own, new, mask))(own)
        th.testing.assert_close(products[row], fisher @ tangent[row], rtol=1e-10, atol=1e-10)


def test_gaussian_samples_have_the_mean_and_deviation_of_the_parameters():
    n = 40_000
    noise = GAUSSIAN.draw_noise(np.random.default_rng(1), n)
    dist_params = np.array([1.0, -2.0, 0.0, 0.3, -1.0, 0.0])
    actions = GAUSSIAN.sample(dist_params[None], noise)
    mean, std = dist_params[:3], np.exp(dist_params[3:])
    # Four standard errors: a false alarm once in 16,000 numbers.
    assert (np.abs(actions.mean(0) - mean) < 4 * std / np.sqrt(n)).all()
    assert (np.abs(actions.std(0) / std - 1) < 4 / np.sqrt(2 * n)).all()
    assert np.abs(np.corrcoef(actions.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(n)
    assert np.array_equal(GAUSSIAN.mode(dist_params[None]), mean[None])


@pytest.mark.parametrize("mask", [None, MASKS[0].numpy()])
def test_categorical_samples_have_the_probabilities_of_the_parameters(mask):
    n, logits = 40_000, np.array([0.5, 2.0, -1.0, 0.0])
    noise = CATEGORICAL.draw_noise(np.random.default_rng(2), n)
    rows = np.broadcast_to(logits, (n, 4))
    masks = None if mask is None else np.broadcast_to(mask, (n, 4))
    actions = CATEGORICAL.sample(rows, noise, masks)
    assert (actions.shape, actions.dtype) == ((n, 1), np.int64)
    probabilities = CATEGORICAL.probabilities(logits, mask)
    counts = np.bincount(actions[:, 0], minlength=4)
    possible = probabilities > 0
    assert not counts[~possible].any()
    assert stats.chisquare(counts[possible], n * probabilities[possible]).pvalue > 1e-4


def test_extreme_noise_and_extreme_logits_give_an_allowed_action():
    logits = np.array([[0.0, -1e4, 3.0, 1e4, -1e4]])
    for u in (0.0, np.nextafter(1.0, 0.0)):
        assert Categorical(5).sample(logits, np.array([[u]])).item() == 3
        mask = np.array([[False, True, False, False, False]])
        assert Categorical(5).sample(logits, np.array([[u]]), mask).item() == 1
    assert Categorical(5).mode(logits, mask).item() == 1


def test_probabilities_equal_the_exponentials_of_log_prob():
    logits = draws(3, 4)
    actions = th.arange(4)[:, None, None].expand(4, 3, 1)
    for masks in (None, MASKS):
        every = CATEGORICAL.log_prob(
            logits.expand(4, 3, 4), actions, None if masks is None else masks.expand(4, 3, 4)
        )
        ours = CATEGORICAL.probabilities(logits.numpy(), None if masks is None else masks.numpy())
        np.testing.assert_allclose(ours, every.exp().T.numpy(), rtol=1e-12)


@pytest.mark.parametrize("distribution", [GAUSSIAN, CATEGORICAL])
def test_noise_is_the_same_drawn_at_once_or_row_by_row(distribution):
    at_once = distribution.draw_noise(np.random.default_rng(3), 10)
    rng = np.random.default_rng(3)
    rows = [distribution.draw_noise(rng, n) for n in (1, 4, 5)]
    assert np.array_equal(at_once, np.concatenate(rows))
