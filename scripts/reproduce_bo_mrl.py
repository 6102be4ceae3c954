"""Run the studies of BO-MRL: frozen lakes, solved exactly, against MAML and other initialisations.

Every study is a list of runs. Finished runs are kept in `--folder` and skipped, so Ctrl-C and the
end of `--time-budget` lose one run at most. Rows go to zoo/results/bo_mrl_<group>.csv, tables
beside them, pictures to docs/images/; `--report` writes docs/bo_mrl.md from what is there.

    python scripts/reproduce_bo_mrl.py --quick
    python scripts/reproduce_bo_mrl.py --group frozen_lake --group frozen_lake_400 --workers 2
    python scripts/reproduce_bo_mrl.py --report
"""

import sys

from zoo.studies.bo_mrl_page import BO_MRL
from zoo.studies.command import run_command

if __name__ == "__main__":
    sys.exit(run_command(BO_MRL, __doc__.splitlines()[0]))
