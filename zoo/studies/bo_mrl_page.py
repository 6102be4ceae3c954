"""The studies of BO-MRL, as scripts/reproduce_bo_mrl.py has them."""

from pathlib import Path

from zoo.studies.bo_mrl import GROUPS
from zoo.studies.bo_mrl_locomotion import LOCOMOTION, PAPER
from zoo.studies.bo_mrl_methods import Options
from zoo.studies.bo_mrl_report import draw, grids_of
from zoo.studies.page import StudyFamily

_RULE = """\
Lambda and step sizes are chosen on validation tasks; scores are those of test tasks, which nothing
else looks at. With `published values`, policies adapt with the lambda of publicly available scripts
(Alg 1: 0.1 and 0.05 with high and low variance, Alg 2: 0.2 and 0.1; twice as much from a uniform
policy), and MAML takes the best step size of 1, 4, 10 and 20 (10 is that of the scripts, 50 in
their units). `One value` and `own values` choose from far wider grids, the same for training and
adaptation or one for each.

A line says `met` where the 95 % interval of the differences from Alg 2, seed by seed, lies above 0,
and `MISSED` where it should and does not; small letters are for what nothing was claimed of.
Intervals are Student's t over seeds. Published numbers are not set beside ours: their maps are not
known, so that only orders and trends could agree."""
BO_MRL = StudyFamily(
    name="bo_mrl",
    script="scripts/reproduce_bo_mrl.py",
    page=Path("docs/bo_mrl.md"),
    groups=GROUPS,
    options=Options,
    grids_of=grids_of,
    draw=draw,
    rule=_RULE,
    needs_all_runs=True,
    partial_groups=tuple(LOCOMOTION),
    paper=PAPER,
    trains_agents=True,
    publishes=("bomrl",),
)
