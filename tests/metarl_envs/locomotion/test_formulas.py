"""Every preset of every family through its public id: the documented rewards, recomputed from what
Gymnasium's own body tells, and its observations, falls and time limits.
"""

import math

import gymnasium as gym
import numpy as np
import pytest

from tests.metarl_envs.locomotion.gymnasium_bodies import gymnasium_body, start

N_ENVS = 2
FORCES = {"include_cfrc_ext_in_observation": True}
NO_FORCES = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}
STAYS = {"exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False}
FALLS = STAYS | {"terminate_when_unhealthy": True}


def cost(weight, action):
    """In the precision of the action, as Gymnasium has it."""
    return weight * np.sum(np.square(action))


def forces(body, weight=5e-4, limit=1.0):
    return weight * np.sum(np.square(np.clip(body.data.cfrc_ext, -limit, limit)))


def along(task, info):
    return math.cos(task.angle) * info["x_velocity"] + math.sin(task.angle) * info["y_velocity"]


def speed(weight, bonus=0.0, factor=1.0):
    def reward(task, info, action, body):
        progress = -factor * abs(info["x_velocity"] - task.velocity)
        return progress + (bonus * body.is_healthy if bonus else 0.0) - cost(weight, action)

    return reward


def direction(weight):
    return lambda task, info, action, body: (
        task.direction * info["x_velocity"] - cost(weight, action)
    )


def heading(weight, bonus, has_forces=False):
    def reward(task, info, action, body):
        contacts = forces(body) if has_forces else 0.0
        return along(task, info) + bonus * body.is_healthy - cost(weight, action) - contacts

    return reward


def goal(weight, bonus, has_forces=False):
    def reward(task, info, action, body):
        distance = np.abs(body.data.body("torso").xpos[:2] - task.goal).sum()
        contacts = forces(body) if has_forces else 0.0
        return -distance + bonus * body.is_healthy - cost(weight, action) - contacts

    return reward


def humanoid(has_forces):
    def reward(task, info, action, body):
        contacts = min(10.0, forces(body, 5e-7, np.inf)) if has_forces else 0.0
        drive = cost(0.1, action.astype(np.float64))
        return 1.25 * along(task, info) + 5.0 * body.is_healthy - drive - contacts

    return reward


CHEETAH, ANT, SWIMMER, WALKER = "HalfCheetah-v5", "Ant-v5", "Swimmer-v5", "Walker2d-v5"
CASES = [
    *(
        (f"HalfCheetah{kind}", {"preset": name}, CHEETAH, {}, horizon, reward)
        for name, horizon in (
            (None, 200),
            ("finn2017", 200),
            ("promp2019", 100),
            ("pearl2019", 200),
            ("bomrl2024", 200),
        )
        for kind, reward in (("Vel", speed(0.05)), ("Dir", direction(0.05)))
    ),
    *(
        (f"AntDir{kind}", {"preset": name}, ANT, NO_FORCES, 200, heading(weight, bonus))
        for name, weight, bonus in (
            (None, 0.5, 1.0),
            ("pearl2019", 0.5, 1.0),
            ("finn2017", 0.005, 0.05),
            ("bomrl2024", 0.005, 1.05),
        )
        for kind in ("", "2D")
        if (kind, name) != ("2D", "bomrl2024")
    ),
    ("AntDir", FORCES, ANT, {}, 200, heading(0.5, 1.0, has_forces=True)),
    ("AntVel", {}, ANT, NO_FORCES, 200, speed(0.5, 1.0)),
    ("AntVel", {"preset": "finn2017"}, ANT, NO_FORCES, 200, speed(0.005, 1.05)),
    ("AntVel", {"preset": "bomrl2024"}, ANT, NO_FORCES, 200, speed(0.005, 1.05)),
    ("AntGoal", {}, ANT, NO_FORCES | STAYS, 200, goal(0.1, 0.0)),
    ("AntGoal", {"preset": "promp2019"}, ANT, NO_FORCES | STAYS, 200, goal(0.1, 0.0)),
    ("AntGoal", {"preset": "pearl2019"}, ANT, NO_FORCES | STAYS, 200, goal(0.1, 0.0)),
    ("AntGoal", {"preset": "finn2017"}, ANT, NO_FORCES | FALLS, 200, goal(0.005, 4.05)),
    ("AntGoal", FORCES, ANT, STAYS, 200, goal(0.1, 0.0, has_forces=True)),
    ("HumanoidDir", {"preset": "promp2019"}, "Humanoid-v5", NO_FORCES, 200, humanoid(False)),
    ("HumanoidDir", {"preset": "pearl2019"}, "Humanoid-v5", NO_FORCES, 200, humanoid(False)),
    ("HumanoidDir", FORCES, "Humanoid-v5", {}, 200, humanoid(True)),
    ("SwimmerVel", {"preset": "promp2019"}, SWIMMER, {}, 200, speed(1e-4)),
    ("SwimmerVel", {"preset": "finn2017"}, SWIMMER, {}, 200, speed(5e-3, factor=1.5)),
    ("Walker2dVel", {}, WALKER, {}, 200, speed(1e-3, 1.0)),
    ("Walker2dVel", {"preset": "promp2019"}, WALKER, {}, 200, speed(1e-3, 15.0)),
]


@pytest.mark.parametrize(
    ("name", "arguments", "body", "body_arguments", "horizon", "reward"),
    CASES,
    ids=["-".join([case[0], *(str(value) for value in case[1].values())]) for case in CASES],
)
def test_rewards_are_the_documented_formula(name, arguments, body, body_arguments, horizon, reward):
    mode, env_id = "vector_entry_point", f"metarl_envs:metarl/{name}-v0"
    env = gym.make_vec(env_id, N_ENVS, vectorization_mode=mode, **arguments).unwrapped
    bodies = [gymnasium_body(body, **body_arguments) for _ in range(N_ENVS)]
    space, rng, lengths = env.single_action_space, np.random.default_rng(0), np.zeros(N_ENVS, int)
    shown, _ = env.reset(seed=3)
    for row in range(N_ENVS):
        assert np.array_equal(start(env.family, bodies[row], env._states[row]), shown[row])
    for _ in range(horizon + 10):
        tasks = env.get_tasks()
        actions = rng.uniform(space.low, space.high, (N_ENVS, *space.shape)).astype(np.float32)
        shown, rewards, terminated, truncated, infos = env.step(actions)
        done, lengths = terminated | truncated, lengths + 1
        for row, (other, task, action) in enumerate(zip(bodies, tasks, actions, strict=True)):
            seen, _, has_fallen, _, info = other.step(action)
            # Sums of at most five numbers below 100: roundings are below 1e-13.
            assert abs(rewards[row] - reward(task, info, action, other)) < 1e-12
            assert np.array_equal(infos["final_obs"][row] if done[row] else shown[row], seen)
            assert terminated[row] == has_fallen
            assert truncated[row] == (lengths[row] == horizon and not has_fallen)
            told = infos["final_info"] if done[row] else infos
            assert told["x_velocity"][row] == info["x_velocity"]
            assert told["stage"][row] == lengths[row]
            if done[row]:
                lengths[row] = 0
                first = start(env.family, other, env._states[row])
                assert np.array_equal(first, shown[row])
                assert infos["x_position"][row] == other.data.qpos[0]
    assert (lengths < horizon + 10).all()
