import importlib
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from metarl_envs.batched.rendering import text_size
from zoo.cli import main
from zoo.config import WatchConfig
from zoo.experiment import build_agent, held_out_tasks
from zoo.watch import Panel, _cut, task_text, watch, write_film

ENV = "metarl/TMaze-v0"
MASKED = "metarl/RecommendationSmall-v0"


def film(path: Path, env: str = ENV, n_steps: int = 3, **changes: object) -> list[np.ndarray]:
    """The frames of a GIF that was written just now."""
    watch(WatchConfig(env=env, video=path, n_steps=n_steps, progress=False, **changes))  # type: ignore[arg-type]
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            frames.append(np.array(image.convert("RGB")))
    return frames


def test_a_film_starts_with_the_reset_and_has_a_frame_for_every_step(tmp_path: Path) -> None:
    # Steps that change nothing would be merged with the frame before: each has its number here.
    assert len(film(tmp_path / "a.gif", n_steps=5)) == 6


def test_tasks_are_side_by_side(tmp_path: Path) -> None:
    one, three = (film(tmp_path / "a.gif", n_tasks=n)[0].shape for n in (1, 3))
    assert three[0] == one[0] and three[1] == 3 * one[1] + 2 * 8


def films_tasks(monkeypatch: pytest.MonkeyPatch, path: Path, **changes: object) -> list[object]:
    """The tasks whose panels a film has."""
    tasks: list[object] = []

    class Noted(Panel):
        def __init__(self, config: WatchConfig, *rest: object) -> None:
            super().__init__(config, *rest)  # type: ignore[arg-type]
            tasks.append(rest[2])

    monkeypatch.setattr("zoo.watch.Panel", Noted)
    film(path, **changes)  # type: ignore[arg-type]
    return tasks


@pytest.mark.parametrize("seed", range(4))
def test_no_task_is_filmed_twice_while_there_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    arguments = {"n_steps": 1, "seed": seed}
    for n_tasks in (2, 3):  # of the two that there are
        tasks = films_tasks(monkeypatch, tmp_path / "a.gif", n_tasks=n_tasks, **arguments)
        assert len(tasks) == n_tasks and len(set(tasks)) == 2
    tasks = films_tasks(monkeypatch, tmp_path / "a.gif", env=MASKED, n_tasks=3, **arguments)
    assert tasks == held_out_tasks(MASKED, 3, seed=seed)


