"""Gradients averaged over tasks: the same on every way, and right."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch as th

from metarl_agents.common.inner_loop import adapted_params
from metarl_agents.common.losses import (
    INNER_LOSSES,
    episode_log_probs,
    likelihood_ratio_loss,
    mean_kl,
)
from metarl_agents.common.meta_gradient import meta_gradient, task_map
from tests.metarl_agents.common.policy_batches import (
    CATEGORICAL,
    GAUSSIAN,
    NETWORKS,
    random_episodes,
    some_params,
)

TOLERANCES = {th.float32: 1e-6, th.float64: 1e-12}
WAYS = {
    "threads": {"backend": "threads", "chunk_size": 1, "n_workers": 2},
    "threads of chunks": {"backend": "threads", "chunk_size": 2, "n_workers": 2},
    "batched": {"backend": "batched"},
    "batched chunks": {"backend": "batched", "chunk_size": 3},
    "vmap": {"backend": "vmap"},
    "vmap chunks": {"backend": "vmap", "chunk_size": 2},
    "auto": {},
}


def loss_of(network, *, loss="loglik", first_order=False):
    """Two inner steps, then likelihood ratios, with the divergence as a further number."""

    def task_loss(params, data):
        *inner, outer = data
        adapted = adapted_params(
            network, params, inner, loss=loss, inner_lr=0.3, first_order=first_order
        )[-1]
        numbers = network.dist_params(adapted, outer.observations)
        kl = mean_kl(
            network.distribution, outer.dist_params, numbers, outer.mask, outer.action_masks
        )
        log_probs = episode_log_probs(network, adapted, outer)
        return likelihood_ratio_loss(log_probs, outer.log_probs, outer) + 0.1 * kl, {"kl": kl}

    return task_loss


def problem(network, dtype=th.float64, n_tasks=5):
    params = some_params(network, dtype)
    data = tuple(
        random_episodes(network, params, (n_tasks,), seed=seed, with_masks=True)
        for seed in range(3)
    )
    return params, data


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_all_ways_agree_with_the_loop(network, dtype, way):
    params, data = problem(network, dtype)
    task_loss = loss_of(network)
    expected = meta_gradient(task_loss, params, data, backend="loop")
    result = meta_gradient(task_loss, params, data, **way)
    pairs = [(result.losses, expected.losses), (result.metrics["kl"], expected.metrics["kl"])]
    pairs += [(result.gradient[name], expected.gradient[name]) for name in params]
    for value, reference in pairs:
        assert value.shape == reference.shape
        assert value.dtype == dtype
        assert not value.requires_grad
        assert (value - reference).abs().max() <= TOLERANCES[dtype]


@pytest.mark.parametrize("loss", INNER_LOSSES)
def test_every_inner_loss_works_on_every_way(loss):
    params, data = problem(CATEGORICAL)
    task_loss = loss_of(CATEGORICAL, loss=loss)
    expected = meta_gradient(task_loss, params, data, backend="loop").gradient
    for way in ("batched", "vmap"):
        gradient = meta_gradient(task_loss, params, data, backend=way).gradient
        for name, part in gradient.items():
            assert th.allclose(part, expected[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("backend", ["loop", "batched", "vmap"])
def test_gradient_is_that_of_the_mean_over_tasks(backend):
    params, data = problem(GAUSSIAN)
    task_loss = loss_of(GAUSSIAN)
    gradient = meta_gradient(task_loss, params, data, backend=backend).gradient
    for i, (name, param) in enumerate(params.items()):
        generator = th.Generator().manual_seed(i)
        direction = th.randn(param.shape, generator=generator, dtype=param.dtype)
        ends = [
            meta_gradient(task_loss, params | {name: param + h * direction}, data).losses.mean()
            for h in (1e-5, -1e-5)
        ]
        slope = (ends[0] - ends[1]).item() / 2e-5
        assert (gradient[name] * direction).sum().item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_results_do_not_depend_on_the_number_of_workers_bit_for_bit(dtype, chunk_size):
    params, data = problem(GAUSSIAN, dtype, n_tasks=7)
    results = [
        meta_gradient(
            loss_of(GAUSSIAN),
            params,
            data,
            backend="threads",
            chunk_size=chunk_size,
            n_workers=n_workers,
        )
        for n_workers in (1, 2, 3)
    ]
    for result in results[1:]:
        assert th.equal(result.losses, results[0].losses)
        assert all(th.equal(result.gradient[name], results[0].gradient[name]) for name in params)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("per", ["tensor", "element"])
def test_step_sizes_among_the_parameters_get_their_gradients(way, per):
    params, data = problem(GAUSSIAN)
    logs = {
        f"log_lr.{name}": th.full(() if per == "tensor" else param.shape, -1.0, dtype=th.float64)
        for name, param in params.items()
    }

    def task_loss(variables, batches):
        theta = {name: variables[name] for name in params}
        step_sizes = {name: variables[f"log_lr.{name}"].exp() for name in params}
        adapted = adapted_params(GAUSSIAN, theta, batches[:1], inner_lr=step_sizes)[-1]
        log_probs = episode_log_probs(GAUSSIAN, adapted, batches[-1])
        return likelihood_ratio_loss(log_probs, batches[-1].log_probs, batches[-1])

    variables = params | logs
    gradient = meta_gradient(task_loss, variables, data, **way).gradient
    name = "log_lr.layers.1.weight"
    ends = [
        meta_gradient(task_loss, variables | {name: logs[name] + h}, data).losses.mean()
        for h in (1e-5, -1e-5)
    ]
    slope = (ends[0] - ends[1]).item() / 2e-5
    assert gradient[name].sum().item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("backend", ["loop", "batched", "vmap"])
def test_first_order_gradient_is_the_plain_one_at_the_adapted_parameters(backend):
    params, data = problem(GAUSSIAN)
    task_loss = loss_of(GAUSSIAN, first_order=True)
    result = meta_gradient(task_loss, params, data, backend=backend)

    def at_adapted(batches):
        *inner, outer = batches
        adapted = adapted_params(GAUSSIAN, params, inner, inner_lr=0.3, create_graph=False)[-1]
        stacked = type(outer)._make(None if f is None else f[None] for f in outer)
        return meta_gradient(
            lambda theta, own: loss_of(GAUSSIAN)(theta, (own,)), adapted, stacked
        ).gradient

    gradients = task_map(at_adapted, data)
    for name, part in result.gradient.items():
        mean = sum(gradient[name] for gradient in gradients) / len(gradients)
        assert th.allclose(part, mean, atol=1e-13, rtol=0)


def test_works_where_gradients_are_off_and_changes_nothing():
    params, data = problem(GAUSSIAN)
    before = {name: param.clone() for name, param in params.items()}
    expected = meta_gradient(loss_of(GAUSSIAN), params, data).gradient
    with th.no_grad():
        gradient = meta_gradient(loss_of(GAUSSIAN), params, data).gradient
    for name, param in params.items():
        assert th.equal(gradient[name], expected[name])
        assert th.equal(param, before[name])
        assert not param.requires_grad


def test_parameters_that_no_loss_uses_get_zeros():
    params, data = problem(GAUSSIAN)
    result = meta_gradient(
        loss_of(GAUSSIAN), params | {"unused": th.ones(3, dtype=th.float64)}, data
    )
    assert th.equal(result.gradient["unused"], th.zeros(3, dtype=th.float64))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_thread_counts_are_restored_after_an_exception(n_workers):
    params, data = problem(GAUSSIAN)
    before = th.get_num_threads()
    th.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            meta_gradient(
                lambda theta, own: 1 / 0, params, data, backend="threads", n_workers=n_workers
            )
        assert th.get_num_threads() == 2
    finally:
        th.set_num_threads(before)


def test_tasks_are_mapped_in_order_and_one_by_one():
    data = {"x": th.arange(6).reshape(3, 2)}
    for n_workers in (1, 2):
        assert task_map(lambda own: own["x"].tolist(), data, n_workers=n_workers) == [
            [0, 1],
            [2, 3],
            [4, 5],
        ]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="max RSS in kilobytes")
def test_paper_size_stays_below_1200_megabytes():
    """40 tasks of 4000 steps and a 2x64 network, with a gradient and a curvature product."""
    script = """
        import resource
        import numpy as np
        import torch as th
        from metarl_agents.common.fisher import meta_fisher_product
        from metarl_agents.common.meta_gradient import meta_gradient
        from metarl_agents.common.policies.distributions import DiagonalGaussian
        from metarl_agents.common.policies.networks import MlpNetwork
        from tests.metarl_agents.common import policy_batches
        from tests.metarl_agents.common.test_meta_gradient import loss_of

        policy_batches.OBS_DIM = 17
        network = MlpNetwork(17, DiagonalGaussian(6))
        params = network.initial_params(np.random.default_rng(0))
        inner, outer = (
            policy_batches.random_episodes(
                network, params, (40,), n_episodes=20, n_steps=200, seed=seed
            )
            for seed in range(2)
        )
        gradient = meta_gradient(loss_of(network), params, (inner, outer), n_workers=2).gradient
        product = meta_fisher_product(network, params, [inner], outer, inner_lr=0.1, n_workers=2)
        product(gradient)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert float(done.stdout) < 1200


def test_long_gradients_are_shortened_and_keep_their_direction():
    params = {"a": th.tensor([3.0, 0.0]), "b": th.tensor([[4.0]])}
    found = meta_gradient(
        lambda own, data: (
            (own["a"] * data[..., :2]).sum(-1) + (own["b"][..., 0, :] * data[..., 2:]).sum(-1)
        ),
        params,
        th.tensor([[3.0, 0.0, 4.0]]),
    )
    assert found.norm == 5.0
    assert found.clipped(None) is found.gradient
    assert found.clipped(5.0) is found.gradient
    shortened = found.clipped(0.5)
    # A tenth of (3, 0) and 4, to the rounding of float32.
    assert th.allclose(shortened["a"], th.tensor([0.3, 0.0]))
    assert th.allclose(shortened["b"], th.tensor([[0.4]]))
