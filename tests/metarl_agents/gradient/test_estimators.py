"""Estimators of the meta-gradient: what is refused, scales of the score term, its baselines."""

from itertools import product

import numpy as np
import pytest
import torch as th

from metarl_agents.common.inner_loop import adapted_params
from metarl_agents.common.losses import episode_log_probs, reinforce_loss
from metarl_agents.common.policies.distributions import DiagonalGaussian
from metarl_agents.common.policies.networks import MlpNetwork
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.gradient import ESTIMATORS, MetaEstimator, certify_meta_gradient
from metarl_agents.gradient.estimators import (
    leave_one_out_baseline,
    meta_loss,
    predicted_gains,
    regression_baseline,
)
from metarl_agents.gradient.score_terms import unit_of_credit, with_one_scale
from metarl_agents.gradient.tabular_adaptation import AdaptationSettings, TabularAdaptation
from tests.metarl_agents.gradient.literal_tasks import LOGITS, TASK_A

# What cannot be meant ---------------------------------------------------------------------------


@pytest.mark.parametrize("score_term", ["emaml", "sgmrl"])
@pytest.mark.parametrize("inner_loss", ["lvc", "ratio", "dice", "dice_baseline", "loaded_dice"])
def test_counting_the_effect_of_sampling_twice_is_refused(inner_loss, score_term):
    with pytest.raises(ValueError, match="twice"):
        MetaEstimator(inner_loss, score_term)


@pytest.mark.parametrize("score_term", ["emaml", "sgmrl"])
def test_a_score_term_needs_the_derivative_of_the_inner_step(score_term):
    with pytest.raises(ValueError, match="inner_loss='loglik'"):
        MetaEstimator("none", score_term)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner_loss": "reinforce"}, "choose from loglik"),
        ({"score_term": "debiased"}, "none, emaml, sgmrl"),
        ({"score_term": "sgmrl", "score_weight": float("nan")}, "score_weight=nan"),
        ({"score_term": "sgmrl", "score_weight": -0.1}, "score_weight=-0.1"),
    ],
)
def test_unknown_choices_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MetaEstimator(**arguments)


def test_the_table_holds_the_published_estimators():
    assert set(ESTIMATORS) == {"maml", "fomaml", "lvc", "dice", "loaded_dice", "emaml", "sgmrl"}
    assert ESTIMATORS["maml"] == MetaEstimator("loglik", "none")


def test_weight_zero_is_maml():
    without = certify_meta_gradient("maml", [TASK_A], LOGITS, n_episodes=1, inner_lr=0.5)
    with_zero = certify_meta_gradient(
        MetaEstimator(score_term="sgmrl", score_weight=0.0),
        [TASK_A],
        LOGITS,
        n_episodes=1,
        inner_lr=0.5,
    )
    np.testing.assert_array_equal(with_zero.expected, without.expected)


# Scales of the sampled score term ---------------------------------------------------------------


def expected_estimate(reduction, inner_lr, *, with_normalization=False, reward_scale=1.0):
    """Expected sampled estimate, parts (outer, score), over all inner and outer trajectories.

    One inner and one outer episode of TASK_A; the outer loss and its coefficient are those of
    training. Also the mean square of the coefficient.
    """
    settings = AdaptationSettings(1, 1, inner_lr, reduction)
    adaptation = TabularAdaptation(TASK_A, th.tensor(LOGITS), settings)
    (chains,) = adaptation.all_chains()
    chances = adaptation.expected_value(chains)[2]
    n = len(chances)
    pairs = th.arange(n).repeat_interleave(n), th.arange(n).repeat(n)
    inner = WeightedEpisodes(
        *(None if field is None else field[pairs[0]] for field in chains.batches[0])
    )
    theta = th.tensor(LOGITS).expand(n * n, 2, 2).clone().requires_grad_()
    adapted = adapted_params(
        adaptation.network, {"logits": theta.detach()}, [inner], reduction=reduction,
        inner_lr=inner_lr, create_graph=False,
    )[-1]  # fmt: skip
    outer = adaptation.weighted(pairs[1][:, None], adapted)
    outer_chances = adaptation.trajectory_probabilities(adapted)
    weights = chances[pairs[0]] * outer_chances[th.arange(n * n), pairs[1]]
    outer = outer._replace(
        advantages=reward_scale * outer.advantages, returns=reward_scale * outer.returns
    )
    outer, scale = with_one_scale(outer, with_normalization)
    coefficient = unit_of_credit(outer, scale, reduction) * outer.returns.mean(-1)

    def outer_loss(params):
        log_probs = episode_log_probs(adaptation.network, params, outer)
        return reinforce_loss(log_probs, outer, reduction)

    parts = []
    for estimator in (MetaEstimator(), MetaEstimator(score_term="sgmrl")):
        loss = meta_loss(
            estimator, adaptation.network, {"logits": theta}, [inner], outer_loss, coefficient,
            inner_lr=inner_lr, reduction=reduction,
        )  # fmt: skip
        (gradient,) = th.autograd.grad(-(weights * loss).sum(), theta)
        parts.append(gradient.sum(0).numpy())
    outer_part = parts[0]
    return outer_part, parts[1] - outer_part, float((weights * coefficient**2).sum())


