import pickle
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.core import TupleTask
from metarl_envs.distributions import (
    FiniteTasks,
    GaussianTasks,
    TaskStream,
    UniformTasks,
    check_task,
    prior_tasks,
    sample_tasks,
    task_rng,
)


@dataclass(frozen=True)
class Point(TupleTask):
    coordinates: tuple[float, ...]


@dataclass(frozen=True)
class Stranger(TupleTask):
    coordinates: tuple[float, ...]


def make_point(array):
    return Point(tuple(array.tolist()))


UNIFORM = UniformTasks(make_point, [-1.0, 0.0], [1.0, 2.0])
GAUSSIAN = GaussianTasks(make_point, [1.0, -1.0], 0.5)
FINITE = FiniteTasks([Point((0.0, 1.0)), Point((1.0, 0.0)), Point((1.0, 1.0))])
ALL = {"uniform": UNIFORM, "gaussian": GAUSSIAN, "finite": FINITE}


@pytest.mark.parametrize("distribution", ALL.values(), ids=ALL)
def test_arrays_lie_in_the_space_and_lead_back_to_the_task(distribution):
    for task in sample_tasks(distribution, 20, seed=3):
        assert distribution.space.contains(task.to_array())
        assert distribution.from_array(task.to_array()) == task
        assert pickle.loads(pickle.dumps(task)) == task
        assert check_task(distribution, task) is task


@pytest.mark.parametrize("distribution", ALL.values(), ids=ALL)
def test_distribution_survives_pickle(distribution):
    copy = pickle.loads(pickle.dumps(distribution))
    assert sample_tasks(copy, 5, seed=0) == sample_tasks(distribution, 5, seed=0)


@pytest.mark.parametrize("distribution", [UNIFORM, GAUSSIAN])
@pytest.mark.parametrize(
    "array", [[np.nan, 0.0], [np.inf, 0.0], [0.0], [[0.0, 0.0]], ["a", "b"], None]
)
def test_from_array_refuses_what_is_no_task(distribution, array):
    with pytest.raises(ValueError, match="task"):
        distribution.from_array(array)


def test_uniform_tasks_refuse_what_lies_outside():
    with pytest.raises(ValueError, match="outside"):
        UNIFORM.from_array(np.array([0.0, 2.5]))
    with pytest.raises(ValueError, match="low"):
        UniformTasks(make_point, 1.0, 0.0)


def test_finite_tasks_refuse_what_is_not_in_the_set():
    with pytest.raises(ValueError, match="none of the 3 tasks"):
        FINITE.from_array(np.array([0.0, 0.0]))
    with pytest.raises(ValueError, match="empty"):
        FiniteTasks([])
    with pytest.raises(ValueError, match="probabilities"):
        FiniteTasks([Point((0.0,))], [0.5])


def test_finite_tasks_follow_their_probabilities():
    tasks = FiniteTasks(FINITE.tasks, [0.5, 0.5, 0.0])
    drawn = sample_tasks(tasks, 400, seed=0)
    assert set(drawn) == set(FINITE.tasks[:2])
    # Four standard deviations of a fair coin thrown 400 times.
    assert abs(drawn.count(FINITE.tasks[0]) - 200) < 40


def test_gaussian_tasks_have_the_covariance_of_the_factor():
    factor = np.array([[1.0, 0.0], [0.6, 0.8]])
    arrays = np.stack(
        [t.to_array() for t in sample_tasks(GaussianTasks(make_point, [0, 0], factor=factor), 4000)]
    )
    np.testing.assert_allclose(np.cov(arrays.T), factor @ factor.T, atol=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"std": 1.0, "factor": np.eye(2)},
        {"std": -1.0},
        {"std": np.inf},
        {"factor": np.eye(3)},
        {"factor": np.full((2, 2), np.nan)},
    ],
)
def test_gaussian_tasks_refuse_bad_spreads(arguments):
    with pytest.raises(ValueError, match=r"std|factor"):
        GaussianTasks(make_point, [0.0, 0.0], **arguments)


def test_fewer_tasks_are_the_first_of_more():
    assert sample_tasks(GAUSSIAN, 9, seed=4)[:3] == sample_tasks(GAUSSIAN, 3, seed=4)


