"""Contract tests for meta-learning agents: import them and run them on your own class.

>>> from metarl_agents import MTSRL, check_meta_algorithm
>>> names = check_meta_algorithm(MTSRL, policy="LinearQPolicy")

Each check is a function in :data:`META_ALGORITHM_CHECKS`, under a name that states the fact.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.testing import (
    adaptation,
    callbacks,
    construction,
    environments,
    files,
    resuming,
)
from metarl_agents.common.testing.subject import (
    Configuration,
    EnvSource,
    MetaAlgorithmError,
    NotApplicableError,
    Subject,
)

__all__ = ["META_ALGORITHM_CHECKS", "MetaAlgorithmError", "check_meta_algorithm"]

DEFAULT_ENV = "metarl/RecommendationSmall-v0"


def _named(*checks: Callable[[Subject], None]) -> Mapping[str, Callable[[Subject], None]]:
    return MappingProxyType({check.__name__: check for check in checks})


META_ALGORITHM_CHECKS: Mapping[str, Callable[[Subject], None]] = _named(
    construction.agent_is_an_sb3_algorithm,
    construction.constructor_arguments_are_stored_unchanged,
    construction.constructor_arguments_survive_json,
    construction.arguments_after_the_env_are_keywords,
    construction.functions_in_arguments_are_refused,
    construction.bad_arguments_are_refused,
    construction.total_timesteps_is_checked,
    construction.predictions_lie_in_the_action_space,
    files.saved_agent_is_restored,
    files.loaded_agent_saves_the_same_file,
    files.saving_changes_nothing,
    files.agent_loads_without_an_env,
    files.parameters_carry_over,
    files.arguments_can_be_replaced_by_load,
    files.files_of_other_classes_are_refused,
    files.damaged_files_are_refused,
    resuming.learning_in_pieces_equals_learning_at_once,
    resuming.saved_between_iterations_resumes_exactly,
    resuming.stopped_by_a_callback_resumes_exactly,
    resuming.interrupted_training_resumes_exactly,
    resuming.saved_inside_a_collect_resumes_exactly,
    resuming.finished_training_leaves_its_checkpoint,
    resuming.seeds_decide_everything,
    resuming.two_processes_agree,
    adaptation.initial_policy_follows_its_generator,
    adaptation.adapt_is_pure,
    adaptation.adapt_follows_its_generator,
    adaptation.batched_adaptation_equals_single,
    adaptation.adapt_to_leaves_the_agent_untouched,
    adaptation.adapt_to_keeps_the_task_of_the_env,
    adaptation.evaluating_in_between_changes_nothing,
    adaptation.adapting_beats_not_adapting,
    callbacks.callbacks_see_every_step,
    callbacks.callbacks_stop_training,
    callbacks.stopping_leaves_a_consistent_agent,
    callbacks.progress_bar_works,
    callbacks.tensorboard_log_is_written,
    callbacks.log_has_sb3_names,
    environments.every_kind_of_env_gives_the_same,
    environments.several_tasks_at_once_work,
    environments.vector_env_must_reset_in_the_same_step,
    environments.env_can_be_replaced,
    environments.env_is_given_back_as_it_was,
    environments.devices_agree,
)
"""Name -> check of an agent's class."""


def check_meta_algorithm(
    algorithm: type[MetaAlgorithm],
    *,
    policy: Any = None,
    env: EnvSource = DEFAULT_ENV,
    kwargs: Mapping[str, Any] | None = None,
    total_timesteps: int | None = None,
    probe: EnvSource | None = None,
    probe_kwargs: Mapping[str, Any] | None = None,
    probe_timesteps: int = 0,
    n_adapt_episodes: int = 15,
    skip: Collection[str] = (),
    only: Collection[str] | None = None,
    seed: int = 0,
) -> tuple[str, ...]:
    """Checks that an agent's class keeps the contract; `MetaAlgorithmError` at the first failure.

    Choose small arguments, so that a meta-iteration takes milliseconds: the agent is trained some
    thirty times. Checks of something that the agent or env does not have are left out of the
    returned names.

    :param algorithm: the class
    :param policy: its first constructor argument; None for the first of its `policy_aliases`
    :param env: id, or callable that makes a gymnasium env; a function or class at the top of a
        module, so that another process can call it
    :param kwargs: further constructor arguments
    :param total_timesteps: env steps of one training, at least two meta-iterations; None for three
    :param probe: id or callable of a family in which adapting pays, for
        `adapting_beats_not_adapting`; None for `WhichArm` or, with continuous actions, `SignFlip`
        of `metarl_envs.probes`
    :param probe_kwargs: constructor arguments on the probe; None for `kwargs`
    :param probe_timesteps: env steps to train on the probe before adapting
    :param n_adapt_episodes: episodes to adapt with on the probe
    :param skip: names of checks to leave out
    :param only: names of the only checks to run
    :param seed: of everything random
    :return: names of the checks that ran
    """
    unknown = sorted({*skip, *(only or ())} - META_ALGORITHM_CHECKS.keys())
    if unknown:
        raise ValueError(f"unknown checks {unknown}; the names are {sorted(META_ALGORITHM_CHECKS)}")
    if policy is None:
        if not algorithm.policy_aliases:
            raise ValueError(f"policy=None: {algorithm.__name__} has no policy_aliases, give one")
        policy = next(iter(algorithm.policy_aliases))
    configuration = Configuration(
        algorithm,
        policy,
        env,
        dict(kwargs or {}),
        total_timesteps,
        probe,
        probe_kwargs,
        probe_timesteps,
        n_adapt_episodes,
        seed,
    )
    subject = Subject(configuration)
    chosen = [n for n in META_ALGORITHM_CHECKS if n not in skip and (only is None or n in only)]
    try:
        return tuple(name for name in chosen if _ran(name, subject))
    finally:
        subject.close()


def _ran(name: str, subject: Subject) -> bool:
    try:
        META_ALGORITHM_CHECKS[name](subject)
    except NotApplicableError:
        return False
    except MetaAlgorithmError as error:
        raise MetaAlgorithmError(f"{name}: {error}") from error
    except Exception as error:
        message = f"{name}: {subject.algorithm.__name__} raised {type(error).__name__}: {error}"
        raise MetaAlgorithmError(message) from error
    return True
