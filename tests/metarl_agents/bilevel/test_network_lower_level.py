"""The lower level with networks: its loss against literal sums, its solvers by what they reach."""

import math

import pytest
import torch as th

from metarl_agents.bilevel.lower_level import DISTANCES
from metarl_agents.bilevel.network_lower_level import (
    OPTIMIZERS,
    lower_level_loss,
    network_problem,
    solve_lower_level,
)
from metarl_agents.bilevel.network_problem import (
    bounded_ratios,
    loss_and_distance,
    squashed,
    state_weights,
)
from tests.metarl_agents.bilevel.network_tasks import flat, named, single
from tests.metarl_agents.bilevel.small_tasks import relative_error
from tests.metarl_agents.common.policy_batches import NETWORKS, random_episodes, some_params

SETTINGS = {"lam": 2.0, "eta": 0.5, "squash": True}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def network(request):
    return request.param


def problem_of(network, *, distance="forward_kl", **settings):
    """Episodes of unequal lengths with forbidden actions, and weights that fall with time."""
    phi = some_params(network)
    episodes = random_episodes(network, phi, with_masks=True)
    settings = {**SETTINGS, "discount": 0.9, **settings}
    return network_problem(network, phi, episodes, distance=distance, **settings)


def gradient_at(problem, theta):
    leaf = {name: param.clone().requires_grad_() for name, param in theta.items()}
    parts = th.autograd.grad(
        lower_level_loss(problem, leaf), list(leaf.values()), materialize_grads=True
    )
    return th.cat([part.flatten() for part in parts])


# The loss -------------------------------------------------------------------------------------


