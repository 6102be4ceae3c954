"""What an experiment is told: options as frozen dataclasses, hyper-parameters from YAML."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import tyro
import yaml

HYPERPARAMS = Path(__file__).parent / "hyperparams"
BENCHMARKS = Path(__file__).parent / "benchmarks"

_KeyValues = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")]


@dataclass(frozen=True)
class TrainConfig:
    """Train an agent on a task family; stop it with Ctrl-C and go on with --resume."""

    algo: tyro.conf.Positional[str]
    """name of the algorithm, as `agents` lists it"""
    env: tyro.conf.Positional[str]
    """id of the task family, as `envs` lists it"""
    preset: str | None = None
    """named settings of a publication, as the YAML file lists them under the environment"""
    n_timesteps: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """environment steps, adaptation included (default: from the YAML file)"""
    n_envs: int | None = None
    """tasks run side by side (default: from the YAML file, else 1)"""
    seed: int = 0
    """seed of the agent and of its tasks"""
    hyperparams: _KeyValues = ()
    """arguments of the agent's constructor that replace those of the YAML file"""
    env_kwargs: _KeyValues = ()
    """arguments of the environment"""
    device: str = "auto"
    """torch device"""
    folder: Path = Path("runs")
    """results go to FOLDER/<algo>/<env>/<seed>"""
    checkpoint_interval: int = 1
    """meta-updates between two checkpoints"""
    resume: bool = False
    """go on with the checkpoint of an earlier run"""
    progress: bool = True
    """show a progress bar"""
    tensorboard: bool = True
    """write TensorBoard logs into the run's folder"""
    verbose: int = 0
    """1 prints the log of every meta-update"""


@dataclass(frozen=True)
class EvaluateConfig:
    """Adapt a trained agent to held-out tasks and score it there."""

    run: tyro.conf.Positional[Path]
    """folder that `train` wrote"""
    n_tasks: int = 20
    """held-out tasks"""
    n_episodes: int | None = None
    """episodes in each task (default: what the agent was trained for)"""
    n_eval_episodes: int | None = None
    """extra episodes that score each step (default: the adaptation episodes themselves)"""
    seed: int = 0
    """seed of the held-out tasks and of their episodes"""
    output: Path | None = None
    """folder for JSON, CSV and PNG (default: RUN/evaluation)"""


@dataclass(frozen=True)
class CompareConfig:
    """Compare agents, ours and Stable-Baselines3's, on the same held-out tasks."""

    agents: tyro.conf.Positional[tuple[str, ...]] = ("mtsrl", "mtsrl_plus", "rlsvi", "ppo")
    """names of algorithms (trained first, with their YAML settings) or folders of `train`"""
    env: str = "metarl/RecommendationSmall-v0"
    """id of the task family"""
    n_tasks: int = 20
    """held-out tasks"""
    n_episodes: int = 60
    """episodes in each task"""
    seeds: tuple[int, ...] = (0,)
    """one training run per seed for every name"""
    env_kwargs: _KeyValues = ()
    """arguments of the environment"""
    folder: Path = Path("runs")
    """where training runs are written"""
    output: Path = Path("runs/compare")
    """folder for the table (Markdown, JSON) and the picture"""
    progress: bool = True
    """show a progress bar"""


@dataclass(frozen=True)
class EnjoyConfig:
    """Watch a trained agent meet one new task, as text or as a film."""

    run: tyro.conf.Positional[str]
    """folder that `train` wrote, or name of a trained agent such as promp/HalfCheetahDir-v0"""
    n_episodes: int = 3
    """episodes to show; after each the agent adapts, to as many episodes as it does at once"""
    n_adapt_episodes: int | None = None
    """episodes to learn from, unseen, before the first one shown (default: none; for a film, as
    many as the agent adapts to at once)"""
    seed: int = 0
    """seed of the new task and of its episodes"""
    video: Path | None = None
    """film it instead: MP4 (needs imageio-ffmpeg) or GIF"""


@dataclass(frozen=True)
class WatchConfig:
    """Film held-out tasks, side by side."""

    env: str
    """id of the task family"""
    video: Path = Path("runs/watch.mp4")
    """file to write: MP4 (needs imageio-ffmpeg) or GIF"""
    agent: str = "random"
    """`random`, a folder that `train` wrote, name of a trained agent, or a ZIP file of an agent"""
    algo: str | None = None
    """for a ZIP file: a name that `agents` lists, or a class of Stable-Baselines3 such as SAC"""
    n_tasks: int = 3
    """held-out tasks"""
    n_steps: int = 200
    """steps to film in each"""
    n_adapt_episodes: int = 3
    """episodes in which a meta-agent learns, unseen, before the film"""
    deterministic: bool = False
    """take the most likely actions"""
    seed: int = 0
    """seed of the tasks and of everything in them"""
    env_kwargs: _KeyValues = ()
    """arguments of the environment"""
    progress: bool = True
    """show a progress bar"""


@dataclass(frozen=True)
class EnvsConfig:
    """List the task families."""

    optima: bool = False
    """instead, the mean returns of the best and of random play, in some seconds"""
    markdown: bool = False
    """print a Markdown table"""


@dataclass(frozen=True)
class AgentsConfig:
    """List the algorithms."""

    markdown: bool = False
    """print a Markdown table"""


