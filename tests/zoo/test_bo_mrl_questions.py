"""The studies of open questions about BO-MRL: their runs, their tables and what they say."""

import itertools
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from metarl_agents.bilevel.adaptation import lower_level_at
from metarl_agents.bilevel.lower_level import DISTANCES, distance_of, solve_lower_level
from zoo.studies import bo_mrl_sampled_questions as sampled
from zoo.studies.bo_mrl import VARIANCES, Options
from zoo.studies.bo_mrl_conditioning import conditions, hessian_blocks
from zoo.studies.bo_mrl_lam_tables import rule_of
from zoo.studies.bo_mrl_methods import SIZE
from zoo.studies.bo_mrl_question_groups import QUESTIONS, play_question
from zoo.studies.bo_mrl_questions import gaps_of, meta_policies, move_of, variance_of
from zoo.studies.bo_mrl_questions_report import finding_of
from zoo.studies.bo_mrl_report import draw, grids_of
from zoo.studies.bo_mrl_tasks import lakes_of, part_tasks
from zoo.studies.study import Context, Run

TINY = {**SIZE, "n_train": 4, "n_validation": 3, "n_test": 4, "meta_batch_size": 2}
HIGH = {**VARIANCES["high variance"], **TINY}
SHORT = {"grid": 5, "adapt_grid": 5, "sampled_grid": 4}


def tiny(run: Run) -> Run:
    config = {**run.config, "n_validation": 3, "n_test": 4, "meta_batch_size": 2}
    config |= {name: run.config[name][::step] for name, step in SHORT.items() if name in config}
    if config.get("n_episodes"):
        config["n_episodes"] = (4,)
    if "n_variance_steps" in config:
        config["n_variance_steps"] = 2
    return Run(run.name, run.seed, config, run.budget)


@cache
def rows_of_group(group: str) -> list[dict]:
    study = QUESTIONS[group](Options(n_seeds=2, n_iterations=2))
    context = Context(Path(mkdtemp()))
    return [
        {"run": run.name, "seed": run.seed, **row}
        for run in map(tiny, study.runs)
        for row in play_question(run, context)
    ]


@pytest.mark.parametrize("group", QUESTIONS)
def test_every_question_has_a_sentence_tables_and_a_picture(group: str, tmp_path: Path) -> None:
    rows = rows_of_group(group)
    first, *grids = grids_of(group, rows)
    assert first.rows == ((finding_of(group, rows),),)
    assert grids
    assert all(len(row) == len(grid.columns) for grid in grids for row in grid.rows)
    assert draw(group, rows, tmp_path).exists()


@pytest.mark.parametrize("group", QUESTIONS)
def test_tables_are_the_same_from_rows_that_were_written_as_text(group: str) -> None:
    rows = rows_of_group(group)
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [{name: str(row.get(name, "")) for name in names} for row in rows]
    assert grids_of(group, texts) == grids_of(group, rows)


@pytest.mark.parametrize("group", QUESTIONS)
def test_a_question_has_at_least_five_seeds(group: str) -> None:
    assert len({run.seed for run in QUESTIONS[group](Options()).runs}) >= 5


@pytest.mark.parametrize("group", sorted(set(QUESTIONS) - {"sparse"}))
def test_a_question_that_is_stopped_leaves_nothing(group: str, tmp_path: Path) -> None:
    run = tiny(QUESTIONS[group](Options(n_seeds=1, n_iterations=1)).runs[0])
    assert play_question(run, Context(tmp_path, stopped=lambda: True)) is None


# Tasks


def test_no_task_is_in_two_parts_and_every_seed_parts_them_anew() -> None:
    env = gym.make(HIGH["env"], **HIGH["env_kwargs"]).unwrapped
    config = {**HIGH, "n_train": 100, "n_validation": 100, "n_test": 100}
    tests = []
    for seed in range(3):
        train, validation, test = map(set, part_tasks(env, config, seed).values())
        assert not train & validation
        assert not train & test
        assert not validation & test
        tests.append(test)
    assert tests[0] != tests[1] != tests[2]


def test_more_training_tasks_are_the_same_and_others() -> None:
    few, many = (lakes_of({**HIGH, "n_train": n}, 0) for n in (3, 30))
    assert bool((many.train.rewards[:3] == few.train.rewards).all())
    assert bool((many.test.rewards == few.test.rewards).all())


