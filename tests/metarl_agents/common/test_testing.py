"""Every check of the contract passes on a sound agent, and fails on one that is broken that way."""

import dataclasses
import os

import numpy as np
import pytest
import torch as th
from gymnasium.vector import AutoresetMode, VectorEnv

from metarl_agents.common.collect import sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm import agent_file
from metarl_agents.common.testing import (
    META_ALGORITHM_CHECKS,
    MetaAlgorithmError,
    check_meta_algorithm,
)
from tests.metarl_agents.common.tiny import N_ARMS, ArmEnv, ArmMeta, RaggedArmEnv


def check(algorithm, *only, env=ArmEnv, **kwargs):
    return check_meta_algorithm(
        algorithm,
        env=env,
        probe=ArmEnv,
        total_timesteps=24,
        only=only or None,
        **kwargs,
    )


def test_sound_agent_passes_every_check():
    assert check(ArmMeta) == tuple(META_ALGORITHM_CHECKS)


def test_sound_agent_passes_with_episodes_of_random_length():
    names = check(ArmMeta, env=RaggedArmEnv, skip=["two_processes_agree"])
    assert len(names) == len(META_ALGORITHM_CHECKS) - 1


def test_checks_can_be_chosen():
    assert check(ArmMeta, "adapt_is_pure") == ("adapt_is_pure",)
    names = check_meta_algorithm(
        ArmMeta, env=ArmEnv, total_timesteps=24, skip=set(META_ALGORITHM_CHECKS) - {"adapt_is_pure"}
    )
    assert names == ("adapt_is_pure",)
    with pytest.raises(ValueError, match=r"unknown checks \['no_such'\]"):
        check(ArmMeta, "no_such")


def test_one_meta_iteration_is_too_short_to_stop_in():
    with pytest.raises(MetaAlgorithmError, match="give more"):
        check_meta_algorithm(
            ArmMeta,
            env=ArmEnv,
            total_timesteps=1,
            only=["learning_in_pieces_equals_learning_at_once"],
        )


class ChangesArgument(ArmMeta):
    def __init__(self, *args, n_episodes_per_task=2, **kwargs):
        super().__init__(*args, n_episodes_per_task=n_episodes_per_task + 1, **kwargs)


class PositionalArguments(ArmMeta):
    def __init__(self, policy, env, n_envs=1, **kwargs):
        super().__init__(policy, env, n_envs=n_envs, **kwargs)


class ForgetsPulls(ArmMeta):
    def _learned_state(self):
        return {"sums": self.sums}

    def _restore_learned_state(self, state):
        self.sums, self.pulls = state["sums"].to(self.device), th.zeros(N_ARMS, dtype=th.float64)


class ForgetsItsGenerator(ArmMeta):
    def _set_generators(self, generators):
        pass


class OwnGenerator(ArmMeta):
    """Takes its seeds from a generator that no file holds."""

    def _begin_collect(self):
        if not hasattr(self, "_own"):
            self._own = np.random.default_rng(self.seed)
        return int(self._own.integers(2**31))


class GlobalGenerator(ArmMeta):
    def _begin_collect(self):
        super()._begin_collect()
        return int(np.random.randint(2**31))


class LearnsInCollect(ArmMeta):
    def collect(self, callback):
        self.pulls = self.pulls + 1
        return super().collect(callback)


class HashSeed(ArmMeta):
    def _begin_collect(self):
        super()._begin_collect()
        return abs(hash(f"collect {self.num_timesteps}")) % 2**31


class SwallowsInterrupts(ArmMeta):
    def collect(self, callback):
        try:
            return super().collect(callback)
        except KeyboardInterrupt:
            return None


class IgnoresCallbacks(ArmMeta):
    def collect(self, callback):
        data = super().collect(_NoCallback())
        callback.on_step()
        return data


class _NoCallback:
    def update_locals(self, values):
        pass

    def on_step(self):
        return True


class LeavesPins(ArmMeta):
    def collect(self, callback):
        data = super().collect(callback)
        tasks = sample_tasks(self.env, self.env.num_envs, seed=0)
        for i, task in enumerate(tasks):
            self.env.env_method("set_task", task, indices=[i])
        return data


class ReturnsNewAgent(ArmMeta):
    def learn(self, *args, **kwargs):
        super().learn(*args, **kwargs)
        return None


class AdaptsInPlace(ArmMeta):
    def adapt(self, policy, episodes, *, rng):
        after = super().adapt(policy, episodes, rng=rng)
        policy.draw[:] = after.draw
        return after


class AdaptsByGlobalGenerator(ArmMeta):
    def adapt(self, policy, episodes, *, rng):
        noise = np.random.normal(size=N_ARMS)
        after = super().adapt(policy, episodes, rng=rng)
        return dataclasses.replace(after, draw=after.draw + noise)


