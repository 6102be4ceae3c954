"""Means over seeds, their intervals, and what they say in words."""

import numpy as np
import pytest

from zoo.studies.seed_statistics import (
    by_seed,
    cell,
    change_text,
    difference,
    mean_interval,
    sign_of,
)

ROWS = [{"seed": str(seed), "n": n, "gap": f"{seed + n}"} for seed in range(3) for n in (1, 2)]


def test_intervals_are_those_of_student_s_t() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    # 4.3027 is the 97.5 % quantile with two degrees of freedom.
    assert found.high - found.estimate == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert np.isnan(mean_interval([1.0]).low)


def test_numbers_are_found_by_what_other_columns_hold() -> None:
    assert by_seed(ROWS, "gap", n=2) == {0: 2.0, 1: 3.0, 2: 4.0}
    with pytest.raises(ValueError, match="several rows of seed 0"):
        by_seed(ROWS, "gap")


def test_differences_are_taken_seed_by_seed() -> None:
    found = difference({0: 1.0, 1: 5.0, 3: 9.0}, {0: 0.0, 1: 4.0, 2: 7.0})
    assert found == (1.0, 1.0, 1.0)


def test_a_change_is_claimed_only_where_its_interval_excludes_0() -> None:
    rise, fall, unclear = (mean_interval([d - 0.1, d, d + 0.1]) for d in (1.0, -1.0, 0.0))
    assert [sign_of(each) for each in (rise, fall, unclear)] == [1, -1, 0]
    assert change_text(rise).startswith("rises by 1 [")
    assert change_text(fall).startswith("falls by 1 [0.")
    assert "no clear change" in change_text(unclear)


def test_a_single_seed_has_no_interval_and_claims_nothing() -> None:
    alone = mean_interval([1.0])
    assert cell(alone) == "1"
    assert sign_of(alone) == 0
