import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th

from metarl_agents.bayesian.linear_q_policy import UniformPolicies
from metarl_agents.bayesian.logged_episodes import logged_transitions, read_episodes
from metarl_agents.bayesian.stage_features import features_of
from metarl_agents.bayesian.stage_transitions import stage_transitions
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.vec_env import make_task_vec_env
from tests.metarl_agents.bayesian.random_tasks import statistics_of

SMALL = "metarl/RecommendationSmall-v0"  # 6 products, 3 stages
HEADER = ["task", "episode", "stage", *[f"obs_{i}" for i in range(6)], "action", "reward"]
FRESH = [1] * 6  # nothing was shown


@pytest.fixture(scope="module")
def shop():
    """The features of the family, and three customers with four episodes each."""
    env = make_task_vec_env(SMALL, 3)
    features = features_of(env)
    rngs = np.random.default_rng(0).spawn(3)
    policies = UniformPolicies(SimpleNamespace(features=features, n_tasks=3), rngs)
    return features, collect_episodes(env, policies, 4, seed=1)


def rows_of(batch):
    """The lines of a log, as another program would write them."""
    for task, episodes in enumerate(batch.tasks()):
        for e in range(episodes.n_episodes):
            for stage in range(int(episodes.lengths[e])):
                observation = episodes.observations[e, stage].tolist()
                action = int(episodes.actions[e, stage, 0])
                reward = float(episodes.rewards[e, stage])
                yield [f"customer {task}", e, stage, *observation, action, reward]


