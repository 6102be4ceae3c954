"""The studies of gradient-based meta-learning: which runs each of them has."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from zoo.studies import convergence
from zoo.studies.meta_runs import Config, Method, meta_runs, seed_by_seed
from zoo.studies.study import Context, Row, Run, Study
from zoo.studies.training import meta_train, sb3_train

POINT, CHEETAH_DIR = "metarl/PointGoal-v0", "metarl/HalfCheetahDir-v0"


class Options(NamedTuple):
    """What the command line may change; None leaves each study its own."""

    n_seeds: int | None = None
    n_iterations: int | None = None
    device: str = "cpu"


_TUNED = "ProMP, 20 tasks, Adam 3e-3"
_TUNED_TRPO = "MAML (TRPO), 20 tasks, KL 0.03, deviation 0.37"
_LVC = Method("promp", {"n_epochs": 1, "kl_coef": 0.0})  # no clipping at the first epoch
_CONTROLLED = {"control_variate": True, "score_baseline": "regression"}
METHODS: Mapping[str, Method] = {
    "MAML": Method("maml", {"outer": "vpg"}),
    "MAML (TRPO)": Method("maml", {"outer": "trpo"}),
    "FOMAML": Method("fomaml", {"outer": "vpg"}),
    "FOMAML (TRPO)": Method("fomaml", {"outer": "trpo"}),
    "E-MAML (TRPO)": Method("emaml", {"outer": "trpo"}),
    "ProMP": Method("promp", {}),
    _TUNED: Method("promp", {"learning_rate": 3e-3, "meta_batch_size": 20, "n_envs": 400}),
    _TUNED_TRPO: Method(
        "maml",
        {
            "outer": "trpo",
            "max_kl": 0.03,
            "hvp_fraction": 0.2,
            "policy_kwargs": {"log_std_init": -1.0},
            "meta_batch_size": 20,
            "n_envs": 400,
        },
    ),
    "LVC": _LVC,
    "DiCE": Method("dice_maml", {"inner_loss": "dice"}),
    "Loaded DiCE": Method("dice_maml", {"inner_loss": "loaded_dice"}),
    "SG-MRL": Method("sgmrl", {"score_baseline": "none"}),
    "SG-MRL, others' mean": Method("sgmrl", {"score_baseline": "leave_one_out"}),
    "SG-MRL, weight 0.1": Method("sgmrl", {"score_weight": 0.1}),
    "SG-MRL, control variate": Method("sgmrl", _CONTROLLED),
}
"""Unless it says TRPO or ProMP, the outer step is one of Adam with 1e-3, as in SG-MRL's code."""

_FINN: Config = {"n_adapt_steps": 3, "episodes_per_step": 20}
CURVES = {
    "equal steps": _FINN,
    "later steps halved": {**_FINN, "arguments": {"adapt_lr_decay": 0.5}},
}
"""Return after 0 to 3 steps; Finn et al. (2017) halve the step size after the first."""
_POINT_SIZE: Config = {"meta_batch_size": 20, "n_episodes_per_task": 20, "n_envs": 400}
_CHEETAH_SIZE: Config = {"meta_batch_size": 40, "n_episodes_per_task": 20, "n_envs": 800}
_N_TASKS = 40


def quick(options: Options) -> Study:
    """PointGoal, 100 meta-iterations, six methods, three seeds."""
    names = ("MAML", "ProMP", "LVC", "FOMAML", "SG-MRL, weight 0.1", "SG-MRL, control variate")
    one_step = {"equal steps": {"n_adapt_steps": 1, "episodes_per_step": 20}}
    runs = _meta_runs(names, POINT, _POINT_SIZE, options, seeds=3, iterations=100, curves=one_step)
    return Study("gradient_quick", play, tuple(runs))


def pointgoal(options: Options) -> Study:
    """PointGoal: every method with its own settings, after 0 to 3 steps."""
    names = [name for name in METHODS if name not in (_TUNED, _TUNED_TRPO)]
    runs = _meta_runs(names, POINT, _POINT_SIZE, options, seeds=10, iterations=100, curves=CURVES)
    return Study("gradient_pointgoal", play, seed_by_seed(runs))


