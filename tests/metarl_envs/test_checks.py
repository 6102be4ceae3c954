import pickle
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl_envs.batched import FamilyVectorEnv
from metarl_envs.checks import (
    TASK_ENV_CHECKS,
    TASK_VECTOR_ENV_CHECKS,
    TaskEnvError,
    check_task_env,
    check_task_vector_env,
)
from metarl_envs.distributions import FiniteTasks, TaskStream, UniformTasks
from metarl_envs.probes import Chain, ChainFamily, GaussianBandit
from metarl_envs.wrappers import ObserveTask, Trial, belief_mdp
from tests.metarl_envs.reference_envs import (
    HORIZON,
    N_ACTIONS,
    ReferenceEnv,
    ReferenceVectorEnv,
    ValuesTask,
    make_task,
)


def register(env: type[gym.Env], vector_env: type = ReferenceVectorEnv, **arguments: Any) -> str:
    name = f"metarl-test/{env.__name__}{vector_env.__name__}-v0"
    if name not in gym.registry:
        entry_points = {
            "entry_point": f"{env.__module__}:{env.__name__}",
            "vector_entry_point": f"{vector_env.__module__}:{vector_env.__name__}",
        }
        gym.register(name, max_episode_steps=HORIZON, **(entry_points | arguments))
    return name


REFERENCE = register(ReferenceEnv)


# One broken env for every check. --------------------------------------------------------------


class ReturnsTuples(ReferenceEnv):
    def sample_tasks(self, n: int, **arguments: Any) -> Any:
        return tuple(super().sample_tasks(n, **arguments))


class CustomTasks(ReferenceEnv):
    """An env that does not look at the class of its tasks."""

    make = staticmethod(make_task)

    def make_distribution(self) -> Any:
        return UniformTasks(self.make, np.full(N_ACTIONS, -1.0), 1.0)


@dataclass(frozen=True)
class Float32Task:
    values: tuple[float, ...]

    def to_array(self) -> np.ndarray:
        return np.array(self.values, dtype=np.float32)


class Float32Tasks(CustomTasks):
    make = staticmethod(lambda array: Float32Task(tuple(array.tolist())))


class ReversesArrays(CustomTasks):
    make = staticmethod(lambda array: ValuesTask(tuple(array[::-1].tolist())))


@dataclass(unsafe_hash=True)
class OpenTask:
    values: tuple[float, ...]

    def to_array(self) -> np.ndarray:
        return np.array(self.values)


class OpenTasks(CustomTasks):
    make = staticmethod(lambda array: OpenTask(tuple(array.tolist())))


@dataclass(frozen=True)
class ArrayTask:
    values: np.ndarray

    def to_array(self) -> np.ndarray:
        return self.values


class ArrayTasks(CustomTasks):
    make = staticmethod(lambda array: ArrayTask(array.copy()))


@dataclass(frozen=True, eq=False)
class IdentityTask:
    values: tuple[float, ...]

    def to_array(self) -> np.ndarray:
        return np.array(self.values)


class IdentityTasks(CustomTasks):
    make = staticmethod(lambda array: IdentityTask(tuple(array.tolist())))


@dataclass(frozen=True)
class ForgetfulTask(ValuesTask):
    def __reduce__(self) -> Any:
        return ForgetfulTask, ((0.0,) * N_ACTIONS,)


class ForgetfulTasks(CustomTasks):
    make = staticmethod(lambda array: ForgetfulTask(tuple(array.tolist())))


class IgnoresTheSampleSeed(ReferenceEnv):
    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train") -> Any:
        return super().sample_tasks(n, seed=None if seed is None else 7, split=split)


class OneSplit(ReferenceEnv):
    def sample_tasks(self, n: int, *, seed: int | None = None, split: str = "train") -> Any:
        return super().sample_tasks(n, seed=seed)


class TrainsOnTestTasks(ReferenceEnv):
    def begin_episode(self, task: Any) -> Any:
        if task is None and self.tasks.pinned is None:
            task = self.tasks.sample(1, split="test")[0]
        return super().begin_episode(task)


class UsesTheGlobalGenerator(ReferenceEnv):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        np.random.random()
        return super().reset(seed=seed, options=options)


class KeepsItsTask(ReferenceEnv):
    def __init__(self, task_mode: str = "fixed") -> None:
        super().__init__(task_mode)


