from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch as th

import metarl_envs  # noqa: F401  registers the ids
from metarl_agents.bayesian.hierarchical import gate
from metarl_agents.bayesian.least_squares import (
    LeastSquares,
    estimation_noise,
    least_squares,
    ols_covariance,
    ols_mean,
    posterior_residuals,
    pseudo_inverse,
    residual_squares,
)
from metarl_agents.bayesian.linear_gaussian import (
    Statistics,
    Transitions,
    add_transitions,
    empty_statistics,
)
from tests.metarl_agents.bayesian.random_tasks import (
    random_prior,
    random_transitions,
    spread_design,
    statistics_of,
    targets,
)

LAYOUTS = pytest.mark.parametrize("n_blocks", [1, 3])
ROUNDING = 1e-9  # the Gram matrices here have condition numbers below 1e4


def normal(seed, *shape):
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def numpy_fit(transitions, n_blocks, *, bootstrap=True):
    """Backward least squares on the raw transitions, (H, C, m)."""
    n_stages, size = transitions.features.shape[0], transitions.features.shape[-1]
    fit = th.zeros(n_stages, n_blocks, size, dtype=th.float64)
    for stage in reversed(range(n_stages)):
        design = spread_design(transitions, stage, n_blocks).numpy()
        y = targets(transitions, fit, stage) if bootstrap else transitions.rewards[stage]
        y = y * transitions.weights[stage]
        solution = np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
        fit[stage] = th.as_tensor(solution).reshape(n_blocks, size)
    return fit


@LAYOUTS
@pytest.mark.parametrize("bootstrap", [True, False])
def test_fit_equals_least_squares_on_the_raw_transitions(n_blocks, bootstrap):
    transitions = random_transitions(0, n_blocks=n_blocks, n_episodes=40, dropout=0.2)
    fit = least_squares(statistics_of(transitions, n_blocks), bootstrap=bootstrap)
    expected = numpy_fit(transitions, n_blocks, bootstrap=bootstrap)
    th.testing.assert_close(fit.parameters, expected, rtol=0, atol=ROUNDING)
    for stage in range(3):
        design = spread_design(transitions, stage, n_blocks)
        inverse = th.block_diag(*fit.inverse_gram[stage])
        th.testing.assert_close(inverse, th.linalg.inv(design.T @ design), rtol=0, atol=ROUNDING)
    rank = 4 * n_blocks
    assert th.equal(fit.residual_dof, transitions.weights.sum(-1) - rank)


def test_unseen_directions_of_a_fit_are_zero_and_cost_no_degree_of_freedom():
    transitions = random_transitions(1, n_episodes=20)
    transitions.features[:, :, 2:] = 0
    fit = least_squares(statistics_of(transitions))
    assert (fit.parameters[..., 2:] == 0).all()
    th.testing.assert_close(fit.parameters, numpy_fit(transitions, 1), rtol=0, atol=ROUNDING)
    assert (fit.residual_dof == 18).all()


def test_a_saturated_fit_has_no_residuals_and_no_degrees_of_freedom():
    fit = least_squares(statistics_of(random_transitions(2, n_episodes=3)))
    assert fit.parameters.isfinite().all()
    assert (fit.residual_dof == 0).all()
    assert (fit.residual_squares < ROUNDING).all()


def test_no_data_give_a_zero_fit():
    fit = least_squares(empty_statistics((2,), 3, 3, 3, 4))
    assert all((field == 0).all() for field in fit)


def test_pseudo_inverse_drops_what_is_below_the_relative_cutoff():
    vectors = th.linalg.qr(normal(3, 3, 3)).Q
    gram = vectors @ th.diag(th.tensor([10.0, 1.0, 1e-9], dtype=th.float64)) @ vectors.T
    expected = vectors @ th.diag(th.tensor([0.1, 1.0, 0.0], dtype=th.float64)) @ vectors.T
    th.testing.assert_close(pseudo_inverse(gram), expected, rtol=0, atol=1e-7)


