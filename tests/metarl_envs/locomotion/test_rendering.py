import pickle
import subprocess
import sys
import threading

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import metarl_envs  # noqa: F401
from metarl_envs.batched.rendering import ACCENT, GREEN
from metarl_envs.locomotion import rendering, studio
from metarl_envs.locomotion.physics import STATE
from metarl_envs.locomotion.rendering import captions, marks_of
from metarl_envs.locomotion.studio import SIZE, Mark, Studio

CHEETAH = "half_cheetah.xml"


@pytest.fixture(autouse=True, scope="module")
def opengl():
    try:
        studio._off_screen_gl().free()
    except OSError as error:
        pytest.skip(f"no OpenGL: {error}")


def made(name, **kwargs):
    env = gym.make(f"metarl/{name}-v0", render_mode="rgb_array", **kwargs).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    return env


def view_of(env, monkeypatch):
    """What the environment would draw."""
    seen = []
    monkeypatch.setattr(type(env.family), "render_rgb", lambda family, view: seen.append(view))
    env.render()
    return seen[0]


def columns_of(image, channel):
    """Columns of the pixels where a colour channel is far above the others."""
    others = np.delete(image, channel, axis=-1).max(axis=-1).astype(int)
    return np.nonzero(image[:, :, channel] > others + 60)[1]


def test_frames_are_of_one_size_and_change_with_every_step():
    env = made("HalfCheetahVel")
    frames = [env.render()]
    for _ in range(2):
        env.step(env.action_space.sample())
        frames.append(env.render())
    assert {(frame.shape, frame.dtype) for frame in frames} == {
        ((SIZE, SIZE, 3), np.dtype(np.uint8))
    }
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[1], frames[2])


def test_drawing_changes_nothing():
    drawn, alone = made("HalfCheetahVel"), made("HalfCheetahVel")
    for _ in range(3):
        drawn.render()
        action = drawn.action_space.sample()
        assert np.array_equal(drawn.step(action)[0], alone.step(action)[0])


def test_one_state_gives_one_picture():
    env = made("HalfCheetahVel")
    assert np.array_equal(env.render(), env.render())


