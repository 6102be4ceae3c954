"""Every registered id refuses what it cannot use, and then goes on as if nobody had asked.

`test_envs.py` has what every id must do; here is what must not happen to it, whatever users do.
"""

import copy
import dataclasses
import inspect
import math
import pickle
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metarl_envs
from metarl_envs.core import task_id
from metarl_envs.distributions import prior_tasks

ROOT = Path(__file__).parents[2]
IDS = sorted(metarl_envs.FAMILIES)
N_ENVS = 3
KINDS = ("single", "vector", "single trials", "vector trials")
NAN, INF = math.nan, math.inf
BEYOND_FLOATS = 10**400

every_id = pytest.mark.parametrize("env_id", IDS)
every_kind = pytest.mark.parametrize("kind", KINDS)
quick = partial(
    settings,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
pytestmark = pytest.mark.filterwarnings("error")


def make(env_id, kind, **arguments):
    if "trials" in kind:
        arguments["episodes_per_trial"] = 2
    if "vector" in kind:
        mode = "vector_entry_point"
        return gym.make_vec(env_id, num_envs=N_ENVS, vectorization_mode=mode, **arguments)
    return gym.make(env_id, disable_env_checker=True, **arguments)


def member(env, name):
    return env.get_wrapper_attr(name) if isinstance(env, gym.Env) else getattr(env, name)


def is_vector(env):
    return isinstance(env, gym.vector.VectorEnv)


def single_space(env):
    return env.single_action_space if is_vector(env) else env.action_space


def good_action(env, rng):
    """Of the dtype that needs no conversion, (B, *action_shape) or (*action_shape)."""
    space = single_space(env)
    shape = ((env.num_envs,) if is_vector(env) else ()) + space.shape
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(rng.integers(space.start, space.start + space.n, shape))
    # Multiples of powers of two are the same numbers in every floating dtype.
    unit = 2.0 ** (np.floor(np.log2(np.minimum(space.high, -space.low).min())) - 3)
    return (rng.integers(-8, 9, shape) * unit).astype(space.dtype)


def unpin(env):
    if is_vector(env):
        env.set_tasks([None] * env.num_envs)
    else:
        member(env, "set_task")(None)


class Twins:
    """Two envs that have been through the same; only one of them is asked for nonsense."""

    def __init__(self, env_id, kind):
        self.asked, self.other = make(env_id, kind), make(env_id, kind)

    def begin(self, seed, n_steps=0):
        """A new episode, `n_steps` (at most) into it."""
        self.rng = np.random.default_rng(seed)
        self.is_over = False
        for env in (self.asked, self.other):
            # Whatever an earlier test that failed has left behind.
            unpin(env)
        self._both(partial(reset, seed=seed))
        for _ in range(n_steps):
            self.step()
        self._run_on()
        return self

    def refuse(self, name, *args, errors=(ValueError, TypeError), **kwargs):
        """One of them is asked to do what it cannot do."""
        with pytest.raises(errors):
            member(self.asked, name)(*args, **kwargs)

    def step(self, asked_action=None):
        """One step of each, which must be the same one."""
        self._run_on()
        action = good_action(self.other, self.rng)
        asked_action = action if asked_action is None else asked_action(action)
        left, right = self.asked.step(asked_action), self.other.step(action)
        assert data_equivalence(left, right, exact=True), (left, right)
        self.is_over = not is_vector(self.other) and bool(right[2] or right[3])

    def assert_same(self):
        """Nothing has changed: neither this episode nor the next one, nor what tasks come."""
        self.step()
        name = "pinned_tasks" if is_vector(self.other) else "pinned_task"
        assert member(self.asked.unwrapped, name) == member(self.other.unwrapped, name)
        self._both(reset)
        self.step()
        self._both(lambda env: member(env, "sample_tasks")(1))

    def _run_on(self):
        if self.is_over:
            self._both(reset)
            self.is_over = False

    def _both(self, call):
        left, right = call(self.asked), call(self.other)
        assert data_equivalence(left, right, exact=True), (left, right)


twins = cache(Twins)


# Actions.


@st.composite
def bad_actions(draw, env):
    """Of a wrong value, shape, dtype, or no array at all."""
    good = good_action(env, np.random.default_rng(draw(st.integers(0, 9))))
    space = single_space(env)
    is_discrete = isinstance(space, gym.spaces.Discrete)
    kind = draw(st.sampled_from(["value", "shape", "dtype", "thing"]))
    if kind == "value":
        outside = [-1, 10**6, 2**63, 10**30, BEYOND_FLOATS, 0.5, 1.0, np.float32(1.0)]
        if not is_discrete:
            most = float(np.abs([space.low, space.high]).max())
            outside = [1.001 * most, -1.5 * most, 10**30, BEYOND_FLOATS]
        outside += [NAN, INF, -INF, 1j, "0", b"0", "junk", None, (), np.datetime64(0, "s")]
        return with_one(good, draw(st.sampled_from(outside)), draw(st.integers(0, good.size - 1)))
    if kind == "shape":
        shape = draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
        shape = (*good.shape, 1) if shape == good.shape else shape
        array = np.zeros(shape, good.dtype)
        return array.tolist() if draw(st.booleans()) else array
    if kind == "dtype":
        dtypes = [bool, complex, str, bytes, object, "M8[s]", "m8[s]", "V8"]
        return good.astype(draw(st.sampled_from([*dtypes, float] if is_discrete else dtypes)))
    ragged = [[0], [0, 1]]
    things = [None, "junk", {}, {"a": 0}, set(), object(), int, ragged, iter([0]), NAN, [None]]
    return draw(st.sampled_from(things))


def with_one(good, value, position):
    """`good` as nested lists, with another value at one position."""
    if not good.ndim:
        return value
    array = good.astype(object)
    array.flat[position] = value
    return array.tolist()


@every_kind
@every_id
@given(data=st.data(), n_steps=st.integers(0, 2))
@quick(max_examples=8)
def test_bad_actions_are_refused_and_leave_no_trace(env_id, kind, data, n_steps):
    pair = twins(env_id, kind).begin(seed=n_steps, n_steps=n_steps)
    for action in data.draw(st.lists(bad_actions(pair.asked), min_size=3, max_size=3)):
        pair.refuse("step", action)
    pair.assert_same()


def wide(array):
    """Every second element of a larger array."""
    larger = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    larger[..., ::2] = array
    return larger[..., ::2]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS = {
    "list": lambda action: action.tolist(),
    "Fortran order": lambda action: np.array(action, order="F"),
    "not contiguous": lambda action: wide(action) if action.ndim else action,
    "backwards": lambda action: action[::-1].copy()[::-1] if action.ndim else action,
    "read-only": read_only,
    "scalar": lambda action: action[()],
    "NumPy's scalars": lambda action: list(action) if action.ndim else action[()],
}
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i8", ">i2")
FLOATS = ("f2", "f4", "f8", ">f4", "longdouble")


@every_kind
@every_id
def test_actions_of_any_form_and_dtype_give_the_same_step(env_id, kind):
    pair = twins(env_id, kind).begin(seed=0)
    is_discrete = isinstance(single_space(pair.asked), gym.spaces.Discrete)
    dtypes = INTEGERS if is_discrete else FLOATS
    for change in [*FORMS.values(), *(lambda a, d=dtype: a.astype(d) for dtype in dtypes)]:
        pair.step(change)
    pair.assert_same()


@every_id
def test_whole_actions_of_a_box_may_be_integers(env_id):
    pair = twins(env_id, "vector").begin(seed=0)
    if isinstance(single_space(pair.asked), gym.spaces.Discrete):
        return  # most ids: they would drown the report as skips
    for dtype in ("i1", "i8"):
        whole = np.trunc(pair.asked.action_space.high)
        left, right = pair.asked.step(whole.astype(dtype)), pair.other.step(whole)
        assert data_equivalence(left, right, exact=True)


MODES_OF_KINDS = [
    *(("single", None), ("single trials", None)),
    *((kind, mode) for kind in ("vector", "vector trials") for mode in AutoresetMode),
]


@pytest.mark.parametrize(("kind", "mode"), MODES_OF_KINDS)
@every_id
def test_callers_may_overwrite_what_they_gave_and_got(env_id, kind, mode):
    arguments = {} if mode is None else {"autoreset_mode": mode}
    reckless, careful = (make(env_id, kind, **arguments) for _ in range(2))
    rng = np.random.default_rng(0)
    dones = play_recklessly(reckless, careful, partial(reset, seed=1))
    for _ in range(min(member(careful, "family").horizon, 25) + 3):
        if mode is AutoresetMode.DISABLED:
            # Not all are reset at once, and what the others show is what they showed.
            dones = dones if dones.any() else rng.permutation([True, False, False])
            options = {"reset_mask": dones}
            play_recklessly(reckless, careful, partial(reset, options=options))
        elif mode is None and dones:
            play_recklessly(reckless, careful, reset)
        action = good_action(careful, rng)
        dones = play_recklessly(reckless, careful, lambda env, a: env.step(a), action)


def reset(env, **arguments):
    return env.reset(**arguments)


def play_recklessly(reckless, careful, play, *action):
    """The same with both; then all arrays of one are overwritten. Which episodes are over."""
    given = copy.deepcopy(action)
    left, right = play(reckless, *given), play(careful, *action)
    assert data_equivalence(left, right, exact=True), (left, right)
    dones = np.array(right[2] | right[3] if len(right) == 5 else False)
    *arrays, infos = left
    # A partial reset tells again of inner episodes that ended, in the same arrays.
    infos = [value for name, value in infos.items() if "inner" not in name]
    scramble((arrays, infos, given))
    return dones


def scramble(value):
    """Overwrites all arrays that are somewhere in a value."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            scramble(item)
    elif isinstance(value, np.ndarray) and value.dtype != object and value.flags.writeable:
        value[...] = 1 - value if value.dtype != np.bool_ else ~value
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for item in value.ravel():
            scramble(item)


# Seeds and options of a reset.

BAD_SEEDS = (-1, -(10**30), 1.5, 2.0, "0", b"0", NAN, INF, 1j, {}, set(), object(), int, [[0]])
BAD_SEEDS_OF_SINGLE = (*BAD_SEEDS, [0], [0] * N_ENVS, (0,), [])
BAD_SEEDS_OF_VECTOR = (
    *(*BAD_SEEDS, True, "012", [], [0], [0] * 2, [0] * 4, [0, None, -1], [0, "1", 2], [0, 1.0, 2]),
    *([True, 1, 2], [0, NAN, 1], [[0], [1], [2]], np.zeros((3, 1), int), np.zeros(3), np.ones(3)),
    *(np.ones(3, bool), np.array(0), {0: 1, 1: 2, 2: 3}, iter([0, 1, 2])),
)
SEED_ERRORS = (ValueError, TypeError, gym.error.Error)


@every_kind
@every_id
def test_bad_seeds_are_refused_and_reseed_nothing(env_id, kind):
    pair = twins(env_id, kind).begin(seed=0, n_steps=1)
    seeds = BAD_SEEDS_OF_VECTOR if "vector" in kind else BAD_SEEDS_OF_SINGLE
    for seed in seeds:
        # Gymnasium's own error is what it documents for single envs.
        errors = SEED_ERRORS if "single" in kind else (ValueError, TypeError)
        pair.refuse("reset", seed=seed, errors=errors)
    pair.assert_same()
    for seed in seeds[:6]:
        pair.refuse("sample_tasks", 1, seed=seed)
    pair.assert_same()


@every_id
def test_sub_environments_may_be_seeded_one_by_one(env_id):
    pair = twins(env_id, "vector").begin(seed=0)
    left, right = pair.asked.reset(seed=[4, None, 6]), pair.other.reset(seed=(4, None, np.int64(6)))
    assert data_equivalence(left, right, exact=True)
    pair.assert_same()


@every_kind
@every_id
def test_unknown_options_change_nothing(env_id, kind):
    pair = twins(env_id, kind)
    unknown = ({"unknown": 1}, {1: 2}, {"low": -1.0, "high": 1.0}, {}, {"task": None})
    for options in unknown + (({"reset_mask": None},) if "vector" in kind else ()):
        left = pair.asked.reset(seed=3, options=options)
        assert data_equivalence(left, pair.other.reset(seed=3), exact=True)
    pair.begin(seed=0).assert_same()


BAD_MASKS = (
    *(True, False, [], [True], [True] * 2, [True] * 4, [False] * 3, [1, 0, 1], [True, None, False]),
    *(np.ones(3), np.ones(3, int), np.ones((3, 1), bool), [[True] * 3], ["a", "b", "c"], "abc", 5),
    *({}, object(), int, NAN, np.array([True, False, True], object), [[True], [True, False]]),
)


@pytest.mark.parametrize("kind", ["vector", "vector trials"])
@every_id
def test_bad_reset_masks_are_refused_and_reset_nothing(env_id, kind):
    pair = twins(env_id, kind).begin(seed=0, n_steps=2)
    for mask in BAD_MASKS:
        pair.refuse("reset", seed=5, options={"reset_mask": mask})
    pair.assert_same()


# Tasks.


@cache
def distribution_of(env_id):
    return make(env_id, "single").unwrapped.task_distribution


@cache
def some_task(env_id):
    return distribution_of(env_id).sample(np.random.default_rng(0))


@cache
def bad_tasks(env_id):
    """What is no task of the family, although some of it looks like one."""
    own = some_task(env_id)
    others = [some_task(other) for other in IDS]
    foreign = [task for task in others if type(task) is not type(own)]
    things = [0, 1.5, "junk", b"junk", [own], (own,), type(own), own.to_array(), {}, object(), NAN]
    return (*things, True, lambda: own, *foreign, *_broken(own, distribution_of(env_id).space))


def _broken(task, space):
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        for bad in (NAN, INF, -INF, None, "x", object(), 1j, {}, (NAN,), BEYOND_FLOATS, [0.0, 0.0]):
            yield dataclasses.replace(task, **{field.name: bad})
        for bad in (NAN, INF, None, "x", 1j, (0.0,), BEYOND_FLOATS):
            yield dataclasses.replace(task, **{field.name: _with_first(value, bad)})
        yield dataclasses.replace(task, **{field.name: np.asarray(value)})
        for outside in (1e6, -1e6):
            moved = dataclasses.replace(task, **{field.name: _with_first(value, outside)})
            if not space.contains(moved.to_array()):
                yield moved


def _with_first(value, first):
    """A nested tuple with another first number."""
    if not isinstance(value, tuple):
        return first
    return (_with_first(value[0], first), *value[1:])


@every_kind
@every_id
@given(data=st.data(), n_steps=st.integers(0, 2))
@quick(max_examples=4)
def test_bad_tasks_are_refused_and_change_nothing(env_id, kind, data, n_steps):
    pair = twins(env_id, kind).begin(seed=n_steps, n_steps=n_steps)
    a_bad_task = st.sampled_from(bad_tasks(env_id))
    for task in data.draw(st.lists(a_bad_task, min_size=8, max_size=8)):
        pair.refuse("reset", seed=9, options={"task": task})
        if "vector" in kind:
            several = [some_task(env_id), None, task]
            pair.refuse("set_tasks", several)
            pair.refuse("reset", seed=9, options={"tasks": several})
        else:
            pair.refuse("set_task", task)
    pair.assert_same()


@every_id
def test_no_bad_task_is_left_out(env_id):
    distribution = distribution_of(env_id)
    for task in bad_tasks(env_id):
        with pytest.raises((ValueError, TypeError)):
            metarl_envs.distributions.check_task(distribution, task)


BAD_LISTS = (None, 5, "abc", [], {}, object(), int, NAN, np.zeros(3), np.zeros((3, 2)), True)
BAD_INDICES = (
    *(5, "abc", "0", [1.5], [NAN], [INF], [1j], ["0"], [None], [True], [-1], [3], [[0]], [0, 1]),
    *([], {}, object(), int, np.array([0.5]), np.array([True, False, False]), [BEYOND_FLOATS]),
)


@pytest.mark.parametrize("kind", ["vector", "vector trials"])
@every_id
def test_bad_lists_of_tasks_and_indices_are_refused(env_id, kind):
    pair = twins(env_id, kind).begin(seed=0, n_steps=1)
    own = some_task(env_id)
    for tasks in (*BAD_LISTS, own, [own] * 2, [own] * 4, [None] * 2, [[own] * 3]):
        pair.refuse("set_tasks", tasks)
        pair.refuse("reset", options={"tasks": tasks})
    for indices in BAD_INDICES:
        pair.refuse("set_tasks", [own], indices=indices)
    pair.assert_same()


BAD_COUNTS = (-1, 1.5, 1.0, True, "1", None, NAN, INF, [], [1], np.array([1]), 1j, object(), int)
BAD_SPLITS = ("junk", "", None, 0, [], {}, ("train",), b"train", object(), np.array(["train", "x"]))


@every_kind
@every_id
def test_bad_requests_for_samples_are_refused_and_draw_nothing(env_id, kind):
    pair = twins(env_id, kind).begin(seed=0, n_steps=1)
    for seed in (None, 0):
        for n in BAD_COUNTS:
            pair.refuse("sample_tasks", n, seed=seed)
        for split in BAD_SPLITS:
            pair.refuse("sample_tasks", 2, seed=seed, split=split)
    pair.assert_same()


@every_id
def test_bad_arrays_are_no_tasks(env_id):
    distribution = distribution_of(env_id)
    good = some_task(env_id).to_array()
    dtypes = [complex, str, bytes, object, "M8[s]", "m8[s]", "V8"]
    wrong_dtypes = [good.astype(dtype) for dtype in dtypes]
    wrong_shapes = [good[None], good[:, None], np.append(good, 0.0), good[:-1], np.zeros(0)]
    lists = [[bad] * good.size for bad in (None, "0.5", 1j, BEYOND_FLOATS, NAN, INF, [0], {})]
    things = [None, "junk", 0, [], {}, object(), int, set(), iter([1.0]), [[0], [0, 0]]]
    values = [with_one(good, bad, position) for bad in (NAN, INF, -INF) for position in (0, -1)]
    space = distribution.space
    # Infinite bounds stay infinite, and then what they give is bad, too.
    values += [space.high + 0.5, space.low - 0.5, np.nextafter(space.high, INF)]
    for array in (*wrong_dtypes, *wrong_shapes, *lists, *things, *values):
        with pytest.raises(ValueError):
            distribution.from_array(array)


@every_id
@given(seed=st.integers(0, 2**63 - 1))
@quick(max_examples=5)
def test_tasks_survive_copies_and_the_vector_env(env_id, seed):
    env = twins(env_id, "vector").other
    tasks = env.sample_tasks(N_ENVS, seed=seed)
    for copied in ([copy.copy(task) for task in tasks], copy.deepcopy(tasks)):
        assert copied == tasks
        assert list(map(hash, copied)) == list(map(hash, tasks))
    env.set_tasks(tasks)
    try:
        _, infos = env.reset(seed=seed)
    finally:
        unpin(env)
    assert env.get_tasks() == list(infos["task"]) == tasks
    assert infos["task_id"].tolist() == list(map(task_id, tasks))


# Constructors.

JUNK = (
    *("junk", "", b"x", -1, 0, 1, 2, 1.5, -0.5, 0.0, NAN, INF, -INF, 1j, True, False, None),
    *([], {}, (), [0.5], [[]], [["a"]], (0.5, 0.1), (NAN, NAN), ("a", "b"), (0, 0), (-1, 0)),
    *(np.array([0.5, 0.5]), np.array([]), np.array(["a"]), object(), int),
)


@cache
def constructor_arguments(env_class):
    parameters = inspect.signature(env_class.family_class.__init__).parameters
    return {name: item for name, item in parameters.items() if name != "self"}


@every_id
def test_constructors_take_or_refuse_an_argument_by_name(env_id):
    row, env_class = metarl_envs.FAMILIES[env_id], type(make(env_id, "single").unwrapped)
    for name, parameter in constructor_arguments(env_class).items():
        # Integers that large are refused where a number is wanted; as a count they cost memory.
        is_number = isinstance(parameter.default, float)
        for value in (*JUNK, BEYOND_FLOATS) if is_number else JUNK:
            try:
                env = env_class(**{**row.kwargs, name: value})
            except (ValueError, TypeError) as error:
                assert name in str(error), f"{name}={value!r}: {error}"
            else:
                assert_sane(env, f"{name}={value!r}")


def assert_sane(env, what):
    rng = np.random.default_rng(0)
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        is_over = False
        for _ in range(20):
            assert env.observation_space.contains(observation), (what, observation)
            if is_over:
                break
            observation, reward, terminated, truncated, _ = env.step(good_action(env, rng))
            assert math.isfinite(reward), (what, reward)
            is_over = terminated or truncated
    if hasattr(env, "optimal_return"):
        assert math.isfinite(env.optimal_return(env.get_task())), what


# Which of the junk is none.
OPTIONS = {
    "task_mode": (),
    "render_mode": (None,),
    "family": (None,),
    "reset_mode": (),
    "observe_transitions": (True, False),
    "reward_scale": (1, 1.5, 2, True),
    "episodes_per_trial": (None, 1, 2),
    "num_envs": (1, 2),
    "max_episode_steps": (None, -1, 1, 2),
}
OF_VECTOR = {"num_envs", "max_episode_steps"}
OF_TRIALS = {"reset_mode", "observe_transitions", "reward_scale"}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("is_of_vector", [False, True])
def test_options_of_every_env_are_taken_or_refused_by_name(name, is_of_vector):
    if name in OF_VECTOR and not is_of_vector:
        return
    kind = "vector" if is_of_vector else "single"
    env_class = type(make("metarl/GridGoal-v0", kind).unwrapped)
    others = {"episodes_per_trial": 2} if name in OF_TRIALS else {}
    for value in JUNK:
        if isinstance(value, np.ndarray):
            continue
        if any(type(value) is type(good) and value == good for good in OPTIONS[name]):
            env_class(**others, **{name: value}).reset(seed=0)
        else:
            with pytest.raises((ValueError, TypeError), match=name):
                env_class(**others, **{name: value})


# Streams of tasks.


def is_continuous(env_id):
    distribution = distribution_of(env_id)
    rng = np.random.default_rng(0)
    arrays = np.array([distribution.sample(rng).to_array() for _ in range(64)])
    return not np.all(arrays == np.round(arrays)) and len(np.unique(arrays, axis=0)) == 64


@every_id
def test_no_two_sub_environments_share_a_task_of_a_continuous_family(env_id):
    if not is_continuous(env_id):
        return
    # Sub-environment i of seed s is that of seed s + i: these are 64 different ones.
    env = gym.make_vec(env_id, num_envs=8, vectorization_mode="vector_entry_point")
    ids = []
    for seed in range(0, 64, 8):
        for episode in range(20):
            _, infos = env.reset(seed=seed if episode == 0 else None)
            ids.extend(infos["task_id"].tolist())
    assert len(set(ids)) == len(ids) == 64 * 20


@every_id
def test_episodes_and_samples_of_one_seed_share_no_task_of_a_continuous_family(env_id):
    if not is_continuous(env_id):
        return
    env = make(env_id, "single").unwrapped
    for seed in range(4):
        met = [env.reset(seed=seed if i == 0 else None)[1]["task_id"] for i in range(20)]
        asked = [
            *env.sample_tasks(20, seed=seed, split="train"),
            *env.sample_tasks(20, seed=seed, split="test"),
            *prior_tasks(env.task_distribution, 20, seed=seed),
        ]
        ids = [*met, *map(task_id, asked)]
        assert len(set(ids)) == len(ids) == 80


# Other processes, and copies in the middle of an episode.

ROLLOUTS = """
import hashlib, sys
import gymnasium as gym
import numpy as np
import metarl_envs

def fingerprint(env_id, **arguments):
    env = gym.make_vec(
        env_id, num_envs=4, vectorization_mode="vector_entry_point", **arguments
    )
    env.action_space.seed(5)
    observations, infos = env.reset(seed=5)
    digest = hashlib.blake2b(observations.tobytes() + infos["task_id"].tobytes(), digest_size=8)
    for _ in range(60):
        observations, rewards, _, _, infos = env.step(env.action_space.sample())
        for part in (observations, rewards, infos["task_id"]):
            digest.update(np.ascontiguousarray(part).tobytes())
    task = env.sample_tasks(1, seed=5)[0]
    return digest.hexdigest(), metarl_envs.core.task_id(task)
"""
PRINT_ROLLOUTS = """
for env_id in sys.argv[1:]:
    print(env_id, fingerprint(env_id), fingerprint(env_id, episodes_per_trial=2))
"""


def test_another_process_has_the_same_rollouts_and_names_of_tasks():
    command = [sys.executable, "-W", "error", "-c", ROLLOUTS + PRINT_ROLLOUTS, *IDS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = {}
    exec(ROLLOUTS, here)
    fingerprint = here["fingerprint"]
    expected = [f"{i} {fingerprint(i)} {fingerprint(i, episodes_per_trial=2)}" for i in IDS]
    assert done.stdout.splitlines() == expected


COPIES = {"pickle": lambda env: pickle.loads(pickle.dumps(env)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("duplicate", COPIES)
@every_kind
@every_id
def test_copies_in_the_middle_of_an_episode_continue(env_id, kind, duplicate):
    horizon = min(member(twins(env_id, kind).other, "family").horizon, 40)
    # Within trials, a second episode has begun after the latter, unless the horizon is long.
    for n_steps in (1, horizon):
        pair = Twins(env_id, kind).begin(seed=n_steps, n_steps=n_steps)
        pair.asked = COPIES[duplicate](pair.other)
        for _ in range(3):
            pair.step()
        pair.assert_same()


@pytest.mark.parametrize("kind", ["vector", "vector trials"])
@every_id
def test_a_step_that_needs_a_reset_leaves_no_trace(env_id, kind):
    envs = [make(env_id, kind, autoreset_mode=AutoresetMode.DISABLED) for _ in range(2)]
    rng = np.random.default_rng(0)
    for env in envs:
        env.reset(seed=0)
        env.step(good_action(env, np.random.default_rng(1)))
        # The others will be done before this one, or some of them.
        env.reset(options={"reset_mask": np.arange(N_ENVS) == 0})
    done = np.zeros(N_ENVS, dtype=np.bool_)
    while not done.any():
        action = good_action(envs[0], rng)
        left, right = (env.step(action) for env in envs)
        assert data_equivalence(left, right, exact=True)
        done = right[2] | right[3]
    refused = np.where(action == 0, 1, 0).astype(action.dtype)
    if action.dtype.kind == "f":
        refused = np.zeros_like(action)
    with pytest.raises(gym.error.ResetNeeded):
        envs[0].step(refused)
    left, right = (env.reset(options={"reset_mask": done}) for env in envs)
    assert data_equivalence(left, right, exact=True)