def sgmrl_k(options: Options) -> Study:
    """PointGoal: SG-MRL against MAML by the number of steps in training; 0 to 5 steps at test."""
    names = ("MAML", *(name for name in METHODS if name.startswith("SG-MRL")))
    curves = {"equal steps": {"n_adapt_steps": 5, "episodes_per_step": 20}}
    runs = []
    for k in (1, 2, 3):
        size = {**_POINT_SIZE, "n_inner_steps": k}
        found = _meta_runs(names, POINT, size, options, seeds=3, iterations=100, curves=curves)
        runs += [_renamed(run, f"{run.name}, K={k}") for run in found]
    return Study("gradient_sgmrl_k", play, seed_by_seed(runs))


def inner_lr(options: Options) -> Study:
    """PointGoal: return against the step size, in training and at test."""
    runs = []
    for rate in (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0):
        size = {**_POINT_SIZE, "inner_lr": rate}
        names = ("MAML", "ProMP", "SG-MRL, weight 0.1")
        one_step = {"equal steps": {"n_adapt_steps": 1, "episodes_per_step": 20}}
        found = _meta_runs(names, POINT, size, options, seeds=3, iterations=100, curves=one_step)
        runs += [_renamed(run, f"{run.name}, inner_lr={rate:g}") for run in found]
    return Study("gradient_inner_lr", play, seed_by_seed(runs))


def finn_squared(options: Options) -> Study:
    """PointGoal as the text of Finn et al. (2017) has it: squared distance, 2 x 100 ReLU, TRPO."""
    size = {
        **_POINT_SIZE,
        "policy_kwargs": {"net_arch": [100, 100], "activation_fn": "relu"},
    }
    runs = _meta_runs(
        ("MAML (TRPO)",),
        POINT,
        size,
        options,
        seeds=5,
        iterations=500,
        curves=CURVES,
        env_kwargs={"preset": "finn2017"},
    )
    return Study("gradient_finn_squared", play, tuple(runs))


def converging(options: Options) -> Study:
    """Two tabular tasks: the exact gradient of J_N along exact and sampled ascents."""
    runs = []
    for estimator in ("sgmrl", "maml"):
        for k in (1, 2, 3):
            inner = {"n_episodes": 2, "n_inner_steps": k, "inner_lr": 0.5}
            config = {"kind": "exact", "estimator": estimator, **inner, "step_size": 1.0}
            name = f"{estimator}, K={k}, exact"
            runs.append(Run(name, 0, config, {"n_iterations": options.n_iterations or 300}))
            for step_size in (0.01, 0.03, 0.1, 0.3):
                config = {"kind": "sampled", "estimator": estimator, **inner}
                config |= {"step_size": step_size, "n_replicates": 8, "n_looks": 30}
                name = f"{estimator}, K={k}, step {step_size:g}"
                budget = {"n_iterations": options.n_iterations or 3000}
                runs += [Run(name, seed, config, budget) for seed in range(options.n_seeds or 1)]
    return Study("gradient_convergence", play, tuple(runs))


def halfcheetah_dir(options: Options) -> Study:
    """HalfCheetahDir, 100 steps: MAML and ProMP as we tuned them, and ProMP as in its paper."""
    # Where actions start with a deviation of 1, inner steps do nothing for 100 iterations.
    lengths = {_TUNED: 500, _TUNED_TRPO: 340, "ProMP": 500, "MAML (TRPO)": 300}
    return _locomotion("halfcheetah_dir", lengths, CHEETAH_DIR, options, seeds=3)


def halfcheetah_vel(options: Options) -> Study:
    """HalfCheetahVel, 100 steps: MAML as we tuned it for the direction."""
    env = "metarl/HalfCheetahVel-v0"
    return _locomotion("halfcheetah_vel", {_TUNED_TRPO: 100}, env, options, seeds=3)


def ant_dir(options: Options) -> Study:
    """AntDir, 100 steps: ProMP."""
    return _locomotion("ant_dir", {"ProMP": 100}, "metarl/AntDir-v0", options, seeds=1)


