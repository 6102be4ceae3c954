"""The meta-gradient against the truth: every batch that can be sampled is enumerated."""

from itertools import product

import numpy as np
import pytest
import torch as th

from metarl_agents.common.inner_loop import inner_gradient
from metarl_agents.gradient import (
    ESTIMATORS,
    GradientCertificate,
    MetaEstimator,
    certify_meta_gradient,
)
from metarl_agents.gradient.enumeration import (
    TabularTask,
    all_trajectories,
    multisets,
    n_multisets,
    n_trajectories,
)
from metarl_agents.gradient.tabular_adaptation import AdaptationSettings, TabularAdaptation
from metarl_envs.tabular.mdp import FiniteMDP, policy_values
from tests.metarl_agents.gradient.literal_tasks import (
    BOTH,
    GRADIENT_A,
    GRADIENT_B,
    LOGITS,
    TASK_A,
    TASK_B,
    VALUE_A,
    VALUE_B,
)
from zoo.studies.wrong_estimators import WrongScore

# Sums of thousands of float64 terms; a wrong estimator misses by more than 1e-3.
EXACT = 1e-10


def certified(estimator, mdps=BOTH, *, n_episodes=2, inner_lr=0.5, **options):
    return certify_meta_gradient(
        estimator, mdps, LOGITS, n_episodes=n_episodes, inner_lr=inner_lr, **options
    )


# The truth --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mdp", "value", "gradient"), [(TASK_A, VALUE_A, GRADIENT_A), (TASK_B, VALUE_B, GRADIENT_B)]
)
def test_values_and_their_gradients_are_the_literals(mdp, value, gradient):
    logits = th.tensor(LOGITS, requires_grad=True)
    found = TabularTask(mdp).value(logits)
    found.backward()
    assert float(found.detach()) == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(logits.grad, gradient, atol=1e-8)


def test_stage_values_are_those_of_dynamic_programming():
    logits = th.tensor(LOGITS)
    expected = policy_values(TASK_A, logits.softmax(-1).numpy())
    np.testing.assert_allclose(TabularTask(TASK_A).stage_values(logits), expected, atol=1e-14)


@pytest.mark.parametrize(
    ("inner_lr", "n_episodes", "objective", "exact", "infinite"),
    [
        (0.5, 1, 0.91990148, (-0.06989857, 0.06899132), (-0.09201314, 0.07387176)),
        (0.5, 2, 0.93973089, (-0.08051748, 0.07165994), (-0.09201314, 0.07387176)),
        (0.5, 3, 0.94591520, (-0.08425408, 0.07245736), (-0.09201314, 0.07387176)),
        (0.1, 2, 0.51793065, (0.07754408, 0.00986521), (0.07803012, 0.00981574)),
    ],
)
def test_objectives_and_exact_gradients_are_the_literals(
    inner_lr, n_episodes, objective, exact, infinite
):
    found = certified("maml", n_episodes=n_episodes, inner_lr=inner_lr)
    assert found.objective == pytest.approx(objective, abs=5e-9)
    # The two actions of a state: opposite numbers, since softmax ignores a common shift.
    for gradient, numbers in ((found.exact, exact), (found.exact_infinite, infinite)):
        rows = np.array(numbers)[:, None] * [1.0, -1.0]
        np.testing.assert_allclose(gradient, rows, atol=6e-9)


@pytest.mark.parametrize(("n_episodes", "n_inner_steps"), [(1, 1), (2, 1), (1, 2)])
def test_exact_gradient_is_the_finite_difference_of_the_objective(n_episodes, n_inner_steps):
    def objective(logits):
        return certify_meta_gradient(
            "fomaml",
            BOTH,
            logits,
            n_episodes=n_episodes,
            n_inner_steps=n_inner_steps,
            inner_lr=0.5,
        ).objective

    exact = certified("fomaml", n_episodes=n_episodes, n_inner_steps=n_inner_steps).exact
    for index in product(range(2), range(2)):
        step = np.zeros((2, 2))
        step[index] = 1e-5  # central differences: truncation 1e-10, rounding 1e-11
        slope = (objective(LOGITS + step) - objective(LOGITS - step)) / 2e-5
        assert exact[index] == pytest.approx(slope, abs=1e-8)


# Bias of every estimator --------------------------------------------------------------------------

