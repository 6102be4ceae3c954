"""A study is a list of runs, each of which leaves one file of rows.

Finished runs are known by their files, so a study goes on where it was stopped. A run that takes
long keeps checkpoints of its own and says that it is unfinished.
"""

import csv
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from metarl_agents.common.evaluation.result import library_versions
from zoo.report import file_name
from zoo.speed.timing import commit

Row = Mapping[str, Any]
"""One line of the table: plain numbers and strings by column."""
_DIGITS = 10


@dataclass(frozen=True)
class Run:
    """One training run, or whatever else ends in a few rows."""

    name: str
    """what is compared, such as ``promp``; the same for all its seeds"""
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    """plain data: all that the rows depend on besides the seed"""
    budget: Mapping[str, Any] = field(default_factory=dict)
    """plain data: how long it runs. With a larger one a finished run goes on from its checkpoint"""

    @property
    def stem(self) -> str:
        """The name of its files, which another budget does not change."""
        return f"{file_name(self.name)}-{self.seed}-{_digest(self.config)}"

    @property
    def file(self) -> str:
        """The file of its rows, which exists once it is finished."""
        return f"{self.stem}-{_digest(self.budget)}.json"


class Context:
    """What a run is told of its surroundings.

    :param folder: for its checkpoints and other files of its own
    :param deadline: when it should stop, by `time.time`; None for never
    :param stopped: whether somebody wants everything to stop
    """

    def __init__(
        self,
        folder: Path,
        deadline: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.deadline, self._stopped = folder, deadline, stopped

    def is_over(self) -> bool:
        """Whether to stop now, and to leave the rest for another time."""
        late = self.deadline is not None and time.time() >= self.deadline
        return late or self._stopped()


Play = Callable[[Run, Context], Sequence[Row] | None]
"""Plays a run: its rows, or None where it was stopped. A function of a module: workers import it"""


@dataclass(frozen=True)
class Study:
    """Runs, and the function that plays each of them."""

    name: str
    play: Play
    runs: Sequence[Run]

    def __post_init__(self) -> None:
        files = [run.file for run in self.runs]
        twice = sorted({file for file in files if files.count(file) > 1})
        if twice:
            raise ValueError(f"runs of {self.name} have the same name, seed and config: {twice}")


def finished(study: Study, folder: Path) -> list[Run]:
    """The runs whose rows are there.

    :param study: the study
    :param folder: where the runs of all studies are kept
    """
    return [run for run in study.runs if (folder / study.name / run.file).exists()]


def play_run(study: Study, run: Run, context: Context) -> bool:
    """Play one run and keep its rows; whether it is finished now.

    :param study: the study
    :param run: one of its runs
    :param context: whose folder is that of the study
    """
    # Of the sources that are loaded: a long run may see later commits.
    started, sources = time.process_time(), commit()
    context.folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = study.play(run, context)
    finally:
        spent = _add_to(context.folder / f"{run.stem}.cpu", time.process_time() - started)
    if rows is None:
        return False
    content = {
        "name": run.name,
        "seed": run.seed,
        "config": run.config,
        "budget": run.budget,
        "commit": sources,
        "versions": library_versions(),
        "cpu_seconds": round(spent, 1),
        "rows": [dict(row) for row in rows],
    }
    path = context.folder / run.file
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    unfinished.replace(path)  # a file that exists is complete
    return True


def _add_to(path: Path, seconds: float) -> float:
    """Seconds that a run has had in all its sittings, this one included."""
    total = seconds + (float(path.read_text(encoding="utf-8")) if path.exists() else 0.0)
    path.write_text(f"{total:.3f}", encoding="utf-8")
    return total


def collected(study: Study, folder: Path) -> list[dict[str, Any]]:
    """The rows of all finished runs, each with the columns ``run`` and ``seed`` in front.

    :param study: the study
    :param folder: where the runs of all studies are kept
    """
    return _rows(_contents(study, folder))


def write_csv(study: Study, folder: Path, path: Path) -> None:
    """Write the rows of all finished runs as one table, with what they depend on above it.

    :param study: the study
    :param folder: where the runs of all studies are kept
    :param path: the table
    """
    done = _contents(study, folder)
    rows = _rows(done)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        for line in _stamps(study, done):
            file.write(f"# {line}\n")
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote, as text.

    :param path: the table
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


class Stamps(NamedTuple):
    """What a table says of its origin."""

    summary: str
    """how many runs of how many, and how long they took"""
    commits: Sequence[str]
    versions: Mapping[str, str]
    """of the libraries; of the first run where they differ"""
    budgets: Mapping[str, Mapping[str, Any]]
    """by name of the run"""

    @property
    def n_missing(self) -> int:
        """How many planned runs are not finished."""
        n_done, _, n_planned = self.summary.partition(" runs")[0].partition(" of ")
        return int(n_planned) - int(n_done)


def read_stamps(path: Path) -> Stamps:
    """What stands above the rows of a table that `write_csv` wrote.

    :param path: the table
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    told: dict[str, str] = {}
    for line in (line.removeprefix("# ") for line in lines if line.startswith("# ")):
        # The names of runs may have colons, too.
        name, mark, content = line.partition(": {") if line.endswith("}") else line.partition(": ")
        told.setdefault(name, "{" + content if mark == ": {" else content)
    versions = json.loads(told.pop("versions", "{}"))
    summary = told.pop("study", "").partition(", ")[2]
    commits = told.pop("commits", "").split(", ")
    budgets = {name: json.loads(content)["budget"] for name, content in told.items()}
    return Stamps(summary, commits, versions, budgets)


def _stamps(study: Study, done: Sequence[Mapping[str, Any]]) -> list[str]:
    commits = sorted({entry["commit"] for entry in done})
    versions = sorted({json.dumps(entry["versions"], sort_keys=True) for entry in done})
    hours = sum(entry["cpu_seconds"] for entry in done) / 3600
    lines = [
        f"study: {study.name}, {len(done)} of {len(study.runs)} runs, {hours:.2f} CPU hours",
        f"commits: {', '.join(commits)}",
        *(f"versions: {entry}" for entry in versions),
    ]
    configs: dict[str, str] = {}
    for entry in done:
        told = {"config": entry["config"], "budget": entry["budget"]}
        configs.setdefault(entry["name"], json.dumps(told, sort_keys=True))
    return lines + [f"{name}: {told}" for name, told in configs.items()]


def _contents(study: Study, folder: Path) -> list[dict[str, Any]]:
    paths = [folder / study.name / run.file for run in finished(study, folder)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _rows(done: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"run": entry["name"], "seed": entry["seed"], **row}
        for entry in done
        for row in entry["rows"]
    ]


def _digest(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
