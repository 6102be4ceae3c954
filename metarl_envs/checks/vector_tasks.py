"""Checks of the tasks of vector envs: one stream and one pin per sub-environment."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from metarl_envs.checks.door import bad_tasks, must_refuse
from metarl_envs.checks.subject import (
    attribute,
    count_distinct,
    is_same,
    require,
    same_task,
)
from metarl_envs.checks.vector_subject import (
    N_ENVS,
    AnyVectorEnv,
    VectorPlayer,
    VectorStep,
    VectorSubject,
    info_of,
    require_same_rows,
    vector_rollout,
)
from metarl_envs.core import Task


def infos_name_the_tasks(subject: VectorSubject) -> None:
    """``task_id`` is an int64 array at every step; ``task`` is there after ``reset``."""
    env = subject.make()
    player = VectorPlayer(env, subject.seed)
    step = player.reset(seed=subject.seed)
    began = np.ones(N_ENVS, dtype=np.bool_)
    ids: dict[int, Task] = {}
    for index in range(40):
        found: Any = step.infos.get("task_id")
        require(isinstance(found, np.ndarray), f'infos["task_id"] is {found!r} at step {index}')
        require(found.dtype == np.int64, f'infos["task_id"] has dtype {found.dtype}')
        for row, task in enumerate(attribute(env, "get_tasks")()):
            known = ids.setdefault(int(found[row]), task)
            require(same_task(known, task), f"{known} and {task} share the task_id {found[row]}")
            named = info_of(step.infos, row).get("task")
            # Envs that step thousands of tasks at once need not name those that autoresets draw.
            may_name = began[row] if index else True
            require(named is None or may_name, f'infos["task"][{row}] at step {index}')
            require(named is not None or index > 0, f'infos["task"][{row}] is missing at the reset')
            require(named is None or same_task(named, task), f'infos["task"][{row}] is {named}')
        before = step
        step = player.step()
        began = _began(env, before, step)


def sub_environments_meet_their_own_tasks(subject: VectorSubject) -> None:
    """Task streams differ between sub-environments; in continuous families nothing repeats."""
    subject.distinct_tasks(2)
    env = subject.make(num_envs=8)
    for seed in (subject.seed, None):
        streams: list[list[Task]] = [[] for _ in range(8)]
        for index in range(8 if subject.is_continuous else 32):
            env.reset(seed=seed if index == 0 else None)
            for stream, task in zip(streams, attribute(env, "get_tasks")(), strict=True):
                stream.append(task)
        others = [not all(map(same_task, streams[0], stream)) for stream in streams[1:]]
        require(any(others), "all sub-environments met the same tasks")
        met = [task for stream in streams for task in stream]
        if subject.is_continuous:
            n_distinct = count_distinct(met)
            require(n_distinct == len(met), f"{len(met)} episodes met only {n_distinct} tasks")


def autoresets_draw_new_tasks(subject: VectorSubject) -> None:
    """An episode that begins by itself has a new task; ``task_mode="fixed"`` keeps the first."""
    subject.distinct_tasks(2)
    streams = _streams_of_tasks(subject, subject.make())
    require(any(count_distinct(stream) > 1 for stream in streams), "autoresets keep the task")
    for stream in streams:
        new = not subject.is_continuous or count_distinct(stream) == len(stream)
        require(new, f"autoresets repeat tasks: {stream}")
    fixed = _streams_of_tasks(subject, subject.make(task_mode="fixed"))
    for stream in fixed:
        require(count_distinct(stream) == 1, f'task_mode="fixed" met several tasks: {stream}')


def set_tasks_pins_through_autoresets(subject: VectorSubject) -> None:
    """``set_tasks`` holds through resets and autoresets; ``None`` unpins."""
    env = subject.make()
    tasks = subject.distinct_tasks(N_ENVS)
    attribute(env, "set_tasks")(tasks)
    for stream, task in zip(_streams_of_tasks(subject, env), tasks, strict=True):
        require(all(same_task(met, task) for met in stream), f"pinned {task}, met {stream}")
    attribute(env, "set_tasks")([None] * N_ENVS)
    met = [task for _ in range(16) for task in _tasks_of_reset(env)]
    require(_varies(met), "set_tasks([None, ...]) does not unpin")


def set_tasks_reaches_only_its_indices(subject: VectorSubject) -> None:
    """``set_tasks(tasks, indices=...)`` leaves the other sub-environments alone."""
    free, env = subject.make(), subject.make()
    tasks = subject.distinct_tasks(2)
    attribute(env, "set_tasks")(tasks, indices=[2, 0])
    expected, met = (_tasks_of_reset(each, subject.seed) for each in (free, env))
    require(same_task(met[2], tasks[0]) and same_task(met[0], tasks[1]), f"indices pinned {met}")
    for row in (1, 3):
        require(same_task(met[row], expected[row]), f"env {row} met {met[row]} instead of its own")


def set_tasks_waits_for_the_next_reset(subject: VectorSubject) -> None:
    """Tasks pinned during an episode leave that episode alone."""
    # Several seeds: on some, tasks that differ may behave alike.
    for seed in range(subject.seed, subject.seed + 8):
        env = subject.make()
        player = VectorPlayer(env, seed)
        row = player.reset(seed=seed)
        running = attribute(env, "get_tasks")()
        attribute(env, "set_tasks")(subject.distinct_tasks(N_ENVS))
        require(all(map(same_task, attribute(env, "get_tasks")(), running)), "get_tasks() changed")
        undisturbed = vector_rollout(subject.make(), seed=seed)
        alive = np.ones(N_ENVS, dtype=np.bool_)
        for expected in undisturbed:
            _require_same_ends(expected, row, np.flatnonzero(alive).tolist())
            # In the step that ends an episode, the observation is that of the next one.
            alive &= ~row.dones
            rows = np.flatnonzero(alive).tolist()
            require_same_rows([expected], [row], "set_tasks changed running episodes", rows)
            if not rows:
                break
            row = player.step()


def reset_option_sets_one_episode(subject: VectorSubject) -> None:
    """``reset(options={"tasks": [...]})`` is for one episode; pins and draws then return."""
    env = subject.make()
    chosen = subject.distinct_tasks(N_ENVS)
    options = {"tasks": list(chosen)}
    env.reset(seed=subject.seed, options=options)
    require(options == {"tasks": chosen}, f"reset changed the options to {options}")
    met = attribute(env, "get_tasks")()
    require(all(map(same_task, met, chosen)), f"options asked for {chosen}, met {met}")
    later = [_tasks_of_reset(env) for _ in range(16)]
    kept = any(all(same_task(tasks[row], chosen[row]) for tasks in later) for row in range(N_ENVS))
    require(not kept, "the option outlived its episode")
    pinned = chosen[1:] + chosen[:1]
    attribute(env, "set_tasks")(pinned)
    env.reset(options={"tasks": chosen})
    require(all(map(same_task, _tasks_of_reset(env), pinned)), "after the option the pins are gone")


def bad_tasks_are_refused(subject: VectorSubject) -> None:
    """Bad tasks, counts and indices raise ``ValueError`` or ``TypeError`` and change nothing."""
    undisturbed = vector_rollout(subject.make(), seed=subject.seed)
    env = subject.make()
    player = VectorPlayer(env, subject.seed)
    rows = [player.reset(seed=subject.seed)]
    good = subject.distinct_tasks(N_ENVS)
    set_tasks = attribute(env, "set_tasks")
    for bad in bad_tasks(env):
        tasks = [*good[:-1], bad]
        must_refuse(partial(set_tasks, tasks), f"set_tasks([..., {bad!r}])")
        reset = partial(env.reset, options={"tasks": tasks})
        must_refuse(reset, f'reset(options={{"tasks": [..., {bad!r}]}})')
    must_refuse(partial(set_tasks, good[:-1]), "set_tasks with a task too few")
    must_refuse(partial(set_tasks, good[:1], indices=[N_ENVS]), f"set_tasks(indices=[{N_ENVS}])")
    must_refuse(partial(env.reset, options={"tasks": good[:-1]}), "reset with a task too few")
    require_same_rows(undisturbed, [*rows, *player.play(40)], "refused tasks left a trace")


def _require_same_ends(expected: VectorStep, row: VectorStep, rows: list[int]) -> None:
    for name in ("rewards", "terminations", "truncations"):
        pair = getattr(expected, name)[rows], getattr(row, name)[rows]
        require(is_same(*pair), f"set_tasks changed running episodes: {name} {pair[0]}, {pair[1]}")


def _began(env: AnyVectorEnv, before: VectorStep, step: VectorStep) -> np.ndarray:
    mode = env.metadata["autoreset_mode"]
    if mode == AutoresetMode.SAME_STEP:
        return step.dones
    return before.dones if mode == AutoresetMode.NEXT_STEP else np.zeros(N_ENVS, dtype=np.bool_)


def _streams_of_tasks(subject: VectorSubject, env: AnyVectorEnv) -> list[list[Task]]:
    """Tasks that each sub-environment meets over two or more episodes."""
    player = VectorPlayer(env, subject.seed)
    before = player.reset(seed=subject.seed)
    disabled = env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    streams = [[task] for task in attribute(env, "get_tasks")()]
    for _ in range(subject.n_steps_of_two_episodes):
        step = player.step()
        tasks = attribute(env, "get_tasks")()
        began = before.dones if disabled else _began(env, before, step)
        for row in np.flatnonzero(began):
            streams[row].append(tasks[row])
        before = step
    for stream, task in zip(streams, _tasks_of_reset(env), strict=True):
        stream.append(task)
    return streams


def _tasks_of_reset(env: AnyVectorEnv, seed: int | None = None) -> list[Task]:
    env.reset(seed=seed)
    return attribute(env, "get_tasks")()


def _varies(tasks: list[Task]) -> bool:
    """Whether the tasks are more than one per sub-environment over the resets."""
    rows = [tasks[row::N_ENVS] for row in range(N_ENVS)]
    return all(count_distinct(row) > 1 for row in rows)
