"""Random maps follow the law of Gymnasium's generator."""

import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import MAPS, generate_random_map, is_valid

from metarl_envs.core import TaskDistribution
from metarl_envs.distributions import BatchTaskDistribution
from metarl_envs.tabular.frozen_lake import FrozenLakeHolesFamily, HolesTask, MapTasks, maps, tasks

N_DRAWS = 20_000


def letters(holes, size):
    """The board that Gymnasium checks: a list of lists of letters."""
    board = np.where(np.reshape(holes, (size, size)), "H", "F")
    board[0][0], board[-1][-1] = "S", "G"
    return board.tolist()


def every_4x4_map():
    """All 2^14 maps, (16384, 16), as flags of holes."""
    holes = np.zeros((2**14, 16), dtype=bool)
    holes[:, 1:-1] = (np.arange(2**14)[:, None] >> np.arange(14)) & 1
    return holes


@pytest.fixture(scope="module")
def valid_4x4_maps():
    holes = every_4x4_map()
    return holes[[is_valid(letters(row, 4), 4) for row in holes]]


def draw_many(distribution, n, seed):
    rng = np.random.default_rng(seed)
    return distribution.arrays_from_uniforms(
        lambda rows: rng.random((len(rows), distribution.n_uniforms)), n
    )


def test_paths_are_found_in_exactly_the_4x4_maps_that_have_one(valid_4x4_maps):
    holes = every_4x4_map()
    found = maps.has_path(maps.rows_of_ice(holes, 4))
    np.testing.assert_array_equal(holes[found], valid_4x4_maps)


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("p", [0.5, 0.65, 0.8])
def test_paths_on_larger_maps_are_those_that_gymnasium_finds(size, p):
    holes = np.random.default_rng(size).random((400, size * size)) >= p
    holes[:, [0, -1]] = False
    expected = [is_valid(letters(row, size), size) for row in holes]
    np.testing.assert_array_equal(maps.has_path(maps.rows_of_ice(holes, size)), expected)
    assert 0 < sum(expected) < 400


def test_a_path_that_winds_up_and_down_is_found():
    desc = ["SHFFFHFF", "FHFHFHFH"] + ["FHFHFHFF"] * 4 + ["FHFHFHFH", "FFFHFFFG"]
    for rows in (desc, [row[::-1] for row in desc[::-1]]):
        holes = np.array([[letter == "H" for letter in "".join(rows)]])
        assert maps.has_path(maps.rows_of_ice(holes, 8)).all()
        assert maps.reachable(holes, 8)[0, -1]


def test_reachable_tiles_are_those_that_a_walk_of_the_map_visits():
    holes = np.random.default_rng(0).random((50, 64)) >= 0.6
    holes[:, 0] = False
    moves = maps.moves(8)
    for row, found in zip(holes, maps.reachable(holes, 8), strict=True):
        visited, frontier = {0}, [0]
        while frontier:
            new = {t for t in moves[frontier.pop()].tolist() if not row[t]} - visited
            visited |= new
            frontier += new
        assert visited == set(np.flatnonzero(found).tolist())


@pytest.mark.parametrize("largest_tabulated", [4, 3])
@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_maps_follow_the_exact_conditional_law(valid_4x4_maps, monkeypatch, p, largest_tabulated):
    # With 3, the maps of 4x4 tiles are drawn row by row and rejected, as the larger ones are.
    monkeypatch.setattr(tasks, "LARGEST_TABULATED", largest_tabulated)
    drawn = draw_many(MapTasks(HolesTask, 4, p), N_DRAWS, seed=1)
    n_holes = valid_4x4_maps.sum(axis=1)
    weights = p ** (14 - n_holes) * (1 - p) ** n_holes
    weights /= weights.sum()
    by_count = np.bincount(n_holes, weights, minlength=15)
    by_tile = weights @ valid_4x4_maps
    frequencies = np.bincount(drawn.sum(axis=1).astype(int), minlength=15) / N_DRAWS
    # 5 binomial standard errors: a false alarm in one of the 186 comparisons has probability 1e-4.
    for expected, found in ((by_count, frequencies), (by_tile, drawn.mean(axis=0))):
        errors = np.sqrt(expected * (1 - expected) / N_DRAWS)
        assert np.all(np.abs(found - expected) <= 5 * errors + 1e-12)


def test_8x8_maps_have_as_many_holes_as_gymnasiums():
    ours = draw_many(MapTasks(HolesTask, 8, 0.8), 4000, seed=2).sum(axis=1)
    theirs = np.array(
        [sum(r.count("H") for r in generate_random_map(8, 0.8, seed=s)) for s in range(400)]
    )
    error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    assert abs(ours.mean() - theirs.mean()) <= 4 * error


@pytest.mark.parametrize(("size", "p"), [(2, 0.5), (4, 0.5), (5, 0.5), (8, 0.65), (8, 0.95)])
def test_one_task_and_a_batch_of_them_are_the_same_bits(size, p):
    distribution = MapTasks(HolesTask, size, p)
    generators = [np.random.default_rng(seed) for seed in range(40)]
    batch = distribution.arrays_from_uniforms(
        lambda rows: np.array([generators[i].random(distribution.n_uniforms) for i in rows]), 40
    )
    for seed, array in enumerate(batch):
        rng = np.random.default_rng(seed)
        task = distribution.sample(rng)
        np.testing.assert_array_equal(task.to_array(), array)
        assert rng.bit_generator.state == generators[seed].bit_generator.state
        assert distribution.from_array(array) == task


@pytest.mark.parametrize("size", [2, 3, 4, 6, 8])
def test_every_drawn_map_has_a_path(size):
    drawn = draw_many(MapTasks(HolesTask, size, 0.5), 200, seed=3)
    assert all(is_valid(letters(row, size), size) for row in drawn)


def test_without_holes_there_is_one_map():
    for size in (4, 8):
        assert not draw_many(MapTasks(HolesTask, size, 1.0), 50, seed=0).any()


def test_the_distribution_follows_the_protocols():
    distribution = MapTasks(HolesTask, 4, 0.8)
    assert isinstance(distribution, TaskDistribution)
    assert isinstance(distribution, BatchTaskDistribution)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: 0.5}, "nothing but 0 and 1"),
        ({1: 1.0, 4: 1.0}, "no path"),
        ({0: 1.0}, "outside the task space"),
        ({15: 1.0}, "outside the task space"),
        ({3: np.nan}, "not finite"),
    ],
)
def test_arrays_that_are_no_map_are_refused(change, message):
    array = np.zeros(16)
    for tile, value in change.items():
        array[tile] = value
    with pytest.raises(ValueError, match=message):
        MapTasks(HolesTask, 4, 0.8).from_array(array)


def test_gymnasiums_own_maps_are_tasks():
    for name, size in (("4x4", 4), ("8x8", 8)):
        family = FrozenLakeHolesFamily(size=size)
        task = family.task_from_desc(MAPS[name])
        assert family.desc(task) == MAPS[name]
        np.testing.assert_array_equal(task.to_array(), maps.holes_of_map(name))
