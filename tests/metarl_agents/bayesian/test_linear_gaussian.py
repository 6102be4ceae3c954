import pytest
import torch as th

from metarl_agents.bayesian.linear_gaussian import (
    GaussianPrior,
    isotropic_prior,
    posterior,
    square_root,
    with_capacity,
)
from metarl_agents.bayesian.rlsvi import sample_parameters, target_moments
from tests.metarl_agents.bayesian.random_tasks import (
    random_prior,
    random_transitions,
    spread_design,
    statistics_of,
    targets,
)

SIGMA2 = th.tensor([0.3, 0.5, 0.7], dtype=th.float64)
ROUNDING = 1e-10  # matrices here are 4x4 with condition numbers below 1e4


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_moments_from_sufficient_statistics_equal_the_raw_regression(n_blocks):
    transitions = random_transitions(0, n_blocks=n_blocks, dropout=0.2)
    statistics = statistics_of(transitions, n_blocks)
    parameters = random_prior(1, (3, n_blocks, 4)).mean
    moments = target_moments(statistics, parameters)
    for stage in range(3):
        design = spread_design(transitions, stage, n_blocks)
        raw = design.T @ targets(transitions, parameters, stage)
        th.testing.assert_close(moments[stage].flatten(), raw, rtol=0, atol=ROUNDING)
        gram = th.block_diag(*statistics.gram[stage])
        expected = th.block_diag(
            *[design.T[4 * c : 4 * c + 4] @ design[:, 4 * c : 4 * c + 4] for c in range(n_blocks)]
        )
        th.testing.assert_close(gram, expected, rtol=0, atol=ROUNDING)


def test_successors_with_the_same_features_share_a_column():
    transitions = random_transitions(2, n_episodes=60, n_states=5)
    statistics = statistics_of(transitions)
    assert int(statistics.n_successors.max()) <= 6
    assert statistics.successor_counts.shape[-1] <= 8
    assert th.equal(statistics.successor_counts.sum(-1), transitions.weights.sum(-1))


def posterior_mean_and_covariance(prior, statistics, parameters, form):
    """The same posterior by four routes; every stage's targets from the given parameters."""
    given = posterior(prior, statistics, SIGMA2)
    moments = target_moments(statistics, parameters)
    gram, covariance = statistics.gram, prior.covariance
    scale = SIGMA2[:, None, None, None]
    if form == "factor":
        root = given.root
        surprise = moments - (gram @ prior.mean.unsqueeze(-1)).squeeze(-1)
        shift = root @ (root.mT @ surprise.unsqueeze(-1)) / scale
        return prior.mean + shift.squeeze(-1), root @ root.mT
    if form == "information":
        precision = th.linalg.inv(covariance) + gram / scale
        weighted = th.linalg.inv(covariance) @ prior.mean.unsqueeze(-1)
        mean = th.linalg.solve(precision, weighted + moments.unsqueeze(-1) / scale)
        return mean.squeeze(-1), th.linalg.inv(precision)
    raise AssertionError(form)


def test_factor_form_equals_information_form_and_gaussian_process_form():
    transitions = random_transitions(3)
    statistics = statistics_of(transitions)
    prior = random_prior(4, (3, 1, 4))
    parameters = random_prior(5, (3, 1, 4)).mean
    mean, covariance = posterior_mean_and_covariance(prior, statistics, parameters, "factor")
    other_mean, other = posterior_mean_and_covariance(prior, statistics, parameters, "information")
    th.testing.assert_close(mean, other_mean, rtol=1e-8, atol=1e-8)
    th.testing.assert_close(covariance, other, rtol=1e-8, atol=1e-8)
    for stage in range(3):
        design = spread_design(transitions, stage, 1)
        y = targets(transitions, parameters, stage)
        sigma = prior.covariance[stage, 0]
        kernel = design @ sigma @ design.T + SIGMA2[stage] * th.eye(len(y), dtype=th.float64)
        gain = sigma @ design.T @ th.linalg.inv(kernel)
        by_kernel = prior.mean[stage, 0] + gain @ (y - design @ prior.mean[stage, 0])
        th.testing.assert_close(mean[stage, 0], by_kernel, rtol=1e-8, atol=1e-8)
        th.testing.assert_close(
            covariance[stage, 0], sigma - gain @ design @ sigma, rtol=1e-8, atol=1e-8
        )


