import numpy as np
import pytest

from metarl_agents import AdaptationResult
from metarl_agents.common.evaluation import Interval
from zoo.report import (
    Grid,
    Phase,
    draw_adaptation,
    file_name,
    interval_text,
    phase_grid,
    phases_of,
    regret_grid,
    summary_grid,
)


def result(name: str, regret: float) -> AdaptationResult:
    n_tasks, n_steps = 6, 12
    noise = np.random.default_rng(0).uniform(0.9, 1.1, size=(n_tasks, n_steps))
    returns = np.tile(np.arange(n_steps, dtype=float), (n_tasks, 1))[..., None]
    return AdaptationResult(
        learner=name,
        env_id="test",
        seed=0,
        task_ids=np.arange(n_tasks),
        tasks=np.arange(n_tasks, dtype=float)[:, None],
        returns=returns,
        lengths=np.ones_like(returns, dtype=int),
        regret=regret * noise,
        optimal_returns=np.full(n_tasks, 20.0),
        settings={"n_adapt_steps": n_steps - 1, "episodes_per_step": 1, "n_eval_episodes": None},
    )


@pytest.fixture
def results() -> dict[str, AdaptationResult]:
    return {"slow": result("slow", 2.0), "fast": result("fast", 1.0)}


def test_ratios_are_paired_so_common_noise_cancels(results) -> None:
    grid = regret_grid(results, baseline="slow", oracle="fast", notes={"slow": "nothing"})
    assert grid.columns == ("learner", "regret", "x slow", "x fast", "learned before")
    assert grid.rows[0][2:] == ("1", "2.00 [2.00, 2.00]", "nothing")
    assert grid.rows[1][2:4] == ("0.50 [0.50, 0.50]", "1")


def test_phases_cover_every_episode_once() -> None:
    for n_episodes in (1, 2, 5, 6, 60, 200):
        covered = [e for p in phases_of(n_episodes) for e in range(p.first, p.last + 1)]
        assert covered == list(range(1, n_episodes + 1))
    assert [phase.name for phase in phases_of(25)] == ["1", "2-5", "6-10", "11-20", "21-25"]


def test_phases_average_their_episodes(results) -> None:
    grid = phase_grid(results, [Phase(1, 1), Phase(2, 5), Phase(6, 12)])
    assert grid.rows[0] == ("slow", "0.00", "2.50", "8.00")


def test_summary_has_a_row_per_learner(results) -> None:
    assert [row[0] for row in summary_grid(results).rows] == ["slow", "fast"]


def test_intervals_are_short() -> None:
    assert interval_text(Interval(16.34, 14.92, 17.86)) == "16.3 [14.9, 17.9]"
    assert interval_text(Interval(0.974, 0.84, 1.12)) == "0.97 [0.84, 1.12]"


def test_a_grid_is_markdown_and_terminal_text() -> None:
    grid = Grid("title", ("a", "b"), (("`x`", "1.0"),))
    assert grid.markdown() == "| a | b |\n| --- | --- |\n| `x` | 1.0 |"
    assert grid.rich().row_count == 1


def test_names_become_file_names() -> None:
    assert file_name("metarl/Recommendation-v0") == "metarl-Recommendation-v0"
    assert file_name("../../etc/passwd") == "..-..-etc-passwd"


def test_the_picture_is_a_small_png(results, tmp_path) -> None:
    draw_adaptation(results, tmp_path / "deep" / "a.png")
    written = (tmp_path / "deep" / "a.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert len(written) < 100_000
