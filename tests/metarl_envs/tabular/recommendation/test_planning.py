from math import comb

import numpy as np
import pytest

from metarl_envs.tabular.recommendation import planning


@pytest.mark.parametrize(("n_products", "n_stages"), [(1, 1), (3, 2), (4, 4), (6, 3)])
def test_states_come_in_layers_without_repetition(n_products, n_stages):
    table = planning.state_table(n_products, n_stages)
    shown = np.count_nonzero(table.x, axis=1)
    assert np.all(np.diff(shown) >= 0)
    assert len(set(map(tuple, table.x))) == len(table.x)
    for k in range(n_stages):
        layer = table.x[table.layer(k)]
        assert len(layer) == comb(n_products, k) * 2**k
        assert np.all(np.count_nonzero(layer, axis=1) == k)
    assert planning.count_states(n_products, n_stages) == len(table.x)


def test_successors_change_one_product():
    table = planning.state_table(5, 4)
    for successors, sign in ((table.liked, 1), (table.disliked, -1)):
        assert len(successors) == table.n_states[2]
        for i, a in np.ndindex(*successors.shape):
            expected = table.x[i].copy()
            expected[a] = expected[a] or sign
            np.testing.assert_array_equal(table.x[successors[i, a]], expected)


def test_one_stage_has_no_successors():
    assert planning.state_table(3, 1).liked.shape == (0, 3)


def test_too_many_states_are_refused():
    with pytest.raises(ValueError, match="n_products=30"):
        planning.state_table(30, 10)


def test_chunks_cover_all_tasks_once():
    table = planning.state_table(6, 3)
    slices = list(planning.chunks(100_000, table))
    assert len(slices) > 1
    covered = np.concatenate([np.arange(100_000)[part] for part in slices])
    np.testing.assert_array_equal(covered, np.arange(100_000))
