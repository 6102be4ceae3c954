import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from metarl_agents.common.baselines import (
    LinearFeatureBaseline,
    LinearTimeBaseline,
    ValueBaseline,
    ZeroBaseline,
    predicted_values,
    ridge_solution,
    weighted_episodes,
)
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies import make_network
from metarl_agents.common.returns import deviation, discounted_returns

BOX = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)
NETWORK = make_network("MlpPolicy", BOX, BOX)
LENGTHS = th.tensor([[8, 5, 8], [3, 8, 6]])
LIMIT = 8


def episodes(seed=0, lengths=LENGTHS, n_steps=LIMIT):
    """(M, E, T); zero in the padding, as collectors hand them out."""
    rng = np.random.default_rng(seed)
    mask = (th.arange(n_steps) < lengths[..., None]).double()

    def drawn(*sizes):
        values = th.as_tensor(rng.standard_normal((*lengths.shape, n_steps, *sizes)))
        return values * mask.reshape(*mask.shape, *[1 for _ in sizes])

    return EpisodeBatch(
        observations=drawn(2),
        actions=drawn(2),
        rewards=drawn(),
        mask=mask,
        dist_params=0.3 * drawn(4),
        final_observations=th.as_tensor(rng.standard_normal((*lengths.shape, 2))),
        terminated=(lengths < LIMIT).double(),
    )


@pytest.mark.parametrize("baseline", [LinearTimeBaseline, LinearFeatureBaseline])
def test_returns_polynomial_in_time_are_reproduced(baseline):
    batch = episodes()
    t = th.arange(LIMIT).double() / 100
    returns = (2.0 - 30.0 * t + 400.0 * t**2 - 1000.0 * t**3) * batch.mask
    exact = baseline(ridge=1e-16)(batch, returns) * batch.mask
    th.testing.assert_close(exact, returns, rtol=1e-5, atol=1e-5)


def test_long_polynomial_returns_are_reproduced_at_the_usual_ridge():
    lengths = th.full((1, 20), 200)
    batch = episodes(lengths=lengths, n_steps=200)
    t = th.arange(200).double() / 100
    returns = (2.0 - 30.0 * t + 4.0 * t**2 + 5.0 * t**3).expand(1, 20, 200)
    for baseline in (LinearTimeBaseline(), LinearFeatureBaseline()):
        # The smallest eigenvalue of the normal equations is about 1, the ridge 1e-5, weights 30.
        th.testing.assert_close(baseline(batch, returns), returns, rtol=0.0, atol=1e-3)


