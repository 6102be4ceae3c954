"""The result of evaluating how a learner adapts to held-out tasks."""

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from metarl_agents.common.evaluation.intervals import Floats
from metarl_agents.common.evaluation.statistics import ScoreStatistics, check_same_learner

_FORMAT = 1
_ARRAYS = {
    "task_ids": np.int64,
    "tasks": np.float64,
    "returns": np.float64,
    "lengths": np.int64,
    "regret": np.float64,
    "adaptation_regret": np.float64,
    "optimal_returns": np.float64,
}
_LIBRARIES = (
    "metarl-baselines",
    "gymnasium",
    "numpy",
    "scipy",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "mujoco",
)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that results depend on."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True, eq=False)
class AdaptationResult(ScoreStatistics):
    """What a learner earned on M held-out tasks before and after each of K adaptations.

    Intervals of a single result are over its tasks. For intervals over training seeds, stratified
    by task, combine the results of several seeds with `from_seeds`.

    :param learner: name of the learner
    :param env_id: id of the env
    :param seed: seed of the evaluation
    :param task_ids: stable number of each task, (M,)
    :param tasks: the tasks as arrays, (M, task_dim)
    :param returns: undiscounted raw returns, (M, K+1, E); index k is after k adaptations, 0 is
        zero-shot
    :param lengths: steps of the same episodes, (M, K+1, E)
    :param regret: expected regret of one episode of the policy after k adaptations, (M, K+1): the
        optimal return under the env's action masks minus the policy's, both exact. It is negative
        where a policy that ignores the masks does better than the best one that obeys them; it is
        not clipped
    :param optimal_returns: optimal expected return of each task, (M,)
    :param settings: arguments of the evaluation
    :param versions: library versions
    :param adaptation_regret: expected regret of the adaptation episodes that were played, with the
        actions sampled as they were, summed over the episodes of each collection, (M, K), on-line
        (M, K+1); of learners that train in the task, by how they acted at the start of each episode
    """

    learner: str
    env_id: str
    seed: int
    task_ids: np.ndarray
    tasks: np.ndarray
    returns: Floats
    lengths: np.ndarray
    regret: Floats | None
    optimal_returns: Floats | None
    settings: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=library_versions)
    adaptation_regret: Floats | None = None

    def __post_init__(self) -> None:
        for name, dtype in _ARRAYS.items():
            value = getattr(self, name)
            if value is not None:
                array = np.array(value, dtype=dtype)
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        n_tasks, n_steps = _checked_shape(self.returns)
        expected = {
            "task_ids": (n_tasks,),
            "lengths": self.returns.shape,
            "regret": (n_tasks, n_steps),
            "optimal_returns": (n_tasks,),
        }
        if "n_eval_episodes" in self.settings:
            n_collections = n_steps - (self.settings["n_eval_episodes"] is not None)
            expected["adaptation_regret"] = (n_tasks, n_collections)
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{name} has shape {value.shape}, but returns {self.returns.shape} ask for "
                    f"{shape}"
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdaptationResult) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def runs(self) -> Sequence["AdaptationResult"]:
        """This one evaluation."""
        return (self,)

    @property
    def n_tasks(self) -> int:
        """M, the number of held-out tasks."""
        return int(self.returns.shape[0])

    @property
    def n_adapt_steps(self) -> int:
        """K, the number of adaptations."""
        return int(self.returns.shape[1]) - 1

    @property
    def n_episodes(self) -> int:
        """E, the number of scored episodes per task and step."""
        return int(self.returns.shape[2])

    @classmethod
    def from_seeds(cls, results: Sequence["AdaptationResult"]) -> "SeedAggregate":
        """Combines evaluations of one learner, trained with several seeds, on the same tasks.

        :param results: one evaluation per seed
        """
        return SeedAggregate(tuple(results))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; `from_dict` restores an equal result."""
        plain: dict[str, Any] = {"format": _FORMAT}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                value = value.tolist()
            plain[entry.name] = dict(value) if isinstance(value, Mapping) else value
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "AdaptationResult":
        """Restores what `to_dict` gave.

        :param plain: such a dict
        """
        names = [entry.name for entry in fields(cls)]
        missing = [name for name in names if name not in plain]
        if plain.get("format") != _FORMAT or missing:
            raise ValueError(
                f"this is no AdaptationResult of format {_FORMAT} (format={plain.get('format')!r}, "
                "missing entries "
                f"{missing}); write it with AdaptationResult.to_json"
            )
        return cls(**{name: plain[name] for name in names})

    def to_json(self, path: str | Path | None = None) -> str:
        """The result as JSON text, also written to `path` if one is given.

        :param path: file to write
        """
        return _written(json.dumps(self.to_dict()), path)

    @classmethod
    def from_json(cls, source: str | Path) -> "AdaptationResult":
        """Restores a result from JSON text or from a file.

        :param source: path of a file, or the text itself
        """
        text = (
            source
            if isinstance(source, str) and source.lstrip().startswith("{")
            else Path(source).read_text("utf-8")
        )
        try:
            plain = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"source={str(source)[:80]!r} is not JSON ({error}); write it with to_json"
            ) from error
        if not isinstance(plain, dict):
            raise ValueError(
                f"source={str(source)[:80]!r} holds no JSON object; write it with to_json"
            )
        return cls.from_dict(plain)

    def to_csv(self, path: str | Path | None = None) -> str:
        """One line per scored episode as CSV text, also written to `path` if one is given.

        :param path: file to write
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            [
                "learner",
                "env_id",
                "seed",
                "task",
                "task_id",
                "step",
                "episode",
                "return",
                "length",
                "regret",
                "optimal",
            ]
        )
        for (task, step, episode), value in np.ndenumerate(self.returns):
            regret = "" if self.regret is None else float(self.regret[task, step])
            optimal = "" if self.optimal_returns is None else float(self.optimal_returns[task])
            length = int(self.lengths[task, step, episode])
            where = [task, int(self.task_ids[task]), step, episode]
            writer.writerow(
                [
                    self.learner,
                    self.env_id,
                    self.seed,
                    *where,
                    float(value),
                    length,
                    regret,
                    optimal,
                ]
            )
        return _written(text.getvalue(), path)


@dataclass(frozen=True)
class SeedAggregate(ScoreStatistics):
    """Evaluations of one learner trained with several seeds, on the same tasks.

    Its intervals are stratified by task.

    :param results: one evaluation per seed
    """

    results: tuple[AdaptationResult, ...]

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError("results=() is empty; give one AdaptationResult per seed")
        check_same_learner(self.results)

    @property
    def runs(self) -> Sequence[AdaptationResult]:
        """The evaluations, one per seed."""
        return self.results


def _checked_shape(returns: Floats) -> tuple[int, int]:
    if returns.ndim != 3 or 0 in returns.shape:
        raise ValueError(
            f"returns has shape {returns.shape}; give (n_tasks, n_adapt_steps + 1, episodes), each "
            "at least 1"
        )
    return int(returns.shape[0]), int(returns.shape[1])


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