class NeverFixed(ReferenceEnv):
    def __init__(self, task_mode: str = "resample") -> None:
        super().__init__("resample")


class PinsOnce(ReferenceEnv):
    def begin_episode(self, task: Any) -> Any:
        begun = super().begin_episode(task)
        self.tasks.pin(None)
        return begun


class NeverUnpins(ReferenceEnv):
    def set_task(self, task: Any) -> None:
        if task is not None:
            super().set_task(task)


class PinsAtOnce(ReferenceEnv):
    def set_task(self, task: Any) -> None:
        super().set_task(task)
        if task is not None and self.tasks.current is not None:
            self.tasks.current = task


class RewardsThePinAtOnce(ReferenceEnv):
    """Tasks look alike for many seeds and actions: 0 or 1, and only action 0 tells them apart."""

    def reward(self, action: int) -> float:
        task = self.tasks.pinned or self.get_task()
        return float(action == 0 and self.step_index == 2 and task.values[0] > 0)


class OptionPins(ReferenceEnv):
    def begin_episode(self, task: Any) -> Any:
        if task is not None:
            self.set_task(task)
        return super().begin_episode(task)


class IgnoresTheSeed(ReferenceEnv):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        self.np_random = np.random.default_rng()
        return observation, info


class DrawsFromTheDynamics(ReferenceEnv):
    def begin_episode(self, task: Any) -> Any:
        if task is None and self.tasks.pinned is None:
            task = self.task_distribution.sample(self.np_random)
        return super().begin_episode(task)


class ConstantTaskSeed(ReferenceEnv):
    def seed_tasks(self, seed: int | None) -> None:
        if seed is not None or not self.tasks.is_seeded:
            self.tasks.seed(0)


class UnseededTasks(ReferenceEnv):
    def seed_tasks(self, seed: int | None) -> None:
        self.tasks.seed(np.random.SeedSequence().entropy)


class LosesItsTask(ReferenceEnv):
    def __getstate__(self) -> Any:
        tasks = TaskStream(self.task_distribution)
        tasks.seed(0)
        tasks.begin_episode()
        return self.__dict__ | {"tasks": tasks}


class LosesItsPosition(ReferenceEnv):
    def __getstate__(self) -> Any:
        return self.__dict__ | {"position": 0.0}


class LeavesItsSpace(ReferenceEnv):
    def observe(self) -> Any:
        return super().observe() + [0.0, 10.0 * (self.step_index > 0)]


class ShowsItsTask(ReferenceEnv):
    def observe(self) -> Any:
        return super().observe() + [0.0, np.tanh(self.get_task().values[1]) / 10]


class TellsItsTaskInInfo(ReferenceEnv):
    def info(self) -> Any:
        return super().info() | {"goal": self.get_task().values[0]}


class TellsItsTaskByAKey(ReferenceEnv):
    def info(self) -> Any:
        return super().info() | ({"good": True} if self.get_task().values[0] > 0 else {})


class TellsItsTaskLate(ReferenceEnv):
    def reward(self, action: int) -> float:
        return float(self.get_task().values[0] > 0 and self.step_index > 3)

    def info(self) -> Any:
        late = self.step_index == 2
        return super().info() | {"hint": self.get_task().values[0] if late else 0.0}


class IgnoresItsTask(ReferenceEnv):
    def reward(self, action: int) -> float:
        return float(action)


class EndsTwice(ReferenceEnv):
    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, terminated, info