@LAYOUTS
@pytest.mark.parametrize("bootstrap", [True, False])
def test_residual_squares_equal_a_sum_over_transitions(n_blocks, bootstrap):
    transitions = random_transitions(4, n_blocks=n_blocks, n_episodes=15, dropout=0.3)
    parameters = random_prior(5, (3, n_blocks, 4)).mean
    found = residual_squares(statistics_of(transitions, n_blocks), parameters, bootstrap=bootstrap)
    for stage in range(3):
        y = targets(transitions, parameters, stage) if bootstrap else transitions.rewards[stage]
        fitted = spread_design(transitions, stage, n_blocks) @ parameters[stage].flatten()
        errors = (y - fitted) * transitions.weights[stage]
        th.testing.assert_close(found[stage], (errors**2).sum(), rtol=1e-10, atol=1e-10)


def test_clipped_residuals_bound_the_values_of_successors():
    transitions = random_transitions(4, n_episodes=15)
    parameters = 10 * random_prior(5, (3, 1, 4)).mean
    found = residual_squares(statistics_of(transitions), parameters, clip=True)
    for stage in range(3):
        values = targets(transitions, parameters, stage) - transitions.rewards[stage]
        y = transitions.rewards[stage] + values.clamp(0, 2 - stage)
        errors = y - transitions.features[stage] @ parameters[stage, 0]
        th.testing.assert_close(found[stage], (errors**2).sum(), rtol=1e-10, atol=1e-10)


class OneStage(NamedTuple):
    transitions: Transitions
    statistics: Statistics


def tasks_from(prior, sigma2, seed, n_tasks=4000, n_rows=6):
    """One-stage tasks whose parameters come from the prior, targets of variance sigma2."""
    transitions = random_transitions(
        seed, lead=(n_tasks,), n_stages=1, n_episodes=n_rows, n_states=1
    )
    theta = prior.mean[0, 0] + normal(seed + 1, n_tasks, 4) @ prior.factor[0, 0].T
    noise = sigma2**0.5 * normal(seed + 2, n_tasks, n_rows)
    rewards = (transitions.features[:, 0] @ theta.unsqueeze(-1)).squeeze(-1) + noise
    transitions = transitions._replace(rewards=rewards.unsqueeze(1))
    return OneStage(transitions, statistics_of(transitions))


@pytest.mark.parametrize("n_rows", [3, 6])
def test_posterior_residuals_estimate_the_variance_without_bias(n_rows):
    # With 3 rows a least-squares fit of 4 parameters is saturated; the posterior mean is not.
    prior, sigma2 = random_prior(6, (1, 1, 4)), 0.4
    tasks = tasks_from(prior, sigma2, 7, n_rows=n_rows)
    squares, dof = posterior_residuals(
        prior, tasks.statistics, th.tensor([sigma2], dtype=th.float64)
    )
    assert (dof > 0).all() and (dof < n_rows).all()
    excess = squares - sigma2 * dof
    assert excess.mean().abs() <= 4 * excess.std() / len(excess) ** 0.5
    assert abs(float(squares.sum() / dof.sum()) / sigma2 - 1) < 0.1


def test_least_squares_residuals_estimate_the_variance_without_bias():
    tasks = tasks_from(random_prior(10, (1, 1, 4)), 0.4, 11)
    fit = least_squares(tasks.statistics)
    assert (fit.residual_dof == 2).all()
    excess = fit.residual_squares - 0.4 * fit.residual_dof
    assert excess.mean().abs() <= 4 * excess.std() / len(excess) ** 0.5


def test_posterior_residuals_drop_the_successors_of_a_bandit():
    transitions, prior = random_transitions(14), random_prior(15, (3, 1, 4))
    sigma2 = th.tensor([0.3, 0.5, 0.7], dtype=th.float64)
    squares, _ = posterior_residuals(prior, statistics_of(transitions), sigma2, bootstrap=False)
    worthless = transitions._replace(
        successor_masks=th.zeros_like(transitions.successor_masks),
        successor_features=th.zeros_like(transitions.successor_features),
    )
    expected, _ = posterior_residuals(prior, statistics_of(worthless), sigma2)
    th.testing.assert_close(squares, expected)


