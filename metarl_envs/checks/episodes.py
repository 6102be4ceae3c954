"""Checks of the episodes of a single env: laws 1, 2, 3, 6, 7, 8 and 10."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np

from metarl_envs.checks.subject import (
    AnyEnv,
    NotApplicableError,
    OptimalPlayer,
    Player,
    Step,
    Subject,
    attribute,
    count_distinct,
    has_wrapper,
    is_same,
    require,
    require_same,
    rollout,
    same_task,
)
from metarl_envs.core import Task

_LONG = 2000
"""Steps after which a check stops waiting for the end of an episode."""


def every_reset_draws_a_new_task(subject: Subject) -> None:
    """Resets draw new tasks: all different in continuous families."""
    subject.distinct_tasks(2)
    env = subject.make()
    n_resets = 8 if subject.is_continuous else 32
    seeds = [subject.seed] + [None] * (n_resets - 1)
    met = [_task_of_reset(env, seed) for seed in seeds]
    least = n_resets if subject.is_continuous else 2
    require(count_distinct(met) >= least, f"{n_resets} resets met {count_distinct(met)} tasks")


def fixed_mode_keeps_the_first_task(subject: Subject) -> None:
    """An env made with ``task_mode="fixed"`` meets one task only."""
    env = subject.make(task_mode="fixed")
    if has_wrapper(env, "ResampleTask"):
        raise NotApplicableError("ResampleTask resamples on purpose")
    tasks = [_task_of_reset(env, subject.seed)] + [_task_of_reset(env) for _ in range(8)]
    require(count_distinct(tasks) == 1, f'task_mode="fixed" met {count_distinct(tasks)} tasks')


def set_task_pins_until_none(subject: Subject) -> None:
    """``set_task(t)`` holds through every reset, seeded or not; ``set_task(None)`` ends it."""
    env = subject.make()
    for task in subject.distinct_tasks(2):
        attribute(env, "set_task")(task)
        for seed in (None, subject.seed, None, subject.seed + 1, None):
            met = _task_of_reset(env, seed)
            require(same_task(met, task), f"pinned {task}, but reset(seed={seed}) met {met}")
            Player(env, subject.seed).step()
    attribute(env, "set_task")(None)
    met_tasks = [_task_of_reset(env) for _ in range(16)]
    require(count_distinct(met_tasks) > 1, "set_task(None) does not unpin")


def set_task_waits_for_the_next_reset(subject: Subject) -> None:
    """A task pinned during an episode leaves that episode alone."""
    for first, second, seed in _telling_pairs(subject):
        undisturbed = rollout(subject.make(), seed=seed, task=first)
        env = subject.make()
        player = Player(env, seed)
        rows = [player.reset(seed=seed, task=first)]
        attribute(env, "set_task")(second)
        task = attribute(env, "get_task")()
        require(same_task(task, first), f"get_task() is {task} before the reset, not {first}")
        rows += player.play(50)
        require_same(undisturbed, rows, "set_task changed the running episode")
        met = _task_of_reset(env)
        require(same_task(met, second), f"pinned {second}, but the next reset met {met}")


def reset_option_sets_one_episode(subject: Subject) -> None:
    """``reset(options={"task": t})`` is for that episode; the pin or the draw then returns."""
    env = subject.make()
    pinned, chosen = subject.distinct_tasks(2)
    options = {"task": chosen}
    env.reset(seed=subject.seed, options=options)
    require(options == {"task": chosen}, f"reset changed the options to {options}")
    met = attribute(env, "get_task")()
    require(same_task(met, chosen), f"options asked for {chosen}, the episode has {met}")
    later = [_task_of_reset(env) for _ in range(16)]
    require(any(not same_task(task, chosen) for task in later), "the option outlived its episode")
    attribute(env, "set_task")(pinned)
    env.reset(options={"task": chosen})
    met = attribute(env, "get_task")()
    require(same_task(met, chosen), f"with a pin, options asked for {chosen} and got {met}")
    met = _task_of_reset(env)
    require(same_task(met, pinned), f"after the option the pin {pinned} is gone: {met}")


def same_seed_and_task_give_the_same_rollout(subject: Subject) -> None:
    """Drawn, pinned or set for one episode: one task under one seed is one rollout."""
    env = subject.make()
    for seed in range(subject.seed, subject.seed + 3):
        drawn = rollout(env, seed=seed)
        task = attribute(env, "get_task")()
        require_same(drawn, rollout(subject.make(), seed=seed), "one seed gave two rollouts")
        optional = rollout(subject.make(), seed=seed, task=task)
        require_same(drawn, optional, "a drawn task and reset(options) differ")
        pinned = subject.make()
        attribute(pinned, "set_task")(task)
        require_same(drawn, rollout(pinned, seed=seed), "a drawn and a pinned task differ")


def drawing_tasks_takes_nothing_from_the_dynamics(subject: Subject) -> None:
    """The second episode does not depend on how the first got its task, nor on sample_tasks."""
    env = subject.make()
    first = _two_episodes(env, subject, None, sample=False)
    task = first.task
    pinned = subject.make()
    attribute(pinned, "set_task")(task)
    others = {
        "a pinned task": _two_episodes(pinned, subject, task, sample=False),
        "reset(options)": _two_episodes(subject.make(), subject, task, sample=False),
        "calls of sample_tasks": _two_episodes(subject.make(), subject, None, sample=True),
    }
    for name, other in others.items():
        require_same(first.rows, other.rows, f"{name} changed the stream of the dynamics")


def seeds_decide_the_tasks(subject: Subject) -> None:
    """Equal seeds meet equal tasks; other seeds, unseeded envs and parallel envs do not."""
    subject.distinct_tasks(2)
    streams = [_met_tasks(subject, subject.seed + index) for index in range(8)]
    again = _met_tasks(subject, subject.seed)
    require(all(map(same_task, streams[0], again)), "one seed met two sequences of tasks")
    streams += [_met_tasks(subject, None) for _ in range(2)]
    others = [not all(map(same_task, streams[0], stream)) for stream in streams[1:]]
    require(any(others), f"{len(streams)} envs of different seeds met the same tasks")
    if subject.is_continuous:
        met = [task for stream in streams for task in stream]
        n_distinct = count_distinct(met)
        require(n_distinct == len(met), f"{len(met)} resets met only {n_distinct} tasks")


def env_pickled_in_mid_episode_continues(subject: Subject) -> None:
    """``pickle`` keeps task, pin, state and generators: the copy goes on identically."""
    for pin in (False, True):
        env = subject.make()
        if pin:
            attribute(env, "set_task")(subject.distinct_tasks(1)[0])
        player = Player(env, subject.seed)
        player.reset(seed=subject.seed)
        player.play(2)
        twin: Player = pickle.loads(pickle.dumps(player))  # noqa: S301 - made on this line
        require(
            same_task(attribute(twin.env, "get_task")(), attribute(env, "get_task")()),
            "the unpickled env has another task",
        )
        for episode in range(3):
            rows, copied = player.play(50), twin.play(50)
            require_same(rows, copied, f"the unpickled env differs in episode {episode}")
            require_same([player.reset()], [twin.reset()], "the unpickled env resets differently")
        twin.env.close()


def observations_lie_in_the_space(subject: Subject) -> None:
    """Every observation of several episodes lies in ``observation_space``; rewards are finite."""
    env = subject.make()
    for seed in range(subject.seed, subject.seed + 5):
        for index, row in enumerate(rollout(env, seed=seed, n_steps=200)):
            inside = env.observation_space.contains(row.observation)
            require(inside, f"observation {row.observation} of step {index} is outside the space")
            require(np.isfinite(row.reward), f"reward {row.reward} of step {index} is not finite")


def different_tasks_differ(subject: Subject) -> None:
    """Two different tasks differ in a reward or a transition on some seeded rollout.

    Random actions may never come near to what is rare, so envs with ``optimal_action(task,
    observation)`` are also played by it.
    """
    tasks = subject.distinct_tasks(3)
    env = subject.make()
    seeds = range(subject.seed, subject.seed + 30)
    for index, task in enumerate(tasks):
        for other in tasks[:index]:
            require(
                any(_differ(env, task, other, seed) for seed in seeds)
                or _differ_under_optimal_play(env, task, other, subject.seed),
                f"{task} and {other} behave alike in 30 rollouts",
            )


def spec_survives_json(subject: Subject) -> None:
    """``spec.to_json()`` works (string entry points) and makes an env of the same rollouts."""
    env = subject.make()
    spec = env.spec
    if spec is None:
        raise NotApplicableError("the env has no spec")
    for name in ("entry_point", "vector_entry_point"):
        value = getattr(spec, name)
        require(not callable(value), f"spec.{name} is {value}; register it as a string")
    try:
        text = spec.to_json()
    except (TypeError, ValueError) as error:
        require(False, f"spec.to_json() fails: {error}")
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(text))
    rows = rollout(env, seed=subject.seed), rollout(twin, seed=subject.seed)
    twin.close()
    require_same(*rows, "an env made from spec.to_json() differs")


def terminated_and_truncated_are_kept_apart(subject: Subject) -> None:
    """An episode ends as ``terminated`` by its own rules, as ``truncated`` by a time limit.

    Both at once are accepted only in the very step of the time limit. Where the spec names a time
    limit, it is moved: what ended by it alone must have been ``truncated``, not ``terminated``.
    A limit hidden inside the env, which no argument moves, cannot be told from a rule.
    """
    env = subject.make()
    limit = env.spec.max_episode_steps if env.spec is not None else None
    for seed in range(subject.seed, subject.seed + 5):
        rows = rollout(env, seed=seed, n_steps=_LONG)
        for row in rows[1:]:
            flags = (row.terminated, row.truncated)
            booleans = all(isinstance(flag, bool | np.bool_) for flag in flags)
            require(booleans, f"terminated, truncated are {flags}, not booleans")
        both = rows[-1].terminated and rows[-1].truncated
        at_limit = len(rows) - 1 == limit
        require(at_limit or not both, "an episode ended as terminated and truncated at once")
        if rows[-1].done and limit is not None and not has_wrapper(env, "Trial"):
            _move_the_time_limit(subject, seed, rows, limit)


def infos_name_the_task(subject: Subject) -> None:
    """``info["task_id"]`` is an int at every step; ``info["task"]`` is there at resets only."""
    env = subject.make()
    ids: dict[int, Task] = {}
    for task in subject.distinct_tasks(4):
        player = Player(env, subject.seed)
        rows = [player.reset(seed=subject.seed, task=task), *player.play(50)]
        named = rows[0].info.get("task")
        require(named is not None and same_task(named, task), f'info["task"] at reset is {named}')
        extra = [index for index, row in enumerate(rows) if index and "task" in row.info]
        require(not extra, f'info["task"] is there at steps {extra[:3]}, not only at the reset')
        found: list[Any] = [row.info.get("task_id") for row in rows]
        integers = all(isinstance(item, int | np.integer) for item in found)
        require(integers, f'info["task_id"] is {found[:3]}, not an int at every step')
        require(len(set(found)) == 1, f'info["task_id"] changes during an episode: {found[:3]}')
        require(found[0] not in ids, f"{task} and {ids.get(found[0])} share the task_id {found[0]}")
        ids[found[0]] = task


class _Episodes:
    """Two episodes of one task, and the task."""

    def __init__(self, task: Task, rows: list[Step]) -> None:
        self.task = task
        self.rows = rows


def _two_episodes(env: AnyEnv, subject: Subject, task: Task | None, *, sample: bool) -> _Episodes:
    player = Player(env, subject.seed)
    rows = [player.reset(seed=subject.seed, task=task)]
    if sample:
        attribute(env, "sample_tasks")(5)
    rows += player.play(50)
    task = attribute(env, "get_task")()
    if sample:
        attribute(env, "sample_tasks")(5)
    rows += [player.reset(task=task), *player.play(50)]
    return _Episodes(task, rows)


def _move_the_time_limit(subject: Subject, seed: int, rows: list[Step], limit: int) -> None:
    length = len(rows) - 1
    if length == limit:
        longer = rollout(subject.make(max_episode_steps=limit + 1), seed=seed, n_steps=length)[-1]
        ended = (rows[-1].terminated, rows[-1].truncated)
        by_limit = (longer.terminated, True)
        require(ended == by_limit, f"the time limit ended an episode as {ended}, not {by_limit}")
    if length >= 2:
        shorter = rollout(subject.make(max_episode_steps=length - 1), seed=seed, n_steps=length)
        ended = (shorter[-1].terminated, shorter[-1].truncated)
        cut = len(shorter) == length and ended == (False, True)
        require(cut, f"a time limit ended an episode as {ended} at step {len(shorter) - 1}")


def _telling_pairs(subject: Subject, n_pairs: int = 3) -> list[tuple[Task, Task, int]]:
    """Pairs of tasks and a seed under which they differ after the reset, as far as there are."""
    tasks, env = subject.distinct_tasks(8), subject.make()
    pairs: list[tuple[Task, Task, int]] = []
    for seed in range(subject.seed, subject.seed + 30):
        played = [rollout(env, seed=seed, task=task)[1:] for task in tasks]
        others = [i for i, rows in enumerate(played) if not _agree(played[0], rows)]
        pairs += [(tasks[0], tasks[i], seed) for i in others[:1]]
        if len(pairs) >= n_pairs:
            break
    return pairs or [(tasks[0], tasks[1], subject.seed)]


def _agree(first: list[Step], second: list[Step]) -> bool:
    """Whether two rollouts have the same observations, rewards and ends."""
    if len(first) != len(second):
        return False
    return all(is_same(left[:4], right[:4]) for left, right in zip(first, second, strict=True))


def _differ(env: AnyEnv, task: Task, other: Task, seed: int) -> bool:
    first, second = (rollout(env, seed=seed, task=each, n_steps=200) for each in (task, other))
    return not _agree(first, second)


def _differ_under_optimal_play(env: AnyEnv, task: Task, other: Task, seed: int) -> bool:
    """Whether the tasks differ while the optimal actions of one of them are played in both."""
    if not env.has_wrapper_attr("optimal_action"):
        return False
    for known in (task, other):
        players = [OptimalPlayer(env, seed, known) for _ in range(2)]
        first, second = (
            [player.reset(seed=seed, task=each), *player.play(200)]
            for player, each in zip(players, (task, other), strict=True)
        )
        if not _agree(first, second):
            return True
    return False


def _met_tasks(subject: Subject, seed: int | None) -> list[Task]:
    # Long enough that two streams of a family of two tasks agree by chance once in 2^32 times.
    env, n_resets = subject.make(), 8 if subject.is_continuous else 32
    return [_task_of_reset(env, seed if index == 0 else None) for index in range(n_resets)]


def _task_of_reset(env: AnyEnv, seed: int | None = None) -> Task:
    env.reset(seed=seed)
    return attribute(env, "get_task")()
