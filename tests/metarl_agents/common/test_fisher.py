"""Products with Fisher matrices, against dense matrices and against differentiating twice."""

import numpy as np
import pytest
import torch as th

from metarl_agents.common.fisher import (
    fisher_product,
    hessian_product,
    meta_fisher_product,
    meta_kl_product,
)
from metarl_agents.common.losses import INNER_LOSSES, episode_log_probs
from metarl_agents.common.solvers import flatten, unflatten
from tests.metarl_agents.common.policy_batches import (
    CATEGORICAL,
    GAUSSIAN,
    NETWORKS,
    random_episodes,
    some_params,
)
from tests.metarl_agents.common.two_state_mdps import LOGITS, MDPS, NETWORK

INNER_LR = 0.1


def problem(network, n_inner_steps, n_tasks=3, dtype=th.float64):
    params = some_params(network, dtype)
    *inner, outer = (
        random_episodes(network, params, (n_tasks,), seed=seed, with_masks=True)
        for seed in range(n_inner_steps + 1)
    )
    return params, inner, outer, some_params(network, dtype, seed=7)


def largest_difference(first, second):
    scale = max(part.abs().max().item() for part in second.values())
    return max((first[name] - second[name]).abs().max().item() for name in second) / scale


@pytest.mark.parametrize("n_inner_steps", [0, 1, 2])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_product_is_the_twice_differentiated_divergence(network, n_inner_steps):
    params, inner, outer, vector = problem(network, n_inner_steps)
    exact = meta_kl_product(network, params, inner, outer, inner_lr=INNER_LR)(vector)
    product = meta_fisher_product(network, params, inner, outer, inner_lr=INNER_LR)(vector)
    assert largest_difference(product, exact) < 1e-10


@pytest.mark.parametrize("loss", INNER_LOSSES)
def test_product_is_exact_for_every_inner_loss(loss):
    params, inner, outer, vector = problem(CATEGORICAL, 2)
    options = {"loss": loss, "reduction": "sum", "inner_lr": INNER_LR}
    exact = meta_kl_product(CATEGORICAL, params, inner, outer, **options)(vector)
    product = meta_fisher_product(CATEGORICAL, params, inner, outer, **options)(vector)
    assert largest_difference(product, exact) < 1e-10


@pytest.mark.parametrize("options", [{"first_order": True}, {"loss": "none"}])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_first_order_product_is_the_mean_fisher_product_at_the_adapted_parameters(network, options):
    params, inner, outer, vector = problem(network, 2)
    first_order = {"inner_lr": INNER_LR, **options}
    product = meta_fisher_product(network, params, inner, outer, **first_order)(vector)
    exact = meta_kl_product(network, params, inner, outer, **first_order)(vector)
    assert largest_difference(product, exact) < 1e-10
    second_order = meta_fisher_product(network, params, inner, outer, inner_lr=INNER_LR)(vector)
    assert largest_difference(product, second_order) > 1e-3


@pytest.mark.parametrize("per", ["tensor", "element"])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_products_know_step_sizes_of_their_own_per_parameter(per, chunk_size):
    params, inner, outer, vector = problem(GAUSSIAN, 2)
    generator = th.Generator().manual_seed(0)
    inner_lr = {
        name: 0.2 * th.rand(() if per == "tensor" else p.shape, generator=generator).double()
        for name, p in params.items()
    }
    exact = meta_kl_product(GAUSSIAN, params, inner, outer, inner_lr=inner_lr)(vector)
    product = meta_fisher_product(
        GAUSSIAN, params, inner, outer, inner_lr=inner_lr, chunk_size=chunk_size
    )(vector)
    assert largest_difference(product, exact) < 1e-10


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_plain_product_is_the_expected_square_of_the_score(network):
    """For a softmax by summing over actions; for normals with a million draws of one action each,
    whose standard error is below 1 %."""
    params = some_params(network)
    episodes = random_episodes(network, params, n_episodes=1, n_steps=2)
    matrix = th.zeros(())
    for observation in episodes.observations[0]:
        numbers = network.dist_params(params, observation)

        def of_vector(flat, observation=observation):
            return network.dist_params(unflatten(flat, params), observation)

        jacobian = th.autograd.functional.jacobian(of_vector, flatten(params))
        matrix = matrix + jacobian.T @ score_square(network.distribution, numbers) @ jacobian / 2
    vector = some_params(network, seed=7)
    product = flatten(fisher_product(network, params, episodes)(vector))
    tolerance = 1e-12 if network is CATEGORICAL else 1e-2
    assert (product - matrix @ flatten(vector)).norm() <= tolerance * product.norm()


def score_square(distribution, numbers):
    """E[score score'] of one distribution in its own numbers."""
    if hasattr(distribution, "n_actions"):
        probabilities = numbers.softmax(-1)
        scores = th.eye(len(numbers), dtype=numbers.dtype) - probabilities
        return scores.T @ (probabilities[:, None] * scores)
    n = distribution.act_dim
    noise = th.randn(1_000_000, n, generator=th.Generator().manual_seed(0), dtype=numbers.dtype)
    scores = th.cat([noise * th.exp(-numbers[n:]), noise.square() - 1], dim=-1)
    return scores.T @ scores / len(noise)


