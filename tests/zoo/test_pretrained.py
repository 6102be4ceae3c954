"""Trained agents by name: what is published is found, verified, loaded, and played."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from metarl_agents import ALGORITHMS, load_pretrained, trained_agents
from metarl_agents.common import pretrained
from metarl_agents.common.pretrained import INDEX, sha256_of, trained_agents_folder
from zoo.cli import main
from zoo.pretrained import TRAINED_AGENTS, publish_agent
from zoo.watch import watch

ENV = "metarl/PointGoal-v0"
NAME = "promp/PointGoal-v0"
SHORT = {"horizon": 5}


def tiny_agent(seed: int = 0):
    return ALGORITHMS["promp"](
        "MlpPolicy",
        ENV,
        env_kwargs=SHORT,
        meta_batch_size=2,
        n_episodes_per_task=2,
        n_envs=4,
        policy_kwargs={"net_arch": [4]},
        seed=seed,
        device="cpu",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish_agent(
        tiny_agent(), ENV, env_kwargs=SHORT, scores={"return": -1.0}, folder=tmp_path / "agents"
    )
    return tmp_path / "agents"


def test_a_published_agent_is_loaded_by_name(folder: Path) -> None:
    agent = load_pretrained(NAME, device="cpu", folder=folder)
    observation = np.array([0.1, -0.2], dtype=np.float32)
    expected, _ = tiny_agent().predict(observation, deterministic=True)
    np.testing.assert_array_equal(agent.predict(observation, deterministic=True)[0], expected)
    adapted = agent.adapt_to(gym.make(ENV, **SHORT), 2, seed=0)
    assert np.abs(adapted.predict(observation, deterministic=True)[0] - expected).max() > 0


def test_the_class_of_a_file_need_not_be_known(folder: Path) -> None:
    for path in (folder / "promp-PointGoal-v0.zip", str(folder / "promp-PointGoal-v0.zip")):
        assert type(load_pretrained(path, device="cpu")) is ALGORITHMS["promp"]


def test_the_index_says_what_the_file_is(folder: Path) -> None:
    entry = trained_agents(folder)[NAME]
    assert entry.class_name == "ProMP" and entry.env_id == ENV and entry.env_kwargs == SHORT
    assert entry.scores == {"return": -1.0}
    assert entry.sha256 == sha256_of(folder / entry.file)
    assert "torch" in entry.versions


def test_publishing_again_replaces_the_entry_and_keeps_others(folder: Path) -> None:
    before = trained_agents(folder)[NAME]
    publish_agent(tiny_agent(seed=1), ENV, folder=folder)
    publish_agent(tiny_agent(), "metarl/PointRobot-v0", folder=folder)
    after = trained_agents(folder)
    assert set(after) == {NAME, "promp/PointRobot-v0"}
    assert after[NAME].sha256 != before.sha256


def test_a_file_that_was_changed_is_refused(folder: Path) -> None:
    with (folder / "promp-PointGoal-v0.zip").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="is not the file that"):
        load_pretrained(NAME, folder=folder)


def test_an_unknown_name_is_answered_with_those_there_are(folder: Path) -> None:
    with pytest.raises(ValueError, match=NAME):
        load_pretrained("maml/Nowhere-v0", folder=folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ('{"format": 9, "agents": {}}', "format 1"),
        ('{"format": 1, "agents": []}', "no object `agents`"),
        ('{"format": 1, "agents": {"a": {}}}', "must have exactly"),
    ],
)
def test_a_damaged_index_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / INDEX).write_text(text)
    with pytest.raises(ValueError, match=said):
        trained_agents(folder)


def test_no_file_outside_the_folder_is_opened(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["agents"][NAME]["file"] = "../agent.zip"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match="plain file name"):
        load_pretrained(NAME, folder=folder)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("file", "..", "plain file name"),
        ("file", "", "plain file name"),
        ("env_kwargs", ["horizon"], "must be an object"),
        ("scores", 3, "must be an object"),
        ("class_name", "MAML", "holds a ProMP"),
    ],
)
def test_an_index_that_was_changed_is_refused(folder: Path, key: str, value, said: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["agents"][NAME][key] = value
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=said):
        load_pretrained(NAME, folder=folder)


def test_a_folder_that_is_named_comes_before_that_of_the_package(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_agent(tiny_agent(seed=1), ENV, env_kwargs=SHORT, folder=tmp_path / "package")
    monkeypatch.setattr(pretrained, "trained_agents_folder", lambda: tmp_path / "package")
    assert load_pretrained(NAME, device="cpu", folder=folder).seed == 0
    assert load_pretrained(NAME, device="cpu").seed == 1


@pytest.mark.parametrize("score", [np.float32(1.0), float("nan")])
def test_scores_that_are_no_plain_data_change_nothing(folder: Path, score: float) -> None:
    with pytest.raises(ValueError, match="plain data"):
        publish_agent(tiny_agent(seed=1), ENV, scores={"return": score}, folder=folder)
    load_pretrained(NAME, device="cpu", folder=folder)


def test_agents_load_without_the_package_zoo(folder: Path) -> None:
    code = (
        "import sys; sys.modules['zoo'] = None\n"  # any import of it raises
        "from metarl_agents import load_pretrained, trained_agents\n"
        "assert trained_agents() == {}\n"
        f"load_pretrained({NAME!r}, device='cpu', folder={str(folder)!r})\n"
        f"load_pretrained({str(folder / 'promp-PointGoal-v0.zip')!r}, device='cpu')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_agents_outside_the_table_cannot_be_published(tmp_path: Path) -> None:
    class Own(ALGORITHMS["promp"]):  # type: ignore[misc]
        pass

    agent = object.__new__(Own)
    with pytest.raises(ValueError, match="not in ALGORITHMS"):
        publish_agent(agent, ENV, folder=tmp_path)


def test_what_comes_with_the_package_is_found_and_complete() -> None:
    assert trained_agents_folder() == TRAINED_AGENTS
    for name, entry in trained_agents().items():
        assert type(load_pretrained(name, device="cpu")).__name__ == entry.class_name


@pytest.fixture
def as_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pretrained, "trained_agents_folder", lambda: folder)
    return folder


def test_enjoy_plays_a_trained_agent_before_and_after_adaptation(
    as_installed: Path, capsys
) -> None:
    assert main(["enjoy", NAME, "--n-episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "episode 1" in printed and "episode 3" in printed
    assert printed.count("\nreturn ") == 2
    assert "1 more, to adapt to" in printed


def test_enjoy_films_a_trained_agent_after_adaptation(
    as_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "film.gif"
    monkeypatch.setattr("zoo.commands.watch", lambda config: watch(replace(config, n_steps=3)))
    assert main(["enjoy", NAME, "--video", str(video)]) == 0
    assert video.read_bytes().startswith(b"GIF")


def test_enjoy_says_what_there_is(as_installed: Path, capsys) -> None:
    assert main(["enjoy", "promp/Nowhere-v0"]) == 2
    assert NAME in capsys.readouterr().err
