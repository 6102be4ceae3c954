"""`mujoco.batch` as a pure function of rows: equal to `mj_step`, whatever the batch and threads."""

import copy
import pickle
import sys

import mujoco
import mujoco.batch
import numpy as np
import pytest

from metarl_envs.locomotion.physics import (
    _DERIVED_CONSTANTS,
    STATE,
    ExactPhysics,
    Physics,
    load_model,
)

BODIES = ("half_cheetah.xml", "ant.xml", "swimmer.xml", "hopper.xml", "walker2d_v5.xml")
BODIES += ("humanoid.xml",)
two_bodies = pytest.mark.parametrize("xml_file", ["half_cheetah.xml", "ant.xml"])
N_STEPS = 60


def starts(physics, n, seed=0):
    """States close to the model's own, with the warm start of `forward`."""
    rng = np.random.default_rng(seed)
    states = np.tile(physics.rest, (n, 1))
    qpos, qvel = states[:, physics.columns["qpos"]], states[:, physics.columns["qvel"]]
    qpos += rng.uniform(-0.1, 0.1, qpos.shape)
    qvel += 0.1 * rng.standard_normal(qvel.shape)
    return physics.forward(states).states


def controls(physics, n, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (N_STEPS, n, physics.model.nu)).astype(np.float32)


def rollout(physics, states, actions, fields=None):
    for action in actions:
        states = physics.step(states, action, fields).states
    return states


@pytest.mark.parametrize("xml_file", BODIES)
def test_a_row_is_the_first_part_of_mujocos_and_the_rest_never_changes(xml_file):
    physics = Physics(xml_file, 5)
    batch = mujoco.batch.Batch(physics.model, nsim=2, nthread=1)
    rest = batch.state[0, len(physics.rest) :].copy()
    for name, columns in physics.columns.items():
        assert np.shares_memory(batch.state[:, columns], batch.bind(name))
        assert np.array_equal(batch.state[:, columns], batch.bind(name))
    batch.bind("ctrl")[:] = 0.5
    batch.step(nstep=50)
    assert np.array_equal(batch.state[:, len(physics.rest) :], [rest, rest])
    data = mujoco.MjData(physics.model)
    mujoco.mj_getState(physics.model, data, row := np.empty(len(physics.rest)), STATE)
    assert np.array_equal(row, physics.rest)


@two_bodies
def test_steps_are_those_of_mj_step_with_gymnasiums_model(xml_file):
    # Gymnasium's model discovers islands: so this also says that doing without changes no bit.
    physics = Physics(xml_file, 5)
    model = load_model(xml_file)
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    states, actions = starts(physics, 3), controls(physics, 3)
    after = rollout(physics, states, actions)
    for row in range(3):
        data = mujoco.MjData(model)
        data.qpos[:] = states[row, physics.columns["qpos"]]
        data.qvel[:] = states[row, physics.columns["qvel"]]
        mujoco.mj_forward(model, data)
        for action in actions[:, row]:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, nstep=5)
        mujoco.mj_getState(model, data, own := np.empty(len(physics.rest)), STATE)
        assert np.array_equal(after[row], own)


@two_bodies
@pytest.mark.parametrize("n_threads", [2, 3])
def test_bits_do_not_depend_on_the_number_of_threads(xml_file, n_threads):
    alone, shared = Physics(xml_file, 5), Physics(xml_file, 5, n_threads=n_threads)
    states, actions = starts(alone, 5), controls(alone, 5)
    assert np.array_equal(starts(shared, 5), states)
    assert np.array_equal(rollout(shared, states, actions), rollout(alone, states, actions))


@two_bodies
def test_bits_do_not_depend_on_the_batch_nor_on_what_was_stepped_before(xml_file):
    physics = Physics(xml_file, 5, derived=("xpos",))
    states, actions = starts(physics, 7), controls(physics, 7)
    whole = rollout(physics, states, actions)
    for rows in (np.array([5]), np.array([1, 4]), np.arange(6)):
        assert np.array_equal(rollout(physics, states[rows], actions[:, rows]), whole[rows])
        fresh = Physics(xml_file, 5, derived=("xpos",))
        parts = [p.step(whole[rows], actions[0, rows]).derived["xpos"] for p in (physics, fresh)]
        assert np.array_equal(*parts)


def test_there_is_one_room_as_large_as_the_largest_batch():
    physics = Physics("half_cheetah.xml", 5)
    for n in (1, 4, 2, 9, 3, 9, 1):
        physics.forward(np.tile(physics.rest, (n, 1)))
    assert {name: room.n for name, room in physics._rooms.items()} == {"states": 9}


def test_arguments_stay_as_they_are_and_results_are_fresh():
    physics = Physics("half_cheetah.xml", 5)
    states, action = starts(physics, 2), controls(physics, 2)[0]
    given = states.copy(), action.copy()
    first = physics.step(states, action).states
    kept = first.copy()
    second = physics.step(states, action).states
    assert np.array_equal(states, given[0]) and np.array_equal(action, given[1])
    assert np.array_equal(first, second) and np.array_equal(first, kept)
    assert not np.shares_memory(first, second)
    wide = np.full((2, states.shape[1] + 3), np.nan)
    physics.step(states, action, out=wide[:, :-3])
    assert np.array_equal(wide[:, :-3], first) and np.isnan(wide[:, -3:]).all()