def test_a_family_with_too_few_tasks_is_refused() -> None:
    # All maps are the one without holes, which is in one part only.
    config = {**TINY, "env": HIGH["env"], "env_kwargs": {"p": 1.0, "discount": 0.8}}
    with pytest.raises(ValueError, match="cannot be found"):
        lakes_of(config, 0)


def test_sharing_rewards_scales_what_tasks_do_not_have_in_common() -> None:
    costs = {**VARIANCES["low variance"], **TINY}
    apart, near = (lakes_of({**costs, "shared": share}, 0).train.rewards for share in (0.0, 0.75))
    own = apart - apart.mean(0)
    # The mean of the family falls out of deviations from the mean of these tasks.
    assert near - near.mean(0) == pytest.approx(0.25 * own, abs=1e-12)


# Conditioning


def lower_level(algorithm: int, lam: float):
    tasks = lakes_of(HIGH, 0).train
    phi = th.linspace(-1.0, 1.0, 64, dtype=th.float64).sin().reshape(16, 4)
    _, problem = lower_level_at(tasks, phi, lam)
    return problem, solve_lower_level(distance_of(algorithm), problem)


def test_the_hessian_of_alg_2_is_lambda_nu_times_the_covariance_of_actions() -> None:
    problem, adapted = lower_level(2, 0.5)
    p = adapted.policy
    covariance = th.diag_embed(p) - p[..., :, None] * p[..., None, :]
    expected = 0.5 * problem.occupancy[..., None, None] * covariance
    found = hessian_blocks(DISTANCES["reverse_kl"], problem, adapted.logits)
    assert float((found - expected).abs().max()) < 1e-14  # float64 rounding of sums of order 1


def test_condition_numbers_of_alg_3_are_those_that_its_solver_reports() -> None:
    problem, adapted = lower_level(3, 0.5)
    found = conditions(DISTANCES["l2"], problem, adapted).all_states
    # The same eigenvalues from a closed form and from autograd.
    assert found == pytest.approx(adapted.max_eigenvalue / adapted.min_eigenvalue, rel=1e-10)


def test_condition_numbers_leave_out_directions_that_change_no_policy() -> None:
    problem, adapted = lower_level(1, 4.0)
    found = conditions(DISTANCES["forward_kl"], problem, adapted)
    assert bool((found.one_state < 1e3).all())
    assert bool((found.all_states >= found.one_state * 0.999).all())


# Episodes


def test_one_solve_on_many_episodes_comes_near_the_exact_adaptation() -> None:
    tasks = lakes_of(HIGH, 0).train
    phi, lam = th.zeros(16, 4, dtype=th.float64), th.tensor([1.0], dtype=th.float64)
    generator = th.Generator().manual_seed(0)
    protocol = sampled.PROTOCOLS["one batch, 1 solve"]
    found = sampled.adapted_to_episodes(tasks, phi, lam, protocol, 400, generator)
    _, problem = lower_level_at(tasks, phi, lam)
    exact = solve_lower_level(distance_of(2), problem).policy
    # A table of 400 episodes of noisy targets; seldom visited states are further off.
    weighted = (found[0].softmax(-1) - exact).abs().sum(-1) * problem.occupancy
    assert float(weighted.sum(-1).max()) < 0.15


def test_values_of_lambda_share_the_first_episodes() -> None:
    tasks = lakes_of(HIGH, 0).train
    phi, lams = th.zeros(16, 4, dtype=th.float64), th.tensor([1.0, 0.5], dtype=th.float64)
    protocol = sampled.PROTOCOLS["one batch, 1 solve"]
    found = sampled.adapted_to_episodes(tasks, phi, lams, protocol, 4, th.Generator())
    q, double = (logits - logits.mean(-1, keepdim=True) for logits in found)
    assert double == pytest.approx(2.0 * q, abs=1e-12)


def test_episodes_must_fill_all_batches() -> None:
    protocol = sampled.PROTOCOLS["4 batches, 4 solves"]
    tasks, phi = lakes_of(HIGH, 0).train, th.zeros(16, 4, dtype=th.float64)
    with pytest.raises(ValueError, match="multiple of 4"):
        sampled.adapted_to_episodes(tasks, phi, th.ones(1), protocol, 6, th.Generator())