def test_squash_has_value_and_slope_one_at_one_and_stays_within_its_range():
    ratios = th.tensor([0.0, 0.5, 1.0, 2.0, 50.0], dtype=th.float64).requires_grad_()
    values = squashed(ratios)
    (slopes,) = th.autograd.grad(values.sum(), ratios)
    values = values.detach()
    assert (float(values[2]), float(slopes[2])) == (1.0, 1.0)
    assert float(values[0]) == pytest.approx(2.0 / (1.0 + math.exp(2.0)))  # 0.238
    assert float(values[-1]) == 2.0
    assert bool((values.diff() > 0.0).all())
    assert bool((slopes <= 1.0).all())


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_squash_has_no_slope_but_no_nan_either_where_the_ratio_overflows(dtype):
    log_rho = th.tensor([9.999, 11.0, 1e4], dtype=dtype).requires_grad_()
    values = squashed(bounded_ratios(log_rho))
    (slopes,) = th.autograd.grad(values.sum(), log_rho)
    assert values.tolist() == [2.0] * 3
    assert slopes.tolist() == [0.0] * 3


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_loss_is_the_literal_sum_over_the_steps_that_were_played(network, distance, squash):
    problem = problem_of(network, distance=distance, squash=squash)
    theta, phi = some_params(network, seed=1), problem.phi
    episodes, expected, divergence, weight = problem.episodes, 0.0, 0.0, 0.0
    for e, t in th.nonzero(episodes.mask).tolist():
        masks = None if episodes.action_masks is None else episodes.action_masks[e, t]
        observation, action = episodes.observations[e, t], episodes.actions[e, t]
        adapted, meta = (network.dist_params(p, observation) for p in (theta, phi))
        log_ratio = network.distribution.log_prob(
            adapted, action, masks
        ) - network.distribution.log_prob(meta, action, masks)
        ratio = float(log_ratio.exp())
        gain = 2.0 / (1.0 + math.exp(2.0 - 2.0 * ratio)) if squash else ratio
        expected -= 0.9**t * float(episodes.advantages[e, t]) * gain / 2.0
        pair = (meta, adapted) if distance == "forward_kl" else (adapted, meta)
        divergence += 0.9**t * float(network.distribution.kl(*pair, masks))
        weight += 0.9**t
    moved = float((flat(theta) - flat(phi)).square().sum())
    squared = moved if distance == "l2" else divergence / weight
    loss, found = loss_and_distance(problem, theta)
    assert float(found) == pytest.approx(squared, rel=1e-12)
    assert float(loss) == pytest.approx(expected / weight + squared + 0.25 * moved, rel=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_what_stands_in_padding_makes_no_difference(network, distance):
    problem = problem_of(network, distance=distance)
    episodes, theta = problem.episodes, some_params(network, seed=1)
    padding = (episodes.mask == 0.0)[..., None]
    assert bool(padding.any())
    changed = problem._replace(
        episodes=episodes._replace(observations=episodes.observations + 7.0 * padding),
        dist_params=problem.dist_params + 3.0 * padding,
    )
    assert float(lower_level_loss(changed, theta)) == float(lower_level_loss(problem, theta))


@pytest.mark.parametrize("squash", [False, True])
def test_at_phi_the_gradient_is_the_policy_gradient_over_lambda(network, squash):
    """No distance has a slope there, and the squash has slope 1."""
    problem = problem_of(network, squash=squash)
    leaf = {name: param.clone().requires_grad_() for name, param in problem.phi.items()}
    numbers = network.dist_params(leaf, problem.episodes.observations)
    log_probs = network.distribution.log_prob(
        numbers, problem.episodes.actions, problem.episodes.action_masks
    )
    log_probs = th.where(problem.episodes.mask > 0, log_probs, 0.0)
    surrogate = (problem.weights * problem.episodes.advantages * log_probs).sum() / problem.lam
    expected = th.autograd.grad(surrogate, list(leaf.values()))
    found = gradient_at(problem, problem.phi)
    assert relative_error(-found, th.cat([part.flatten() for part in expected])) < 1e-13


def test_weights_fall_with_the_discount_and_sum_to_one():
    mask = th.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert state_weights(mask).tolist() == [[0.25, 0.25, 0.25], [0.25, 0.0, 0.0]]
    found = state_weights(mask, 0.5)
    assert th.allclose(found, th.tensor([[4.0, 2.0, 1.0], [4.0, 0.0, 0.0]]) / 11.0)


# Its solution ---------------------------------------------------------------------------------


def test_one_gradient_step_on_l2_is_the_inner_step_of_maml(network):
    lam = 4.0
    problem = problem_of(network, distance="l2", lam=lam, eta=0.0)
    solution = solve_lower_level(problem, n_steps=1, optimizer="sgd", learning_rate=0.5)
    gain_slope = -lam * gradient_at(problem, problem.phi)
    step = flat(solution.params) - flat(problem.phi)
    assert relative_error(step, gain_slope / (2.0 * lam)) < 1e-13


def test_for_large_lambda_l2_is_the_inner_step_of_maml(network):
    errors = []
    for lam in (100.0, 1000.0):
        problem = problem_of(network, distance="l2", lam=lam, eta=0.0)
        solution = solve_lower_level(problem, n_steps=0, polish_steps=20, tolerance=1e-10)
        step = flat(solution.params) - flat(problem.phi)
        errors.append(relative_error(step, -0.5 * gradient_at(problem, problem.phi)))
    assert errors[0] < 0.05
    assert errors[1] == pytest.approx(errors[0] / 10.0, rel=0.1)  # of order 1 / lambda


@pytest.mark.parametrize("distance", DISTANCES)
def test_polish_reaches_a_minimum(network, distance):
    problem = problem_of(network, distance=distance)
    rough = solve_lower_level(problem, n_steps=20)
    assert (rough.n_steps, rough.n_polish_steps, rough.stopped_early) == (20, 0, False)
    assert 1e-3 < rough.residual < 1.0
    solution = solve_lower_level(problem, n_steps=20, polish_steps=30, tolerance=1e-10)
    assert solution.residual <= 1e-10
    assert 0 < solution.n_polish_steps < 30
    expected = float(gradient_at(problem, solution.params).norm())
    assert expected <= 2e-10 * float(gradient_at(problem, problem.phi).norm())
    value, distance_there = loss_and_distance(problem, solution.params)
    assert solution.distance == pytest.approx(float(distance_there))
    generator = th.Generator().manual_seed(0)
    for _ in range(10):
        shift = th.randn(flat(solution.params).shape, generator=generator, dtype=th.float64)
        nearby = named(flat(solution.params) + 1e-3 * shift, solution.params)
        assert float(lower_level_loss(problem, nearby)) > float(value)


@pytest.mark.parametrize("distance", DISTANCES)
def test_more_steps_lower_the_residual(network, distance):
    problem = problem_of(network, distance=distance)
    residuals = [solve_lower_level(problem, n_steps=n).residual for n in (0, 10, 50)]
    assert residuals[0] == 1.0
    assert residuals[0] > residuals[1] > residuals[2]


@pytest.mark.parametrize("polish_steps", [0, 20])
@pytest.mark.parametrize("distance", DISTANCES)
def test_solver_stops_before_the_distance_exceeds_its_limit(network, distance, polish_steps):
    problem = problem_of(network, distance=distance, lam=0.05, eta=0.0)
    options = {"learning_rate": 0.02, "polish_steps": polish_steps}
    n_steps = 50 if polish_steps == 0 else 2
    stopped = solve_lower_level(problem, n_steps=n_steps, max_distance=0.02, **options)
    assert stopped.stopped_early
    assert stopped.distance <= 0.02
    assert stopped.n_steps < 50
    if polish_steps == 0:
        n_more = stopped.n_steps + 1
        further = solve_lower_level(problem, n_steps=n_more, max_distance=1e6, **options)
        assert not further.stopped_early
        assert further.distance > 0.02


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_limit_that_no_step_exceeds_changes_no_bit(network, distance, optimizer):
    problem, options = problem_of(network, distance=distance), {"optimizer": optimizer}
    options |= {"learning_rate": 0.01}
    free = [solve_lower_level(problem, n_steps=n, max_distance=1e9, **options) for n in range(1, 6)]
    limit = max(one.distance for one in free)  # to touch it is not to exceed it
    held = solve_lower_level(problem, n_steps=5, max_distance=limit, **options)
    assert th.equal(flat(held.params), flat(free[-1].params))
    assert held._replace(params=None) == free[-1]._replace(params=None)


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1.0), ("sgd", 8.0)])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_first_step_beyond_the_limit_is_halved_until_it_stays(network, distance, optimizer, rate):
    """And so are all after it: halving is exact, so that the bits are those of the smaller rate."""
    problem, options = problem_of(network, distance=distance), {"optimizer": optimizer}
    minimum = solve_lower_level(problem, n_steps=20, polish_steps=20, tolerance=1e-4)
    limit = 2.0 * minimum.distance  # room to go on

    def distance_of_one_step(learning_rate):
        options["learning_rate"] = learning_rate
        return solve_lower_level(problem, n_steps=1, max_distance=1e9, **options).distance

    rates = [rate / 2**n for n in range(10)]
    fits = next(one for one in rates if distance_of_one_step(one) <= limit)
    assert fits < rate
    found, expected = (
        solve_lower_level(
            problem, n_steps=20, max_distance=limit, **(options | {"learning_rate": one})
        )
        for one in (rate, fits)
    )
    assert (found.n_steps, found.stopped_early) == (20, False)
    assert 0.0 < found.distance <= limit
    before, after = (
        float(lower_level_loss(problem, theta)) for theta in (problem.phi, found.params)
    )
    assert after < before - 0.005
    assert th.equal(flat(found.params), flat(expected.params))


