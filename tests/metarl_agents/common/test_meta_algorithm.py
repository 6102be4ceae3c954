import json
import signal
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl_agents.common.checkpoint.archive import MANIFEST, write_archive
from metarl_agents.common.meta_algorithm import MetaAlgorithm
from metarl_agents.common.meta_algorithm.signals import interrupts_deferred
from metarl_agents.common.testing.subject import StopAt, difference, state_of
from tests.metarl_agents.common.tiny import (
    N_ARMS,
    ArmEnv,
    ArmMeta,
    ArmPolicy,
    ArmTask,
    RaggedArmEnv,
)

# Two episodes of two steps: one meta-iteration is 4 env steps per sub-environment.
ITERATION = 4


def agent(env=ArmEnv, n_envs=1, **kwargs):
    return ArmMeta("ArmPolicy", DummyVecEnv([lambda: Monitor(env())] * n_envs), seed=3, **kwargs)


def assert_same(first, second):
    assert difference(state_of(first), state_of(second)) is None


def test_learn_stops_at_the_end_of_a_meta_iteration_and_counts_all_steps():
    assert agent().learn(ITERATION + 1).num_timesteps == 2 * ITERATION
    assert agent(n_envs=3).learn(1).num_timesteps == 3 * ITERATION


def test_learn_learns_the_mean_over_tasks():
    learner = agent(n_envs=8, n_episodes_per_task=4).learn(4_000)
    # Thompson sampling pulls the better arms more often; the order of the means is what counts.
    means = (learner.sums / learner.pulls).numpy()
    assert np.argmax(means) == 1


def test_pieces_equal_one_go():
    whole, pieces = agent().learn(5 * ITERATION), agent()
    pieces.learn(2 * ITERATION)
    pieces.learn(3 * ITERATION, reset_num_timesteps=False)
    assert_same(whole, pieces)


def test_reset_num_timesteps_restarts_the_count_only():
    learner = agent().learn(2 * ITERATION)
    pulls = learner.pulls.sum()
    learner.learn(ITERATION)
    assert learner.num_timesteps == ITERATION
    assert learner.pulls.sum() > pulls


@pytest.mark.parametrize("n", [1, 2, ITERATION, ITERATION + 3])
def test_stop_inside_a_collect_undoes_it(n):
    stopped, whole = agent(RaggedArmEnv), agent(RaggedArmEnv).learn(30)
    stopped.learn(30, callback=StopAt(n))
    stopped.learn(30 - stopped.num_timesteps, reset_num_timesteps=False)
    assert_same(whole, stopped)


def test_error_in_the_env_undoes_the_collect():
    class Failing(ArmEnv):
        n_steps = 0

        def step(self, action):
            Failing.n_steps += 1
            if Failing.n_steps == ITERATION + 2:
                raise OSError("lost the robot")
            return super().step(action)

    broken = ArmMeta("ArmPolicy", Failing(), seed=3)
    with pytest.raises(OSError, match="lost the robot"):
        broken.learn(5 * ITERATION)
    assert broken.num_timesteps == ITERATION
    assert broken.env.get_attr("pinned_task") == [None]
    broken.learn(4 * ITERATION, reset_num_timesteps=False)
    assert_same(agent().learn(5 * ITERATION), broken)


def test_ctrl_c_writes_the_checkpoint_ends_callbacks_and_is_passed_on(tmp_path):
    class Ends(BaseCallback):
        ended = 0

        def _on_step(self):
            if self.n_calls == ITERATION + 2:
                signal.raise_signal(signal.SIGINT)
            return True

        def _on_training_end(self):
            self.ended += 1

    learner, callback, path = agent(), Ends(), tmp_path / "agent.zip"
    with pytest.raises(KeyboardInterrupt):
        learner.learn(100, callback=callback, checkpoint_path=path)
    assert callback.ended == 1
    loaded = ArmMeta.load(path, env=ArmEnv())
    assert loaded.num_timesteps == ITERATION
    loaded.learn(2 * ITERATION, reset_num_timesteps=False)
    assert_same(agent().learn(3 * ITERATION), loaded)


