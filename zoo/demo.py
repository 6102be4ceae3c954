"""The demo: learn a prior from many segments of customers, then serve new ones.

Next to it: RL that starts afresh, and RL that was trained on all segments at once.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from joblib import Parallel, delayed
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from metarl_agents import ALGORITHMS, AdaptationResult
from zoo import report
from zoo.config import BENCHMARKS, DemoConfig, Settings, parse_settings, read_yaml
from zoo.experiment import (
    build_agent,
    comparator_learner,
    evaluate_on_line,
    held_out_tasks,
)
from zoo.service import serve_customers

LABELS: Mapping[str, str] = {
    "meta_oracle": "meta-oracle",
    "mtsrl": "MTSRL",
    "mtsrl_plus": "MTSRL+",
    "mtsrl_plus_logged": "MTSRL+ from a log",
    "meta_lin_ts": "meta-LinTS (bandit)",
    "rlsvi": "RLSVI",
    "ppo": "SB3 PPO",
    "maskable_ppo": "SB3 MaskablePPO",
    "dqn_scratch": "SB3 DQN",
}
# The longest jobs first, so that two workers end at about the same time.
ORDER = ("dqn_scratch", "maskable_ppo", "ppo", *list(LABELS)[:6])
CURVES: Mapping[str, str] = {
    "meta_oracle": "#555555",
    "mtsrl": "#1b6ca8",
    "mtsrl_plus": "#3ba55d",
    "meta_lin_ts": "#b07aa1",
    "rlsvi": "#d1495b",
    "maskable_ppo": "#edae49",
    "dqn_scratch": "#8c564b",
}
N_CONCURRENT = 4  # tasks that one agent learns from side by side
N_WORKERS = 2
N_SERVED = 3  # customers who are served step by step
SAVED = "mtsrl.zip"
LOG = "log.csv"
PICTURE = "demo.png"


@dataclass(frozen=True)
class Entry:
    """What one learner did.

    :param result: on the held-out tasks
    :param experience: env steps before it met them
    :param history: regret of every task of meta-training, (R, K): R replicates, K tasks
    """

    result: AdaptationResult
    experience: str
    history: np.ndarray | None = None


class Lab:
    """Everything that the learners share.

    :param config: the demo's options
    """

    def __init__(self, config: DemoConfig) -> None:
        self.config = config
        self._benchmark = read_yaml(BENCHMARKS / "demo.yml")
        self.env_id = str(self._benchmark["env"])
        self.env_kwargs: dict[str, Any] = self._benchmark["env_kwargs"]

    @cached_property
    def tasks(self) -> list[Any]:
        """The held-out tasks."""
        seed = self.config.seed
        return held_out_tasks(
            self.env_id, self.config.n_test_tasks, seed=seed, env_kwargs=self.env_kwargs
        )

    def settings(self, name: str) -> Settings:
        """
        Hyper-parameters from the benchmark's file.

        :param name: of the agent
        """
        return parse_settings(self._benchmark["agents"][name], where=f"demo.yml, {name}")

    def make_env(self, **kwargs: Any) -> Any:
        """
        A single env, unwrapped.

        :param kwargs: further arguments of its constructor
        """
        return gym.make(self.env_id, **self.env_kwargs, **kwargs).unwrapped

    def agent(
        self,
        name: str,
        *,
        settings: Settings | None = None,
        n_replicates: int = 1,
        n_concurrent: int = 1,
    ) -> Any:
        """
        One of our agents, untrained.

        :param name: in ``ALGORITHMS``
        :param settings: hyper-parameters (default: those of the benchmark)
        :param n_replicates: independent repetitions at once
        :param n_concurrent: tasks that each of them plays at once
        """
        return build_agent(
            name,
            self.env_id,
            settings=settings or self.settings(name),
            seed=self.config.seed,
            n_envs=n_replicates * n_concurrent,
            env_kwargs=self.env_kwargs,
            n_replicates=n_replicates,
            n_episodes_per_task=self.config.n_episodes,
            track_regret=True,
            device="cpu",
        )

    def evaluate(self, learner: Any, *, deterministic: bool = False) -> AdaptationResult:
        """
        A learner in every held-out task.

        :param learner: any
        :param deterministic: take the most likely actions
        """
        return evaluate_on_line(
            learner,
            self.env_id,
            self.tasks,
            n_episodes=self.config.n_episodes,
            deterministic=deterministic,
            seed=self.config.seed,
            env_kwargs=self.env_kwargs,
        )


def run_demo(config: DemoConfig) -> None:
    """
    Run it: tables on the terminal, the rest in ``config.output``.

    :param config: the options
    """
    console = report.console()
    lab = Lab(config)
    config.output.mkdir(parents=True, exist_ok=True)
    console.print(_introduction(lab))
    n_rows = write_log(config.output / LOG, lab)
    console.print(
        f"To start from data, the demo writes a log of its own, {config.output / LOG}: {n_rows:,} "
        "random recommendations\nin other segments. A log of yours needs the same columns.\n",
        soft_wrap=True,
    )
    entries = _played(config)
    results = {LABELS[name]: entries[name].result for name in LABELS}
    grids = [
        report.regret_grid(
            results,
            baseline=LABELS["rlsvi"],
            oracle=LABELS["meta_oracle"],
            notes={LABELS[name]: entry.experience for name, entry in entries.items()},
        ),
        report.phase_grid(results, report.phases_of(config.n_episodes)),
    ]
    for grid in grids:
        console.print(grid.rich(), "")
    report.write_results(config.output, results, grids)
    draw_picture(entries, config.output / PICTURE)
    console.print(f"picture: {config.output / PICTURE}\n", soft_wrap=True)
    serve_customers(
        config.output / SAVED,
        lab.make_env(),
        n_customers=N_SERVED,
        seed=config.seed,
        console=console,
    )


def play(name: str, config: DemoConfig) -> Entry:
    """
    Train one learner and evaluate it; runs in a process of its own.

    :param name: key of ``LABELS``
    :param config: the demo's options
    """
    lab = Lab(config)
    if name == "mtsrl_plus_logged":
        agent = lab.agent("mtsrl_plus").fit_prior(config.output / LOG)
        return Entry(lab.evaluate(agent), "the log")
    if name in ALGORITHMS:
        return _play_ours(name, lab)
    settings = lab.settings(name)
    learner = comparator_learner(
        name, lab.env_id, settings=settings, seed=config.seed, env_kwargs=lab.env_kwargs
    )
    budget = settings.n_timesteps
    result = lab.evaluate(learner, deterministic=budget is not None)
    return Entry(result, f"{budget:,} steps" if budget else "nothing")


def _play_ours(name: str, lab: Lab) -> Entry:
    config = lab.config
    learns = name not in ("rlsvi", "meta_oracle")
    n_concurrent = N_CONCURRENT if learns else config.n_tasks
    agent = lab.agent(name, n_replicates=config.n_replicates, n_concurrent=n_concurrent)
    agent.learn_tasks(config.n_tasks)
    experience = f"{agent.num_timesteps // config.n_replicates:,} steps" if learns else "nothing"
    if name == "mtsrl":
        _save_one(lab, config.output / SAVED)
    if name == "meta_oracle":
        experience = "the truth"
    return Entry(lab.evaluate(agent), experience, agent.regret_history.sum(axis=-1))


def _save_one(lab: Lab, path: Path) -> None:
    """A single agent, as a user would train it, for the customer that is served at the end."""
    agent = lab.agent("mtsrl", n_concurrent=N_CONCURRENT)
    agent.learn_tasks(lab.config.n_tasks)
    agent.save(path)


def _played(config: DemoConfig) -> dict[str, Entry]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    entries: dict[str, Entry] = {}
    with Progress(*columns, disable=not config.progress) as progress:
        bar = progress.add_task("learning and solving new tasks", total=len(ORDER))
        for name, entry in _in_parallel(config):
            entries[name] = entry
            progress.update(bar, advance=1, description=f"{LABELS[name]} is done")
    return entries


def _in_parallel(config: DemoConfig) -> Iterator[tuple[str, Entry]]:
    workers = Parallel(n_jobs=N_WORKERS, return_as="generator_unordered")
    yield from workers(delayed(_named)(name, config) for name in ORDER)


def _named(name: str, config: DemoConfig) -> tuple[str, Entry]:
    import torch as th

    th.set_num_threads(1)
    return name, play(name, config)


def write_log(path: Path, lab: Lab, *, n_tasks: int = 40, n_episodes: int = 100) -> int:
    """
    Log random recommendations as CSV, one row per step; returns the number of rows.

    :param path: the file
    :param lab: knows the env
    :param n_tasks: segments, of a stream that no agent meets
    :param n_episodes: customers of each
    """
    env, seed = lab.make_env(), lab.config.seed + 1
    env.action_space.seed(seed)
    width = int(np.prod(env.observation_space.shape))
    header = ["task", "episode", "stage", *(f"obs_{i}" for i in range(width)), "action", "reward"]
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, task in enumerate(env.sample_tasks(n_tasks, seed=seed)):
            for episode in range(n_episodes):
                for row in _random_episode(env, task, seed if episode == number == 0 else None):
                    writer.writerow([number, episode, *row])
                    rows += 1
    return rows


def _random_episode(env: Any, task: Any, seed: int | None) -> Iterator[list[Any]]:
    observation, info = env.reset(seed=seed, options={"task": task})
    stage, done = 0, False
    while not done:
        action = int(env.action_space.sample(mask=info["action_mask"]))
        following, reward, terminated, truncated, info = env.step(action)
        yield [stage, *np.ravel(observation).tolist(), action, float(reward)]
        observation, stage, done = following, stage + 1, terminated or truncated


def draw_picture(entries: Mapping[str, Entry], path: Path) -> None:
    """
    Three panels: within a new task, in total, and over the tasks of meta-training.

    :param entries: by name
    :param path: PNG
    """
    figure, (within, total, over) = report.new_figure(3)
    for name, colour in CURVES.items():
        report.draw_curve(
            within,
            entries[name].result,
            quantity="regret",
            label=LABELS[name],
            window=5,
            color=colour,
        )
    within.set(xlabel="customer of a new segment", ylabel="likes lost per customer", ylim=(0, None))
    within.set_title("Within a new task")
    within.legend(frameon=False, fontsize=8)
    _draw_totals(total, entries)
    _draw_history(over, entries)
    report.save_png(figure, path)


def _draw_totals(axes: Any, entries: Mapping[str, Entry]) -> None:
    names = list(LABELS)[::-1]
    intervals = [entries[name].result.mean("total_regret") for name in names]
    means = np.array([interval.estimate for interval in intervals])
    errors = np.array([[i.estimate - i.low, i.high - i.estimate] for i in intervals]).T
    colours = [CURVES.get(name, "#9aa5b1") for name in names]
    axes.barh(range(len(names)), means, xerr=errors, color=colours, error_kw={"elinewidth": 1})
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=8)
    axes.set(xlabel="likes lost in a held-out task, with 95 % interval")
    axes.set_title("Regret per held-out task")


def _draw_history(axes: Any, entries: Mapping[str, Entry]) -> None:
    for name, colour in CURVES.items():
        history = entries[name].history
        if history is None:
            continue
        mean = history.mean(axis=0)
        error = (
            history.std(axis=0, ddof=1) / np.sqrt(history.shape[0]) if history.shape[0] > 1 else 0
        )
        numbers = np.arange(len(mean)) + 1
        axes.plot(numbers, mean, color=colour, label=LABELS[name], linewidth=1.6)
        axes.fill_between(
            numbers, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0
        )
    axes.set(xlabel="task of meta-training", ylabel="likes lost in the task", ylim=(0, None))
    axes.set_title("While the prior is learned")


def _introduction(lab: Lab) -> str:
    env = lab.make_env()
    best, myopic = env.optimal_returns(lab.tasks).mean(), env.myopic_returns(lab.tasks).mean()
    config, n_shown, n_products = lab.config, env.n_stages, env.action_space.n
    return f"""\
{lab.env_id} {lab.env_kwargs}
A task is a segment of customers with tastes of its own. An episode is one customer, who is
recommended {n_shown} of {n_products} products, one after the other, and likes some of them; what
was liked changes what will be liked. In the {config.n_test_tasks} held-out segments the best
policies earn {best:.2f} likes per customer, those that look one product ahead {myopic:.2f}.
Regret is the number of likes lost against the best policy of the segment, computed exactly, over
{config.n_episodes} customers.
"""
