"""The results in docs/gradient.md: what is committed, no more and no less."""

from pathlib import Path

import pytest

from zoo.studies import gradient_page
from zoo.studies.gradient import GROUPS, Options
from zoo.studies.gradient_claims import CLAIMS, claims_grid, is_better, reaches, vanishes
from zoo.studies.runner import run_study
from zoo.studies.study import Run, Study, read_stamps, write_csv

DOCS = Path(__file__).parents[2] / "docs"


def earned(run: Run, context):
    """After step k every task earns -40 + 10 k, or 5 more, and a little by seed and task."""
    bonus = 5.0 if run.name in ("ProMP", "SG-MRL") else 0.0
    return [
        {
            "kind": "adaptation",
            "protocol": protocol,
            "step": step,
            "return": "0",
            "by_task": " ".join(str(-40 + 10 * step + bonus + run.seed / 10 + m) for m in range(2)),
        }
        for protocol in ("equal steps", "later steps halved")
        for step in range(4)
    ]


def committed(group: str, folder: Path, names: tuple[str, ...]) -> Path:
    """A study of which two seeds of some runs are finished, after half of their iterations."""
    found = GROUPS[group](Options(n_seeds=2, n_iterations=100))
    study = Study(found.name, earned, [run for run in found.runs if run.name in names])
    run_study(study, folder / "runs", progress=False)
    write_csv(study, folder / "runs", gradient_page.table_path(group, folder))
    return folder


def test_the_committed_page_is_what_the_committed_tables_say() -> None:
    page = (DOCS / "gradient.md").read_text(encoding="utf-8")
    root = DOCS.parent
    text = gradient_page.section(root / gradient_page.RESULTS, root / gradient_page.IMAGES)
    assert gradient_page.with_section(page, text) == page


def test_without_tables_the_page_says_so(tmp_path: Path) -> None:
    text = gradient_page.section(tmp_path, tmp_path)
    assert "No study is committed yet" in text


def test_a_page_holds_claims_runs_tables_and_the_picture(tmp_path: Path) -> None:
    committed("pointgoal", tmp_path, ("MAML", "MAML (TRPO)", "ProMP", "SG-MRL"))
    (tmp_path / "gradient_pointgoal.png").touch()
    text = gradient_page.section(tmp_path, tmp_path)
    claimed = "| ProMP earns more than MAML (TRPO) after 1 step | Rothfuss et al. (2019)"
    assert claimed in text
    assert "reproduced, by 5.0 |" in text
    assert "| MAML | 10 | 2 | 200 iterations | 100 iterations |" in text
    assert "| DiCE | 10 | 0 | 200 iterations |  |" in text
    assert "**Not as planned**" in text
    assert "8 of 8 runs" in text and "torch 2" in text
    assert "**Return after adaptation (later steps halved)" in text
    assert "(images/gradient_pointgoal.png)" in text


def test_the_rest_of_a_page_stays(tmp_path: Path) -> None:
    page = "before\n<!-- results: generated -->\nold\n<!-- end of results -->\nafter\n"
    once = gradient_page.with_section(page, "new\n")
    assert once.startswith("before\n") and once.endswith("after\n")
    assert "new" in once and "old" not in once
    assert gradient_page.with_section(once, "new\n") == once
    with pytest.raises(ValueError, match="markers"):
        gradient_page.with_section("no markers", "new")


def test_every_claim_is_about_runs_that_its_study_has() -> None:
    for claim in CLAIMS:
        names = [run.name for run in GROUPS[claim.group](Options()).runs]
        keywords = claim.check.keywords  # type: ignore[attr-defined]
        named = {keywords[key] for key in ("name", "other") if keywords.get(key) is not None}
        assert named <= set(names), claim


def rows_of(name: str, level: float) -> list[dict]:
    run = {"run": name, "protocol": "equal steps", "step": 0}
    return [{**run, "seed": seed, "by_task": f"{level + seed} {level}"} for seed in range(3)]


def test_a_published_return_is_reached_or_missed_by_so_much() -> None:
    found = [reaches(rows_of("a", 10.0), "a", "equal steps", 0, level) for level in (10, 20.25)]
    assert [finding.verdict for finding in found if finding] == [
        "reproduced",
        "not reproduced, 10.0 short",
    ]
    assert reaches(rows_of("a", 10.0), "b", "equal steps", 0, 10) is None


def test_methods_differ_only_beyond_their_intervals() -> None:
    rows = rows_of("a", 10.0) + rows_of("b", 10.2) + rows_of("c", 20.0)
    verdicts = [
        (is_better(rows, *names, protocol="equal steps", step=0) or ("", ""))[1]
        for names in (("c", "a"), ("a", "c"), ("b", "a"))
    ]
    assert verdicts == [
        "reproduced, by 10.0",
        "not reproduced, worse by 10.0",
        "not reproduced, +0.2 within the intervals",
    ]


def test_a_gradient_vanishes_beside_another() -> None:
    norms = {"a": (1.0, 1e-8), "b": (1.0, 0.1)}
    rows = [
        {"run": name, "iteration": str(i), "squared_norm": str(value)}
        for name, values in norms.items()
        for i, value in enumerate(values)
    ]
    assert (vanishes(rows, "a", "b") or ("", ""))[1] == "reproduced"
    assert (vanishes(rows, "b", "a") or ("", ""))[1].startswith("not reproduced")
    assert vanishes(rows, "a", "c") is None


def test_studies_that_check_no_claim_have_no_such_table() -> None:
    assert claims_grid("discrete", []) is None


def test_what_stands_above_a_table_is_read_back(tmp_path: Path) -> None:
    committed("discrete", tmp_path, ("BernoulliBandit: MAML",))
    stamps = read_stamps(gradient_page.table_path("discrete", tmp_path))
    assert stamps.budgets["BernoulliBandit: MAML"]["n_iterations"] == 100
    assert stamps.summary.startswith("2 of 2 runs")
    assert len(stamps.commits) == 1 and "numpy" in stamps.versions
