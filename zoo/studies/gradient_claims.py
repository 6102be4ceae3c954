"""What publications claim, beside what the studies of gradient-based meta-learning found."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from metarl_agents.common.evaluation.intervals import Interval
from zoo.report import Grid, interval_text
from zoo.studies.adaptation_report import Rows, curve_of, names_of, protocols_of, rows_of
from zoo.studies.convergence import running_minimum

_EQUAL, _HALVED = "equal steps", "later steps halved"
_FINN = "Finn et al. (2017)"
_ROTHFUSS = "Rothfuss et al. (2019)"
_FALLAH = "Fallah et al. (2021)"
_SMALLER = 0.01
"""Of two squared norms, so that one of them counts as vanishing."""


class Finding(NamedTuple):
    """What was found, and what it says of a claim."""

    found: str
    verdict: str


class Claim(NamedTuple):
    """A sentence of a publication that a study can check."""

    group: str
    """of the study"""
    said: str
    source: str
    check: Callable[[Rows], Finding | None]
    """None where its runs are not there"""


def claims_grid(group: str, rows: Rows) -> Grid | None:
    """
    The claims that a study checks; None where there are none.

    :param group: the study's name on the command line
    :param rows: of its finished runs
    """
    lines = []
    for claim in CLAIMS:
        if claim.group == group:
            finding = claim.check(rows) or Finding("", "not run")
            lines.append((claim.said, claim.source, *finding))
    if not lines:
        return None
    return Grid("Published claims", ("claim", "source", "found", "verdict"), tuple(lines))


def reaches(rows: Rows, name: str | None, protocol: str, step: int, level: float) -> Finding | None:
    """
    Whether the return after a step is at least a published one, as far as the interval tells.

    :param rows: of the study
    :param name: of the run; None for whichever is best
    :param protocol: of the evaluation
    :param step: adaptations
    :param level: the published return
    """
    names = [each for each in names_of(rows) if name in (None, each)]
    if not names or protocol not in protocols_of(rows):
        return None
    best = max((_after(rows, each, protocol, step) for each in names), key=lambda i: i.estimate)
    if np.fmax(best.high, best.estimate) >= level:
        return Finding(interval_text(best), "reproduced")
    return Finding(interval_text(best), f"not reproduced, {level - best.estimate:.1f} short")


def is_better(rows: Rows, name: str, other: str, protocol: str, step: int) -> Finding | None:
    """
    Whether one method's return after a step is above another's, intervals apart.

    :param rows: of the study
    :param name: of the run that should be better
    :param other: of the other one
    :param protocol: of the evaluation
    :param step: adaptations
    """
    if not {name, other} <= set(names_of(rows)):
        return None
    ours, theirs = (_after(rows, each, protocol, step) for each in (name, other))
    gap = ours.estimate - theirs.estimate
    found = f"{interval_text(ours)}, against {interval_text(theirs)}"
    if ours.low > theirs.high:
        return Finding(found, f"reproduced, by {gap:.1f}")
    if ours.high < theirs.low:
        return Finding(found, f"not reproduced, worse by {-gap:.1f}")
    return Finding(found, f"not reproduced, {gap:+.1f} within the intervals")


def vanishes(rows: Rows, name: str, other: str) -> Finding | None:
    """
    Whether the gradient vanishes along one exact ascent, and does not along another.

    :param rows: of the study
    :param name: of the run that should reach a stationary point
    :param other: of the run that should not
    """
    if not {name, other} <= set(names_of(rows)):
        return None
    minima = [running_minimum(rows_of(rows, each)) for each in (name, other)]
    ours, theirs = (float(minimum[-1] / minimum[0]) for minimum in minima)
    found = f"squared norm down to {ours:.1e} of the first, against {theirs:.1e}"
    if ours <= _SMALLER * theirs:
        return Finding(found, "reproduced")
    return Finding(found, f"not reproduced, {ours / theirs:.2g} of the other")


def _after(rows: Rows, name: str, protocol: str, step: int) -> Interval:
    return Interval(*(float(values[step]) for values in curve_of(rows, name, protocol)))


def _better(
    group: str, name: str, other: str, source: str, step: int = 1, suffix: str = ""
) -> Claim:
    steps = "1 step" if step == 1 else f"{step} steps"
    said = f"{name}{suffix} earns more than {other}{suffix} after {steps}"
    check = partial(is_better, name=name + suffix, other=other + suffix, protocol=_EQUAL, step=step)
    return Claim(group, said, source, check)


_NAVIGATION = partial(reaches, name="MAML (TRPO)", protocol=_HALVED)
CLAIMS: Sequence[Claim] = (
    Claim(
        "finn_squared",
        "MAML with TRPO: -11.68 after 1 step",
        _FINN,
        partial(_NAVIGATION, step=1, level=-11.68),
    ),
    Claim(
        "finn_squared",
        "MAML with TRPO: -3.23 after 3 steps",
        _FINN,
        partial(_NAVIGATION, step=3, level=-3.23),
    ),
    Claim(
        "halfcheetah_dir",
        "about 250 after 1 step of a method",
        "RLlib's curve of MAML, 100 steps",
        partial(reaches, name=None, protocol=_EQUAL, step=1, level=250.0),
    ),
    _better("halfcheetah_dir", "ProMP", "MAML (TRPO)", _ROTHFUSS),
    _better("pointgoal", "ProMP", "MAML (TRPO)", f"{_ROTHFUSS}, on locomotion"),
    _better("pointgoal", "SG-MRL", "MAML", _FALLAH),
    *(_better("sgmrl_k", "SG-MRL", "MAML", _FALLAH, k, f", K={k}") for k in (1, 2, 3)),
    *(
        Claim(
            "convergence",
            f"SG-MRL reaches a stationary point of J_N, MAML does not (K={k})",
            _FALLAH,
            partial(vanishes, name=f"sgmrl, K={k}, exact", other=f"maml, K={k}, exact"),
        )
        for k in (1, 2, 3)
    ),
)
"""In the order of the page."""