# Relative to the gradient of J_N / of J_inf, for (inner_lr, n_episodes).
BIASES = {
    (0.1, 1): {
        "fomaml": (0.257, 0.244),
        "maml": (0.175, 0.178),
        "lvc": (0.103, 0.110),
        "dice": (0.0110, 0.0216),
        "emaml": (0.0, 0.011),
        "sgmrl": (0.0, 0.011),
    },
    (0.1, 2): {
        "fomaml": (0.257, 0.250),
        "maml": (0.176, 0.177),
        "lvc": (0.101, 0.105),
        "dice": (0.0054, 0.0114),
        "emaml": (0.088, 0.090),
        "sgmrl": (0.0, 0.006),
    },
    (0.5, 1): {
        "fomaml": (0.820, 0.868),
        "maml": (0.474, 0.421),
        "lvc": (0.277, 0.237),
        "dice": (0.178, 0.157),
        "emaml": (0.0, 0.192),
        "sgmrl": (0.0, 0.192),
    },
    (0.5, 2): {
        "fomaml": (0.821, 0.846),
        "maml": (0.453, 0.416),
        "lvc": (0.254, 0.205),
        "dice": (0.095, 0.068),
        "emaml": (0.227, 0.221),
        "sgmrl": (0.0, 0.099),
    },
    (0.5, 3): {
        "fomaml": (0.819, 0.836),
        "maml": (0.447, 0.419),
        "lvc": (0.247, 0.207),
        "dice": (0.068, 0.041),
        "emaml": (0.298, 0.281),
        "sgmrl": (0.0, 0.067),
    },
    (1.0, 2): {
        "fomaml": (0.595, 0.688),
        "maml": (0.277, 0.346),
        "lvc": (0.110, 0.254),
        "dice": (0.098, 0.219),
        "emaml": (0.139, 0.273),
        "sgmrl": (0.0, 0.230),
    },
}


@pytest.mark.parametrize("setting", BIASES)
@pytest.mark.parametrize("name", ["fomaml", "maml", "lvc", "dice", "emaml", "sgmrl"])
def test_biases_are_the_golden_ones(name, setting):
    inner_lr, n_episodes = setting
    to_finite, to_infinite = BIASES[setting][name]
    found = certified(name, n_episodes=n_episodes, inner_lr=inner_lr)
    # The golden numbers are rounded to three digits, and some of them were twice.
    assert found.relative_bias == pytest.approx(to_finite, abs=EXACT if to_finite == 0 else 1e-3)
    assert found.relative_bias_infinite == pytest.approx(to_infinite, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "biases"),
    [
        ("fomaml", (0.120, 0.128, 0.131)),
        ("maml", (0.240, 0.258, 0.263)),
        ("lvc", (0.157, 0.154, 0.153)),
        ("dice", (0.091, 0.044, 0.029)),
        ("emaml", (0.0, 0.129, 0.176)),
        ("sgmrl", (0.0, 0.0, 0.0)),
    ],
)
def test_biases_on_one_task_are_the_golden_ones(name, biases):
    for n_episodes, bias in enumerate(biases, start=1):
        found = certified(name, [TASK_A], n_episodes=n_episodes).relative_bias
        assert found == pytest.approx(bias, abs=EXACT if bias == 0 else 1e-3)


def test_biases_on_one_task_with_small_steps_are_the_golden_ones():
    golden = {"fomaml": 0.026, "maml": 0.050, "lvc": 0.028, "dice": 0.0006, "emaml": 0.025}
    for name, bias in golden.items():
        found = certified(name, [TASK_A], inner_lr=0.1).relative_bias
        assert found == pytest.approx(bias, abs=6e-4 if bias > 0.001 else 6e-5)


def test_emaml_averages_its_score_term_and_is_exact_for_one_episode_only():
    assert certified("emaml", n_episodes=1).relative_bias < EXACT
    assert certified("emaml", n_episodes=2).relative_bias == pytest.approx(0.227, abs=0.003)


def test_dice_loses_its_bias_as_episodes_are_added():
    biases = [certified("dice", n_episodes=n).relative_bias for n in (1, 2, 3)]
    assert biases[0] > 1.8 * biases[1] > 1.8 * 1.3 * biases[2]


def test_loaded_dice_without_a_baseline_is_dice():
    plain, loaded = certified("dice"), certified("loaded_dice")
    np.testing.assert_allclose(plain.expected, loaded.expected, atol=1e-14)
    np.testing.assert_allclose(plain.covariance, loaded.covariance, atol=1e-13)


