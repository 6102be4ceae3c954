"""Draw contact sheets of the task families: each as it renders itself, in mid-episode.

python scripts/draw_families.py [families] [locomotion] [--folder docs/images]
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import metarl_envs  # noqa: F401  (registers the ids)
from metarl_envs.tabular import action_values, optimal_values

Choose = Callable[[Any, Any, int], Any]
"""An action, from the environment, the observation and the stage."""

WIDTH, MARGIN, GAP, LABEL = 13.0, 0.1, 0.12, 0.26  # inches
DPI, N_COLOURS = 150, 256


@dataclass(frozen=True)
class Play:
    """What to play before the picture is taken."""

    choose: Choose
    n_steps: int
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """of the environment"""


def scripted(*actions: int, seed: int = 0) -> Play:
    """Return a play of given actions."""
    return Play(lambda env, observation, stage: actions[stage], len(actions), seed)


def planned(n_steps: int, seed: int = 0, **arguments: Any) -> Play:
    """Return a play of the best actions, of an environment that shows the state of its MDP."""

    def choose(env: Any, observation: Any, stage: int) -> int:
        mdp = env.finite_mdp(env.get_task())
        greedy = action_values(mdp, optimal_values(mdp)).argmax(axis=-1)
        return int(greedy[observation] if mdp.horizon is None else greedy[stage, observation])

    return Play(choose, n_steps, seed, arguments)


def straight(n_steps: int, seed: int = 0, noise: float = 0.5) -> Play:
    """Return a play of a point that goes to its goal, with noise."""
    rng = np.random.default_rng(seed)

    def choose(env: Any, observation: Any, stage: int) -> Any:
        action = env.family.optimal_action(env.get_task(), observation)
        return np.clip(action + noise * rng.standard_normal(2), -1.0, 1.0).astype(np.float32)

    return Play(choose, n_steps, seed)


def swinging(n_steps: int, seed: int = 0, period: float = 12.0) -> Play:
    """Return a play of joints that swing, each at a phase of its own."""
    phases = np.random.default_rng(seed).uniform(0.0, 2 * np.pi, 32)

    def choose(env: Any, observation: Any, stage: int) -> Any:
        space = env.action_space
        swing = np.sin(2 * np.pi * stage / period + phases[: space.shape[0]])
        return (0.9 * swing * space.high).astype(np.float32)

    return Play(choose, n_steps, seed)


STAY, UP, RIGHT, DOWN, LEFT = range(5)
# A discount makes the best policy of a lake go on instead of waiting for the last moment.
FAMILIES: Sequence[Mapping[str, Play]] = (
    {
        "Recommendation": scripted(4, 0, 7, seed=3),
        "BernoulliBandit": scripted(0, 1, 2, 3, 4, 1, seed=1),
        "GaussianBandit": scripted(*np.arange(40) % 5, seed=2),
        "RandomMDP": planned(6),
        "TMaze": scripted(2, *[0] * 7),
    },
    {
        "FrozenLakeHoles": planned(4, seed=4, discount=0.9),
        "FrozenLakeReward": planned(4, seed=4, discount=0.9),
        "FrozenLakeSlip": planned(6, seed=2, discount=0.9),
        "FrozenLakeGoal": planned(3, seed=3, discount=0.9),
        "InverseBellman": scripted(0, 1),
        "GridGoal": scripted(*[UP] * 2, RIGHT, RIGHT, UP),
    },
    {
        "PointGoal": straight(6, seed=4),
        "PointRobot": straight(6, seed=3),
        "SparsePointGoal": straight(8, seed=2),
        "PointCorner": straight(9, seed=1),
        "PointWind": straight(7, seed=3, noise=0.7),
        "DarkRoom": scripted(*[UP] * 3, RIGHT, *[DOWN] * 5, RIGHT, *[UP] * 4, seed=3),
        "DarkKeyToDoor": scripted(*[DOWN] * 3, *[RIGHT] * 3, UP),
    },
)

LOCOMOTION: Sequence[Mapping[str, Play]] = (
    {
        "HalfCheetahVel": swinging(34, seed=1),
        "HalfCheetahDir": swinging(30, seed=1),
        "HalfCheetahMass": swinging(30, seed=3),
        "AntDir2D": swinging(12),
        "AntGoal": swinging(12, seed=3),
    },
    {
        "AntVel": swinging(12, seed=1),
        "SwimmerVel": swinging(40, period=30.0),
        "Walker2dVel": swinging(12, seed=4, period=30.0),
        "HopperRandParams": swinging(9, seed=1, period=40.0),
        "HumanoidDir": swinging(8, seed=2, period=40.0),
    },
)
SHEETS = {"families": FAMILIES, "locomotion": LOCOMOTION}


def picture(name: str, play: Play) -> Any:
    """Return what the family renders after a play, (height, width, 3)."""
    made = gym.make(f"metarl/{name}-v0", render_mode="rgb_array", **play.arguments)
    env: Any = made.unwrapped
    observation, _ = env.reset(seed=play.seed)
    for stage in range(play.n_steps):
        observation, _, terminated, truncated, _ = env.step(play.choose(env, observation, stage))
        if terminated or truncated:
            raise ValueError(f"the episode of {name} ends with step {stage + 1}: play fewer")
    return env.render()


def contact_sheet(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return labelled pictures, those of a row at one height that lets them fill the width."""
    shapes = [[image.shape[1] / image.shape[0] for image in row.values()] for row in rows]
    heights = [(WIDTH - 2 * MARGIN - GAP * (len(s) - 1)) / sum(s) for s in shapes]
    total = 2 * MARGIN + sum(heights) + LABEL * len(rows) + GAP * (len(rows) - 1)
    figure, top = Figure(figsize=(WIDTH, total)), total - MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for name, image in row.items():
            width = height * image.shape[1] / image.shape[0]
            bottom = top - LABEL - height
            box = left / WIDTH, bottom / total, width / WIDTH, height / total
            axes = figure.add_axes(box)
            axes.imshow(image, aspect="auto", interpolation="antialiased")
            axes.set(xticks=[], yticks=[])
            axes.set_title(name, fontsize=9, pad=4)
            for spine in axes.spines.values():
                spine.set(color="#c4c8cc", linewidth=0.6)
            left += width + GAP
        top -= LABEL + height + GAP
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of few colours, which is several times smaller."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    image = Image.open(buffer).convert("RGB").quantize(N_COLOURS, dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def main() -> None:
    """Draw the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sheets", nargs="*", help=", ".join(SHEETS), default=list(SHEETS))
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    for name in arguments.sheets:
        rows = [{name: picture(name, play) for name, play in row.items()} for row in SHEETS[name]]
        save(contact_sheet(rows), arguments.folder / f"{name}.png")


if __name__ == "__main__":
    main()
