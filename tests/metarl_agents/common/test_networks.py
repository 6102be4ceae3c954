import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.func import functional_call, vmap

from metarl_agents.common.policies import (
    MlpPolicy,
    TabularNetwork,
    TabularPolicy,
    make_network,
)
from metarl_agents.common.policies.encodings import encoding_of

BOX = spaces.Box(-1.0, 1.0, (2, 3), dtype=np.float32)
ACTIONS = spaces.Box(-2.0, 2.0, (2,), dtype=np.float32)
NETWORKS = {
    "gaussian": make_network("MlpPolicy", BOX, ACTIONS, net_arch=(8, 5)),
    "relu": make_network("MlpPolicy", BOX, ACTIONS, net_arch=(8,), activation="relu"),
    "linear": make_network("MlpPolicy", BOX, spaces.Discrete(4), net_arch=()),
    "one_hot": make_network("MlpPolicy", spaces.Discrete(5), spaces.Discrete(4)),
    "multi": make_network("MlpPolicy", spaces.MultiDiscrete([3, 2]), spaces.Discrete(4)),
    "table": make_network("TabularPolicy", spaces.Discrete(5), spaces.Discrete(4)),
}
SPACES = {"one_hot": 5, "multi": 2, "table": 5}
all_networks = pytest.mark.parametrize("name", NETWORKS)


def observations(name, *shape, seed=0):
    rng = np.random.default_rng(seed)
    if name in SPACES:
        return rng.integers(0, SPACES[name], (*shape, NETWORKS[name].obs_dim)).astype(float)
    return rng.standard_normal((*shape, NETWORKS[name].obs_dim))


def random_params(name, n, dtype=th.float64, seed=0):
    """n sets, no two alike and none of them zero."""
    rng, network = np.random.default_rng(seed), NETWORKS[name]
    sets = [network.initial_params(rng, dtype=dtype) for _ in range(n)]
    return {
        key: th.stack([p[key] for p in sets])
        + 0.1 * th.as_tensor(rng.standard_normal((n, *sets[0][key].shape)), dtype=dtype)
        for key in sets[0]
    }


def one(params, index):
    return {name: tensor[index] for name, tensor in params.items()}


def arrays(params):
    return {name: tensor.numpy() for name, tensor in params.items()}


@all_networks
@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float64, 1e-12), (th.float32, 1e-5)])
def test_numpy_computes_what_torch_does(name, dtype, tolerance):
    network, params = NETWORKS[name], random_params(name, 3, dtype)
    rows = observations(name, 3, 7)
    ours = network.dist_params_numpy(arrays(params), rows)
    theirs = network.dist_params(params, th.as_tensor(rows))
    assert ours.shape == (3, 7, network.distribution.n_params)
    assert ours.dtype == theirs.numpy().dtype
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=tolerance, atol=tolerance)


@all_networks
def test_stacked_parameters_compute_in_numpy_what_each_does_alone_bit_for_bit(name):
    network, params = NETWORKS[name], random_params(name, 5, th.float32)
    for n_rows in (1, 2, 7, 20):
        rows = observations(name, 5, n_rows).astype(np.float32)
        together = network.dist_params_numpy(arrays(params), rows)
        shared = network.dist_params_numpy(arrays(one(params, 2)), rows)
        for i in range(5):
            alone = network.dist_params_numpy(arrays(one(params, i)), rows[i])
            assert np.array_equal(together[i], alone)
        assert np.array_equal(shared[2], together[2])


