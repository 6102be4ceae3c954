import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from metarl_agents.common.policies import (
    DiagonalGaussian,
    FunctionalPolicies,
    FunctionalPolicy,
    TaskPolicies,
    make_network,
    stack_policies,
)
from metarl_agents.common.policies.noise import TaskNoise
from metarl_agents.common.vec_env import make_task_vec_env

BOX = spaces.Box(-1.0, 1.0, (3,), dtype=np.float32)
TORQUES = spaces.Box(-0.5, 0.5, (2,), dtype=np.float32)
MLP = make_network("MlpPolicy", BOX, TORQUES, net_arch=(8,))
TABLE = make_network("TabularPolicy", spaces.Discrete(4), spaces.Discrete(3))
SMALL = "metarl/RecommendationSmall-v0"


def params_of(network, n, seed=0):
    rng = np.random.default_rng(seed)
    sets = [network.initial_params(rng) for _ in range(n)]
    stacked = {name: th.stack([p[name] for p in sets]) for name in sets[0]}
    return {name: p + 0.3 * th.randn(p.shape, dtype=p.dtype, generator=generator())
            for name, p in stacked.items()}  # fmt: skip


def generator():
    return th.Generator().manual_seed(5)


def one(params, index):
    return {name: tensor[index] for name, tensor in params.items()}


def single(network, params, action_space, seed, n_updates=0):
    rng = np.random.default_rng(seed)
    return FunctionalPolicy(
        network, params, action_space=action_space, rng=rng, n_updates=n_updates
    )