def test_exact_physics_has_the_same_states_and_gymnasiums_contact_forces():
    fast, exact = Physics("ant.xml", 5), ExactPhysics("ant.xml", 5, derived=("cfrc_ext",))
    states, actions = starts(fast, 3), controls(fast, 3)
    assert np.array_equal(exact.forward(states).states, fast.forward(states).states)
    after = rollout(fast, states, actions)
    assert np.array_equal(rollout(exact, states, actions), after)
    data = mujoco.MjData(exact.model)
    mujoco.mj_setState(exact.model, data, after[1], STATE)
    data.ctrl[:] = actions[0, 1]
    mujoco.mj_step(exact.model, data, nstep=5)
    mujoco.mj_rnePostConstraint(exact.model, data)
    forces = exact.step(after, actions[0]).derived["cfrc_ext"]
    assert np.array_equal(forces[1], data.cfrc_ext)
    assert np.any(forces != 0)


def heavier(model, factors):
    mass = np.multiply.outer(factors, model.body_mass)
    return {"body_mass": mass, "body_inertia": np.multiply.outer(factors, model.body_inertia)}


def test_constants_are_those_of_mj_set_const_and_never_compound():
    physics = Physics("half_cheetah.xml", 5)
    factors = np.array([0.5, 1.0, 1.7])
    first = physics.constants(heavier(physics.model, factors))
    physics.constants(heavier(physics.model, np.array([3.0, 0.2])))
    again = physics.constants(heavier(physics.model, factors))
    for row in range(3):
        model = load_model("half_cheetah.xml")
        model.body_mass[:] *= factors[row]
        model.body_inertia[:] *= factors[row]
        mujoco.mj_setConst(model, mujoco.MjData(model))
        for name, values in first.items():
            assert np.array_equal(values[row], getattr(model, name)), name
            assert np.array_equal(again[name], values)


@pytest.mark.parametrize("xml_file", BODIES)
def test_no_constant_that_mj_set_const_derives_is_forgotten(xml_file):
    model, usual = load_model(xml_file), load_model(xml_file)
    rng = np.random.default_rng(0)
    inputs = ("body_mass", "body_inertia", "geom_friction", "dof_damping")
    for name in inputs:
        getattr(model, name)[:] *= rng.uniform(0.5, 2, getattr(model, name).shape)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for name in mujoco.batch.MODEL_FIELDS - {*inputs, *_DERIVED_CONSTANTS}:
        if not name.startswith("opt."):
            assert np.array_equal(getattr(model, name), getattr(usual, name)), name
    # It scales the tolerances of solvers, and has no field of a batch.
    assert model.stat.meaninertia == usual.stat.meaninertia


def test_fields_of_one_call_leave_nothing_to_the_next():
    physics = Physics("half_cheetah.xml", 5)
    states, actions = starts(physics, 2), controls(physics, 2)
    usual = rollout(physics, states, actions)
    fields = physics.constants(heavier(physics.model, np.array([0.5, 2.0])))
    heavy = rollout(physics, states, actions, fields)
    assert not np.array_equal(heavy, usual)
    assert np.array_equal(rollout(physics, states, actions), usual)
    swapped = {name: values[::-1].copy() for name, values in fields.items()}
    rollout(physics, states, actions, swapped)
    assert np.array_equal(rollout(physics, states, actions, fields), heavy)


@pytest.mark.parametrize("kind", [Physics, ExactPhysics])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
def test_copies_leave_the_room_behind_and_go_on_with_the_same_bits(kind, copied):
    physics = kind("ant.xml", 5, n_threads=2, derived=("xpos",))
    states, actions = starts(physics, 2), controls(physics, 2)
    other = copied(physics)
    assert not other._rooms
    assert np.array_equal(rollout(other, states, actions), rollout(physics, states, actions))
    assert len(pickle.dumps(physics)) < 10_000


def test_without_batches_the_error_names_the_version_that_has_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.batch", None)
    monkeypatch.setattr(mujoco, "__version__", "3.3.0")
    with pytest.raises(ImportError, match=r"needs mujoco>=3\.17 .*mujoco 3\.3\.0 is installed"):
        Physics("half_cheetah.xml", 5)
    with pytest.raises(ImportError, match="pip install"):
        ExactPhysics("ant.xml", 5)


@pytest.mark.parametrize("name", ["n_threads", "frame_skip"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_counts_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Physics("half_cheetah.xml", **{"frame_skip": 5, name: value})


def test_compiling_a_model_leaves_the_users_own_handler_of_warnings():
    messages = []
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(messages.append)
    try:
        load_model("half_cheetah.xml")
        assert not messages
        mujoco.MjModel.from_xml_string("<mujoco><compiler settotalmass='1'/></mujoco>")
        assert mujoco.get_mju_user_warning() is not None
    finally:
        mujoco.set_mju_user_warning(previous)
