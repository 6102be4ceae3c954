"""The part of a page of docs/ that is generated from the committed tables of its studies."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.report import Grid, titled
from zoo.studies.adaptation_report import Rows, names_of, rows_of
from zoo.studies.study import Run, Stamps, Study, read_csv, read_stamps

RESULTS, IMAGES = Path("zoo/results"), Path("docs/images")
_MARKERS = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)", flags=re.DOTALL)


def no_claims(group: str, rows: Rows) -> Grid | None:
    """
    For studies that check no published claim.

    :param group: the study's name on the command line
    :param rows: of its finished runs
    """
    return None


class StudyFamily(NamedTuple):
    """The studies of one script, and the page that tells what they found."""

    name: str
    """that of a study is this, ``_`` and its name on the command line"""
    script: str
    page: Path
    groups: Mapping[str, Callable[[Any], Study]]
    """by name on the command line; ``quick`` is the one of ``--quick``"""
    options: Callable[..., Any]
    """the NamedTuple that the groups take; its fields are what the command line may change"""
    grids_of: Callable[[str, Rows], list[Grid]]
    """the tables of a group"""
    draw: Callable[[str, Rows, Path], Path]
    """the picture of a group"""
    rule: str
    """how its tables are to be read: Markdown above all of them"""
    claims_of: Callable[[str, Rows], Grid | None] = no_claims
    """what publications claim, beside what a group found"""
    needs_all_runs: bool = False
    """whether tables and pictures are made of groups only in which every run is finished"""
    partial_groups: Collection[str] = ()
    """those of them that have tables before"""
    paper: Mapping[str, Callable[[Any], Study]] = {}
    """by name on the command line, groups at the scale of a paper (``--scale paper``)"""
    trains_agents: bool = False
    """whether its runs leave agents that can be published"""
    publishes: Collection[str] = ()
    """of which algorithms; empty for all. Others are there for comparison"""

    def table_path(self, group: str, results: Path = RESULTS) -> Path:
        """
        Where the rows of a study are committed.

        :param group: its name on the command line
        :param results: folder of all of them
        """
        return results / f"{self.name}_{group}.csv"

    def title(self, group: str) -> str:
        """
        The first line of what a study says of itself.

        :param group: its name on the command line
        """
        return (inspect.getdoc(self.groups[group]) or group).splitlines()[0].rstrip(".")

    def has_tables(self, group: str, rows: Rows, *, n_missing: int) -> bool:
        """
        Whether there are tables of a study.

        :param group: its name on the command line
        :param rows: of its finished runs
        :param n_missing: how many of its runs are not
        """
        is_enough = not n_missing or not self.needs_all_runs or group in self.partial_groups
        return bool(rows) and is_enough

    def at_scale(self, scale: str) -> "StudyFamily":
        """
        The same studies, or those at the scale of the paper, whose tables have names of their own.

        :param scale: ``small`` or ``paper``
        """
        if scale == "small":
            return self
        script = f"{self.script} --scale {scale}"
        return self._replace(
            name=f"{self.name}_{scale}", script=script, groups=self.paper, paper={}
        )


def section(family: StudyFamily, results: Path = RESULTS, images: Path = IMAGES) -> str:
    """
    Markdown of every study that is committed: claims, runs, tables, picture; and which are not.

    :param family: of studies
    :param results: folder of the tables
    :param images: folder of the pictures, within that of the page
    """
    groups = [group for group in family.groups if family.table_path(group, results).exists()]
    parts = ["## Results", family.rule if groups else _nothing(family)]
    for group in groups:
        parts += _parts(family, group, results, images)
    paper = family.at_scale("paper")
    run = [group for group in paper.groups if paper.table_path(group, results).exists()]
    for group in run:
        parts += _parts(paper, group, results, images)
    missing = [
        f"- `{group}`: {family.title(group)}" for group in family.groups if group not in groups
    ]
    missing += [
        f"- `{group} --scale paper`: {paper.title(group)}"
        for group in paper.groups
        if group not in run
    ]
    if missing:
        parts += ["### Not run yet", "\n".join(missing)]
    return "\n\n".join(parts) + "\n"


def with_section(page: str, text: str) -> str:
    """
    A page with another section between its markers.

    :param page: the page
    :param text: what `section` returned
    """
    if len(_MARKERS.findall(page)) != 1:
        raise ValueError(
            "the page must have one pair of markers, `<!-- results: ... -->` and "
            "`<!-- end of results -->`"
        )
    return _MARKERS.sub(lambda match: f"{match[1]}\n{text}\n{match[2]}", page)


def write_page(family: StudyFamily, results: Path = RESULTS, images: Path = IMAGES) -> None:
    """
    Draw the pictures of the committed tables, and write their section of the page.

    :param family: of studies
    :param results: folder of the tables
    :param images: where the pictures go
    """
    for group in family.groups:
        path = family.table_path(group, results)
        rows = read_csv(path) if path.exists() else []
        if rows and family.has_tables(group, rows, n_missing=read_stamps(path).n_missing):
            family.draw(group, rows, images)
    page = family.page.read_text(encoding="utf-8")
    text = with_section(page, section(family, results, images))
    family.page.write_text(text, encoding="utf-8")


def runs_grid(study: Study, rows: Rows, stamps: Stamps) -> Grid:
    """
    What was planned, and what is done.

    :param study: with its own seeds and budgets
    :param rows: of the finished runs
    :param stamps: what stands above them
    """
    planned: dict[str, list[Run]] = {}
    for run in study.runs:
        planned.setdefault(run.name, []).append(run)
    done = {name: len({str(row["seed"]) for row in rows_of(rows, name)}) for name in names_of(rows)}
    lines = []
    for name in dict.fromkeys([*planned, *done]):
        runs = planned.get(name, [])
        plan = _length(runs[0].budget) if runs else ""
        length = _length(stamps.budgets.get(name, {})) if name in done else ""
        lines.append((name, str(len(runs)), str(done.get(name, 0)), plan, length))
    columns = ("run", "seeds planned", "done", "length planned", "done")
    return Grid("Runs", columns, tuple(lines))


def _nothing(family: StudyFamily) -> str:
    return (
        f"No study is committed yet: `python {family.script}` runs them, and `--report` writes\n"
        "their tables here."
    )


def _parts(family: StudyFamily, group: str, results: Path, images: Path) -> list[str]:
    path = family.table_path(group, results)
    rows, stamps, title = read_csv(path), read_stamps(path), family.title(group)
    versions = ", ".join(f"{name} {stamps.versions[name]}" for name in sorted(stamps.versions))
    parts = [
        f"### {title}",
        f"`python {family.script} --group {group}`: {stamps.summary}; commits "
        f"{', '.join(stamps.commits)}; {versions}.",
    ]
    if not rows:
        return [*parts, "No run is finished."]
    runs = runs_grid(family.groups[group](family.options()), rows, stamps)
    if any(row[1:2] + row[3:4] != row[2:3] + row[4:] for row in runs.rows):
        parts.append("**Not as planned**: the runs are fewer or of other lengths, see below.")
    if not family.has_tables(group, rows, n_missing=stamps.n_missing):
        return [*parts, titled(runs), "There are tables once every run is finished."]
    claims = family.claims_of(group, rows)
    for grid in (*([claims] if claims else []), runs, *family.grids_of(group, rows)):
        parts.append(titled(grid))
    picture = images / f"{family.name}_{group}.png"
    if picture.exists():
        parts.append(f"![{title}](images/{picture.name})")
    return parts


def _length(budget: Mapping[str, Any]) -> str:
    for key, unit in (("n_iterations", "iterations"), ("n_timesteps", "env steps")):
        if key in budget:
            return f"{int(budget[key]):,} {unit}"
    return ""
