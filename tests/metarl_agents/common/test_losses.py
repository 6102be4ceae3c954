"""Surrogate losses, against the exact derivatives of returns in enumerable MDPs."""

import pytest
import torch as th

from metarl_agents.common.losses import (
    INNER_LOSSES,
    clipped_surrogate_loss,
    dice_loss,
    episode_log_probs,
    likelihood_ratio_loss,
    loaded_dice_loss,
    mean_kl,
    reinforce_loss,
    total_log_prob,
)
from tests.metarl_agents.common.policy_batches import (
    CATEGORICAL,
    GAUSSIAN,
    NETWORKS,
    random_episodes,
    some_params,
)
from tests.metarl_agents.common.two_state_mdps import LOGITS, MDPS, NETWORK, params_of

VALUES = {"A": 0.8032976531, "B": 0.0030853020}
GRADIENTS = {"A": (0.79777697, -0.31908616), "B": (-0.56796624, 0.29948731)}

# Relative error of the expected Hessian of minus each loss, in MDPs A and B, and to how many
# digits it is known; without and with the exact values as a baseline.
HESSIAN_ERRORS = {
    ("loglik", False): (1.99, 1.00, 5e-3),
    ("loglik", True): (1.0, 1.0, 1e-8),
    ("lvc", False): (1.22, 0.42, 5e-3),
    ("lvc", True): (1.22, 0.42, 5e-3),
    ("ratio", True): (1.22, 0.42, 5e-3),
    ("dice", False): (0.0, 0.0, 1e-8),
    ("dice_baseline", False): (0.0, 0.0, 1e-8),
    ("loaded_dice", False): (0.0, 0.0, 1e-8),
    ("loaded_dice", True): (0.0, 0.0, 1e-8),
}


def expected_objective(mdp, loss, baseline):
    """Minus the expected loss, as a function of the logits that trajectories do not follow."""
    episodes, weights = mdp.episodes(LOGITS, baseline=baseline), mdp.probabilities(LOGITS)

    def objective(logits):
        log_probs = episode_log_probs(NETWORK, params_of(logits), episodes)
        return -(weights * loss(log_probs, episodes, "sum")).sum()

    return objective


@pytest.mark.parametrize("name", MDPS)
def test_enumeration_gives_the_known_value_and_gradient(name):
    mdp = MDPS[name]
    returns = mdp.episodes(LOGITS, baseline=False).returns.squeeze(-1)
    enumerated = th.func.grad(lambda logits: mdp.probabilities(logits) @ returns)(LOGITS)
    assert mdp.value(LOGITS).item() == pytest.approx(VALUES[name], abs=1e-10)
    first, second = GRADIENTS[name]
    known = th.tensor([[first, -first], [second, -second]], dtype=th.float64)
    assert th.allclose(enumerated, known, atol=1e-8, rtol=0)
    assert th.allclose(th.func.grad(mdp.value)(LOGITS), enumerated, atol=1e-14, rtol=0)


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("loss", INNER_LOSSES)
@pytest.mark.parametrize("name", MDPS)
def test_expected_gradient_of_every_loss_is_that_of_the_return(name, loss, baseline):
    mdp = MDPS[name]
    gradient = th.func.grad(expected_objective(mdp, INNER_LOSSES[loss], baseline))(LOGITS)
    assert th.allclose(gradient, th.func.grad(mdp.value)(LOGITS), atol=1e-14, rtol=0)


@pytest.mark.parametrize(("loss", "baseline"), HESSIAN_ERRORS)
def test_expected_hessians_have_the_known_errors(loss, baseline):
    *known, tolerance = HESSIAN_ERRORS[loss, baseline]
    for mdp, error in zip(MDPS.values(), known, strict=True):
        exact = th.func.hessian(mdp.value)(LOGITS)
        expected = th.func.hessian(expected_objective(mdp, INNER_LOSSES[loss], baseline))(LOGITS)
        relative = (expected - exact).norm() / exact.norm()
        assert relative.item() == pytest.approx(error, abs=tolerance)


def test_log_likelihood_has_no_expected_curvature_with_exact_values_as_baseline():
    """So MAML's expected inner Jacobian is the identity of first-order MAML for a softmax table."""
    for mdp in MDPS.values():
        hessian = th.func.hessian(expected_objective(mdp, reinforce_loss, True))(LOGITS)
        assert hessian.abs().max() < 1e-14