class AdaptChangesEpisodes(ArmMeta):
    def adapt(self, policy, episodes, *, rng):
        episodes.rewards.zero_()
        return super().adapt(policy, episodes, rng=rng)


class AdaptUsesAgentGenerator(ArmMeta):
    def adapt(self, policy, episodes, *, rng):
        return super().adapt(policy, episodes, rng=self._rng)


class NeverAdapts(ArmMeta):
    def adapt(self, policy, episodes, *, rng):
        return policy


class BatchesWrongly(ArmMeta):
    def adapt_tasks(self, policies, episodes, *, rngs):
        flipped = EpisodeBatch._make(None if f is None else f.flip(0) for f in episodes)
        return super().adapt_tasks(policies, flipped, rngs=list(rngs)[::-1])


class RandomInitialPolicy(ArmMeta):
    def initial_policy(self, *, rng=None):
        return super().initial_policy(rng=np.random.default_rng())


class PredictsOutside(ArmMeta):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions, state = super().predict(observation, state, episode_start, deterministic)
        return actions + N_ARMS, state


class LogsNothing(ArmMeta):
    def dump_logs(self, iteration=0):
        pass


class AcceptsAnyEnv(ArmMeta):
    def set_env(self, env, force_reset=True):
        self.env = env


class KeepsTaskOfAdapting(ArmMeta):
    def adapt_to(self, env, n_episodes, *, task=None, seed=None):
        policy = super().adapt_to(env, n_episodes, task=task, seed=seed)
        if task is not None:
            env.env_method("set_task", task)
        return policy


class SavesNothingNew(ArmMeta):
    """Saves by adding the time, so that two files of one agent differ."""

    def _learned_state(self):
        import time

        return {**super()._learned_state(), "time": th.tensor(time.time_ns())}


class SavesTheProcess(ArmMeta):
    """Saves what differs between two processes only."""

    def __init__(self, *args, process=None, **kwargs):
        self.process = os.getpid()
        super().__init__(*args, **kwargs)


class SharesItsMemory(ArmMeta):
    def get_parameters(self):
        return {"learned_state": self._learned_state()}


class KeepsItsOwnParameters(ArmMeta):
    def set_parameters(self, load_path_or_dict, exact_match=True, device="auto"):
        pass


class NoProgressBar(ArmMeta):
    def learn(self, total_timesteps, callback=None, *args, progress_bar=False, **kwargs):
        if progress_bar:
            raise ImportError("no tqdm here")
        return super().learn(total_timesteps, callback, *args, **kwargs)


class NeedsAnEnv(ArmMeta):
    def _setup_model(self):
        if self.env is None:
            raise AttributeError("env")
        super()._setup_model()


class CountsOneEnv(ArmMeta):
    def _step_hook(self, callback):
        hook = super()._step_hook(callback)
        return lambda n, infos, dones: hook(1, infos, dones)


class OnlyDummyEnvs(ArmMeta):
    def collect(self, callback):
        self.env.envs[0].reset()
        return super().collect(callback)


class IgnoresDevice(ArmMeta):
    def __init__(self, *args, device="auto", **kwargs):
        super().__init__(*args, device="meta", **kwargs)
        self.sums, self.pulls = (th.zeros(N_ARMS, dtype=th.float64) for _ in range(2))


class StopsEarly(ArmMeta):
    def learn(self, total_timesteps, *args, **kwargs):
        return super().learn(total_timesteps / 4, *args, **kwargs)


class Unequal(float):
    __hash__ = float.__hash__

    def __eq__(self, other):
        return False


UNEQUAL = Unequal(1.0)


class ArgumentUnlikeItsCopy(ArmMeta):
    def __init__(self, *args, weight=UNEQUAL, **kwargs):
        self.weight = weight
        super().__init__(*args, **kwargs)


class DropsFunctions(ArmMeta):
    def __init__(self, *args, verbose=0, **kwargs):
        super().__init__(*args, verbose=0 if callable(verbose) else verbose, **kwargs)


class AcceptsAnySeed(ArmMeta):
    def __init__(self, *args, seed=None, **kwargs):
        super().__init__(*args, seed=None if seed is None else abs(int(seed)), **kwargs)


class LoadIgnoresKeywords(ArmMeta):
    @classmethod
    def load(cls, path, env=None, **kwargs):
        return super().load(path, env=env)


class LoadsFilesOfOthers(ArmMeta):
    @classmethod
    def load(cls, path, env=None, **kwargs):
        return agent_file.load_agent(
            LoadsFilesOfOthers, path, env, device="auto", print_versions=False, overrides=kwargs
        )


class LoadsAnything(ArmMeta):
    @classmethod
    def load(cls, path, env=None, **kwargs):
        try:
            return super().load(path, env=env, **kwargs)
        except ValueError:
            return cls("ArmPolicy", env)


class WritesNoCheckpoint(ArmMeta):
    def learn(self, *args, checkpoint_path=None, **kwargs):
        return super().learn(*args, **kwargs)


