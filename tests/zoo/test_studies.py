"""Studies: what is finished is never played again, and what is stopped loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.studies.runner import run_study
from zoo.studies.study import Context, Run, Study, collected, finished, read_csv, write_csv

ROOT = Path(__file__).parents[2]


def squares(run: Run, context: Context):
    """Leaves a mark for every time that it is played."""
    with (context.folder / f"{run.stem}.marks").open("a") as file:
        file.write("x")
    return [{"value": run.config["base"] ** 2 + run.seed}]


def in_steps(run: Run, context: Context):
    """A run that keeps a checkpoint: how many of its steps are done."""
    checkpoint = context.folder / f"{run.stem}.checkpoint"
    n_done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    first = n_done
    while n_done < run.budget["n_steps"]:
        if context.is_over():
            return None
        time.sleep(0.01)
        n_done += 1
        checkpoint.write_text(str(n_done))
    return [{"n_steps": n_done, "first": first}]


def broken_for_seed_1(run: Run, context: Context):
    if run.seed == 1:
        raise ValueError("seed 1 is unlucky")
    return [{"value": 1}]


def study(play=squares, n_seeds=2, budget=None, **config) -> Study:
    runs = [Run("one", seed, {"base": 3, **config}, budget or {}) for seed in range(n_seeds)]
    return Study("numbers", play, runs)


def marks(folder: Path) -> int:
    return sum(len(path.read_text()) for path in folder.rglob("*.marks"))


def test_finished_runs_are_not_played_again(tmp_path: Path) -> None:
    for n_seeds in (2, 2, 3):
        outcome = run_study(study(n_seeds=n_seeds), tmp_path, progress=False)
        assert outcome.n_missing == 0
    assert marks(tmp_path) == 3
    assert [row["value"] for row in collected(study(n_seeds=3), tmp_path)] == [9, 10, 11]


def test_a_run_with_another_configuration_is_another_run(tmp_path: Path) -> None:
    run_study(study(), tmp_path, progress=False)
    run_study(study(base=4), tmp_path, progress=False)
    assert [row["value"] for row in collected(study(base=4), tmp_path)] == [16, 17]
    assert marks(tmp_path) == 4


def test_runs_that_could_not_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="same name, seed and config"):
        Study("numbers", squares, [Run("one", 0), Run("one", 0)])


def test_when_the_time_is_over_a_run_stops_and_goes_on_another_time(tmp_path: Path) -> None:
    long = study(in_steps, 1, {"n_steps": 60})
    first = run_study(long, tmp_path, time_budget=0.2, progress=False)
    assert first.n_missing == 1 and first.unfinished == list(long.runs)
    assert "stopped on the way" in first.grid().markdown()
    n_done = int(next(tmp_path.rglob("*.checkpoint")).read_text())
    assert 0 < n_done < 60
    assert run_study(long, tmp_path, progress=False).n_missing == 0
    assert collected(long, tmp_path)[0]["first"] == n_done


def test_a_larger_budget_goes_on_from_the_checkpoint_of_a_finished_run(tmp_path: Path) -> None:
    for n_steps in (5, 8):
        run_study(study(in_steps, 1, {"n_steps": n_steps}), tmp_path, progress=False)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    rows = [collected(study(in_steps, 1, {"n_steps": n}), tmp_path) for n in (5, 8)]
    assert [entry[0]["n_steps"] for entry in rows] == [5, 8]


def works_for_a_while(run: Run, context: Context):
    """Stops in its first sitting, ends in its second, and works in both."""
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    mark = context.folder / "sat"
    if mark.exists():
        return [{"value": 1}]
    mark.touch()
    return None


def test_the_time_of_a_run_is_that_of_all_its_sittings(tmp_path: Path) -> None:
    for _ in range(2):
        run_study(study(works_for_a_while, 1), tmp_path, progress=False)
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["cpu_seconds"] >= 0.4


@pytest.mark.parametrize("n_workers", [1, 2])
def test_one_failure_does_not_stop_the_others(tmp_path: Path, n_workers: int) -> None:
    unlucky = study(broken_for_seed_1, 3)
    outcome = run_study(unlucky, tmp_path, n_workers=n_workers, progress=False)
    assert [run.seed for run in finished(unlucky, tmp_path)] == [0, 2]
    assert list(outcome.failures) == ["one, seed 1"]
    assert "seed 1 is unlucky" in outcome.failures["one, seed 1"]
    assert "| one | 3 | 2 | 1 failed |" in outcome.grid().markdown()


def dies_for_seed_0(run: Run, context: Context):
    if run.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    return [{"value": 1}]


def test_a_worker_that_is_killed_does_not_stop_the_others(tmp_path: Path) -> None:
    deadly = study(dies_for_seed_0, 4)
    outcome = run_study(deadly, tmp_path, n_workers=2, progress=False)
    assert "one, seed 0" in outcome.failures
    assert len(outcome.failures) <= 2  # its neighbour's too
    assert outcome.n_missing == len(outcome.failures)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.kill()
    process.wait()
    time.sleep(1.0)
    before = [path.read_text() for path in tmp_path.rglob("*.checkpoint")]
    time.sleep(1.0)
    assert [path.read_text() for path in tmp_path.rglob("*.checkpoint")] == before


def test_every_run_says_what_its_rows_depend_on(tmp_path: Path) -> None:
    run_study(study(n_seeds=1), tmp_path, progress=False)
    (path,) = (tmp_path / "numbers").glob("one-0-*.json")
    content = json.loads(path.read_text())
    assert content["config"] == {"base": 3}
    assert {"torch", "numpy", "python"} <= set(content["versions"])
    assert content["commit"]


def test_the_commit_is_that_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_study(study(n_seeds=1), tmp_path, progress=False)
    (path,) = (tmp_path / "numbers").glob("one-0-*.json")
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    assert json.loads(path.read_text())["commit"] == (asked.stdout.strip() or "unknown")


def test_the_table_holds_rows_of_different_columns_and_their_origin(tmp_path: Path) -> None:
    run_study(study(), tmp_path, progress=False)
    write_csv(study(), tmp_path, tmp_path / "table.csv")
    text = (tmp_path / "table.csv").read_text()
    assert text.startswith("# study: numbers, 2 of 2 runs")
    assert '# one: {"budget": {}, "config": {"base": 3}}' in text
    rows = read_csv(tmp_path / "table.csv")
    assert [(row["run"], row["seed"], row["value"]) for row in rows] == [
        ("one", "0", "9"),
        ("one", "1", "10"),
    ]


@pytest.mark.parametrize(("name", "value"), [("n_workers", 0), ("time_budget", -1.0)])
def test_impossible_settings_are_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        run_study(study(), tmp_path, progress=False, **{name: value})  # type: ignore[arg-type]


def interrupted(run: Run, context: Context):
    if run.seed == 1:
        raise KeyboardInterrupt
    return [{"value": 1}]


def test_ctrl_c_leaves_what_is_finished(tmp_path: Path) -> None:
    outcome = run_study(study(interrupted, 3), tmp_path, progress=False)
    assert outcome.was_stopped and [run.seed for run in outcome.unfinished] == [1]
    assert [run.seed for run in finished(study(interrupted, 3), tmp_path)] == [0]


def test_ctrl_c_asks_workers_to_stop_at_their_checkpoints(tmp_path: Path) -> None:
    process = started(tmp_path)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert printed.split() == ["True", "2"]


def started(tmp_path: Path) -> subprocess.Popen[str]:
    """A process with two workers, each of which has written a checkpoint of an endless run."""
    script = tmp_path / "stopped.py"
    script.write_text(
        "import importlib.util, pathlib, signal, sys\n"
        # A process of the background is born deaf to Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "import test_studies as t\n"
        "from zoo.studies.runner import run_study\n"
        "if __name__ == '__main__':\n"
        "    long = t.study(t.in_steps, 2, {'n_steps': 100000})\n"
        f"    outcome = run_study(long, pathlib.Path({str(tmp_path)!r}), n_workers=2,\n"
        "        progress=False)\n"
        "    print(outcome.was_stopped, len(outcome.unfinished))\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300  # imports take long on a busy machine
    while len(list(tmp_path.rglob("*.checkpoint"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process