def comparators(options: Options) -> Study:
    """PPO on PointGoal: trained on all tasks, fine-tuned in the new one, from scratch in it."""
    # Two phases of 20 tasks x 20 episodes x 100 steps, as MAML has them in 200 iterations.
    n_timesteps = 80_000 * (options.n_iterations or 200)
    budget = {"n_timesteps": n_timesteps, "device": options.device}
    # Two rollouts are what our agents adapt to at once.
    in_task = {"n_steps": 1000, "batch_size": 100}
    ppo = {"n_steps": 100, "batch_size": 4000, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95}
    config = {
        "kind": "sb3",
        "env": POINT,
        "env_kwargs": {},
        "n_envs": 200,
        "arguments": ppo,
        "in_task": {},
        "n_steps_per_adaptation": 2000,  # 20 episodes of 100 steps
        "n_tasks": _N_TASKS,
        "protocols": {"equal steps": {**_FINN, "n_eval_episodes": 20}},
    }
    roles: Mapping[str, Config] = {
        "PPO, frozen": {"role": "frozen"},
        "PPO, fine-tuned": {"role": "finetuned", "in_task": {**in_task, "learning_rate": 1e-3}},
        "PPO, from scratch": {
            "role": "scratch",
            "in_task": in_task,
            "arguments": {**ppo, "learning_rate": 1e-3},
        },
    }
    runs = [
        Run(name, seed, {**config, **role}, budget)
        for name, role in roles.items()
        for seed in range(options.n_seeds or 5)
    ]
    return Study("gradient_comparators", play, tuple(runs))


def discrete(options: Options) -> Study:
    """Discrete actions: two families of frozen lakes, and Bernoulli bandits."""
    names = ("MAML", "FOMAML", "ProMP", "LVC", "SG-MRL, weight 0.1")
    size = {**_CHEETAH_SIZE, "gamma": 0.95, "inner_lr": 1.0}
    runs = []
    for env in ("FrozenLakeGoal", "FrozenLakeReward", "BernoulliBandit"):
        found = _meta_runs(
            names,
            f"metarl/{env}-v0",
            size,
            options,
            seeds=3,
            iterations=100,
            curves={"equal steps": _FINN},
        )
        runs += [_renamed(run, f"{env}: {run.name}") for run in found]
    return Study("gradient_discrete", play, seed_by_seed(runs))


GROUPS: Mapping[str, Callable[[Options], Study]] = {
    "quick": quick,
    "pointgoal": pointgoal,
    "sgmrl_k": sgmrl_k,
    "inner_lr": inner_lr,
    "finn_squared": finn_squared,
    "convergence": converging,
    "halfcheetah_dir": halfcheetah_dir,
    "halfcheetah_vel": halfcheetah_vel,
    "ant_dir": ant_dir,
    "comparators": comparators,
    "discrete": discrete,
}
"""Every study by the name that the command line uses."""

_PLAYS = {
    "meta": meta_train,
    "sb3": sb3_train,
    "exact": convergence.exact_run,
    "sampled": convergence.sampled_run,
}


def play(run: Run, context: Context) -> list[Row] | None:
    """
    Play a run of any of these studies.

    :param run: the run
    :param context: its surroundings
    """
    return _PLAYS[run.config["kind"]](run, context)


def _meta_runs(
    names: Iterable[str],
    env: str,
    size: Config,
    options: Options,
    *,
    seeds: int,
    iterations: int,
    curves: Config,
    env_kwargs: Config | None = None,
) -> list[Run]:
    return meta_runs(
        {name: METHODS[name] for name in names},
        env,
        size,
        {"n_iterations": options.n_iterations or iterations, "device": options.device},
        n_seeds=options.n_seeds or seeds,
        n_tasks=_N_TASKS,
        curves=curves,
        env_kwargs=env_kwargs,
    )


def _locomotion(
    name: str, lengths: Mapping[str, int], env: str, options: Options, *, seeds: int
) -> Study:
    """Runs of methods with as many meta-iterations as each of them is given."""
    runs: list[Run] = []
    for method, iterations in lengths.items():
        runs += _meta_runs(
            (method,),
            env,
            _CHEETAH_SIZE,
            options,
            seeds=seeds,
            iterations=iterations,
            curves=CURVES,
            env_kwargs={"horizon": 100},
        )
    # With large steps a run may lose in an iteration what it learned in hundreds.
    best = [Run(run.name, run.seed, run.config, {**run.budget, "keep": "best"}) for run in runs]
    return Study(f"gradient_{name}", play, tuple(best))


def _renamed(run: Run, name: str) -> Run:
    return Run(name, run.seed, run.config, run.budget)