def numpy_noise(transitions, fit, n_blocks, *, sandwich, propagate):
    """The covariance of the estimates, transition by transition and over all d = C m features."""
    n_stages, size = transitions.features.shape[0], transitions.features.shape[-1]
    total, parameters = [None] * n_stages, fit.parameters
    for h in reversed(range(n_stages)):
        design = spread_design(transitions, h, n_blocks)
        inverse = th.linalg.inv(design.T @ design)
        errors = targets(transitions, parameters, h) - design @ parameters[h].flatten()
        n = transitions.weights[h].sum()
        variance = (errors**2).sum() / (n - n_blocks * size)
        meat = design.T @ th.diag(errors**2) @ design * n / (n - n_blocks * size)
        total[h] = inverse @ meat @ inverse if sandwich else inverse * variance
        if propagate and h + 1 < n_stages:
            carried = inverse @ design.T @ greedy_design(transitions, parameters, h, n_blocks)
            total[h] = total[h] + carried @ total[h + 1] @ carried.T
    return total


def greedy_design(transitions, parameters, stage, n_blocks):
    """Row i: the features of the best action in the successor of transition i, (E, d)."""
    size, rows = parameters.shape[-1], []
    for e in range(transitions.rewards.shape[-1]):
        row, allowed = th.zeros(n_blocks, size, dtype=th.float64), transitions.successor_masks
        if allowed[stage, e].any():
            phi = transitions.successor_features[stage, e]
            theta = parameters[stage + 1].expand(len(phi), -1)
            values = (phi * theta).sum(-1).masked_fill(~allowed[stage, e], -th.inf)
            best = int(values.argmax())
            row[best if n_blocks > 1 else 0] = phi[best]
        rows.append(row.flatten())
    return th.stack(rows)


@pytest.mark.parametrize("sandwich", [False, True])
@pytest.mark.parametrize("propagate", [False, True])
def test_estimation_noise_equals_the_sum_over_transitions(sandwich, propagate):
    transitions = random_transitions(16, n_episodes=40, dropout=0.2)
    statistics = statistics_of(transitions)
    fit = least_squares(statistics)
    noise = estimation_noise(statistics, transitions, fit, sandwich=sandwich, propagate=propagate)
    expected = numpy_noise(transitions, fit, 1, sandwich=sandwich, propagate=propagate)
    th.testing.assert_close(noise[:, 0], th.stack(expected), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sandwich", [False, True])
def test_estimation_noise_in_blocks_keeps_the_noise_of_every_block(sandwich):
    transitions = random_transitions(17, n_blocks=3, n_episodes=60)
    statistics = statistics_of(transitions, 3)
    fit = least_squares(statistics)
    noise = estimation_noise(statistics, transitions, fit, sandwich=sandwich, propagate=False)
    expected = numpy_noise(transitions, fit, 3, sandwich=sandwich, propagate=False)
    for stage in range(3):
        dense = th.block_diag(*noise[stage])
        th.testing.assert_close(dense, expected[stage], rtol=1e-8, atol=1e-10)


def test_propagated_noise_in_blocks_is_the_block_diagonal_of_the_dense_one():
    # The last two stages only: there, nothing but block-diagonal noise is carried on.
    transitions = random_transitions(18, n_blocks=3, n_episodes=60, n_stages=2)
    statistics = statistics_of(transitions, 3)
    fit = least_squares(statistics)
    noise = estimation_noise(statistics, transitions, fit, sandwich=True, propagate=True)
    expected = numpy_noise(transitions, fit, 3, sandwich=True, propagate=True)
    for block in range(3):
        own = slice(4 * block, 4 * block + 4)
        th.testing.assert_close(noise[0, block], expected[0][own, own], rtol=1e-8, atol=1e-10)


def test_a_bandit_propagates_nothing():
    transitions = random_transitions(19, n_episodes=30)
    statistics = statistics_of(transitions)
    fit = least_squares(statistics, bootstrap=False)
    with_and_without = [
        estimation_noise(
            statistics, transitions, fit, sandwich=True, propagate=propagate, bootstrap=False
        )
        for propagate in (True, False)
    ]
    assert th.equal(*with_and_without)


class Family(NamedTuple):
    """Tasks of an inverse Bellman family, each played at random, fitted and corrected."""

    statistics: Statistics
    transitions: Transitions
    fit: LeastSquares
    parameters: th.Tensor  # (K, H, 1, d), the truth
    covariance: th.Tensor  # (H, 1, d, d), the truth


def simulated_family(n_tasks, n_episodes=40, **kwargs):
    """Random actions in every task, N episodes."""
    env = gym.make_vec(
        "metarl/InverseBellman-v0",
        num_envs=n_tasks,
        vectorization_mode="vector_entry_point",
        n_features=4,
        **kwargs,
    )
    family, rng = env.unwrapped.family, np.random.default_rng(0)
    tasks = env.sample_tasks(n_tasks, seed=1)
    env.set_tasks(tasks)
    shape = (n_tasks, family.n_stages, n_episodes)
    states, actions, rewards = np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape)
    observations, _ = env.reset(seed=2)
    for episode in range(n_episodes):
        for stage in range(family.n_stages):
            chosen = rng.integers(family.n_actions, size=n_tasks)
            states[:, stage, episode], actions[:, stage, episode] = observations[:, 1], chosen
            observations, rewards[:, stage, episode], *_ = env.step(chosen)
    transitions = _transitions(family.feature_table, states, actions, rewards)
    empty = empty_statistics((n_tasks,), family.n_stages, family.n_actions, 1, 4)
    statistics = add_transitions(empty, transitions)
    parameters = np.stack([task.to_array() for task in tasks])
    return Family(
        statistics,
        transitions,
        least_squares(statistics),
        th.as_tensor(parameters).reshape(n_tasks, family.n_stages, 1, 4),
        th.as_tensor(family.prior_covariance).unsqueeze(1),
    )