def test_ctrl_c_during_an_update_waits_for_its_end(tmp_path):
    class Slow(ArmMeta):
        def train(self, data):
            signal.raise_signal(signal.SIGINT)
            return super().train(data)

    learner = Slow("ArmPolicy", ArmEnv(), seed=3)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(100, checkpoint_path=tmp_path / "a.zip")
    loaded = Slow.load(tmp_path / "a.zip", env=ArmEnv())
    assert loaded.num_timesteps == loaded.pulls.sum() == ITERATION
    assert_same(learner, loaded)


def test_failed_update_leaves_the_last_good_checkpoint(tmp_path):
    class Failing(ArmMeta):
        def train(self, data):
            metrics = super().train(data)
            if self._n_updates == 1:
                raise KeyboardInterrupt
            return metrics

    with pytest.raises(KeyboardInterrupt):
        Failing("ArmPolicy", ArmEnv(), seed=3).learn(100, checkpoint_path=tmp_path / "a.zip")
    loaded = Failing.load(tmp_path / "a.zip", env=ArmEnv())
    assert loaded.num_timesteps == loaded.pulls.sum() == ITERATION


def test_second_interrupt_goes_through_at_once():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_checkpoint_is_written_at_the_interval_and_at_the_end(tmp_path):
    counts = []

    class Counting(ArmMeta):
        def save(self, path, exclude=None, include=None):
            counts.append(self.num_timesteps)
            super().save(path, exclude, include)

    learner = Counting("ArmPolicy", ArmEnv(), seed=0)
    learner.learn(5 * ITERATION, checkpoint_path=tmp_path / "a", checkpoint_interval=2)
    assert counts == [0, 2 * ITERATION, 4 * ITERATION, 5 * ITERATION]


def test_unwritable_checkpoint_path_fails_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    learner = agent()
    with pytest.raises(OSError, match="file"):
        learner.learn(100, checkpoint_path=tmp_path / "file" / "agent.zip")
    assert learner.num_timesteps == 0


def test_evaluation_between_and_in_collects_changes_nothing(tmp_path):
    watched = agent()
    evaluation = EvalCallback(DummyVecEnv([lambda: Monitor(ArmEnv())]), eval_freq=3, verbose=0)
    checkpoints = CheckpointCallback(3, str(tmp_path))
    watched.learn(5 * ITERATION, callback=[evaluation, checkpoints])
    assert_same(agent().learn(5 * ITERATION), watched)
    assert evaluation.last_mean_reward > -np.inf
    assert len(list(tmp_path.iterdir())) == 5 * ITERATION // 3


def test_sb3_stopping_callbacks_stop():
    learner, episodes = agent(n_envs=2), StopTrainingOnMaxEpisodes(2)
    learner.learn(1000, callback=episodes)
    assert episodes.n_episodes == 4
    threshold = EvalCallback(
        DummyVecEnv([lambda: Monitor(ArmEnv())]),
        callback_on_new_best=StopTrainingOnRewardThreshold(-100.0),
        eval_freq=5,
        verbose=0,
    )
    learner = agent().learn(1000, callback=threshold)
    assert learner.num_timesteps == ITERATION
    every = EveryNTimesteps(3, StopAt(2))
    agent().learn(1000, callback=every)
    assert every.n_calls == 6


def test_evaluate_policy_scores_the_initial_policy():
    mean, _ = evaluate_policy(agent(), DummyVecEnv([lambda: Monitor(ArmEnv())]), 4)
    assert np.isfinite(mean)


def test_logs_have_the_names_that_sb3_uses(tmp_path):
    learner = agent()
    learner.set_logger(configure(str(tmp_path), ["csv"]))
    learner.learn(10 * ITERATION, log_interval=5)
    rows = (tmp_path / "progress.csv").read_text().splitlines()
    assert len(rows) == 1 + 2
    for name in ("rollout/ep_rew_mean", "time/total_timesteps", "train/mean_return"):
        assert name in rows[0]
    silent = agent()
    silent.set_logger(configure(str(tmp_path / "silent"), ["csv"]))
    silent.learn(ITERATION, log_interval=None)
    assert (tmp_path / "silent" / "progress.csv").read_text() == ""


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"log_interval": 0}, "log_interval=0"),
        ({"checkpoint_interval": 0}, "checkpoint_interval=0"),
        ({"checkpoint_interval": 1.5}, "checkpoint_interval=1.5"),
        ({"total_timesteps": -3}, "total_timesteps=-3"),
        ({"total_timesteps": 1.5}, "whole number"),
    ],
)
def test_bad_arguments_of_learn_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        agent().learn(**{"total_timesteps": 1, **kwargs})


