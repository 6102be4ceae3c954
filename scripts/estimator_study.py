"""Certify every estimator of the meta-gradient: bias and variance against N, K and alpha.

Finished settings are kept in `--folder` and skipped, so a run that was stopped goes on. Writes
zoo/results/estimator_study.csv and docs/images/estimator_study.png; exits with 1 where a bar is
missed.

    python scripts/estimator_study.py [--quick] [--workers 2]
"""

import argparse
import sys
from pathlib import Path

from zoo import report
from zoo.studies.estimators import estimator_study
from zoo.studies.estimators_report import draw, grids_of
from zoo.studies.runner import run_study
from zoo.studies.study import collected, write_csv


def main() -> int:
    """Run what is missing; 0 where everything is finished and every bar is met."""
    arguments = _arguments()
    study = estimator_study(quick=arguments.quick, seed=arguments.seed)
    outcome = run_study(
        study, arguments.folder, n_workers=arguments.workers, time_budget=arguments.time_budget
    )
    console = report.console()
    for label, failure in outcome.failures.items():
        console.print(f"{label} failed:\n{failure}", markup=False)
    rows = collected(study, arguments.folder)
    if not rows:
        return 1
    grids = grids_of(rows)
    for grid in grids:
        console.print(grid.rich())
    write_csv(study, arguments.folder, arguments.output)
    draw(rows, arguments.image)
    console.print(f"written to {arguments.output} and {arguments.image}")
    missed = any("MISSED" in row for grid in grids for row in grid.rows)
    return 1 if missed or outcome.n_missing else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without what takes longest")
    parser.add_argument("--seed", type=int, default=0, help="of the batches that are sampled")
    parser.add_argument("--time-budget", type=float, help="seconds after which runs are stopped")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/studies"))
    parser.add_argument("--output", type=Path, default=Path("zoo/results/estimator_study.csv"))
    parser.add_argument("--image", type=Path, default=Path("docs/images/estimator_study.png"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
