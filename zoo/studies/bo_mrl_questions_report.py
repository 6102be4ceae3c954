"""What is made of the studies of open questions about BO-MRL: a sentence, tables and a picture."""

from pathlib import Path

from zoo.report import Grid
from zoo.studies.adaptation_report import Rows
from zoo.studies.bo_mrl_questions_findings import FINDINGS
from zoo.studies.bo_mrl_questions_pictures import PICTURES
from zoo.studies.bo_mrl_questions_tables import TABLES


def question_grids(group: str, rows: Rows) -> list[Grid]:
    """
    What a study shows, in a sentence and in tables.

    :param group: its name on the command line
    :param rows: of its finished runs
    """
    finding = Grid("What it shows", ("made of the rows",), ((finding_of(group, rows),),))
    return [finding, *TABLES[group](rows)]


def finding_of(group: str, rows: Rows) -> str:
    """
    What a study shows, in a sentence or two.

    :param group: its name on the command line
    :param rows: of its finished runs
    """
    return FINDINGS[group](rows)


def draw_question(group: str, rows: Rows, path: Path) -> None:
    """
    The picture of a study.

    :param group: its name on the command line
    :param rows: of its finished runs
    :param path: PNG
    """
    PICTURES[group](rows, path)
