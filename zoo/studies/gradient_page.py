"""The studies of gradient-based meta-learning, as scripts/reproduce_gradient.py has them."""

from pathlib import Path

from zoo.studies.gradient import GROUPS, Options
from zoo.studies.gradient_claims import claims_grid
from zoo.studies.gradient_report import draw, grids_of
from zoo.studies.page import StudyFamily

GRADIENT = StudyFamily(
    name="gradient",
    script="scripts/reproduce_gradient.py",
    page=Path("docs/gradient.md"),
    groups=GROUPS,
    options=Options,
    grids_of=grids_of,
    draw=draw,
    rule=(
        "A published return is reproduced where the 95 % interval of ours reaches it; one method "
        "is better\n"
        "than another where their intervals do not overlap. Intervals are bootstrapped over seeds "
        "and\n"
        "held-out tasks."
    ),
    claims_of=claims_grid,
    trains_agents=True,
)
