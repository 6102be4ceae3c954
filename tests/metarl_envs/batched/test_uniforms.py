import numpy as np

from metarl_envs.batched.uniforms import UniformBuffers


def test_blocks_give_the_numbers_of_single_calls():
    buffers = UniformBuffers(3, 8, np.random.default_rng)
    for i in range(3):
        buffers.seed(i, np.random.default_rng(i))
    singles = [np.random.default_rng(i) for i in range(3)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        indices = np.flatnonzero(rng.random(3) < 0.7)
        n = int(rng.integers(0, 9))
        expected = [singles[i].random(n) for i in indices]
        np.testing.assert_array_equal(
            buffers.take(indices, n), np.array(expected).reshape(len(indices), n)
        )


def test_seeding_forgets_the_numbers_drawn_ahead():
    buffers = UniformBuffers(1, 8, np.random.default_rng)
    buffers.seed(0, np.random.default_rng(0))
    first = buffers.take(np.array([0]), 3)
    buffers.seed(0, np.random.default_rng(0))
    np.testing.assert_array_equal(buffers.take(np.array([0]), 3), first)