@pytest.mark.parametrize("forward", [True, False])
def test_the_arrow_of_a_direction_points_that_way(forward):
    env = made("HalfCheetahDir")
    env.reset(
        options={"task": env.task_distribution.from_array(np.array([1.0 if forward else -1]))}
    )
    columns = columns_of(env.render()[SIZE // 2 :], 1)
    assert columns.size > 500
    assert np.all(columns >= SIZE / 2 - 5) if forward else np.all(columns <= SIZE / 2 + 5)


def test_arrows_are_as_long_as_the_speeds(monkeypatch):
    env = made("HalfCheetahVel")
    env.reset(options={"task": env.task_distribution.from_array(np.array([2.0]))})
    env.step(env.action_space.sample())
    view = view_of(env, monkeypatch)
    lengths = {mark.colour: mark.end[0] - mark.start[0] for mark in marks_of(env.family, view)}
    speed = env.family.infos(env._states, env._stages)["x_velocity"][0]
    assert lengths[GREEN] / 2.0 == pytest.approx(lengths[ACCENT] / speed)


def test_an_arrow_ends_where_it_is_told_to():
    room, camera = Studio(CHEETAH), mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = 90.0, -89.99, 6.0
    state = np.zeros(mujoco.mj_stateSize(room.model, STATE))
    ends = []
    for kind in (mujoco.mjtGeom.mjGEOM_ARROW, mujoco.mjtGeom.mjGEOM_CYLINDER):
        mark = Mark(kind, (0.0, -1.0, 0.1), (1.5, -1.0, 0.1), 0.05, (0, 255, 0))
        ends.append(columns_of(room.picture(state, camera, [mark]), 1).max())
    room.close()
    # 1.5 m are about 150 pixels here.
    assert ends[0] == pytest.approx(ends[1], abs=3)
    assert ends[1] > SIZE / 2 + 100


def test_the_floor_has_no_end(monkeypatch):
    env = made("HalfCheetahVel")
    near = env.render()
    view = view_of(env, monkeypatch)
    state = view.state.copy()
    # Whole pairs of tiles further, where the world looks the same; physics has a floor there too.
    state[env.family._qpos.start] += 1000.0
    state[env.family._position.start] += 1000.0
    far = rendering.film(env.family, view._replace(state=state))
    assert np.mean(np.abs(near.astype(int) - far) > 8) < 0.02


def test_words_give_task_speed_step_and_return(monkeypatch):
    env = made("HalfCheetahVel")
    env.reset(options={"task": env.task_distribution.from_array(np.array([1.25]))})
    env.step(env.action_space.sample())
    view = view_of(env, monkeypatch)
    speed = env.family.infos(env._states, env._stages)["x_velocity"][0]
    texts = [text for text, _ in captions(env.family, view)]
    assert texts[0] == "target 1.25 m/s" and texts[1] == f"speed {speed:.2f} m/s"
    assert texts[2:] == ["step 1 of 200", f"return {view.episode_return:.2f}"]
    assert all(text in env.family.render_ansi(view) for text in texts)


def test_a_goal_is_drawn_where_it_is_and_named(monkeypatch):
    env = made("HalfCheetahVel")
    goal = np.array([-1.5, 2.0])
    view = view_of(env, monkeypatch)._replace(params={"goal": goal})
    marks = marks_of(env.family, view)
    assert marks and all(np.array_equal(mark.start[:2], goal) for mark in marks)
    image = rendering.film(env.family, view)
    # Left of the body, and in the picture.
    assert 0 < columns_of(image[SIZE // 8 :], 1).mean() < SIZE / 2
    assert captions(env.family, view)[0][0].startswith("goal (-1.5, 2.0) m, 2.5 m away")


def test_changed_physics_is_named(monkeypatch):
    env = made("HalfCheetahVel")
    masses = 1.5 * env.family.physics.model.body_mass
    view = view_of(env, monkeypatch)._replace(params={"model.body_mass": masses})
    assert captions(env.family, view)[0][0] == "mass x 1.50"
    assert marks_of(env.family, view) == []


def test_a_family_that_drew_can_be_pickled():
    env = made("HalfCheetahVel")
    first = env.render()
    assert np.array_equal(pickle.loads(pickle.dumps(env)).render(), first)


def test_every_thread_has_an_opengl_of_its_own():
    env, frames = made("HalfCheetahVel"), []
    here = env.render()
    thread = threading.Thread(target=lambda: frames.append(env.render()))
    thread.start()
    thread.join()
    assert np.array_equal(here, frames[0]) and np.array_equal(env.render(), here)


def test_films_run_in_real_time():
    env = made("HalfCheetahVel")
    assert env.metadata["render_fps"] == 20 == round(1 / env.family.physics.dt)
    vector_env = gym.make_vec("metarl/HalfCheetahVel-v0", vectorization_mode="vector_entry_point")
    assert vector_env.metadata["render_fps"] == 20
    assert gym.make("metarl/PointGoal-v0").metadata["render_fps"] == 2


def test_without_opengl_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setattr("mujoco.egl.GLContext", lambda *size: 1 / 0)
    monkeypatch.setattr("mujoco.gl_context.GLContext", lambda *size: 1 / 0)
    with pytest.raises(OSError, match="libegl1"):
        Studio(CHEETAH)


def test_a_program_that_drew_ends_in_silence():
    program = (
        "import gymnasium as gym, metarl_envs\n"
        "env = gym.make('metarl/HalfCheetahVel-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "env.render()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_forked_process_says_that_it_cannot_draw(monkeypatch):
    monkeypatch.setattr(studio, "_processes", {-1})
    with pytest.raises(OSError, match="context='spawn'"):
        made("HalfCheetahVel").render()
