import subprocess
import sys
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs import FAMILIES, core
from metarl_envs.core import ExactEnv, LinearQEnv, Task, TaskEnv, TaskVectorEnv, TupleTask, task_id


@dataclass(frozen=True)
class Pair(TupleTask):
    number: float
    table: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class OtherPair(TupleTask):
    number: float
    table: tuple[tuple[float, ...], ...]


TABLE = ((1.0, 2.0), (3.0, 4.0))


def test_tuple_task_flattens_its_fields_in_order():
    np.testing.assert_array_equal(Pair(0.5, TABLE).to_array(), [0.5, 1.0, 2.0, 3.0, 4.0])
    assert isinstance(Pair(0.5, TABLE), Task)


def test_task_id_is_equal_for_equal_tasks_and_differs_otherwise():
    assert task_id(Pair(0.5, TABLE)) == task_id(Pair(0.5, TABLE))
    assert task_id(Pair(0.0, TABLE)) == task_id(Pair(-0.0, TABLE))
    assert task_id(Pair(0.5, TABLE)) != task_id(Pair(0.25, TABLE))
    assert task_id(Pair(0.5, TABLE)) != task_id(OtherPair(0.5, TABLE))


def test_task_id_fits_the_integers_that_json_and_float64_hold_exactly():
    ids = [task_id(Pair(float(i), TABLE)) for i in range(2_000)]
    assert len(set(ids)) == len(ids)
    assert all(0 <= number < 2**53 for number in ids)


def test_task_id_is_the_same_in_every_process():
    code = (
        "from metarl_envs.core import task_id\n"
        "from metarl_envs.tabular.recommendation import RecommendationTask\n"
        "print(task_id(RecommendationTask((0.5, -1.0), ((0.0, 1.0), (2.0, 0.0)))))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    ]
    from metarl_envs.tabular.recommendation import RecommendationTask

    task = RecommendationTask((0.5, -1.0), ((0.0, 1.0), (2.0, 0.0)))
    assert [int(run.stdout) for run in runs] == [task_id(task)]


@pytest.mark.parametrize("env_id", FAMILIES)
def test_every_family_keeps_the_protocols(env_id):
    env, vector_env = gym.make(env_id).unwrapped, gym.make_vec(env_id, num_envs=2)
    assert isinstance(env, TaskEnv)
    assert isinstance(vector_env, TaskVectorEnv)
    for one in (env, vector_env):
        assert isinstance(one, LinearQEnv) == hasattr(env.family, "features")
        assert isinstance(one, ExactEnv) == hasattr(env.family, "q_prior")
    assert isinstance(env.task_distribution, core.TaskDistribution)
