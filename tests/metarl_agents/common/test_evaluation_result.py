"""Results of evaluations: interquartile means, bootstrap intervals, paired comparisons, files."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from scipy import stats

from metarl_agents.common.evaluation import AdaptationResult, interquartile_mean
from metarl_agents.common.evaluation.intervals import bootstrap_curve, bootstrap_interval


def result(
    returns, *, regret=None, seed=0, learner="A", task_ids=None, env_id="some-env", **settings
):
    """A result with the given returns (M, K+1, E)."""
    returns = np.asarray(returns, dtype=float)
    n_tasks, n_steps, n_episodes = returns.shape
    return AdaptationResult(
        learner=learner,
        env_id=env_id,
        seed=seed,
        task_ids=np.arange(n_tasks) if task_ids is None else task_ids,
        tasks=np.arange(n_tasks)[:, None],
        returns=returns,
        lengths=np.ones(returns.shape),
        regret=regret,
        optimal_returns=None if regret is None else np.full(n_tasks, 3.0),
        settings={
            "n_adapt_steps": n_steps - 1,
            "episodes_per_step": n_episodes,
            "n_eval_episodes": None,
            **settings,
        },
    )


def random_result(rng, *, n_tasks=12, shift=0.0, **kwargs):
    regret = rng.random((n_tasks, 4)) + shift
    return result(rng.normal(size=(n_tasks, 4, 2)) + shift, regret=regret, **kwargs)


def test_interquartile_mean_is_the_mean_of_the_middle_half():
    scores = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    assert interquartile_mean(scores) == pytest.approx(np.mean([2.0, 3.0, 4.0, 5.0]))


def test_interval_of_one_seed_is_scipys_percentile_bootstrap_over_tasks():
    scores = np.random.default_rng(0).normal(size=30)
    ours = bootstrap_interval(lambda s: s.mean(-1), scores[None])
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=2000, method="percentile", rng=0)
    # Two independent sets of 2,000 resamples: their quantiles agree to a few per cent of the width.
    width = ours.high - ours.low
    assert ours.estimate == scores.mean()
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * width)


def test_interval_over_seeds_is_stratified_by_task():
    # Seeds agree within every task, tasks differ: nothing varies when seeds are drawn within tasks.
    scores = np.tile(np.arange(10.0), (5, 1))
    interval = bootstrap_interval(interquartile_mean, scores)
    assert interval.low == interval.high == interval.estimate == pytest.approx(4.5)


def test_interval_over_seeds_has_the_width_of_the_mean_over_seeds():
    scores = np.random.default_rng(0).normal(size=(20, 50))
    interval = bootstrap_interval(lambda s: s.mean(-1), scores)
    expected = 2 * 1.96 * np.sqrt((scores.var(axis=0) / 20).mean() / 50)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)


def test_interval_covers_the_truth_in_about_95_percent_of_experiments():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        interval = bootstrap_interval(interquartile_mean, rng.normal(size=(1, 40)), n_resamples=300)
        hits += interval.low <= 0.0 <= interval.high
    # Binomial(200, 0.95): 4 standard errors are 0.06; the percentile method undercovers slightly.
    assert 0.87 <= hits / 200 <= 1.0


def test_intervals_are_deterministic_and_depend_on_their_seed_alone():
    scores = np.random.default_rng(0).normal(size=(1, 20))
    assert bootstrap_interval(interquartile_mean, scores) == bootstrap_interval(
        interquartile_mean, scores
    )
    other = bootstrap_interval(interquartile_mean, scores, seed=1)
    assert other != bootstrap_interval(interquartile_mean, scores)


def test_curve_resamples_all_columns_together_whatever_the_batch():
    scores = np.random.default_rng(0).normal(size=(1, 20, 1)) + np.arange(3.0)
    curve = bootstrap_curve(interquartile_mean, scores)
    np.testing.assert_allclose(curve.low - curve.low[0], [0.0, 1.0, 2.0], atol=1e-12)
    alone = bootstrap_interval(interquartile_mean, scores[..., 0])
    assert (curve.low[0], curve.high[0]) == (alone.low, alone.high)


def test_one_task_and_one_seed_have_no_interval():
    interval = bootstrap_interval(interquartile_mean, np.array([[2.0]]))
    assert interval.estimate == 2.0 and np.isnan(interval.low) and np.isnan(interval.high)


def test_metrics_are_what_they_say():
    returns = np.arange(12.0).reshape(2, 3, 2)
    regret = np.array([[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]])
    one = result(returns, regret=regret)
    np.testing.assert_allclose(one.scores("final_return")[0], [4.5, 10.5])
    np.testing.assert_allclose(one.scores("zero_shot_return")[0], [0.5, 6.5])
    np.testing.assert_allclose(one.scores("mean_return")[0], [2.5, 8.5])
    np.testing.assert_allclose(one.scores("final_regret")[0], [1.0, 4.0])
    np.testing.assert_allclose(one.scores("zero_shot_regret")[0], [3.0, 6.0])
    # On-line every one of the K + 1 collections of 2 episodes is played ...
    np.testing.assert_allclose(one.total_regret, [12.0, 30.0])
    # ... with extra episodes the policy after the last adaptation plays none.
    extra = result(returns, regret=regret, n_eval_episodes=2)
    np.testing.assert_allclose(extra.total_regret, [10.0, 22.0])


def test_iqm_and_curve_summarise_tasks():
    one = result(np.arange(8.0)[:, None, None] + np.array([[0.0], [10.0]]))
    assert one.iqm().estimate == pytest.approx(13.5)
    assert one.iqm("zero_shot_return").estimate == pytest.approx(3.5)
    curve = one.curve()
    np.testing.assert_allclose(curve.estimate, [3.5, 13.5])
    assert np.all(curve.low < curve.estimate) and np.all(curve.estimate < curve.high)


def test_paired_difference_is_tighter_than_the_spread_of_tasks():
    rng = np.random.default_rng(0)
    difficulty = 10.0 * rng.normal(size=(30, 1, 1))
    a = result(difficulty + 0.1 * rng.normal(size=(30, 1, 1)))
    b = result(difficulty + 0.1 * rng.normal(size=(30, 1, 1)) + 1.0, learner="B")
    difference = b.paired_difference(a)
    assert difference.estimate == pytest.approx(1.0, abs=0.1)
    assert difference.high - difference.low < 0.2
    assert b.mean().high - b.mean().low > 5.0


def test_ratio_of_proportional_results_is_exact():
    regret = np.random.default_rng(0).random((10, 3))
    a = result(np.zeros((10, 3, 1)), regret=regret)
    b = result(np.zeros((10, 3, 1)), regret=2.5 * regret, learner="B")
    ratio = b.ratio(a)
    np.testing.assert_allclose([ratio.estimate, ratio.low, ratio.high], 2.5)
    assert b.paired_difference(a).estimate == pytest.approx(1.5 * regret.sum(axis=1).mean())


def test_comparison_without_regret_is_of_final_returns():
    a, b = result(np.ones((4, 2, 1))), result(3 * np.ones((4, 2, 1)), learner="B")
    assert b.ratio(a).estimate == 3.0
    with pytest.raises(ValueError, match="no regret"):
        b.ratio(a, "total_regret")


def test_seeds_combine_into_one_aggregate():
    rng = np.random.default_rng(0)
    a = AdaptationResult.from_seeds([random_result(rng, seed=s) for s in range(5)])
    b = AdaptationResult.from_seeds([random_result(rng, seed=s, shift=1.0) for s in range(5)])
    assert a.scores().shape == (5, 12) and a.total_regret.shape == (12,)
    assert a.iqm().estimate == pytest.approx(float(stats.trim_mean(a.scores().ravel(), 0.25)))
    assert b.paired_difference(a, "final_return").low > 0.0
    assert a.curve("regret").estimate.shape == (4,)


def test_aggregate_keeps_pairs_together():
    rng = np.random.default_rng(0)
    ones = [random_result(rng, seed=s) for s in range(4)]
    shifted = [result(one.returns + 2.0, seed=one.seed, learner="B") for one in ones]
    a, b = AdaptationResult.from_seeds(ones), AdaptationResult.from_seeds(shifted)
    difference = b.paired_difference(a, "final_return")
    np.testing.assert_allclose([difference.low, difference.high], 2.0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"task_ids": np.arange(12) + 1}, "other tasks"),
        ({"seed": 7}, "cannot pair seed"),
        ({"n_eval_episodes": 2}, "same settings"),
        ({"episodes_per_step": 1}, "same settings"),
        ({"env_id": "other-env"}, "env_id='other-env'"),
    ],
)
def test_incomparable_results_are_refused(other, message):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        random_result(rng).paired_difference(random_result(rng, **other))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"learner": "B"}, "cannot combine 'A' with 'B'.*paired_difference"),
        ({"deterministic": True}, r"differ in deterministic \(False, True\)"),
        ({"env_id": "other-env"}, "env_id='other-env'"),
        ({"n_eval_episodes": 2}, "same settings"),
    ],
)
def test_only_seeds_of_one_learner_are_combined(other, message):
    rng = np.random.default_rng(0)
    one = random_result(rng, deterministic=False)
    two = random_result(rng, **{"seed": 1, "deterministic": False, **other})
    with pytest.raises(ValueError, match=message):
        AdaptationResult.from_seeds([one, two])


def test_total_regret_sums_what_the_adaptation_episodes_cost():
    regret = np.ones((3, 4))
    one = result(np.ones((3, 4, 2)), regret=regret, n_eval_episodes=2, deterministic=True)
    with pytest.raises(ValueError, match=r"no adaptation_regret.*final_regret"):
        _ = one.total_regret
    given = dataclasses.replace(one, adaptation_regret=np.full((3, 3), 7.0))
    np.testing.assert_array_equal(given.total_regret, 21.0)
    assert AdaptationResult.from_json(given.to_json()) == given
    with pytest.raises(ValueError, match="adaptation_regret has shape"):
        dataclasses.replace(one, adaptation_regret=np.ones((3, 4)))


def test_different_numbers_of_seeds_are_refused():
    rng = np.random.default_rng(0)
    two = AdaptationResult.from_seeds([random_result(rng, seed=s) for s in range(2)])
    with pytest.raises(ValueError, match="2 seed"):
        two.ratio(random_result(rng))
    with pytest.raises(ValueError, match="empty"):
        AdaptationResult.from_seeds([])


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.iqm("speed"),
        lambda r: r.curve("speed"),
        lambda r: r.curve(statistic="median"),
        lambda r: r.iqm(confidence_level=95),
        lambda r: r.iqm(n_resamples=0),
    ],
)
def test_unknown_names_and_levels_are_refused(call):
    with pytest.raises(ValueError, match=r"=.*(use|must)"):
        call(random_result(np.random.default_rng(0)))


def test_json_restores_an_equal_result(tmp_path):
    one = random_result(np.random.default_rng(0))
    assert AdaptationResult.from_json(one.to_json()) == one
    one.to_json(tmp_path / "result.json")
    back = AdaptationResult.from_json(tmp_path / "result.json")
    np.testing.assert_array_equal(back.returns, one.returns)
    assert back == one and back.versions["numpy"] == np.__version__
    without = result(np.ones((2, 1, 1)))
    assert AdaptationResult.from_json(without.to_json()).regret is None


@pytest.mark.parametrize("text", ["{", '{"format": 1}', '{"format": 99}'])
def test_foreign_json_is_refused(text):
    with pytest.raises(ValueError, match="to_json"):
        AdaptationResult.from_json(text)


def test_json_with_damaged_shapes_is_refused():
    plain = random_result(np.random.default_rng(0)).to_dict()
    plain["regret"] = plain["regret"][:-1]
    with pytest.raises(ValueError, match="regret has shape"):
        AdaptationResult.from_json(json.dumps(plain))


def test_csv_has_one_line_per_scored_episode(tmp_path):
    one = random_result(np.random.default_rng(0), n_tasks=3)
    rows = list(csv.DictReader(io.StringIO(one.to_csv(tmp_path / "result.csv"))))
    assert len(rows) == 3 * 4 * 2
    last = rows[-1]
    assert float(last["return"]) == one.returns[2, 3, 1]
    assert float(last["regret"]) == one.regret[2, 3] and float(last["optimal"]) == 3.0
    assert (tmp_path / "result.csv").read_text() == one.to_csv()


def test_results_are_immutable():
    one = random_result(np.random.default_rng(0))
    with pytest.raises(ValueError, match="read-only"):
        one.returns[0] = 0.0
    with pytest.raises(AttributeError):
        one.learner = "B"


def test_plot_draws_the_curve_and_its_band():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    one = random_result(np.random.default_rng(0))
    ax = one.plot()
    assert one.plot(ax, quantity="regret", statistic="mean", label="other") is ax
    np.testing.assert_allclose(ax.lines[0].get_ydata(), one.curve().estimate)
    assert [line.get_label() for line in ax.lines] == ["A", "other"]
    assert len(ax.collections) == 2
    plt.close(ax.figure)


def test_evaluation_imports_no_matplotlib():
    import subprocess
    import sys

    code = "import sys, metarl_agents.common.evaluation; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