def test_boxes_times_rewards_to_go_are_biased_from_the_first_derivative_on():
    """The trap that DiCE's loss must not fall into; the errors are known to two digits."""

    def wrong(log_probs, episodes, reduction):
        return dice_loss(log_probs, episodes._replace(rewards=episodes.advantages), reduction)

    for mdp, known in zip(MDPS.values(), (0.11, 0.07), strict=True):
        gradient = th.func.grad(expected_objective(mdp, wrong, False))(LOGITS)
        exact = th.func.grad(mdp.value)(LOGITS)
        assert ((gradient - exact).norm() / exact.norm()).item() == pytest.approx(known, abs=5e-3)


def test_loaded_dice_without_memory_has_the_curvature_of_likelihood_ratios():
    def forgetful(log_probs, episodes, reduction):
        return loaded_dice_loss(log_probs, episodes, reduction, decay=0.0)

    def ratio(log_probs, episodes, reduction):
        return likelihood_ratio_loss(log_probs, None, episodes, reduction)

    for mdp in MDPS.values():
        hessians = [
            th.func.hessian(expected_objective(mdp, loss, True))(LOGITS)
            for loss in (forgetful, ratio)
        ]
        assert th.allclose(*hessians, atol=1e-14, rtol=0)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_decayed_dependencies_follow_the_recursion_of_the_paper(decay):
    log_probs = some_log_probs().requires_grad_()
    episodes = random_episodes(GAUSSIAN, some_params(GAUSSIAN))
    memory, total = th.zeros(3, dtype=th.float64), th.zeros(())
    for t in range(4):
        before = decay * memory
        memory = before + log_probs[:, t]
        boxes = th.exp(memory - memory.detach()) - th.exp(before - before.detach())
        total = total - (boxes * episodes.advantages[:, t]).sum() / 3
    loss = loaded_dice_loss(log_probs, episodes, "sum", decay=decay)
    assert th.allclose(second_derivative(loss, log_probs), second_derivative(total, log_probs))


def second_derivative(loss, variable):
    """A generic directional second derivative."""
    (first,) = th.autograd.grad(loss, variable, create_graph=True)
    direction = th.linspace(-1, 1, first.numel(), dtype=first.dtype).reshape(first.shape)
    return th.autograd.grad((first * direction).sum(), variable)[0]


def some_log_probs():
    return -th.rand(3, 4, generator=th.Generator().manual_seed(1), dtype=th.float64)


def test_the_value_of_dice_is_the_return_and_that_of_loaded_dice_zero():
    episodes = random_episodes(GAUSSIAN, some_params(GAUSSIAN))
    log_probs = episodes.log_probs
    mean_return = episodes.rewards.sum(-1).mean()
    for baseline in (False, True):
        loss = dice_loss(log_probs, episodes, "sum", baseline=baseline)
        assert loss.item() == pytest.approx(-mean_return.item(), abs=1e-14)
    assert loaded_dice_loss(log_probs, episodes, "sum") == 0