def test_what_the_best_policy_does_is_missed_until_it_is_played() -> None:
    tasks = lakes_of(HIGH, 0).train
    logits = th.zeros_like(tasks.rewards)
    generator = th.Generator().manual_seed(0)
    rollouts = sampled.played(tasks, logits, 2, generator)
    seen = sampled.seen_by(tasks, logits, rollouts)
    nothing, everything = (th.full_like(seen.counts, count) for count in (0.0, 1.0))
    assert sampled.missed_mass(tasks, logits, seen._replace(counts=nothing)) == pytest.approx(1.0)
    assert float(sampled.missed_mass(tasks, logits, seen._replace(counts=everything)).max()) == 0.0


# What is said of the rows


def test_the_gap_before_adaptation_is_that_of_the_meta_policy() -> None:
    tasks = lakes_of(HIGH, 0).test
    config = {"method": "bo_mrl", "algorithm": 2}
    gaps = gaps_of(config, tasks, th.zeros(16, 4, dtype=th.float64), 0.01, 3)
    assert len(gaps) == 4
    # Alg 2 with exact Q never lowers a return.
    assert all((later <= gap + 1e-9).all() for gap, later in itertools.pairwise(gaps))


def test_tasks_that_are_all_the_same_have_no_variance_left() -> None:
    tasks = lakes_of(HIGH, 0).test.subset([0, 0, 0])
    # One policy is nearly optimal for all; Adam leaves some softness.
    assert variance_of(tasks, 50) < 0.05 < variance_of(lakes_of(HIGH, 0).test, 50)


def test_lambda_within_a_mean_kl_is_chosen_on_validation_tasks(tmp_path: Path) -> None:
    (run, *_) = QUESTIONS["metric"](Options(n_seeds=1, n_iterations=2)).runs
    run = tiny(Run(run.name, 0, {**run.config, "budgets": (0.0, 0.1, 1e9)}, run.budget))
    config, lakes = run.config, lakes_of(tiny(run).config, 0)
    rows = play_question(run, Context(tmp_path))
    found = {row["budget"]: row for row in rows if row["kind"] == "budget"}
    assert set(found) == {"0.1", "1e+09"}  # every adaptation moves the policy
    logits = meta_policies(config, lakes, run)
    moves = {
        (f"{trained:g}", f"{lam:g}"): move_of(config, lakes.validation, phi, lam)
        for trained, phi in zip(config["grid"], logits, strict=True)
        for lam in config["adapt_grid"]
    }
    for budget, row in found.items():
        pair = row["trained_with"], row["adapted_with"]
        within = [move.gap for move in moves.values() if move.mean_kl <= float(budget)]
        assert moves[pair].gap == min(within)


def test_a_rule_counts_what_each_family_loses_in_its_own_unit() -> None:
    gaps = {"a": {("1", "1"): 10.0, ("2", "2"): 11.0}, "b": {("1", "1"): 0.2, ("2", "2"): 0.1}}
    units = {"a": 100.0, "b": 1.0}
    rows = [
        {
            "run": name,
            "seed": 0,
            "kind": "matrix",
            "trained_with": pair[0],
            "adapted_with": pair[1],
            "validation": gap,
        }
        for name, pairs in gaps.items()
        for pair, gap in pairs.items()
    ]
    rows += [{"run": name, "seed": 0, "kind": "lam", "unit": u} for name, u in units.items()]
    assert rule_of(rows, ["a"], is_one_value=False) == ("1", "1")
    # 1 is a hundredth of the unit of a, 0.1 a tenth of that of b.
    assert rule_of(rows, ["a", "b"], is_one_value=True) == ("2", "2")


@pytest.mark.parametrize(("last", "said"), [(0.1, "falls by"), (3.0, "rises by")])
def test_the_sentence_follows_the_rows(last: float, said: str) -> None:
    gaps = {5: 1.0, 20: 1.0, 400: last}
    rows = [
        {
            "run": f"low: {n} tasks",
            "seed": seed,
            "n_train": n,
            "step": 1,
            "train": 0.0,
            "test": gap + 0.01 * seed * np.sign(n - 5),
        }
        for n, gap in gaps.items()
        for seed in range(3)
    ]
    assert f"from 5 to 400 training tasks the gap on test tasks {said}" in finding_of(
        "n_tasks", rows
    )
