"""What publications claim of gradient-based meta-learning, beside what was found."""

from zoo.studies.gradient import GROUPS, Options
from zoo.studies.gradient_claims import CLAIMS, claims_grid, is_better, reaches, vanishes


def test_every_claim_is_about_runs_that_its_study_has() -> None:
    for claim in CLAIMS:
        names = [run.name for run in GROUPS[claim.group](Options()).runs]
        keywords = claim.check.keywords  # type: ignore[attr-defined]
        named = {keywords[key] for key in ("name", "other") if keywords.get(key) is not None}
        assert named <= set(names), claim


def rows_of(name: str, level: float) -> list[dict]:
    run = {"run": name, "protocol": "equal steps", "step": 0}
    return [{**run, "seed": seed, "by_task": f"{level + seed} {level}"} for seed in range(3)]


def test_a_published_return_is_reached_or_missed_by_so_much() -> None:
    found = [reaches(rows_of("a", 10.0), "a", "equal steps", 0, level) for level in (10, 20.25)]
    assert [finding.verdict for finding in found if finding] == [
        "reproduced",
        "not reproduced, 10.0 short",
    ]
    assert reaches(rows_of("a", 10.0), "b", "equal steps", 0, 10) is None


def test_methods_differ_only_beyond_their_intervals() -> None:
    rows = rows_of("a", 10.0) + rows_of("b", 10.2) + rows_of("c", 20.0)
    verdicts = [
        (is_better(rows, *names, protocol="equal steps", step=0) or ("", ""))[1]
        for names in (("c", "a"), ("a", "c"), ("b", "a"))
    ]
    assert verdicts == [
        "reproduced, by 10.0",
        "not reproduced, worse by 10.0",
        "not reproduced, +0.2 within the intervals",
    ]


def test_a_gradient_vanishes_beside_another() -> None:
    norms = {"a": (1.0, 1e-8), "b": (1.0, 0.1)}
    rows = [
        {"run": name, "iteration": str(i), "squared_norm": str(value)}
        for name, values in norms.items()
        for i, value in enumerate(values)
    ]
    assert (vanishes(rows, "a", "b") or ("", ""))[1] == "reproduced"
    assert (vanishes(rows, "b", "a") or ("", ""))[1].startswith("not reproduced")
    assert vanishes(rows, "a", "c") is None


def test_studies_that_check_no_claim_have_no_such_table() -> None:
    assert claims_grid("discrete", []) is None