@pytest.mark.parametrize(
    ("inner_lr", "n_episodes", "bias"),
    [(0.1, 1, 0.167), (0.1, 2, 0.172), (0.5, 1, 0.334), (0.5, 2, 0.388), (1.0, 2, 0.197)],
)
def test_dice_with_a_score_term_counts_sampling_twice(inner_lr, n_episodes, bias):
    found = certified(WrongScore("dice"), n_episodes=n_episodes, inner_lr=inner_lr)
    assert found.relative_bias == pytest.approx(bias, abs=1e-3)


def test_only_the_summed_score_term_is_exact_on_other_tasks_too():
    rng = np.random.default_rng(3)
    mdps = [
        FiniteMDP(
            rng.dirichlet(np.ones(3), (3, 2)),
            rng.normal(size=(3, 2)),
            rng.dirichlet(np.ones(3)),
            discount=0.95,
            horizon=2,
        )
        for _ in range(3)
    ]
    logits = rng.normal(size=(3, 2))
    biases = {
        name: certify_meta_gradient(name, mdps, logits, n_episodes=2, inner_lr=0.5).relative_bias
        for name in ESTIMATORS
    }
    assert biases.pop("sgmrl") < EXACT
    assert biases["dice"] < min(biases["maml"], biases["fomaml"], biases["emaml"])
    assert min(biases.values()) > 1e-3


# Baselines, reductions, several steps -------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "bias"),
    [
        ("fomaml", 0.058),
        ("maml", 0.057),
        ("lvc", 0.061),
        ("emaml", 0.028),
        ("loaded_dice", 0.0081),
        (MetaEstimator("dice_baseline"), 0.0776),
        ("sgmrl", 0.0),
    ],
)
def test_weights_centred_over_the_batch_leave_only_sgmrl_exact(estimator, bias):
    found = certified(estimator, [TASK_A], baseline="batch").relative_bias
    assert found == pytest.approx(bias, abs=EXACT if bias == 0 else 1e-3)