def singles(n=4):
    params = params_of(MLP, n)
    return [single(MLP, one(params, i), TORQUES, seed=i) for i in range(n)]


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal((*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("deterministic", [False, True])
def test_stacked_policies_act_as_each_does_alone_bit_for_bit(deterministic):
    together, alone = stack_policies(singles()), singles()
    assert isinstance(together, FunctionalPolicies)
    assert isinstance(together, TaskPolicies)
    start = np.ones(4, dtype=bool)
    for step in range(150):
        observation = rows(4, seed=step)
        starts = start if step in (0, 70) else ~start
        ours = together.act(observation, None, starts, deterministic)
        for i, policy in enumerate(alone):
            theirs = policy.act(observation[i : i + 1], None, starts[i : i + 1], deterministic)
            assert np.array_equal(ours[0][i], theirs[0][0])
            assert np.array_equal(ours[2][i], theirs[2][0])


def test_a_task_acts_the_same_with_several_rows_beside_others_and_alone():
    params = params_of(MLP, 4)
    for shared in (False, True):
        own = one(params, 1)
        rngs = [np.random.default_rng(i) for i in range(4)]
        if shared:
            together = FunctionalPolicies.shared(MLP, own, 4, action_space=TORQUES, rng=rngs)
        else:
            together = FunctionalPolicies(MLP, params, action_space=TORQUES, rngs=rngs)
        alone = single(MLP, own, TORQUES, seed=1)
        repeated = together.repeated(5)
        assert (repeated.n_tasks, together.n_tasks, len(together)) == (20, 4, 4)
        for step in range(70):
            observation = rows(20, seed=step)
            ours, _, _ = repeated.act(observation)
            assert np.array_equal(ours[5:10], alone.act(observation[5:10])[0])


def test_noise_of_a_task_depends_neither_on_block_sizes_nor_on_steps_before_its_start():
    gaussian = DiagonalGaussian(2)
    ahead, short = (TaskNoise(gaussian, [np.random.default_rng(3)]) for _ in range(2))
    one_by_one = np.concatenate([ahead.take(1)[0] for _ in range(300)])
    assert np.array_equal(one_by_one, np.concatenate([short.take(n)[0] for n in (7, 200, 93)]))
    ahead.restart([0]), short.restart([0])
    ahead.take(11)
    ahead.restart([0]), short.restart([0])
    assert np.array_equal(ahead.take(4), short.take(4))
    assert not np.array_equal(one_by_one[:4], short.take(4)[0])


def test_only_tasks_that_start_get_new_noise():
    noise = TaskNoise(DiagonalGaussian(1), [np.random.default_rng(i) for i in range(2)])
    other = TaskNoise(DiagonalGaussian(1), [np.random.default_rng(i) for i in range(2)])
    for _ in range(5):
        assert np.array_equal(noise.take(1), other.take(1))
    noise.restart([1])
    mine, theirs = noise.take(1), other.take(1)
    assert np.array_equal(mine[0], theirs[0])
    assert not np.array_equal(mine[1], theirs[1])


def test_acting_leaves_the_generator_that_was_handed_in_where_it_was():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    policy = FunctionalPolicy(MLP, one(params_of(MLP, 1), 0), action_space=TORQUES, rng=rng)
    policy.act(rows(3))
    assert rng.bit_generator.state == before


def test_predict_clips_and_act_does_not():
    actions, state, dist_params = singles()[0].act(rows(200))
    clipped, _ = singles()[0].predict(rows(200))
    assert state is None
    assert dist_params.shape == (200, 4)
    assert np.abs(actions).max() > 0.5
    assert np.array_equal(clipped, np.clip(actions, -0.5, 0.5))
    assert actions.dtype == np.float32


def test_one_observation_gives_one_action():
    observation = rows(2)
    batch, _ = singles()[0].predict(observation, deterministic=True)
    assert batch.shape == (2, 2)
    alone, _ = singles()[0].predict(observation[0], deterministic=True)
    # A product with one row is rounded in another order than one with two.
    np.testing.assert_allclose(alone, batch[0], rtol=1e-6)
    table = single(TABLE, one(params_of(TABLE, 1), 0), spaces.Discrete(3), seed=0)
    assert table.predict(np.array(2))[0].shape == ()
    assert table.predict(np.array([2, 1]))[0].shape == (2,)
    with pytest.raises(ValueError, match="dict"):
        table.predict({"x": np.zeros(1)})


def test_later_changes_of_the_parameters_do_not_change_how_it_acts():
    params = one(params_of(MLP, 1), 0)
    policy = single(MLP, params, TORQUES, seed=0)
    before, _ = policy.predict(rows(2), deterministic=True)
    with th.no_grad():
        for tensor in params.values():
            tensor.add_(1.0)
    assert np.array_equal(policy.predict(rows(2), deterministic=True)[0], before)


def test_parts_of_a_stack_hold_their_own_parameters_and_generators():
    policies = FunctionalPolicy.stack(singles())
    for part in (policies[2], policies.subset(slice(2, 4))[0], policies.repeated(3)[7]):
        ours, _ = part.predict(rows(1), deterministic=True)
        assert np.array_equal(ours, singles()[2].predict(rows(1), deterministic=True)[0])
        assert part.rng is policies.rngs[2]
    with pytest.raises(IndexError, match="index=4"):
        policies[4]


def test_action_probabilities_are_those_that_actions_are_drawn_with():
    params = params_of(TABLE, 2)
    rngs = [np.random.default_rng(i) for i in range(2)]
    policies = FunctionalPolicies(TABLE, params, action_space=spaces.Discrete(3), rngs=rngs)
    states = np.arange(4)
    probabilities = policies.action_probabilities(states)
    np.testing.assert_allclose(probabilities, params["logits"].softmax(-1).numpy(), rtol=1e-12)
    assert np.array_equal(policies[1].action_probabilities(states), probabilities[1])
    greedy = policies.action_probabilities(states, deterministic=True)
    assert np.array_equal(greedy.argmax(-1), params["logits"].argmax(-1).numpy())
    assert not hasattr(singles()[0], "action_probabilities")


def test_masks_of_the_env_are_kept_to():
    venv = make_task_vec_env(SMALL, 3, seed=0)
    network = make_network("MlpPolicy", venv.observation_space, venv.action_space)
    rngs = [np.random.default_rng(i) for i in range(3)]
    policies = FunctionalPolicies.shared(
        network, network.initial_params(rngs[0]), 3, action_space=venv.action_space, rng=rngs
    ).in_env(venv)
    observation = venv.reset()
    for step in range(60):
        masks = np.stack(venv.env_method("action_masks"))
        probabilities = policies.action_probabilities(observation)
        for i in range(3):
            assert not probabilities[i, i][~masks[i]].any()
        actions, _ = policies.predict(observation, deterministic=bool(step % 2))
        assert masks[np.arange(3), actions].all()
        observation, *_ = venv.step(actions)


def test_wrong_numbers_and_unlike_policies_are_refused():
    params, rngs = params_of(MLP, 2), [np.random.default_rng(0)]
    with pytest.raises(ValueError, match="2 rows but there are 1 rngs"):
        FunctionalPolicies(MLP, params, action_space=TORQUES, rngs=rngs)
    with pytest.raises(ValueError, match="rngs is empty"):
        FunctionalPolicies(MLP, params, action_space=TORQUES, rngs=[])
    with pytest.raises(ValueError, match="policies is empty"):
        FunctionalPolicy.stack([])
    with pytest.raises(ValueError, match="numbers of updates"):
        adapted = single(MLP, one(params, 0), TORQUES, seed=0, n_updates=1)
        FunctionalPolicy.stack([singles()[0], adapted])
    with pytest.raises(ValueError, match="3 rows for 4"):
        FunctionalPolicy.stack(singles()).predict(rows(3))
    with pytest.raises(ValueError, match="n_tasks=3"):
        FunctionalPolicies.shared(MLP, one(params, 0), 3, action_space=TORQUES, rng=rngs)
