"""Checks that a training which was stopped ends bit-equal to one that was not."""

from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import CheckpointCallback

from metarl_agents.common.checkpoint import load_checkpoint
from metarl_agents.common.testing.process import file_of_another_process
from metarl_agents.common.testing.subject import (
    State,
    StopAt,
    Subject,
    global_random_state,
    require,
    require_same,
    state_of,
)


def learning_in_pieces_equals_learning_at_once(subject: Subject) -> None:
    """`learn` stopped between two meta-iterations and called again."""
    agent = subject.agent()
    agent.learn(subject.boundaries[0])
    require(
        agent.num_timesteps == subject.boundaries[0],
        f"learn({subject.boundaries[0]}) took {agent.num_timesteps} env steps",
    )
    subject.resume(agent)
    require_same(subject.reference, state_of(agent), "training in two pieces and in one")


def saved_between_iterations_resumes_exactly(subject: Subject) -> None:
    """Saved, loaded and trained on."""
    agent = subject.agent()
    agent.learn(subject.boundaries[0])
    _require_resumes(subject, agent, "stopped between two meta-iterations")


def stopped_by_a_callback_resumes_exactly(subject: Subject) -> None:
    """Stopped inside a collect, at its first, at a middle and at its last step."""
    for n in _stopping_points(subject):
        agent = subject.agent()
        agent.learn(subject.total_timesteps, callback=StopAt(n))
        require(
            agent.num_timesteps in (0, *subject.boundaries),
            f"stopped at step {n}, num_timesteps={agent.num_timesteps} counts an undone collect",
        )
        _require_resumes(subject, agent, f"stopped by a callback at step {n}")


def interrupted_training_resumes_exactly(subject: Subject) -> None:
    """Ctrl-C leaves a file that resumes, and an agent that goes on, from the same state."""
    for n in _stopping_points(subject):
        agent, path = subject.agent(), subject.folder / f"interrupted_{n}.zip"
        try:
            agent.learn(
                subject.total_timesteps, callback=StopAt(n, _interrupt), checkpoint_path=path
            )
        except KeyboardInterrupt:
            pass
        else:
            require(False, f"learn() swallowed the KeyboardInterrupt at step {n}")
        require(path.is_file(), f"interrupted at step {n}, learn() left no file")
        loaded = subject.algorithm.load(path, env=subject.vec_env())
        require_same(state_of(agent), state_of(loaded), f"memory and file interrupted at step {n}")
        _require_resumes(subject, agent, f"interrupted at step {n}")


def saved_inside_a_collect_resumes_exactly(subject: Subject) -> None:
    """SB3's `CheckpointCallback` saves while training goes on; each file resumes."""
    agent, folder = subject.agent(), subject.folder / "checkpoints"
    every = max(subject.total_timesteps // 4, 1) + 1
    agent.learn(subject.total_timesteps, callback=CheckpointCallback(every, str(folder)))
    require_same(subject.reference, state_of(agent), "training with and without checkpoints")
    files = sorted(folder.glob("*.zip"))
    require(files, "SB3's CheckpointCallback wrote no file")
    for path in files:
        _require_file_resumes(subject, path, f"saved by {path.name}")


def finished_training_leaves_its_checkpoint(subject: Subject) -> None:
    """`checkpoint_path` holds the agent at the end of `learn`."""
    agent, path = subject.agent(), subject.folder / "finished.zip"
    agent.learn(subject.total_timesteps, checkpoint_path=path, checkpoint_interval=2)
    loaded = subject.algorithm.load(path, env=subject.vec_env())
    require_same(subject.reference, state_of(loaded), "the trained agent and its checkpoint")


def seeds_decide_everything(subject: Subject) -> None:
    """Same seed, same result; another seed, another one; no global generator is used."""
    before = global_random_state()
    agent = subject.agent()
    agent.learn(subject.total_timesteps)
    require(global_random_state() == before, "training draws from a global random generator")
    require_same(subject.reference, state_of(agent), "two trainings with one seed")
    other = subject.agent(seed=subject.seed + 1)
    other.learn(subject.total_timesteps)
    ours, theirs = subject.reference.generators, state_of(other).generators
    require(ours != theirs, "the seed does not reach the agent's generator")


def two_processes_agree(subject: Subject) -> None:
    """Another Python process, with other hashes, learns and saves the same bits."""
    path = file_of_another_process(subject)
    checkpoint = load_checkpoint(path, subject.algorithm.__name__)
    theirs = State(checkpoint.tensors, checkpoint.generators, checkpoint.counters)
    require_same(subject.reference, theirs, "what two processes learned")
    require(
        path.read_bytes() == subject.saved.read_bytes(),
        "two processes learned the same, but their files differ: one holds a time or an address",
    )


def _require_resumes(subject: Subject, agent: Any, what: str) -> None:
    path = subject.folder / "stopped.zip"
    agent.save(path)
    _require_file_resumes(subject, path, f"{what}, loaded")
    subject.resume(agent)
    require_same(subject.reference, state_of(agent), f"training without a stop and one {what}")


def _require_file_resumes(subject: Subject, path: Path, what: str) -> None:
    loaded = subject.algorithm.load(path, env=subject.vec_env())
    subject.resume(loaded)
    require_same(subject.reference, state_of(loaded), f"training without a stop and one {what}")


def _stopping_points(subject: Subject) -> list[int]:
    first, second = subject.boundaries[:2]
    return sorted({1, (first + second + 1) // 2, second})


def _interrupt(agent: Any) -> bool:
    raise KeyboardInterrupt
