"""The demo: learn a prior from many segments of customers, then serve new ones.

Next to it: RL that starts afresh, and RL that was trained on all segments at once.
"""

from collections.abc import Iterator
from pathlib import Path

from joblib import Parallel, delayed
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from metarl_agents import ALGORITHMS
from zoo import report
from zoo.config import DemoConfig
from zoo.demo.lab import LABELS, N_CONCURRENT, Entry, Lab, write_log
from zoo.demo.picture import draw_picture
from zoo.demo.service import serve_customers
from zoo.experiment import comparator_learner

# The longest jobs first, so that two workers end at about the same time.
ORDER = ("dqn_scratch", "maskable_ppo", "ppo", *list(LABELS)[:6])
N_WORKERS = 2
N_SERVED = 3  # customers who are served step by step
SAVED = "mtsrl.zip"
LOG = "log.csv"
PICTURE = "demo.png"


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
