import subprocess
import sys

import pytest

from metarl_agents import ALGORITHMS
from metarl_envs import FAMILIES
from zoo.cli import RUNNERS, main
from zoo.comparators import COMPARATORS

HEAVY = ("torch", "stable_baselines3", "metarl_agents", "metarl_envs", "gymnasium", "matplotlib")
COMMANDS = ("train", "evaluate", "compare", "enjoy", "watch", "envs", "agents", "demo")


@pytest.mark.parametrize("arguments", [[], ["train"], ["demo"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom zoo.cli import main\n"
        f"try: main({[*arguments, '--help']!r})\nexcept SystemExit as stop: assert not stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "usage: metarl" in done.stdout


def test_python_m_zoo_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "--help"], capture_output=True, text=True, check=True
    )
    assert all(command in done.stdout for command in COMMANDS)
    assert len(RUNNERS) == len(COMMANDS)


def test_envs_lists_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert all(env_id in printed for env_id in FAMILIES)


def test_agents_lists_every_algorithm_and_comparator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in [*ALGORITHMS, *COMPARATORS])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nothing", "metarl/RecommendationSmall-v0"], "mtsrl"),
        (["train", "ppo", "metarl/RecommendationSmall-v0"], "compare"),
        (["train", "mtsrl", "metarl/Nothing-v0"], "RecommendationSmall"),
        (["train", "mtsrl", "metarl/InverseBellman-v0"], "n-timesteps"),
        (["evaluate", "nowhere"], "no folder that `train` wrote"),
        (["compare", "nothing"], "neither a folder"),
    ],
)
def test_a_mistake_ends_with_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_an_unknown_hyperparameter_is_refused_before_training(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "mtsrl", "metarl/RecommendationSmall-v0"]
    arguments += ["--folder", str(tmp_path), "--hyperparams", "sigma3=1"]
    assert main(arguments) == 2
    assert "no argument sigma3" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
