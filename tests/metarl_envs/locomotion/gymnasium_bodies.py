"""Gymnasium's own bodies next to ours: same states, same actions, same process."""

from typing import NamedTuple

import gymnasium as gym
import mujoco
import numpy as np

N_ENVS, N_EPISODES, N_STEPS = 2, 10, 100


class Played(NamedTuple):
    """What both sides gave, (N, T, ...): N bodies, T steps; `infos` of Gymnasium, N lists."""

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    positions: np.ndarray
    other_observations: np.ndarray
    other_rewards: np.ndarray
    other_terminated: np.ndarray
    infos: list


def gymnasium_body(name, **arguments):
    """Gymnasium's environment, without the warnings that compiling some models prints."""
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        return gym.make(name, **arguments).unwrapped
    finally:
        mujoco.set_mju_user_warning(previous)


def play(family, tasks, others, seed=0):
    """1,000 steps of random actions from random starts, 10 times 100, falls or not.

    :param family: a locomotion family
    :param tasks: one for each body
    :param others: environments of Gymnasium, one for each body
    """
    rng = np.random.default_rng(seed)
    params = family.compile(np.stack([task.to_array() for task in tasks]))
    parts = []
    for _ in range(N_EPISODES):
        rows = family.initial(params, rng.random((len(tasks), family.n_reset_uniforms)))
        firsts = [start(family, other, row) for other, row in zip(others, rows, strict=True)]
        assert np.array_equal(family.observe(rows, np.zeros(len(rows), int)), firsts)
        low, high = family.action_space.low, family.action_space.high
        for stage in range(N_STEPS):
            actions = rng.uniform(low, high, (len(tasks), *low.shape)).astype(np.float32)
            stages = np.full(len(tasks), stage)
            rows, rewards, terminated = family.step(
                params, rows, stages, actions, np.empty((len(tasks), 0))
            )
            theirs = [other.step(action) for other, action in zip(others, actions, strict=True)]
            columns = list(zip(*theirs, strict=True))
            ours = family.observe(rows, stages + 1), rewards, terminated
            positions = family.infos(rows, stages + 1)["x_position"]
            parts.append((*ours, positions, columns[0], columns[1], columns[2], columns[4]))
    arrays = [np.swapaxes(np.array(part), 0, 1) for part in list(zip(*parts, strict=True))[:-1]]
    infos = [[part[-1][body] for part in parts] for body in range(len(tasks))]
    return Played(*arrays, infos)


def start(family, other, row):
    """Puts Gymnasium's body where ours begins, without a trace of what it did before."""
    columns = family.physics.columns
    mujoco.mj_resetData(other.model, other.data)
    other.set_state(row[columns["qpos"]], row[columns["qvel"]])
    return other._get_obs()


def assert_same_physics(played):
    assert np.array_equal(played.observations, played.other_observations)
    assert np.array_equal(played.terminated, played.other_terminated)
    there = [[info["x_position"] for info in infos] for infos in played.infos]
    assert np.array_equal(played.positions, there)


def from_infos(played, *names):
    """Entries of Gymnasium's infos, (N, T) each."""
    return [np.array([[info[name] for info in row] for row in played.infos]) for name in names]
