"""Run the studies of gradient-based meta-learning: MAML, ProMP, SG-MRL and their relatives.

Every study is a list of runs. Finished runs are kept in `--folder` and skipped; Ctrl-C and the end
of `--time-budget` leave checkpoints from which the next call goes on. Rows go to
zoo/results/gradient_<group>.csv, tables beside them, pictures to docs/images/.

    python scripts/reproduce_gradient.py --quick
    python scripts/reproduce_gradient.py --group pointgoal --group discrete --workers 2
    python scripts/reproduce_gradient.py --group halfcheetah_dir --iterations 600 --device cuda
    python scripts/reproduce_gradient.py --report
"""

import argparse
import sys
import time
from pathlib import Path

from zoo import report
from zoo.studies.gradient import GROUPS, Options
from zoo.studies.gradient_page import PAGE, section, table_path, with_section
from zoo.studies.gradient_report import IMAGES, RESULTS, draw, grids_of
from zoo.studies.publishing import publish_best
from zoo.studies.runner import run_study
from zoo.studies.study import collected, read_csv, write_csv


def main() -> int:
    """Run the groups; 0 where every run is finished and every bar is met."""
    arguments = _arguments()
    if arguments.report:
        report_committed(arguments.results, arguments.images)
        return 0
    groups = (
        ["quick"] if arguments.quick else arguments.group or [g for g in GROUPS if g != "quick"]
    )
    end = None if arguments.time_budget is None else time.time() + arguments.time_budget
    console, complete = report.console(), True
    if not console.is_terminal:
        console.width = 180  # intervals take room
    for group in groups:
        study = GROUPS[group](Options(arguments.seeds, arguments.iterations, arguments.device))
        outcome = run_study(
            study,
            arguments.folder,
            n_workers=arguments.workers,
            time_budget=None if end is None else max(0.0, end - time.time()),
        )
        for label, failure in outcome.failures.items():
            console.print(f"{label} failed:\n{failure}", markup=False)
        console.print(outcome.grid().rich())
        rows = collected(study, arguments.folder)
        if rows:
            grids = grids_of(group, rows)
            for grid in grids:
                console.print(grid.rich())
            write_csv(study, arguments.folder, arguments.results / f"{study.name}.csv")
            report.write_tables(arguments.results / f"{study.name}.md", grids)
            draw(group, rows, arguments.images)
            complete &= not any("MISSED" in row for grid in grids for row in grid.rows)
            if arguments.publish:
                for name in publish_best(study, arguments.folder):
                    console.print(f"published {name}")
        complete &= outcome.n_missing == 0
        if outcome.was_stopped:
            return 130
    return 0 if complete else 1


def report_committed(results: Path, images: Path) -> None:
    """Draw the pictures of the committed tables, and write their section of docs/gradient.md."""
    for group in GROUPS:
        path = table_path(group, results)
        rows = read_csv(path) if path.exists() else []
        if rows:
            draw(group, rows, images)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_section(page, section(results, images)), encoding="utf-8")
    print(f"written to {PAGE}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="PointGoal with bars, in minutes")
    parser.add_argument(
        "--report", action="store_true", help="run nothing: write docs/gradient.md from the tables"
    )
    parser.add_argument("--group", action="append", choices=sorted(GROUPS), help="may be repeated")
    parser.add_argument("--seeds", type=int, help="of every run; default: the study's own")
    parser.add_argument("--iterations", type=int, help="meta-iterations; default: the study's own")
    parser.add_argument("--device", default="cpu", help="where agents learn: cpu or cuda")
    parser.add_argument("--time-budget", type=float, help="seconds after which runs are stopped")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument(
        "--publish", action="store_true", help="the best agents go to zoo/trained_agents"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/studies"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