@pytest.mark.parametrize("baseline", ["none", "batch", "value"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_sgmrl_is_exact_for_the_objective_of_every_inner_step(baseline, reduction):
    found = certified("sgmrl", baseline=baseline, reduction=reduction, score_baseline=0.3)
    assert found.relative_bias < EXACT


def test_mean_over_steps_is_a_step_size_divided_by_the_horizon():
    by_mean = certified("dice", inner_lr=1.5, reduction="mean")
    by_sum = certified("dice", inner_lr=0.5, reduction="sum")
    for field in ("objective", "exact", "exact_infinite", "expected", "covariance"):
        np.testing.assert_allclose(getattr(by_mean, field), getattr(by_sum, field), atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "biases"),
    [
        ("sgmrl", (0.0, 0.0, 0.0)),
        (WrongScore(first_only=True), (0.046, 0.125, 0.196)),
        (WrongScore(chained=False), (0.0023, 0.0140, 0.034)),
        ("maml", (0.096, 0.269, 0.419)),
        ("fomaml", (0.057, 0.188, 0.315)),
        ("lvc", (0.055, 0.156, 0.227)),
        ("dice", (0.0037, 0.050, 0.121)),
    ],
)
def test_biases_of_two_steps_are_the_golden_ones(estimator, biases):
    for inner_lr, bias in zip((0.1, 0.3, 0.5), biases, strict=True):
        found = certified(
            estimator, [TASK_A], n_episodes=1, n_inner_steps=2, inner_lr=inner_lr
        ).relative_bias
        tolerance = EXACT if bias == 0 else 1e-3 if bias > 0.01 else 1e-4
        assert found == pytest.approx(bias, abs=tolerance)


def test_two_steps_of_two_episodes_are_exact_with_all_score_terms():
    shorter = [
        FiniteMDP(mdp.transitions, mdp.rewards, mdp.initial, mdp.discount, horizon=2)
        for mdp in BOTH
    ]
    found = certified("sgmrl", shorter, n_inner_steps=2, score_baseline=0.8)
    assert found.n_batches == 2 * 36**2
    assert found.relative_bias < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("score_baseline", [0.0, 0.8])
def test_two_steps_of_two_episodes_are_exact_on_the_literal_task(score_baseline):
    found = certified("sgmrl", [TASK_A], n_inner_steps=2, score_baseline=score_baseline)
    assert found.n_batches == 528**2
    assert found.relative_bias < EXACT


# Score baselines and the control variate ----------------------------------------------------------


def test_a_constant_score_baseline_changes_the_noise_but_not_the_expectation():
    without, constant = certified("sgmrl"), certified("sgmrl", score_baseline=[1.4, 0.1])
    np.testing.assert_allclose(constant.expected, without.expected, atol=1e-12)
    assert constant.relative_std < 0.6 * without.relative_std


def test_the_return_of_the_own_batch_as_baseline_turns_the_objective_into_the_gain():
    found = certified(WrongScore(own_return_as_baseline=True), [TASK_A])
    assert found.relative_bias > 0.1
    # E[mean return of D * score of D] is the gradient of the return before adaptation.
    np.testing.assert_allclose(found.expected, found.exact - GRADIENT_A, atol=1e-7)


DIRECTION = np.array([[0.6, -0.6], [-0.2, 0.2]])


@pytest.mark.parametrize(
    ("n_episodes", "n_inner_steps", "options"),
    [
        (1, 1, {}),
        (2, 1, {"reduction": "mean"}),
        (2, 1, {"baseline": "value"}),
        (2, 1, {"baseline": "batch"}),
        (1, 2, {}),
    ],
)
def test_the_control_variate_is_unbiased_with_a_fixed_direction(n_episodes, n_inner_steps, options):
    found = certified(
        "sgmrl",
        n_episodes=n_episodes,
        n_inner_steps=n_inner_steps,
        control_variate=DIRECTION,
        score_baseline=0.5,
        **options,
    )
    assert found.relative_bias < EXACT


def test_the_control_variate_makes_more_episodes_less_noisy():
    # v: the gradient of the value after adaptation; b: its mean less what v foretells.
    def noise(n_episodes, **options):
        return certified("sgmrl", [TASK_A], n_episodes=n_episodes, **options).relative_std

    controlled = [noise(n, control_variate=DIRECTION, score_baseline=0.85) for n in (1, 2, 3)]
    # Nearly as if a batch of N had N times the information: 0.71 and 0.58.
    assert controlled[1] < 0.75 * controlled[0]
    assert controlled[2] < 0.68 * controlled[0]
    published = [noise(n) for n in (1, 2, 3)]
    assert published[0] < published[1] < published[2]
    assert controlled[2] < 0.2 * published[2]


# Curvature of the inner surrogates ----------------------------------------------------------------


def expected_curvature(mdp, loss, baseline):
    """The expected Hessian of minus an inner loss, and the Hessian of the value, both (4, 4)."""
    theta = th.tensor(LOGITS)
    adaptation = TabularAdaptation(mdp, theta, AdaptationSettings(1, 1, 1.0, "sum", baseline))
    (chains,) = adaptation.all_chains()
    chances = adaptation.expected_value(chains)[2]
    leaf = theta.expand(len(chances), 2, 2).clone().requires_grad_()
    gradient = inner_gradient(
        adaptation.network,
        {"logits": leaf},
        chains.batches[0],
        loss=loss,
        reduction="sum",
        create_graph=True,
    )["logits"]
    rows = [
        th.autograd.grad(-gradient[:, s, a].sum(), leaf, retain_graph=True)[0]
        for s, a in product(range(2), range(2))
    ]
    found = th.stack([th.einsum("c,csa->sa", chances, row).flatten() for row in rows])
    truth = th.autograd.functional.hessian(adaptation.task.value, theta).reshape(4, 4)
    return found, truth


@pytest.mark.parametrize(
    ("loss", "baseline", "errors"),
    [
        ("loglik", "none", (1.99, 1.00)),
        ("lvc", "none", (1.22, 0.42)),
        ("lvc", "value", (1.22, 0.42)),
        ("dice", "none", (0.0, 0.0)),
        ("dice_baseline", "value", (0.0, 0.0)),
        ("loaded_dice", "none", (0.0, 0.0)),
        ("loaded_dice", "value", (0.0, 0.0)),
    ],
)
def test_expected_curvatures_of_the_inner_losses_are_the_golden_ones(loss, baseline, errors):
    for mdp, error in zip(BOTH, errors, strict=True):
        found, truth = expected_curvature(mdp, loss, baseline)
        relative = float((found - truth).norm() / truth.norm())
        assert relative == pytest.approx(error, abs=1e-8 if error == 0 else 6e-3)


def test_with_the_exact_value_as_baseline_maml_sees_no_curvature():
    for mdp in BOTH:
        assert expected_curvature(mdp, "loglik", "value")[0].abs().max() < 1e-14


def test_with_the_exact_value_as_baseline_maml_tends_to_fomaml():
    gaps = []
    for n_episodes in (1, 2, 3):
        maml, fomaml = (
            certified(name, [TASK_A], n_episodes=n_episodes, baseline="value")
            for name in ("maml", "fomaml")
        )
        gaps.append(np.linalg.norm(maml.expected - fomaml.expected))
    # The curvature of one batch has mean zero, but goes with the step that the batch gives: 1/N.
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.35)
    assert gaps[2] == pytest.approx(gaps[0] / 3, rel=0.35)
    assert gaps[0] < 0.03 * np.linalg.norm(GRADIENT_A)


