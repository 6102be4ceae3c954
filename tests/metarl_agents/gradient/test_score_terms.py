import numpy as np
import pytest
import torch as th

from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.gradient.score_terms import (
    check_comparison,
    compared_with,
    divided,
    moved_average,
    unit_of_credit,
    with_one_scale,
)


def episodes(*, reward_scale=1.0):
    """Two tasks, three episodes; those of the second task have one step of two."""
    mask = th.tensor([[[1.0, 1.0]] * 3, [[1.0, 0.0]] * 3], dtype=th.float64)
    generator = th.Generator().manual_seed(0)
    weights = reward_scale * mask * th.randn(2, 3, 2, generator=generator, dtype=th.float64)
    numbers = th.zeros(2, 3, 2, 1, dtype=th.float64)
    return WeightedEpisodes(
        numbers, numbers, mask, numbers, mask, weights, weights, weights, weights.sum(-1)
    )


def test_leaving_one_out_compares_with_the_mean_of_the_others():
    found = compared_with("leave_one_out", th.tensor([1.0, 2.0, 6.0]))
    assert found.tolist() == [4.0, 3.5, 1.5]


def test_regression_foretells_a_quadratic_in_the_descriptor():
    x = th.linspace(-1, 1, 9, dtype=th.float64)[:, None]
    returns = 3.0 - 2.0 * x[:, 0] + x[:, 0].square()
    found = compared_with("regression", returns, descriptors=x)
    # The ridge, 1e-3 per task, pulls slopes towards zero by about that part.
    np.testing.assert_allclose(found, returns, atol=0.05)
    alone = compared_with("leave_one_out", returns)
    assert (found - returns).abs().mean() < 0.05 * (alone - returns).abs().mean()


@pytest.mark.parametrize("name", ["leave_one_out", "regression", "ema", "none"])
def test_no_baseline_depends_on_the_return_of_its_own_task(name):
    returns = th.tensor([1.0, 2.0, 6.0, 5.0, 3.0], dtype=th.float64)
    descriptors = th.tensor([[0.1], [0.5], [2.0], [-1.0], [0.7]], dtype=th.float64)
    changed = returns.clone()
    changed[2] += 100.0
    for average in (None, 4.0):
        before, after = (
            compared_with(name, values, descriptors=descriptors, average=average)
            for values in (returns, changed)
        )
        # The regression's formula divides by 1 - leverage: rounding, times 100.
        assert abs(float(after[2] - before[2])) < 1e-10


def test_descriptors_go_where_the_returns_are():
    returns, descriptors = th.ones(3, device="meta"), th.ones(3, 1, dtype=th.float64)
    assert compared_with("regression", returns, descriptors=descriptors).device == returns.device


def test_regression_without_descriptors_is_refused():
    with pytest.raises(ValueError, match=r"regression.*to_array"):
        compared_with("regression", th.ones(3))


def test_a_single_task_has_no_others_to_compare_with():
    with pytest.raises(ValueError, match=r"leave_one_out.*meta_batch_size=1"):
        check_comparison("leave_one_out", 1)
    check_comparison("none", 1)


def test_the_running_mean_starts_at_the_first_value():
    first = moved_average(None, th.tensor([1.0, 3.0]))
    assert first == 2.0
    assert moved_average(first, th.tensor([12.0])) == pytest.approx(3.0)


def test_credit_is_worth_one_per_mean_length_where_losses_are_means_over_steps():
    found = unit_of_credit(episodes(), th.tensor(2.0, dtype=th.float64), "mean")
    assert found.tolist() == [0.25, 0.5]
    assert unit_of_credit(episodes(), th.tensor(2.0), "sum").tolist() == [0.5, 0.5]


def test_with_one_scale_credit_does_not_depend_on_the_unit_of_rewards():
    credits = []
    for scale in (1.0, 100.0):
        outer, sigma = with_one_scale(episodes(reward_scale=scale), True)
        credits.append(unit_of_credit(outer, sigma, "mean") * outer.returns.mean(-1))
        steps = outer.advantages[outer.mask > 0]
        assert float(steps.std(correction=0)) == pytest.approx(1.0, rel=1e-6)
    # 1e-8 is added to the deviation.
    np.testing.assert_allclose(credits[0], credits[1], rtol=1e-6)
    assert float(credits[0].abs().min()) > 0


def test_without_normalisation_nothing_is_divided():
    outer, sigma = with_one_scale(episodes(), False)
    assert float(sigma) == 1.0 and th.equal(outer.advantages, episodes().advantages)


def test_dividing_leaves_returns_and_log_probabilities_alone():
    found = divided(episodes(), th.tensor(2.0))
    assert th.equal(found.rewards * 2, episodes().rewards)
    assert th.equal(found.returns, episodes().returns)
    assert th.equal(found.log_probs, episodes().log_probs)
