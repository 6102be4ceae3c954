"""The studies of BO-MRL with networks: locomotion, beside gradient-based meta-learning.

All methods play equally many episodes, in equally many tasks, before and after adaptation. One more
run per task trains PPO in that task alone, for as long as it takes: the optimum that gaps are to.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from metarl_agents import Frozen, make_task_vec_env
from zoo.config import load_settings
from zoo.experiment import held_out_tasks
from zoo.studies.bo_mrl_methods import Options
from zoo.studies.meta_runs import Config, Method, meta_runs, seed_by_seed
from zoo.studies.study import Context, Row, Run, Study
from zoo.studies.training import StopAfter, evaluated, meta_train

N_TASKS = 20
_N_SEEDS = 3
_DIR, _VEL = "metarl/HalfCheetahDir-v0", "metarl/HalfCheetahVel-v0"
_ANT_DIR, _ANT_VEL = "metarl/AntDir-v0", "metarl/AntVel-v0"
_SIZE: Config = {
    "meta_batch_size": 10,
    "n_episodes_per_task": 20,
    "n_envs": 200,
    "gamma": 0.99,
    # With a deviation of 1 the first hundred iterations of all of these methods show little.
    "policy_kwargs": {"log_std_init": -1.0},
}
_BO_MRL: Config = {
    "parts": ["distance"],
    "n_lower_steps": 50,
    "lower_lr": 1e-3,
    "polish_steps": 0,
    "max_kl": 0.1,
    "backtrack_ratio": 0.8,
    "gae_lambda": 0.95,
}
_TRPO: Config = {"outer": "trpo", "max_kl": 0.03, "hvp_fraction": 0.2}
METHODS: Mapping[str, Method] = {
    "BO-MRL, Alg 3": Method("bomrl", {**_BO_MRL, "algorithm": 3, "lam": 1.0, "eta": 0.0}),
    "BO-MRL, Alg 2": Method("bomrl", {**_BO_MRL, "algorithm": 2, "lam": 0.03, "eta": 0.3}),
    "BO-MRL, Alg 1": Method("bomrl", {**_BO_MRL, "algorithm": 1, "lam": 0.03, "eta": 0.3}),
    "MAML (TRPO)": Method("maml", _TRPO),
    "E-MAML (TRPO)": Method("emaml", _TRPO),
    "ProMP": Method("promp", {"learning_rate": 3e-3}),
}
"""BO-MRL differentiates through the distance alone, as publicly available scripts do: the other two
parts are unbiased and too noisy for this many episodes. Lambda, eta and the trust region are ours,
from pilots on HalfCheetahDir; so are those of MAML and ProMP, from its own study."""
CURVES: Config = {
    "equal steps": {"n_adapt_steps": 3, "episodes_per_step": 20},
    "60 episodes at once": {"n_adapt_steps": 1, "episodes_per_step": 60},
    "30 episodes, twice": {"n_adapt_steps": 2, "episodes_per_step": 30},
}
"""Published curves are of equal steps; the others spend the 60 episodes of three such steps."""

_ALONE: Config = {
    "n_steps": 100,
    "batch_size": 500,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "policy_kwargs": _SIZE["policy_kwargs"],
}
_ALONE_ENVS = 20


def halfcheetah_dir(options: Options) -> Study:
    """HalfCheetahDir, 100 steps: BO-MRL against MAML, E-MAML and ProMP, equal episodes."""
    return _small("halfcheetah_dir", _DIR, options, iterations=100, alone=2_000_000)


def halfcheetah_vel(options: Options) -> Study:
    """HalfCheetahVel, 100 steps: the same, and 60 episodes at once or in between."""
    return _small("halfcheetah_vel", _VEL, options, iterations=40, alone=1_000_000)


def ant_vel(options: Options) -> Study:
    """AntVel, 100 steps: the same with fewer iterations."""
    return _small("ant_vel", _ANT_VEL, options, iterations=20, alone=None)


def ant_dir(options: Options) -> Study:
    """AntDir, 100 steps: the same with fewer iterations."""
    return _small("ant_dir", _ANT_DIR, options, iterations=20, alone=None)


LOCOMOTION: Mapping[str, Callable[[Options], Study]] = {
    "halfcheetah_dir": halfcheetah_dir,
    "halfcheetah_vel": halfcheetah_vel,
    "ant_vel": ant_vel,
    "ant_dir": ant_dir,
}
"""At a scale that two cores do, by the name that the command line uses."""


def _paper(group: str, env: str) -> Callable[[Options], Study]:
    def study(options: Options) -> Study:
        settings = load_settings("bomrl", env, preset="bomrl2024")
        own = settings.arguments
        # As many episodes, half of them after adaptation.
        n_episodes = own["n_episodes_per_task"] * (1 + own["n_episodes_after_factor"]) // 2
        keys = ("meta_batch_size", "n_envs", "gamma", "policy_kwargs")
        size = {key: own[key] for key in keys}
        trpo = {"outer": "trpo", "max_kl": 3e-3, "inner_lr": 0.1, "n_episodes_per_task": n_episodes}
        methods = {
            **{
                f"BO-MRL, Alg {algorithm}": Method("bomrl", {**own, "algorithm": algorithm})
                for algorithm in (1, 2, 3)
            },
            "MAML (TRPO)": Method("maml", trpo),
            "E-MAML (TRPO)": Method("emaml", trpo),
            "ProMP": Method("promp", {"n_episodes_per_task": n_episodes}),
        }
        runs = meta_runs(
            methods,
            env,
            size,
            {"n_iterations": options.n_iterations or 500, "device": options.device},
            n_seeds=options.n_seeds or _N_SEEDS,
            n_tasks=N_TASKS,
            curves={"equal steps": CURVES["equal steps"]},
            env_kwargs=settings.env_kwargs,
        )
        alone = _alone(env, settings.env_kwargs, options, n_timesteps=5_000_000)
        return Study(f"bo_mrl_paper_{group}", play_locomotion, (*seed_by_seed(runs), *alone))

    study.__doc__ = f"{env.removeprefix('metarl/')} at the scale of the paper: 500 iterations."
    return study


PAPER: Mapping[str, Callable[[Options], Study]] = {
    "halfcheetah_dir": _paper("halfcheetah_dir", _DIR),
    "halfcheetah_vel": _paper("halfcheetah_vel", _VEL),
    "ant_vel": _paper("ant_vel", _ANT_VEL),
    "ant_dir": _paper("ant_dir", _ANT_DIR),
}
"""The settings of publicly available scripts, for a larger machine."""


def play_locomotion(run: Run, context: Context) -> Sequence[Row] | None:
    """
    Play a run of any of these studies.

    :param run: the run
    :param context: its surroundings
    """
    return {"meta": meta_train, "alone": alone_run}[run.config["kind"]](run, context)


def alone_run(run: Run, context: Context) -> list[Row] | None:
    """
    Train PPO in one held-out task; None where it was stopped.

    ``config``: ``env``, ``env_kwargs``, ``n_tasks`` (held-out ones), ``task`` (which of them),
    ``arguments`` of PPO, ``n_envs``, ``n_episodes`` to score. ``budget``: ``n_timesteps``,
    ``device``.

    :param run: the run
    :param context: its surroundings
    """
    config, budget = run.config, run.budget
    tasks = held_out_tasks(config["env"], config["n_tasks"], env_kwargs=config["env_kwargs"])
    task = tasks[config["task"]]
    venv = make_task_vec_env(config["env"], config["n_envs"], env_kwargs=config["env_kwargs"])
    venv.env_method("set_task", task)
    agent = PPO("MlpPolicy", venv, seed=run.seed, device=budget["device"], **config["arguments"])
    agent.learn(int(budget["n_timesteps"]), callback=StopAfter(None, context))
    if agent.num_timesteps < budget["n_timesteps"]:
        return None
    how = {"n_adapt_steps": 0, "n_eval_episodes": config["n_episodes"]}
    returns = evaluated(Frozen(agent), run, [task], how).returns
    row = {"kind": "alone", "task": config["task"], "return": f"{returns.mean():.3f}"}
    return [{**row, "env_steps": agent.num_timesteps}]


def _small(group: str, env: str, options: Options, *, iterations: int, alone: int | None) -> Study:
    env_kwargs = {"horizon": 100}
    # With large steps a run may lose in an iteration what it learned in hundreds.
    budget = {
        "n_iterations": options.n_iterations or iterations,
        "device": options.device,
        "keep": "best",
    }
    runs = meta_runs(
        METHODS,
        env,
        _SIZE,
        budget,
        n_seeds=options.n_seeds or _N_SEEDS,
        n_tasks=N_TASKS,
        curves=CURVES,
        env_kwargs=env_kwargs,
    )
    last = [] if alone is None else _alone(env, env_kwargs, options, n_timesteps=alone)
    return Study(f"bo_mrl_{group}", play_locomotion, (*seed_by_seed(runs), *last))


def _alone(env: str, env_kwargs: Config, options: Options, *, n_timesteps: int) -> list[Run]:
    """PPO alone in each of at most three different held-out tasks."""
    tasks = held_out_tasks(env, N_TASKS, env_kwargs=env_kwargs)
    arrays = np.array([task.to_array() for task in tasks])
    first = sorted(np.unique(arrays, axis=0, return_index=True)[1])[:3]
    config: dict[str, Any] = {
        "kind": "alone",
        "env": env,
        "env_kwargs": dict(env_kwargs),
        "n_tasks": N_TASKS,
        "n_envs": _ALONE_ENVS,
        "n_episodes": 20,
        "arguments": dict(_ALONE),
    }
    if options.n_iterations is not None:
        n_timesteps = min(n_timesteps, options.n_iterations * _ALONE_ENVS * _ALONE["n_steps"])
    budget = {"n_timesteps": n_timesteps, "device": options.device}
    return [
        Run(f"PPO, task {index} alone", 0, {**config, "task": int(index)}, budget)
        for index in first
    ]