def _transitions(table, states, actions, rewards):
    stage = np.arange(len(table))[:, None]
    following = np.zeros((*states.shape, *table.shape[2:]))
    following[:, :-1] = table[stage[1:], states[:, 1:]]
    exists = np.zeros(following.shape[:-1], dtype=bool)
    exists[:, :-1] = True
    return Transitions(
        features=th.as_tensor(table[stage, states, actions]),
        blocks=th.zeros(states.shape, dtype=th.int64),
        rewards=th.as_tensor(rewards),
        successor_features=th.as_tensor(following),
        successor_masks=th.as_tensor(exists),
        weights=th.ones(states.shape, dtype=th.float64),
    )


def relative_errors(covariance, truth):
    """Relative Frobenius error per stage."""
    return ((covariance - truth).norm(dim=(-1, -2)) / truth.norm(dim=(-1, -2))).squeeze(-1)


def test_corrected_covariance_is_right_where_the_raw_one_is_off_by_half():
    # Sampling alone makes for errors of .03 to .06 with 3,000 tasks. The bound holds where the
    # noise of an estimate is below the spread of the tasks; where it is twice as large (as with
    # the default population) a tenth of it is left, since the maximum over actions is linearised.
    family = simulated_family(3000, population_seed=8, reward_std=0.35)
    passed = gate(family.statistics.gram, 1.0)
    assert passed.double().mean() > 0.95

    def estimate(noise):
        covariance = ols_covariance(family.fit.parameters, noise, passed).covariance
        return relative_errors(covariance, family.covariance)

    noise = estimation_noise(
        family.statistics, family.transitions, family.fit, sandwich=True, propagate=True
    )
    raw, corrected = estimate(th.zeros_like(noise)), estimate(noise)
    assert (corrected < 0.12).all()
    assert raw[0] > 3 * corrected[0] and raw[0] > 0.5


def chains(n_tasks, parameters, n_episodes=100, n_states=6, noise_std=0.5):
    """One action; a state of stage h leads to the state of the same number at stage h + 1."""
    n_stages, _, size = parameters.shape
    shape = (n_tasks, n_stages, n_episodes)
    table, stage = normal(20, n_stages + 1, n_states, size), th.arange(n_stages)[:, None]
    table[-1] = 0
    states = th.randint(n_states, shape, generator=th.Generator().manual_seed(21))
    features, following = table[stage, states], table[stage + 1, states]
    worth = th.cat([parameters[1:], th.zeros_like(parameters[:1])])
    means = (features * parameters).sum(-1) - (following * worth).sum(-1)
    exists = (stage < n_stages - 1).expand(shape)[..., None]
    return Transitions(
        features=features,
        blocks=th.zeros(shape, dtype=th.int64),
        rewards=means + noise_std * normal(22, *shape),
        successor_features=following.unsqueeze(-2),
        successor_masks=exists,
        weights=th.ones(shape, dtype=th.float64),
    )


