"""The study of convergence of BO-MRL with networks: its gradient, and what a run leaves."""

from pathlib import Path

import numpy as np
import pytest
import torch as th

from metarl_agents.common.solvers import flatten, unflatten
from zoo.studies import bo_mrl_network_convergence, bo_mrl_report
from zoo.studies.bo_mrl import GROUPS, Options, play
from zoo.studies.bo_mrl_network_convergence import (
    TOLERANCE,
    adapted_params,
    exact_gradient,
    network_levels,
    shared,
)
from zoo.studies.study import Context, Run

FEW = {"n_validation": 1, "n_test": 1}
RUNS = {
    run.name: Run(run.name, run.seed, {**run.config, **FEW}, run.budget)
    for run in GROUPS["convergence"](Options(n_seeds=1, n_iterations=3)).runs
    if run.name.startswith("network")
}


@pytest.fixture(params=RUNS.values(), ids=RUNS, scope="module")
def start(request):
    """A run, its levels and phi at its start."""
    levels = network_levels({**request.param.config, "n_train": 2}, 0)
    return request.param, levels, levels.network.initial_params(np.random.default_rng(0))


def test_gradient_is_that_of_finite_differences(start) -> None:
    _, levels, phi = start
    adapted, residual = adapted_params(levels, phi, start=shared(phi, levels))
    assert residual <= TOLERANCE
    gradient, _ = exact_gradient(levels, phi, adapted)

    def objective(shift: th.Tensor) -> float:
        shifted = unflatten(flatten(phi) + shift, phi)
        solution, _ = adapted_params(levels, shifted, start=adapted)
        return float(levels.returns(solution).mean())

    generator, h = th.Generator().manual_seed(0), 1e-3
    for _ in range(2):
        direction = th.randn(len(flatten(phi)), generator=generator, dtype=th.float64)
        direction = direction / direction.norm()
        near, far = (objective(k * h * direction) - objective(-k * h * direction) for k in (1, 2))
        expected = (8.0 * near - far) / (12.0 * h)
        # The rule errs by h^4 times a fifth derivative, and residuals of 1e-9, of which J is off
        # by about as much at most, count 1/h times.
        assert float(flatten(gradient) @ direction) == pytest.approx(expected, abs=2e-6)
        assert abs(expected) > 1e-3  # so that 0 would be found out


def test_ascent_raises_the_return_through_solved_lower_levels(tmp_path: Path) -> None:
    rows = []
    for name, run in RUNS.items():
        found = play(run, Context(tmp_path))
        returns = [float(row["return"]) for row in found]
        assert returns == sorted(returns) and returns[-1] > returns[0] + 0.1
        assert [row["step"] for row in found] == list(range(4))
        assert max(float(row["residual"]) for row in found) <= TOLERANCE
        rows += [{"run": name, "seed": 0, **row} for row in found]
    lines = bo_mrl_report.convergence_grid(rows).rows
    assert [line[0] for line in lines] == list(RUNS)
    assert all(float(line[-1]) <= TOLERANCE for line in lines)
    assert bo_mrl_report.draw("convergence", rows, tmp_path).exists()


def test_the_report_shows_tables_and_networks_together(tmp_path: Path) -> None:
    found = {"kind": "convergence", "return": "0"}
    rows = [
        {"run": run, "seed": seed, "step": step, "squared_norm": f"{0.1**step}", **more, **found}
        for run, more in (("BO-MRL, Alg 1", {}), ("network, Alg 1", {"residual": "2e-10"}))
        for seed in range(2)
        for step in range(3)
    ]
    lines = bo_mrl_report.convergence_grid(rows).rows
    assert [line[-1] for line in lines] == ["", "2e-10"]
    assert bo_mrl_report.draw("convergence", rows, tmp_path).exists()


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    (run, *_) = RUNS.values()
    assert play(run, Context(tmp_path, stopped=lambda: True)) is None


def test_lower_levels_that_are_not_solved_or_not_regular_are_refused(monkeypatch) -> None:
    (run, *_) = RUNS.values()
    levels = network_levels({**run.config, "n_train": 1}, 0)
    phi = levels.network.initial_params(np.random.default_rng(0))
    start = shared(phi, levels)
    monkeypatch.setattr(bo_mrl_network_convergence, "_N_NEWTON_STEPS", 1)
    with pytest.raises(ValueError, match="not stationary and has no derivative: raise lam"):
        adapted_params(levels, phi, start=start)
    # At phi, where D^2 has the curvature 2, the surrogate's counts 1000 times.
    with pytest.raises(ValueError, match="Hessian of a lower level has a curvature of -"):
        exact_gradient(levels._replace(distance="l2", lam=1e-3, eta=0.0), phi, start)
