"""Contract tests for task environments: import them and run them on your own env.

>>> from metarl_envs import check_task_env
>>> names = check_task_env("metarl/RecommendationSmall-v0")

Each check is a function in :data:`TASK_ENV_CHECKS` or :data:`TASK_VECTOR_ENV_CHECKS`, under a name
that states the fact. They need fresh copies of the env, so they take an id, an env whose ``spec``
makes copies, or a callable. The ten laws that they enforce are:

1. an env draws a new task at every reset; ``task_mode="fixed"`` keeps the first;
2. ``set_task(t)`` pins ``t`` through all resets until ``set_task(None)``, and
   ``reset(options={"task": t})`` sets it for one episode;
3. same task and same seed, same rollout; drawing a task takes nothing from the dynamics;
4. tasks are frozen, hashable, picklable, comparable, JSON-able; the env survives ``pickle``;
5. neither the observation nor ``info`` (but for law 10) reveals the task;
6. different tasks differ in rewards or transitions;
7. ``spec.to_json()`` works;
8. ``terminated`` and ``truncated`` are never mixed up;
9. tasks and actions that are not finite or not in their space raise ``ValueError``;
10. ``info["task_id"]`` always, ``info["task"]`` at resets only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from metarl_envs.checks import (
    door,
    episodes,
    families,
    secrecy,
    tasks,
    values,
    vector_steps,
    vector_tasks,
)
from metarl_envs.checks.subject import AnyEnv, NotApplicableError, Subject, TaskEnvError
from metarl_envs.checks.vector_subject import VectorSubject

__all__ = [
    "TASK_ENV_CHECKS",
    "TASK_VECTOR_ENV_CHECKS",
    "TaskEnvError",
    "check_task_env",
    "check_task_vector_env",
]

AnySubject = TypeVar("AnySubject", Subject, VectorSubject)


def _named(*checks: Callable[[AnySubject], None]) -> Mapping[str, Callable[[AnySubject], None]]:
    return MappingProxyType({check.__name__: check for check in checks})


TASK_ENV_CHECKS: Mapping[str, Callable[[Subject], None]] = _named(
    tasks.env_has_the_task_interface,
    tasks.task_arrays_lie_in_the_space,
    tasks.tasks_survive_arrays_and_json,
    tasks.tasks_are_frozen,
    tasks.tasks_are_hashable_and_comparable,
    tasks.tasks_survive_pickle_and_copy,
    tasks.sample_tasks_follows_its_seed,
    tasks.train_and_test_tasks_are_disjoint,
    tasks.global_generators_are_left_alone,
    episodes.every_reset_draws_a_new_task,
    episodes.fixed_mode_keeps_the_first_task,
    episodes.set_task_pins_until_none,
    episodes.set_task_waits_for_the_next_reset,
    episodes.reset_option_sets_one_episode,
    episodes.same_seed_and_task_give_the_same_rollout,
    episodes.drawing_tasks_takes_nothing_from_the_dynamics,
    episodes.seeds_decide_the_tasks,
    episodes.env_pickled_in_mid_episode_continues,
    episodes.observations_lie_in_the_space,
    secrecy.first_observations_do_not_reveal_the_task,
    secrecy.infos_do_not_reveal_the_task,
    episodes.different_tasks_differ,
    episodes.spec_survives_json,
    episodes.terminated_and_truncated_are_kept_apart,
    episodes.infos_name_the_task,
    door.bad_tasks_are_refused,
    door.bad_task_arrays_are_refused,
    door.bad_actions_are_refused,
    door.features_are_pure_and_complete,
    door.action_masks_agree_with_infos,
    values.optimal_return_bounds_random_play,
    values.optimal_return_agrees_with_optimal_returns,
    values.policy_returns_agree_with_random_play,
)
"""Name -> check of a single env."""

TASK_VECTOR_ENV_CHECKS: Mapping[str, Callable[[VectorSubject], None]] = _named(
    vector_steps.vector_env_has_the_task_interface,
    families.family_methods_are_batched_and_pure,
    vector_steps.autoreset_mode_is_explicit,
    vector_steps.spaces_are_batched,
    vector_steps.results_are_arrays,
    vector_steps.results_are_not_overwritten,
    vector_tasks.infos_name_the_tasks,
    vector_steps.vector_env_equals_single_envs,
    vector_steps.same_seed_gives_the_same_rollout,
    vector_steps.sub_environments_are_independent,
    vector_tasks.sub_environments_meet_their_own_tasks,
    vector_tasks.autoresets_draw_new_tasks,
    vector_tasks.set_tasks_pins_through_autoresets,
    vector_tasks.set_tasks_reaches_only_its_indices,
    vector_tasks.set_tasks_waits_for_the_next_reset,
    vector_tasks.reset_option_sets_one_episode,
    vector_steps.final_observations_are_kept,
    vector_steps.partial_resets_leave_the_others_alone,
    vector_steps.vector_env_pickled_in_mid_episode_continues,
    vector_tasks.bad_tasks_are_refused,
    vector_steps.bad_actions_are_refused,
    vector_steps.global_generators_are_left_alone,
    vector_steps.vector_spec_survives_json,
)
"""Name -> check of a vector env."""


def check_task_env(
    env: Any, *, skip: Collection[str] = (), only: Collection[str] | None = None, seed: int = 0
) -> tuple[str, ...]:
    """Check that a single env keeps the laws; raise :class:`TaskEnvError` at the first that fails.

    Checks of something optional that the env does not have (a spec, features, action masks, known
    optima, ``task_mode`` as an argument of the callable) are left out of the returned names.

    :param env: an id, an env made by ``gymnasium.make`` (its ``spec`` makes the fresh copies; the
        env itself is not touched), or a callable that makes an env, such as its class
    :param skip: names of checks to leave out
    :param only: names of the only checks to run
    :param seed: seed of everything that the checks draw
    :return: names of the checks that ran
    """
    return _run(TASK_ENV_CHECKS, Subject(env, seed), skip, only)


def check_task_vector_env(
    env: Any,
    *,
    single: Callable[[], AnyEnv] | None = None,
    skip: Collection[str] = (),
    only: Collection[str] | None = None,
    seed: int = 0,
) -> tuple[str, ...]:
    """Check that a vector env keeps the laws, and equals the single env bit for bit.

    :param env: an id, a vector env made by ``gymnasium.make_vec``, or a callable that takes
        ``num_envs=`` and makes one, such as its class
    :param single: makes the single env of the same arguments; by default the spec does
    :param skip: names of checks to leave out
    :param only: names of the only checks to run
    :param seed: seed of everything that the checks draw
    :return: names of the checks that ran
    """
    return _run(TASK_VECTOR_ENV_CHECKS, VectorSubject(env, single, seed), skip, only)


def _run(
    checks: Mapping[str, Callable[[AnySubject], None]],
    subject: AnySubject,
    skip: Collection[str],
    only: Collection[str] | None,
) -> tuple[str, ...]:
    unknown = sorted({*skip, *(only or ())} - checks.keys())
    if unknown:
        raise ValueError(f"unknown checks {unknown}; the names are {sorted(checks)}")
    chosen = [name for name in checks if name not in skip and (only is None or name in only)]
    return tuple(name for name in chosen if _ran(name, checks[name], subject))


def _ran(name: str, check: Callable[[AnySubject], None], subject: AnySubject) -> bool:
    try:
        check(subject)
    except NotApplicableError:
        return False
    except TaskEnvError as error:
        raise TaskEnvError(f"{name}: {error}") from error
    except Exception as error:
        env = getattr(subject.source, "id", subject.source)
        message = f"{name}: {env} raised {type(error).__name__}: {error}"
        raise TaskEnvError(message) from error
    finally:
        subject.close()
    return True