def written(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def log(tmp_path):
    """Writes a log and returns its path."""
    return lambda rows, header=HEADER: written(tmp_path / "log.csv", rows, header)


def assert_equal_transitions(found, batch, features):
    assert len(found) == batch.n_tasks
    for task, one in enumerate(found):
        expected = stage_transitions(features, EpisodeBatch.stack([batch.task(task)]))
        for name, a, b in zip(one._fields, one, expected, strict=True):
            assert th.equal(a, b), name


def test_a_log_comes_back_as_the_episodes_that_were_written(shop, log):
    features, batch = shop
    path = log(rows_of(batch))
    for source in (path, str(path)):
        assert_equal_transitions(logged_transitions(features, source), batch, features)
    for task, own in enumerate(read_episodes(path)):
        assert th.equal(own.observations, batch.task(task).observations)
        assert th.equal(own.actions, batch.task(task).actions)
        assert th.equal(own.rewards, batch.task(task).rewards)
        assert own.actions.dtype == th.int64 and own.terminated.all()


def test_lines_and_columns_may_stand_in_any_order(shop, log):
    features, batch = shop
    rows = np.array(list(rows_of(batch)), dtype=object)
    order, columns = np.random.default_rng(1).permutation(len(rows)), [10, 4, 3, 0, 9, 2, 1]
    columns += [5, 6, 7, 8]
    tasks = {row[0]: None for row in rows[order]}
    header = [HEADER[c] for c in columns]
    found = logged_transitions(features, log(rows[order][:, columns].tolist(), header))
    assert len(found) == len(tasks) == 3
    for name, transitions in zip(tasks, found, strict=True):
        expected = stage_transitions(
            features, EpisodeBatch.stack([batch.task(int(name.split()[1]))])
        )
        found_sums, expected_sums = statistics_of(transitions, 6), statistics_of(expected, 6)
        assert th.equal(found_sums.gram, expected_sums.gram)
        assert th.equal(found_sums.reward_moment, expected_sums.reward_moment)


def test_the_byte_order_mark_of_spreadsheets_is_no_part_of_the_header(shop, log):
    features, batch = shop
    path = log(rows_of(batch))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert_equal_transitions(logged_transitions(features, path), batch, features)


def test_further_columns_are_ignored(shop, log):
    features, batch = shop
    rows = [[*row, "remark"] for row in rows_of(batch)]
    path = log(rows, [*HEADER, "comment"])
    assert_equal_transitions(logged_transitions(features, path), batch, features)


def test_short_episodes_are_padded_and_their_last_step_is_terminal(shop, log):
    rows = [
        ["a", 0, 0, *FRESH, 2, 1.0],
        ["a", 0, 1, 1, 1, 2, 1, 1, 1, 4, 0.0],
        ["a", 1, 0, *FRESH, 3, 0.5],
    ]
    (batch,) = read_episodes(log(rows))
    assert batch.mask.tolist() == [[1.0, 1.0], [1.0, 0.0]]
    assert batch.rewards.tolist() == [[1.0, 0.0], [0.5, 0.0]]
    (transitions,) = logged_transitions(shop[0], log(rows))
    assert transitions.weights[0].tolist() == [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    assert transitions.successor_masks[0, 0].any(-1).tolist() == [True, False]


def test_batches_are_taken_with_and_without_a_task_axis(shop):
    features, batch = shop
    assert_equal_transitions(logged_transitions(features, batch), batch, features)
    assert_equal_transitions(logged_transitions(features, list(batch.tasks())), batch, features)
    halves = [EpisodeBatch.stack([batch.task(0), batch.task(1)]), batch.task(2)]
    assert_equal_transitions(logged_transitions(features, halves), batch, features)
    assert len(logged_transitions(features, batch.task(1))) == 1


def test_an_empty_list_is_refused(shop):
    with pytest.raises(ValueError, match="episodes is empty"):
        logged_transitions(shop[0], [])


@pytest.mark.parametrize("logs", [[1], ["a.csv"], [{"rewards": []}], [None]])
def test_what_is_no_batch_is_refused(shop, logs):
    with pytest.raises(TypeError, match=r"episodes holds a .*pass EpisodeBatch.*CSV"):
        logged_transitions(shop[0], logs)


@pytest.mark.parametrize("name", ["task", "episode", "stage", "action", "reward", "obs_0", "obs_3"])
def test_a_missing_column_is_refused(log, name):
    with pytest.raises(ValueError, match=r"has the columns .*needs task, episode, stage, obs_0"):
        read_episodes(log([], [column for column in HEADER if column != name]))


def test_a_log_without_observations_is_refused(log):
    with pytest.raises(ValueError, match="has the columns"):
        read_episodes(log([], ["task", "episode", "stage", "action", "reward"]))


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("")
    with pytest.raises(ValueError, match=r"has the columns \[\]"):
        read_episodes(path)


def test_a_log_without_steps_is_refused(log):
    with pytest.raises(ValueError, match="holds no steps"):
        read_episodes(log([]))


@pytest.mark.parametrize("column", [2, 5, 9, 10])
@pytest.mark.parametrize("value", ["", "many"])
def test_what_is_not_a_number_is_refused_with_its_line(log, column, value):
    good, bad = ["a", 0, 0, *FRESH, 2, 1.0], ["a", 1, 0, *FRESH, 2, 1.0]
    bad[column] = value
    with pytest.raises(ValueError, match="line 3: every column but task and episode is a number"):
        read_episodes(log([good, bad]))


def test_a_line_that_ends_early_is_refused(log):
    with pytest.raises(ValueError, match="line 2: every column but task and episode"):
        read_episodes(log([["a", 0, 0, *FRESH]]))


@pytest.mark.parametrize(
    ("column", "value"),
    [(2, 0.5), (9, 1.5), (2, "nan"), (9, "inf"), (10, "nan"), (10, "-inf"), (4, "nan")],
)
def test_fractions_and_numbers_that_are_not_finite_are_refused(log, column, value):
    row = ["a", 0, 0, *FRESH, 2, 1.0]
    row[column] = value
    with pytest.raises(ValueError, match="line 2: stage and action are whole numbers"):
        read_episodes(log([row]))


def test_a_stage_that_stands_twice_is_refused(log):
    row = ["a", 0, 0, *FRESH, 2, 1.0]
    with pytest.raises(ValueError, match="line 3: this stage stands twice"):
        read_episodes(log([row, row]))


@pytest.mark.parametrize("stages", [(0, 2), (1,), (1, 2), (-1, 0)])
def test_an_episode_with_a_gap_is_refused(log, stages):
    rows = [["a", 0, stage, *FRESH, 2, 1.0] for stage in stages]
    with pytest.raises(ValueError, match=r"an episode of task a has the stages .*from stage 0"):
        read_episodes(log(rows))


@pytest.mark.parametrize("action", [-1, 6])
def test_actions_that_the_env_does_not_have_are_refused(shop, log, action):
    path = log([["a", 0, 0, *FRESH, action, 1.0]])
    with pytest.raises(ValueError, match=r"actions outside 0..5"):
        logged_transitions(shop[0], path)


def test_observations_of_another_env_are_refused(shop, log):
    header = ["task", "episode", "stage", "obs_0", "obs_1", "action", "reward"]
    path = log([["a", 0, 0, 1, 1, 2, 1.0]], header)
    with pytest.raises(ValueError, match=r"observations of 2 numbers, the env has 6"):
        logged_transitions(shop[0], path)


def test_actions_that_were_forbidden_are_refused(shop, log):
    rows = [["a", 0, 0, *FRESH, 2, 1.0], ["a", 0, 1, 1, 1, 2, 1, 1, 1, 2, 1.0]]
    with pytest.raises(ValueError, match="masked action 2 at stage 1"):
        logged_transitions(shop[0], log(rows))


def test_observations_of_another_stage_are_refused(shop, log):
    rows = [["a", 0, 0, 2, 1, 1, 1, 1, 1, 2, 1.0]]
    with pytest.raises(ValueError, match="observation at stage 0 that belongs to another stage"):
        logged_transitions(shop[0], log(rows))


def test_episodes_longer_than_the_family_are_refused(shop, log):
    shown = [FRESH, [2, 1, 1, 1, 1, 1], [2, 2, 1, 1, 1, 1], [2, 2, 2, 1, 1, 1]]
    rows = [["a", 0, stage, *observation, stage, 1.0] for stage, observation in enumerate(shown)]
    with pytest.raises(ValueError, match=r"more than n_stages=3 steps"):
        logged_transitions(shop[0], log(rows))


def test_batches_with_rewards_that_are_not_finite_are_refused(shop):
    features, batch = shop
    spoiled = batch.task(0)._replace(rewards=batch.task(0).rewards * th.nan)
    with pytest.raises(ValueError, match="rewards are not finite"):
        logged_transitions(features, [batch.task(1), spoiled])
