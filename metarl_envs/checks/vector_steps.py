"""Checks of what vector envs return: bit for bit what single envs do."""

from __future__ import annotations

import copy
import pickle
import random
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from metarl_envs.checks.door import bad_actions, must_refuse
from metarl_envs.checks.subject import (
    NotApplicableError,
    attribute,
    is_same,
    numpy_global_state,
    require,
    same_task,
)
from metarl_envs.checks.vector_subject import (
    N_ENVS,
    VectorPlayer,
    VectorStep,
    VectorSubject,
    as_sync,
    info_of,
    pick,
    require_same_rows,
    vector_rollout,
    without_new_tasks,
)

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
    disabled = env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    player = VectorPlayer(env, subject.seed)
    player.reset(seed=subject.seed)
    kept: list[Any] = [env.reset(seed=subject.seed)]
    copies = copy.deepcopy(kept)
    # Not player.step(), which returns copies: what the env itself returned is looked at.
    for _ in range(12):
        kept.append(env.step(player.actions()))
        copies.append(copy.deepcopy(kept[-1]))
        player.masks = [info_of(copies[-1][-1], row).get("action_mask") for row in range(N_ENVS)]
        if disabled and VectorStep(*copies[-1]).dones.any():
            break
    for index, (row, original) in enumerate(zip(kept, copies, strict=True)):
        require(is_same(row, original), f"the result of call {index} changed afterwards")


def vector_env_equals_single_envs(subject: VectorSubject) -> None:
    """Bit for bit what Gymnasium's ``SyncVectorEnv`` of the single env gives, final infos too.

    But for ``infos["task"]`` of the episodes that autoresets begin.
    """
    env = subject.make()
    # Long enough to empty buffers of random numbers that a batched env may keep.
    n_steps = max(subject.n_steps_of_two_episodes, 150)
    sync = as_sync(subject, env.metadata["autoreset_mode"])
    for seed in (subject.seed, subject.seed + 100):
        ours, theirs = (
            without_new_tasks(vector_rollout(each, seed=seed, n_steps=n_steps))
            for each in (env, sync)
        )
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


def final_observations_are_kept(subject: VectorSubject) -> None:
    """In ``SAME_STEP`` mode ``final_obs`` and ``final_info`` are there where an episode ended."""
    env = subject.make()
    if env.metadata["autoreset_mode"] != AutoresetMode.SAME_STEP:
        raise NotApplicableError("not in SAME_STEP mode")
    n_steps = subject.n_steps_of_two_episodes
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
    options = {"reset_mask": mask.copy()}
    observations = player.reset(seed=subject.seed + 100, options=options).observations
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
    n_steps = subject.n_steps_of_two_episodes
    require_same_rows(player.play(n_steps), twin.play(n_steps), "the unpickled env differs")
    require_same_rows([player.reset()], [twin.reset()], "the unpickled env resets differently")
    twin.env.close()


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
            must_refuse(partial(env.step, actions), f"step({actions})", ValueError)
    few = np.stack(good[:-1])
    must_refuse(partial(env.step, few), "step with an action too few", ValueError)
    require_same_rows(undisturbed, [*rows, *player.play(40)], "refused actions left a trace")


def global_generators_are_left_alone(subject: VectorSubject) -> None:
    """``np.random`` and ``random`` are neither read nor seeded."""
    numpy_state, python_state = numpy_global_state(), random.getstate()
    env = subject.make()
    env.reset()
    attribute(env, "sample_tasks")(4)
    vector_rollout(env, seed=subject.seed)
    require(
        numpy_state == numpy_global_state(),
        "np.random was used or seeded; use the env's own generators",
    )
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
    first, second = (vector_rollout(each, seed=subject.seed) for each in (env, twin))
    require_same_rows(first, second, "an env made from spec.to_json() differs")
    twin.close()


def _require_arrays(infos: dict[str, Any], name: str) -> None:
    for key, value in infos.items():
        if isinstance(value, dict):
            _require_arrays(value, f"{name}[{key!r}]")
            continue
        fits = isinstance(value, np.ndarray) and len(value) == N_ENVS
        require(fits, f"{name}[{key!r}] is {value!r}, not an array of num_envs rows")
