"""Checks of vector envs: the laws, and equality with the single env bit for bit."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from metarl_envs.checks.door import bad_actions, bad_tasks, must_refuse
from metarl_envs.checks.subject import (
    NotApplicableError,
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
    as_sync,
    info_of,
    n_steps_of_two_episodes,
    pick,
    require_same_rows,
    vector_rollout,
)
from metarl_envs.core import Task

_INTERFACE = ("task_distribution", "sample_tasks", "set_tasks", "get_tasks")


def vector_env_has_the_task_interface(subject: VectorSubject) -> None:
    """``task_distribution``, ``sample_tasks``, ``set_tasks``, ``get_tasks`` are there."""
    env = subject.make()
    for name in _INTERFACE:
        require(hasattr(env, name), f"{env} has no {name}")
    env.reset(seed=subject.seed)
    tasks = attribute(env, "get_tasks")()
    require(isinstance(tasks, list) and len(tasks) == N_ENVS, f"get_tasks() returned {tasks!r}")


def autoreset_mode_is_explicit(subject: VectorSubject) -> None:
    """``metadata["autoreset_mode"]`` is an ``AutoresetMode``."""
    mode = subject.make().metadata.get("autoreset_mode")
    require(isinstance(mode, AutoresetMode), f'metadata["autoreset_mode"] is {mode!r}')


def spaces_are_batched(subject: VectorSubject) -> None:
    """The spaces are those of one sub-environment, ``num_envs`` times; observations lie in them."""
    env = subject.make()
    for name in ("observation_space", "action_space"):
        single = getattr(env, f"single_{name}")
        require(getattr(env, name) == batch_space(single, N_ENVS), f"{name} is no batch of single")
    for index, step in enumerate(vector_rollout(env, seed=subject.seed)):
        inside = env.observation_space.contains(step.observations)
        require(inside, f"observations of step {index} are outside the space")


def results_are_arrays(subject: VectorSubject) -> None:
    """Rewards are float64 (B,), flags bool (B,); infos are arrays or dicts of arrays."""
    env = subject.make()
    for step in vector_rollout(env, seed=subject.seed)[1:]:
        for name, dtype in (("rewards", float), ("terminations", bool), ("truncations", bool)):
            value = getattr(step, name)
            fits = isinstance(value, np.ndarray) and value.shape == (N_ENVS,)
            require(fits and value.dtype == dtype, f"{name} is {value!r}, not {dtype} (num_envs,)")
        _require_arrays(step.infos, "infos")


def results_are_not_overwritten(subject: VectorSubject) -> None:
    """What a call returned stays as it is during later calls."""
    env = subject.make()
    actions = VectorPlayer(env, subject.seed)
    actions.reset(seed=subject.seed)
    kept: list[Any] = [env.reset(seed=subject.seed)]
    copies = copy.deepcopy(kept)
    # Blind actions, and one episode at most: the player itself keeps copies only.
    for _ in range(12):
        kept.append(env.step(actions.actions()))
        copies.append(copy.deepcopy(kept[-1]))
        actions.masks = [info_of(copies[-1][-1], row).get("action_mask") for row in range(N_ENVS)]
        disabled = env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
        if disabled and VectorStep(*copies[-1]).dones.any():
            break
    for index, (row, original) in enumerate(zip(kept, copies, strict=True)):
        require(is_same(row, original), f"the result of call {index} changed afterwards")


def infos_name_the_tasks(subject: VectorSubject) -> None:
    """``task_id`` is an int64 array at every step; ``task`` is there where an episode begins."""
    env = subject.make()
    player = VectorPlayer(env, subject.seed)
    step = player.reset(seed=subject.seed)
    began = np.ones(N_ENVS, dtype=np.bool_)
    ids: dict[int, Task] = {}
    for index in range(40):
        found = step.infos.get("task_id")
        require(isinstance(found, np.ndarray), f'infos["task_id"] is {found!r} at step {index}')
        require(found.dtype == np.int64, f'infos["task_id"] has dtype {found.dtype}')
        for row, task in enumerate(attribute(env, "get_tasks")()):
            known = ids.setdefault(int(found[row]), task)
            require(same_task(known, task), f"{known} and {task} share the task_id {found[row]}")
            named = info_of(step.infos, row).get("task")
            require((named is not None) == began[row], f'infos["task"][{row}] at step {index}')
            require(named is None or same_task(named, task), f'infos["task"][{row}] is {named}')
        before = step
        step = player.step()
        began = _began(env, before, step)


def vector_env_equals_single_envs(subject: VectorSubject) -> None:
    """Bit for bit what Gymnasium's ``SyncVectorEnv`` of the single env gives, final infos too."""
    env = subject.make()
    n_steps = n_steps_of_two_episodes(subject)
    sync = as_sync(subject, env.metadata["autoreset_mode"])
    for seed in (subject.seed, subject.seed + 100):
        ours = vector_rollout(env, seed=seed, n_steps=n_steps)
        theirs = vector_rollout(sync, seed=seed, n_steps=n_steps)
        require_same_rows(ours, theirs, "the vector env differs from single envs")
    sync.close()