@all_networks
def test_one_set_a_leading_axis_and_vmap_agree_with_gradients_in_torch(name):
    network, params = NETWORKS[name], random_params(name, 3)
    rows = th.as_tensor(observations(name, 3, 2, 4))
    stacked = {key: tensor.clone().requires_grad_() for key, tensor in params.items()}
    together = network.dist_params(stacked, rows)
    together.square().sum().backward()
    mapped = vmap(network.dist_params)(params, rows)
    th.testing.assert_close(mapped, together.detach(), rtol=1e-12, atol=1e-12)
    for i in range(3):
        own = {key: tensor.clone().requires_grad_() for key, tensor in one(params, i).items()}
        alone = network.dist_params(own, rows[i])
        assert alone.shape == (2, 4, network.distribution.n_params)
        th.testing.assert_close(alone, together[i], rtol=1e-12, atol=1e-12)
        alone.square().sum().backward()
        for key in own:
            th.testing.assert_close(own[key].grad, stacked[key].grad[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["gaussian", "table"])
def test_gradients_of_second_order_are_right(name):
    network, params = NETWORKS[name], one(random_params(name, 1), 0)
    rows, keys = th.as_tensor(observations(name, 3)), list(params)

    def function(*tensors):
        return network.dist_params(dict(zip(keys, tensors, strict=True)), rows)

    inputs = [params[key].clone().requires_grad_() for key in keys]
    assert th.autograd.gradcheck(function, inputs)
    assert th.autograd.gradgradcheck(function, inputs)


def test_deviations_have_the_same_floor_in_sampling_and_in_log_prob():
    network, params = NETWORKS["gaussian"], one(random_params("gaussian", 1), 0)
    params["log_std"] = th.tensor([-50.0, -1.0], dtype=th.float64)
    rows = observations("gaussian", 4)
    ours = network.dist_params_numpy(arrays(params), rows)
    assert np.array_equal(ours[:, 2:], np.tile([np.log(1e-6), -1.0], (4, 1)))
    assert np.array_equal(
        network.dist_params(params, th.as_tensor(rows))[:, 2:].numpy(), ours[:, 2:]
    )
    noise = np.ones((4, 2))
    actions = network.distribution.sample(ours, noise)
    np.testing.assert_allclose(actions[:, 0] - ours[:, 0], 1e-6, rtol=1e-9)


def test_initial_weights_are_glorot_uniform_and_initial_deviations_one():
    params = make_network("MlpPolicy", BOX, ACTIONS).initial_params(np.random.default_rng(0))
    assert list(params) == [
        "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias",
        "layers.2.weight", "layers.2.bias", "log_std",
    ]  # fmt: skip
    assert {tensor.dtype for tensor in params.values()} == {th.float32}
    for name, n_in, n_out in (("0", 6, 64), ("1", 64, 64), ("2", 64, 2)):
        weight, limit = params[f"layers.{name}.weight"], np.sqrt(6.0 / (n_in + n_out))
        assert weight.shape == (n_out, n_in)
        # Of more than 100 uniform numbers, the largest is within a tenth of the limit.
        assert 0.9 * limit < weight.abs().max() <= limit
        assert not params[f"layers.{name}.bias"].any()
    assert not params["log_std"].any()
    table = NETWORKS["table"].initial_params(np.random.default_rng(0))["logits"]
    assert table.dtype == th.float64
    assert not table.any()


def test_several_numbers_make_up_one_state():
    space = spaces.MultiDiscrete([2, 3], start=[1, 0])
    table = make_network("TabularPolicy", space, spaces.Discrete(4))
    observations = np.array([[1 + i, j] for i in range(2) for j in range(3)])
    assert table.states(th.as_tensor(observations)).tolist() == list(range(6))
    logits = np.arange(24.0).reshape(6, 4)
    assert np.array_equal(table.dist_params_numpy({"logits": logits}, observations), logits)
    params = {"logits": th.as_tensor(logits)}
    assert th.equal(table.dist_params(params, th.as_tensor(observations)), params["logits"])


def test_discrete_observations_are_indicators_and_others_numbers():
    rows = np.array([[4.0, 1.0], [2.0, 0.0]])
    encoding = encoding_of(spaces.MultiDiscrete([3, 2], start=[2, 0]))
    expected = [[0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]
    assert encoding.encoded_numpy(rows, np.float32).tolist() == expected
    assert encoding.encoded(th.as_tensor(rows), th.float32).tolist() == expected
    assert encoding_of(spaces.Discrete(3, start=5)).encoded_numpy(
        np.array([[6]]), float
    ).tolist() == [[0, 1, 0]]
    assert encoding_of(spaces.MultiBinary(2)).encoded_numpy(rows, float).tolist() == rows.tolist()
    table = TabularNetwork(3, 2, first_state=5)
    logits = th.arange(6.0).reshape(3, 2)
    assert table.dist_params({"logits": logits}, th.tensor([[6]])).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("first_state", [5, -7])
def test_a_table_takes_padding_although_zero_is_no_state_of_it(first_state):
    table = TabularNetwork(3, 2, first_state=first_state)
    observations = th.tensor([[[first_state + 1.0], [0.0]]])
    for logits in (th.arange(6.0).reshape(3, 2), th.arange(6.0).reshape(1, 3, 2)):
        found = table.dist_params({"logits": logits}, observations)
        assert found[0, 0].tolist() == [2.0, 3.0] and found.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("CnnPolicy", BOX, ACTIONS), 'must be "MlpPolicy" or'),
        (("TabularPolicy", BOX, spaces.Discrete(2)), "needs Discrete"),
        (("TabularPolicy", spaces.Discrete(2), ACTIONS), "needs Discrete"),
        (("MlpPolicy", BOX, spaces.Discrete(2, start=1)), "starts at 0"),
        (("MlpPolicy", BOX, spaces.MultiBinary(2)), "action_space"),
        (("MlpPolicy", spaces.Text(3), ACTIONS), "observation_space"),
    ],
)
def test_spaces_and_names_that_do_not_fit_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        make_network(*arguments)