# Other facts of the certificate -------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [*ESTIMATORS, MetaEstimator("dice_baseline")])
def test_without_a_step_all_estimators_but_score_terms_are_the_policy_gradient(estimator):
    found = certified(estimator, [TASK_A], inner_lr=0.0, n_episodes=1)
    np.testing.assert_allclose(found.expected, GRADIENT_A, atol=1e-8)


def test_variances_are_those_of_the_enumerated_estimates():
    found = certified("dice", [TASK_A])
    both = certified("dice", [TASK_A, TASK_A])
    assert found.variance.shape == (2, 2)
    np.testing.assert_allclose(both.covariance, found.covariance / 2, atol=1e-15)
    np.testing.assert_allclose(found.covariance, found.covariance.T, atol=1e-15)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-12
    # Known from the enumeration of this task: 1.25 with the value before adaptation as baseline.
    sgmrl = certified("sgmrl", [TASK_A], score_baseline=VALUE_A)
    assert sgmrl.relative_std == pytest.approx(1.25, abs=5e-3)


def test_a_certificate_reads_well():
    text = str(certified("maml"))
    assert "relative bias      0.453 to J_N" in text
    assert "1,056" in text


def test_relative_numbers_of_a_zero_gradient_are_defined():
    zero = np.zeros((1, 1))
    certificate = GradientCertificate(0.0, zero, zero, zero, zero, 1)
    assert certificate.relative_bias == 0.0
    biased = GradientCertificate(0.0, zero, zero, zero + 1, zero, 1)
    assert biased.relative_bias == np.inf


# Enumeration --------------------------------------------------------------------------------------


def test_trajectories_are_complete_and_merge_the_last_transition():
    found = all_trajectories(TASK_A)
    assert len(found.states) == n_trajectories(TASK_A) == 32
    policy = th.tensor(LOGITS).softmax(-1)
    chances = found.environment_probabilities * policy[found.states, found.actions].prod(-1)
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-14)
    assert len({tuple(row) for row in th.cat([found.states, found.actions], 1).tolist()}) == 32


def test_impossible_transitions_and_first_states_are_left_out():
    transitions = np.zeros((3, 2, 3))
    transitions[..., 0] = 1.0
    transitions[0, 1] = [0.0, 0.5, 0.5]
    mdp = FiniteMDP(transitions, np.zeros((3, 2)), np.array([0.5, 0.5, 0.0]), horizon=3)
    found = all_trajectories(mdp)
    assert len(found.states) == n_trajectories(mdp)
    assert (found.environment_probabilities > 0).all()
    assert set(found.states[:, 0].tolist()) == {0, 1}