def same_seed_gives_the_same_rollout(subject: VectorSubject) -> None:
    """Two fresh envs agree under one seed; ``seed=s`` is ``seed=[s, s + 1, ...]``."""
    first = vector_rollout(subject.make(), seed=subject.seed)
    again = vector_rollout(subject.make(), seed=subject.seed)
    require_same_rows(first, again, "one seed gave two rollouts")
    player = VectorPlayer(subject.make(), subject.seed)
    rows = [player.reset(seed=[subject.seed + index for index in range(N_ENVS)])]
    require_same_rows(first, [*rows, *player.play(40)], "a list of seeds differs from seed=s")


def sub_environments_are_independent(subject: VectorSubject) -> None:
    """What happens in one sub-environment changes nothing in the others."""
    undisturbed = vector_rollout(subject.make(), seed=subject.seed)
    env = subject.make()
    attribute(env, "set_tasks")(subject.distinct_tasks(1), indices=[0])
    player = VectorPlayer(env, subject.seed)
    player.spaces[0].seed(subject.seed + 1000)
    rows = [player.reset(seed=subject.seed), *player.play(40)]
    others = range(1, N_ENVS)
    require_same_rows(undisturbed, rows, "another task and other actions in env 0", others)


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
        for first, second in zip(streams, streams[1:], strict=False):
            require(not all(map(same_task, first, second)), "two sub-environments share tasks")
        met = [task for stream in streams for task in stream]
        if subject.is_continuous:
            n_distinct = count_distinct(met)
            require(n_distinct == len(met), f"{len(met)} episodes met only {n_distinct} tasks")


def autoresets_draw_new_tasks(subject: VectorSubject) -> None:
    """An episode that begins by itself has a new task; ``task_mode="fixed"`` keeps the first."""
    streams = _streams_of_tasks(subject, subject.make())
    for stream in streams:
        if subject.is_continuous:
            require(count_distinct(stream) == len(stream), f"autoresets repeat tasks: {stream}")
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
    env = subject.make()
    player = VectorPlayer(env, subject.seed)
    row = player.reset(seed=subject.seed)
    running = attribute(env, "get_tasks")()
    attribute(env, "set_tasks")(subject.distinct_tasks(N_ENVS))
    require(all(map(same_task, attribute(env, "get_tasks")(), running)), "get_tasks() changed")
    undisturbed = vector_rollout(subject.make(), seed=subject.seed)
    alive = np.ones(N_ENVS, dtype=np.bool_)
    for expected in undisturbed[:-1]:
        rows = np.flatnonzero(alive).tolist()
        require_same_rows([expected], [row], "set_tasks changed running episodes", rows)
        row = player.step()
        alive &= ~row.dones


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


def final_observations_are_kept(subject: VectorSubject) -> None:
    """In ``SAME_STEP`` mode ``final_obs`` and ``final_info`` are there where an episode ended."""
    env = subject.make()
    if env.metadata["autoreset_mode"] != AutoresetMode.SAME_STEP:
        raise NotApplicableError("not in SAME_STEP mode")
    n_steps = n_steps_of_two_episodes(subject)
    n_ended = 0
    for step in vector_rollout(env, seed=subject.seed, n_steps=n_steps)[1:]:
        for name in ("final_obs", "final_info"):
            present = step.infos.get(f"_{name}", np.zeros(N_ENVS, bool))
            require(np.array_equal(present, step.dones), f"_{name} is {present} at {step.dones}")
        for row in np.flatnonzero(step.dones):
            n_ended += 1
            final = step.infos["final_obs"][row]
            inside = env.single_observation_space.contains(final)
            require(inside, f"final_obs[{row}] is {final}, no observation of the space")
    require(n_ended > 0, f"no episode ended within {n_steps} steps")


