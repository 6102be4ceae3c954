"""Inner steps: right derivatives, and tasks that do not see each other."""

import pytest
import torch as th

from metarl_agents.common.inner_loop import adapted_params, inner_gradient, inner_step
from metarl_agents.common.losses import (
    INNER_LOSSES,
    episode_log_probs,
    likelihood_ratio_loss,
    reinforce_loss,
)
from tests.metarl_agents.common.policy_batches import (
    GAUSSIAN,
    NETWORKS,
    random_episodes,
    some_params,
)

PARAMS = some_params(GAUSSIAN)
BATCHES = [random_episodes(GAUSSIAN, PARAMS, seed=seed) for seed in (1, 2)]
OUTER = random_episodes(GAUSSIAN, PARAMS, seed=3)


def tracked(params):
    return {name: param.clone().requires_grad_() for name, param in params.items()}


def outer_loss(theta, inner_lr, **options):
    adapted = adapted_params(GAUSSIAN, theta, BATCHES, inner_lr=inner_lr, **options)[-1]
    return reinforce_loss(episode_log_probs(GAUSSIAN, adapted, OUTER), OUTER)


def finite_difference(function, point, epsilon=1e-5):
    """Derivative at 0 of ``function(point + h direction)``, per tensor, and the directions."""
    slopes, directions = {}, {}
    for i, (name, value) in enumerate(point.items()):
        generator = th.Generator().manual_seed(i)
        direction = th.randn(value.shape, generator=generator, dtype=value.dtype)
        ends = [function(point | {name: value + h * direction}) for h in (epsilon, -epsilon)]
        slopes[name], directions[name] = (ends[0] - ends[1]).item() / (2 * epsilon), direction
    return slopes, directions


def check_gradients(gradients, function, point):
    slopes, directions = finite_difference(function, point)
    for name, gradient in gradients.items():
        # Central differences with h = 1e-5 are off by about 1e-10 here; 1e-7 leaves room.
        assert (gradient * directions[name]).sum().item() == pytest.approx(slopes[name], abs=1e-7)


def test_gradient_through_two_steps_agrees_with_finite_differences():
    theta = tracked(PARAMS)
    gradient = th.autograd.grad(outer_loss(theta, 0.5), list(theta.values()))
    named = dict(zip(theta, gradient, strict=True))
    check_gradients(named, lambda point: outer_loss(point, 0.5).detach(), PARAMS)


@pytest.mark.parametrize("per", ["tensor", "element"])
@pytest.mark.parametrize("first_order", [False, True])
def test_gradient_in_learned_step_sizes_agrees_with_finite_differences(per, first_order):
    step_sizes = {
        name: th.full(() if per == "tensor" else param.shape, 0.3, dtype=th.float64)
        for name, param in PARAMS.items()
    }
    leaves = tracked(step_sizes)
    gradient = th.autograd.grad(
        outer_loss(PARAMS, leaves, first_order=first_order), list(leaves.values())
    )
    named = dict(zip(leaves, gradient, strict=True))
    if first_order:  # exact for the last step only: earlier ones move where later gradients are
        assert all(part.abs().max() > 0 for part in named.values())
        return
    check_gradients(named, lambda point: outer_loss(PARAMS, point).detach(), step_sizes)


def test_one_first_order_step_has_the_exact_gradient_in_its_step_size():
    def loss(point):
        adapted = adapted_params(GAUSSIAN, PARAMS, BATCHES[:1], inner_lr=point, first_order=True)[
            -1
        ]
        return reinforce_loss(episode_log_probs(GAUSSIAN, adapted, OUTER), OUTER)

    step_sizes = {name: th.full((), 0.3, dtype=th.float64) for name in PARAMS}
    leaves = tracked(step_sizes)
    gradient = th.autograd.grad(loss(leaves), list(leaves.values()))
    check_gradients(
        dict(zip(leaves, gradient, strict=True)), lambda point: loss(point).detach(), step_sizes
    )


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("loss", INNER_LOSSES)
def test_inner_step_does_not_depend_on_meta_batch_size(network, loss):
    params = some_params(network)
    stacked = [random_episodes(network, params, (3,), seed=seed) for seed in (1, 2)]
    shared = {name: param.expand(3, *param.shape) for name, param in params.items()}
    together = adapted_params(network, shared, stacked, loss=loss, inner_lr=0.1)[-1]
    for task in range(3):
        own = [type(b)._make(None if f is None else f[task] for f in b) for b in stacked]
        alone = adapted_params(network, params, own, loss=loss, inner_lr=0.1)[-1]
        for name, param in alone.items():
            assert th.allclose(together[name][task], param, atol=1e-12, rtol=1e-12)


def test_the_step_is_gradient_descent_on_the_inner_loss():
    theta = tracked(PARAMS)
    loss = reinforce_loss(episode_log_probs(GAUSSIAN, theta, BATCHES[0]), BATCHES[0])
    gradient = th.autograd.grad(loss, list(theta.values()))
    first, second = adapted_params(GAUSSIAN, PARAMS, BATCHES[:1], inner_lr=0.25)
    assert first is PARAMS
    for (name, param), slope in zip(PARAMS.items(), gradient, strict=True):
        assert th.equal(second[name], param - 0.25 * slope)


