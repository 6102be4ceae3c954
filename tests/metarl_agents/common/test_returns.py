import numpy as np
import pytest
import torch as th

from metarl_agents.common.returns import (
    deviation,
    discounted_returns,
    generalized_advantages,
    normalized,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}
LENGTHS = th.tensor([[5, 3, 1], [2, 5, 4]])


def steps(seed=0, lengths=LENGTHS, n_steps=5):
    """(M, E, T) numbers with rubbish in the padding, and the mask."""
    mask = (th.arange(n_steps) < lengths[..., None]).double()
    values = th.as_tensor(np.random.default_rng(seed).standard_normal(mask.shape))
    return values, mask


def by_episode(function, *fields):
    """Applies a function of one episode's steps, without padding, to each of them."""
    out = th.zeros_like(fields[0])
    for m, e in np.ndindex(*LENGTHS.shape):
        n = LENGTHS[m, e]
        out[m, e, :n] = th.as_tensor(np.array(function(*(f[m, e, :n].tolist() for f in fields))))
    return out


def test_returns_equal_the_sum_of_their_definition():
    rewards, mask = steps()

    def loop(rs):
        return [sum(0.9**k * r for k, r in enumerate(rs[t:])) for t in range(len(rs))]

    th.testing.assert_close(
        discounted_returns(rewards, mask, 0.9), by_episode(loop, rewards), **EXACT
    )


def test_bootstrap_is_discounted_back_from_the_end_of_each_episode():
    rewards, mask = steps()
    bootstrap = th.tensor([[1.0, -2.0, 0.0], [3.0, 0.5, 0.0]]).double()
    extra = discounted_returns(rewards, mask, 0.9, bootstrap) - discounted_returns(
        rewards, mask, 0.9
    )
    remaining = (LENGTHS[..., None] - th.arange(5)).double()
    th.testing.assert_close(extra, bootstrap[..., None] * 0.9**remaining * mask, **EXACT)


@pytest.mark.parametrize("bootstrapped", [False, True])
def test_generalized_advantages_equal_a_loop(bootstrapped):
    rewards, mask = steps()
    values, _ = steps(seed=1)
    last = th.as_tensor(np.random.default_rng(2).standard_normal(LENGTHS.shape))
    lasts = last[..., None].expand_as(values) * float(bootstrapped)

    def loop(rs, vs, ends):
        advantages, running, following = [], 0.0, ends[0]
        for r, v in zip(reversed(rs), reversed(vs), strict=True):
            running = r + 0.9 * following - v + 0.9 * 0.8 * running
            following = v
            advantages.insert(0, running)
        return advantages

    ours = generalized_advantages(rewards, values, mask, 0.9, 0.8, last if bootstrapped else None)
    th.testing.assert_close(ours, by_episode(loop, rewards, values, lasts), **EXACT)


def test_lambda_one_gives_returns_minus_values():
    rewards, mask = steps()
    values, _ = steps(seed=1)
    last = th.ones(2, 3).double()
    for bootstrap in (None, last):
        advantages = generalized_advantages(rewards, values, mask, 0.9, 1.0, bootstrap)
        expected = discounted_returns(rewards, mask, 0.9, bootstrap) - values * mask
        th.testing.assert_close(advantages, expected, **EXACT)


def test_normalized_has_mean_zero_and_deviation_one_in_each_task():
    advantages, mask = steps()
    result = normalized(advantages, mask)
    assert not result[mask == 0].any()
    for ours, raw, valid in zip(result, advantages, mask.bool(), strict=True):
        own = raw[valid].numpy()
        np.testing.assert_allclose(ours[valid], (own - own.mean()) / (own.std() + 1e-8), rtol=1e-12)
    together = normalized(advantages, mask, (0, 1, 2))[mask.bool()]
    assert abs(float(together.mean())) < 1e-12


def test_constant_advantages_are_normalized_to_zero_and_do_not_become_nan():
    _, mask = steps()
    assert not normalized(th.full_like(mask, 3.0), mask).any()
    assert not normalized(th.full_like(mask, 3.0), th.zeros_like(mask)).isnan().any()


def test_deviation_is_that_of_all_valid_steps():
    advantages, mask = steps()
    expected = advantages[mask.bool()].numpy().std()
    np.testing.assert_allclose(deviation(advantages, mask), expected + 1e-8, rtol=1e-12)


def test_tasks_do_not_see_each_other():
    rewards, mask = steps()
    values, _ = steps(seed=1)
    together = generalized_advantages(rewards, values, mask, 0.9, 0.8)
    for i in range(2):
        alone = generalized_advantages(rewards[i], values[i], mask[i], 0.9, 0.8)
        assert th.equal(alone, together[i])
