from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pytest

from metarl_envs.batched import Family, FamilyEnv, FamilyVectorEnv, sequential_dot
from metarl_envs.core import TupleTask
from metarl_envs.distributions import UniformTasks


@dataclass(frozen=True)
class TargetTask(TupleTask):
    target: float


def make_task(array):
    return TargetTask(float(array[0]))


class Targets(Family):
    """A family with continuous actions that never terminates: move towards a hidden target."""

    horizon = 4
    n_reset_uniforms = 1

    def __init__(self):
        self.observation_space = gym.spaces.Box(-9.0, 9.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_distribution = UniformTasks(make_task, -1.0, 1.0)

    def compile(self, arrays):
        return {"target": arrays.copy()}

    def initial(self, params, uniforms):
        return uniforms - 0.5

    def step(self, params, states, stages, actions, uniforms):
        states = states + actions
        distances = np.abs(states - params["target"])[:, 0]
        return states, -distances, np.zeros(len(states), dtype=bool)

    def observe(self, states, stages):
        return states.astype(np.float32)


def test_continuous_family_is_truncated_at_its_horizon():
    env = FamilyEnv(family=Targets(), render_mode="ansi")
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space and "action_mask" not in info
    ends = [env.step(np.array([0.5], np.float32))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]
    assert "stage 4" in env.render()


def test_continuous_vector_env_is_truncated_and_restarts():
    env = FamilyVectorEnv(3, family=Targets())
    env.reset(seed=0)
    for _ in range(4):
        _, _, terminated, truncated, infos = env.step(np.zeros((3, 1), np.float32))
    assert truncated.all() and not terminated.any()
    assert infos["_final_obs"].all() and (infos["stage"] == 0).all()


@pytest.mark.parametrize("action", [[1.5], [np.nan], [np.inf], [0.0, 0.0], 0.0, ["a"]])
def test_continuous_actions_outside_the_space_are_refused(action):
    env = FamilyEnv(family=Targets())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)


def test_env_hands_on_only_what_its_family_has():
    env = FamilyEnv(family=Targets())
    assert not hasattr(env, "features") and not hasattr(env, "optimal_returns")
    env.reset(seed=0)
    with pytest.raises(TypeError, match="Discrete"):
        env.action_masks()


def test_sequential_dot_has_the_same_bits_for_every_batch():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((50, 9)), rng.standard_normal((50, 9))
    batch = sequential_dot(left, right)
    np.testing.assert_allclose(batch, (left * right).sum(-1), atol=1e-12)
    for i in range(50):
        assert sequential_dot(left[i : i + 1], right[i : i + 1])[0] == batch[i]