def test_without_a_step_size_the_gradient_is_the_ordinary_policy_gradient():
    theta = tracked(PARAMS)
    plain = reinforce_loss(episode_log_probs(GAUSSIAN, theta, OUTER), OUTER)
    expected = th.autograd.grad(plain, list(theta.values()))
    for loss in INNER_LOSSES:
        gradient = th.autograd.grad(outer_loss(theta, 0.0, loss=loss), list(theta.values()))
        for part, other in zip(gradient, expected, strict=True):
            assert th.allclose(part, other, atol=1e-15, rtol=0)


@pytest.mark.parametrize("options", [{"first_order": True}, {"loss": "none"}])
def test_first_order_adapted_parameters_move_as_the_initial_ones(options):
    theta = tracked(PARAMS)
    adapted = adapted_params(GAUSSIAN, theta, BATCHES, inner_lr=0.5, **options)[-1]
    exact = adapted_params(GAUSSIAN, theta, BATCHES, inner_lr=0.5)[-1]
    for name, param in adapted.items():
        assert th.equal(param, exact[name])
        (gradient,) = th.autograd.grad(param.sum(), theta[name], retain_graph=True)
        assert th.equal(gradient, th.ones_like(gradient))


def test_recorded_denominators_matter_only_away_from_the_policy_that_acted():
    for here, equal in ((PARAMS, True), (some_params(GAUSSIAN, seed=9), False)):
        lvc, ratio = (
            inner_gradient(GAUSSIAN, here, BATCHES[0], loss=loss, create_graph=False)
            for loss in ("lvc", "ratio")
        )
        close = all(th.allclose(lvc[name], ratio[name], atol=1e-13, rtol=0) for name in lvc)
        assert close is equal


@pytest.mark.parametrize("context", [th.no_grad, th.enable_grad])
def test_adapting_without_a_graph_gives_plain_tensors_and_the_same_numbers(context):
    theta = tracked(PARAMS)
    with context():
        plain = adapted_params(GAUSSIAN, theta, BATCHES, inner_lr=0.5, create_graph=False)[-1]
    exact = adapted_params(GAUSSIAN, theta, BATCHES, inner_lr=0.5)[-1]
    for name, param in plain.items():
        assert not param.requires_grad
        assert th.equal(param, exact[name])


def test_nothing_given_is_changed():
    params = some_params(GAUSSIAN)
    before = {name: param.clone() for name, param in params.items()}
    adapted_params(GAUSSIAN, params, BATCHES, inner_lr=0.5)
    for name, param in params.items():
        assert th.equal(param, before[name])
        assert not param.requires_grad
        assert param.grad is None


def test_a_list_gives_every_step_its_own_size():
    first = adapted_params(GAUSSIAN, PARAMS, BATCHES[:1], inner_lr=0.5)[-1]
    second = adapted_params(GAUSSIAN, first, BATCHES[1:], inner_lr=0.25)[-1]
    both = adapted_params(GAUSSIAN, PARAMS, BATCHES, inner_lr=[0.5, 0.25])[-1]
    assert all(th.equal(both[name], second[name]) for name in both)
    with pytest.raises(ValueError, match="3 entries for 2 inner steps"):
        adapted_params(GAUSSIAN, PARAMS, BATCHES, inner_lr=[0.1, 0.1, 0.1])


def test_step_sizes_may_carry_the_task_axis():
    params = {"w": th.ones(2, 3, 4), "b": th.ones(2, 3)}
    gradient = {"w": th.ones(2, 3, 4), "b": th.ones(2, 3)}
    per_task = inner_step(params, gradient, {"w": th.tensor([0.5, 1.0]), "b": th.tensor([0.5, 1])})
    assert per_task["w"][0].unique().tolist() == [0.5]
    assert per_task["w"][1].unique().tolist() == [0.0]
    assert per_task["b"].tolist() == [[0.5] * 3, [0.0] * 3]
    with pytest.raises(ValueError, match=r"shape \(3,\) does not fit"):
        inner_step(params, gradient, {"w": th.ones(3), "b": th.ones(2)})


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match="loss='reinforce' is not known"):
        inner_gradient(GAUSSIAN, PARAMS, BATCHES[0], loss="reinforce", create_graph=False)


def test_single_precision_adapts_in_single_precision():
    params = some_params(GAUSSIAN, th.float32)
    episodes = random_episodes(GAUSSIAN, params, seed=1)
    adapted = adapted_params(GAUSSIAN, params, [episodes], inner_lr=0.1)[-1]
    assert {param.dtype for param in adapted.values()} == {th.float32}


def test_first_outer_gradient_of_ratios_is_that_of_log_likelihoods():
    theta = tracked(PARAMS)
    gradients = []
    for loss in (
        lambda log_probs: likelihood_ratio_loss(log_probs, None, OUTER),
        lambda log_probs: reinforce_loss(log_probs, OUTER),
    ):
        adapted = adapted_params(GAUSSIAN, theta, BATCHES, inner_lr=0.5, loss="lvc")[-1]
        value = loss(episode_log_probs(GAUSSIAN, adapted, OUTER))
        gradients.append(th.autograd.grad(value, list(theta.values())))
    for part, other in zip(*gradients, strict=True):
        assert th.allclose(part, other, atol=1e-14, rtol=0)
