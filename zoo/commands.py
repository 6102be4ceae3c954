"""What the subcommands do; imported only when one of them runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.progress import track

from metarl_agents import ALGORITHMS, AdaptationResult
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.evaluation.interaction import in_env
from metarl_agents.common.meta_algorithm.seeds import draw_seed
from metarl_agents.common.policies import stack_policies
from metarl_agents.common.vec_env import as_vec_env
from zoo import optima, report
from zoo.comparators import COMPARATORS
from zoo.config import (
    AgentsConfig,
    CompareConfig,
    EnjoyConfig,
    EnvsConfig,
    EvaluateConfig,
    TrainConfig,
    WatchConfig,
    parse_key_values,
)
from zoo.experiment import (
    check_env_id,
    comparator_learner,
    evaluate_on_line,
    held_out_tasks,
)
from zoo.runs import CHECKPOINT, load_named, load_run, run_folder, train_run
from zoo.watch import watch


def train(config: TrainConfig) -> None:
    """
    Train an agent; Ctrl-C leaves a checkpoint that ``--resume`` goes on with.

    :param config: the options
    """
    console = report.console()
    try:
        folder = train_run(config)
    except KeyboardInterrupt:
        folder = run_folder(config)
        console.print(f"stopped; --resume goes on from {folder / CHECKPOINT}", soft_wrap=True)
        raise
    console.print(f"trained; see {folder}", soft_wrap=True)


def evaluate(config: EvaluateConfig) -> None:
    """
    Score a trained agent on held-out tasks: a table, JSON, CSV and a picture.

    :param config: the options
    """
    agent, record = load_run(config.run)
    kwargs = record["env_kwargs"]
    n_episodes = config.n_episodes or int(getattr(agent, "n_episodes_per_task", 20))
    tasks = held_out_tasks(record["env"], config.n_tasks, seed=config.seed, env_kwargs=kwargs)
    result = evaluate_on_line(
        agent,
        record["env"],
        tasks,
        n_episodes=n_episodes,
        n_eval_episodes=config.n_eval_episodes,
        seed=config.seed,
        env_kwargs=kwargs,
    )
    output = config.output or config.run / "evaluation"
    _report({record["algo"]: result}, output, n_episodes=n_episodes)


def compare(config: CompareConfig) -> None:
    """
    Evaluate several agents on the same held-out tasks: tables, JSON, CSV and a picture.

    :param config: the options
    """
    if not config.agents:
        raise ValueError("agents is empty: name at least one algorithm or one folder of `train`")
    check_env_id(config.env)
    kwargs = parse_key_values(config.env_kwargs, option="env-kwargs")
    tasks = held_out_tasks(config.env, config.n_tasks, env_kwargs=kwargs)
    jobs = [(name, seed) for name in config.agents for seed in config.seeds]
    runs: dict[str, list[AdaptationResult]] = {}
    for name, seed in track(jobs, "training and evaluating", disable=not config.progress):
        learner = _learner(name, seed, config)
        result = evaluate_on_line(
            learner,
            config.env,
            tasks,
            n_episodes=config.n_episodes,
            seed=seed,
            env_kwargs=kwargs,
        )
        runs.setdefault(name, []).append(result)
    results = {name: AdaptationResult.from_seeds(entry) for name, entry in runs.items()}
    _report(results, config.output, n_episodes=config.n_episodes)


def enjoy(config: EnjoyConfig) -> None:
    """
    Show a trained agent in one new task: step by step, or as a film.

    :param config: the options
    """
    if config.n_episodes < 1:
        raise ValueError(f"n_episodes={config.n_episodes} must be at least 1")
    if config.n_adapt_episodes is not None and config.n_adapt_episodes < 0:
        raise ValueError(f"n_adapt_episodes={config.n_adapt_episodes} must not be negative")
    agent, env_id, env_kwargs = load_named(config.run)
    at_once = agent._episodes_per_adaptation
    if config.video is not None:
        n_episodes = at_once if config.n_adapt_episodes is None else config.n_adapt_episodes
        watch(_film(config, config.video, env_id, env_kwargs, n_episodes))
        return
    console = report.console()
    task = held_out_tasks(env_id, 1, seed=config.seed, env_kwargs=env_kwargs)[0]
    env = gym.make(env_id, render_mode="ansi", **env_kwargs)
    rng = np.random.default_rng(config.seed)

    def played(policy: Any, env: gym.Env[Any, Any], n_episodes: int) -> EpisodeBatch:
        venv = as_vec_env(env)
        seed = draw_seed(rng)
        return collect_episodes(
            venv, in_env(stack_policies([policy]), venv), n_episodes, seed=seed, tasks=[task]
        ).task(0)

    policy, n_unseen = agent.initial_policy(rng=rng), config.n_adapt_episodes or 0
    for start in range(0, n_unseen, at_once):
        policy = agent.adapt(policy, played(policy, env, min(at_once, n_unseen - start)), rng=rng)
    for number in range(config.n_episodes):
        n_before = n_unseen + number * at_once
        console.print(f"episode {n_before + 1}", style="bold")
        batch = played(policy, Narrated(env, console), 1)
        console.print(f"return {batch.returns.item():g}\n")
        if at_once > 1 and number + 1 < config.n_episodes:
            console.print(f"and {at_once - 1} more, to adapt to\n")
            batch = EpisodeBatch.concatenate([batch, played(policy, env, at_once - 1)])
        policy = agent.adapt(policy, batch, rng=rng)


def envs(config: EnvsConfig) -> None:
    """
    Print the table of task families, or of their known optima.

    :param config: the options
    """
    grid = optima.optima_grid() if config.optima else report.families_grid()
    _print_grid(grid, config.markdown)


def agents(config: AgentsConfig) -> None:
    """
    Print the table of algorithms, and what they can be compared with.

    :param config: the options
    """
    _print_grid(report.algorithms_grid(), config.markdown)
    if not config.markdown:
        rows = tuple((f"`{name}`", role.description) for name, role in COMPARATORS.items())
        _print_grid(report.Grid("Comparators, for `compare`", ("name", "what it is"), rows), False)


class Narrated(gym.Wrapper[Any, Any, Any, Any]):
    """
    Prints every step of an environment with ``render_mode="ansi"``; of one with continuous actions,
    whose episodes are long, how each ends.

    :param env: the environment
    :param console: where to print
    """

    def __init__(self, env: gym.Env[Any, Any], console: Console) -> None:
        super().__init__(env)
        self.console = console

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        One step, printed.

        :param action: the action
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        is_told = not isinstance(self.action_space, gym.spaces.Box)
        if is_told:
            self.console.print(f"  action {action}, reward {float(reward):g}")
        if is_told or terminated or truncated:
            self.console.print(str(self.env.render()), markup=False)
        return observation, reward, terminated, truncated, info


def _film(
    config: EnjoyConfig, video: Path, env_id: str, env_kwargs: dict[str, Any], n_episodes: int
) -> WatchConfig:
    return WatchConfig(
        env=env_id,
        video=video,
        agent=config.run,
        n_tasks=1,
        n_adapt_episodes=n_episodes,
        seed=config.seed,
        env_kwargs=tuple(f"{name}={json.dumps(value)}" for name, value in env_kwargs.items()),
    )


def _learner(name: str, seed: int, config: CompareConfig) -> Any:
    if name in COMPARATORS:
        kwargs = parse_key_values(config.env_kwargs, option="env-kwargs")
        return comparator_learner(name, config.env, seed=seed, env_kwargs=kwargs)
    if name not in ALGORITHMS:
        if Path(name).is_dir():
            return _same_env(name, config)
        known = ", ".join([*ALGORITHMS, *COMPARATORS])
        raise ValueError(f"{name!r} is neither a folder of `train` nor one of {known}")
    training = TrainConfig(
        algo=name,
        env=config.env,
        seed=seed,
        env_kwargs=config.env_kwargs,
        folder=config.folder,
        progress=False,
    )
    # Trains what is missing: nothing where the run is finished.
    resume = (run_folder(training) / CHECKPOINT).exists()
    return load_run(train_run(replace(training, resume=resume)))[0]


def _same_env(name: str, config: CompareConfig) -> Any:
    agent, record = load_run(Path(name))
    kwargs = parse_key_values(config.env_kwargs, option="env-kwargs")
    trained_on = record["env"], record["env_kwargs"]
    if trained_on != (config.env, kwargs):
        raise ValueError(f"{name} was trained on {trained_on}, not on {(config.env, kwargs)}")
    return agent


def _report(results: report.Results, output: Path, *, n_episodes: int) -> None:
    grids = [report.summary_grid(results)]
    if len(results) > 1:
        grids.append(report.regret_grid(results, baseline=next(iter(results)), oracle=None))
    if n_episodes > 1:
        grids.append(report.phase_grid(results, report.phases_of(n_episodes)))
    console = report.console()
    for grid in grids:
        console.print(grid.rich())
    report.write_results(output, results, grids)
    report.draw_adaptation(results, output / "adaptation.png")
    console.print(f"written to {output}", soft_wrap=True)


def _print_grid(grid: report.Grid, markdown: bool) -> None:
    if markdown:
        print(grid.markdown())
    else:
        report.console().print(grid.rich())