@pytest.mark.parametrize(("n_kinds", "size"), [(32, 1), (32, 2), (5, 4), (1, 3), (2, 40)])
def test_multisets_count_every_ordered_sample_once(n_kinds, size):
    picks, orders = multisets(n_kinds, size)
    assert len(picks) == n_multisets(n_kinds, size)
    assert float(orders.sum()) == pytest.approx(n_kinds**size, rel=1e-14)
    assert picks.unique(dim=0).shape == picks.shape


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"estimator": "reptile"}, ValueError, "choose from maml"),
        ({"estimator": object()}, TypeError, "meta_loss"),
        ({"mdps": TASK_A}, TypeError, r"\[mdp\]"),
        ({"mdps": []}, ValueError, "empty"),
        ({"logits": np.zeros((3, 2))}, ValueError, r"\(3, 2\)"),
        ({"logits": np.full((2, 2), np.inf)}, ValueError, "finite"),
        ({"n_episodes": 0}, ValueError, "n_episodes=0"),
        ({"n_inner_steps": 1.5}, ValueError, "n_inner_steps=1.5"),
        ({"inner_lr": -1.0}, ValueError, "inner_lr=-1.0"),
        ({"inner_lr": np.nan}, ValueError, "inner_lr=nan"),
        ({"inner_lr": "0.5"}, ValueError, "inner_lr='0.5'"),
        ({"inner_lr": np.array([0.1, 0.2])}, ValueError, "inner_lr="),
        ({"logits": "abc"}, TypeError, "logits must be numbers"),
        ({"mdps": [TASK_A, "b"]}, TypeError, "holds a str"),
        ({"estimator": MetaEstimator}, TypeError, "no object with a method meta_loss"),
        ({"baseline": "linear"}, ValueError, "none, batch, value"),
        ({"reduction": "median"}, ValueError, "reduction='median'"),
        ({"score_baseline": [1.0, 2.0, 3.0]}, ValueError, "score_baseline"),
        ({"n_episodes": 6}, ValueError, "4,649,568 inner batches out of up to 32 trajectories"),
        ({"n_episodes": 3, "n_inner_steps": 2}, ValueError, "reduce n_episodes"),
        ({"control_variate": np.zeros(4), "estimator": "sgmrl"}, ValueError, "control_variate"),
        ({"control_variate": DIRECTION, "estimator": "maml"}, ValueError, "no score term"),
        (
            {"control_variate": DIRECTION, "estimator": WrongScore("dice")},
            TypeError,
            "control_variate",
        ),
        ({"estimator": "dice", "baseline": "batch"}, ValueError, "dice_baseline"),
    ],
)
def test_wrong_arguments_are_refused_with_a_remedy(changes, error, message):
    arguments = {"estimator": "maml", "mdps": BOTH, "logits": LOGITS, "n_episodes": 2}
    arguments |= {"inner_lr": 0.5} | changes
    estimator, mdps, logits = (arguments.pop(name) for name in ("estimator", "mdps", "logits"))
    with pytest.raises(error, match=message):
        certify_meta_gradient(estimator, mdps, logits, **arguments)


def test_endless_tasks_and_batches_of_tasks_are_refused():
    endless = FiniteMDP(TASK_A.transitions, TASK_A.rewards, TASK_A.initial, 0.9)
    with pytest.raises(ValueError, match="horizon=H"):
        certified("maml", [endless])
    batch = FiniteMDP(TASK_A.transitions[None], TASK_A.rewards, TASK_A.initial, 0.9, 3)
    with pytest.raises(ValueError, match="single tasks"):
        certified("maml", [batch])


def test_sizes_beyond_all_bounds_are_refused_at_once():
    long = FiniteMDP(TASK_A.transitions, TASK_A.rewards, TASK_A.initial, 0.9, horizon=10_000)
    with pytest.raises(ValueError, match=r"10\^\d+ inner batches .* reduce"):
        certified("maml", [long])


def test_certificates_are_made_where_gradients_are_switched_off():
    with th.no_grad():
        assert certified("sgmrl", [TASK_A], n_episodes=1).relative_bias < EXACT


def test_logits_may_be_a_parameter_that_is_being_learned():
    learned = th.nn.Parameter(th.tensor(LOGITS))
    found = certify_meta_gradient("maml", [TASK_A], learned, n_episodes=1, inner_lr=0.5)
    np.testing.assert_array_equal(found.exact, certified("maml", [TASK_A], n_episodes=1).exact)


@pytest.mark.parametrize("loss", [0.0, th.zeros(32)])
def test_a_loss_that_does_not_depend_on_the_parameters_is_refused(loss):
    class Constant:
        def meta_loss(self, *args, **kwargs):
            return loss

    with pytest.raises(ValueError, match="depends on params"):
        certified(Constant(), [TASK_A], n_episodes=1)


def test_a_loss_that_was_averaged_over_the_tasks_is_refused():
    class Averaged(WrongScore):
        def meta_loss(self, *args, **kwargs):
            return super().meta_loss(*args, **kwargs).mean()

    with pytest.raises(ValueError, match="one loss for each"):
        certified(Averaged())