def partial_resets_leave_the_others_alone(subject: VectorSubject) -> None:
    """``options={"reset_mask": mask}`` begins new episodes there and touches nothing else."""
    undisturbed = vector_rollout(subject.make(), seed=subject.seed)
    env = subject.make()
    player = VectorPlayer(env, subject.seed)
    rows = [player.reset(seed=subject.seed), player.step()]
    before = attribute(env, "get_tasks")()
    mask = np.array([True, False] * (N_ENVS // 2))
    observations = player.reset(options={"reset_mask": mask.copy()}).observations
    others = np.flatnonzero(~mask).tolist()
    same = is_same(pick(observations, others), pick(rows[-1].observations, others))
    require(same, "a partial reset changed other observations")
    after = attribute(env, "get_tasks")()
    require(all(same_task(after[row], before[row]) for row in others), "it changed other tasks")
    rows += player.play(39)
    require_same_rows(undisturbed, rows, "a partial reset changed other envs", others)


def vector_env_pickled_in_mid_episode_continues(subject: VectorSubject) -> None:
    """``pickle`` keeps tasks, pins, states and generators: the copy goes on identically."""
    env = subject.make()
    attribute(env, "set_tasks")(subject.distinct_tasks(1), indices=[1])
    player = VectorPlayer(env, subject.seed)
    player.reset(seed=subject.seed)
    player.play(2)
    twin: VectorPlayer = pickle.loads(pickle.dumps(player))  # noqa: S301 - made on this line
    n_steps = n_steps_of_two_episodes(subject)
    require_same_rows(player.play(n_steps), twin.play(n_steps), "the unpickled env differs")
    require_same_rows([player.reset()], [twin.reset()], "the unpickled env resets differently")
    twin.env.close()


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
        must_refuse(lambda tasks=tasks: set_tasks(tasks), f"set_tasks([..., {bad!r}])")
        must_refuse(
            lambda tasks=tasks: env.reset(options={"tasks": tasks}),
            f'reset(options={{"tasks": [..., {bad!r}]}})',
        )
    must_refuse(lambda: set_tasks(good[:-1]), "set_tasks with a task too few")
    must_refuse(lambda: set_tasks(good[:1], indices=[N_ENVS]), f"set_tasks(indices=[{N_ENVS}])")
    must_refuse(lambda: env.reset(options={"tasks": good[:-1]}), "reset with a task too few")
    require_same_rows(undisturbed, [*rows, *player.play(40)], "refused tasks left a trace")


def bad_actions_are_refused(subject: VectorSubject) -> None:
    """One bad action among good ones raises ``ValueError``; no sub-environment moves."""
    undisturbed = vector_rollout(subject.make(), seed=subject.seed)
    env = subject.make()
    player = VectorPlayer(env, subject.seed)
    rows = [player.reset(seed=subject.seed)]
    space = env.single_action_space
    good = [np.asarray(action) for action in copy.deepcopy(env.action_space).sample()]
    for bad in bad_actions(space):
        if np.shape(bad) == good[0].shape:
            actions = np.stack([*good[:-1], np.asarray(bad)])
            must_refuse(lambda actions=actions: env.step(actions), f"step({actions})", ValueError)
    few = np.stack(good[:-1])
    must_refuse(lambda: env.step(few), "step with an action too few", ValueError)
    require_same_rows(undisturbed, [*rows, *player.play(40)], "refused actions left a trace")


def global_generators_are_left_alone(subject: VectorSubject) -> None:
    """``np.random`` and ``random`` are neither read nor seeded."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    env = subject.make()
    env.reset()
    attribute(env, "sample_tasks")(4)
    vector_rollout(env, seed=subject.seed)
    after = np.random.get_state()
    same = numpy_state[2] == after[2] and np.array_equal(numpy_state[1], after[1])
    require(same, "np.random was used or seeded; use the env's own generators")
    require(python_state == random.getstate(), "the module random was used or seeded")


def vector_spec_survives_json(subject: VectorSubject) -> None:
    """``spec.to_json()`` works and makes an env of the same rollouts."""
    env = subject.make()
    if env.spec is None:
        raise NotApplicableError("the env has no spec")
    try:
        text = env.spec.to_json()
    except (TypeError, ValueError) as error:
        require(False, f"spec.to_json() fails: {error}")
    twin = gym.make_vec(gym.envs.registration.EnvSpec.from_json(text))
    rows = (vector_rollout(each, seed=subject.seed) for each in (env, twin))
    require_same_rows(*rows, "an env made from spec.to_json() differs")
    twin.close()


def _require_arrays(infos: dict[str, Any], name: str) -> None:
    for key, value in infos.items():
        if isinstance(value, dict):
            _require_arrays(value, f"{name}[{key!r}]")
            continue
        fits = isinstance(value, np.ndarray) and len(value) == N_ENVS
        require(fits, f"{name}[{key!r}] is {value!r}, not an array of num_envs rows")


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
    for _ in range(n_steps_of_two_episodes(subject)):
        step = player.step()
        tasks = attribute(env, "get_tasks")()
        began = before.dones if disabled else _began(env, before, step)
        for row in np.flatnonzero(began):
            streams[row].append(tasks[row])
        before = step
    for row, task in enumerate(_tasks_of_reset(env)):
        streams[row].append(task)
    return streams


def _tasks_of_reset(env: AnyVectorEnv, seed: int | None = None) -> list[Task]:
    env.reset(seed=seed)
    return attribute(env, "get_tasks")()


def _varies(tasks: list[Task]) -> bool:
    """Whether the tasks are more than one per sub-environment over the resets."""
    rows = [tasks[row::N_ENVS] for row in range(N_ENVS)]
    return all(count_distinct(row) > 1 for row in rows)
