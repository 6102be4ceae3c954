"""Films of held-out tasks, side by side."""

import importlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from fractions import Fraction
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import stable_baselines3
from PIL import Image as Pillow
from rich.progress import track
from stable_baselines3.common.base_class import BaseAlgorithm

from metarl_agents import ALGORITHMS, MetaAlgorithm, trained_agents
from metarl_envs.batched.rendering import FAINT, INK, Image, canvas, draw_text, text_size
from zoo import report
from zoo.comparators import COMPARATORS, agent_class
from zoo.config import WatchConfig, parse_key_values
from zoo.experiment import check_env_id, held_out_tasks
from zoo.runs import load_named

_HEADER, _MARGIN, _LINE, _GAP = 52, 10, 22, 8  # pixels
_MOST_FPS = 50
"""A quicker film leaves frames out: viewers of GIFs slow down what is above."""
_MPEG_QUALITY = 8  # of 10
_DRAWS_PER_TASK = 32  # so many that neither of two tasks is missing


def watch(config: WatchConfig) -> None:
    """
    Film an agent, or random play, in held-out tasks.

    :param config: the options
    """
    _check(config)
    kwargs = parse_key_values(config.env_kwargs, option="env-kwargs")
    tasks = _different_tasks(config, kwargs)
    agent = _loaded(config)
    who = _who(agent, config)
    panels = [
        Panel(config, _playing(agent, config, task, number), who, task, number)
        for number, task in enumerate(tasks)
    ]
    steps_per_second = Fraction(panels[0].env.metadata["render_fps"])
    stride = ceil(steps_per_second / _MOST_FPS)
    frames = _frames(panels, config.n_steps, stride)
    n_frames = 1 + config.n_steps // stride
    shown = track(frames, "filming", total=n_frames, disable=not config.progress)
    write_film(config.video, shown, fps=float(steps_per_second / stride))
    for panel in panels:
        panel.env.close()
    report.console().print(f"written to {config.video}", soft_wrap=True)


class Panel:
    """
    One task of a film.

    :param config: the options
    :param policy: what plays; ``None`` plays at random
    :param who: its name
    :param task: the task
    :param number: position of the task, from 0
    """

    def __init__(self, config: WatchConfig, policy: Any, who: str, task: Any, number: int) -> None:
        self.config, self.policy, self.who = config, policy, who
        self.title = f"task {number + 1}: {task_text(task)}"
        self.env = _made(config, render_mode="rgb_array")
        self.env.get_wrapper_attr("set_task")(task)
        self.env.action_space.seed(config.seed + number)
        self.n_episodes, self.is_over, self.memory = 0, True, None
        self._begin(seed=config.seed + number)
        self.size = self.env.render().shape[:2]

    def advance(self) -> None:
        """One step, or the start of the next episode where one has ended."""
        if self.is_over:
            self._begin()
            return
        self.observation, _, terminated, truncated, _ = self.env.step(self._action())
        self.is_over = bool(terminated or truncated)

    def picture(self) -> Image:
        """What the environment renders, under a title."""
        height, width = self.size
        image = canvas(_HEADER + height, width)
        frame = self.env.render()[:height, :width]
        image[_HEADER : _HEADER + frame.shape[0], : frame.shape[1]] = frame
        room = width - 2 * _MARGIN
        draw_text(image, _MARGIN, _MARGIN, _cut(self.title, room), INK)
        line = f"episode {self.n_episodes}: {self.who}"
        draw_text(image, _MARGIN + _LINE, _MARGIN, _cut(line, room), FAINT)
        return image

    def _begin(self, seed: int | None = None) -> None:
        self.observation, _ = self.env.reset(seed=seed)
        self.n_episodes, self.is_over = self.n_episodes + 1, False
        self.is_start = True

    def _action(self) -> Any:
        masks = _masks(self.env)
        if self.policy is None:
            return self.env.action_space.sample(mask=masks)
        observation = self.observation
        if isinstance(observation, dict):
            row: Any = {name: np.asarray(entry)[None] for name, entry in observation.items()}
        else:
            row = np.asarray(observation)[None]
        takes_masks = "action_masks" in inspect.signature(self.policy.predict).parameters
        actions, self.memory = self.policy.predict(
            row,
            state=self.memory,
            episode_start=np.array([self.is_start]),
            deterministic=self.config.deterministic,
            **({"action_masks": masks} if takes_masks else {}),
        )
        self.is_start = False
        return actions[0]


def task_text(task: Any) -> str:
    """
    A task's fields in a few words: ``velocity=1.23``.

    :param task: any task
    """
    if not is_dataclass(task):
        return str(task)
    entries = {entry.name: getattr(task, entry.name) for entry in fields(task)}
    return ", ".join(f"{name}={_short(value)}" for name, value in entries.items())