def test_draws_have_the_posterior_s_mean_and_covariance():
    statistics = statistics_of(random_transitions(6, n_stages=1))
    prior = random_prior(7, (1, 1, 4))
    given = posterior(prior, statistics, SIGMA2[:1])
    n_draws = 200_000
    noise = th.randn(n_draws, 1, 1, 4, generator=th.Generator().manual_seed(8), dtype=th.float64)
    draws = sample_parameters(given, noise)[:, 0, 0]
    mean = sample_parameters(given)[0, 0]
    covariance = (given.root @ given.root.mT)[0, 0]
    deviation = covariance.diagonal().sqrt()
    # Monte Carlo: 4 standard errors of a mean, and of a covariance entry (at most sqrt(2) s_i s_j).
    assert ((draws.mean(0) - mean).abs() <= 4 * deviation / n_draws**0.5).all()
    errors = (draws.T.cov() - covariance).abs()
    assert (errors <= 4 * 2**0.5 * deviation.outer(deviation) / n_draws**0.5).all()


def test_perturbed_targets_give_the_same_law_as_the_factor_form():
    transitions = random_transitions(9, n_stages=1)
    statistics, prior = statistics_of(transitions), random_prior(10, (1, 1, 4))
    given = posterior(prior, statistics, SIGMA2[:1])
    design, sigma = spread_design(transitions, 0, 1), prior.covariance[0, 0]
    y = targets(transitions, prior.mean, 0)
    precision = th.linalg.inv(sigma) + design.T @ design / SIGMA2[0]
    n_draws, rng = 200_000, th.Generator().manual_seed(11)
    start = prior.mean[0, 0] + th.randn(n_draws, 4, generator=rng, dtype=th.float64) @ (
        prior.factor[0, 0].T
    )
    noise = th.randn(n_draws, len(y), generator=rng, dtype=th.float64) * SIGMA2[0].sqrt()
    right = start @ th.linalg.inv(sigma) + (y + noise) @ design / SIGMA2[0]
    draws = th.linalg.solve(precision, right.T).T
    covariance = (given.root @ given.root.mT)[0, 0]
    deviation = covariance.diagonal().sqrt()
    mean = sample_parameters(given)[0, 0]
    assert ((draws.mean(0) - mean).abs() <= 4 * deviation / n_draws**0.5).all()
    errors = (draws.T.cov() - covariance).abs()
    assert (errors <= 4 * 2**0.5 * deviation.outer(deviation) / n_draws**0.5).all()


def test_tabular_features_give_the_perturbed_empirical_mdp_of_russo():
    # Russo (2019): a cell with count c and target sum Y: N(Y / (c + 1), beta / (c + 1)).
    beta, n_cells = 0.7, 6
    transitions = random_transitions(12, n_stages=1, block_size=n_cells, n_episodes=20)
    cells = th.arange(20) % 5
    transitions = transitions._replace(
        features=th.nn.functional.one_hot(cells, n_cells).double().unsqueeze(0)
    )
    statistics = statistics_of(transitions)
    prior = isotropic_prior((1, 1, n_cells), 1 / beta)
    given = posterior(prior, statistics, th.tensor([beta], dtype=th.float64))
    counts = th.bincount(cells, minlength=n_cells).double()
    sums = th.zeros(n_cells, dtype=th.float64).index_add(0, cells, transitions.rewards[0])
    th.testing.assert_close(sample_parameters(given)[0, 0], sums / (counts + 1))
    th.testing.assert_close(
        (given.root @ given.root.mT)[0, 0], th.diag(beta / (counts + 1)), rtol=0, atol=1e-12
    )


def test_singular_covariance_and_unseen_directions_keep_the_prior():
    transitions = random_transitions(13, n_episodes=2)
    transitions.features[..., 2:] = 0
    statistics = statistics_of(transitions)
    prior = random_prior(14, (3, 1, 4), rank=1)
    given = posterior(prior, statistics, SIGMA2)
    assert sample_parameters(given).isfinite().all()
    diagonal = GaussianPrior(prior.mean, th.eye(4, dtype=th.float64).expand(3, 1, 4, 4))
    draw = sample_parameters(posterior(diagonal, statistics, SIGMA2))
    th.testing.assert_close(draw[..., 2:], prior.mean[..., 2:], rtol=0, atol=1e-12)