def test_wrong_architectures_are_refused():
    with pytest.raises(ValueError, match="activation='elu'"):
        make_network("MlpPolicy", BOX, ACTIONS, activation="elu")
    with pytest.raises(ValueError, match="net_arch"):
        make_network("MlpPolicy", BOX, ACTIONS, net_arch=(0,))


def test_policy_modules_hold_the_networks_parameters_under_its_names():
    for policy in (
        MlpPolicy(BOX, ACTIONS, rng=np.random.default_rng(1)),
        TabularPolicy(spaces.Discrete(5), spaces.Discrete(4), rng=np.random.default_rng(1)),
    ):
        initial = policy.network.initial_params(np.random.default_rng(1))
        assert list(policy.params()) == list(initial)
        assert all(th.equal(policy.params()[name], initial[name]) for name in initial)
        assert {id(p) for p in policy.parameters()} == {id(p) for p in policy.params().values()}
        state = policy.state_dict()
        assert sorted(state) == sorted(initial)


def test_policy_modules_predict_and_forward():
    policy = MlpPolicy(BOX, ACTIONS, rng=np.random.default_rng(1))
    rows = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    outputs = policy(th.as_tensor(rows))
    expected = policy.network.dist_params(policy.params(), th.as_tensor(rows.reshape(4, 6)))
    assert th.equal(outputs, expected)
    assert th.equal(outputs, functional_call(policy, policy.params(), (th.as_tensor(rows),)))
    actions, _ = policy.predict(rows, deterministic=True)
    assert np.array_equal(actions, np.clip(outputs[:, :2].detach().numpy(), -2, 2))
    assert policy.predict(rows)[0].shape == (4, 2)
    table = TabularPolicy(spaces.Discrete(5), spaces.Discrete(4))
    assert table.predict(np.array(3), deterministic=True)[0] == 0


@pytest.mark.parametrize("observation", [4, 8, -1])
def test_what_is_no_state_of_the_table_is_refused(observation):
    table = TabularNetwork(3, 2, first_state=5)
    logits = {"logits": np.zeros((3, 2))}
    assert table.dist_params_numpy(logits, np.array([[5], [7]])).shape == (2, 2)
    with pytest.raises(ValueError, match=f"observation {observation} is no state.* 3 from 5 on"):
        table.dist_params_numpy(logits, np.array([[5], [observation]]))