def test_a_step_that_ten_halvings_leave_too_long_is_not_taken(network):
    problem = problem_of(network, distance="l2")
    solution = solve_lower_level(problem, n_steps=5, learning_rate=0.5, max_distance=1e-6)
    # Each of n parameters would move by 0.5 / 1024: 2.4e-7 n in all.
    assert (solution.n_steps, solution.stopped_early, solution.distance) == (0, True, 0.0)
    assert th.equal(flat(solution.params), flat(problem.phi))


def test_one_scale_of_returns_and_weights_gives_one_solution(network):
    problem = problem_of(network)
    episodes = problem.episodes._replace(advantages=10.0 * problem.episodes.advantages)
    scaled = problem._replace(episodes=episodes, lam=20.0, eta=5.0)
    first, second = (solve_lower_level(p, n_steps=10) for p in (problem, scaled))
    assert relative_error(flat(second.params), flat(first.params)) < 1e-12


@pytest.mark.parametrize("distance", DISTANCES)
def test_without_any_advantage_nothing_moves(network, distance):
    problem = problem_of(network, distance=distance)
    episodes = problem.episodes._replace(advantages=th.zeros_like(problem.episodes.advantages))
    solution = solve_lower_level(problem._replace(episodes=episodes), n_steps=10, polish_steps=5)
    # Rounding of the divergence is all that Adam sees; it makes whole steps of that.
    assert float((flat(solution.params) - flat(problem.phi)).abs().max()) < 0.01
    assert solution.distance < 1e-4


