"""Timing side by side: samples, ratios within rounds, what counts as quiet, and the table."""

import csv
import time

import numpy as np
import pytest

from zoo.speed import tabular
from zoo.speed.timing import QUIET, Contender, Sample, interleaved, rows_of, show, stamp, write


def nothing():
    pass


def contenders(**changes):
    fast = Contender(nothing, 200, against=(("slow", 3.0),))
    return {"slow": Contender(nothing, 100), "fast": fast._replace(**changes)}


def samples(slow, fast, foreign=0.0):
    return {
        name: [Sample(2 * seconds, seconds, foreign) for seconds in times]
        for name, times in (("slow", slow), ("fast", fast))
    }


def test_ratios_are_taken_within_rounds():
    rows = rows_of(contenders(), samples([1.0, 2.0, 4.0], [0.5, 1.0, 1.0]), clock="cpu")
    compared = rows[-1]
    assert (compared.reference, compared.ratio, compared.low, compared.high) == (
        "slow",
        4.0,
        4.0,
        8.0,
    )
    assert compared.bar == ">= 3x: met"
    assert [row.rate for row in rows[:2]] == [50.0, 200.0]


def test_a_bar_that_is_not_reached_is_said_to_be_missed():
    rows = rows_of(contenders(against=(("slow", 9.0),)), samples([1.0], [0.5]), clock="cpu")
    assert rows[-1].bar == ">= 9x: MISSED"


def test_wall_time_counts_where_enough_rounds_are_quiet():
    quiet = samples([1.0] * 3, [0.5] * 3, foreign=QUIET / 2)
    assert rows_of(contenders(), quiet)[-1].clock == "wall, quiet"
    loud = samples([1.0] * 3, [0.5] * 3, foreign=2 * QUIET)
    assert rows_of(contenders(), loud)[-1].clock == "cpu"


def test_contenders_with_threads_are_not_judged_by_cpu_time():
    loud = samples([1.0] * 3, [0.5] * 3, foreign=2 * QUIET)
    row = rows_of(contenders(n_threads=2), loud)[-1]
    assert "not judged" in row.bar


def test_durations_are_compared_with_the_longest_allowed():
    timed = {"call": Contender(nothing, 1, most_milliseconds=40.0)}
    for seconds, said in ((0.03, "met"), (0.05, "MISSED")):
        row = rows_of(timed, {"call": [Sample(1.0, seconds, 0.0)]}, clock="cpu")[0]
        assert row.rate == pytest.approx(1e3 * seconds)
        assert row.bar == f"<= 40 ms: {said}"


def test_samples_see_the_work_that_is_done():
    def work():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    taken = interleaved({"work": Contender(work, 1)}, rounds=3)["work"]
    assert len(taken) == 3
    # Clock ticks of the kernel are 10 ms.
    assert all(0.045 <= each.cpu <= each.wall + 0.02 and each.foreign >= 0 for each in taken)


def test_the_table_is_written_with_what_it_depends_on(tmp_path, capsys):
    rows = rows_of(contenders(), samples([1.0], [0.5]), clock="cpu")
    show(rows)
    assert "4.00x" in capsys.readouterr().out
    write(rows, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert {line.split(":")[0] for line in lines if line.startswith("#")} == {
        f"# {name}" for name in stamp()
    }
    table = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert float(table[-1]["ratio"]) == 4.0


def test_tabular_contenders_run():
    found = tabular.stepping(8)
    # The smallest thing that steps each of them.
    for name, contender in found.items():
        for reference, _ in contender.against:
            assert reference in found, name
    ours = [each for name, each in found.items() if "Gymnasium" not in name]
    assert all(np.isfinite(each.n_units) for each in ours)
    ours[0].run()