def test_train_test_prior_and_episode_streams_of_one_seed_are_disjoint():
    stream = TaskStream(GAUSSIAN)
    stream.seed(7)
    groups = [
        sample_tasks(GAUSSIAN, 50, seed=7, split="train"),
        sample_tasks(GAUSSIAN, 50, seed=7, split="test"),
        prior_tasks(GAUSSIAN, 50, 7),
        [stream.begin_episode() for _ in range(50)],
    ]
    assert len({task for group in groups for task in group}) == 200


@pytest.mark.parametrize("arguments", [{"n": -1}, {"n": 1.5}, {"n": 1, "split": "validation"}])
def test_sample_tasks_refuses_bad_requests(arguments):
    with pytest.raises(ValueError, match=r"n=|split="):
        sample_tasks(GAUSSIAN, **arguments)


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ((1.0, 2.0), TypeError),
        (Stranger((0.0, 0.0)), ValueError),
        (Point((np.nan, 0.0)), ValueError),
        (Point((0.0, 0.0, 0.0)), ValueError),
    ],
)
def test_check_task_refuses_what_is_no_task_of_the_family(task, error):
    with pytest.raises(error, match="task"):
        check_task(GAUSSIAN, task)


@pytest.mark.parametrize("seed", [None, -1, 1.5, "0", True])
def test_streams_need_a_seed(seed):
    for draw in (
        lambda: sample_tasks(GAUSSIAN, 2, seed=seed),
        lambda: prior_tasks(GAUSSIAN, 2, seed),
    ):
        with pytest.raises(ValueError, match="seed="):
            draw()


def test_task_streams_have_a_namespace_of_their_own():
    drawn = {task_rng(0, key).random() for key in range(8)}
    others = {
        np.random.default_rng(np.random.SeedSequence(0, spawn_key=spawn_key)).random()
        for spawn_key in [(), *((key,) for key in [*range(8), 0x7A5C])]
    }
    assert not drawn & others


@pytest.mark.parametrize("coordinates", [np.zeros(2), [0.0, 0.0], ((0.0, 0.0),)])
def test_check_task_refuses_tasks_that_are_built_otherwise(coordinates):
    with pytest.raises(ValueError, match="from_array"):
        check_task(GAUSSIAN, Point(coordinates))


def test_an_array_of_one_number_is_no_task_either():
    single = GaussianTasks(make_point, [0.0], 1.0)
    with pytest.raises(ValueError, match="from_array"):
        check_task(single, Point(np.zeros(1)))


def seeded_stream(**arguments):
    stream = TaskStream(GAUSSIAN, **arguments)
    stream.seed(0)
    return stream


def test_stream_resamples_for_every_episode():
    stream = seeded_stream()
    assert len({stream.begin_episode() for _ in range(100)}) == 100


def test_fixed_stream_keeps_its_first_task_through_reseeding():
    stream = seeded_stream(task_mode="fixed")
    first = stream.begin_episode()
    stream.seed(1)
    assert stream.begin_episode() == first


def test_pinned_task_lasts_until_unpinned_and_takes_no_draw():
    stream, reference = seeded_stream(), seeded_stream()
    task = Point((5.0, 5.0))
    stream.pin(task)
    assert [stream.begin_episode() for _ in range(3)] == [task] * 3
    stream.pin(None)
    assert stream.begin_episode() == reference.begin_episode()


def test_task_of_one_episode_leaves_the_pinned_one():
    stream = seeded_stream()
    stream.pin(Point((5.0, 5.0)))
    once = Point((6.0, 6.0))
    assert stream.begin_episode(once) == once
    assert stream.begin_episode() == Point((5.0, 5.0))


def test_get_task_names_the_running_episode_and_before_it_the_pinned_task():
    stream = seeded_stream()
    with pytest.raises(gym.error.ResetNeeded):
        stream.get_task()
    stream.pin(Point((5.0, 5.0)))
    assert stream.get_task() == Point((5.0, 5.0))
    stream.begin_episode()
    stream.pin(Point((6.0, 6.0)))
    assert stream.get_task() == Point((5.0, 5.0))


def test_sampling_leaves_the_tasks_of_the_episodes_alone():
    stream, reference = seeded_stream(), seeded_stream()
    first, second = stream.sample(3), stream.sample(3)
    stream.sample(3, split="test")
    assert first != second
    assert stream.begin_episode() == reference.begin_episode()


def test_stream_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="task_mode"):
        TaskStream(GAUSSIAN, task_mode="random")