def test_single_precision_is_solved_to_single_precision(network):
    problem = problem_of(network)
    options = {"n_steps": 5, "polish_steps": 20}
    solution = solve_lower_level(single(problem), tolerance=1e-5, **options)
    assert solution.residual <= 1e-5
    assert all(param.dtype == th.float32 for param in solution.params.values())
    exact = solve_lower_level(problem, tolerance=1e-10, **options)
    assert relative_error(flat(solution.params).double(), flat(exact.params)) < 1e-3


def test_solver_is_deterministic_and_leaves_its_arguments_alone(network):
    problem = problem_of(network)
    before = flat(problem.phi).clone()
    first, second = (solve_lower_level(problem, n_steps=5, polish_steps=2) for _ in range(2))
    assert all(th.equal(first.params[name], second.params[name]) for name in first.params)
    assert th.equal(flat(problem.phi), before)
    tensors = (*first.params.values(), *problem.phi.values())
    assert not any(tensor.requires_grad for tensor in tensors)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_loss_that_is_not_finite_names_lambda_and_the_learning_rate(network, optimizer):
    problem = problem_of(network, squash=False, lam=1e-3)
    with pytest.raises(ValueError, match=r"learning_rate=1e\+200 and lam=0.001"):
        solve_lower_level(
            problem, n_steps=3, optimizer=optimizer, learning_rate=1e200, max_distance=1e308
        )


def test_nan_is_refused_at_the_door(network):
    problem = problem_of(network)
    advantages = problem.episodes.advantages.clone()
    advantages[0, 0] = math.nan
    with pytest.raises(ValueError, match="advantages must be finite"):
        solve_lower_level(
            problem._replace(episodes=problem.episodes._replace(advantages=advantages))
        )
    wrong = {name: param * math.inf for name, param in problem.phi.items()}
    with pytest.raises(ValueError, match="phi must be finite"):
        solve_lower_level(problem._replace(phi=wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": "kl"}, "distance='kl' is unknown"),
        ({"lam": 0.0}, "lam=0.0 must be positive"),
        ({"lam": math.nan}, "lam=nan must be positive"),
        ({"eta": -1.0}, "eta=-1.0 must be finite and not negative"),
        ({"weights": th.ones(1, 2)}, "weights starts with axes"),
        ({"dist_params": th.ones(1, 2, 3)}, "dist_params starts with axes"),
    ],
)
def test_problems_that_are_none_are_refused(network, change, message):
    with pytest.raises(ValueError, match=message):
        solve_lower_level(problem_of(network)._replace(**change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "rmsprop"}, "optimizer='rmsprop' is unknown"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"max_distance": -1.0}, "max_distance=-1.0"),
        ({"n_steps": -1}, "n_steps=-1"),
        ({"polish_steps": -1}, "polish_steps=-1"),
    ],
)
def test_solver_settings_that_are_none_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        solve_lower_level(problem_of(network), **options)