def test_env_may_be_an_id_with_as_many_sub_environments_as_wanted():
    gym.register("tiny/Arm-v0", entry_point=ArmEnv)
    try:
        learner = ArmMeta("ArmPolicy", "tiny/Arm-v0", n_envs=3, env_kwargs={"horizon": 3}, seed=0)
        assert (learner.n_envs, learner.env.num_envs) == (3, 3)
        assert learner.env.get_attr("horizon") == [3, 3, 3]
        assert learner.learn(1).num_timesteps == 3 * 2 * 3
    finally:
        gym.registry.pop("tiny/Arm-v0")


def test_ids_are_made_with_the_env_kwargs_of_the_agent(tmp_path):
    gym.register("tiny/Arm-v0", entry_point=ArmEnv)
    try:
        learner = ArmMeta("ArmPolicy", "tiny/Arm-v0", n_envs=2, env_kwargs={"horizon": 3}, seed=0)
        learner.set_env("tiny/Arm-v0")
        assert learner.env.get_attr("horizon") == [3, 3]
        policy = learner.adapt_to("tiny/Arm-v0", 1, seed=0)
        assert policy.counts.sum() == N_ARMS + 3
        learner.save(tmp_path / "a")
        loaded = ArmMeta.load(tmp_path / "a", env_kwargs={"horizon": 4})
        loaded.set_env("tiny/Arm-v0")
        assert loaded.env.get_attr("horizon") == [4, 4]
        loaded.set_env(DummyVecEnv([ArmEnv] * 2))
        assert loaded.env.get_attr("horizon") == [2, 2]
    finally:
        gym.registry.pop("tiny/Arm-v0")


def test_n_envs_must_agree_with_a_vector_env():
    vector = SyncVectorEnv([ArmEnv] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ArmMeta("ArmPolicy", vector).n_envs == 2
    assert ArmMeta("ArmPolicy", vector, n_envs=2).n_envs == 2
    with pytest.raises(ValueError, match="n_envs=3 but env has 2"):
        ArmMeta("ArmPolicy", vector, n_envs=3)


def test_agent_without_env_says_what_to_do():
    with pytest.raises(ValueError, match="set_env"):
        ArmMeta("ArmPolicy", None).learn(1)


def test_adapt_to_finds_the_best_arm():
    task = ArmTask((0.0, 0.0, 20.0))
    policy = agent().adapt_to(ArmEnv(), 10, task=task, seed=0)
    assert policy.predict(np.zeros((1, 1)))[0].tolist() == [2]


def test_adapt_to_stays_on_the_task_that_the_env_is_on():
    env, reference = ArmEnv(), ArmEnv()
    env.reset(seed=5)
    task = env.get_task()
    ours = agent().adapt_to(env, 6, seed=1)
    theirs = agent().adapt_to(reference, 6, task=task, seed=1)
    assert np.array_equal(ours.mean, theirs.mean)
    fresh = [agent().adapt_to(ArmEnv(), 6, seed=1) for _ in range(2)]
    assert np.array_equal(fresh[0].mean, fresh[1].mean)


def test_adapt_to_plays_envs_that_know_no_tasks():
    class OneArm(gym.Env):
        observation_space, action_space = ArmEnv.observation_space, ArmEnv.action_space

        def __init__(self):
            self.action_space = gym.spaces.Discrete(N_ARMS)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1), {}

        def step(self, action):
            return np.zeros(1), float(action == 2) * 5, True, False, {}

    policy = agent().adapt_to(OneArm(), 20, seed=0)
    assert policy.predict(np.zeros((1, 1)))[0].tolist() == [2]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a: a.adapt_to(ArmEnv(), -1), "n_episodes=-1"),
        (lambda a: a.adapt_to(ArmEnv(), 1, seed=-1), "seed=-1"),
        (lambda a: a.adapt_to(DummyVecEnv([ArmEnv] * 2), 1), "one at a time"),
        (lambda a: a.adapt_to("CartPole-v1", 1), "spaces do not match"),
        (lambda a: a.adapt_to("metarl/RecommendationSmall-v0", 1), "spaces do not match"),
    ],
)
def test_adapt_to_refuses_what_makes_no_sense(call, match):
    with pytest.raises(ValueError, match=match):
        call(agent())