class OneLogName(ArmMeta):
    def learn(self, *args, tb_log_name=None, **kwargs):
        return super().learn(*args, tb_log_name="run", **kwargs)


class OneTaskOnly(ArmMeta):
    def collect(self, callback):
        assert self.env.num_envs == 1
        return super().collect(callback)


class AcceptsAnyVectorEnv(ArmMeta):
    def __init__(self, policy, env, **kwargs):
        if isinstance(env, VectorEnv):
            env.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        super().__init__(policy, env, **kwargs)


BROKEN = [
    (StopsEarly, "agent_is_an_sb3_algorithm"),
    (ArgumentUnlikeItsCopy, "constructor_arguments_survive_json"),
    (DropsFunctions, "functions_in_arguments_are_refused"),
    (AcceptsAnySeed, "bad_arguments_are_refused"),
    (LoadIgnoresKeywords, "arguments_can_be_replaced_by_load"),
    (LoadsFilesOfOthers, "files_of_other_classes_are_refused"),
    (LoadsAnything, "damaged_files_are_refused"),
    (WritesNoCheckpoint, "finished_training_leaves_its_checkpoint"),
    (OneLogName, "tensorboard_log_is_written"),
    (OneTaskOnly, "several_tasks_at_once_work"),
    (AcceptsAnyVectorEnv, "vector_env_must_reset_in_the_same_step"),
    (ChangesArgument, "constructor_arguments_are_stored_unchanged"),
    (PositionalArguments, "arguments_after_the_env_are_keywords"),
    (ForgetsPulls, "saved_between_iterations_resumes_exactly"),
    (ForgetsPulls, "saved_agent_is_restored"),
    (ForgetsItsGenerator, "saved_agent_is_restored"),
    (ForgetsItsGenerator, "stopped_by_a_callback_resumes_exactly"),
    (OwnGenerator, "saved_between_iterations_resumes_exactly"),
    (OwnGenerator, "interrupted_training_resumes_exactly"),
    (OwnGenerator, "saved_inside_a_collect_resumes_exactly"),
    (GlobalGenerator, "seeds_decide_everything"),
    (GlobalGenerator, "learning_in_pieces_equals_learning_at_once"),
    (LearnsInCollect, "stopped_by_a_callback_resumes_exactly"),
    (LearnsInCollect, "stopping_leaves_a_consistent_agent"),
    (HashSeed, "two_processes_agree"),
    (SavesTheProcess, "two_processes_agree"),
    (SharesItsMemory, "parameters_carry_over"),
    (KeepsItsOwnParameters, "parameters_carry_over"),
    (SwallowsInterrupts, "interrupted_training_resumes_exactly"),
    (IgnoresCallbacks, "callbacks_see_every_step"),
    (IgnoresCallbacks, "callbacks_stop_training"),
    (LeavesPins, "env_is_given_back_as_it_was"),
    (ReturnsNewAgent, "total_timesteps_is_checked"),
    (AdaptsInPlace, "adapt_is_pure"),
    (AdaptsByGlobalGenerator, "adapt_is_pure"),
    (AdaptsByGlobalGenerator, "adapt_follows_its_generator"),
    (AdaptsByGlobalGenerator, "adapt_to_leaves_the_agent_untouched"),
    (AdaptChangesEpisodes, "adapt_is_pure"),
    (AdaptUsesAgentGenerator, "adapt_is_pure"),
    (AdaptUsesAgentGenerator, "evaluating_in_between_changes_nothing"),
    (NeverAdapts, "adapting_beats_not_adapting"),
    (BatchesWrongly, "batched_adaptation_equals_single"),
    (RandomInitialPolicy, "initial_policy_follows_its_generator"),
    (PredictsOutside, "predictions_lie_in_the_action_space"),
    (LogsNothing, "log_has_sb3_names"),
    (AcceptsAnyEnv, "env_can_be_replaced"),
    (KeepsTaskOfAdapting, "adapt_to_keeps_the_task_of_the_env"),
    (SavesNothingNew, "loaded_agent_saves_the_same_file"),
    (SavesNothingNew, "saving_changes_nothing"),
    (NoProgressBar, "progress_bar_works"),
    (NeedsAnEnv, "agent_loads_without_an_env"),
    (CountsOneEnv, "callbacks_see_every_step"),
    (OnlyDummyEnvs, "every_kind_of_env_gives_the_same"),
    (IgnoresDevice, "devices_agree"),
]


@pytest.mark.parametrize(
    ("algorithm", "name"), BROKEN, ids=lambda value: getattr(value, "__name__", value)
)
def test_broken_agent_is_found_out(algorithm, name):
    with pytest.raises(MetaAlgorithmError, match=rf"^{name}: "):
        check(algorithm, name)


def test_every_check_is_shown_to_fail():
    assert {name for _, name in BROKEN} == set(META_ALGORITHM_CHECKS)