class LimitTerminates(gym.Wrapper, gym.utils.RecordConstructorArgs):
    def __init__(self, env: gym.Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, False, info


class NamesItsTaskAlways(ReferenceEnv):
    def info(self) -> Any:
        return super().info() | {"task": self.get_task()}


class NamesNoTask(ReferenceEnv):
    def info(self) -> Any:
        return {"action_mask": super().info()["action_mask"]}


class NumbersEpisodes(ReferenceEnv):
    def info(self) -> Any:
        return super().info() | {"task_id": 0}


class OpenDoorForTasks(ReferenceEnv):
    def checked_task(self, task: Any) -> Any:
        return task


class ForgetsWhenRefusing(ReferenceEnv):
    def set_task(self, task: Any) -> None:
        self.tasks.current = self.sample_tasks(1, seed=9)[0] if task is not None else None
        super().set_task(task)


class OpenDistribution(UniformTasks):
    def from_array(self, array: np.ndarray) -> Any:
        return make_task(np.resize(array, N_ACTIONS))


class OpenDoorForArrays(ReferenceEnv):
    def make_distribution(self) -> Any:
        return OpenDistribution(make_task, np.full(N_ACTIONS, -1.0), 1.0)


class ClipsActions(ReferenceEnv):
    def checked(self, action: Any) -> int:
        return int(np.clip(np.nan_to_num(action), 0, 2))


class ActsBeforeRefusing(ReferenceEnv):
    def checked(self, action: Any) -> int:
        self.position += 0.01
        return super().checked(action)


class ImpureFeatures(ReferenceEnv):
    def features(self, stage: int, observations: np.ndarray) -> Any:
        return super().features(stage, observations) * self.np_random.random()


class OtherMaskInInfo(ReferenceEnv):
    def info(self) -> Any:
        return super().info() | {"action_mask": np.ones(N_ACTIONS, np.int8)}


class LowOptimum(ReferenceEnv):
    def optimal_return(self, task: Any) -> float:
        return super().optimal_return(task) - 20.0


class OtherOptima(ReferenceEnv):
    def optimal_returns(self, tasks: Any) -> Any:
        return super().optimal_returns(tasks) + 0.01


class SharedOptima(ReferenceEnv):
    def optimal_returns(self, tasks: Any) -> Any:
        return np.full(len(tasks), super().optimal_returns(tasks)[0])


class OneOptimum(ReferenceEnv):
    def optimal_returns(self, tasks: Any) -> Any:
        return super().optimal_returns(tasks)[:1]


class OptimisticReturns(Chain):
    def __init__(self) -> None:
        super().__init__()
        exact = self.policy_returns
        self.policy_returns = lambda tasks, policies: exact(tasks, policies) + 0.2


class OneReturn(GaussianBandit):
    def __init__(self) -> None:
        super().__init__()
        exact = self.policy_returns
        self.policy_returns = lambda tasks, policies: exact(tasks, policies)[:1]


class DisagreesWithItsInfo(Trial):
    """A wasted step whose info has the mask of the episode that is over."""

    def __init__(self) -> None:
        super().__init__(gym.make("metarl/RecommendationSmall-v0"), 3, reset_mode="wasted_step")

    def step(self, action: Any) -> Any:
        *result, info = super().step(action)
        if "start_obs" in info:
            info = info | {
                "action_mask": self.env.unwrapped.action_masks(result[0]).astype(np.int8)
            }
        return *result, info


BROKEN = {
    "env_has_the_task_interface": [ReturnsTuples],
    "task_arrays_lie_in_the_space": [Float32Tasks],
    "tasks_survive_arrays_and_json": [ReversesArrays],
    "tasks_are_frozen": [OpenTasks, ArrayTasks],
    "tasks_are_hashable_and_comparable": [IdentityTasks],
    "tasks_survive_pickle_and_copy": [ForgetfulTasks],
    "sample_tasks_follows_its_seed": [IgnoresTheSampleSeed],
    "train_and_test_tasks_are_disjoint": [OneSplit, TrainsOnTestTasks],
    "global_generators_are_left_alone": [UsesTheGlobalGenerator],
    "every_reset_draws_a_new_task": [KeepsItsTask],
    "fixed_mode_keeps_the_first_task": [NeverFixed],
    "set_task_pins_until_none": [PinsOnce, NeverUnpins],
    "set_task_waits_for_the_next_reset": [PinsAtOnce, RewardsThePinAtOnce],
    "reset_option_sets_one_episode": [OptionPins],
    "same_seed_and_task_give_the_same_rollout": [IgnoresTheSeed, DrawsFromTheDynamics],
    "drawing_tasks_takes_nothing_from_the_dynamics": [DrawsFromTheDynamics],
    "seeds_decide_the_tasks": [ConstantTaskSeed, UnseededTasks],
    "env_pickled_in_mid_episode_continues": [LosesItsTask, LosesItsPosition],
    "observations_lie_in_the_space": [LeavesItsSpace],
    "first_observations_do_not_reveal_the_task": [ShowsItsTask],
    "infos_do_not_reveal_the_task": [TellsItsTaskInInfo, TellsItsTaskByAKey, TellsItsTaskLate],
    "different_tasks_differ": [IgnoresItsTask],
    "spec_survives_json": [],
    "terminated_and_truncated_are_kept_apart": [EndsTwice],
    "infos_name_the_task": [NamesItsTaskAlways, NamesNoTask, NumbersEpisodes],
    "bad_tasks_are_refused": [OpenDoorForTasks, ForgetsWhenRefusing],
    "bad_task_arrays_are_refused": [OpenDoorForArrays],
    "bad_actions_are_refused": [ClipsActions, ActsBeforeRefusing],
    "features_are_pure_and_complete": [ImpureFeatures],
    "action_masks_agree_with_infos": [OtherMaskInInfo],
    "optimal_return_bounds_random_play": [LowOptimum],
    "optimal_return_agrees_with_optimal_returns": [OtherOptima, SharedOptima, OneOptimum],
    "policy_returns_agree_with_random_play": [OptimisticReturns, OneReturn],
}
OF_EXACT_ENVS = {"policy_returns_agree_with_random_play"}
CASES = [(name, env) for name, envs in BROKEN.items() for env in envs]


def test_there_are_at_least_fifteen_checks_of_each_kind():
    assert len(TASK_ENV_CHECKS) >= 15
    assert len(TASK_VECTOR_ENV_CHECKS) >= 15


def test_every_check_has_a_broken_env():
    assert BROKEN.keys() == TASK_ENV_CHECKS.keys()
    assert BROKEN_VECTOR.keys() == TASK_VECTOR_ENV_CHECKS.keys()


def test_every_check_says_in_a_line_what_it_checks():
    for check in (*TASK_ENV_CHECKS.values(), *TASK_VECTOR_ENV_CHECKS.values()):
        assert check.__doc__.splitlines()[0].endswith((".", ","))


@pytest.mark.parametrize("source", [REFERENCE, ReferenceEnv, lambda: gym.make(REFERENCE)])
def test_a_family_that_keeps_the_laws_passes(source):
    ran = check_task_env(source)
    missing = TASK_ENV_CHECKS.keys() - set(ran)
    assert missing - {"spec_survives_json"} == OF_EXACT_ENVS
    assert ("spec_survives_json" in missing) == (source is ReferenceEnv)


def test_an_env_passes_and_is_left_untouched():
    env = gym.make(REFERENCE)
    env.reset(seed=3)
    task = env.unwrapped.get_task()
    check_task_env(env, only=["set_task_pins_until_none", "bad_tasks_are_refused"])
    assert env.unwrapped.get_task() is task
    env.step(0)


@pytest.mark.filterwarnings("ignore:.*not within the observation space")
@pytest.mark.parametrize(("name", "env"), CASES)
def test_check_fails_on_a_family_that_breaks_its_law(name, env):
    with pytest.raises(TaskEnvError, match=f"^{name}: ") as caught:
        check_task_env(register(env), only=[name])
    assert isinstance(caught.value.__cause__, TaskEnvError), "the env crashed instead"


def test_check_fails_where_a_time_limit_is_reported_as_terminated():
    wrapper = LimitTerminates.wrapper_spec()
    name = register(type("LimitEnv", (ReferenceEnv,), {}), entry_point=_entry(ReferenceEnv))
    spec = gym.spec(name)
    spec.additional_wrappers = (wrapper,)
    with pytest.raises(TaskEnvError, match="time limit ended an episode as"):
        check_task_env(name, only=["terminated_and_truncated_are_kept_apart"])


def test_check_fails_where_the_entry_point_is_no_string():
    name = register(type("CallableEnv", (ReferenceEnv,), {}), entry_point=ReferenceEnv)
    with pytest.raises(TaskEnvError, match="register it as a string"):
        check_task_env(name, only=["spec_survives_json"])


def test_an_env_that_crashes_is_reported_under_the_name_of_the_check():
    class Crashes(ReferenceEnv):
        def get_task(self) -> Any:
            raise RuntimeError("no task")

    with pytest.raises(TaskEnvError, match=r"every_reset_draws_a_new_task: .* RuntimeError: no"):
        check_task_env(Crashes, only=["every_reset_draws_a_new_task"])


class TwoTasks(ReferenceEnv):
    def make_distribution(self) -> Any:
        return FiniteTasks([make_task(np.eye(N_ACTIONS)[row]) for row in range(2)])


def test_a_finite_family_passes():
    ran = check_task_env(TwoTasks)
    assert "every_reset_draws_a_new_task" in ran


def test_a_wrapper_that_shows_the_task_is_allowed_to():
    shown = check_task_env(lambda: ObserveTask(gym.make(REFERENCE)))
    assert "first_observations_do_not_reveal_the_task" not in shown


def test_a_belief_mdp_passes():
    ran = check_task_env(
        lambda task_mode="resample": belief_mdp(gym.make(REFERENCE, task_mode=task_mode), 3)
    )
    missing = TASK_ENV_CHECKS.keys() - set(ran)
    of_one_episode = {
        "optimal_return_bounds_random_play",
        "optimal_return_agrees_with_optimal_returns",
    }
    assert missing == of_one_episode | OF_EXACT_ENVS


def test_set_task_that_acts_at_once_is_caught_under_every_seed():
    name = register(RewardsThePinAtOnce)
    for seed in range(12):
        with pytest.raises(TaskEnvError, match="set_task changed the running episode"):
            check_task_env(name, only=["set_task_waits_for_the_next_reset"], seed=seed)


def test_masks_of_a_wasted_step_come_from_info():
    name = "action_masks_agree_with_infos"

    def wasted() -> gym.Env:
        return Trial(gym.make("metarl/RecommendationSmall-v0"), 3, reset_mode="wasted_step")

    assert check_task_env(wasted, only=[name]) == (name,)
    with pytest.raises(TaskEnvError, match="info and action_masks"):
        check_task_env(DisagreesWithItsInfo, only=[name])


def test_rewards_too_rare_to_be_met_are_no_error():
    name = "policy_returns_agree_with_random_play"
    assert check_task_env(lambda: Chain(n_stages=12), only=[name]) == (name,)


def test_unknown_names_and_envs_without_a_spec_are_refused():
    with pytest.raises(ValueError, match="unknown checks"):
        check_task_env(REFERENCE, skip=["nonsense"])
    with pytest.raises(ValueError, match="no spec"):
        check_task_env(ReferenceEnv())
    with pytest.raises(ValueError, match="no spec"):
        check_task_vector_env(ReferenceVectorEnv(2))
    with pytest.raises(TypeError, match="must be an id"):
        check_task_env(3)
    with pytest.raises(TypeError, match="must be an id"):
        check_task_vector_env(3)


def _entry(cls: type) -> str:
    return f"{cls.__module__}:{cls.__name__}"


# The same for vector envs. ---------------------------------------------------------------------


class TupleOfTasks(ReferenceVectorEnv):
    def get_tasks(self) -> Any:
        return tuple(super().get_tasks())


class HidesItsMode(ReferenceVectorEnv):
    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(num_envs, **arguments)
        self.metadata = {"render_modes": [], "autoreset_mode": "SameStep"}


class UnbatchedSpace(ReferenceVectorEnv):
    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(num_envs, **arguments)
        self.observation_space = self.single_observation_space


class ListsInInfos(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        *result, infos = super().step(actions)
        return *result, infos | {"names": ["env"] * self.num_envs}


class Float32Rewards(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, rewards.astype(np.float32), *rest


class ReusesItsArrays(ReferenceVectorEnv):
    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        super().__init__(num_envs, **arguments)
        self.envs.copy = False


class NamesNoTasks(ReferenceVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observations, infos = super().reset(seed=seed, options=options)
        named = ("task", "_task")
        return observations, {name: infos[name] for name in infos if name not in named}


class TinyError(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, np.nextafter(rewards, 10.0), *rest


class RandomNoise(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, rewards + np.random.default_rng().random(), *rest


class IgnoresListsOfSeeds(ReferenceVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return super().reset(seed=seed[0] + 9 if isinstance(seed, list) else seed, options=options)


class SharedRewards(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, rewards + rewards[0], *rest


class OneSeedForAll(ReferenceVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        seed = [seed] * self.num_envs if isinstance(seed, int) else seed
        return super().reset(seed=seed, options=options)


class KeepsTasksOnAutoreset(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        for single in self.singles:
            single.tasks.task_mode = "fixed"
        result = super().step(actions)
        for single in self.singles:
            single.tasks.task_mode = single.task_mode
        return result


class IgnoresFixedMode(ReferenceVectorEnv):
    @staticmethod
    def make_single(task_mode: str, max_episode_steps: int | None) -> Any:
        return ReferenceVectorEnv.make_single("resample", max_episode_steps)


class AutoresetsUnpin(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        self.pin([None] * self.num_envs, range(self.num_envs))
        return super().step(actions)


class PinsForEver(ReferenceVectorEnv):
    def set_tasks(self, tasks: Any, *, indices: Any = None) -> None:
        if all(task is not None for task in tasks):
            super().set_tasks(tasks, indices=indices)


class SortsItsIndices(ReferenceVectorEnv):
    def set_tasks(self, tasks: Any, *, indices: Any = None) -> None:
        super().set_tasks(tasks, indices=None if indices is None else sorted(indices))


class SetsTasksAtOnce(ReferenceVectorEnv):
    def set_tasks(self, tasks: Any, *, indices: Any = None) -> None:
        super().set_tasks(tasks, indices=indices)
        for single in self.singles:
            single.tasks.current = single.tasks.pinned or single.tasks.current


class LastRewardsOfThePin(ReferenceVectorEnv):
    """Swaps tasks silently, and shows it in the reward that ends an episode only."""

    def step(self, actions: Any) -> Any:
        pins = [single.tasks.pinned for single in self.singles]
        running = [single.tasks.current for single in self.singles]
        observations, rewards, terminations, truncations, infos = super().step(actions)
        for row in np.flatnonzero(terminations | truncations):
            if pins[row] is not None and pins[row] is not running[row]:
                rewards[row] += pins[row].values[0]
        return observations, rewards, terminations, truncations, infos


class OptionsPin(ReferenceVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if options and "tasks" in options:
            self.set_tasks(options["tasks"])
        return super().reset(seed=seed)


class DropsFinalObs(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        *result, infos = super().step(actions)
        return *result, {name: infos[name] for name in infos if "final_obs" not in name}


class ResetsEverything(ReferenceVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        options = {name: options[name] for name in options or {} if name != "reset_mask"}
        return super().reset(seed=seed, options=options)


class LosesItsPins(ReferenceVectorEnv):
    def __getstate__(self) -> Any:
        envs = pickle.loads(pickle.dumps(self.envs))
        for env in envs.envs:
            env.unwrapped.set_task(None)
        return self.__dict__ | {"envs": envs}


class PinsBeforeChecking(ReferenceVectorEnv):
    def set_tasks(self, tasks: Any, *, indices: Any = None) -> None:
        super().set_tasks(tasks[:1], indices=[0])
        super().set_tasks(tasks, indices=indices)


class ActsOnTheGoodOnes(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        if not np.isin(actions, range(N_ACTIONS)).all():
            self.envs.step(np.zeros(self.num_envs, int))
        return super().step(actions)


class ClipsVectorActions(ReferenceVectorEnv):
    def step(self, actions: Any) -> Any:
        actions = np.resize(np.nan_to_num(np.asarray(actions, float)), self.num_envs)
        return super().step(np.clip(actions, 0, N_ACTIONS - 1).astype(int))


class GlobalNoise(ReferenceVectorEnv):
    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        np.random.seed(0)
        return super().reset(seed=seed, options=options)


class ShowsItsState(ChainFamily):
    def observe(self, states: Any, stages: Any) -> Any:
        return states


class StepsInPlace(ChainFamily):
    def step(self, params: Any, states: Any, *rest: Any) -> Any:
        following, *others = super().step(params, states, *rest)
        states[:] = following
        return (following, *others)


class DependsOnTheBatch(ChainFamily):
    def step(self, *arguments: Any) -> Any:
        following, rewards, terminated = super().step(*arguments)
        return following, rewards + len(rewards), terminated


class ForgetsWhatEnds(ChainFamily):
    def step(self, *arguments: Any) -> Any:
        return super().step(*arguments)[:2]


class IntegerRewards(ChainFamily):
    def step(self, *arguments: Any) -> Any:
        following, rewards, terminated = super().step(*arguments)
        return following, rewards.astype(int), terminated


BROKEN_FAMILIES = [
    (ShowsItsState, "copy"),
    (StepsInPlace, "in place"),
    (DependsOnTheBatch, "row 0 alone"),
    (ForgetsWhatEnds, "must return"),
    (IntegerRewards, "float64"),
]


@pytest.mark.parametrize(("family", "message"), BROKEN_FAMILIES)
def test_the_check_of_families_says_what_a_method_does_wrong(family, message):
    name = "family_methods_are_batched_and_pure"

    def make(num_envs: int) -> Any:
        return FamilyVectorEnv(num_envs, family=family())

    with pytest.raises(TaskEnvError, match=f"^{name}: .*{message}"):
        check_task_vector_env(make, only=[name])


BROKEN_VECTOR = {
    "family_methods_are_batched_and_pure": [],  # see above: the reference is not made of a Family
    "vector_env_has_the_task_interface": [TupleOfTasks],
    "autoreset_mode_is_explicit": [HidesItsMode],
    "spaces_are_batched": [UnbatchedSpace],
    "results_are_arrays": [ListsInInfos, Float32Rewards],
    "results_are_not_overwritten": [ReusesItsArrays],
    "infos_name_the_tasks": [NamesNoTasks],
    "vector_env_equals_single_envs": [TinyError, DropsFinalObs],
    "same_seed_gives_the_same_rollout": [RandomNoise, IgnoresListsOfSeeds],
    "sub_environments_are_independent": [SharedRewards],
    "sub_environments_meet_their_own_tasks": [OneSeedForAll],
    "autoresets_draw_new_tasks": [KeepsTasksOnAutoreset, IgnoresFixedMode],
    "set_tasks_pins_through_autoresets": [AutoresetsUnpin, PinsForEver],
    "set_tasks_reaches_only_its_indices": [SortsItsIndices],
    "set_tasks_waits_for_the_next_reset": [SetsTasksAtOnce, LastRewardsOfThePin],
    "reset_option_sets_one_episode": [OptionsPin],
    "final_observations_are_kept": [DropsFinalObs],
    "partial_resets_leave_the_others_alone": [ResetsEverything],
    "vector_env_pickled_in_mid_episode_continues": [LosesItsPins],
    "bad_tasks_are_refused": [PinsBeforeChecking],
    "bad_actions_are_refused": [ActsOnTheGoodOnes, ClipsVectorActions],
    "global_generators_are_left_alone": [GlobalNoise],
    "vector_spec_survives_json": [],
}
OF_FAMILIES = "family_methods_are_batched_and_pure"
VECTOR_CASES = [(name, env) for name, envs in BROKEN_VECTOR.items() for env in envs]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_family_that_keeps_the_laws_passes_in_every_mode(mode):
    env = gym.make_vec(
        REFERENCE, num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode=mode.value
    )
    ran = check_task_vector_env(env)
    missing = TASK_VECTOR_ENV_CHECKS.keys() - set(ran)
    assert missing - {"final_observations_are_kept"} == {OF_FAMILIES}
    assert ("final_observations_are_kept" in missing) == (mode is not AutoresetMode.SAME_STEP)


def test_a_vector_class_passes_with_a_factory_of_the_single_env():
    ran = check_task_vector_env(ReferenceVectorEnv, single=ReferenceEnv)
    assert TASK_VECTOR_ENV_CHECKS.keys() - set(ran) == {"vector_spec_survives_json", OF_FAMILIES}


@pytest.mark.filterwarnings("ignore:.*is not an instance of AutoresetMode")
@pytest.mark.parametrize(("name", "env"), VECTOR_CASES)
def test_vector_check_fails_on_a_family_that_breaks_its_law(name, env):
    with pytest.raises(TaskEnvError, match=f"^{name}: ") as caught:
        check_task_vector_env(register(ReferenceEnv, env), only=[name])
    assert isinstance(caught.value.__cause__, TaskEnvError), "the env crashed instead"


def test_vector_check_fails_where_the_entry_point_is_no_string():
    name = register(ReferenceEnv, SyncVectorEnv, vector_entry_point=ReferenceVectorEnv)
    with pytest.raises(TaskEnvError, match="to_json"):
        check_task_vector_env(name, only=["vector_spec_survives_json"])