class LooksAround(ArmMeta):
    """Knows what it can do only from an env."""

    def _setup_model(self):
        super()._setup_model()
        if self.env is not None:
            self._prepare_for(self.env)

    def _prepare_for(self, venv):
        self.horizon = venv.get_attr("horizon")[0]

    def initial_policy(self, *, rng=None):
        assert self.horizon == 2
        return super().initial_policy(rng=rng)


def test_agent_without_env_prepares_for_the_one_it_adapts_to(tmp_path):
    trained = LooksAround("ArmPolicy", ArmEnv(), seed=3).learn(ITERATION)
    trained.save(tmp_path / "a")
    loaded = LooksAround.load(tmp_path / "a")
    policy = loaded.adapt_to(ArmEnv(), 3, seed=0)
    assert np.array_equal(policy.mean, trained.adapt_to(ArmEnv(), 3, seed=0).mean)
    assert loaded.get_env() is None
    fresh = LooksAround("ArmPolicy", None)
    assert np.array_equal(fresh.adapt_to(ArmEnv(), 0, seed=0).mean, np.zeros(N_ARMS))


def test_zero_episodes_give_the_initial_policy():
    learner = agent()
    policy = learner.adapt_to(ArmEnv(), 0, seed=0)
    assert isinstance(policy, ArmPolicy)
    assert np.array_equal(policy.counts, np.ones(N_ARMS))


def test_set_random_seed_restarts_the_agent_but_no_global_generator():
    first, second = agent(), agent().learn(ITERATION)
    state = np.random.get_state()[1].tolist()
    for learner in (first, second):
        learner.set_random_seed(11)
    assert first._rng.random() == second._rng.random()
    assert np.random.get_state()[1].tolist() == state


class Renamed(ArmMeta):
    """A user's subclass that passes arguments through, and stores its own."""

    def __init__(self, *args, bonus=1.0, **kwargs):
        self.bonus = bonus
        super().__init__(*args, **kwargs)


def test_subclass_with_kwargs_saves_all_arguments(tmp_path):
    learner = Renamed("ArmPolicy", ArmEnv(), bonus=2.5, prior_weight=3.0, seed=1).learn(8)
    learner.save(tmp_path / "a")
    loaded = Renamed.load(tmp_path / "a", env=ArmEnv())
    assert (loaded.bonus, loaded.prior_weight, loaded.seed) == (2.5, 3.0, 1)
    assert_same(learner, loaded)
    with pytest.raises(ValueError, match=r"load it with Renamed.load, not ArmMeta.load"):
        ArmMeta.load(tmp_path / "a")


def test_subclass_that_forgets_an_argument_is_told_at_construction():
    class Forgetful(ArmMeta):
        def __init__(self, *args, bonus=1.0, **kwargs):
            super().__init__(*args, **kwargs)

    with pytest.raises(TypeError, match=r"self.bonus = bonus"):
        Forgetful("ArmPolicy", ArmEnv())


def test_callables_are_saved_by_name_or_refused_at_construction(tmp_path):
    learner = agent(activation=th.nn.Tanh)
    learner.save(tmp_path / "a")
    assert ArmMeta.load(tmp_path / "a").activation is th.nn.Tanh
    with pytest.raises(ValueError, match=r"ArmMeta\(activation=...\): .*one of"):
        agent(activation=lambda x: x)


def test_unsaved_argument_must_be_passed_again_where_it_was_given(tmp_path):
    agent(transform=abs).save(tmp_path / "given")
    with pytest.raises(ValueError, match=r"transform=\.\.\."):
        ArmMeta.load(tmp_path / "given")
    assert ArmMeta.load(tmp_path / "given", transform=abs).transform is abs
    agent().save(tmp_path / "default")
    assert ArmMeta.load(tmp_path / "default").transform is None