@dataclass(frozen=True)
class DemoConfig:
    """Show the whole job: learn a prior from recommendation tasks, solve new ones, compare."""

    output: Path = Path("runs/demo")
    """folder for the picture, the tables, the log and the saved agent"""
    n_tasks: int = 24
    """tasks to learn the prior from, four at a time"""
    n_test_tasks: int = 32
    """held-out tasks"""
    n_episodes: int = 200
    """episodes in each task"""
    n_replicates: int = 4
    """independent repetitions of learning the prior; held-out tasks are shared out among them"""
    seed: int = 0
    """seed of everything"""
    progress: bool = True
    """show a progress bar"""


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of one algorithm on one environment, as its YAML file gives them."""

    source: str = "defaults of the constructor"
    n_timesteps: int | None = None
    policy: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    true_prior: Mapping[str, Any] = field(default_factory=dict)
    """for agents that are told the truth: `arguments`, and keywords of the env's `q_prior`"""
    in_task: Mapping[str, Any] = field(default_factory=dict)
    """what an SB3 agent that goes on learning in a new task changes for it"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """keywords of the agent's constructor"""


_SETTING_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "source": (str,),
        "n_timesteps": (int, float),
        "policy": (str,),
        "env_kwargs": (dict,),
        "true_prior": (dict,),
        "in_task": (dict,),
    }
)


def load_settings(
    algo: str, env_id: str, *, preset: str | None = None, folder: Path = HYPERPARAMS
) -> Settings:
    """
    Hyper-parameters of ``algo`` on ``env_id``; the constructor's defaults where no file has them.

    :param algo: name of the algorithm; the file is ``<algo>.yml``
    :param env_id: id of the environment: a key of that file
    :param preset: a name under ``presets`` of that key, whose settings stand for themselves; None
        for the settings of the key
    :param folder: folder of the files
    """
    path = folder / f"{algo}.yml"
    table = read_yaml(path) if path.exists() else {}
    if preset is not None:
        presets = preset_names(algo, env_id, folder=folder)
        if preset not in presets:
            raise ValueError(
                f"preset {preset!r}: {path.name} has {', '.join(presets) or 'none'} for {env_id}"
            )
        where = f"{path.name}, {env_id}, {preset}"
        return parse_settings(table[env_id]["presets"][preset], where=where)
    if env_id not in table:
        return Settings()
    return parse_settings(table[env_id], where=f"{path.name}, {env_id}")


def preset_names(algo: str, env_id: str, *, folder: Path = HYPERPARAMS) -> tuple[str, ...]:
    """
    Names of the publications' settings that the file of ``algo`` has for ``env_id``.

    :param algo: name of the algorithm
    :param env_id: id of the environment
    :param folder: folder of the files
    """
    path = folder / f"{algo}.yml"
    entry = read_yaml(path).get(env_id) if path.exists() else None
    presets = entry.get("presets", {}) if isinstance(entry, dict) else {}
    if not isinstance(presets, dict):
        raise ValueError(f"{path.name}, {env_id}: `presets` must be a mapping by name")
    return tuple(map(str, presets))


def parse_settings(entry: object, *, where: str) -> Settings:
    """
    One entry of a YAML file, checked.

    :param entry: what ``yaml.safe_load`` gave
    :param where: file and key, for error messages
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a mapping of hyper-parameters, got {entry!r}")
    values = {name: value for name, value in entry.items() if name != "presets"}
    if not values.get("source"):
        raise ValueError(f"{where}: `source:` is missing; say where these numbers come from")
    reserved: dict[str, Any] = {}
    for name, types in _SETTING_TYPES.items():
        if name in values:
            reserved[name] = values.pop(name)
            if not isinstance(reserved[name], types) or isinstance(reserved[name], bool):
                expected = " or ".join(t.__name__ for t in types)
                raise ValueError(f"{where}: `{name}` must be {expected}, got {reserved[name]!r}")
    if "n_timesteps" in reserved:
        reserved["n_timesteps"] = _positive_integer(
            reserved["n_timesteps"], f"{where}: n_timesteps"
        )
    return Settings(arguments=values, **reserved)


def read_yaml(path: Path) -> dict[str, Any]:
    """
    A YAML file that holds a mapping; only plain data is read from it.

    :param path: the file
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(table).__name__}")
    return {str(key): _numbers(entry) for key, entry in table.items()}


def parse_key_values(pairs: Sequence[str], *, option: str) -> dict[str, Any]:
    """
    ``("sigma2=0.1", "estimator=em")`` as a dict; values are read as YAML.

    :param pairs: what stood on the command line
    :param option: the option's name, for error messages
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--{option} {pair!r}: write KEY=VALUE, such as sigma2=0.1")
        try:
            values[key] = _numbers(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"--{option} {pair!r}: the value is not valid YAML") from error
    return values


def check_arguments(arguments: Mapping[str, Any], constructor: type, *, where: str) -> None:
    """
    Raise unless ``constructor`` takes every one of ``arguments`` by keyword.

    :param arguments: hyper-parameters
    :param constructor: the agent's class
    :param where: what to name in the error
    """
    # Of `__init__`: the signature of a class is its metaclass's `__call__` where there is one.
    parameters = inspect.signature(constructor.__init__).parameters  # type: ignore[misc]
    names = [n for n in parameters if n not in ("self", "policy", "env") and n[0] != "_"]
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise ValueError(
            f"{where}: {constructor.__name__} has no argument {', '.join(unknown)}; "
            f"it takes {', '.join(sorted(names))}"
        )


def _numbers(value: object) -> Any:
    """YAML 1.1 reads 1e-3 as a string; everybody who writes it means the number."""
    if isinstance(value, dict):
        return {key: _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _positive_integer(value: float, where: str) -> int:
    if value != int(value) or value < 1:
        raise ValueError(f"{where} must be a positive whole number, got {value!r}")
    return int(value)