def test_no_data_gives_the_prior_back():
    statistics = statistics_of(random_transitions(15, n_episodes=1))
    empty = statistics._replace(**{n: th.zeros_like(getattr(statistics, n)) for n in ("gram",)})
    empty = empty._replace(
        reward_moment=th.zeros_like(statistics.reward_moment),
        successor_moment=th.zeros_like(statistics.successor_moment),
    )
    prior = random_prior(16, (3, 1, 4))
    given = posterior(prior, empty, SIGMA2)
    th.testing.assert_close(sample_parameters(given), prior.mean, rtol=0, atol=1e-12)
    th.testing.assert_close(given.root @ given.root.mT, prior.covariance, rtol=1e-10, atol=1e-10)


def test_blocks_equal_one_regression_with_a_block_diagonal_prior():
    transitions = random_transitions(17, n_blocks=3, n_actions=3)
    statistics = statistics_of(transitions, 3)
    prior = random_prior(18, (3, 3, 4))
    noise = th.zeros(3, 3, 4, dtype=th.float64)
    blockwise = sample_parameters(posterior(prior, statistics, SIGMA2), noise)
    wide = _in_one_block(transitions, 3)
    full_prior = GaussianPrior(
        prior.mean.flatten(-2).unsqueeze(-2),
        th.stack([th.block_diag(*stage) for stage in prior.factor]).unsqueeze(1),
    )
    full = sample_parameters(posterior(full_prior, statistics_of(wide), SIGMA2))
    th.testing.assert_close(blockwise.flatten(-2), full.squeeze(-2), rtol=1e-8, atol=1e-8)


def _in_one_block(transitions, n_blocks):
    one_hot = th.nn.functional.one_hot(transitions.blocks, n_blocks).double()
    features = (one_hot.unsqueeze(-1) * transitions.features.unsqueeze(-2)).flatten(-2)
    successors = transitions.successor_features
    eye = th.eye(n_blocks, dtype=th.float64).unsqueeze(-1)
    wide = (eye * successors.unsqueeze(-2)).flatten(-2)
    return transitions._replace(
        features=features, blocks=th.zeros_like(transitions.blocks), successor_features=wide
    )


def test_a_batch_of_tasks_equals_the_tasks_one_by_one_bit_for_bit():
    transitions = random_transitions(19, lead=(7,), n_blocks=3)
    statistics = statistics_of(transitions, 3)
    prior = random_prior(20, (7, 3, 3, 4))
    noise = th.randn(7, 3, 3, 4, generator=th.Generator().manual_seed(21), dtype=th.float64)
    batch = sample_parameters(posterior(prior, statistics, SIGMA2), noise)
    for i in range(7):
        own = type(transitions)(*(field[i] for field in transitions))
        one_prior = GaussianPrior(*(field[i] for field in prior))
        one = sample_parameters(posterior(one_prior, statistics_of(own, 3), SIGMA2), noise[i])
        assert th.equal(batch[i], one)


def test_room_for_more_successors_changes_no_draw():
    statistics = statistics_of(random_transitions(22))
    prior = random_prior(23, (3, 1, 4))
    plain = sample_parameters(posterior(prior, statistics, SIGMA2))
    roomy = with_capacity(statistics, 40)
    th.testing.assert_close(
        sample_parameters(posterior(prior, roomy, SIGMA2)), plain, rtol=0, atol=1e-12
    )


def test_square_root_of_a_singular_matrix_squares_to_it():
    factor = random_prior(24, (2, 5), rank=2).factor
    covariance = factor @ factor.mT
    root = square_root(covariance)
    th.testing.assert_close(root @ root.mT, covariance, rtol=0, atol=1e-12)


def test_clipping_bounds_the_values_of_successors():
    statistics = statistics_of(random_transitions(25))
    huge = th.full((3, 1, 4), 50.0, dtype=th.float64)
    moments = target_moments(statistics, huge, clip=True) - statistics.reward_moment
    bound = statistics.successor_moment.abs().sum(-1)
    left = th.tensor([2.0, 1.0, 0.0], dtype=th.float64)[:, None, None]
    assert (moments.abs() <= bound * left + 1e-12).all()