def test_a_film_follows_from_its_seed(tmp_path: Path) -> None:
    first, again, other = (film(tmp_path / "a.gif", seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_command_line_writes_what_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "folder/film.gif"
    arguments = ["watch", "--env", "metarl/GridGoal-v0", "--video", str(path), "--n-steps", "2"]
    assert main([*arguments, "--n-tasks", "2", "--no-progress"]) == 0
    assert path.exists()


def test_a_new_episode_of_the_same_task_follows_one_that_ended() -> None:
    config = WatchConfig(env="metarl/BernoulliBandit-v0")
    task = held_out_tasks(config.env, 1)[0]
    panel = Panel(config, None, "random play", task, 0)
    for _ in range(25):
        panel.advance()
    # Ten steps and a reset each.
    assert panel.n_episodes == 3
    assert panel.env.unwrapped.get_task() == task


def test_a_meta_agent_adapts_to_each_task(tmp_path: Path) -> None:
    agent = build_agent("rlsvi", MASKED)
    agent.save(tmp_path / "agent.zip")
    arguments = {"agent": str(tmp_path / "agent.zip"), "algo": "rlsvi", "n_tasks": 2}
    novice = film(tmp_path / "a.gif", MASKED, n_steps=8, n_adapt_episodes=0, **arguments)
    expert = film(tmp_path / "a.gif", MASKED, n_steps=8, n_adapt_episodes=5, **arguments)
    assert any(not np.array_equal(a[52:], b[52:]) for a, b in zip(novice, expert, strict=True))


def test_agents_of_stable_baselines3_play_by_name_of_class(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    PPO("MlpPolicy", gym.make(ENV), n_steps=8, batch_size=8, device="cpu").save(path)
    for algo in ("PPO", "ppo"):
        assert len(film(tmp_path / "a.gif", agent=str(path), algo=algo, n_tasks=1)) == 4


def test_agents_that_take_masks_get_them() -> None:
    model = MaskablePPO("MlpPolicy", gym.make(MASKED), n_steps=8, batch_size=8, device="cpu")
    task = held_out_tasks(MASKED, 1)[0]
    panel = Panel(WatchConfig(env=MASKED), model, "MaskablePPO", task, 0)
    panel.advance()
    masks = panel.env.get_wrapper_attr("action_masks")()
    assert not masks.all()
    assert all(masks[panel._action()] for _ in range(20))


def test_fast_films_leave_frames_out(tmp_path: Path) -> None:
    try:
        frames = film(tmp_path / "a.gif", "metarl/Walker2dVel-v0", n_steps=6, n_tasks=1)
    except OSError as error:
        pytest.skip(f"no OpenGL: {error}")
    # 125 steps per second, one in three is shown.
    assert len(frames) == 3


@pytest.mark.parametrize("size", [(20, 30), (21, 31)])
def test_an_mp4_can_be_read_again(tmp_path: Path, size: tuple[int, int]) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((*size, 3), shade, dtype=np.uint8) for shade in (0, 120, 240)]
    write_film(tmp_path / "a.mp4", frames, fps=20)
    reader = ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    width, height = size[1] + size[1] % 2, size[0] + size[0] % 2
    assert about["size"] == (width, height) and about["fps"] == 20
    shades = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert shades == pytest.approx([0, 120, 240], abs=6)


def test_a_gif_lasts_as_long_as_its_steps(tmp_path: Path) -> None:
    frames = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in (0, 120, 240)]
    write_film(tmp_path / "a.gif", frames, fps=20)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == 50 and image.n_frames == 3  # type: ignore[attr-defined]


def test_without_ffmpeg_the_error_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"pip install imageio-ffmpeg.*\.gif"):
        watch(WatchConfig(env=ENV, video=tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tasks": 0}, "n_tasks=0 must be at least 1"),
        ({"n_steps": 0}, "n_steps=0 must be at least 1"),
        ({"n_adapt_episodes": -1}, "n_adapt_episodes=-1"),
        ({"video": Path("a.avi")}, "must end in .mp4 or .gif"),
        ({"env": "metarl/Nothing-v0"}, "is unknown"),
        ({"env": "CartPole-v1"}, "has no tasks"),
        ({"agent": "nowhere.zip"}, "or a ZIP file"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"env": ENV, "video": Path("a.gif"), **changes}
    with pytest.raises(ValueError, match=message):
        watch(WatchConfig(**arguments))  # type: ignore[arg-type]


def test_agents_without_a_class_or_of_another_env_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    PPO("MlpPolicy", gym.make(ENV), n_steps=8, batch_size=8, device="cpu").save(path)
    with pytest.raises(ValueError, match="give --algo"):
        film(tmp_path / "a.gif", agent=str(path))
    with pytest.raises(ValueError, match="must be one of"):
        film(tmp_path / "a.gif", agent=str(path), algo="Nobody")
    with pytest.raises(ValueError, match="was trained for observation_space"):
        film(tmp_path / "a.gif", MASKED, agent=str(path), algo="PPO")


def test_titles_name_the_task_and_fit() -> None:
    task = held_out_tasks("metarl/PointGoal-v0", 1)[0]
    x, y = task.goal
    assert task_text(task) == f"goal=({x:.3g}, {y:.3g})"
    cut = _cut("a" * 100, 200)
    assert cut.endswith("a...") and text_size(cut)[1] <= 200 and _cut("abc", 200) == "abc"
