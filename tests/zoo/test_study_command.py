"""The command line of scripts that reproduce studies."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from zoo.report import Grid
from zoo.studies import command
from zoo.studies.bo_mrl_page import BO_MRL
from zoo.studies.command import parser_of, run_command
from zoo.studies.gradient_page import GRADIENT
from zoo.studies.page import StudyFamily
from zoo.studies.study import Run, Study

ROOT = Path(__file__).parents[2]
families = pytest.mark.parametrize("family", [GRADIENT, BO_MRL], ids=lambda family: family.name)


class Options(NamedTuple):
    n_seeds: int | None = None
    n_iterations: int | None = None


class DeviceOptions(NamedTuple):
    n_seeds: int | None = None
    n_iterations: int | None = None
    device: str = "cpu"


def play(run: Run, context):
    return [{"value": run.budget["n_iterations"], "device": run.config["device"]}]


def unlucky(run: Run, context):
    if run.seed == 1:
        raise ValueError("seed 1 is unlucky")
    return play(run, context)


def interrupted(run: Run, context):
    raise KeyboardInterrupt


def group(name: str, played_by=play):
    def plan(options) -> Study:
        budget = {"n_iterations": options.n_iterations or 3}
        config = {"device": getattr(options, "device", "none")}
        runs = [Run("one", seed, config, budget) for seed in range(options.n_seeds or 2)]
        return Study(f"numbers_{name}", played_by, runs)

    plan.__doc__ = f"The {name} numbers."
    return plan


def grids_of(group: str, rows) -> list[Grid]:
    missed = any(float(row["value"]) < 3 for row in rows)
    lines = [(row["run"], row["device"], "MISSED" if missed else "met") for row in rows]
    return [Grid(f"Numbers of {group}", ("run", "device", ""), tuple(lines))]


def draw(group: str, rows, folder: Path) -> Path:
    path = folder / f"numbers_{group}.png"
    path.touch()
    return path


@pytest.fixture
def numbers(tmp_path: Path) -> StudyFamily:
    page = tmp_path / "page.md"
    page.write_text("<!-- results: generated -->\n<!-- end of results -->\n")
    return StudyFamily(
        name="numbers",
        script="scripts/numbers.py",
        page=page,
        groups={"quick": group("quick"), "small": group("small"), "large": group("large")},
        options=Options,
        grids_of=grids_of,
        draw=draw,
        rule="Numbers are numbers.",
    )


def called(family: StudyFamily, folder: Path, *words: str) -> int:
    where = [f"--{name}={folder}" for name in ("folder", "results", "images")]
    return run_command(family, "Numbers.", [*words, "--workers", "1", *where])


def tables(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("numbers_*.csv")}


@families
def test_the_calls_that_a_script_documents_are_understood(family: StudyFamily) -> None:
    text = (ROOT / family.script).read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(text))
    calls = re.findall(rf"python {family.script} (.*)", doc)
    assert len(calls) >= 3
    for call in calls:
        parser_of(family, "").parse_args(call.split())


@families
def test_help_says_what_there_is(family: StudyFamily, capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_command(family, "What for.", ["--help"])
    said = capsys.readouterr().out
    assert "What for." in said and all(group in said for group in family.groups)
    names = ("seeds", "iterations", "time-budget", "workers", "folder", "results", "images")
    assert all(f"--{name}" in said for name in (*names, "quick", "report", "group"))


def test_agents_are_published_and_devices_and_scales_chosen_where_that_makes_sense(numbers) -> None:
    for family in (GRADIENT, BO_MRL):
        parser_of(family, "").parse_args(["--device", "cuda", "--publish"])
    parser_of(BO_MRL, "").parse_args(["--scale", "paper"])
    for words in (["--device", "cuda"], ["--publish"], ["--scale", "paper"]):
        with pytest.raises(SystemExit):
            parser_of(numbers, "").parse_args(words)


def test_without_groups_all_but_the_quick_one_are_run(numbers, tmp_path: Path) -> None:
    assert called(numbers, tmp_path) == 0
    assert tables(tmp_path) == {"numbers_small.csv", "numbers_large.csv"}
    assert (tmp_path / "numbers_small.md").exists() and (tmp_path / "numbers_small.png").exists()


def test_quick_is_a_group(numbers, tmp_path: Path) -> None:
    assert called(numbers, tmp_path, "--quick", "--seeds", "1") == 0
    assert tables(tmp_path) == {"numbers_quick.csv"}
    assert len(list((tmp_path / "numbers_quick").glob("*.json"))) == 1


def test_groups_may_be_repeated_and_shortened(numbers, tmp_path: Path, capsys) -> None:
    words = ("--group", "large", "--group", "small", "--iterations", "2")
    assert called(numbers, tmp_path, *words) == 1  # a bar is missed
    assert tables(tmp_path) == {"numbers_small.csv", "numbers_large.csv"}
    assert "MISSED" in capsys.readouterr().out


def test_a_device_reaches_the_runs(numbers, tmp_path: Path, capsys) -> None:
    family = numbers._replace(options=DeviceOptions)
    assert called(family, tmp_path, "--quick", "--device", "cuda") == 0
    assert "cuda" in capsys.readouterr().out


@pytest.mark.parametrize("needs_all_runs", [False, True])
def test_a_failed_run_is_told_and_leaves_what_there_is(
    numbers, tmp_path: Path, capsys, needs_all_runs: bool
) -> None:
    groups = {**numbers.groups, "small": group("small", unlucky)}
    family = numbers._replace(groups=groups, needs_all_runs=needs_all_runs)
    assert called(family, tmp_path, "--group", "small") == 1
    assert "seed 1 is unlucky" in capsys.readouterr().out
    assert tables(tmp_path) == {"numbers_small.csv"}
    assert (tmp_path / "numbers_small.md").exists() != needs_all_runs


def test_ctrl_c_ends_everything(numbers, tmp_path: Path) -> None:
    family = numbers._replace(groups={**numbers.groups, "quick": group("quick", interrupted)})
    words = ("--group", "quick", "--group", "small")
    assert called(family, tmp_path, *words) == 130
    assert tables(tmp_path) == set()


def test_when_the_time_is_over_nothing_is_started(numbers, tmp_path: Path) -> None:
    assert called(numbers, tmp_path, "--time-budget", "0") == 1
    assert tables(tmp_path) == set()


def test_agents_are_published_on_demand(numbers, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "publish_best", lambda study, folder: {"best": None})
    family = numbers._replace(trains_agents=True)
    assert called(family, tmp_path, "--quick") == 0
    assert "published" not in capsys.readouterr().out
    assert called(family, tmp_path, "--quick", "--publish") == 0
    assert "published best" in capsys.readouterr().out


def test_agents_that_are_there_for_comparison_are_not_published(
    numbers, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(command, "publish_best", lambda study, folder: {str(len(study.runs)): None})
    for publishes, n_runs in (((), 2), (("promp",), 0)):
        family = numbers._replace(trains_agents=True, publishes=publishes)
        assert called(family, tmp_path, "--quick", "--publish") == 0
        assert f"published {n_runs}" in capsys.readouterr().out


def test_a_report_runs_nothing_and_writes_the_page(numbers, tmp_path: Path, capsys) -> None:
    assert called(numbers, tmp_path, "--group", "small") == 0
    (tmp_path / "numbers_small.png").unlink()
    assert called(numbers, tmp_path, "--report") == 0
    assert f"written to {numbers.page}" in capsys.readouterr().out
    page = numbers.page.read_text()
    assert "### The small numbers" in page and "Numbers are numbers." in page
    assert "(images/numbers_small.png)" in page
    assert "- `large`: The large numbers" in page
    assert tables(tmp_path) == {"numbers_small.csv"}


def test_the_scale_of_the_paper_has_groups_and_tables_of_its_own(
    numbers, tmp_path: Path, capsys
) -> None:
    family = numbers._replace(paper={"large": group("paper_large")})
    words = ("--scale", "paper", "--group", "large")
    assert called(family, tmp_path, *words) == 0
    assert tables(tmp_path) == {"numbers_paper_large.csv"}
    with pytest.raises(SystemExit, match="no group 'small': take one of large"):
        called(family, tmp_path, "--scale", "paper", "--group", "small")
    assert called(family, tmp_path, "--report") == 0
    page = family.page.read_text()
    assert "### The paper_large numbers" in page
    assert "- `small`: The small numbers" in page


def test_partial_groups_have_tables_before_all_of_their_runs_are_finished(
    numbers, tmp_path: Path
) -> None:
    groups = {**numbers.groups, "small": group("small", unlucky)}
    family = numbers._replace(groups=groups, needs_all_runs=True, partial_groups=("small",))
    assert called(family, tmp_path, "--group", "small") == 1
    assert (tmp_path / "numbers_small.md").exists()