def test_policy_class_is_saved_by_its_alias_or_must_be_passed_again(tmp_path):
    class Other(ArmPolicy):
        pass

    env = ArmEnv()
    ArmMeta(ArmPolicy, env).save(tmp_path / "known")
    assert ArmMeta.load(tmp_path / "known").policy_class is ArmPolicy
    ArmMeta(Other, env).save(tmp_path / "own")
    with pytest.raises(ValueError, match=r"policy=\.\.\."):
        ArmMeta.load(tmp_path / "own")
    assert ArmMeta.load(tmp_path / "own", policy=Other).policy_class is Other


def test_load_takes_over_the_number_of_envs(tmp_path):
    agent(n_envs=2).learn(1).save(tmp_path / "a")
    assert ArmMeta.load(tmp_path / "a").n_envs == 2
    assert ArmMeta.load(tmp_path / "a", env=ArmEnv()).n_envs == 1
    assert ArmMeta.load(tmp_path / "a", env=DummyVecEnv([ArmEnv] * 4)).n_envs == 4


def test_load_with_a_new_seed_starts_new_random_numbers(tmp_path):
    learner = agent().learn(ITERATION)
    learner.save(tmp_path / "a")
    assert ArmMeta.load(tmp_path / "a")._rng.random() == learner._rng.random()
    assert ArmMeta.load(tmp_path / "a", seed=8)._rng.random() == np.random.default_rng(8).random()


def test_set_parameters_copies_what_was_learned_and_nothing_else(tmp_path):
    teacher, pupil = agent().learn(5 * ITERATION), agent()
    pupil.set_parameters(teacher.get_parameters())
    assert th.equal(pupil.sums, teacher.sums)
    assert pupil.num_timesteps == 0
    teacher.save(tmp_path / "a")
    other = agent()
    other.set_parameters(tmp_path / "a")
    assert th.equal(other.sums, teacher.sums)


class Lazy(ArmMeta):
    """Holds the pulls only once it has learned something."""

    def _learned_state(self):
        state = super()._learned_state()
        return state if self.pulls.any() else {"sums": state["sums"]}

    def _restore_learned_state(self, state):
        super()._restore_learned_state({"pulls": th.zeros(N_ARMS), **state})


def test_fresh_agent_takes_over_names_that_it_does_not_hold_yet(tmp_path):
    teacher = Lazy("ArmPolicy", ArmEnv(), seed=3).learn(ITERATION)
    teacher.save(tmp_path / "a")
    for source in (teacher.get_parameters(), tmp_path / "a"):
        pupil = Lazy("ArmPolicy", ArmEnv(), seed=4)
        pupil.set_parameters(source)
        assert th.equal(pupil.pulls, teacher.pulls)
        assert th.equal(pupil.sums, teacher.sums)


def test_parameters_share_no_memory_with_the_agents():
    teacher, pupil = agent().learn(ITERATION), agent()
    before, parameters = state_of(teacher), teacher.get_parameters()
    pupil.set_parameters(parameters)
    for tensor in parameters["learned_state"].values():
        tensor.fill_(7)
    assert difference(before, state_of(teacher)) is None
    assert th.equal(pupil.sums, teacher.sums)


ZEROS = th.zeros(N_ARMS, dtype=th.float64)


@pytest.mark.parametrize(
    ("parameters", "kind", "match"),
    [
        ({"policy": {}}, ValueError, "load_path_or_dict has the keys"),
        ({1: {}, "a": {}}, ValueError, "load_path_or_dict has the keys"),
        ({"learned_state": {"sums": ZEROS}}, ValueError, "pulls"),
        ({"learned_state": {"sums": ZEROS, "pulls": th.zeros(2)}}, ValueError, "pulls has shape"),
        (
            {"learned_state": {"sums": ZEROS, "pulls": ZEROS, "evil": ZEROS}},
            ValueError,
            r"load_path_or_dict holds \['evil'\]",
        ),
        (
            {"learned_state": {"sums": ZEROS, "pulls": ZEROS / 0}},
            ValueError,
            r"load_path_or_dict\['learned_state'\]\['pulls'\] is not finite",
        ),
        (
            {"learned_state": {"sums": ZEROS, "pulls": ZEROS.numpy()}},
            TypeError,
            r"load_path_or_dict\['learned_state'\]\['pulls'\] is a ndarray",
        ),
        ({"learned_state": 3}, TypeError, r"load_path_or_dict\['learned_state'\] is a int"),
        ([1], TypeError, "load_path_or_dict is a list"),
        (None, TypeError, "load_path_or_dict is a NoneType"),
    ],
)
def test_refused_parameters_leave_the_agent_untouched(parameters, kind, match):
    learner = agent().learn(ITERATION)
    before = state_of(learner)
    with pytest.raises(kind, match=match):
        learner.set_parameters(parameters)
    assert difference(before, state_of(learner)) is None


