"""What README.md says is true: its code runs, its tables are those of the registries."""

import re
from pathlib import Path

import pytest

from zoo.report import algorithms_grid, families_grid

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs_and_adapting_beats_starting_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(blocks[0], "README.md", "exec"), names)
    assert names["ours"].total_regret.mean() < names["afresh"].total_regret.mean()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("marker", "grid"), [("families", families_grid()), ("methods", algorithms_grid())]
)
def test_tables_are_those_of_the_registries(marker: str, grid) -> None:
    match = re.search(
        rf"<!-- {marker}: .*? -->\n(.*?)\n<!-- end of {marker} -->", README, flags=re.DOTALL
    )
    assert match is not None
    assert match.group(1) == grid.markdown()


def test_relative_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_of_the_makefile_and_the_command_line_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
    from zoo.cli import RUNNERS

    commands = {runner.split(":")[1].removeprefix("run_") for runner in RUNNERS.values()}
    assert set(re.findall(r"python -m zoo (\w+)", README)) <= commands
