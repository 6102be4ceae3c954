"""Frozen lakes move and pay as Gymnasium's FrozenLake on the same map."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import MAPS

from metarl_envs.distributions import sample_tasks
from metarl_envs.tabular.frozen_lake import (
    FrozenLakeGoalFamily,
    FrozenLakeHolesFamily,
    FrozenLakeRewardFamily,
    FrozenLakeSlipFamily,
    SlipTask,
)

FAMILIES = {
    "holes": lambda **options: FrozenLakeHolesFamily(**options),
    "holes 8x8": lambda **options: FrozenLakeHolesFamily(size=8, **options),
    "reward": lambda **options: FrozenLakeRewardFamily(**options),
    "reward 8x8": lambda **options: FrozenLakeRewardFamily(size=8, **options),
    "slip": lambda **options: FrozenLakeSlipFamily(**options),
    "slip 8x8": lambda **options: FrozenLakeSlipFamily(map_name="8x8", **options),
    "goal": lambda **options: FrozenLakeGoalFamily(**options),
    "goal 8x8": lambda **options: FrozenLakeGoalFamily(map_name="8x8", **options),
}
SLIPPERY = [(False, 1 / 3), (True, 1 / 3), (True, 0.75), (True, 0.0)]


def some_tasks(family, n=4):
    return sample_tasks(family.task_distribution, n, seed=5)


def gymnasium_env(family, task, hole_reward=0.0):
    """Gymnasium's environment of a task."""
    slips = isinstance(task, SlipTask)
    return gym.make(
        "FrozenLake-v1",
        desc=family.desc(task),
        is_slippery=slips or family.is_slippery,
        success_rate=1.0 - task.slip_probability if slips else family.success_rate,
        reward_schedule=(1, hole_reward, 0),
    ).unwrapped


def tables(env):
    """Expected transitions (S, A, S), rewards (S, A) and terminal states (S,) of `env.P`."""
    n = env.observation_space.n
    transitions, rewards = np.zeros((n, 4, n)), np.zeros((n, 4))
    for s in range(n):
        for a in range(4):
            for probability, following, reward, _ in env.P[s][a]:
                transitions[s, a, following] += probability
                rewards[s, a] += probability * reward
    return transitions, rewards, np.array([env.P[s][0][0][3:] == (True,) for s in range(n)])


def is_end(family, task):
    return np.array([letter in "GH" for letter in "".join(family.desc(task))])


def own_rewards(family, task, transitions, rewards):
    """Gymnasium's rewards, minus what entering a tile costs in the family that has such tiles."""
    costs = np.array([letter == "C" for letter in "".join(family.desc(task))])
    entering = (transitions @ costs) * ~is_end(family, task)[:, None]
    return rewards - family.penalty * entering


def options_of(name, is_slippery, success_rate):
    if name.startswith("slip"):
        return {}
    return {"is_slippery": is_slippery, "success_rate": success_rate}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("is_slippery", "success_rate"), SLIPPERY)