def test_inexact_match_keeps_what_is_missing():
    learner = agent().learn(ITERATION)
    pulls = learner.pulls.clone()
    learner.set_parameters({"learned_state": {"sums": ZEROS}}, exact_match=False)
    assert th.equal(learner.sums, ZEROS)
    assert th.equal(learner.pulls, pulls)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda a, p: a.save(p, exclude=["env"]), "leave both out"),
        (lambda a, p: ArmMeta.load(p, custom_objects={"a": 1}), "no objects to replace"),
        (lambda a, p: ArmMeta.load(p, no_such=1), r"no constructor arguments \['no_such'\]"),
        (lambda a, p: ArmMeta.load(p, env="CartPole-v1"), "observation_space"),
    ],
)
def test_what_files_cannot_do_is_refused_with_the_remedy(tmp_path, call, match):
    learner = agent()
    learner.save(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=match):
        call(learner, tmp_path / "a.zip")


def test_file_whose_tensors_do_not_fit_is_refused(tmp_path):
    class Small(ArmMeta):
        def _learned_state(self):
            return {"sums": self.sums[:2], "pulls": self.pulls}

    Small.__name__ = "ArmMeta"
    Small("ArmPolicy", ArmEnv()).save(tmp_path / "a")
    with pytest.raises(ValueError, match="sums has shape"):
        ArmMeta.load(tmp_path / "a")


def test_print_system_info_names_the_libraries_that_wrote_the_file(tmp_path, capsys):
    agent().save(tmp_path / "a")
    ArmMeta.load(tmp_path / "a", print_system_info=True)
    assert "- torch: " in capsys.readouterr().out


def test_statistics_of_the_log_are_restored(tmp_path):
    learner = agent().learn(3 * ITERATION)
    learner.save(tmp_path / "a")
    loaded = ArmMeta.load(tmp_path / "a", env=ArmEnv())
    ours = [info["r"] for info in learner.ep_info_buffer]
    assert len(ours) == 6
    assert [info["r"] for info in loaded.ep_info_buffer] == ours


def test_unknown_policy_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown to ArmMeta: use one of \['ArmPolicy'\]"):
        ArmMeta("MlpPolicy", ArmEnv())


@pytest.mark.parametrize("policy", [3, None, dict, ["ArmPolicy"]])
def test_policies_that_are_none_are_refused_with_the_known_ones(policy):
    with pytest.raises(TypeError, match=r"^policy=.*policy_aliases, one of \['ArmPolicy'\]"):
        ArmMeta(policy, ArmEnv())


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"stats_window_size": 0}, ValueError),
        ({"stats_window_size": None}, ValueError),
        ({"verbose": "x"}, ValueError),
        ({"verbose": 3}, ValueError),
        ({"tensorboard_log": 3}, TypeError),
        ({"n_envs": "x"}, ValueError),
        ({"n_envs": 0}, ValueError),
    ],
    ids=str,
)
def test_base_arguments_are_checked_with_or_without_env(arguments, kind):
    for env in (None, ArmEnv()):
        with pytest.raises(kind, match=rf"^{next(iter(arguments))}="):
            ArmMeta("ArmPolicy", env, **arguments)