def write_film(path: Path, frames: Iterable[Image], *, fps: float) -> None:
    """
    Write frames of one size as MP4 or GIF.

    :param path: ends in .mp4 or .gif
    :param frames: (height, width, 3) each
    :param fps: frames per second
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = iter(frames)
    if path.suffix.lower() == ".gif":
        pictures = (Pillow.fromarray(frame).quantize(128) for frame in rows)
        first = next(pictures)
        # In hundredths of a second, as GIF has it.
        duration = 10 * round(100 / fps)
        first.save(path, save_all=True, append_images=pictures, duration=duration, loop=0)
        return
    start = _even(next(rows))
    size = start.shape[1], start.shape[0]
    film = _ffmpeg().write_frames(
        str(path), size, fps=fps, quality=_MPEG_QUALITY, macro_block_size=2
    )
    film.send(None)
    try:
        film.send(start)
        for frame in rows:
            film.send(_even(frame))
    finally:
        film.close()


def _check(config: WatchConfig) -> None:
    for name in ("n_tasks", "n_steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 1")
    if config.n_adapt_episodes < 0:
        raise ValueError(f"n_adapt_episodes={config.n_adapt_episodes} must not be negative")
    suffix = config.video.suffix.lower()
    if suffix not in (".mp4", ".gif"):
        raise ValueError(f"video={str(config.video)!r} must end in .mp4 or .gif")
    if suffix == ".mp4":
        _ffmpeg()
    check_env_id(config.env)
    env = gym.make(config.env, **parse_key_values(config.env_kwargs, option="env-kwargs"))
    if not env.has_wrapper_attr("set_task"):
        raise ValueError(f"env={config.env!r} has no tasks: it needs set_task and sample_tasks")
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        raise ValueError(f"env={config.env!r} has no pictures: it needs render_mode='rgb_array'")
    env.close()


def _different_tasks(config: WatchConfig, kwargs: dict[str, Any]) -> list[Any]:
    """Held-out tasks, none of them twice unless the family has too few."""
    drawn = held_out_tasks(config.env, config.n_tasks, seed=config.seed, env_kwargs=kwargs)
    if len(set(drawn)) < len(drawn):
        n_draws = _DRAWS_PER_TASK * config.n_tasks
        drawn = held_out_tasks(config.env, n_draws, seed=config.seed, env_kwargs=kwargs)
    return list(islice(cycle(dict.fromkeys(drawn)), config.n_tasks))


def _ffmpeg() -> ModuleType:
    try:
        module = importlib.import_module("imageio_ffmpeg")
        module.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            "an .mp4 needs ffmpeg: pip install imageio-ffmpeg, or give --video a name that ends "
            f"in .gif ({error})"
        ) from error
    return module


def _made(config: WatchConfig, **kwargs: Any) -> Any:
    given = parse_key_values(config.env_kwargs, option="env-kwargs")
    return gym.make(config.env, disable_env_checker=True, **{**given, **kwargs})


def _loaded(config: WatchConfig) -> Any:
    """The agent, or ``None`` for random play."""
    if config.agent == "random":
        return None
    path = Path(config.agent)
    if path.is_dir() or config.agent in trained_agents():
        return load_named(config.agent)[0]
    if not path.is_file():
        raise ValueError(
            f"agent={config.agent!r} must be random, a folder that `train` wrote, the name of a "
            "trained agent or a ZIP file"
        )
    if config.algo is None:
        raise ValueError(f"{config.agent} does not say whose it is: give --algo, such as PPO")
    return _class_of(config.algo).load(path)


def _class_of(algo: str) -> type[BaseAlgorithm]:
    if algo in ALGORITHMS or algo in COMPARATORS:
        return agent_class(algo)
    for library in (stable_baselines3, sb3_contrib):
        found = getattr(library, algo, None)
        if isinstance(found, type) and issubclass(found, BaseAlgorithm):
            return found
    known = ", ".join([*ALGORITHMS, *COMPARATORS])
    raise ValueError(f"algo={algo!r} must be one of {known}, or a class of Stable-Baselines3")


def _who(agent: Any, config: WatchConfig) -> str:
    if agent is None:
        return "random play"
    name = type(agent).__name__
    return (
        f"{name} after {config.n_adapt_episodes} to adapt"
        if isinstance(agent, MetaAlgorithm)
        else name
    )


def _playing(agent: Any, config: WatchConfig, task: Any, number: int) -> Any:
    """What plays in a task: a meta-agent adapts to it first."""
    env = _made(config)
    try:
        if isinstance(agent, MetaAlgorithm):
            seed = config.seed + number
            return agent.adapt_to(env, config.n_adapt_episodes, task=task, seed=seed)
        for name in ("observation_space", "action_space"):
            wanted, given = getattr(agent, name, None), getattr(env, name)
            if agent is not None and wanted != given:
                raise ValueError(f"{config.agent} was trained for {name}={wanted}, not {given}")
        return agent
    finally:
        env.close()


def _frames(panels: Sequence[Panel], n_steps: int, stride: int) -> Iterator[Image]:
    yield _side_by_side([panel.picture() for panel in panels])
    for step in range(1, n_steps + 1):
        for panel in panels:
            panel.advance()
        if step % stride == 0:
            yield _side_by_side([panel.picture() for panel in panels])


def _side_by_side(pictures: Sequence[Image]) -> Image:
    height = max(picture.shape[0] for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + _GAP * (len(pictures) - 1)
    image, left = canvas(height, width), 0
    for picture in pictures:
        image[: picture.shape[0], left : left + picture.shape[1]] = picture
        left += picture.shape[1] + _GAP
    return image


def _even(frame: Image) -> Image:
    """A frame with an even height and an even width, as MP4 wants them."""
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)


def _masks(env: Any) -> Any:
    """Which actions are allowed, int8, or ``None`` where all are."""
    if not isinstance(env.action_space, gym.spaces.Discrete):
        return None
    if not env.has_wrapper_attr("action_masks"):
        return None
    return np.asarray(env.get_wrapper_attr("action_masks")(), dtype=np.int8)


def _cut(text: str, width: int) -> str:
    """The text, or as much of it as fits into `width` pixels, and dots."""
    if text_size(text)[1] <= width:
        return text
    n_kept = max(n for n in range(len(text)) if text_size(text[:n] + "...")[1] <= width or not n)
    return text[:n_kept] + "..."


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_short(entry) for entry in value) + ")"
    return str(value)
