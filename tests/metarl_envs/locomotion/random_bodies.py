"""What families with random parameters have to prove, whatever the body."""

import gymnasium as gym
import mujoco
import numpy as np

from metarl_envs.distributions import sample_tasks
from metarl_envs.locomotion.physics import _ASSETS

FIELDS = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}
N_STEPS = 300


def neutral_task(family):
    distribution = family.task_distribution
    return distribution.from_array(np.zeros(distribution.space.shape))


def own_model(family, task):
    """Gymnasium's model with the task's factors, compiled for this task alone."""
    model = mujoco.MjModel.from_xml_path(str(_ASSETS / family.body.xml_file))
    for name, base in FIELDS.items():
        values = getattr(model, name)
        values[values != 0] *= base ** np.array(getattr(task, name))
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def assert_equals_a_model_of_its_own(family):
    """The family, batched, against `mj_step` on one model per task: difference 0."""
    tasks = sample_tasks(family.task_distribution, 3, seed=5)
    models = [own_model(family, task) for task in tasks]
    assert len({model.body_mass.sum() for model in models}) == len(models)
    datas = [mujoco.MjData(model) for model in models]
    rng = np.random.default_rng(0)
    params = family.compile(np.stack([task.to_array() for task in tasks]))
    rows = family.initial(params, rng.random((len(tasks), family.n_reset_uniforms)))
    qpos, qvel = family.physics.columns["qpos"], family.physics.columns["qvel"]
    for model, data, row in zip(models, datas, rows, strict=True):
        data.qpos[:], data.qvel[:] = row[qpos], row[qvel]
        mujoco.mj_forward(model, data)
    for stage in range(N_STEPS):
        actions = rng.uniform(-1, 1, (len(tasks), models[0].nu)).astype(np.float32)
        before = [float(data.qpos[0]) for data in datas]
        stages = np.full(len(tasks), stage)
        rows, rewards, ends = family.step(params, rows, stages, actions, np.empty((len(tasks), 0)))
        for i, (model, data) in enumerate(zip(models, datas, strict=True)):
            data.ctrl[:] = actions[i]
            mujoco.mj_step(model, data, nstep=family.body.frame_skip)
            assert np.array_equal(rows[i, qpos], data.qpos)
            assert np.array_equal(rows[i, qvel], data.qvel)
            speed = (data.qpos[0] - before[i]) / (model.opt.timestep * family.body.frame_skip)
            cost = 1e-3 * np.sum(np.square(actions[i]))
            assert rewards[i] == speed + (0.0 if ends[i] else 1.0) - cost


def assert_never_compounds(env_id):
    """A, B, the unchanged body, A again: the same as A alone, in single and vector environments."""
    env = gym.make(env_id).unwrapped
    first, second = env.sample_tasks(2, seed=3)
    neutral = neutral_task(env.family)
    alone = [rollout(env_id, [task]) for task in (first, second, neutral)]
    mixed = rollout(env_id, [first, second, neutral, first])
    for i, j in enumerate([0, 1, 2, 0]):
        assert mixed[i] == alone[j][0]
    assert len({tuple(trace[0]) for trace in alone}) == 3
    vector = gym.make_vec(env_id, num_envs=4, vectorization_mode="vector_entry_point", n_threads=2)
    for tasks in ([second, neutral, first, neutral], [first, second, neutral, first]):
        vector.reset(seed=[0] * 4, options={"tasks": tasks})
        traces = [[] for _ in tasks]
        for _ in range(15):
            _, rewards, *_ = vector.step(np.full(vector.action_space.shape, 0.3, np.float32))
            for trace, reward in zip(traces, rewards.tolist(), strict=True):
                trace.append(reward)
    assert [trace[:15] for trace in mixed] == traces


def rollout(env_id, tasks):
    """Rewards of 15 equal steps from the same start in each task, one after the other in one
    environment.
    """
    env = gym.make(env_id).unwrapped
    traces = []
    for task in tasks:
        env.reset(seed=0, options={"task": task})
        action = np.full(env.action_space.shape, 0.3, np.float32)
        traces.append([float(env.step(action)[1]) for _ in range(15)])
    return traces
