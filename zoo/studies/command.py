"""The command line of scripts that reproduce studies: run groups, write tables, pictures, the page.

Every study is a list of runs. Finished runs are kept in `--folder` and skipped; Ctrl-C and the end
of `--time-budget` leave what is finished, and the checkpoints of runs that keep some, from which
the next call goes on.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from zoo import report
from zoo.studies.page import IMAGES, RESULTS, StudyFamily, write_page
from zoo.studies.publishing import publish_best
from zoo.studies.runner import Progression, run_study
from zoo.studies.study import Study, collected, write_csv

_QUICK = "quick"
_INTERRUPTED = 130


def run_command(family: StudyFamily, description: str, argv: Sequence[str] | None = None) -> int:
    """
    Run groups; 0 where every run is finished and no bar is missed, 130 after Ctrl-C, else 1.

    :param family: of studies
    :param description: what ``--help`` says first
    :param argv: what the user typed; None for the arguments of this process
    """
    arguments = parser_of(family, description).parse_args(argv)
    if arguments.report:
        write_page(family, arguments.results, arguments.images)
        print(f"written to {family.page}")
        return 0
    family = family.at_scale(getattr(arguments, "scale", "small"))
    chosen = [_QUICK] if arguments.quick else arguments.group
    absent = sorted(set(chosen or ()) - family.groups.keys())
    if absent:
        known = ", ".join(family.groups)
        raise SystemExit(f"--scale paper has no group {absent[0]!r}: take one of {known}")
    end = None if arguments.time_budget is None else time.time() + arguments.time_budget
    console, complete = report.console(), True
    if not console.is_terminal:
        console.width = 180  # intervals take room
    for group in chosen or [name for name in family.groups if name != _QUICK]:
        left = None if end is None else max(0.0, end - time.time())
        outcome = _played(family, group, arguments, console, left)
        complete &= outcome.n_missing == 0
        complete &= _reported(family, group, arguments, console, outcome)
        if outcome.was_stopped:
            return _INTERRUPTED
    return 0 if complete else 1


def parser_of(family: StudyFamily, description: str) -> argparse.ArgumentParser:
    """
    What such a script understands; ``--device`` and ``--publish`` where they make sense.

    :param family: of studies
    :param description: what ``--help`` says first
    """
    quick = family.title(_QUICK).replace("%", "%%")
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=f"{quick}: minutes")
    parser.add_argument(
        "--report", action="store_true", help=f"run nothing: write {family.page} from the tables"
    )
    parser.add_argument(
        "--group", action="append", choices=sorted(family.groups), help="may be repeated"
    )
    parser.add_argument("--seeds", type=int, help="of every run; default: the study's own")
    parser.add_argument("--iterations", type=int, help="meta-iterations; default: the study's own")
    if family.paper:
        parser.add_argument(
            "--scale",
            choices=("small", "paper"),
            default="small",
            help=f"paper: the publication's settings, for {', '.join(family.paper)}",
        )
    if _has_device(family):
        parser.add_argument("--device", default="cpu", help="where agents learn: cpu or cuda")
    parser.add_argument("--time-budget", type=float, help="seconds after which runs are stopped")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    if family.trains_agents:
        parser.add_argument(
            "--publish", action="store_true", help="the best agents go to zoo/trained_agents"
        )
    parser.add_argument("--folder", type=Path, default=Path("runs/studies"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    return parser


def _played(
    family: StudyFamily,
    group: str,
    arguments: argparse.Namespace,
    console: Console,
    time_budget: float | None,
) -> Progression:
    changes = {"n_seeds": arguments.seeds, "n_iterations": arguments.iterations}
    if _has_device(family):
        changes["device"] = arguments.device
    outcome = run_study(
        family.groups[group](family.options(**changes)),
        arguments.folder,
        n_workers=arguments.workers,
        time_budget=time_budget,
    )
    for label, failure in outcome.failures.items():
        console.print(f"{label} failed:\n{failure}", markup=False)
    console.print(outcome.grid().rich())
    return outcome


def _reported(
    family: StudyFamily,
    group: str,
    arguments: argparse.Namespace,
    console: Console,
    outcome: Progression,
) -> bool:
    """Writes what there is to write; whether no bar is missed in it."""
    study, folder = outcome.study, arguments.folder
    rows = collected(study, folder)
    if not rows:
        return True
    table = family.table_path(group, arguments.results)
    write_csv(study, folder, table)
    if not family.has_tables(group, rows, n_missing=outcome.n_missing):
        return True
    grids = family.grids_of(group, rows)
    for grid in grids:
        console.print(grid.rich())
    report.write_tables(table.with_suffix(".md"), grids)
    family.draw(group, rows, arguments.images)
    if family.trains_agents and arguments.publish:
        for name in publish_best(_to_publish(family, study), folder):
            console.print(f"published {name}")
    return not any("MISSED" in row for grid in grids for row in grid.rows)


def _to_publish(family: StudyFamily, study: Study) -> Study:
    if not family.publishes:
        return study
    runs = [run for run in study.runs if run.config.get("algo") in family.publishes]
    return replace(study, runs=runs)


def _has_device(family: StudyFamily) -> bool:
    return "device" in getattr(family.options, "_fields", ())
