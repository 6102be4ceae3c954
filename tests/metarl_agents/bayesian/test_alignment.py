import pytest
import torch as th
from scipy.stats import kstest

from metarl_agents.bayesian.alignment import (
    alignment_distance,
    dominates,
    noise_shift,
    reflection_coupling,
    required_gram,
    total_variation,
    transition_shifts,
)
from metarl_agents.bayesian.linear_gaussian import (
    GaussianPrior,
    add_transitions,
    posterior,
    square_root,
)
from metarl_agents.bayesian.rlsvi import sample_parameters
from tests.metarl_agents.bayesian.random_tasks import (
    random_prior,
    random_transitions,
    statistics_of,
)

SIGMA2 = th.tensor([0.3, 0.5, 0.7], dtype=th.float64)
NOISE_STD = th.tensor([0.5, 0.6, 0.8], dtype=th.float64)
ROUNDING = 1e-9  # the Gram matrices here have condition numbers below 1e4


def normal(seed, *shape):
    return th.randn(*shape, generator=th.Generator().manual_seed(seed), dtype=th.float64)


def wrong_prior(prior, seed, size=0.3):
    """The same covariance, another mean within its range."""
    white = size * normal(seed, *prior.mean.shape)
    return prior._replace(mean=prior.mean + (prior.factor @ white.unsqueeze(-1)).squeeze(-1))


def shifted(transitions, true, learned, n_blocks):
    """The transitions as the agent with the learned prior must see them to agree."""
    gram = statistics_of(transitions, n_blocks).gram
    shift = noise_shift(true, learned.mean, gram, SIGMA2)
    change = transition_shifts(transitions, shift.direction)
    return transitions._replace(rewards=transitions.rewards + change), change, shift


@pytest.mark.parametrize("n_blocks", [1, 3])
@pytest.mark.parametrize("noise_seed", [None, 4])
def test_shifted_rewards_give_both_agents_the_same_draws_at_every_stage(n_blocks, noise_seed):
    transitions = random_transitions(0, n_blocks=n_blocks, n_episodes=40, dropout=0.2)
    true = random_prior(1, (3, n_blocks, 4))
    learned = wrong_prior(true, 2)
    other, _, _ = shifted(transitions, true, learned, n_blocks)
    noise = None if noise_seed is None else normal(noise_seed, 3, n_blocks, 4)
    draws = [
        sample_parameters(posterior(prior, statistics_of(data, n_blocks), SIGMA2), noise)
        for prior, data in ((true, transitions), (learned, other))
    ]
    th.testing.assert_close(draws[0], draws[1], rtol=0, atol=ROUNDING)
    unaligned = sample_parameters(
        posterior(learned, statistics_of(transitions, n_blocks), SIGMA2), noise
    )
    assert ((unaligned - draws[0]).abs().amax((-1, -2)) > 1e-3).all()


