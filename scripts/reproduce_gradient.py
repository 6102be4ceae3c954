"""Run the studies of gradient-based meta-learning: MAML, ProMP, SG-MRL and their relatives.

Every study is a list of runs. Finished runs are kept in `--folder` and skipped; Ctrl-C and the end
of `--time-budget` leave checkpoints from which the next call goes on. Rows go to
zoo/results/gradient_<group>.csv, tables beside them, pictures to docs/images/.

    python scripts/reproduce_gradient.py --quick
    python scripts/reproduce_gradient.py --group pointgoal --group discrete --workers 2
    python scripts/reproduce_gradient.py --group halfcheetah_dir --iterations 600 --device cuda
    python scripts/reproduce_gradient.py --report
"""

import sys

from zoo.studies.command import run_command
from zoo.studies.gradient_page import GRADIENT

if __name__ == "__main__":
    sys.exit(run_command(GRADIENT, __doc__.splitlines()[0]))