def test_the_sampled_estimate_has_the_exact_meta_gradient_as_expectation():
    exact = certify_meta_gradient("sgmrl", [TASK_A], LOGITS, n_episodes=1, inner_lr=0.5).exact
    outer_part, score_part, _ = expected_estimate("sum", 0.5)
    np.testing.assert_allclose(outer_part + score_part, exact, atol=1e-12)


def test_under_means_over_steps_both_parts_shrink_by_the_length_of_an_episode():
    by_sum, by_mean = expected_estimate("sum", 0.5), expected_estimate("mean", 1.5)
    for ours, theirs in zip(by_mean[:2], by_sum[:2], strict=True):
        np.testing.assert_allclose(3 * ours, theirs, atol=1e-12)


def test_the_coefficient_is_a_return_and_not_a_mean_of_normalized_advantages():
    *_, square = expected_estimate("sum", 0.5, with_normalization=True)
    assert square > 0.1


def test_both_parts_scale_with_rewards_unless_advantages_are_divided_by_one_deviation():
    plain, scaled = expected_estimate("mean", 1.5), expected_estimate("mean", 1.5, reward_scale=7.0)
    for ours, theirs in zip(scaled[:2], plain[:2], strict=True):
        np.testing.assert_allclose(ours, 7 * theirs, rtol=1e-10)
    plain, scaled = (
        expected_estimate("mean", 1.5, reward_scale=scale, with_normalization=True)
        for scale in (1.0, 7.0)
    )
    for ours, theirs in zip(scaled[:2], plain[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # up to the 1e-8 beside the deviation


# What a direction foretells ---------------------------------------------------------------------


def random_batch(n_tasks, *, dtype=th.float64):
    """A Gaussian policy's episodes of different lengths, and its parameters for each task."""
    network = MlpNetwork(3, DiagonalGaussian(2), net_arch=(5,), dtype=dtype)
    rng = np.random.default_rng(0)
    single = [network.initial_params(rng) for _ in range(n_tasks)]
    params = {name: th.stack([each[name] for each in single]) for name in single[0]}
    generator = th.Generator().manual_seed(0)

    def draw(*shape):
        return th.randn(*shape, generator=generator, dtype=dtype)

    mask = th.ones(n_tasks, 4, 6, dtype=dtype)
    mask[:, 1, 3:] = 0
    observations, actions = draw(n_tasks, 4, 6, 3), draw(n_tasks, 4, 6, 2)
    advantages = draw(n_tasks, 4, 6) * mask
    zeros = th.zeros_like(advantages)
    dist_params = network.dist_params(params, observations)
    episodes = WeightedEpisodes(
        observations, actions, mask, dist_params, zeros, advantages, zeros, zeros, zeros[..., 0]
    )
    direction = {name: draw(*value.shape[1:]) for name, value in params.items()}
    return network, params, episodes, direction


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_predicted_gains_sum_to_the_inner_step_along_the_direction(reduction, per_tensor):
    network, params, episodes, direction = random_batch(3)
    inner_lr = 0.3
    if per_tensor:
        inner_lr = {name: th.tensor(0.1 + 0.2 * i) for i, name in enumerate(params)}
    gains = predicted_gains(
        network, params, episodes, direction, inner_lr=inner_lr, reduction=reduction
    )
    after = adapted_params(
        network, params, [episodes], reduction=reduction, inner_lr=inner_lr, create_graph=False
    )[-1]
    along = sum(
        ((after[name] - params[name]) * direction[name]).flatten(1).sum(1) for name in params
    )
    assert gains.shape == (3, 4)
    assert not gains.requires_grad
    np.testing.assert_allclose(gains.sum(-1), along, atol=1e-13)


def test_predicted_gains_belong_to_their_episode_and_their_task():
    network, params, episodes, direction = random_batch(3)
    options = {"inner_lr": 0.3, "reduction": "sum"}
    gains = predicted_gains(network, params, episodes, direction, **options)
    for task, episode in product(range(3), range(4)):
        own = {name: value[task] for name, value in params.items()}
        one = WeightedEpisodes(*(x if x is None else x[task, episode, None] for x in episodes))
        alone = predicted_gains(network, own, one, direction, **options)
        assert float(alone) / 4 == pytest.approx(float(gains[task, episode]), abs=1e-13)


def test_meta_loss_of_tasks_side_by_side_is_that_of_each_alone():
    network, params, episodes, direction = random_batch(3)
    options = {"inner_lr": 0.3, "control_variate": direction}
    estimator = MetaEstimator(score_term="sgmrl")

    def outer_loss(adapted):
        return (adapted["log_std"] ** 2).sum(-1)

    together = meta_loss(
        estimator, network, params, [episodes] * 2, outer_loss, outer_loss, **options
    )
    for task in range(3):
        own = {key: value[task] for key, value in params.items()}
        batch = WeightedEpisodes(*(x if x is None else x[task] for x in episodes))
        alone = meta_loss(estimator, network, own, [batch] * 2, outer_loss, outer_loss, **options)
        assert alone.item() == pytest.approx(together[task].item(), abs=1e-12)


def test_step_sizes_may_differ_between_inner_steps():
    network, params, episodes, direction = random_batch(2)

    def outer_loss(adapted):
        return (adapted["log_std"] ** 2).sum(-1)

    loss = [
        meta_loss(
            MetaEstimator(score_term="sgmrl"),
            network,
            params,
            [episodes] * 2,
            outer_loss,
            outer_loss,
            inner_lr=inner_lr,
            control_variate=direction,
        ).detach()
        for inner_lr in (0.3, [0.3, 0.3], [0.3, 0.1])
    ]
    np.testing.assert_array_equal(loss[0], loss[1])
    assert not np.allclose(loss[0], loss[2])


# Baselines from other tasks ---------------------------------------------------------------------


def test_leave_one_out_is_the_mean_of_the_others():
    values = th.tensor([1.0, 2.0, 6.0])
    np.testing.assert_allclose(leave_one_out_baseline(values), [4.0, 3.5, 1.5])


@pytest.mark.parametrize(
    "baseline",
    [leave_one_out_baseline, lambda y: regression_baseline(y, th.arange(float(len(y)))[:, None])],
)
def test_a_task_does_not_see_its_own_return(baseline):
    values = th.tensor([1.0, -2.0, 0.5, 3.0, 1.5])
    changed = values.clone()
    changed[2] += 10.0
    before, after = baseline(values), baseline(changed)
    assert float(after[2]) == pytest.approx(float(before[2]), abs=1e-5)
    assert float((after - before).abs()[[0, 1, 3, 4]].min()) > 0.1
    with pytest.raises(ValueError, match="at least 2 tasks"):
        baseline(values[:1])


def test_regression_is_a_refit_without_each_task():
    generator = th.Generator().manual_seed(1)
    x = th.randn(9, 2, generator=generator, dtype=th.float64)
    y = x @ th.tensor([1.0, -2.0], dtype=th.float64) + 3.0
    y = y + 0.1 * th.randn(9, generator=generator, dtype=th.float64)
    found = regression_baseline(y, x, ridge=0.01)
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    design = th.cat([th.ones(9, 1, dtype=th.float64), scaled], dim=1)
    penalty = th.diag(th.tensor([0.0, 0.09, 0.09], dtype=th.float64))
    for task in range(9):
        others = [i for i in range(9) if i != task]
        part = design[others]
        weights = th.linalg.solve(part.T @ part + penalty, part.T @ y[others])
        assert float(found[task]) == pytest.approx(float(design[task] @ weights), abs=1e-12)


def test_regression_survives_descriptors_that_say_nothing():
    values = th.tensor([1.0, 2.0, 6.0])
    found = regression_baseline(values, th.full((3, 2), 5.0))
    np.testing.assert_allclose(found, leave_one_out_baseline(values), atol=1e-6)
