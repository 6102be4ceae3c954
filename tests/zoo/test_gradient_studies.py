"""The studies of gradient-based meta-learning, and what is made of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from metarl_agents import ALGORITHMS
from metarl_agents.gradient import certify_meta_gradient
from zoo.config import check_arguments
from zoo.studies import adaptation_report, convergence, gradient_report
from zoo.studies.gradient import CURVES, GROUPS, Options, play
from zoo.studies.study import Context, Run
from zoo.studies.training import BestCheckpoint, LearningCurve

TINY = {
    "kind": "meta",
    "algo": "promp",
    "env": "metarl/PointGoal-v0",
    "env_kwargs": {"horizon": 4},
    "arguments": {
        "meta_batch_size": 2,
        "n_episodes_per_task": 2,
        "n_envs": 4,
        "policy_kwargs": {"net_arch": [4]},
    },
    "n_tasks": 3,
    "protocols": {name: {**how, "episodes_per_step": 2} for name, how in CURVES.items()},
}


def tiny_run(n_iterations: int = 2, **config) -> Run:
    return Run("ProMP", 0, {**TINY, **config}, {"n_iterations": n_iterations, "device": "cpu"})


def evaluations(bonus: float = 0.0, n_seeds: int = 3, **changes) -> list[dict]:
    """Rows as a study has them: seed s and task m earn -30 + 10 step + s + m."""
    return [
        {
            "run": changes.get("run", "MAML"),
            "seed": seed,
            "kind": "adaptation",
            "protocol": "equal steps",
            "step": step,
            "by_task": " ".join(str(-30 + 10 * step + seed + m + bonus) for m in range(2)),
        }
        for seed in range(n_seeds)
        for step in range(2)
    ]


@pytest.mark.parametrize("group", GROUPS)
def test_every_run_of_a_group_has_arguments_that_its_algorithm_takes(group: str) -> None:
    study = GROUPS[group](Options())
    assert study.name == f"gradient_{group}"
    for run in study.runs:
        if run.config["kind"] == "meta":
            check_arguments(run.config["arguments"], ALGORITHMS[run.config["algo"]], where=run.name)


def test_options_change_seeds_and_budgets_but_no_configuration() -> None:
    long = GROUPS["halfcheetah_dir"](Options(n_seeds=1, n_iterations=7, device="cuda"))
    assert {run.seed for run in long.runs} == {0}
    assert {run.budget["n_iterations"] for run in long.runs} == {7}
    usual = {run.stem for run in GROUPS["halfcheetah_dir"](Options()).runs}
    assert {run.stem for run in long.runs} <= usual  # so they go on from the same checkpoints


def test_a_run_scores_every_protocol_and_keeps_its_learning_curve(tmp_path: Path) -> None:
    rows = play(tiny_run(), Context(tmp_path))
    assert rows is not None
    found = {(row["protocol"], row["step"]) for row in rows if row["kind"] == "adaptation"}
    assert found == {(name, step) for name in CURVES for step in range(4)}
    training = [(row["iteration"], row["step"]) for row in rows if row["kind"] == "training"]
    assert training == [(1, "0"), (1, "K"), (2, "0"), (2, "K")]
    assert {row["env_steps"] for row in rows} == {2 * 2 * 2 * 2 * 4}
    by_name = {(row.get("protocol"), row["step"]): row["return"] for row in rows}
    # The first step is the same, later ones are half as long.
    assert by_name["equal steps", 1] == by_name["later steps halved", 1]
    assert by_name["equal steps", 3] != by_name["later steps halved", 3]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    straight = play(tiny_run(3), Context(tmp_path / "a"))
    looks = iter([False] * 12)  # steps of the vector env: one meta-iteration has eight

    def stopped() -> bool:
        return next(looks, True)

    context = Context(tmp_path / "b", stopped=stopped)
    assert play(tiny_run(3), context) is None
    assert play(tiny_run(3), Context(tmp_path / "b")) == straight


def test_a_smaller_budget_does_not_score_the_agent_of_a_larger_one(tmp_path: Path) -> None:
    play(tiny_run(2), Context(tmp_path))
    with pytest.raises(ValueError, match="2 meta-iterations already"):
        play(tiny_run(1), Context(tmp_path))


def test_a_learning_curve_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    straight = play(tiny_run(2), Context(tmp_path))
    (path,) = tmp_path.glob("*.curve.jsonl")
    with path.open("a") as file:
        file.write('{"iteration": 2, "ret')
    assert play(tiny_run(2), Context(tmp_path)) == straight


def test_the_checkpoint_after_the_best_meta_iterations_is_kept(tmp_path: Path) -> None:
    path, agent = tmp_path / "run.zip", SimpleNamespace(_n_updates=0)
    curve = LearningCurve(tmp_path / "run.curve.jsonl", agent)  # type: ignore[arg-type]
    best = BestCheckpoint(path, curve)
    for iteration in range(1, 102):
        agent._n_updates = iteration
        # Better until 60, then all is lost.
        earned = float(iteration) if iteration <= 60 else -100.0
        for writer in (curve, best):
            writer.write({"train/post_update_return": earned}, {})
        if iteration % 10 == 0:  # as agents do after they have logged
            path.write_text(f"after {iteration}")
    assert best.kept.read_text() == "after 60"
    best.consider(100)
    assert best.kept.read_text() == "after 60"


def test_a_run_may_score_its_best_checkpoint_instead_of_its_last(tmp_path: Path) -> None:
    run = tiny_run(2)
    best = Run(run.name, run.seed, run.config, {**run.budget, "keep": "best"})
    straight = play(run, Context(tmp_path))
    # Too short to compare anything: the last one is all there is.
    assert play(best, Context(tmp_path)) == straight


def test_sampled_estimates_are_those_that_are_certified() -> None:
    config = {"estimator": "sgmrl", "n_episodes": 2, "n_inner_steps": 1, "inner_lr": 0.5}
    n_replicates = 20_000
    ascent = convergence.SampledAscent(
        {**config, "step_size": 1.0, "n_replicates": n_replicates}, 0
    )
    start = np.array(convergence.START)
    ascent.step()
    moves = ascent.logits.numpy() - start
    inner = {name: config[name] for name in ("n_episodes", "n_inner_steps", "inner_lr")}
    exact = certify_meta_gradient("sgmrl", convergence.tasks(), start, **inner).exact
    # Four standard errors: wrong once in 16,000 components.
    error = 4 * moves.std(axis=0) / n_replicates**0.5
    assert (np.abs(moves.mean(axis=0) - exact) <= error).all()
    biased = certify_meta_gradient("maml", convergence.tasks(), start, **inner).expected
    assert (np.abs(moves.mean(axis=0) - biased) > error).any()


def test_a_sampled_ascent_looks_at_its_start_and_its_end(tmp_path: Path) -> None:
    config = {"kind": "sampled", "estimator": "maml", "n_episodes": 1, "n_inner_steps": 2}
    config |= {"inner_lr": 0.5, "step_size": 0.1, "n_replicates": 2, "n_looks": 3}
    rows = play(Run("maml", 0, config, {"n_iterations": 4}), Context(tmp_path))
    assert rows is not None
    assert sorted({row["iteration"] for row in rows}) == [0, 1, 2, 4]
    assert {row["n_episodes"] for row in rows if row["iteration"] == 4} == {4 * 2 * 3}
    assert len(rows) == 8


def test_an_exact_ascent_goes_up(tmp_path: Path) -> None:
    config = {"kind": "exact", "estimator": "sgmrl", "n_episodes": 1, "n_inner_steps": 1}
    run = Run("sgmrl", 0, {**config, "inner_lr": 0.5, "step_size": 0.5}, {"n_iterations": 3})
    rows = play(run, Context(tmp_path))
    assert rows is not None
    objectives = [float(row["objective"]) for row in rows]
    assert objectives == sorted(objectives) and objectives[-1] > objectives[0]


def test_samples_to_reach_a_level_count_the_running_minimum() -> None:
    squared = [1.0, 0.3, 0.5, 0.05]
    rows = [
        {"iteration": i, "n_episodes": 10 * i, "squared_norm": value}
        for i, value in enumerate(squared)
    ]
    needed = convergence.samples_to_reach(rows, [0.6, 0.25, 0.1])
    assert needed == {0.6: 10.0, 0.25: 30.0, 0.1: np.inf}


def test_the_exponent_of_a_power_law_is_recovered() -> None:
    levels = [0.5, 0.25, 0.125, 0.01]
    samples = [7 * level**-3 for level in levels[:3]] + [np.inf]
    assert convergence.fitted_exponent(levels, samples) == pytest.approx(3.0)
    assert np.isnan(convergence.fitted_exponent([0.5], [3.0]))


def test_medians_of_seeds_are_judged_by_their_bars() -> None:
    rows = evaluations() + evaluations(run="FOMAML", bonus=-9.0)
    grid = adaptation_report.bars_grid(rows, "equal steps", 1, {"MAML": -18.5, "FOMAML": -18.5})
    by_run = {row[0]: row for row in grid.rows}
    assert by_run["MAML"][3] == "-18.5" and by_run["MAML"][-1] == "met"
    assert by_run["FOMAML"][-1] == "MISSED"


def test_scores_are_ordered_by_seed_task_and_step() -> None:
    values = adaptation_report.scores(evaluations()[::-1], "MAML", "equal steps")
    assert values.shape == (3, 2, 2)
    assert values[2, 1].tolist() == [-27.0, -17.0]


def test_published_values_stand_beside_ours() -> None:
    grid = adaptation_report.adaptation_grid(
        evaluations(), "equal steps", beside={"somebody": (-40.0, -10.0, -3.0)}
    )
    assert grid.rows[-1] == ("somebody", "", "", "-40", "-10")


def test_one_method_has_to_reach_the_bar_of_the_cheetah() -> None:
    rows = evaluations(run="ProMP", bonus=300.0) + evaluations(run="MAML (TRPO)")
    bars = gradient_report.grids_of("halfcheetah_dir", rows)[-1]
    assert [row[-1] for row in bars.rows] == ["met", ""]


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("pointgoal", ("MAML", "ProMP")),
        ("sgmrl_k", ("MAML, K=1", "SG-MRL, weight 0.1, K=1", "MAML, K=2")),
        ("inner_lr", ("MAML, inner_lr=0.1", "MAML, inner_lr=0.5")),
        ("discrete", ("FrozenLakeGoal: MAML", "BernoulliBandit: MAML")),
        ("halfcheetah_dir", ("ProMP",)),
    ],
)
def test_every_group_has_tables_and_a_picture(group: str, names, tmp_path: Path) -> None:
    rows = [row for name in names for row in evaluations(run=name)]
    assert gradient_report.grids_of(group, rows)[0].rows[0][0] == names[0]
    assert gradient_report.draw(group, rows, tmp_path).read_bytes().startswith(b"\x89PNG")


def test_convergence_has_a_table_and_a_picture(tmp_path: Path) -> None:
    rows = [
        {"run": f"sgmrl, K=1, {kind}", "seed": 0, "replicate": 0, **row}
        for kind in ("exact", "step 0.1", "step 0.3")
        for row in (
            {"iteration": 0, "n_episodes": 0, "squared_norm": "1.0"},
            {"iteration": 1, "n_episodes": 8, "squared_norm": "0.2"},
            {"iteration": 2, "n_episodes": 16, "squared_norm": "0.03"},
        )
    ]
    (grid,) = gradient_report.grids_of("convergence", rows)
    assert grid.rows == (
        ("sgmrl, K=1", "1", "0.03", "8", "16", "not reached", "not reached", "1.00"),
    )
    assert gradient_report.draw("convergence", rows, tmp_path).exists()
