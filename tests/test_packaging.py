"""What users install: three packages, their types, their data, and one version number."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {"metarl_envs", "metarl_agents", "zoo"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("dist")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_exactly_the_three_packages(wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_holds_types_and_every_settings_file(wheel: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= wheel
    settings = {str(path.relative_to(ROOT)) for path in (ROOT / "zoo").rglob("*.yml")}
    assert settings
    assert settings <= wheel


def test_the_wheel_holds_the_trained_agents(wheel: set[str]) -> None:
    folder = ROOT / "zoo/trained_agents"
    files = {str(path.relative_to(ROOT)) for path in folder.iterdir()}
    assert "zoo/trained_agents/index.json" in files
    assert files <= wheel


def test_the_wheel_holds_every_module_and_nothing_compiled(wheel: set[str]) -> None:
    modules = {str(p.relative_to(ROOT)) for top in PACKAGES for p in (ROOT / top).rglob("*.py")}
    assert modules <= wheel
    assert not [name for name in wheel if name.endswith((".pyc", ".so"))]


def test_one_version_everywhere() -> None:
    version = PROJECT["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    assert f"## [{version}]" in changelog
    try:
        assert metadata.version("metarl-baselines") == version
    except metadata.PackageNotFoundError:
        pytest.skip("not installed: run from the source tree")


def test_every_dependency_is_pinned_and_torch_comes_first() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[0] == "torch==2.13.0"
    pinned = {_name(line.split("==")[0]) for line in pins}
    wanted = list(PROJECT["project"]["dependencies"]) + list(PROJECT["build-system"]["requires"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    assert {_name(requirement) for requirement in wanted} <= pinned


def test_the_console_script_answers() -> None:
    code = "from zoo.cli import main; main(['envs', '--markdown'])"
    assert PROJECT["project"]["scripts"]["metarl"] == "zoo.cli:main"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "metarl/RecommendationSmall-v0" in done.stdout


def _name(requirement: str) -> str:
    name = re.split(r"[\[<>=!~ ;]", requirement.strip())[0]
    return re.sub(r"[-_.]+", "-", name).lower()
