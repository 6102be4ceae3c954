import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from metarl_envs import FAMILIES
from tests.metarl_envs.reference_envs import without_new_tasks

IDS = [env_id for env_id in FAMILIES if "Recommendation" in env_id or "Inverse" in env_id]
ID = "metarl/RecommendationSmall-v0"
SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


def make(env_id=ID, n=3, **arguments):
    return gym.make_vec(env_id, num_envs=n, **arguments)


def make_sync(env_id, n, mode=SAME, **arguments):
    return gym.make_vec(
        env_id,
        num_envs=n,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **arguments,
    )


def random_actions(env, n_steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(env.single_action_space.n, size=(n_steps, env.num_envs))


def assert_same(one, other):
    if len(one) == 5:
        one, other = without_new_tasks(one), without_new_tasks(other)
    for left, right in zip(one, other, strict=True):
        assert data_equivalence(left, right, exact=True), (left, right)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize("n", [1, 2, 13])
def test_vector_env_equals_single_envs_bit_for_bit(env_id, mode, n):
    vector, sync = make(env_id, n, autoreset_mode=mode), make_sync(env_id, n, mode)
    assert_same(vector.reset(seed=11), sync.reset(seed=11))
    # Long enough for several auto-resets and for the blocks of random numbers to be refilled.
    for actions in random_actions(vector, 90):
        assert_same(vector.step(actions), sync.step(actions))
    assert_same(vector.reset(), sync.reset())
    assert_same(vector.reset(seed=[5] * n), sync.reset(seed=[5] * n))


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("task_mode", ["resample", "fixed"])
def test_vector_env_equals_single_envs_with_pinned_tasks(env_id, task_mode):
    vector = make(env_id, 4, task_mode=task_mode)
    sync = make_sync(env_id, 4, task_mode=task_mode)
    tasks = [*vector.sample_tasks(3, seed=2), None]
    vector.set_tasks(tasks)
    for env, task in zip(sync.envs, tasks, strict=True):
        env.unwrapped.set_task(task)
    assert_same(vector.reset(seed=0), sync.reset(seed=0))
    for actions in random_actions(vector, 20):
        assert_same(vector.step(actions), sync.step(actions))
        assert vector.get_tasks()[:3] == tasks[:3]
    vector.set_tasks([None], indices=[1])
    sync.envs[1].unwrapped.set_task(None)
    for actions in random_actions(vector, 12, seed=1):
        assert_same(vector.step(actions), sync.step(actions))


@pytest.mark.parametrize(
    "arguments",
    [
        {"interaction_std": 1.0, "task_noise": "student_t"},
        {"task_noise": "clusters", "repeat": "noop"},
        {"n_products": 4, "n_recommendations": 4, "features": "tabular"},
    ],
)
def test_recommendation_variants_equal_single_envs(arguments):
    vector, sync = make(ID, 5, **arguments), make_sync(ID, 5, **arguments)
    assert_same(vector.reset(seed=3), sync.reset(seed=3))
    for actions in random_actions(vector, 20):
        assert_same(vector.step(actions), sync.step(actions))


def test_reset_of_some_leaves_the_others_running():
    vector, sync = make(n=4, autoreset_mode=DISABLED), make_sync(ID, 4, DISABLED)
    assert_same(vector.reset(seed=0), sync.reset(seed=0))
    mask = np.array([True, False, True, False])
    for k in range(8):
        if k % 3 == 0:
            left = vector.reset(options={"reset_mask": mask})
            right = sync.reset(options={"reset_mask": mask.copy()})
            assert_same(left[:1], right[:1])
            assert left[1]["_task"].tolist() == mask.tolist()
            assert_same([left[1]["task"]], [right[1]["task"]])
        if k and k % 3 == 0:
            mask = ~mask
            vector.reset(options={"reset_mask": mask})
            sync.reset(options={"reset_mask": mask.copy()})
        actions = random_actions(vector, 1, seed=k)[0]
        assert_same(vector.step(actions)[:4], sync.step(actions)[:4])


def test_disabled_mode_wants_a_reset():
    vector = make(n=2, autoreset_mode="Disabled")
    vector.reset(seed=0)
    for _ in range(3):
        vector.step([0, 1])
    with pytest.raises(gym.error.ResetNeeded, match="reset_mask"):
        vector.step([0, 1])


def test_autoreset_mode_is_in_the_metadata():
    assert make().metadata["autoreset_mode"] is SAME
    assert make(autoreset_mode="NextStep").metadata["autoreset_mode"] is NEXT
    assert "autoreset_mode" not in gym.make(ID).metadata


def test_tasks_of_one_episode_do_not_stay():
    vector = make(n=3)
    a, b = vector.sample_tasks(2, seed=0)
    _, infos = vector.reset(seed=0, options={"tasks": [a, b, None]})
    assert vector.get_tasks()[:2] == [a, b] == infos["task"][:2].tolist()
    for _ in range(3):
        *_, infos = vector.step([0, 1, 2])
    assert infos["_final_obs"].all() and "task" not in infos
    assert not set(vector.get_tasks()) & {a, b}
    vector.reset(options={"task": a})
    assert vector.get_tasks() == [a] * 3


def test_sub_environments_have_independent_task_streams():
    vector = make(n=50)
    vector.reset(seed=0)
    tasks = vector.get_tasks()
    for _ in range(12):
        vector.step(np.zeros(50, dtype=int))
        tasks += vector.get_tasks() if vector._stages[0] == 0 else []
    assert len(set(tasks)) == 250


def test_seeds_of_a_list_belong_to_their_sub_environments():
    vector = make(n=3)
    vector.reset(seed=[7, 8, 7])
    tasks = vector.get_tasks()
    assert tasks[0] == tasks[2] != tasks[1]


@pytest.mark.parametrize("env_id", IDS)
def test_unpickled_vector_env_continues_in_the_middle_of_an_episode(env_id):
    vector = make(env_id, 4)
    vector.set_tasks(vector.sample_tasks(2, seed=0), indices=[0, 2])
    vector.reset(seed=0)
    actions = random_actions(vector, 80)
    for action in actions[:10]:
        vector.step(action)
    twin = pickle.loads(pickle.dumps(vector))
    for action in actions[10:]:
        assert_same(vector.step(action), twin.step(action))


def test_returned_arrays_are_not_reused():
    vector = make(n=3)
    results = [vector.reset(seed=0), *(vector.step([0, 1, 2]) for _ in range(7))]
    kept = pickle.dumps(results)
    for _ in range(5):
        vector.step([2, 1, 0])
    assert pickle.dumps(results) == kept


@pytest.mark.parametrize(
    "actions", [[0, 1], [0, 1, 6], [0, -1, 1], [0.0, 1.0, 2.0], [[0], [1], [2]], 0, [0, None, 1]]
)
def test_actions_outside_the_space_are_refused_and_change_nothing(actions):
    vector, reference = make(), make()
    vector.reset(seed=0)
    reference.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        vector.step(actions)
    assert_same(vector.step([0, 1, 2]), reference.step([0, 1, 2]))


def test_bad_requests_are_refused():
    vector = make()
    task = vector.sample_tasks(1, seed=0)[0]
    with pytest.raises(gym.error.ResetNeeded):
        vector.step([0, 0, 0])
    for request in (
        lambda: vector.set_tasks([task]),
        lambda: vector.set_tasks([task], indices=[3]),
        lambda: vector.set_tasks([task], indices=[-1]),
        lambda: vector.reset(options={"tasks": [task]}),
        lambda: vector.reset(options={"reset_mask": np.zeros(3, dtype=bool)}),
        lambda: vector.reset(options={"reset_mask": [1, 0, 1]}),
        lambda: vector.reset(seed=[1, 2]),
        lambda: make(n=0),
        lambda: make(autoreset_mode="never"),
        lambda: make(task_mode="new"),
    ):
        with pytest.raises(ValueError):
            request()


def test_refused_tasks_pin_none():
    vector = make()
    task = vector.sample_tasks(1, seed=0)[0]
    with pytest.raises(TypeError, match="task"):
        vector.set_tasks([task, task, 3])
    vector.reset(seed=0)
    assert task not in vector.get_tasks()


def test_current_masks_have_one_row_per_sub_environment():
    vector = make()
    vector.reset(seed=0)
    _, _, _, _, infos = vector.step([0, 1, 2])
    masks = vector.action_masks()
    assert masks.shape == (3, 6) and masks.dtype == np.bool_
    np.testing.assert_array_equal(masks, infos["action_mask"].astype(bool))
    assert not masks[[0, 1, 2], [0, 1, 2]].any()


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_frames_are_those_of_the_single_envs(mode):
    vector = make(n=2, render_mode=mode)
    vector.reset(seed=4)
    vector.step([1, 2])
    for i, frame in enumerate(vector.render()):
        env = gym.make(ID, render_mode=mode)
        env.reset(seed=4 + i)
        env.step(1 + i)
        assert np.array_equal(frame, env.render())