def test_hessian_product_is_the_dense_hessian_of_the_inner_loss():
    mdp = MDPS["A"]
    episodes = mdp.episodes(LOGITS, baseline=True)

    def total(logits):
        params = {"logits": logits.expand(32, 2, 2)}
        log_probs = episode_log_probs(NETWORK, params, episodes)
        return INNER_LOSSES["dice"](log_probs, episodes, "sum").sum()

    vector = th.tensor([[0.4, -1.0], [2.0, 0.3]], dtype=th.float64)
    product = hessian_product(
        NETWORK,
        {"logits": LOGITS.expand(32, 2, 2)},
        episodes,
        loss="dice",
        reduction="sum",
    )({"logits": vector.expand(32, 2, 2)})
    dense = th.func.hessian(total)(LOGITS)
    expected = th.einsum("ijkl,kl->ij", dense, vector)
    assert th.allclose(product["logits"].sum(0), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "way",
    [
        {"backend": "loop"},
        {"backend": "batched"},
        {"backend": "batched", "chunk_size": 2},
        {"backend": "threads", "chunk_size": 1, "n_workers": 2},
    ],
)
def test_product_is_the_same_on_every_way(way):
    params, inner, outer, vector = problem(GAUSSIAN, 2)
    expected = meta_fisher_product(GAUSSIAN, params, inner, outer, inner_lr=INNER_LR)(vector)
    for product in (meta_fisher_product, meta_kl_product):
        result = product(GAUSSIAN, params, inner, outer, inner_lr=INNER_LR, **way)(vector)
        assert largest_difference(result, expected) < 1e-12


def test_product_does_not_depend_on_workers_nor_on_earlier_products_bit_for_bit():
    params, inner, outer, vector = problem(GAUSSIAN, 1, dtype=th.float32)
    results = []
    for n_workers in (1, 2):
        product = meta_fisher_product(
            GAUSSIAN,
            params,
            inner,
            outer,
            inner_lr=INNER_LR,
            backend="threads",
            chunk_size=1,
            n_workers=n_workers,
        )
        results += [product(vector), product(vector)]
    for result in results[1:]:
        assert all(th.equal(result[name], results[0][name]) for name in params)
        assert not any(part.requires_grad for part in result.values())


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_product_is_symmetric_and_positive(network):
    params, inner, outer, _ = problem(network, 2)
    product = meta_fisher_product(network, params, inner, outer, inner_lr=INNER_LR)
    size = flatten(params).numel()
    columns = [flatten(product(unflatten(unit, params))) for unit in th.eye(size, dtype=th.float64)]
    matrix = th.stack(columns)
    assert (matrix - matrix.T).abs().max() < 1e-12 * matrix.abs().max()
    assert th.linalg.eigvalsh(matrix).min() > -1e-12 * matrix.abs().max()


def test_subsampled_products_use_whole_episodes_and_average_to_the_full_fisher_product():
    params, inner, outer, vector = problem(GAUSSIAN, 1)
    whole = outer._replace(mask=th.ones_like(outer.mask))  # equal lengths: means of means
    full = meta_fisher_product(GAUSSIAN, params, inner, whole, inner_lr=INNER_LR, first_order=True)(
        vector
    )

    def subsampled(rng):
        return meta_fisher_product(
            GAUSSIAN,
            params,
            inner,
            whole,
            inner_lr=INNER_LR,
            first_order=True,
            subsample=0.34,
            rng=rng,
        )(vector)

    again = subsampled(np.random.default_rng(0))
    assert largest_difference(subsampled(np.random.default_rng(0)), again) == 0
    rng = np.random.default_rng(0)
    results = [subsampled(rng) for _ in range(40)]
    singles = {round(flatten(result)[0].item(), 12) for result in results}
    assert len(singles) == 3  # 0.34 of 3 episodes are 2: three pairs
    distinct = {round(flatten(r)[0].item(), 12): flatten(r) for r in results}
    mean = th.stack(list(distinct.values())).mean(0)
    assert (mean - flatten(full)).norm() < 1e-12 * mean.norm()


def test_arguments_that_do_not_fit_are_refused():
    params, inner, outer, _ = problem(GAUSSIAN, 1)
    with pytest.raises(ValueError, match="subsample=0"):
        meta_fisher_product(GAUSSIAN, params, inner, outer, inner_lr=0.1, subsample=0)
    with pytest.raises(ValueError, match="give it a generator as rng"):
        meta_fisher_product(GAUSSIAN, params, inner, outer, inner_lr=0.1, subsample=0.5)
    for product in (meta_fisher_product, meta_kl_product):
        with pytest.raises(ValueError, match='backend="vmap"'):
            product(GAUSSIAN, params, inner, outer, inner_lr=0.1, backend="vmap")
