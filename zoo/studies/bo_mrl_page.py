"""The studies of BO-MRL, as scripts/reproduce_bo_mrl.py has them."""

from pathlib import Path

from zoo.studies.bo_mrl import GROUPS
from zoo.studies.bo_mrl_methods import Options
from zoo.studies.bo_mrl_report import draw, grids_of
from zoo.studies.page import StudyFamily

BO_MRL = StudyFamily(
    name="bo_mrl",
    script="scripts/reproduce_bo_mrl.py",
    page=Path("docs/bo_mrl.md"),
    groups=GROUPS,
    options=Options,
    grids_of=grids_of,
    draw=draw,
    rule=(
        "Lambda and step sizes are chosen on validation tasks; scores are those of test tasks, "
        "which nothing\n"
        "else looks at. A line says `met` where the 95 % interval of the differences from Alg 2, "
        "seed by seed,\n"
        "lies above 0, and `MISSED` where it should and does not. Intervals are Student's t over "
        "seeds.\n"
        "Published numbers are not set beside ours: their maps are not known, so that only orders "
        "and trends\n"
        "could agree."
    ),
    needs_all_runs=True,
)