def crafted(path, **changes):
    """A file of valid digests whose manifest an attacker wrote."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members[MANIFEST])
    for key, change in changes.items():
        manifest[key] = change(manifest[key]) if callable(change) else change
    write_archive(path, {**members, MANIFEST: json.dumps(manifest).encode()})
    return path


def argument(**arguments):
    return {"arguments": lambda stored: {**stored, **arguments}}


def record(**records):
    return {"records": lambda stored: {**stored, **records}}


@pytest.mark.parametrize(
    "changes",
    [
        argument(policy=3),
        argument(policy=None),
        argument(policy="os.system"),
        argument(n_envs="x"),
        argument(n_envs=-1),
        argument(stats_window_size=-1),
        argument(stats_window_size=None),
        argument(verbose="x"),
        argument(seed=[1]),
        argument(no_such=1),
        {"arguments": {}},
        {"arguments": lambda stored: {**stored, "n_envs": {"array": "nothing"}}},
        {"spaces": {}},
        {"spaces": lambda stored: {**stored, "policy": {"Discrete": [2, 0, "int64"]}}},
        {"generators": {}},
        {"generators": lambda stored: {**stored, "other": stored["rng"]}},
        {"counters": {}},
        {"counters": lambda stored: {**stored, "policy": 3}},
        {"unsaved": "features"},
        {"unsaved": [1]},
        {"unsaved": ["features"]},
        {"records": {}},
        record(episode_infos=3),
        record(episode_infos=[1]),
        record(episode_infos=[{"dict": {"x": 1}}]),
        record(episode_infos=[{"dict": {"r": "a", "l": 1}}]),
        record(episode_infos=[{"dict": {"r": True, "l": 1}}]),
        record(successes=["a"]),
        record(successes={"dict": {}}),
    ],
)
def test_crafted_manifests_are_refused_with_the_name_of_the_file(tmp_path, changes):
    agent().save(tmp_path / "a.zip")
    path = crafted(tmp_path / "a.zip", **changes)
    with pytest.raises(ValueError, match=r"a\.zip cannot be loaded"):
        ArmMeta.load(path)


def test_files_decide_neither_env_nor_device_nor_folder(tmp_path):
    folder = tmp_path / "evil"
    agent(tensorboard_log=str(tmp_path / "own")).save(tmp_path / "a.zip")
    path = crafted(
        tmp_path / "a.zip",
        **argument(
            env="CartPole-v1",
            device="no such device",
            env_kwargs={"dict": {"horizon": 7}},
            tensorboard_log=str(folder),
            _init_setup_model=True,
            self=1,
        ),
    )
    loaded = ArmMeta.load(path, env=ArmEnv())
    loaded.learn(1)
    assert loaded.env.get_attr("horizon") == [2]
    assert loaded.tensorboard_log is None
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    again = ArmMeta.load(path, env=ArmEnv(), tensorboard_log=tmp_path / "asked")
    again.learn(1)
    assert (tmp_path / "asked").is_dir()


def test_unknown_and_missing_tensors_are_refused(tmp_path):
    class More(ArmMeta):
        def _learned_state(self):
            return {**super()._learned_state(), "evil": self.sums}

    More.__name__ = "ArmMeta"
    More("ArmPolicy", ArmEnv()).save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"a holds \['evil'\]"):
        ArmMeta.load(tmp_path / "a")


def test_errors_of_the_constructor_name_the_file(tmp_path):
    agent().save(tmp_path / "a.zip")
    for arguments in ({"seed": "x"}, {"n_episodes_per_task": 1, "env": 3}, {"device": "cpu:x"}):
        with pytest.raises(ValueError, match=r"a\.zip cannot be loaded as ArmMeta"):
            ArmMeta.load(tmp_path / "a.zip", **arguments)


def test_max_episodes_callback_names_the_agent(capsys):
    agent().learn(100, callback=StopTrainingOnMaxEpisodes(1, verbose=1))
    assert "because the ArmMeta model reached" in capsys.readouterr().out
    agent().learn(100, callback=StopTrainingOnMaxEpisodes(1, verbose=1), tb_log_name="mine")
    assert "because the mine model reached" in capsys.readouterr().out


def test_files_hold_no_time_of_day(tmp_path):
    learner = agent().learn(ITERATION)
    learner.save(tmp_path / "a.zip")
    for info in learner.ep_info_buffer:
        info["t"] += 1000.0
    learner.save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_base_class_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        MetaAlgorithm("ArmPolicy", None)