def test_expected_transitions_and_rewards_are_gymnasiums(name, is_slippery, success_rate):
    family = FAMILIES[name](**options_of(name, is_slippery, success_rate))
    tasks = some_tasks(family)
    batch, sparse = family.finite_mdps(tasks), family.sparse_mdps(tasks).to_finite_mdp()
    for index, task in enumerate(tasks):
        env = gymnasium_env(family, task)
        transitions, rewards, _ = tables(env)
        mdp = family.finite_mdp(task)
        expected = own_rewards(family, task, transitions, rewards)
        # Sums of three probabilities round, by less than 1e-15.
        np.testing.assert_allclose(mdp.transitions, transitions, rtol=0, atol=1e-15)
        np.testing.assert_allclose(mdp.rewards, expected, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(mdp.initial, env.initial_state_distrib)
        assert (mdp.discount, mdp.horizon) == (1.0, family.horizon)
        for other in (batch, sparse):
            np.testing.assert_array_equal(other.transitions[index], mdp.transitions)
            np.testing.assert_array_equal(other.rewards[index], mdp.rewards)


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("is_slippery", [False, True])
def test_gymnasiums_own_maps_have_gymnasiums_tables(map_name, is_slippery):
    family = FrozenLakeHolesFamily(size=int(map_name[0]), is_slippery=is_slippery)
    mdp = family.finite_mdp(family.task_from_desc(MAPS[map_name]))
    env = gym.make("FrozenLake-v1", map_name=map_name, is_slippery=is_slippery).unwrapped
    transitions, rewards, _ = tables(env)
    np.testing.assert_allclose(mdp.transitions, transitions, rtol=0, atol=1e-15)
    np.testing.assert_allclose(mdp.rewards, rewards, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["holes", "slip", "goal 8x8"])
def test_where_holes_and_goal_absorb_they_pay_again_and_all_else_is_gymnasiums(name):
    ending = FAMILIES[name](hole_reward=-1.0)
    absorbing = FAMILIES[name](hole_reward=-1.0, absorbing=True, discount=0.9)
    for task in some_tasks(ending):
        transitions, rewards, _ = tables(gymnasium_env(ending, task, hole_reward=-1.0))
        mdps = ending.finite_mdp(task), absorbing.finite_mdp(task)
        for mdp in mdps:
            np.testing.assert_allclose(mdp.transitions, transitions, rtol=0, atol=1e-15)
        np.testing.assert_allclose(mdps[0].rewards, rewards, rtol=0, atol=1e-15)
        pays = {"G": 1.0, "H": -1.0}
        again = np.array([pays.get(letter, 0.0) for letter in "".join(ending.desc(task))])
        expected = rewards + again[:, None]
        np.testing.assert_allclose(mdps[1].rewards, expected, rtol=0, atol=1e-15)
        assert (mdps[1].discount, mdps[1].horizon) == (0.9, None)


@pytest.mark.parametrize("name", ["holes", "holes 8x8", "goal", "goal 8x8", "reward"])
def test_deterministic_rollouts_are_gymnasiums(name):
    family = FAMILIES[name]()
    ids = {"holes": "Holes", "goal": "Goal", "reward": "Reward"}
    kwargs = {"size": 8} if name == "holes 8x8" else {}
    kwargs |= {"map_name": "8x8"} if name == "goal 8x8" else {}
    own = gym.make(f"metarl/FrozenLake{ids[name.split()[0]]}-v0", **kwargs)
    rng = np.random.default_rng(0)
    for task in some_tasks(family, 10):
        env = gymnasium_env(family, task)
        costs = {s for s, letter in enumerate("".join(family.desc(task))) if letter == "C"}
        observation, _ = own.reset(seed=0, options={"task": task})
        assert observation == env.reset(seed=0)[0] == 0
        done, stage = False, 0
        while not done:
            action, stage = int(rng.choice(4, p=[0.1, 0.4, 0.4, 0.1])), stage + 1
            observation, reward, terminated, truncated, _ = own.step(action)
            theirs = env.step(action)
            assert (observation, terminated) == (theirs[0], theirs[2])
            assert reward == theirs[1] - family.penalty * (observation in costs)
            assert truncated == (stage == family.horizon and not terminated)
            done = terminated or truncated


@pytest.mark.parametrize("name", ["slip", "slip 8x8"])
def test_slippery_rollouts_are_gymnasiums_with_the_same_uniforms(name):
    family = FAMILIES[name]()
    for seed, task in enumerate(some_tasks(family, 10)):
        env, actions = gymnasium_env(family, task), np.random.default_rng(99 + seed)
        env.reset(seed=0)
        env.np_random = np.random.default_rng(seed)
        uniforms = np.random.default_rng(seed)
        params = family.compile(task.to_array()[None])
        states = family.initial(params, np.empty((1, 0)))
        for stage in range(100):
            action = int(actions.choice([1, 2]))
            states, rewards, terminated = family.step(
                params, states, np.array([stage]), np.array([action]), uniforms.random((1, 1))
            )
            observation, reward, ended, *_ = env.step(action)
            assert (states[0], rewards[0], terminated[0]) == (observation, reward, ended)
            if ended:
                break


def test_absorbing_lakes_go_on_until_the_horizon():
    env = gym.make("metarl/FrozenLakeHoles-v0", preset="bomrl2024", p=1.0)
    env.reset(seed=0)
    actions = [1, 1, 1, 2, 2, 2] + [0] * 43
    steps = [env.step(action) for action in actions]
    assert [step[1] for step in steps] == [0.0] * 5 + [1.0] * 44
    assert all(step[0] == 15 for step in steps[5:])
    assert not any(step[2] for step in steps)
    assert [step[3] for step in steps] == [False] * 48 + [True]


def test_a_marked_tile_costs_again_when_one_bumps_into_the_border_there():
    family = FrozenLakeRewardFamily(penalty=0.25)
    task = family.task_from_desc(["SCFF", "FFFF", "FFFF", "FFFG"])
    env = gym.make("metarl/FrozenLakeReward-v0", penalty=0.25)
    env.reset(seed=0, options={"task": task})
    assert [env.step(action)[1] for action in (2, 3, 1)] == [-0.25, -0.25, 0.0]


def test_goals_are_all_frozen_tiles_that_can_be_reached():
    assert [task.goal for task in FrozenLakeGoalFamily().task_distribution.tasks] == [
        *(1, 2, 3, 4, 6, 8, 9, 10, 13, 14, 15)
    ]
    assert len(FrozenLakeGoalFamily(map_name="8x8").task_distribution.tasks) == 64 - 10 - 1


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_and_tasks_translate_into_each_other(name):
    family = FAMILIES[name]()
    for task in some_tasks(family):
        if name.startswith("slip"):
            assert family.desc(task) == MAPS[family.map_name]
        else:
            assert family.task_from_desc(family.desc(task)) == task


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_survives_pickle_after_steps(name):
    family = FAMILIES[name]()
    arrays = np.array([task.to_array() for task in some_tasks(family)])
    params, uniforms = family.compile(arrays), np.full((4, family.n_step_uniforms), 0.9)
    states, zeros = np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64)
    before = family.step(params, states, zeros, np.array([0, 1, 2, 3]), uniforms)
    twin = pickle.loads(pickle.dumps(family))
    after = twin.step(params, states, zeros, np.array([0, 1, 2, 3]), uniforms)
    for left, right in zip(before, after, strict=True):
        np.testing.assert_array_equal(left, right)
    assert before[0].dtype == np.int64
    assert before[1].dtype == np.float64
    assert before[2].dtype == np.bool_