@pytest.mark.parametrize("loss", INNER_LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_leading_axes_are_kept_and_tasks_do_not_mix(loss, reduction):
    params = some_params(GAUSSIAN)
    stacked = random_episodes(GAUSSIAN, params, (2, 3))
    losses = INNER_LOSSES[loss](episode_log_probs(GAUSSIAN, params, stacked), stacked, reduction)
    assert losses.shape == (2, 3)
    single = type(stacked)._make(None if field is None else field[1, 2] for field in stacked)
    alone = INNER_LOSSES[loss](episode_log_probs(GAUSSIAN, params, single), single, reduction)
    assert losses[1, 2].item() == pytest.approx(alone.item(), abs=1e-14)


def test_mean_divides_by_valid_steps_and_sum_by_episodes():
    episodes = random_episodes(GAUSSIAN, some_params(GAUSSIAN))
    log_probs = some_log_probs() * episodes.mask
    total = -(log_probs * episodes.advantages).sum().item()
    n_valid = episodes.mask.sum().item()
    assert n_valid < 12
    assert reinforce_loss(log_probs, episodes, "mean").item() == pytest.approx(total / n_valid)
    assert reinforce_loss(log_probs, episodes, "sum").item() == pytest.approx(total / 3)
    with pytest.raises(ValueError, match="reduction='median'"):
        reinforce_loss(log_probs, episodes, "median")


@pytest.mark.parametrize("loss", INNER_LOSSES)
def test_padding_changes_neither_losses_nor_gradients(loss):
    params = some_params(CATEGORICAL)
    episodes = random_episodes(CATEGORICAL, params, with_masks=True)
    padded = type(episodes)._make(
        th.cat([field, th.zeros_like(field[:, :2])], dim=1) if field.ndim > 1 else field
        for field in episodes
    )
    results = []
    for batch in (episodes, padded):
        leaves = {name: param.clone().requires_grad_() for name, param in params.items()}
        value = INNER_LOSSES[loss](episode_log_probs(CATEGORICAL, leaves, batch), batch, "mean")
        results.append((value, th.autograd.grad(value, list(leaves.values()))))
    (value, gradients), (padded_value, padded_gradients) = results
    assert value.item() == pytest.approx(padded_value.item(), abs=1e-14)
    for gradient, padded_gradient in zip(gradients, padded_gradients, strict=True):
        assert gradient.isfinite().all()
        assert th.allclose(gradient, padded_gradient, atol=1e-13, rtol=0)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_log_probs_of_the_acting_policy_are_the_recorded_ones(network, dtype):
    params = some_params(network, dtype)
    episodes = random_episodes(network, params, (2,), with_masks=True)
    log_probs = episode_log_probs(network, params, episodes)
    assert log_probs.dtype == dtype
    assert th.allclose(log_probs, episodes.log_probs, atol=1e-6)
    assert th.equal(
        log_probs[episodes.mask == 0], th.zeros(int((1 - episodes.mask).sum()), dtype=dtype)
    )
    sums = (log_probs * episodes.mask).sum(dim=(-2, -1))
    assert th.allclose(total_log_prob(log_probs, episodes.mask), sums)


def test_where_ratios_are_one_all_surrogates_have_the_gradient_of_the_log_likelihood():
    episodes = random_episodes(GAUSSIAN, some_params(GAUSSIAN))
    log_probs = episodes.log_probs.clone().requires_grad_()
    losses = (
        reinforce_loss(log_probs, episodes),
        likelihood_ratio_loss(log_probs, None, episodes),
        likelihood_ratio_loss(log_probs, episodes.log_probs, episodes),
        clipped_surrogate_loss(log_probs, episodes.log_probs, episodes, 0.3),
        clipped_surrogate_loss(log_probs, None, episodes, 0.3),
    )
    first, *others = (th.autograd.grad(loss, log_probs)[0] for loss in losses)
    for other in others:
        assert th.allclose(first, other, atol=1e-15, rtol=0)


def test_clipped_surrogate_stops_only_steps_that_went_too_far_in_the_right_direction():
    episodes = random_episodes(GAUSSIAN, some_params(GAUSSIAN), n_episodes=1)
    advantages = th.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=th.float64)
    episodes = episodes._replace(advantages=advantages, mask=th.ones_like(advantages))
    ratios = th.tensor([[1.5, 0.5, 1.5, 0.5]], dtype=th.float64)
    log_probs = ratios.log().requires_grad_()
    loss = clipped_surrogate_loss(log_probs, th.zeros_like(ratios), episodes, 0.2)
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    (gradient,) = th.autograd.grad(loss, log_probs)
    assert gradient.tolist()[0] == pytest.approx([0.0, -0.5 / 4, 1.5 / 4, 0.0])


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_mean_divergence_is_over_valid_steps(network):
    params, others = some_params(network), some_params(network, seed=5)
    episodes = random_episodes(network, params, (2,), with_masks=True)
    new = network.dist_params(others, episodes.observations)
    arguments = (episodes.dist_params, new, episodes.mask, episodes.action_masks)
    divergences = network.distribution.kl(episodes.dist_params, new, episodes.action_masks)
    expected = [divergences[task][episodes.mask[task] > 0].mean().item() for task in range(2)]
    assert mean_kl(network.distribution, *arguments).tolist() == pytest.approx(expected)
    same = (episodes.dist_params, episodes.dist_params, *arguments[2:])
    assert mean_kl(network.distribution, *same).abs().max() < 1e-15