def test_feature_baseline_reproduces_clipped_observations_and_their_squares():
    batch = episodes()
    batch = batch._replace(observations=20.0 * batch.observations)
    clipped = batch.observations.clamp(-10, 10)
    returns = (clipped[..., 0] - 0.5 * clipped[..., 1] ** 2 + 3.0) * batch.mask
    predicted = LinearFeatureBaseline()(batch, returns) * batch.mask
    th.testing.assert_close(predicted, returns, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("baseline", [LinearTimeBaseline(), LinearFeatureBaseline()])
def test_padding_and_other_tasks_do_not_change_predictions(baseline):
    batch = episodes()
    returns = discounted_returns(batch.rewards, batch.mask, 0.9)
    expected = baseline(batch, returns) * batch.mask
    rubbish = 1.0 - batch.mask
    dirty = batch._replace(observations=batch.observations + 7.0 * rubbish[..., None])
    th.testing.assert_close(baseline(dirty, returns + 1e3 * rubbish) * batch.mask, expected)
    for i in range(2):
        alone = baseline(batch.task(i), returns[i]) * batch.mask[i]
        # Stacked products are added up in another order; the systems are badly conditioned.
        th.testing.assert_close(alone, expected[i], rtol=1e-6, atol=1e-6)


def test_rank_deficient_features_give_finite_predictions():
    batch = episodes(lengths=th.tensor([[1], [1]]), n_steps=1)
    constant = episodes()
    constant = constant._replace(observations=th.ones_like(constant.observations))
    for data in (batch, constant):
        returns = discounted_returns(data.rewards, data.mask, 0.9)
        assert LinearFeatureBaseline()(data, returns).isfinite().all()
    returns = 3.0 * constant.mask
    predicted = LinearFeatureBaseline()(constant, returns) * constant.mask
    th.testing.assert_close(predicted, returns, rtol=1e-4, atol=1e-4)


def test_the_ridge_grows_only_where_a_system_cannot_be_solved():
    features = th.ones(2, 3, 2, dtype=th.float64)
    features[1, :, 1] = th.tensor([1.0, 2.0, 3.0])
    targets = th.tensor([[1.0], [2.0], [3.0]], dtype=th.float64).expand(2, 3, 1)
    mask = th.ones(2, 3, dtype=th.float64)
    weights = ridge_solution(features, targets, mask, ridge=1e-18)
    # The first task's columns are equal: 1e-18 vanishes beside 3 in float64, and 1e-13 still does.
    with pytest.raises(ValueError, match="no finite solution"):
        ridge_solution(features[:1] * 1e200, targets[:1], mask[:1], ridge=1e-5)
    regular = ridge_solution(features[1:], targets[1:], mask[1:], ridge=1e-18)
    th.testing.assert_close(weights[1:], regular, rtol=1e-12, atol=1e-12)
    th.testing.assert_close((features @ weights)[0].mean(), targets.mean(), rtol=1e-2, atol=0.0)


def test_values_continue_truncated_episodes_only():
    batch = episodes()
    seen = []

    def by_observation(episodes, returns):
        seen.append(episodes)
        return episodes.observations.sum(-1)

    values, last = predicted_values(by_observation, batch, gamma=0.9, bootstrap_truncated=True)
    truncated = batch.terminated == 0
    assert truncated.sum() == 3
    assert th.equal(last[truncated], batch.final_observations.sum(-1)[truncated])
    assert not last[~truncated].any()
    assert th.equal(values, batch.observations.sum(-1))
    assert seen[0].mask.shape[-1] == LIMIT + 1
    assert seen[0].mask.sum() == batch.mask.sum()
    assert predicted_values(by_observation, batch, gamma=0.9)[1] is None


def weighted(batch, baseline=None, **changes):
    arguments = {"gamma": 0.9, "gae_lambda": 1.0, "normalize": None, **changes}
    return weighted_episodes(NETWORK, batch, baseline or ZeroBaseline(), **arguments)


def test_weighted_episodes_hold_what_losses_need():
    batch = episodes()
    result = weighted(batch, LinearTimeBaseline())
    returns = discounted_returns(batch.rewards, batch.mask, 0.9)
    discounts = 0.9 ** th.arange(LIMIT).double()
    expected = NETWORK.distribution.log_prob(batch.dist_params, batch.actions) * batch.mask
    th.testing.assert_close(result.log_probs, expected)
    th.testing.assert_close(result.returns, returns[..., 0], rtol=1e-12, atol=1e-12)
    th.testing.assert_close(result.rewards, discounts * batch.rewards)
    baselines = returns - result.advantages
    th.testing.assert_close(result.baselines, discounts * baselines)
    for field in (result.advantages, result.baselines, result.rewards, result.log_probs):
        assert not field[batch.mask == 0].any()
        assert not field.requires_grad


def test_advantages_are_normalized_by_task_or_divided_by_one_number():
    batch = episodes()
    raw, by_task = weighted(batch), weighted(batch, normalize="task")
    together = weighted(batch, normalize="batch")
    sigma = deviation(raw.advantages, batch.mask)
    th.testing.assert_close(together.advantages, raw.advantages / sigma)
    for i in range(2):
        alone = weighted(batch.task(i), normalize="task")
        th.testing.assert_close(alone.advantages, by_task.advantages[i], rtol=1e-12, atol=1e-12)
        assert abs(float(alone.advantages.sum())) < 1e-10


def test_episodes_of_unknown_policies_and_unknown_names_are_refused():
    batch = episodes()
    with pytest.raises(ValueError, match="dist_params has 0 numbers"):
        weighted(batch._replace(dist_params=batch.dist_params[..., :0]))
    with pytest.raises(ValueError, match="normalize='all'"):
        weighted(batch, normalize="all")


def value_baseline(**changes):
    return ValueBaseline(2, rng=np.random.default_rng(0), dtype=th.float64, **changes)


def test_value_baseline_learns_returns_of_any_scale_and_predicts_zero_before():
    batch = episodes(lengths=th.full((2, 20), LIMIT))
    returns = 1000.0 + 50.0 * batch.observations[..., 0] - 30.0 * th.arange(LIMIT).double()
    baseline = value_baseline(minibatch_size=64, n_epochs=30, learning_rate=3e-3)
    assert not baseline(batch, returns).any()
    explained = [baseline.fit(batch, returns, rng=np.random.default_rng(i)) for i in range(6)]
    assert explained[0] < 0
    assert explained[-1] > 0.9


def test_value_baseline_does_not_fit_what_it_is_applied_to():
    batch = episodes()
    returns = discounted_returns(batch.rewards, batch.mask, 0.9)
    baseline = value_baseline()
    baseline.fit(episodes(seed=1), returns, rng=np.random.default_rng(0))
    before = baseline.state()
    assert th.equal(baseline(batch, returns), baseline(batch, returns + 1.0))
    assert all(th.equal(before[name], tensor) for name, tensor in baseline.state().items())


def test_standardization_keeps_predictions_where_they_were():
    batch = episodes()
    returns = discounted_returns(batch.rewards, batch.mask, 0.9)
    baseline = value_baseline()
    baseline.fit(batch, returns, rng=np.random.default_rng(0))
    before = baseline(batch, returns)
    baseline.n_epochs = 0
    baseline.fit(batch, 100.0 + 7.0 * returns, rng=np.random.default_rng(0))
    th.testing.assert_close(baseline(batch, returns), before, rtol=1e-10, atol=1e-10)


def test_value_baseline_restored_predicts_and_learns_on_bit_for_bit():
    batch = episodes()
    returns = discounted_returns(batch.rewards, batch.mask, 0.9)
    first, second = (
        value_baseline(),
        ValueBaseline(2, rng=np.random.default_rng(9), dtype=th.float64),
    )
    first.fit(batch, returns, rng=np.random.default_rng(0))
    second.restore(first.state())
    for baseline in (first, second):
        baseline.fit(batch, returns, rng=np.random.default_rng(1))
    assert th.equal(first(batch, returns), second(batch, returns))
    with pytest.raises(ValueError, match="mean has shape None"):
        second.restore({n: t for n, t in first.state().items() if n != "mean"})
    with pytest.raises(ValueError, match="not finite"):
        first.fit(batch, returns * th.nan, rng=np.random.default_rng(1))


def test_the_value_baseline_is_not_fitted_to_observations_that_are_not_finite():
    batch, baseline = episodes(), value_baseline()
    before = baseline.state()
    broken = batch._replace(observations=batch.observations * th.nan)
    with pytest.raises(ValueError, match="observations are not finite"):
        baseline.fit(broken, th.ones_like(batch.mask), rng=np.random.default_rng(0))
    assert all(th.equal(before[name], tensor) for name, tensor in baseline.state().items())


def test_padding_does_not_change_the_fit_of_the_value_baseline():
    batch = episodes()
    returns = discounted_returns(batch.rewards, batch.mask, 0.9)
    rubbish = 1.0 - batch.mask
    dirty = batch._replace(observations=batch.observations + 7.0 * rubbish[..., None])
    clean, other = value_baseline(), value_baseline()
    clean.fit(batch, returns, rng=np.random.default_rng(0))
    other.fit(dirty, returns + 1e3 * rubbish, rng=np.random.default_rng(0))
    assert all(th.equal(other.state()[name], tensor) for name, tensor in clean.state().items())
