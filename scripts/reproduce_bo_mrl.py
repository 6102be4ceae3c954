"""Run the studies of BO-MRL: frozen lakes, solved exactly, against MAML and other initialisations.

Every study is a list of runs. Finished runs are kept in `--folder` and skipped, so Ctrl-C and the
end of `--time-budget` lose one run at most. Rows go to zoo/results/bo_mrl_<group>.csv, tables
beside them, pictures to docs/images/.

    python scripts/reproduce_bo_mrl.py --quick
    python scripts/reproduce_bo_mrl.py --group frozen_lake --group frozen_lake_400 --workers 2
"""

import argparse
import sys
import time
from pathlib import Path

from zoo import report
from zoo.studies.bo_mrl import GROUPS, Options
from zoo.studies.bo_mrl_report import IMAGES, RESULTS, draw, grids_of
from zoo.studies.runner import run_study
from zoo.studies.study import collected, write_csv


def main() -> int:
    """Run the groups; 0 where every run is finished and nothing that is claimed is missed."""
    arguments = _arguments()
    groups = (
        ["quick"] if arguments.quick else arguments.group or [g for g in GROUPS if g != "quick"]
    )
    end = None if arguments.time_budget is None else time.time() + arguments.time_budget
    console, complete = report.console(), True
    if not console.is_terminal:
        console.width = 180  # intervals take room
    for group in groups:
        study = GROUPS[group](Options(arguments.seeds, arguments.iterations))
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
            write_csv(study, arguments.folder, arguments.results / f"{study.name}.csv")
        if rows and outcome.n_missing == 0:
            grids = grids_of(group, rows)
            for grid in grids:
                console.print(grid.rich())
            report.write_tables(arguments.results / f"{study.name}.md", grids)
            draw(group, rows, arguments.images)
            complete &= not any("MISSED" in row for grid in grids for row in grid.rows)
        complete &= outcome.n_missing == 0
        if outcome.was_stopped:
            return 130
    return 0 if complete else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="Alg 2 against MAML, in minutes")
    parser.add_argument("--group", action="append", choices=sorted(GROUPS), help="may be repeated")
    parser.add_argument("--seeds", type=int, help="of every run; default: the study's own")
    parser.add_argument("--iterations", type=int, help="meta-iterations; default: the study's own")
    parser.add_argument("--time-budget", type=float, help="seconds after which runs are stopped")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/studies"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