def test_agents_that_agree_once_stay_the_same_while_they_learn_on():
    transitions, more = random_transitions(5, n_episodes=30), random_transitions(6, n_episodes=9)
    true = random_prior(7, (3, 1, 4))
    learned = wrong_prior(true, 8)
    other, _, _ = shifted(transitions, true, learned, 1)
    noise = normal(9, 3, 1, 4)
    draws = [
        sample_parameters(
            posterior(prior, add_transitions(statistics_of(data), more), SIGMA2), noise
        )
        for prior, data in ((true, transitions), (learned, other))
    ]
    th.testing.assert_close(draws[0], draws[1], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_gram_matrices_alone_tell_the_squared_norm_of_the_shift(n_blocks):
    transitions = random_transitions(10, n_blocks=n_blocks, n_episodes=40, dropout=0.3)
    true = random_prior(11, (3, n_blocks, 4))
    learned = wrong_prior(true, 12)
    _, change, shift = shifted(transitions, true, learned, n_blocks)
    th.testing.assert_close(shift.squared_norm, (change**2).sum(-1))
    gram = statistics_of(transitions, n_blocks).gram
    pull = th.linalg.solve(true.covariance, true.mean - learned.mean)
    information_form = (pull * th.linalg.solve(gram, pull)).sum((-1, -2)) * SIGMA2**2
    th.testing.assert_close(shift.squared_norm, information_form, rtol=1e-6, atol=0)


def test_no_smaller_shift_aligns():
    # All shifts that align have the same X'delta: they differ by vectors orthogonal to X.
    transitions = random_transitions(13, n_stages=1, n_episodes=20)
    true = random_prior(14, (1, 1, 4))
    learned = wrong_prior(true, 15)
    gram = statistics_of(transitions).gram
    shift = noise_shift(true, learned.mean, gram, SIGMA2[:1])
    change = transition_shifts(transitions, shift.direction)[0]
    design = transitions.features[0]
    pull = th.linalg.solve(true.covariance[0, 0], (true.mean - learned.mean)[0, 0])
    th.testing.assert_close(design.T @ change, SIGMA2[0] * pull, rtol=1e-8, atol=1e-8)
    fitted = design @ th.linalg.lstsq(design, change.unsqueeze(-1)).solution
    th.testing.assert_close(fitted.squeeze(-1), change)


def test_the_right_prior_needs_no_shift():
    transitions, true = random_transitions(16), random_prior(17, (3, 1, 4))
    _, change, shift = shifted(transitions, true, true, 1)
    assert (change == 0).all() and (shift.squared_norm == 0).all()
    assert alignment_distance(shift.squared_norm, NOISE_STD) == 0


@pytest.mark.parametrize("from_covariance", [False, True])
def test_singular_priors_align_within_their_range(from_covariance):
    transitions = random_transitions(18, n_episodes=30)
    true = random_prior(19, (3, 1, 4), rank=2)
    if from_covariance:
        # Its zero eigenvalues are zero up to rounding, and their roots are 1e-8, which is not
        # small enough to be rounding but counts as zero all the same.
        true = true._replace(factor=square_root(true.covariance))
    learned = wrong_prior(true, 20)
    other, change, shift = shifted(transitions, true, learned, 1)
    noise = normal(21, 3, 1, 4)
    draws = [
        sample_parameters(posterior(prior, statistics_of(data), SIGMA2), noise)
        for prior, data in ((true, transitions), (learned, other))
    ]
    th.testing.assert_close(draws[0], draws[1], rtol=0, atol=1e-7)
    th.testing.assert_close(shift.squared_norm, (change**2).sum(-1))


@pytest.mark.parametrize("from_covariance", [False, True])
def test_means_that_differ_where_the_prior_has_no_variance_never_align(from_covariance):
    transitions = random_transitions(22, n_episodes=30)
    true = random_prior(23, (3, 1, 4), rank=2)
    if from_covariance:
        true = true._replace(factor=square_root(true.covariance))
    shift = noise_shift(true, true.mean + 0.1, statistics_of(transitions).gram, SIGMA2)
    assert shift.squared_norm.isinf().all()
    distance = alignment_distance(shift.squared_norm, NOISE_STD)
    assert total_variation(distance) == 1.0


def test_means_that_differ_in_an_unseen_direction_never_align():
    transitions = random_transitions(24, n_episodes=30)
    transitions.features[1, :, 3] = 0
    gram = statistics_of(transitions).gram
    eye = th.eye(4, dtype=th.float64).expand(3, 1, 4, 4)
    true = GaussianPrior(th.zeros(3, 1, 4, dtype=th.float64), eye)
    unseen, seen = true.mean.clone(), true.mean.clone()
    unseen[..., 3], seen[..., :3] = 0.1, 0.1
    assert noise_shift(true, unseen, gram, SIGMA2).squared_norm.isinf().tolist() == [
        False,
        True,
        False,
    ]
    assert noise_shift(true, seen, gram, SIGMA2).squared_norm.isfinite().all()
    none_seen = noise_shift(true, seen, th.zeros_like(gram), SIGMA2)
    assert none_seen.squared_norm.isinf().all() and (none_seen.direction == 0).all()


def test_distance_counts_the_shifts_of_all_stages_in_standard_deviations():
    transitions, true = random_transitions(25, n_episodes=30), random_prior(26, (3, 1, 4))
    _, change, shift = shifted(transitions, true, wrong_prior(true, 27), 1)
    expected = (change / NOISE_STD.unsqueeze(-1)).norm()
    th.testing.assert_close(alignment_distance(shift.squared_norm, NOISE_STD), expected)


def test_more_exploration_brings_the_tasks_closer():
    true = random_prior(28, (3, 1, 4))
    learned = wrong_prior(true, 29)
    distances = []
    for n_episodes in (8, 40, 200):
        gram = statistics_of(random_transitions(30, n_episodes=n_episodes)).gram
        shift = noise_shift(true, learned.mean, gram, SIGMA2)
        distances.append(float(alignment_distance(shift.squared_norm, NOISE_STD)))
    assert distances[0] > distances[1] > distances[2]


def test_a_batch_of_tasks_equals_the_tasks_one_by_one():
    transitions = random_transitions(31, lead=(5,), n_blocks=3, n_episodes=30)
    gram = statistics_of(transitions, 3).gram
    true = random_prior(32, (3, 3, 4))
    learned = wrong_prior(true, 33)
    batch = noise_shift(true, learned.mean, gram, SIGMA2)
    assert alignment_distance(batch.squared_norm, NOISE_STD).shape == (5,)
    for i in range(5):
        one = noise_shift(true, learned.mean, gram[i], SIGMA2)
        th.testing.assert_close(batch.direction[i], one.direction, rtol=1e-10, atol=1e-10)
        th.testing.assert_close(batch.squared_norm[i], one.squared_norm, rtol=1e-10, atol=0)


def test_total_variation_is_the_distance_of_two_unit_gaussians():
    distances = th.tensor([0.0, 0.05, 0.5, 1.0, 3.0], dtype=th.float64)
    grid = th.linspace(-12, 15, 200_001, dtype=th.float64)
    density = th.distributions.Normal(0.0, 1.0).log_prob
    gaps = (density(grid).exp() - density(grid - distances.unsqueeze(-1)).exp()).abs()
    # The trapezoidal rule with steps of 1.4e-4 is exact to about 1e-9 here.
    th.testing.assert_close(
        total_variation(distances), th.trapezoid(gaps, grid) / 2, rtol=0, atol=1e-8
    )


def test_total_variation_is_at_most_the_distance_over_root_two_pi():
    distances = th.logspace(-6, 2, 100, dtype=th.float64)
    values = total_variation(distances)
    assert (values <= distances / (2 * th.pi) ** 0.5).all() and (values <= 1).all()
    assert (values.diff() >= 0).all()
    assert total_variation(th.tensor(th.inf, dtype=th.float64)) == 1


@pytest.mark.parametrize("distance", [0.05, 0.5, 1.0, 3.0])
def test_coupling_succeeds_as_often_as_total_variation_allows(distance):
    n_draws, shift = 100_000, normal(34, 12)
    shift = distance * shift / shift.norm()
    uniform = th.rand(n_draws, generator=th.Generator().manual_seed(35), dtype=th.float64)
    coupled = reflection_coupling(normal(36, n_draws, 12), shift, uniform)
    expected = 1 - float(total_variation(th.tensor(distance, dtype=th.float64)))
    error = (expected * (1 - expected) / n_draws) ** 0.5
    assert abs(float(coupled.aligned.double().mean()) - expected) <= 3 * error


@pytest.mark.parametrize("distance", [0.05, 1.0, 3.0])
def test_coupled_noise_is_standard_normal(distance):
    n_draws, shift = 100_000, normal(37, 5)
    shift = distance * shift / shift.norm()
    uniform = th.rand(n_draws, generator=th.Generator().manual_seed(38), dtype=th.float64)
    noise = reflection_coupling(normal(39, n_draws, 5), shift, uniform).noise
    # 4 standard errors of a mean, a variance and a covariance of standard normal numbers.
    assert (noise.mean(0).abs() <= 4 * n_draws**-0.5).all()
    errors = (noise.T.cov() - th.eye(5, dtype=th.float64)).abs()
    assert (errors <= 4 * (2 / n_draws) ** 0.5).all()
    assert kstest((noise @ shift / distance).numpy(), "norm").pvalue > 0.001


def test_noise_that_is_not_aligned_is_reflected_and_keeps_its_length():
    noise, shift = normal(40, 1000, 6), normal(41, 6)
    uniform = th.rand(1000, generator=th.Generator().manual_seed(42), dtype=th.float64)
    coupled = reflection_coupling(noise, shift, uniform)
    aligned = coupled.aligned
    assert aligned.any() and not aligned.all()
    assert th.equal(coupled.noise[aligned], (noise + shift)[aligned])
    mirror, change = coupled.noise[~aligned], (coupled.noise - noise)[~aligned]
    th.testing.assert_close(mirror.norm(dim=-1), noise[~aligned].norm(dim=-1))
    across = change - (change @ shift).unsqueeze(-1) * shift / (shift @ shift)
    assert across.abs().max() < ROUNDING


def test_without_a_shift_the_noise_stays_as_it_is():
    noise = normal(43, 50, 6)
    uniform = th.rand(50, generator=th.Generator().manual_seed(44), dtype=th.float64)
    coupled = reflection_coupling(noise, th.zeros(6, dtype=th.float64), uniform)
    assert coupled.aligned.all() and th.equal(coupled.noise, noise)


def test_coupled_tasks_agree_exactly_where_the_coupling_succeeded_and_nowhere_else():
    n_tasks, n_rows = 400, 20
    transitions = random_transitions(45, lead=(n_tasks,), n_episodes=n_rows)
    true = random_prior(46, (3, 1, 4))
    learned = wrong_prior(true, 47, size=1.0)
    gram = statistics_of(transitions).gram
    shift = noise_shift(true, learned.mean, gram, SIGMA2)
    std = NOISE_STD.unsqueeze(-1)
    change = transition_shifts(transitions, shift.direction) / std
    noise = normal(48, n_tasks, 3, n_rows)
    uniform = th.rand(n_tasks, generator=th.Generator().manual_seed(49), dtype=th.float64)
    coupled = reflection_coupling(noise.flatten(1), change.flatten(1), uniform)
    chances = 1 - total_variation(alignment_distance(shift.squared_norm, NOISE_STD))
    error = (chances * (1 - chances)).sum().sqrt()
    assert 0.1 < chances.mean() < 0.9
    assert (coupled.aligned.double().sum() - chances.sum()).abs() <= 3 * error

    def draws(prior, reward_noise):
        rewards = transitions.rewards + std * reward_noise
        data = transitions._replace(rewards=rewards)
        return sample_parameters(
            posterior(prior, statistics_of(data), SIGMA2), normal(50, n_tasks, 3, 1, 4)
        )

    gaps = draws(true, noise) - draws(learned, coupled.noise.unflatten(1, (3, n_rows)))
    largest = gaps.abs().flatten(1).amax(-1)
    assert (largest[coupled.aligned] < ROUNDING).all()
    assert (largest[~coupled.aligned] > 1e-3).all()


def test_required_gram_gives_both_learners_the_same_posterior_covariance():
    statistics, true = statistics_of(random_transitions(51)), random_prior(52, (3, 1, 4))
    extra = th.diag(th.tensor([0.4, 0.1, 0.7, 0.2], dtype=th.float64))
    widened = GaussianPrior(true.mean, th.linalg.cholesky(true.covariance + extra))
    needed = required_gram(true.covariance, widened.covariance, SIGMA2)
    more = statistics._replace(gram=statistics.gram + needed)
    roots = [
        posterior(prior, data, SIGMA2).root for prior, data in ((true, statistics), (widened, more))
    ]
    first, second = (root @ root.mT for root in roots)
    th.testing.assert_close(first, second, rtol=1e-8, atol=1e-10)
    assert dominates(widened.covariance, true.covariance).all()
    assert (th.linalg.eigvalsh(needed) > 0).all()


def test_pseudo_observations_align_a_widened_prior():
    # Data with the required Gram matrix turn the widened prior into one with the true covariance,
    # and from there the shift of the rewards does the rest.
    transitions, true = random_transitions(53, n_episodes=30), random_prior(54, (3, 1, 4))
    widened = true.covariance + 0.3 * th.eye(4, dtype=th.float64)
    needed = required_gram(true.covariance, widened, SIGMA2)
    moment = (needed @ normal(55, 3, 1, 4, 1)).squeeze(-1)
    statistics = statistics_of(transitions)
    learned_mean = wrong_prior(true, 56).mean
    scale = SIGMA2[:, None, None]
    weighted = th.linalg.solve(widened, learned_mean) + moment / scale
    effective = (true.covariance @ weighted.unsqueeze(-1)).squeeze(-1)
    shift = noise_shift(true, effective, statistics.gram, SIGMA2)
    change = transition_shifts(transitions, shift.direction)
    seen = statistics_of(transitions._replace(rewards=transitions.rewards + change))
    seen = seen._replace(
        gram=seen.gram + needed,
        reward_moment=seen.reward_moment + moment,
    )
    noise = normal(57, 3, 1, 4)
    oracle = posterior(true, statistics, SIGMA2)
    learner = posterior(GaussianPrior(learned_mean, th.linalg.cholesky(widened)), seen, SIGMA2)
    means = [sample_parameters(given) for given in (oracle, learner)]
    th.testing.assert_close(means[0], means[1], rtol=0, atol=1e-8)
    # The same z in the same square root of the posterior covariance.
    learner = learner._replace(root=oracle.root)
    draws = [sample_parameters(given, noise) for given in (oracle, learner)]
    th.testing.assert_close(draws[0], draws[1], rtol=0, atol=1e-8)


def test_no_data_make_up_for_a_covariance_that_is_too_small():
    true = random_prior(58, (3, 2, 4)).covariance
    needed = required_gram(true, 0.8 * true, SIGMA2)
    assert (th.linalg.eigvalsh(needed) < 0).all()
    expected = -0.25 * SIGMA2[:, None, None, None] * th.linalg.inv(true)
    th.testing.assert_close(needed, expected, rtol=1e-6, atol=0)
    assert not dominates(0.8 * true, true).any()


def test_a_covariance_that_is_too_small_in_one_direction_does_not_dominate():
    true = th.diag(th.tensor([1.0, 2.0, 0.0], dtype=th.float64))
    wider = true + th.diag(th.tensor([5.0, -0.01, 1.0], dtype=th.float64))
    assert not dominates(wider, true)
    assert dominates(true, true) and dominates(true + 1e-3 * th.ones(3, 3).double(), true)
