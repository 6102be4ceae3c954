"""The part of docs/gradient.md that is generated from the committed tables of the studies."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.report import Grid, titled
from zoo.studies.adaptation_report import Rows, names_of, rows_of
from zoo.studies.gradient import GROUPS, Options
from zoo.studies.gradient_claims import claims_grid
from zoo.studies.gradient_report import IMAGES, RESULTS, grids_of
from zoo.studies.study import Run, Stamps, Study, read_csv, read_stamps

PAGE = Path("docs/gradient.md")
_MARKERS = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- end of results -->)", flags=re.DOTALL)
_NOTHING = (
    "No study is committed yet: `python scripts/reproduce_gradient.py` runs them, and `--report` "
    "writes\ntheir tables here."
)
_RULE = (
    "A published return is reproduced where the 95 % interval of ours reaches it; one method is "
    "better\nthan another where their intervals do not overlap. Intervals are bootstrapped over "
    "seeds and\nheld-out tasks."
)


def table_path(group: str, results: Path = RESULTS) -> Path:
    """
    Where the rows of a study are committed.

    :param group: its name on the command line
    :param results: folder of all of them
    """
    return results / f"gradient_{group}.csv"


def section(results: Path = RESULTS, images: Path = IMAGES) -> str:
    """
    Markdown of every study that is committed: claims, runs, tables, picture.

    :param results: folder of the tables
    :param images: folder of the pictures, within that of the page
    """
    groups = [group for group in GROUPS if table_path(group, results).exists()]
    parts = ["## Results", _RULE if groups else _NOTHING]
    for group in groups:
        parts += _parts(group, results, images)
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


def _parts(group: str, results: Path, images: Path) -> list[str]:
    path = table_path(group, results)
    rows, stamps = read_csv(path), read_stamps(path)
    title = (inspect.getdoc(GROUPS[group]) or group).splitlines()[0].rstrip(".")
    versions = ", ".join(f"{name} {stamps.versions[name]}" for name in sorted(stamps.versions))
    parts = [
        f"### {title}",
        f"`python scripts/reproduce_gradient.py --group {group}`: {stamps.summary}; commits "
        f"{', '.join(stamps.commits)}; {versions}.",
    ]
    if not rows:
        return [*parts, "No run is finished."]
    claims = claims_grid(group, rows)
    runs = runs_grid(GROUPS[group](Options()), rows, stamps)
    if any(row[1:2] + row[3:4] != row[2:3] + row[4:] for row in runs.rows):
        parts.append("**Not as planned**: the runs are fewer or of other lengths, see below.")
    for grid in (*([claims] if claims else []), runs, *grids_of(group, rows)):
        parts.append(titled(grid))
    picture = images / f"gradient_{group}.png"
    if picture.exists():
        parts.append(f"![{title}](images/{picture.name})")
    return parts


def _length(budget: Mapping[str, Any]) -> str:
    for key, unit in (("n_iterations", "iterations"), ("n_timesteps", "env steps")):
        if key in budget:
            return f"{int(budget[key]):,} {unit}"
    return ""
