"""The results in pages of docs/: what is committed, no more and no less."""

from pathlib import Path

import pytest

from zoo.studies import page as pages
from zoo.studies.bo_mrl_page import BO_MRL
from zoo.studies.gradient_page import GRADIENT
from zoo.studies.page import StudyFamily
from zoo.studies.runner import run_study
from zoo.studies.study import Run, Study, read_stamps, write_csv

ROOT = Path(__file__).parents[2]
families = pytest.mark.parametrize("family", [GRADIENT, BO_MRL], ids=lambda family: family.name)


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


def descended(run: Run, context):
    """Squared norms 1, 0.1, 0.01; seed 1 is unlucky."""
    if run.seed == 1:
        raise ValueError("unlucky")
    return [
        {"kind": "convergence", "step": i, "return": "1", "squared_norm": str(0.1**i)}
        for i in range(3)
    ]


def committed(family: StudyFamily, study: Study, group: str, folder: Path) -> Path:
    """The table of a study, after all of it was run."""
    run_study(study, folder / "runs", progress=False)
    write_csv(study, folder / "runs", family.table_path(group, folder))
    return folder


def point_goal(folder: Path, names: tuple[str, ...]) -> Path:
    """A study of which two seeds of some runs are finished, after half of their iterations."""
    planned = GRADIENT.groups["pointgoal"](GRADIENT.options(n_seeds=2, n_iterations=50))
    runs = [run for run in planned.runs if run.name in names]
    return committed(GRADIENT, Study(planned.name, earned, runs), "pointgoal", folder)


@families
def test_the_committed_page_is_what_the_committed_tables_say(family: StudyFamily) -> None:
    page = (ROOT / family.page).read_text(encoding="utf-8")
    text = pages.section(family, ROOT / pages.RESULTS, ROOT / pages.IMAGES)
    assert pages.with_section(page, text) == page


@families
def test_without_tables_the_page_names_what_is_not_run(family: StudyFamily, tmp_path: Path) -> None:
    text = pages.section(family, tmp_path, tmp_path)
    assert "No study is committed yet" in text
    assert f"`python {family.script}`" in text
    assert all(f"- `{group}`: " in text for group in family.groups)


@families
def test_studies_have_the_names_that_their_tables_have(family: StudyFamily) -> None:
    for group, plan in family.groups.items():
        assert plan(family.options()).name == family.table_path(group).stem
    assert "quick" in family.groups


def test_a_page_holds_claims_runs_tables_and_the_picture(tmp_path: Path) -> None:
    point_goal(tmp_path, ("MAML", "MAML (TRPO)", "ProMP", "SG-MRL"))
    (tmp_path / "gradient_pointgoal.png").touch()
    text = pages.section(GRADIENT, tmp_path, tmp_path)
    claimed = "| ProMP earns more than MAML (TRPO) after 1 step | Rothfuss et al. (2019)"
    assert claimed in text
    assert "reproduced, by 5.0 |" in text
    assert "| MAML | 10 | 2 | 100 iterations | 50 iterations |" in text
    assert "| DiCE | 10 | 0 | 100 iterations |  |" in text
    assert "**Not as planned**" in text
    assert "8 of 8 runs" in text and "torch 2" in text
    assert "**Return after adaptation (later steps halved)" in text
    assert "(images/gradient_pointgoal.png)" in text
    assert "- `pointgoal`" not in text and "- `discrete`" in text


def test_tables_that_need_all_runs_wait_for_them(tmp_path: Path) -> None:
    for n_seeds, is_whole in ((2, False), (1, True)):
        planned = BO_MRL.groups["convergence"](BO_MRL.options(n_seeds=n_seeds))
        study = Study(planned.name, descended, planned.runs)
        committed(BO_MRL, study, "convergence", tmp_path)
        text = pages.section(BO_MRL, tmp_path, tmp_path)
        assert ("running minimum of the squared norm" in text) == is_whole
        assert ("once every run is finished" in text) != is_whole
        assert "| BO-MRL, Alg 2 | 3 |" in text
        family = BO_MRL._replace(page=tmp_path / "page.md")
        family.page.write_text("<!-- results: generated -->\n<!-- end of results -->\n")
        pages.write_page(family, tmp_path, tmp_path)
        assert (tmp_path / "bo_mrl_convergence.png").exists() == is_whole
        assert ("(images/bo_mrl_convergence.png)" in family.page.read_text()) == is_whole


def test_the_rest_of_a_page_stays() -> None:
    page = "before\n<!-- results: generated -->\nold\n<!-- end of results -->\nafter\n"
    once = pages.with_section(page, "new\n")
    assert once.startswith("before\n") and once.endswith("after\n")
    assert "new" in once and "old" not in once
    assert pages.with_section(once, "new\n") == once
    with pytest.raises(ValueError, match="markers"):
        pages.with_section("no markers", "new")


def test_what_stands_above_a_table_is_read_back(tmp_path: Path) -> None:
    point_goal(tmp_path, ("MAML",))
    stamps = read_stamps(GRADIENT.table_path("pointgoal", tmp_path))
    assert stamps.budgets["MAML"]["n_iterations"] == 50
    assert stamps.summary.startswith("2 of 2 runs")
    assert len(stamps.commits) == 1 and "numpy" in stamps.versions