@pytest.mark.parametrize("sandwich", [True, False])
def test_noise_of_estimates_without_a_choice_of_actions_is_right_at_every_stage(sandwich):
    # With one action there is no maximum, and the estimates are linear in the rewards. What the
    # next stage's error adds to the residuals is counted twice: about m / E = 4 % per stage.
    n_tasks, parameters = 3000, random_prior(23, (3, 1, 4)).mean
    transitions = chains(n_tasks, parameters)
    statistics = statistics_of(transitions)
    fit = least_squares(statistics)

    def noise(propagate):
        found = estimation_noise(
            statistics, transitions, fit, sandwich=sandwich, propagate=propagate
        )
        return found.mean(0).squeeze(-3)

    errors = (fit.parameters - parameters).squeeze(-2)
    actual = th.einsum("khm,khn->hmn", errors, errors) / n_tasks
    wrong = (noise(True) - actual).norm(dim=(-1, -2)) / actual.norm(dim=(-1, -2))
    alone = (noise(False) - actual).norm(dim=(-1, -2)) / actual.norm(dim=(-1, -2))
    assert (wrong < 0.1).all()
    assert (alone[:2] > 0.3).all()


def test_ols_mean_averages_the_estimates_that_passed():
    estimates = normal(20, 4, 2, 1, 3)
    passed = th.tensor([[1, 0], [1, 0], [0, 0], [1, 1]]).bool().unsqueeze(-1)
    mean = ols_mean(estimates, passed)
    th.testing.assert_close(mean[0], estimates[[0, 1, 3], 0].mean(0))
    th.testing.assert_close(mean[1], estimates[3, 1])
    assert (ols_mean(estimates, th.zeros_like(passed)) == 0).all()


def test_gated_estimates_do_not_move_mean_or_covariance():
    estimates, noise = normal(21, 5, 2, 1, 3), normal(22, 5, 2, 1, 3, 3)
    passed = th.tensor([1, 1, 1, 0, 1]).bool()[:, None, None].expand(5, 2, 1)
    spoiled = estimates.clone()
    spoiled[3] = 1e9
    assert th.equal(ols_mean(estimates, passed), ols_mean(spoiled, passed))
    first, second = ols_covariance(estimates, noise, passed), ols_covariance(spoiled, noise, passed)
    assert th.equal(first.covariance, second.covariance)
    assert (first.contributions[3] == 0).all() and (first.weights[3] == 0).all()


def test_ols_covariance_without_noise_is_numpy_cov():
    estimates = normal(23, 9, 2, 3, 4)
    passed = th.ones(9, 2, 3, dtype=th.bool)
    passed[0, 1, 2] = False
    found = ols_covariance(estimates, th.zeros(9, 2, 3, 4, 4, dtype=th.float64), passed)
    for stage in range(2):
        for block in range(3):
            own = estimates[passed[:, stage, block], stage, block].numpy()
            expected = th.as_tensor(np.cov(own, rowvar=False))
            th.testing.assert_close(found.covariance[stage, block], expected)


def test_ols_covariance_is_the_mean_of_its_contributions_and_less_the_mean_noise():
    estimates, root = normal(24, 6, 2, 1, 3), normal(25, 6, 2, 1, 3, 3)
    noise, passed = root @ root.mT, normal(26, 6, 2, 1) > -0.5
    raw = ols_covariance(estimates, th.zeros_like(noise), passed)
    corrected = ols_covariance(estimates, noise, passed)
    counts = corrected.weights.sum(0)[..., None, None]
    th.testing.assert_close(corrected.covariance, corrected.contributions.sum(0) / counts)
    th.testing.assert_close(raw.covariance - corrected.covariance, corrected.noise)
    expected = noise[passed[:, 0, 0], 0, 0].mean(0)
    th.testing.assert_close(corrected.noise[0, 0], expected)


def test_a_batch_of_tasks_equals_the_tasks_one_by_one():
    transitions = random_transitions(27, lead=(4,), n_blocks=3, n_episodes=30)
    statistics = statistics_of(transitions, 3)
    fit = least_squares(statistics)
    noise = estimation_noise(statistics, transitions, fit, sandwich=True, propagate=True)
    for i in range(4):
        own = Transitions(*(field[i] for field in transitions))
        one = statistics_of(own, 3)
        single = least_squares(one)
        th.testing.assert_close(fit.parameters[i], single.parameters, rtol=1e-9, atol=1e-9)
        alone = estimation_noise(one, own, single, sandwich=True, propagate=True)
        th.testing.assert_close(noise[i], alone, rtol=1e-9, atol=1e-9)
